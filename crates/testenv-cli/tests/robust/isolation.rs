use std::time::Duration;

use redis::Commands as _;
use testenv_api::client::Held;
use testenv_api::{Isolation, LeaseRequest};
use testkit::{Sql, TestWorkspace, postgres_dir, skip, until};

use crate::{CONFIG, MIGRATION, TESTENV, prepared, workspace};

fn namespace() -> LeaseRequest {
    request(Isolation::Namespace)
}

fn request(isolation: Isolation) -> LeaseRequest {
    LeaseRequest { role: Some("database".into()), isolation: Some(isolation), ..LeaseRequest::default() }
}

/// Forty databases one after the other, each as it was prepared, whatever the one before did.
#[track_caller]
fn forty_databases(workspace: &TestWorkspace) {
    let mut server = None;
    for number in 0..40 {
        let held = workspace.lease_as(&namespace());
        let lease = held.lease();
        // All are in one server, or this would prove nothing.
        assert_eq!(*server.get_or_insert(lease.port), lease.port);
        let sql = Sql::connect(lease).unwrap();
        let rows: Vec<String> = sql.column("SELECT name FROM items ORDER BY id").unwrap();
        assert_eq!(rows, ["one", "two", "three"], "database {number}");
        let tables: i64 = sql
            .one(
                "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace",
            )
            .unwrap();
        assert_eq!(tables, 1, "database {number}");
        assert_eq!(sql.one::<String>("SHOW work_mem").unwrap(), "3MB", "ALTER DATABASE … SET is copied");
        assert!(sql.one::<bool>("SELECT has_table_privilege('reader', 'items', 'SELECT')").unwrap());
        sql.run(
            "CREATE TABLE more AS SELECT g, repeat('x', 500) FROM generate_series(1, 2000) g;
             INSERT INTO items (name) SELECT 'dirt' FROM generate_series(1, 500);
             ALTER TABLE items ADD COLUMN extra text DEFAULT 'x';
             CREATE INDEX ON items (name);
             DELETE FROM items WHERE name = 'one'",
        )
        .unwrap();
        for statement in ["VACUUM FULL items", "VACUUM FULL pg_class", "CHECKPOINT", "REINDEX SYSTEM"] {
            if statement == "REINDEX SYSTEM" {
                sql.run(&format!("REINDEX SYSTEM \"{}\"", lease.database)).unwrap();
            } else {
                sql.run(statement).unwrap();
            }
        }
        if number % 4 == 0 {
            sql.run("DROP TABLE items CASCADE; DROP SCHEMA public CASCADE").unwrap();
        }
    }
    let left = workspace.lease_as(&namespace());
    let postgres = Sql::connect_to(left.lease(), "postgres").unwrap();
    testkit::until(std::time::Duration::from_secs(10), || {
        let databases: Vec<String> =
            postgres.column("SELECT datname FROM pg_database WHERE datname LIKE 't\\_%'").unwrap();
        let pools = workspace.status().pools;
        let known: usize = pools.iter().map(|pool| pool.warm + pool.starting + pool.leased).sum();
        if databases.len() <= known { Ok(()) } else { Err(format!("{databases:?}, but {pools:?}")) }
    });
}

/// A workspace whose database has settings and roles, served by a certain version.
fn settled(bin_dir: &std::path::Path, more: &str) -> TestWorkspace {
    let roles =
        "CREATE ROLE reader; GRANT SELECT ON items TO reader; ALTER DATABASE app SET work_mem = '3MB';";
    let config = CONFIG.replacen('\n', &format!("\nbin_dir = \"{}\"\n", bin_dir.display()), 1);
    TestWorkspace::new(TESTENV)
        .config(&format!("{config}{more}"))
        .file("migrations/1_items.sql", MIGRATION)
        .file("migrations/2_roles.sql", roles)
}

fn forty_databases_of(major: u32, more: &str) {
    let Some(dir) = postgres_dir(major) else { return skip(&format!("there is no PostgreSQL {major}")) };
    let workspace = settled(&dir, more);
    forty_databases(&workspace);
    workspace.end();
}

#[test]
fn databases_of_postgres_15_are_pristine_at_birth() {
    forty_databases_of(15, "");
}

#[test]
fn databases_of_postgres_18_are_pristine_at_birth() {
    forty_databases_of(18, "");
}

#[test]
fn databases_are_pristine_where_they_are_copied() {
    forty_databases_of(15, "[cache]\nfork = \"copy\"\n");
}

#[test]
fn a_server_s_lease_is_a_whole_server_of_its_own() {
    let workspace = workspace("");
    let (one, two) = (workspace.lease("database"), workspace.lease("database"));
    let (first, second) = (Sql::connect(one.lease()).unwrap(), Sql::connect(two.lease()).unwrap());
    first
        .run("CREATE ROLE somebody; ALTER SYSTEM SET work_mem = '5MB'; CREATE DATABASE another")
        .unwrap_err();
    for statement in ["CREATE ROLE somebody", "CREATE DATABASE another", "DELETE FROM items"] {
        first.run(statement).unwrap();
    }
    assert_eq!(second.one::<i64>("SELECT count(*) FROM pg_roles WHERE rolname = 'somebody'").unwrap(), 0);
    assert_eq!(second.one::<i64>("SELECT count(*) FROM pg_database WHERE datname = 'another'").unwrap(), 0);
    assert_eq!(second.one::<i64>("SELECT count(*) FROM items").unwrap(), 3);
    // Over TCP only with the password, and each server has its own data but the snapshot's password.
    let sql = Sql::connect_url(&one.lease().url).unwrap();
    assert_eq!(sql.one::<String>("SELECT current_database()::text").unwrap(), "app");
    let wrong = one.lease().url.replace(&one.lease().password, "wrong");
    let refused = Sql::connect_url(&wrong).unwrap_err();
    assert!(refused.contains("password"), "{refused}");
    drop((one, two));
    workspace.end();
}

#[test]
fn shared_leases_see_one_database() {
    let workspace = workspace("");
    let (one, two) =
        (workspace.lease_as(&request(Isolation::Shared)), workspace.lease_as(&request(Isolation::Shared)));
    assert_eq!(one.lease().url, two.lease().url);
    Sql::connect(one.lease()).unwrap().run("INSERT INTO items (name) VALUES ('four')").unwrap();
    let seen: i64 = Sql::connect(two.lease()).unwrap().one("SELECT count(*) FROM items").unwrap();
    assert_eq!(seen, 4);
    // Another isolation is not touched by it.
    let own = workspace.lease("database");
    assert_eq!(Sql::connect(own.lease()).unwrap().one::<i64>("SELECT count(*) FROM items").unwrap(), 3);
    drop((one, two, own));
    workspace.end();
}

#[test]
fn a_test_that_ends_every_session_of_the_shared_server_spoils_it_for_nobody() {
    let workspace = workspace("[pool]\nwarm = 0\n");
    let bad = workspace.lease_as(&namespace());
    Sql::connect(bad.lease())
        .unwrap()
        .run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        .unwrap();
    let good = workspace.lease_as(&namespace());
    assert_eq!(Sql::connect(good.lease()).unwrap().one::<i64>("SELECT count(*) FROM items").unwrap(), 3);
    drop((bad, good));
    workspace.end();
}

#[test]
fn a_database_that_cannot_be_dropped_yet_keeps_nobody_waiting() {
    let workspace = workspace("[pool]\nwarm = 0\n");
    let (gone, stays) = (workspace.lease_as(&namespace()), workspace.lease_as(&namespace()));
    let name = gone.lease().database.clone();
    let sql = Sql::connect(stays.lease()).unwrap();
    // Another session looks: within a transaction, pg_stat_activity does not change.
    let watcher = Sql::connect_to(stays.lease(), "postgres").unwrap();
    // Locks the other database until the transaction ends: DROP DATABASE waits for it.
    sql.run("BEGIN").unwrap();
    sql.run(&format!("COMMENT ON DATABASE \"{name}\" IS 'locked'")).unwrap();
    drop(gone);
    let waits = "SELECT count(*) FROM pg_stat_activity \
                 WHERE query LIKE 'DROP DATABASE%' AND wait_event_type = 'Lock'";
    until(Duration::from_secs(10), || match watcher.one::<i64>(waits).unwrap() {
        0 => Err("nothing waits to drop the database".to_owned()),
        _ => Ok(()),
    });
    // More than the broker has workers.
    for _ in 0..40 {
        let next = workspace.lease_as(&namespace());
        assert_eq!(Sql::connect(next.lease()).unwrap().one::<i64>("SELECT count(*) FROM items").unwrap(), 3);
    }
    assert_eq!(watcher.one::<i64>(waits).unwrap(), 1, "it was dropped before the next ones were created");
    sql.run("ROLLBACK").unwrap();
    let there = format!("SELECT count(*) FROM pg_database WHERE datname = '{name}'");
    until(Duration::from_secs(10), || match watcher.one::<i64>(&there).unwrap() {
        0 => Ok(()),
        _ => Err("the database is still there".to_owned()),
    });
    drop(stays);
    workspace.end();
}

#[test]
fn a_test_may_drop_its_database_and_create_it_again() {
    let workspace = workspace("");
    for _ in 0..3 {
        let held = workspace.lease_as(&namespace());
        let name = &held.lease().database;
        let postgres = Sql::connect_to(held.lease(), "postgres").unwrap();
        postgres.run(&format!("DROP DATABASE \"{name}\" WITH (FORCE)")).unwrap();
        postgres.run(&format!("CREATE DATABASE \"{name}\"")).unwrap();
        let tables: i64 = Sql::connect(held.lease())
            .unwrap()
            .one("SELECT count(*) FROM pg_class WHERE relname = 'items'")
            .unwrap();
        assert_eq!(tables, 0);
    }
    let held = workspace.lease_as(&namespace());
    assert_eq!(Sql::connect(held.lease()).unwrap().one::<i64>("SELECT count(*) FROM items").unwrap(), 3);
    drop(held);
    workspace.end();
}

#[test]
fn a_test_may_rename_its_database() {
    let workspace = workspace("");
    let held = workspace.lease_as(&namespace());
    let name = held.lease().database.clone();
    let postgres = Sql::connect_to(held.lease(), "postgres").unwrap();
    postgres
        .run(&format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"))
        .unwrap();
    postgres.run(&format!("ALTER DATABASE \"{name}\" RENAME TO renamed")).unwrap();
    drop(held);
    until(Duration::from_secs(10), || {
        match postgres.one::<i64>("SELECT count(*) FROM pg_database WHERE datname = 'renamed'").unwrap() {
            0 => Ok(()),
            _ => Err("the renamed database is still there".to_owned()),
        }
    });
    workspace.end();
}

#[test]
fn many_databases_with_many_sessions_fit_one_server() {
    let workspace = workspace("");
    let leases: Vec<_> = (0..30).map(|_| workspace.lease_as(&namespace())).collect();
    // What thirty tests with pools of five open at the same time.
    let sessions: Vec<_> = leases
        .iter()
        .flat_map(|held| (0..5).map(|_| Sql::connect(held.lease())))
        .collect::<Result<Vec<_>, _>>()
        .unwrap();
    for sql in &sessions {
        assert_eq!(sql.one::<i64>("SELECT count(*) FROM items").unwrap(), 3);
    }
    drop((sessions, leases));
    workspace.end();
}

#[test]
fn numbered_databases_of_one_redis_are_apart_and_empty_again_for_the_next() {
    let workspace = prepared(TestWorkspace::new(TESTENV), "").file("seed.redis", "SET greeting hello\n");
    workspace.write(
        "testenv.toml",
        "[services.cache]\nservice = \"redis\"\nisolation = \"namespace\"\nseed = \"seed.redis\"\n",
    );
    let open = |held: &Held| {
        let client = redis::Client::open(held.lease().url.as_str()).unwrap();
        client.get_connection().unwrap()
    };
    let mut seen = std::collections::HashSet::new();
    for _ in 0..20 {
        let (one, two) = (workspace.lease("cache"), workspace.lease("cache"));
        assert_eq!(one.lease().port, two.lease().port);
        seen.extend([one.lease().database.clone(), two.lease().database.clone()]);
        for held in [&one, &two] {
            assert_eq!(open(held).keys::<_, Vec<String>>("*").unwrap(), ["greeting"]);
        }
        let () = open(&one).set("mine", 1).unwrap();
        assert!(!open(&two).exists::<_, bool>("mine").unwrap());
    }
    assert!(!seen.contains("0"), "who has which is noted there");
    workspace.end();
}
