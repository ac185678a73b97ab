//! Servers that others run, declared by a variable. Here, the others are another workspace.

use redis::Commands as _;
use testenv_api::client::Held;
use testenv_api::{Isolation, LeaseRequest};
use testkit::{Sql, TestWorkspace};

use crate::{CONFIG, MIGRATION, TESTENV, assert_says, prepared};

/// Both roles, each taken from a server that a variable names, if it is set.
fn consumer(provider: &Provider, more: &str) -> TestWorkspace {
    let config =
        CONFIG.replace("[services.cache]", "runtime = \"auto\"\n[services.cache]\nruntime = \"external\"");
    TestWorkspace::new(TESTENV)
        .config(&format!("{config}{more}"))
        .file("migrations/1_items.sql", MIGRATION)
        .env("DATABASE_URL", &provider.database.lease().url)
        .env("REDIS_URL", &provider.cache.lease().url)
}

/// Real servers, over TCP and with passwords.
struct Provider {
    database: Held,
    cache: Held,
    workspace: TestWorkspace,
}

impl Provider {
    fn new() -> Self {
        let workspace = TestWorkspace::new(TESTENV)
            .config("[services.database]\nservice = \"postgres\"\n[services.cache]\nservice = \"redis\"\n");
        Self { database: workspace.lease("database"), cache: workspace.lease("cache"), workspace }
    }

    /// Names of the databases that tests were given, and of templates.
    fn databases(&self) -> Vec<String> {
        let sql = "SELECT datname FROM pg_database WHERE datname LIKE 't\\_%' ORDER BY 1";
        Sql::connect(self.database.lease()).unwrap().column(sql).unwrap()
    }

    fn end(self) {
        drop((self.database, self.cache));
        self.workspace.end();
    }
}

#[test]
fn each_lease_has_a_prepared_database_of_its_own_in_the_declared_server() {
    let provider = Provider::new();
    let workspace = consumer(&provider, "");
    let (one, two) = (workspace.lease("database"), workspace.lease("database"));
    assert_eq!((one.lease().runtime.as_str(), one.lease().isolation), ("external", Isolation::Namespace));
    assert_eq!(one.lease().port, provider.database.lease().port);
    assert!(one.lease().engine.version.starts_with(|c: char| c.is_ascii_digit()), "{:?}", one.lease().engine);
    let count = |held: &Held| {
        Sql::connect_url(&held.lease().url).unwrap().one::<i64>("SELECT count(*) FROM items").unwrap()
    };
    Sql::connect_url(&one.lease().url).unwrap().run("DELETE FROM items").unwrap();
    assert_eq!((count(&one), count(&two)), (0, 3));
    drop((one, two));
    workspace.end();
    let left = provider.databases();
    assert!(left.iter().all(|name| name.starts_with("t_tpl_")) && left.len() == 1, "{left:?}");
    // The next run finds the template prepared.
    let workspace = consumer(&provider, "");
    assert_eq!(count(&workspace.lease("database")), 3);
    assert_eq!(provider.databases().iter().filter(|name| name.starts_with("t_tpl_")).count(), 1);
    workspace.end();
    provider.end();
}

#[test]
fn each_lease_has_a_numbered_database_of_the_declared_redis() {
    let provider = Provider::new();
    let workspace = consumer(&provider, "");
    let (one, two) = (workspace.lease("cache"), workspace.lease("cache"));
    let open =
        |held: &Held| redis::Client::open(held.lease().url.as_str()).unwrap().get_connection().unwrap();
    let () = open(&one).set("key", "one").unwrap();
    assert_eq!(open(&two).get::<_, Option<String>>("key").unwrap(), None);
    assert_ne!(one.lease().database, two.lease().database);
    drop((one, two));
    workspace.end();
    let keys: Vec<String> =
        testkit::redis(provider.cache.lease()).unwrap().hvals("testenv:databases").unwrap();
    assert_eq!(keys, [""; 0]);
    provider.end();
}

#[test]
fn what_a_killed_broker_left_behind_is_removed_by_the_next() {
    let provider = Provider::new();
    let workspace = consumer(&provider, "");
    let held = workspace.lease("database");
    let name = held.lease().database.clone();
    crate::replacing::kill(workspace.broker_pid().unwrap());
    drop(held);
    assert!(provider.databases().contains(&name));
    let next = workspace.lease("database");
    let databases = provider.databases();
    assert!(!databases.contains(&name), "{name} is still among {databases:?}");
    drop(next);
    workspace.end();
    provider.end();
}

#[test]
fn a_server_full_of_what_others_left_is_refused_until_it_is_cleaned() {
    let provider = Provider::new();
    let sql = Sql::connect(provider.database.lease()).unwrap();
    for number in 0..3 {
        sql.run(&format!("CREATE DATABASE t_other_{number}")).unwrap();
    }
    let workspace = consumer(&provider, "[external]\nmax_leftovers = 2\n");
    let message = workspace.refusal("database");
    assert_says(
        &message,
        &["full of what others left behind", "3 names begin with t_, 2 are allowed", "t_other_0"],
    );
    assert_says(&message, &["testenv clean --external database"]);
    let cleaned = workspace.run(&["clean", "--external", "database"]);
    assert_says(&cleaned.stdout, &["removed 3 namespaces from the external server of database"]);
    drop(workspace.lease("database"));
    workspace.end();
    provider.end();
}

#[test]
fn a_declaration_that_cannot_be_used_is_told_without_its_password() {
    let provider = Provider::new();
    let lease = provider.database.lease();
    let wrong = lease.url.replace(&lease.password, "wr0ng");
    let nobody = format!("postgres://{}:wr0ng@127.0.0.1:1/app", lease.user);
    for (value, expected) in [
        (
            wrong.as_str(),
            &["cannot be used", "DATABASE_URL names 127.0.0.1", "password authentication failed"][..],
        ),
        (&nobody, &["cannot be used", "DATABASE_URL names 127.0.0.1:1", "Connection refused"]),
        ("mysql://u:wr0ng@h/d", &["does not say where", "its scheme is \"mysql\""]),
        ("wr0ng", &["does not say where", "it is no URL"]),
    ] {
        let workspace = consumer(&provider, "").env("DATABASE_URL", value);
        let message = workspace.refusal("database");
        assert_says(&message, expected);
        assert!(!message.contains("wr0ng"), "the password is in it:\n{message}");
        workspace.end();
    }
    provider.end();
}

#[test]
fn without_the_variable_auto_is_native_and_external_is_refused() {
    let provider = Provider::new();
    let workspace = consumer(&provider, "").env("DATABASE_URL", "").env("REDIS_URL", "");
    assert_eq!(workspace.lease("database").lease().runtime, "native");
    assert_says(&workspace.refusal("cache"), &["services.cache is external, and REDIS_URL is not set"]);
    workspace.end();
    provider.end();
}

#[test]
fn nobody_has_an_external_server_alone_and_shared_leases_share_a_namespace() {
    let provider = Provider::new();
    let workspace = consumer(&provider, "");
    let with = |isolation| LeaseRequest {
        role: Some("database".into()),
        isolation: Some(isolation),
        ..LeaseRequest::default()
    };
    let message = workspace.try_lease(&with(Isolation::Server)).unwrap_err();
    assert_says(&message, &["the server that DATABASE_URL names", "isolation `namespace`"]);
    let (one, two) =
        (workspace.lease_as(&with(Isolation::Shared)), workspace.lease_as(&with(Isolation::Shared)));
    assert_eq!(one.lease().database, two.lease().database);
    drop((one, two));
    workspace.end();
    provider.end();
}

#[test]
fn a_runtime_that_is_required_is_the_only_one() {
    let provider = Provider::new();
    let workspace = consumer(&provider, "[runtime]\nrequire = \"native\"\n");
    assert_says(
        &workspace.refusal("database"),
        &["services.database would run external, and runtime.require forbids it"],
    );
    workspace.end();
    provider.end();
}

#[test]
fn a_lease_is_not_taken_for_a_server_that_ci_declares() {
    let workspace = prepared(TestWorkspace::new(TESTENV), "[runtime]\ndefault = \"auto\"\n");
    let testenv = workspace.command(&[]).get_program().to_owned();
    // A broker that is started from inside a lease's environment.
    let script = format!("{0} down && {0} exec --role database -- env", testenv.to_string_lossy());
    let ran = workspace.run(&["exec", "--role", "database", "--", "sh", "-c", &script]);
    assert_says(&ran.stdout, &["DATABASE_URL=postgres://postgres:"]);
    assert!(workspace.status().pools.iter().all(|pool| pool.engine.sha256.len() == 64));
    workspace.end();
}
