//! What a failed test leaves behind: its story on standard error, its data on a kept server.

mod common;

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{CHILD, Ended, Place};
use testenv::{BoxError, Fixture, Postgres, Redis, Transaction};
use testenv_api::{BrokerStatus, EndedLease, KeptServer, Outcome};

/// Leaves an order of 12, and an error in the server's log.
async fn leave_traces(db: &Postgres) -> Result<(), testenv::Error> {
    let client = db.connect().await?;
    client.execute("INSERT INTO orders (total) VALUES (12)", &[]).await?;
    client.execute("INSERT INTO orders (total) VALUES (-1)", &[]).await.unwrap_err();
    Ok(())
}

fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

#[testenv::test]
#[ignore = "fails when a test below runs it"]
async fn child_panics(db: Postgres, cache: Redis) {
    leave_traces(&db).await.unwrap();
    drop((db, cache));
    assert!(!is_child(), "on purpose");
}

#[testenv::test]
#[ignore = "fails when a test below runs it"]
async fn child_errs(db: Postgres) -> anyhow::Result<()> {
    leave_traces(&db).await?;
    anyhow::ensure!(!is_child(), "on purpose");
    Ok(())
}

#[test]
#[ignore = "fails when a test below runs it"]
fn child_panics_without_macro() {
    let _db = testenv::postgres().unwrap();
    assert!(!is_child(), "on purpose");
}

#[testenv::test]
#[ignore = "fails when a test below runs it"]
async fn child_fails_in_a_transaction(tx: Transaction) {
    tx.execute("INSERT INTO orders (total) VALUES (12)", &[]).await.unwrap();
    assert!(!is_child(), "on purpose");
}

struct Broken;

impl Fixture for Broken {
    type Needs = Postgres;

    fn set_up(_: Postgres) -> Result<Self, BoxError> {
        if is_child() { Err("the port is taken".into()) } else { Ok(Self) }
    }
}

#[testenv::test]
#[ignore = "fails when a test below runs it"]
fn child_cannot_be_set_up(_: Broken) {}

#[testenv::test]
#[ignore = "fails when a test below runs it"]
#[should_panic]
fn child_cannot_be_set_up_and_should_panic(_: Broken) {
    panic!("the body begins only where it is no child");
}

#[testenv::test]
#[ignore = "fails when a test below runs it"]
#[should_panic]
fn child_should_panic_and_does_not(_: Postgres) {
    assert!(is_child(), "as it should");
}

#[testenv::test]
#[ignore = "run by a test below"]
fn child_passes(db: Postgres) {
    assert!(db.port() > 0);
}

/// Asks again until there is an answer: the broker takes leases back a moment after their process has ended.
fn until<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "no answer within 10 s");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The servers that are kept once no lease is held any more.
fn kept(place: &Place) -> Vec<KeptServer> {
    let client = place.client().unwrap();
    until(|| {
        let status: BrokerStatus = client.get("/v1/status").unwrap();
        status.leases.is_empty().then_some(status.kept)
    })
}

/// What the kept server that the output leads to answers.
fn ask_kept(ended: &Ended, query: &str) -> String {
    let mut lines = ended.output.lines().skip_while(|line| !line.contains("kept as the test left it"));
    let command = lines.nth(1).expect("the line below has the command").trim();
    let mut shell = Command::new("sh")
        .args(["-c", &format!("{command} --tuples-only --no-align")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    shell.stdin.take().unwrap().write_all(query.as_bytes()).unwrap();
    let answer = shell.wait_with_output().unwrap();
    assert!(answer.status.success(), "{command}: {answer:?}");
    String::from_utf8(answer.stdout).unwrap().trim().to_owned()
}

#[test]
fn a_panic_tells_the_story_and_the_command_leads_to_the_data() {
    let place = Place::new();
    let ended = place.run("child_panics", &[]);
    ended.assert_failed_with(&[
        "on purpose",
        "testenv: `database` (postgres ",
        "testenv: `cache` (redis ",
        "violates check constraint",
        "kept as the test left it, for ",
        "psql",
        "redis-cli",
        "`testenv down` ends it sooner",
    ]);
    assert_eq!(ask_kept(&ended, "SELECT total FROM orders;"), "12");

    let kept = kept(&place);
    assert_eq!(kept.len(), 2, "{kept:#?}");
    assert_eq!(kept[0].test.as_deref(), Some("failure::child_panics"));
}

#[test]
fn an_error_tells_the_story_too() {
    let ended = Place::new().run("child_errs", &[]);
    ended.assert_failed_with(&[
        "Error: on purpose",
        "testenv: `database`",
        "violates check constraint",
        "psql",
    ]);
    let (error, story) = (ended.output.find("on purpose").unwrap(), ended.output.find("testenv: `").unwrap());
    assert!(error < story, "the story comes below what went wrong:\n{}", ended.output);
}

#[test]
fn a_handle_of_a_function_tells_it_on_a_panic() {
    Place::new().run("child_panics_without_macro", &[]).assert_failed_with(&[
        "on purpose",
        "kept as",
        "psql",
    ]);
}

#[test]
fn a_transaction_is_not_kept_and_says_so() {
    let ended = Place::new().run("child_fails_in_a_transaction", &[]);
    ended.assert_failed_with(&["on purpose", "the shared database", "rolled back"]);
    assert!(!ended.output.contains("kept as the test left it"), "{}", ended.output);
}

#[test]
fn a_fixture_that_cannot_be_set_up_fails_the_test_with_its_story() {
    let place = Place::new();
    let said = ["the set-up of the fixture failure::Broken failed", "| the port is taken", "kept as"];
    place.run("child_cannot_be_set_up", &[]).assert_failed_with(&said);
    place.run("child_cannot_be_set_up_and_should_panic", &[]).assert_failed_with(&said);
}

#[test]
fn a_wanted_panic_that_does_not_come_is_a_failure() {
    Place::new()
        .run("child_should_panic_and_does_not", &[])
        .assert_failed_with(&["did not panic as expected", "kept as the test left it"]);
}

#[test]
fn keep_never_keeps_nothing() {
    let place = Place::new();
    let ended = place.run("child_panics", &[("TESTENV_KEEP", "never")]);
    ended.assert_failed_with(&["on purpose", "violates check constraint", "not kept"]);
    assert_eq!(kept(&place), []);
}

/// Checks that a passing child says that it passed, told by the broker's record of its attempt.
fn assert_says_that_it_passed(variables: &[(&str, &str)]) {
    let place = Place::new();
    let attempt = [("NEXTEST_ATTEMPT_ID", "run-1:bin$child_passes")];
    let ended = place.run("child_passes", &[variables, &attempt].concat());
    assert!(ended.passed, "{}", ended.output);
    let client = place.client().unwrap();
    let ended = until(|| {
        let ended: Vec<EndedLease> = client.get("/v1/leases/ended?attempt_prefix=run-1").unwrap();
        (!ended.is_empty()).then_some(ended)
    });
    assert_eq!(ended.len(), 1, "{ended:#?}");
    assert_eq!(ended[0].attempt.as_deref(), Some("run-1:bin$child_passes"));
    assert_eq!(ended[0].outcome, Some(Outcome::Passed));
    assert_eq!(ended[0].kept, None);
}

#[test]
fn a_test_that_passes_says_so_where_that_matters() {
    assert_says_that_it_passed(&[("TESTENV_KEEP", "unless-passed")]);

    let workspace = tempfile::tempdir().unwrap();
    let config = "[broker]\nkeep = \"unless-passed\"\n\n[services.database]\nservice = \"postgres\"\n";
    std::fs::write(workspace.path().join("testenv.toml"), config).unwrap();
    assert_says_that_it_passed(&[("TESTENV_WORKSPACE", workspace.path().to_str().unwrap())]);
}
