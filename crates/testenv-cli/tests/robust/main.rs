//! How well: each condition that a machine or a test can put testenv into, with the real program and real
//! servers. Every test checks what the message says where there is one, and that nothing is left afterwards.
//! Every wait has a bound; a test that hangs fails.

mod clickhouse;
mod disks;
mod engines;
mod external;
mod faults;
mod forks;
mod hostile;
mod isolation;
mod kafka;
mod keeping;
mod leases;
mod mysql;
mod nats;
mod ports;
mod preparing;
mod privileges;
mod rabbitmq;
mod replacing;
mod s3;
mod torture;

use testkit::TestWorkspace;
use testkit::torture::ClientProgram;

/// The program under test.
const TESTENV: &str = env!("CARGO_BIN_EXE_testenv");

/// A role of PostgreSQL with one migration, and one of Redis.
const CONFIG: &str = "[services.database]\nservice = \"postgres\"\nmigrations = \"migrations\"\n\
                      [services.cache]\nservice = \"redis\"\n";
/// The migration: a table with three rows.
const MIGRATION: &str = "CREATE TABLE items (id bigserial PRIMARY KEY, name text NOT NULL);\n\
                         INSERT INTO items (name) VALUES ('one'), ('two'), ('three');\n";

/// A workspace with both roles, and further lines in its configuration.
fn workspace(more: &str) -> TestWorkspace {
    prepared(TestWorkspace::new(TESTENV), more)
}

/// The same in a workspace that is made in another way.
fn prepared(workspace: TestWorkspace, more: &str) -> TestWorkspace {
    workspace.config(&format!("{CONFIG}{more}")).file("migrations/1_items.sql", MIGRATION)
}

/// This program as a client of its own tests (see [`a_client`]).
fn client_program() -> ClientProgram {
    ClientProgram {
        program: std::env::current_exe().expect("a running program has a path"),
        arguments: ["a_client", "--exact", "--ignored", "--nocapture"].map(String::from).into(),
    }
}

#[test]
#[ignore = "a process that other tests start"]
#[expect(clippy::exit, reason = "the test that started it looks at the code")]
fn a_client() {
    if let Some(code) = testkit::torture::main() {
        std::process::exit(code.into());
    }
}

/// Checks that a message says each of these.
#[track_caller]
fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "it does not say {part:?}:\n{message}");
    }
}
