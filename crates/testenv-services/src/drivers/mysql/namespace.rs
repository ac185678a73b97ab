//! Namespaces: databases, each with a user of its own.

use sha2::{Digest as _, Sha256};

use super::client::Connection;
use super::{Mysql, execute, open, quote_name, quote_text};
use crate::drivers::Namespaces;
use crate::service::{Endpoint, Spec};
use crate::snapshot::random_password;
use crate::{Result, inputs, io_problem};

/// Longest name of a user that MySQL allows, in characters.
const MAX_USER: usize = 32;
/// How long dropping a database waits for sessions that are ending, in seconds.
const LOCK_TIMEOUT_S: u32 = 10;

impl Namespaces for Mysql {
    fn schemes(&self) -> (&'static [&'static str], u16) {
        (&["mysql", "mariadb"], 3306)
    }

    fn ask_version(&self, server: &Endpoint) -> Result<String> {
        let connection = open(server, "")?;
        // MariaDB says so, so that old clients take it for a MySQL of its time.
        let version = connection.version();
        Ok(super::short_version(version.strip_prefix("5.5.5-").unwrap_or(version)))
    }

    fn create(&self, spec: &Spec, server: &Endpoint, name: &str) -> Result<Endpoint> {
        let mut admin = open(server, "")?;
        execute(&mut admin, &format!("CREATE DATABASE {}", quote_name(name)), "create a database")?;
        let shared = Endpoint { database: name.to_owned(), ..server.clone() };
        // A suite that knows its user by name gets that one.
        if spec.config.user.is_some() {
            return Ok(shared);
        }
        let password = random_password().map_err(|error| io_problem("make up a password", &error))?;
        let endpoint = Endpoint { user: user(name), password, ..shared };
        let account = format!("{}@'%'", quote_text(&endpoint.user));
        for sql in [
            format!("CREATE USER {account} IDENTIFIED BY {}", quote_text(&endpoint.password)),
            format!("GRANT ALL PRIVILEGES ON {}.* TO {account}", quote_pattern(name)),
        ] {
            execute(&mut admin, &sql, "create a user")?;
        }
        // From then on MySQL knows the password, and no client has to say it or ask for a public key.
        open(&endpoint, name)?;
        Ok(endpoint)
    }

    fn remove(&self, _spec: &Spec, server: &Endpoint, name: &str) -> Result<()> {
        let mut admin = open(server, "")?;
        // The user first, so that no session of it begins once all were ended.
        execute(&mut admin, &format!("DROP USER IF EXISTS {}@'%'", quote_text(&user(name))), "drop a user")?;
        end_sessions(&mut admin, name)?;
        execute(&mut admin, &format!("SET lock_wait_timeout = {LOCK_TIMEOUT_S}"), "limit a wait")?;
        let sql = format!("DROP DATABASE IF EXISTS {}", quote_name(name));
        execute(&mut admin, &sql, "drop a database").map(drop)
    }

    fn list(&self, _spec: &Spec, server: &Endpoint) -> Result<Vec<String>> {
        let rows = execute(&mut open(server, "")?, r"SHOW DATABASES LIKE 't\_%'", "list the databases")?;
        Ok(rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect())
    }
}

/// Ends the sessions of a namespace: one that is in a transaction would keep its database from being dropped.
fn end_sessions(admin: &mut Connection, name: &str) -> Result<()> {
    let user = user(name);
    // Id, user, host, database.
    for row in execute(admin, "SHOW PROCESSLIST", "list sessions")? {
        let is = |column: usize, text: &str| row.get(column).is_some_and(|it| it.as_deref() == Some(text));
        let id = row.first().cloned().flatten().and_then(|id| id.parse::<u64>().ok());
        if let Some(id) = id.filter(|_| is(1, &user) || is(3, name)) {
            // It is no error if it has ended meanwhile.
            let _ = execute(admin, &format!("KILL {id}"), "end a session");
        }
    }
    Ok(())
}

/// Name of a namespace's user.
fn user(name: &str) -> String {
    if name.len() <= MAX_USER {
        return name.to_owned();
    }
    let hash = inputs::hex(&Sha256::digest(name));
    format!("{}_{}", &name[..MAX_USER - 13], &hash[..12])
}

/// Quotes a name where a pattern is expected.
fn quote_pattern(name: &str) -> String {
    quote_name(&name.replace('\\', r"\\").replace('_', r"\_").replace('%', r"\%"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_no_patterns() {
        assert_eq!(quote_pattern("t_a_1"), r"`t\_a\_1`");
    }

    #[test]
    fn users_of_long_names_are_short_and_different() {
        let (one, two) = (format!("t_{}1", "x".repeat(57)), format!("t_{}2", "x".repeat(57)));
        assert_eq!(user("t_short"), "t_short");
        assert_eq!(user(&one).len(), MAX_USER);
        assert_ne!(user(&one), user(&two));
    }
}
