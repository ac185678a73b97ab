//! A broker as a process: which one runs, whether it is ours to use, and its end.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use testenv_api::client::{Client, ClientError};
use testenv_api::discovery::Workspace;
use testenv_api::{Health, PROTOCOL, VERSION};
use testenv_runner::exit_codes;

use crate::error::CliError;
use crate::output::plural;

/// How long a broker may take to answer that it will stop.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);
/// How long it may take to end everything; it gives its servers 10 s.
const END_LIMIT: Duration = Duration::from_secs(20);
/// How long a process may take to be gone that gave no answer, and then again after SIGKILL.
const KILL_LIMIT: Duration = Duration::from_secs(2);

/// How a broker came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// None was there.
    NotRunning,
    /// It stopped when asked.
    Stopped,
    /// It did not answer, or not stop, and was killed.
    Killed,
}

/// Ends the broker that listens on `socket`, if there is one. With `only_idle`, one that holds leases refuses.
pub(crate) fn end(socket: &Path, only_idle: bool) -> Result<Ending, CliError> {
    // The kernel knows who listens even if the process hangs.
    let Ok(probe) = UnixStream::connect(socket) else { return Ok(Ending::NotRunning) };
    let peer = rustix::net::sockopt::socket_peercred(&probe).map(|credentials| credentials.pid);
    drop(probe);
    let process = peer.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()));
    let client = Client::at(socket).with_answer_limit(ANSWER_LIMIT).of_any_version();
    let mut patience = END_LIMIT;
    let when = if only_idle { "idle" } else { "now" };
    match client.post_only("/v1/shutdown", &std::collections::BTreeMap::from([("when", when)])) {
        Ok(()) => {}
        Err(ClientError::NotListening { .. }) => return Ok(Ending::NotRunning),
        Err(error @ ClientError::Problem(_)) if only_idle => return Err(error.into()),
        Err(_) if only_idle => return Err(hangs(socket)),
        // It may just have gone; if it hangs, there is nothing to wait for.
        Err(_) => patience = KILL_LIMIT,
    }
    let Ok(process) = process else { return Ok(Ending::Stopped) };
    if is_gone_within(&process, patience) {
        return Ok(Ending::Stopped);
    }
    let _ = pidfd_send_signal(&process, Signal::KILL);
    if is_gone_within(&process, KILL_LIMIT) { Ok(Ending::Killed) } else { Err(hangs(socket)) }
}

fn hangs(socket: &Path) -> CliError {
    let text = format!("the broker on {} does not answer, and does not end", socket.display());
    CliError::new(exit_codes::NO_BROKER, text)
}

fn is_gone_within(process: &OwnedFd, limit: Duration) -> bool {
    let mut watched = [PollFd::new(process, PollFlags::IN)];
    let limit = Timespec { tv_sec: limit.as_secs().cast_signed(), tv_nsec: 0 };
    matches!(poll(&mut watched, Some(&limit)), Ok(1))
}

/// Makes sure that the broker, if one runs, is of this program's version. Another version is replaced when
/// nobody holds a lease, as the next request starts a new one.
pub(crate) fn ensure_same_version(workspace: &Workspace) -> Result<(), CliError> {
    let health: Health = match Client::of(workspace).of_any_version().get("/v1/health") {
        Ok(health) => health,
        Err(error) if error.broker_is_gone() => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if health.version == VERSION && health.protocol == PROTOCOL {
        return Ok(());
    }
    let versions = format!("it is testenv {}, this is testenv {VERSION}", health.version);
    if end(&workspace.socket(), true).is_ok() {
        eprintln!("testenv: replaced the broker of this workspace: {versions}");
        return Ok(());
    }
    let text = format!(
        "a broker of another version serves this workspace, and {} held\n  | {versions} (process {})\n  hint: \
         wait for those tests to end, or `testenv down`",
        if health.leases == 1 {
            "1 lease is".to_owned()
        } else {
            format!("{} are", plural(health.leases, "lease"))
        },
        health.pid
    );
    Err(CliError::new(exit_codes::NO_BROKER, text))
}
