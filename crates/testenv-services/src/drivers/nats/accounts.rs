//! Namespaces of NATS: accounts, of which a shared server has a number from the start.
//!
//! Accounts are configuration, and a server that reads it again loses answers of JetStream's for clients that
//! are busy in accounts that did not change (measured: three in a hundred times). So a shared server has
//! [`ACCOUNTS`] to give out, each to one lease, and is then replaced by another, which takes 50 ms.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use testenv_api::{Problem, ProblemKind};

use super::client::{Client, Refusal};
use crate::drivers::Namespaces;
use crate::namespace::{Clones, Replay};
use crate::service::{Endpoint, Spec};
use crate::{Result, inputs};

/// Accounts of a shared server. Each costs it 20 kB and a tenth of a millisecond at its start.
const ACCOUNTS: usize = 256;
/// JetStream's codes for what is not there.
const NOT_THERE: [u64; 2] = [404, 10059];
/// How long removing what an account holds may take.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(30);

/// The accounts for the configuration of a shared server.
pub(super) fn configuration(password: &str) -> String {
    (0..ACCOUNTS)
        .map(|number| {
            let (user, secret) = (user(number), secret(password, number));
            format!("    {user}: {{ jetstream: enabled, users: [ {{ user: {user}, password: \"{secret}\" }} ] }}\n")
        })
        .collect()
}

fn user(number: usize) -> String {
    format!("t_{number}")
}

/// A password for each account, which nobody can tell who does not know the server's own.
fn secret(password: &str, number: usize) -> String {
    let digest =
        Sha256::new().chain_update(format!("account {number} of ")).chain_update(password).finalize();
    inputs::hex(&digest[..12])
}

/// Gives out the accounts of one server.
#[derive(Debug)]
pub(super) struct Accounts {
    server: Endpoint,
    replay: Replay,
    given: Mutex<Given>,
}

#[derive(Debug, Default)]
struct Given {
    next: usize,
    /// Accounts by the names of the namespaces that they are.
    by_name: BTreeMap<String, usize>,
}

impl Accounts {
    pub(super) fn new(server: Endpoint, replay: Replay) -> Self {
        Self { server, replay, given: Mutex::default() }
    }

    fn given(&self) -> std::sync::MutexGuard<'_, Given> {
        self.given.lock().expect("no panic while locked")
    }

    fn take(&self, name: &str) -> Option<usize> {
        let mut given = self.given();
        let number = Some(given.next).filter(|next| *next < ACCOUNTS)?;
        given.next += 1;
        given.by_name.insert(name.to_owned(), number);
        Some(number)
    }
}

impl Clones for Accounts {
    fn create(&self, name: &str) -> Result<Endpoint> {
        let number = self.take(name).ok_or_else(|| {
            Problem::new(ProblemKind::StartFailed, "the shared NATS server has no account left")
                .detail(format!("all {ACCOUNTS} were given out"))
        })?;
        let endpoint = account(&self.server, number);
        self.replay.fill(&endpoint).inspect_err(|_| drop(self.remove(name)))?;
        Ok(endpoint)
    }

    fn remove(&self, name: &str) -> Result<()> {
        let number = self.given().by_name.remove(name);
        number.map_or(Ok(()), |number| clear(&account(&self.server, number)))
    }

    fn is_used_up(&self) -> bool {
        self.given().next >= ACCOUNTS
    }
}

/// How an account of a server is used.
fn account(server: &Endpoint, number: usize) -> Endpoint {
    Endpoint {
        user: user(number),
        password: secret(&server.password, number),
        database: String::new(),
        ..server.clone()
    }
}

/// Removes all streams of an account, and with them what they hold.
fn clear(account: &Endpoint) -> Result<()> {
    let mut client = Client::open_until(account, Instant::now() + REMOVE_TIMEOUT)?;
    loop {
        let names =
            client.ask("STREAM.NAMES", &json!({ "offset": 0 }))?.map_err(|refusal| refused(&refusal))?;
        let names: Vec<_> =
            names["streams"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if names.is_empty() {
            return Ok(());
        }
        for name in names {
            match client.ask(&format!("STREAM.DELETE.{name}"), &Value::Null)? {
                Err(Refusal::JetStream { code, .. }) if NOT_THERE.contains(&code) => {}
                deleted => drop(deleted.map_err(|refusal| refused(&refusal))?),
            }
        }
    }
}

fn refused(refusal: &Refusal) -> Problem {
    Problem::new(ProblemKind::PrepareFailed, "NATS did not remove an account's streams")
        .detail(refusal.to_string())
}

/// What can be said about servers that others run: accounts cannot be made there.
#[derive(Debug)]
pub(super) struct Foreign;

impl Namespaces for Foreign {
    fn schemes(&self) -> (&'static [&'static str], u16) {
        (&["nats"], 4222)
    }

    fn ask_version(&self, server: &Endpoint) -> Result<String> {
        Ok(Client::open(server)?.version().to_owned())
    }

    fn create(&self, _: &Spec, server: &Endpoint, _: &str) -> Result<Endpoint> {
        Err(refusal(server))
    }

    fn remove(&self, _: &Spec, _: &Endpoint, _: &str) -> Result<()> {
        Ok(())
    }

    fn list(&self, _: &Spec, _: &Endpoint) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
}

/// Why a server that others run gives out no namespaces.
pub(super) fn refusal(server: &Endpoint) -> Problem {
    let Endpoint { host, port, .. } = server;
    let title = format!("the NATS at {host}:{port} cannot be shared");
    Problem::new(ProblemKind::InvalidConfig, title)
        .detail("a namespace of NATS is an account, and accounts are in the server's own configuration")
        .hint("set `runtime = \"native\"` for this service: a server of its own starts in milliseconds")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_account_has_a_password_of_its_own() {
        let text = configuration("secret");
        assert_eq!(text.lines().count(), ACCOUNTS);
        let secrets: std::collections::BTreeSet<_> =
            (0..ACCOUNTS).map(|number| secret("secret", number)).collect();
        assert_eq!(secrets.len(), ACCOUNTS);
        assert!(text.contains(&secret("secret", 17)) && !text.contains(&secret("other", 17)));
    }
}
