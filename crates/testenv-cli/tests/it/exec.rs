//! `testenv exec`.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;

use crate::support::{Place, eventually, sh, signal};

#[test]
fn a_command_gets_a_database_that_works() {
    let place = Place::new();
    let script = r#"psql -Atq "$DATABASE_URL" -c 'CREATE TABLE a AS SELECT 40 + 2 AS x' -c 'SELECT x FROM a' && psql -Atqc 'SELECT x + 1 FROM a'"#;
    let called = place.exec(script).expect(0);
    assert_eq!(called.stdout, "42\n43\n", "by URL, and by PGHOST and its like");
}

#[test]
fn the_exit_code_is_the_commands() {
    let place = Place::new();
    place.exec("exit 7").expect(7);
    place.exec("kill -KILL $$").expect(137);
    place.exec("kill -TERM $$").expect(143);
    let missing = ["exec", "--service", "redis", "--", "no-such-program"];
    place.call(&missing).expect(127).complains(&["error: failed to run no-such-program", "  | "]);
    place.call(&["exec", "--service", "redis", "--", "/etc/passwd"]).expect(126);
}

#[test]
fn several_roles_come_together_with_their_own_variables() {
    let place = Place::with_config(
        r#"
        [services.database]
        service = "postgres"
        database = "shop"
        migrations = "migrations"
        env = { APP_DATABASE__PORT = "{port}", APP_DATABASE__NAME = "{database}", URL = "{url}" }
        [services.cache]
        service = "redis"
        "#,
    );
    place.write("migrations/1.sql", "CREATE TABLE items (id int PRIMARY KEY); INSERT INTO items VALUES (5);");
    let script = r#"echo $APP_DATABASE__NAME; test -n "$APP_DATABASE__PORT"; psql -Atqc 'SELECT id FROM items' "$URL"; test -n "$REDIS_URL" && test -z "$DATABASE_URL" && echo both"#;
    let called = place.call(&["exec", "--", "sh", "-c", script]).expect(0);
    assert_eq!(called.stdout, "shop\n5\nboth\n");
    let one = place.call(&["exec", "--role", "cache", "--", "sh", "-c", "echo $URL$REDIS_URL"]).expect(0);
    assert!(one.stdout.starts_with("redis://"), "{}", one.stdout);
}

#[test]
fn a_failed_command_leaves_its_data_and_the_way_back() {
    let place = Place::new();
    let called = place.exec("psql -qc 'CREATE TABLE evidence AS SELECT 7 AS x'; exit 1").expect(1);
    let line = called.stderr.lines().find(|line| line.contains("kept the server of postgres")).unwrap();
    let (_, connect) = line.split_once(": psql").unwrap();
    assert_eq!(sh(&format!("psql{connect} -Atc 'SELECT x FROM evidence'")), "7");
    assert_eq!(place.status().kept.len(), 1);
}

#[test]
fn what_is_kept_follows_the_policy() {
    let place = Place::new();
    let exec = |keep: &str, code: &str| {
        place.call(&[
            "exec",
            "--service",
            "redis",
            "--keep",
            keep,
            "--",
            "sh",
            "-c",
            &format!("exit {code}"),
        ]);
        place.status().kept.len()
    };
    assert_eq!(exec("never", "1"), 0);
    assert_eq!(exec("failed", "0"), 0);
    assert_eq!(exec("unless-passed", "0"), 0);
    assert_eq!(exec("unless-passed", "1"), 1);
    assert_eq!(exec("always", "0"), 2);
    let called =
        place.call_with(&["exec", "--service", "redis", "--", "true"], |it| it.env("TESTENV_KEEP", "x"));
    called.expect(2).complains(&["TESTENV_KEEP=x means nothing", "unless-passed"]);
}

#[test]
fn signals_reach_the_command_and_its_answer_counts() {
    let place = Place::new();
    let script = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done";
    let args = ["exec", "--service", "redis", "--", "sh", "-c", script];
    let mut child = place.command(&args).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    signal(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(9));
    assert!(place.status().kept.is_empty(), "what was stopped on purpose leaves nothing to look into");
}

#[test]
fn a_killed_exec_gives_its_leases_back() {
    let place = Place::new();
    let args = ["exec", "--service", "redis", "--", "sh", "-c", "echo ready; exec sleep 5 >&-"];
    let mut child = place.command(&args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut first = [0; 1];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(place.status().leases.len(), 1);
    signal(&child, "KILL");
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    // Its child lives on, but holds nothing.
    eventually("the lease is gone", || place.status().leases.is_empty());
}

#[test]
fn what_cannot_be_leased_is_said_before_anything_runs() {
    let place = Place::new();
    let touch = ["--", "touch", "ran"];
    let exec = |args: &[&str]| place.call(&[&["exec"], args, &touch].concat());
    exec(&[]).expect(2).complains(&["error: there is nothing to lease", "  hint: ", "--service postgres"]);
    exec(&["--role", "db"]).expect(2).complains(&["there is no role \"db\"", "  hint: "]);
    place.write(
        "testenv.toml",
        "[services.a]\nservice = \"postgres\"\n[services.b]\nservice = \"postgres\"\n",
    );
    exec(&["--role", "db"]).expect(2).complains(&["hint: testenv.toml has a, b"]);
    exec(&[]).expect(123).complains(&["roles a and b both set", "hint: give one of them its own names"]);
    place.write("testenv.toml", "[services.a]\nservice = \"postgre\"\n");
    exec(&[]).expect(124).complains(&["testenv.toml is not a valid configuration", "line 2", "postgre"]);
    place.write("testenv.toml", "[services.a]\nservice = \"postgres\"\nmigrations = \"none\"\n");
    exec(&[]).expect(123).complains(&["no lease of a: ", "none"]);
    place.write("testenv.toml", "[services.a]\nservice = \"postgres\"\nversion = \"8.1\"\n");
    exec(&[]).expect(123).complains(&["no lease of a: ", "8.1"]);
    assert!(!place.dir().join("ran").exists());
}
