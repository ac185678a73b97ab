use testenv_api::{Isolation, Lease, LeaseRequest};
use testkit::{Clickhouse, TestWorkspace, User, have, needs_root, skip};

use crate::{TESTENV, assert_says};

const EVENTS: &str = "\
-- It's a comment; with a semicolon.
SET max_block_size = 1000;
CREATE TABLE events (at Date, id UInt32, name String) ENGINE = MergeTree(at, (id), 8192);
CREATE TABLE tiny (id UInt32) ENGINE = Log;
INSERT INTO events VALUES ('2026-01-01', 1, 'one; \\'x\\''), ('2026-02-01', 2, 'zwei');
INSERT INTO events FORMAT JSONEachRow
{\"at\": \"2026-03-01\", \"id\": 3, \"name\": \"it's;\"}
{\"at\": \"2026-03-02\", \"id\": 4, \"name\": \"four\"}

INSERT INTO tiny VALUES (1);
CREATE VIEW total AS SELECT count() AS c FROM events;
";

fn clickhouse(lines: &str) -> Option<TestWorkspace> {
    clickhouse_in(|| TestWorkspace::new(TESTENV), lines)
}

fn clickhouse_in(make: impl FnOnce() -> TestWorkspace, lines: &str) -> Option<TestWorkspace> {
    if !have("clickhouse-server") && !have("clickhouse") || !have("curl") {
        skip("there is no ClickHouse, or no curl");
        return None;
    }
    Some(make().config(&format!("[services.database]\nservice = \"clickhouse\"\n{lines}\n")))
}

fn events(lines: &str) -> Option<TestWorkspace> {
    let workspace = clickhouse(&format!("migrations = \"migrations\"\n{lines}"))?;
    Some(workspace.file("migrations/1_events.sql", EVENTS))
}

fn request(isolation: Isolation) -> LeaseRequest {
    LeaseRequest { role: Some("database".into()), isolation: Some(isolation), ..LeaseRequest::default() }
}

fn one(lease: &Lease, sql: &str) -> String {
    Clickhouse::new(lease).run(sql).unwrap().join("\n")
}

#[track_caller]
fn assert_seeded(lease: &Lease) {
    let rows =
        Clickhouse::new(lease).run("SELECT id, name FROM events ORDER BY id FORMAT TabSeparatedRaw").unwrap();
    assert_eq!(rows, ["1\tone; 'x'", "2\tzwei", "3\tit's;", "4\tfour"]);
    assert_eq!(one(lease, "SELECT c, (SELECT count() FROM tiny) FROM total"), "4\t1");
}

/// What moves and removes directories that the migrations made.
const CHANGES: [&str; 7] = [
    "ALTER TABLE events DETACH PARTITION 202601",
    "ALTER TABLE events DROP PARTITION 202602",
    "OPTIMIZE TABLE events FINAL",
    "INSERT INTO tiny VALUES (2)",
    "RENAME TABLE events TO renamed",
    "DROP TABLE renamed",
    "DROP DATABASE app",
];

#[track_caller]
fn check_that_all_changes_work(workspace: &TestWorkspace) {
    let (first, second) = (workspace.lease("database"), workspace.lease("database"));
    assert_seeded(first.lease());
    for change in CHANGES {
        Clickhouse::new(first.lease()).run(change).unwrap_or_else(|error| panic!("{change}: {error}"));
    }
    assert_seeded(second.lease());
    drop((first, second));
    // Nor was the snapshot changed.
    assert_seeded(workspace.lease("database").lease());
}

#[test]
fn a_server_s_lease_is_a_whole_server_of_its_own() {
    let Some(workspace) = events("") else { return };
    check_that_all_changes_work(&workspace);
    workspace.end();
}

#[test]
fn an_ordinary_user_has_the_same() {
    if !needs_root("to become another user") {
        return;
    }
    let make = || TestWorkspace::of_user(TESTENV, User::Nobody);
    let Some(workspace) = clickhouse_in(make, "migrations = \"migrations\"") else { return };
    let workspace = workspace.file("migrations/1_events.sql", EVENTS);
    check_that_all_changes_work(&workspace);
    workspace.end();
}

#[test]
fn nobody_gets_in_without_the_password() {
    let Some(workspace) = clickhouse("") else { return };
    let held = workspace.lease("database");
    for (user, password) in [("default", ""), ("default", "wrong"), ("", ""), ("nobody", "")] {
        let refused = Clickhouse::new(held.lease()).user(user, password).run("SELECT 1").unwrap_err();
        assert_says(&refused, &["Code: "]);
    }
    let native = held.lease().ports["native"];
    assert_ne!(native, held.lease().port);
    std::net::TcpStream::connect(("127.0.0.1", native)).unwrap();
    drop(held);
    workspace.end();
}

#[test]
fn user_password_and_settings_are_those_of_the_configuration() {
    let lines = "database = \"shop\"\nuser = \"shopper\"\npassword = \"<it's & a \\\\ secret>\"\n\
                 [services.database.settings]\nmax_threads = 3\n\"server.max_concurrent_queries\" = 55\n";
    let Some(workspace) = clickhouse(lines) else { return };
    let held = workspace.lease("database");
    let sql = "SELECT currentDatabase(), value, timezone() FROM system.settings WHERE name = 'max_threads'";
    assert_eq!(one(held.lease(), sql), "shop\t3\tEtc/UTC");
    assert_eq!(held.lease().user, "shopper");
    drop(held);
    workspace.end();
}

#[test]
fn databases_of_a_shared_server_are_apart() {
    let Some(workspace) = events("") else { return };
    let namespace = request(Isolation::Namespace);
    let (first, second) = (workspace.lease_as(&namespace), workspace.lease_as(&namespace));
    assert_eq!(first.lease().port, second.lease().port);
    assert_seeded(first.lease());
    Clickhouse::new(first.lease()).run("DROP TABLE events").unwrap();
    assert_seeded(second.lease());
    let gone = first.lease().database.clone();
    drop(first);
    testkit::until(std::time::Duration::from_secs(10), || {
        match Clickhouse::new(second.lease()).run(&format!("EXISTS TABLE {gone}.total")) {
            Ok(there) if there == ["1"] => Err(format!("{gone} is still there")),
            _ => Ok(()),
        }
    });
    drop(second);
    workspace.end();
}

#[test]
fn a_migration_that_fails_is_named_with_its_line() {
    let Some(workspace) = events("") else { return };
    for (content, says) in [
        ("SELECT 1;\n\nINSERT INTO missing\nVALUES (1);\n", ["2_broken.sql:3 failed", "missing"]),
        ("SELECT 1;\n\nSELECT\n  1,\n  2 3;\n", ["2_broken.sql:5 failed", "Syntax error"]),
        ("SELECT 1;\nSELECT 'x;\n", ["2_broken.sql:2 cannot be read", "never closed"]),
        ("INSERT INTO tiny FORMAT TSV\n1\nx\n\nSELECT 1", ["2_broken.sql:1 failed", "Code: "]),
    ] {
        workspace.write("migrations/2_broken.sql", content);
        let message = workspace.refusal("database");
        assert_says(&message, &["preparing database: migrations/"]);
        assert_says(&message, &says);
        assert!(!message.contains("libPoco"), "{message}");
    }
    workspace.write("migrations/2_broken.sql", "-- nothing but a comment\n");
    assert_seeded(workspace.lease("database").lease());
    workspace.end();
}

#[test]
fn a_migration_that_hangs_is_ended_and_named() {
    let Some(workspace) = events("prepare_timeout = \"3s\"") else { return };
    let slow = "SELECT 1;\nSELECT count() FROM system.numbers WHERE NOT ignore(sleep(1));";
    let workspace = workspace.file("migrations/2_slow.sql", slow);
    let _ = workspace.try_lease(&request(Isolation::Server));
    let message = workspace.refusal("database");
    assert_says(&message, &["migrations/2_slow.sql:2", "3 s", "system.numbers", "raise `prepare_timeout`"]);
    workspace.end();
}

#[test]
fn settings_that_testenv_needs_are_refused_and_unknown_ones_told() {
    for name in ["server.http_port", "server.logger.level", "max-threads"] {
        let Some(workspace) = clickhouse(&format!("settings = {{ \"{name}\" = 1 }}")) else { return };
        let message = workspace.refusal("database");
        assert_says(&message, &[&format!("services.database.settings.{name} cannot be set")]);
        workspace.end();
    }
    let Some(workspace) = clickhouse("settings = { no_such_setting = 1 }") else { return };
    assert_says(&workspace.refusal("database"), &["did not start", "no_such_setting"]);
    workspace.end();
}

#[test]
fn the_command_that_connects_does_and_the_environment_leads_there() {
    let Some(workspace) = events("") else { return };
    let held = workspace.lease("database");
    let command = format!("echo 'SELECT c FROM total' | {}", held.lease().connect_command);
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &command]);
    let ran = testkit::run(&mut shell, std::time::Duration::from_secs(20)).expect_success();
    assert_eq!(ran.stdout.trim(), "4");
    let env = &held.lease().env;
    assert_eq!(env["CLICKHOUSE_URL"], held.lease().url);
    assert_eq!(env["CLICKHOUSE_NATIVE_PORT"], held.lease().ports["native"].to_string());
    drop(held);
    workspace.end();
}

#[test]
fn each_lease_has_a_database_of_its_own_in_a_declared_server() {
    let Some(provider) = clickhouse("") else { return };
    let server = provider.lease("database");
    let Some(workspace) = events("runtime = \"external\"") else { return };
    let workspace = workspace.env("CLICKHOUSE_URL", &server.lease().url);
    let (first, second) = (workspace.lease("database"), workspace.lease("database"));
    assert_eq!(first.lease().runtime, "external");
    Clickhouse::new(first.lease()).run("DROP TABLE events").unwrap();
    assert_seeded(second.lease());
    drop((first, second));
    workspace.end();
    let left = Clickhouse::new(server.lease()).run("SHOW DATABASES").unwrap();
    assert!(left.iter().all(|name| !name.starts_with("t_")), "{left:?}");
    drop(server);
    provider.end();
}
