//! Several leases at once, and what they put into the environment.

use std::collections::BTreeMap;
use std::fmt;
use std::thread;

use testenv_api::client::{Client, ClientError, Held};
use testenv_api::discovery::{self, Workspace};
use testenv_api::{Kept, LeaseRequest, Outcome, OutcomeRequest};

/// Why there are no leases.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The broker refused or could not be asked.
    #[error("no lease of {what}: {source}")]
    Refused {
        /// The role or kind of service.
        what: String,
        /// Why.
        source: ClientError,
    },
    /// Two roles set the same variable to different values.
    #[error(
        "roles {first} and {second} both set {variable}\n  hint: give one of them its own names with \
         [services.{second}.env], or lease them apart with --role"
    )]
    Clash {
        /// The variable.
        variable: String,
        /// One role.
        first: String,
        /// The other.
        second: String,
    },
}

/// Leases that are held together, given back when dropped.
#[derive(Debug)]
pub struct Leases {
    held: Vec<Held>,
    env: BTreeMap<String, String>,
}

/// The way back to a server that was kept because its command failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WayBack {
    /// Role.
    pub role: String,
    /// What the broker says about it.
    pub kept: Kept,
}

impl fmt::Display for WayBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minutes = self.kept.keep_seconds.div_ceil(60);
        writeln!(
            f,
            "testenv: kept the server of {} for {minutes} min: {}",
            self.role, self.kept.connect_command
        )?;
        self.kept.log_tail.lines().try_for_each(|line| writeln!(f, "  | {line}"))
    }
}

/// Asks for all of them at the same time, and starts the broker if none runs.
///
/// # Errors
/// [`LeaseError`]; what was leased already is given back.
pub fn acquire(workspace: &Workspace, requests: &[LeaseRequest]) -> Result<Leases, LeaseError> {
    let client = Client::of(workspace);
    let one = |request: &LeaseRequest| {
        client.lease_or_start(workspace, request).map_err(|source| {
            let kind = request.service.map(|service| service.to_string());
            LeaseError::Refused { what: request.role.clone().or(kind).unwrap_or_default(), source }
        })
    };
    let mut held = Vec::with_capacity(requests.len());
    if let Some((first, others)) = requests.split_first() {
        // The first on this thread: most often it is the only one, and a thread costs as much as a lease.
        thread::scope(|scope| {
            let others: Vec<_> = others.iter().map(|request| scope.spawn(|| one(request))).collect();
            held.push(one(first));
            let joined = others.into_iter().map(|thread| thread.join());
            held.extend(joined.map(|result| result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))));
        });
    }
    let held: Vec<Held> = held.into_iter().collect::<Result<_, _>>()?;
    let mut env = environment(held.iter().map(|held| (held.lease().role.as_str(), &held.lease().env)))?;
    let leased = env.keys().map(String::as_str).collect::<Vec<_>>().join(",");
    env.insert(discovery::env::LEASED.to_owned(), leased);
    Ok(Leases { held, env })
}

fn environment<'a>(
    roles: impl Iterator<Item = (&'a str, &'a BTreeMap<String, String>)>,
) -> Result<BTreeMap<String, String>, LeaseError> {
    let mut all: BTreeMap<String, (String, &str)> = BTreeMap::new();
    for (role, env) in roles {
        for (variable, value) in env {
            match all.insert(variable.clone(), (value.clone(), role)) {
                Some((other, first)) if other != *value => {
                    let (first, second) = (first.to_owned(), role.to_owned());
                    return Err(LeaseError::Clash { variable: variable.clone(), first, second });
                }
                _ => {}
            }
        }
    }
    Ok(all.into_iter().map(|(variable, (value, _))| (variable, value)).collect())
}

impl Leases {
    /// The environment of all roles together.
    pub fn env(&self) -> &BTreeMap<String, String> {
        &self.env
    }

    /// The leases themselves.
    pub fn held(&self) -> &[Held] {
        &self.held
    }

    pub(crate) fn held_mut(&mut self) -> &mut [Held] {
        &mut self.held
    }

    /// Tells the broker how what used the leases ended. Answers with those servers that it keeps for that.
    /// Where the broker does not answer, nothing is.
    pub fn ended(&self, outcome: Outcome) -> Vec<WayBack> {
        let tell = |held: &Held| {
            let path = format!("/v1/leases/{}/outcome", held.lease().id);
            let kept: Kept = held.client().post(&path, &OutcomeRequest { outcome }).ok()?;
            kept.kept.then(|| WayBack { role: held.lease().role.clone(), kept })
        };
        self.held.iter().filter_map(tell).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn roles_share_a_variable_only_if_they_agree() {
        let (a, b, c) = (env(&[("URL", "1"), ("X", "x")]), env(&[("X", "x")]), env(&[("URL", "2")]));
        let merged = environment([("a", &a), ("b", &b)].into_iter()).unwrap();
        assert_eq!(merged, env(&[("URL", "1"), ("X", "x")]));
        let error = environment([("a", &a), ("c", &c)].into_iter()).unwrap_err().to_string();
        assert!(error.starts_with("roles a and c both set URL"), "{error}");
    }
}
