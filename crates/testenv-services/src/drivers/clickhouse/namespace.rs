//! Namespaces: databases, each with a user of its own where the server has users in SQL.

use std::collections::BTreeMap;

use super::client::Client;
use super::config::USERS_IN_SQL;
use super::{Clickhouse, deadline, execute, quote_name, quote_text};
use crate::drivers::Namespaces;
use crate::service::{Endpoint, Spec};
use crate::snapshot::random_password;
use crate::{Result, external, io_problem};

/// The port of the native protocol where the environment names none.
const NATIVE_PORT: u16 = 9000;

impl Namespaces for Clickhouse {
    fn schemes(&self) -> (&'static [&'static str], u16) {
        (&["http"], 8123)
    }

    fn declared(&self, value: &str, environment: &BTreeMap<String, String>) -> Result<Endpoint, String> {
        let (schemes, port) = self.schemes();
        let mut endpoint = external::read_url(value, schemes, port)?;
        if endpoint.user.is_empty() {
            endpoint.user = "default".into();
        }
        let native = environment.get("CLICKHOUSE_NATIVE_PORT").and_then(|port| port.parse().ok());
        endpoint.ports.insert("native".into(), native.unwrap_or(NATIVE_PORT));
        Ok(endpoint)
    }

    fn ask_version(&self, server: &Endpoint) -> Result<String> {
        execute(server, "SELECT version()", "ask for the version").map(|version| version.trim().to_owned())
    }

    fn create(&self, spec: &Spec, server: &Endpoint, name: &str) -> Result<Endpoint> {
        execute(server, &format!("CREATE DATABASE {}", quote_name(name)), "create a database")?;
        let shared = Endpoint { database: name.to_owned(), ..server.clone() };
        // A suite that knows its user by name gets that one.
        if spec.config.user.is_some() || spec.build.major() < USERS_IN_SQL {
            return Ok(shared);
        }
        let password = random_password().map_err(|error| io_problem("make up a password", &error))?;
        let own = Endpoint { user: name.to_owned(), password, ..shared.clone() };
        // Servers that others run may not let their user create others.
        Ok(if create_user(server, &own).is_ok() { own } else { shared })
    }

    fn remove(&self, spec: &Spec, server: &Endpoint, name: &str) -> Result<()> {
        let sync = if spec.build.major() < USERS_IN_SQL { "" } else { " SYNC" };
        if !sync.is_empty() {
            // It has no user, or what it runs is ended.
            let _ = execute(server, &format!("DROP USER IF EXISTS {}", quote_name(name)), "drop a user");
            let _ = execute(server, &format!("KILL QUERY WHERE user = {}", quote_text(name)), "end queries");
        }
        let sql = format!("DROP DATABASE IF EXISTS {}{sync}", quote_name(name));
        execute(server, &sql, "drop a database").map(drop)
    }

    fn list(&self, _spec: &Spec, server: &Endpoint) -> Result<Vec<String>> {
        let sql =
            r"SELECT name FROM system.databases WHERE name LIKE 't\\_%' ORDER BY name FORMAT TabSeparated";
        let names = execute(server, sql, "list the databases")?;
        Ok(names.lines().map(str::to_owned).collect())
    }
}

fn create_user(server: &Endpoint, own: &Endpoint) -> Result<()> {
    let (user, password) = (quote_name(&own.user), quote_text(&own.password));
    execute(server, &format!("CREATE USER {user} IDENTIFIED BY {password}"), "create a user")?;
    execute(server, &format!("GRANT ALL ON {}.* TO {user}", quote_name(&own.database)), "grant rights")?;
    let mut client = Client::new(own, &own.database, deadline());
    client.run(b"SELECT 1").map(drop).map_err(|error| super::problem("the new user cannot log in", &error))
}
