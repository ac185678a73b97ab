//! The command-line client of MySQL and MariaDB.

use std::process::Command;
use std::time::Duration;

use testenv_api::Lease;

use crate::machine::have;
use crate::program::run;

/// How long a call may take.
const LIMIT: Duration = Duration::from_secs(30);

/// A leased MySQL or MariaDB, reached over TCP by its own client.
#[derive(Clone, Copy, Debug)]
pub struct Mysql<'a> {
    lease: &'a Lease,
    user: &'a str,
    password: &'a str,
    database: &'a str,
}

impl<'a> Mysql<'a> {
    /// As the lease says.
    pub fn new(lease: &'a Lease) -> Self {
        Self { lease, user: &lease.user, password: &lease.password, database: &lease.database }
    }

    /// As another user.
    #[must_use]
    pub fn user(self, user: &'a str, password: &'a str) -> Self {
        Self { user, password, ..self }
    }

    /// With another database.
    #[must_use]
    pub fn database(self, database: &'a str) -> Self {
        Self { database, ..self }
    }

    /// Runs statements; the rows of all of them, their columns between tabs.
    ///
    /// # Errors
    /// What the client says.
    pub fn run(&self, sql: &str) -> Result<Vec<String>, String> {
        let client = if have("mariadb") { "mariadb" } else { "mysql" };
        let Lease { host, port, .. } = self.lease;
        let mut command = Command::new(client);
        command.args(["--no-defaults", "--protocol=tcp", "--batch", "--skip-column-names", "--execute", sql]);
        command.arg(format!("--host={host}")).arg(format!("--port={port}"));
        command.arg(format!("--user={}", self.user)).arg(format!("--database={}", self.database));
        // Not in the environment: newer clients of MariaDB then take it for a login without a password.
        command.arg(format!("--password={}", self.password));
        if client == "mariadb" && self.lease.engine.name == "mariadb" {
            command.arg("--skip-ssl");
        }
        let ran = run(&mut command, LIMIT);
        match ran.code {
            Some(0) => Ok(ran.stdout.lines().map(str::to_owned).collect()),
            _ => Err(ran.said()),
        }
    }
}
