//! ClickHouse.

use testenv_api::Lease;

use super::{Subject, same};
use crate::{Clickhouse as Client, have};

pub(super) struct Clickhouse;

impl Subject for Clickhouse {
    fn service(&self) -> &'static str {
        "clickhouse"
    }

    fn config(&self) -> &'static str {
        "migrations = \"migrations\"\nseed = \"seed.sql\"\n"
    }

    fn files(&self) -> &'static [(&'static str, &'static str)] {
        &[
            (
                "migrations/1_seeded.sql",
                "CREATE TABLE seeded (at Date, id UInt32, name String) ENGINE = MergeTree(at, (id), 8192);",
            ),
            (
                "migrations/2_written.sql",
                "CREATE TABLE written (at Date DEFAULT today(), value String) ENGINE = MergeTree(at, (value), 8192);",
            ),
            (
                "seed.sql",
                "INSERT INTO seeded VALUES ('2026-01-01', 1, 'one'), ('2026-01-01', 2, 'two'), ('2026-01-01', 3, 'three');",
            ),
        ]
    }

    fn broken(&self) -> (&'static str, &'static str, &'static str) {
        ("seed.sql", "SELECT 1;\nINSERT INTO nowhere VALUES (1);", "seed.sql:2")
    }

    fn is_here(&self) -> bool {
        (have("clickhouse-server") || have("clickhouse")) && have("curl")
    }

    fn check_new(&self, lease: &Lease) -> Result<(), String> {
        let names = Client::new(lease).run("SELECT name FROM seeded ORDER BY id")?;
        same(&names, &["one", "two", "three"].map(String::from).into())?;
        same(&self.read(lease)?, &Vec::new())
    }

    fn write(&self, lease: &Lease, value: &str) -> Result<(), String> {
        Client::new(lease).run(&format!("INSERT INTO written (value) VALUES ('{value}')")).map(drop)
    }

    fn read(&self, lease: &Lease) -> Result<Vec<String>, String> {
        Client::new(lease).run("SELECT value FROM written ORDER BY value")
    }
}
