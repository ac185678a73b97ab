//! ClickHouse over HTTP, by the command-line client of it that every machine has.

use std::process::Command;
use std::time::Duration;

use testenv_api::Lease;

use crate::program::run;

/// How long a call may take.
const LIMIT: Duration = Duration::from_secs(30);

/// A leased ClickHouse.
#[derive(Clone, Copy, Debug)]
pub struct Clickhouse<'a> {
    lease: &'a Lease,
    user: &'a str,
    password: &'a str,
}

impl<'a> Clickhouse<'a> {
    /// As the lease says.
    pub fn new(lease: &'a Lease) -> Self {
        Self { lease, user: &lease.user, password: &lease.password }
    }

    /// As another user.
    #[must_use]
    pub fn user(self, user: &'a str, password: &'a str) -> Self {
        Self { user, password, ..self }
    }

    /// Runs a statement; the lines that it prints.
    ///
    /// # Errors
    /// What the server says.
    pub fn run(&self, sql: &str) -> Result<Vec<String>, String> {
        let Lease { host, port, database, .. } = self.lease;
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--write-out", "\n%{http_code}", "--data-binary", sql]);
        command.arg("--user").arg(format!("{}:{}", self.user, self.password));
        command.arg(format!("http://{host}:{port}/?wait_end_of_query=1&database={database}"));
        let ran = run(&mut command, LIMIT);
        match ran.stdout.rsplit_once('\n') {
            Some((printed, "200")) => Ok(printed.lines().map(str::to_owned).collect()),
            _ => Err(ran.said()),
        }
    }
}
