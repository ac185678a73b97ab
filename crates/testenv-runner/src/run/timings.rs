//! Which attempt leased what, as the broker remembers it.

use std::collections::HashMap;
use std::thread;
use std::time::{Duration, Instant};

use testenv_api::client::Client;
use testenv_api::{BrokerStatus, EndedLease};
use testenv_model::{LeaseUse, Phases, Run};

/// How long to wait until the broker has seen the last leases end.
const SETTLE_LIMIT: Duration = Duration::from_millis(500);
/// How long between two looks.
const SETTLE_STEP: Duration = Duration::from_millis(15);

/// Asks the broker for the leases of the run, until it knows of all that are expected or no more come.
/// Without a broker there were none.
pub(super) fn ended_leases(client: &Client, run_id: &str, expected: usize) -> Vec<EndedLease> {
    if run_id.is_empty() {
        return Vec::new();
    }
    let prefix: String = format!("{run_id}:").bytes().map(query_byte).collect();
    let path = format!("/v1/leases/ended?attempt_prefix={prefix}");
    let deadline = Instant::now() + SETTLE_LIMIT;
    let mut seen = None;
    loop {
        let Ok(leases) = client.get::<Vec<EndedLease>>(&path) else { return Vec::new() };
        let settled = leases.len() >= expected && (expected > 0 || seen == Some(leases.len()));
        if settled || Instant::now() >= deadline {
            return leases;
        }
        seen = Some(leases.len());
        thread::sleep(SETTLE_STEP);
    }
}

/// A byte of a query, escaped unless it means itself everywhere.
fn query_byte(byte: u8) -> String {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    }
}

/// Gives each attempt its leases, and takes their time out of the test's.
///
/// Leases of one attempt are asked for at the same time, so the longest of them is what the test waited for.
pub(super) fn attribute_leases(run: &mut Run, leases: Vec<EndedLease>) {
    let mut by_attempt: HashMap<String, Vec<LeaseUse>> = HashMap::new();
    for lease in leases {
        if let Some(attempt) = &lease.attempt {
            by_attempt.entry(attempt.clone()).or_default().push(lease_use(lease));
        }
    }
    let run_id = run.id.clone();
    for case in &mut run.cases {
        for (at, attempt) in case.attempts.iter_mut().enumerate() {
            // As nextest names them: the first attempt has no number.
            let number = if at == 0 { String::new() } else { format!("#{}", at + 1) };
            let id = format!("{run_id}:{}${}{number}", case.id.suite, case.id.name);
            let Some(leases) = by_attempt.remove(&id) else { continue };
            let setup_us = leases.iter().map(|lease| lease.total_us).max().unwrap_or(0);
            attempt.phases = Phases::split(attempt.phases.total_us(), setup_us);
            attempt.leases = leases;
        }
    }
}

/// Forgets which servers were kept and are not any more: the broker keeps a bounded number of them.
pub(super) fn forget_evicted(run: &mut Run, client: &Client) {
    let mut leases: Vec<&mut LeaseUse> = run
        .cases
        .iter_mut()
        .flat_map(|case| &mut case.attempts)
        .flat_map(|attempt| &mut attempt.leases)
        .filter(|lease| lease.kept.is_some())
        .collect();
    if leases.is_empty() {
        return;
    }
    let Ok(status) = client.get::<BrokerStatus>("/v1/status") else { return };
    for lease in &mut leases {
        if !status.kept.iter().any(|kept| kept.id == lease.id) {
            lease.kept = None;
        }
    }
}

/// The model's form of what the broker remembers.
pub(super) fn lease_use(lease: EndedLease) -> LeaseUse {
    LeaseUse {
        id: lease.id,
        role: lease.role,
        total_us: lease.timings.total_us,
        prepare_us: lease.timings.prepare_us,
        fork_us: lease.timings.fork_us,
        warm: lease.timings.warm,
        kept: lease.kept,
    }
}

#[cfg(test)]
mod tests {
    use testenv_api::Timings;
    use testenv_model::{Attempt, Case, CaseId};

    use super::*;

    #[test]
    fn leases_find_their_attempts() {
        let lease = |attempt: &str, total_us| EndedLease {
            id: attempt.to_owned(),
            role: "database".into(),
            attempt: Some(attempt.to_owned()),
            timings: Timings { total_us, warm: true, ..Timings::default() },
            held_us: 0,
            outcome: None,
            kept: None,
        };
        let attempt = Attempt { phases: Phases::split(1000, 0), ..Attempt::default() };
        let attempts = vec![attempt.clone(), attempt];
        let case = Case { id: CaseId::new("bin", "a::b"), attempts, flaky_fails: false };
        let mut run = Run { id: "r".into(), cases: vec![case], ..Run::default() };
        let leases = vec![
            lease("r:bin$a::b", 100),
            lease("r:bin$a::b#2", 5),
            lease("r:bin$a::b#2", 7),
            lease("r:x$y", 9),
        ];
        attribute_leases(&mut run, leases);
        let phases: Vec<Phases> = run.cases[0].attempts.iter().map(|attempt| attempt.phases).collect();
        assert_eq!(phases, [Phases { setup_us: 100, test_us: 900 }, Phases { setup_us: 7, test_us: 993 }]);
        assert_eq!(run.cases[0].attempts[1].leases.len(), 2);
    }

    #[test]
    fn queries_are_escaped() {
        assert_eq!("a-1:&%".bytes().map(query_byte).collect::<String>(), "a-1%3A%26%25");
    }
}
