//! PostgreSQL.

use testenv_api::Lease;

use super::{Subject, same};
use crate::Sql;

pub(super) struct Postgres;

impl Subject for Postgres {
    fn service(&self) -> &'static str {
        "postgres"
    }

    fn config(&self) -> &'static str {
        "migrations = \"migrations\"\nseed = \"seed.sql\"\n"
    }

    fn files(&self) -> &'static [(&'static str, &'static str)] {
        &[
            (
                "migrations/1_seeded.sql",
                "CREATE TABLE seeded (id bigserial PRIMARY KEY, name text NOT NULL);",
            ),
            ("migrations/2_written.sql", "CREATE TABLE written (value text NOT NULL);"),
            ("seed.sql", "INSERT INTO seeded (name) VALUES ('one'), ('two'), ('three');"),
        ]
    }

    fn broken(&self) -> (&'static str, &'static str, &'static str) {
        ("seed.sql", "SELECT 1;\nINSERT INTO nowhere VALUES (1);", "seed.sql:2")
    }

    fn check_new(&self, lease: &Lease) -> Result<(), String> {
        let sql = Sql::connect_url(&lease.url)?;
        same(
            &sql.column::<String>("SELECT name FROM seeded ORDER BY id")?,
            &["one", "two", "three"].map(String::from).into(),
        )?;
        same(&self.read(lease)?, &Vec::new())
    }

    fn write(&self, lease: &Lease, value: &str) -> Result<(), String> {
        Sql::connect_url(&lease.url)?.run(&format!("INSERT INTO written VALUES ('{value}')"))
    }

    fn read(&self, lease: &Lease) -> Result<Vec<String>, String> {
        Sql::connect_url(&lease.url)?.column("SELECT value FROM written ORDER BY value")
    }
}
