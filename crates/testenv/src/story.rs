//! What a failed test prints about its dependencies: the end of the server's log, and the way back to it.

use std::fmt::Write as _;

use testenv_api::{Event, Isolation, Kept, Lease, Outcome};

use crate::error::Error;
use crate::lease::Held;

/// Lines of a server's log that are shown.
const LOG_LINES: usize = 20;

/// Tells the broker that the test failed, and the person where its data is.
pub(crate) fn tell_failure(held: &Held) {
    let events = held.events();
    let text = match held.tell(Outcome::Failed) {
        Ok(kept) => block(&held.lease, &kept, &events),
        Err(error) => {
            format!("testenv: {}: the broker does not know of the failure: {error}\n", named(&held.lease))
        }
    };
    print(&text);
}

/// Prints an error that nobody is there to receive.
pub(crate) fn complain(error: &Error) {
    print(&format!("testenv: {error}\n"));
}

/// Prints the error that a test ended with before its body began.
pub(crate) fn print_error(error: &Error) {
    print(&format!("Error: {error}\n"));
}

#[expect(
    clippy::print_stderr,
    reason = "the one place that prints: `eprint!` is what libtest captures per test"
)]
fn print(text: &str) {
    eprint!("{text}");
}

/// The story of one lease after a failure.
fn block(lease: &Lease, kept: &Kept, events: &[Event]) -> String {
    let mut text = format!("\ntestenv: {}\n", named(lease));
    for event in events {
        let _ = match event {
            Event::ServerExited { reason, .. } => {
                writeln!(text, "  the server ended during the test: {reason}")
            }
            Event::BrokerStopping => writeln!(text, "  the broker was told to stop during the test"),
        };
    }
    let log = match kept.log_tail.trim() {
        "" => events.iter().rev().find_map(exit_log).unwrap_or_default(),
        log => log,
    };
    if !log.is_empty() {
        text.push_str("  the end of its log:\n");
        let lines: Vec<_> = log.lines().collect();
        for line in &lines[lines.len().saturating_sub(LOG_LINES)..] {
            let _ = writeln!(text, "  | {line}");
        }
    }
    if kept.kept {
        let _ = writeln!(text, "  kept as the test left it, for {}:", duration(kept.keep_seconds));
        let _ = writeln!(text, "    {}", kept.connect_command);
        text.push_str("  `testenv down` ends it sooner\n");
    } else if lease.isolation == Isolation::Shared {
        text.push_str("  not kept: the database is shared, and the test's transaction is rolled back\n");
    } else {
        text.push_str("  not kept (TESTENV_KEEP=failed keeps the data of failed tests)\n");
    }
    text
}

fn exit_log(event: &Event) -> Option<&str> {
    match event {
        Event::ServerExited { log_tail, .. } => Some(log_tail.trim()).filter(|it| !it.is_empty()),
        Event::BrokerStopping => None,
    }
}

/// Which dependency it is, for people.
fn named(lease: &Lease) -> String {
    let place = match lease.isolation {
        Isolation::Server => "a server of its own",
        Isolation::Namespace => "a database of its own",
        Isolation::Shared => "the shared database",
    };
    format!("`{}` ({} {}, {place})", lease.role, lease.engine.name, lease.engine.version)
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use testenv_api::{Engine, ServiceKind, Timings};

    use super::*;

    fn lease(isolation: Isolation) -> Lease {
        Lease {
            id: "1".to_owned(),
            role: "database".to_owned(),
            service: ServiceKind::Postgres,
            isolation,
            runtime: "native".to_owned(),
            engine: Engine {
                name: "postgres".to_owned(),
                version: "15.14".to_owned(),
                sha256: String::new(),
            },
            snapshot: String::new(),
            url: String::new(),
            host: String::new(),
            port: 1,
            direct_url: None,
            direct_port: None,
            ports: BTreeMap::new(),
            user: String::new(),
            password: String::new(),
            database: String::new(),
            socket: String::new(),
            env: BTreeMap::new(),
            connect_command: String::new(),
            keep: testenv_api::KeepPolicy::Failed,
            handover: None,
            timings: Timings::default(),
        }
    }

    fn kept(kept: bool, log_tail: &str) -> Kept {
        Kept {
            kept,
            keep_seconds: 3600,
            connect_command: "psql -h /x".to_owned(),
            log_tail: log_tail.to_owned(),
        }
    }

    #[test]
    fn a_kept_server_comes_with_its_log_and_the_way_back() {
        let text =
            block(&lease(Isolation::Server), &kept(true, "ERROR:  no such table\nSTATEMENT:  SELECT\n"), &[]);
        assert_eq!(
            text,
            "\ntestenv: `database` (postgres 15.14, a server of its own)\n  the end of its log:\n  \
             | ERROR:  no such table\n  | STATEMENT:  SELECT\n  kept as the test left it, for 60 min:\n    \
             psql -h /x\n  `testenv down` ends it sooner\n"
        );
    }

    #[test]
    fn a_server_that_died_says_why() {
        let event =
            Event::ServerExited { reason: "signal: 9".to_owned(), log_tail: "PANIC:  gone\n".to_owned() };
        let text = block(&lease(Isolation::Namespace), &kept(false, ""), &[event]);
        assert!(text.contains("the server ended during the test: signal: 9"), "{text}");
        assert!(text.contains("| PANIC:  gone"), "{text}");
        assert!(text.contains("TESTENV_KEEP=failed"), "{text}");
    }

    #[test]
    fn a_long_log_is_cut_at_its_beginning_and_a_shared_database_is_explained() {
        let log: String = (0..50).map(|line| format!("line {line}\n")).collect();
        let text = block(&lease(Isolation::Shared), &kept(false, &log), &[]);
        assert!(
            !text.contains("line 29\n") && text.contains("line 30\n") && text.contains("line 49\n"),
            "{text}"
        );
        assert!(text.contains("rolled back"), "{text}");
    }
}
