use std::time::{Duration, Instant};

use testkit::{Sql, TestWorkspace};

use crate::{MIGRATION, TESTENV, assert_says};

fn postgres(lines: &str) -> TestWorkspace {
    TestWorkspace::new(TESTENV).config(&format!("[services.database]\nservice = \"postgres\"\n{lines}\n"))
}

#[test]
fn a_migration_that_fails_is_named_with_its_line() {
    let workspace = postgres("migrations = \"migrations\"").file("migrations/1_items.sql", MIGRATION).file(
        "migrations/2_broken.sql",
        "CREATE TABLE fine (id int);\n\nALTER TABLE missing ADD COLUMN x int;\n",
    );
    let message = workspace.refusal("database");
    assert_says(
        &message,
        &["preparing database: migrations/2_broken.sql failed", "relation \"missing\" does not exist"],
    );
    workspace.write("migrations/2_broken.sql", "CREATE TABLE fine (id int);\n\nSELEC 1;\n");
    let message = workspace.refusal("database");
    assert_says(&message, &["syntax error", "at migrations/2_broken.sql:3"]);
    workspace.write("migrations/2_broken.sql", "CREATE TABLE fine (id int);");
    drop(workspace.lease("database"));
    workspace.end();
}

#[test]
fn a_migration_that_hangs_is_ended_and_named() {
    let workspace = postgres("migrations = \"migrations\"\nprepare_timeout = \"2s\"")
        .file("migrations/1_items.sql", MIGRATION)
        .file("migrations/2_sleep.sql", "SELECT pg_sleep(600);");
    // Once with the time of `initdb`, which other tests may have spent already; then it is the migration's turn.
    let _ = workspace.try_lease(&role());
    let begun = Instant::now();
    let message = workspace.refusal("database");
    assert_says(
        &message,
        &["migrations/2_sleep.sql", "2 s", "pg_sleep", "raise `prepare_timeout` of services.database"],
    );
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    workspace.end();
}

#[test]
fn a_command_that_hangs_is_ended_with_all_it_started() {
    for command in ["sleep 600", "sleep 600 & sleep 600 & wait", "exec >/dev/null 2>&1; sleep 600", "yes"] {
        let workspace = postgres(&format!(
            "migrations = {{ command = \"{command}\", inputs = [] }}\nprepare_timeout = \"2s\""
        ));
        let begun = Instant::now();
        let message = workspace.refusal("database");
        assert_says(&message, &[command, "did not end in time", "raise `prepare_timeout`"]);
        assert!(begun.elapsed() < Duration::from_secs(15), "{command}: {:?}", begun.elapsed());
        workspace.end();
    }
}

#[test]
fn a_command_that_fails_is_shown_with_what_it_said() {
    let workspace = postgres("migrations = { command = \"echo one; echo two >&2; exit 3\", inputs = [] }");
    let message = workspace.refusal("database");
    assert_says(&message, &["`echo one; echo two >&2; exit 3` failed", "exit status: 3", "one", "two"]);
    workspace.end();
}

#[test]
fn a_command_prepares_with_the_environment_of_the_role() {
    if !testkit::have("psql") {
        return testkit::skip("there is no psql");
    }
    let workspace = postgres(
        "migrations = { command = \"psql -v ON_ERROR_STOP=1 -f schema.sql\", inputs = [\"schema.sql\"] }\n\
         seed = { command = \"psql \\\"$DATABASE_URL\\\" -c \\\"INSERT INTO items (name) VALUES ('seed')\\\"\", inputs = [] }",
    )
    .file("schema.sql", MIGRATION);
    let held = workspace.lease("database");
    let names: Vec<String> =
        Sql::connect(held.lease()).unwrap().column("SELECT name FROM items ORDER BY id").unwrap();
    assert_eq!(names, ["one", "two", "three", "seed"]);
    drop(held);
    workspace.end();
}

#[test]
fn a_new_migration_is_seen_by_the_next_lease_and_only_it_is_applied() {
    // The stamp tells whether the first file was applied anew.
    let workspace = postgres("migrations = \"migrations\"").file(
        "migrations/1_stamp.sql",
        "CREATE TABLE stamp AS SELECT clock_timestamp()::text AS at, gen_random_uuid()::text AS id;",
    );
    let stamp = |sql: &Sql| sql.one::<String>("SELECT at || id FROM stamp").unwrap();
    let first = workspace.lease("database");
    let before = stamp(&Sql::connect(first.lease()).unwrap());
    workspace.write("migrations/2_items.sql", MIGRATION);
    let second = workspace.lease("database");
    let sql = Sql::connect(second.lease()).unwrap();
    assert_eq!(sql.one::<i64>("SELECT count(*) FROM items").unwrap(), 3);
    assert_eq!(stamp(&sql), before, "the first migration was applied again");
    assert_ne!(first.lease().snapshot, second.lease().snapshot);
    // The first lease is as it was.
    let old = Sql::connect(first.lease()).unwrap();
    assert_eq!(old.one::<i64>("SELECT count(*) FROM pg_class WHERE relname = 'items'").unwrap(), 0);
    workspace.write("migrations/2_items.sql", "CREATE TABLE others (id int);");
    let third = workspace.lease("database");
    let sql = Sql::connect(third.lease()).unwrap();
    assert_eq!(
        sql.one::<i64>("SELECT count(*) FROM pg_class WHERE relname IN ('items', 'others')").unwrap(),
        1
    );
    drop((first, second, third));
    workspace.end();
}

#[test]
fn seeds_come_after_migrations_and_redis_takes_commands() {
    let workspace = TestWorkspace::new(TESTENV)
        .config(
            "[services.database]\nservice = \"postgres\"\nseed = \"seed.sql\"\nmigrations = [\"a.sql\", \"b.sql\"]\n\
             [services.cache]\nservice = \"redis\"\nseed = \"seed.redis\"\n",
        )
        .file("a.sql", MIGRATION)
        .file("b.sql", "ALTER TABLE items ADD COLUMN price int NOT NULL DEFAULT 7;")
        .file("seed.sql", "UPDATE items SET price = 9 WHERE name = 'two';")
        .file("seed.redis", "# a comment\nSET greeting \"hello world\"\nLPUSH list 1 2 3\n");
    let (db, cache) = (workspace.lease("database"), workspace.lease("cache"));
    let prices: Vec<i32> =
        Sql::connect(db.lease()).unwrap().column("SELECT price FROM items ORDER BY id").unwrap();
    assert_eq!(prices, [7, 9, 7]);
    let mut redis = testkit::redis(cache.lease()).unwrap();
    let greeting: String = redis::cmd("GET").arg("greeting").query(&mut redis).unwrap();
    let length: i64 = redis::cmd("LLEN").arg("list").query(&mut redis).unwrap();
    assert_eq!((greeting.as_str(), length), ("hello world", 3));
    drop((db, cache));
    workspace.end();
}

#[test]
fn paths_may_hold_any_character() {
    let odd = "odd, na:me\\ 'x' \"y\" ü";
    for more in ["", "[cache]\nstorage = \"disk\"\nfork = \"copy\"\n"] {
        let workspace = TestWorkspace::new(TESTENV)
            .config(&format!("[services.database]\nservice = \"postgres\"\nmigrations = {odd:?}\n{more}"))
            .file(&format!("{odd}/1 {odd}.sql"), MIGRATION);
        let cache = workspace.base().join(odd);
        let workspace = workspace.cache(cache);
        for isolation in [testenv_api::Isolation::Server, testenv_api::Isolation::Namespace] {
            let held =
                workspace.lease_as(&testenv_api::LeaseRequest { isolation: Some(isolation), ..role() });
            assert_eq!(
                Sql::connect(held.lease()).unwrap().one::<i64>("SELECT count(*) FROM items").unwrap(),
                3
            );
        }
        workspace.end();
    }
}

#[test]
fn what_is_no_file_is_not_waited_for() {
    let workspace = postgres("migrations = \"migrations\"").file("migrations/1_items.sql", MIGRATION);
    let pipe = workspace.root().join("migrations/2_pipe.sql");
    let made = testkit::run(std::process::Command::new("mkfifo").arg(&pipe), Duration::from_secs(10));
    let _ = made.expect_success();
    let begun = Instant::now();
    let message = workspace.refusal("database");
    assert_says(&message, &["migrations/2_pipe.sql", "not a regular file"]);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    std::fs::remove_file(pipe).unwrap();
    drop(workspace.lease("database"));
    workspace.end();
}

#[test]
fn who_gives_up_waiting_does_not_have_it_prepared_again() {
    let workspace =
        postgres("migrations = { command = \"echo once >> count; sleep 2\", inputs = [] }").own_cache();
    for _ in 0..3 {
        let impatient = testenv_api::LeaseRequest { wait_ms: Some(600), ..role() };
        let message = workspace.try_lease(&impatient).unwrap_err();
        assert_says(&message, &["no database within 600 ms", "last seen"]);
    }
    let namespace = Some(testenv_api::Isolation::Namespace);
    let held = (
        workspace.lease("database"),
        workspace.lease_as(&testenv_api::LeaseRequest { isolation: namespace, ..role() }),
    );
    assert_eq!(std::fs::read_to_string(workspace.root().join("count")).unwrap(), "once\n");
    drop(held);
    workspace.end();
}

#[test]
fn a_broken_configuration_is_told_with_its_place_and_read_again() {
    let workspace = TestWorkspace::new(TESTENV).config("[services.database]\nservice = \"postgers\"\n");
    let message = workspace.refusal("database");
    assert_says(&message, &["testenv.toml cannot be used", "postgers", "line 2"]);
    workspace.write("testenv.toml", "[services.database]\nservice = \"postgres\"\n");
    drop(workspace.lease("database"));
    workspace.end();
}

fn role() -> testenv_api::LeaseRequest {
    testenv_api::LeaseRequest { role: Some("database".into()), ..Default::default() }
}
