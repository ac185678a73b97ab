//! Leases by macro and by function: what a test gets, and when it is given back.

use std::error::Error as _;
use std::path::Path;
use std::time::{Duration, Instant};

use testenv::{AsyncFixture, BoxError, Fixture, Isolation, Postgres, Redis, ServiceKind};
use testenv_api::HeldLease;
use testenv_api::client::Client;
use testenv_api::discovery::Workspace;

/// The leases that the broker says are held.
fn held() -> Vec<HeldLease> {
    let workspace = Workspace::find(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
    Client::of(&workspace).get("/v1/leases").unwrap()
}

fn is_held(id: &str) -> bool {
    held().iter().any(|lease| lease.id == id)
}

/// The broker notices a closed connection in its own time, which is short.
fn assert_given_back(id: &str) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while is_held(id) {
        assert!(Instant::now() < deadline, "lease {id} is still held: {:#?}", held());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[testenv::test]
fn nothing_is_a_valid_wish() {}

#[testenv::test]
fn a_sync_test_has_its_own_services(db: Postgres, cache: Redis) {
    assert!(db.url().starts_with("postgres://"), "{db:?}");
    assert!(cache.url().starts_with("redis://"), "{cache:?}");
    assert_eq!(db.lease().service, ServiceKind::Postgres);
    assert_eq!(db.lease().role, "database");
    assert_eq!(cache.lease().role, "cache");
    assert!(db.socket().is_dir());
    assert!(cache.socket().exists());
    for lease in [db.lease(), cache.lease()] {
        let found = held().into_iter().find(|held| held.id == lease.id).expect("the lease is held");
        assert_eq!(found.test.as_deref(), Some("leases::a_sync_test_has_its_own_services"));
        assert_eq!(found.pid, Some(std::process::id()));
    }
}

#[testenv::test]
async fn an_async_test_may_fail_with_any_error(mut db: Postgres) -> anyhow::Result<()> {
    let first = db.lease().id.clone();
    db = Postgres::builder().acquire()?;
    anyhow::ensure!(db.lease().id != first);
    Ok(())
}

#[testenv::test(isolation = "namespace")]
fn isolation_is_chosen_for_the_test_or_for_one_argument(
    db: Postgres,
    #[testenv(role = "database", isolation = "server")] other: Postgres,
) {
    assert_eq!(db.lease().isolation, Isolation::Namespace);
    assert_eq!(other.lease().isolation, Isolation::Server);
    assert_ne!(db.url(), other.url());
}

#[testenv::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handle_goes_to_other_threads(db: Postgres) -> Result<(), tokio::task::JoinError> {
    let id = db.lease().id.clone();
    let other = tokio::spawn(async move { db.lease().id.clone() }).await?;
    assert_eq!(id, other);
    assert!(is_held(&id), "the test's arguments are held until it ends");
    Ok(())
}

/// An executor that is not tokio's: it polls until there is a result.
fn busy<F: Future>(future: F) -> F::Output {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let mut future = std::pin::pin!(future);
    loop {
        if let std::task::Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
}

#[testenv::test(block_on = "busy")]
async fn an_executor_of_ones_own_is_enough(db: Postgres) {
    assert!(tokio::runtime::Handle::try_current().is_err());
    let error = db.connect().await.unwrap_err();
    assert!(error.to_string().contains("needs a tokio runtime"), "{error}");
}

#[testenv::test]
#[should_panic(expected = "as it should")]
fn a_wanted_panic_is_a_pass(db: Postgres) {
    assert!(db.port() > 0);
    panic!("as it should");
}

#[testenv::test]
fn another_termination_than_a_result(_: Redis) -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}

/// Names and types that come out of another macro have places and meanings of their own.
macro_rules! has_a_port {
    ($visibility:vis $name:ident, $fixture:ty) => {
        #[testenv::test]
        $visibility fn $name(it: $fixture, #[testenv(role = "cache")] other: Redis) {
            assert_ne!(it.port(), other.port());
        }
    };
}

has_a_port!(made_by_a_macro, Postgres);
has_a_port!(pub(crate) made_by_a_macro_too, testenv::Redis);

#[test]
fn functions_do_what_the_macro_does() {
    let (db, cache) = testenv::acquire((Postgres::builder(), Redis::builder().role("cache"))).unwrap();
    let (first, second) = (db.lease().id.clone(), cache.lease().id.clone());
    assert!(is_held(&first) && is_held(&second));
    let test = held().into_iter().find(|held| held.id == first).unwrap().test;
    // libtest names the thread after the test, unless it has one thread only.
    assert!(matches!(test.as_deref(), None | Some("functions_do_what_the_macro_does")), "{test:?}");
    drop(cache);
    assert_given_back(&second);
    assert!(is_held(&first));
}

#[test]
fn the_last_clone_gives_the_lease_back() {
    let db = testenv::postgres().unwrap();
    let id = db.lease().id.clone();
    let clone = db.clone();
    drop(db);
    assert!(is_held(&id));
    drop(clone);
    assert_given_back(&id);
    let cache = testenv::redis().unwrap();
    let id = cache.lease().id.clone();
    drop(cache);
    assert_given_back(&id);
}

#[test]
fn a_lease_that_cannot_be_had_gives_the_others_back() {
    let error = testenv::acquire((Postgres::builder(), Redis::builder().role("nowhere"))).unwrap_err();
    assert!(error.to_string().contains("nowhere"), "{error}");
    assert!(error.source().is_none(), "the text is the whole story");

    // Tests that run beside this one hold leases too, under their own names.
    let is_mine = |lease: &HeldLease| {
        let name = lease.test.as_deref().unwrap_or("gives_the_others_back");
        lease.pid == Some(std::process::id()) && name.ends_with("gives_the_others_back")
    };
    let deadline = Instant::now() + Duration::from_secs(5);
    while let Some(lease) = held().into_iter().find(is_mine) {
        assert!(Instant::now() < deadline, "still held: {lease:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_role_of_another_service_is_refused() {
    let error = Postgres::builder().role("cache").acquire().unwrap_err();
    assert!(
        error.to_string().contains("the role `cache` is redis, but the test asks for postgres"),
        "{error}"
    );
}

#[test]
fn no_debug_output_has_the_password() {
    let db = testenv::postgres().unwrap();
    assert!(!db.password().is_empty());
    assert!(db.url().contains(db.password()));
    assert!(!format!("{db:?}").contains(db.password()));
    assert!(!format!("{:?}", Some((&db, 1))).contains(db.password()));
}

#[testenv::test]
fn the_log_and_the_environment_of_a_lease(db: Postgres) {
    assert_eq!(db.env().get("DATABASE_URL").map(String::as_str), Some(db.url()));
    assert!(db.connect_command().contains("psql"), "{}", db.connect_command());
    db.logs().unwrap();
}

struct App {
    db: Postgres,
    cache: Redis,
}

impl Fixture for App {
    type Needs = (Postgres, Redis);

    fn set_up((db, cache): (Postgres, Redis)) -> Result<Self, BoxError> {
        Ok(Self { db, cache })
    }
}

struct Started {
    app: App,
    answer: u32,
}

impl AsyncFixture for Started {
    type Needs = <App as Fixture>::Needs;

    async fn set_up(needs: Self::Needs) -> Result<Self, BoxError> {
        let app = <App as Fixture>::set_up(needs)?;
        tokio::time::sleep(Duration::from_millis(1)).await;
        Ok(Self { app, answer: 42 })
    }
}

#[testenv::test]
fn fixtures_are_made_of_leases(App { db, cache }: App, other: App) {
    assert_ne!(db.lease().id, other.db.lease().id);
    assert_ne!(cache.lease().id, other.cache.lease().id);
}

#[testenv::test]
async fn fixtures_may_wait(started: Started, _: Postgres) {
    assert_eq!(started.answer, 42);
    assert!(started.app.db.url().starts_with("postgres://"));
}

/// All roles of the workspace, by the names of the fields, or by the role given.
#[derive(testenv::Context)]
struct Backends {
    /// A role of this name.
    database: Postgres,
    #[testenv(role = "cache")]
    sessions: Redis,
}

#[testenv::test]
fn a_context_is_leased_as_a_whole_and_says_where_everything_is(backends: Backends) {
    use testenv::Context as _;

    assert_eq!(backends.database.lease().role, "database");
    assert_eq!(backends.sessions.lease().role, "cache");
    let env = backends.env();
    assert_eq!(env["DATABASE_URL"], backends.database.url());
    assert_eq!(env["REDIS_URL"], backends.sessions.url());
}
