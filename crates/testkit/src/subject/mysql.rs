//! MySQL and MariaDB.

use testenv_api::Lease;

use super::{Subject, same};
use crate::{Mysql as Client, have};

pub(super) struct Mysql;

impl Subject for Mysql {
    fn service(&self) -> &'static str {
        "mysql"
    }

    fn config(&self) -> &'static str {
        "migrations = \"migrations\"\nseed = \"seed.sql\"\n"
    }

    fn files(&self) -> &'static [(&'static str, &'static str)] {
        &[
            (
                "migrations/1_seeded.sql",
                "CREATE TABLE seeded (id int PRIMARY KEY AUTO_INCREMENT, name text NOT NULL);",
            ),
            ("migrations/2_written.sql", "CREATE TABLE written (value text NOT NULL);"),
            ("seed.sql", "INSERT INTO seeded (name) VALUES ('one'), ('two'), ('three');"),
        ]
    }

    fn broken(&self) -> (&'static str, &'static str, &'static str) {
        ("seed.sql", "SELECT 1;\nINSERT INTO nowhere VALUES (1);", "seed.sql:2")
    }

    fn is_here(&self) -> bool {
        (have("mariadbd") || have("mysqld")) && (have("mariadb") || have("mysql"))
    }

    fn check_new(&self, lease: &Lease) -> Result<(), String> {
        let names = Client::new(lease).run("SELECT name FROM seeded ORDER BY id")?;
        same(&names, &["one", "two", "three"].map(String::from).into())?;
        same(&self.read(lease)?, &Vec::new())
    }

    fn write(&self, lease: &Lease, value: &str) -> Result<(), String> {
        Client::new(lease).run(&format!("INSERT INTO written VALUES ('{value}')")).map(drop)
    }

    fn read(&self, lease: &Lease) -> Result<Vec<String>, String> {
        Client::new(lease).run("SELECT value FROM written ORDER BY value")
    }
}
