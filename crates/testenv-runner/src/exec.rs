//! `testenv exec`: one command with its dependencies.

use std::ffi::OsString;
use std::io;
use std::process::Command;
use std::time::Duration;

use testenv_api::discovery::Workspace;
use testenv_api::{Event, LeaseRequest, Outcome};

use crate::child::{exit_code_of_spawn, run_forwarding};
use crate::{LeaseError, WayBack, acquire, exit_code_of};

/// How long to look for what the broker said about the leases while the command ran.
const EVENTS_WAIT: Duration = Duration::from_millis(20);

/// Why the command was not run.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// A dependency is missing.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The command cannot be started.
    #[error("failed to run {}\n  | {source}", program.display())]
    Spawn {
        /// The program.
        program: OsString,
        /// Why.
        source: io::Error,
    },
}

impl ExecError {
    /// The exit code of a command that could not be started.
    pub fn spawn_code(&self) -> Option<i32> {
        match self {
            Self::Lease(_) => None,
            Self::Spawn { source, .. } => Some(exit_code_of_spawn(source)),
        }
    }
}

/// How the command ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code, as a shell would show it.
    pub code: i32,
    /// Servers that are kept because it failed.
    pub kept: Vec<WayBack>,
    /// What happened to its servers while it ran, in words.
    pub incidents: Vec<String>,
}

/// Leases what is asked for, runs the command with the environment of the leases, and gives them back.
///
/// # Errors
/// [`ExecError`]; a command that runs and fails is no error.
pub fn exec(
    workspace: &Workspace,
    requests: &[LeaseRequest],
    command: &[OsString],
) -> Result<Ended, ExecError> {
    let mut leases = acquire(workspace, requests)?;
    let (program, args) =
        command.split_first().map_or((OsString::new(), command), |(it, args)| (it.clone(), args));
    let end = run_forwarding(Command::new(&program).args(args).envs(leases.env()));
    let end = end.map_err(|source| ExecError::Spawn { program, source })?;
    let code = exit_code_of(end.status);
    if end.interrupted {
        // Stopped on purpose, so there is nothing to look into.
        return Ok(Ended { code, kept: Vec::new(), incidents: Vec::new() });
    }
    let outcome = if code == 0 { Outcome::Passed } else { Outcome::Failed };
    let incidents = if code == 0 { Vec::new() } else { leases.incidents(EVENTS_WAIT) };
    Ok(Ended { code, kept: leases.ended(outcome), incidents })
}

impl crate::Leases {
    /// What the broker has said about the leases since they began.
    fn incidents(&mut self, wait: Duration) -> Vec<String> {
        let mut incidents = Vec::new();
        for held in self.held_mut() {
            let role = held.lease().role.clone();
            match held.next_event(wait) {
                Ok(None) => {}
                Ok(Some(Event::ServerExited { reason, log_tail })) => {
                    let log: String = log_tail.lines().map(|line| format!("\n  | {line}")).collect();
                    incidents.push(format!("the server of {role} ended meanwhile: {reason}{log}"));
                }
                Ok(Some(Event::BrokerStopping)) => {
                    incidents
                        .push(format!("the broker stopped meanwhile, and took the server of {role} along"));
                }
                Err(error) => incidents.push(format!("the lease of {role} was lost meanwhile: {error}")),
            }
        }
        incidents
    }
}
