//! One test process with leases of its own: what `testenv-wrap` does as cargo's target runner.
//!
//! It starts once per test, so it does little: no configuration is read, nothing is searched.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::FdFlags;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use testenv_api::discovery::Workspace;
use testenv_api::{KeepPolicy, LeaseRequest, Outcome};

use crate::child::exit_code_of_spawn;
use crate::{LeaseError, WayBack, acquire, exit_code_of, exit_codes};

/// Environment variable through which `testenv run` tells the wrapper what to lease: JSON, an array of
/// [`LeaseRequest`]s.
pub const LEASES_VAR: &str = "TESTENV_RUN_LEASES";

/// What one test process is to be run with.
#[derive(Debug)]
pub struct Wrapped {
    /// The program and its arguments.
    pub command: Vec<OsString>,
    /// This program, as it was called.
    pub wrapper: OsString,
    /// The environment.
    pub environment: Vec<(OsString, OsString)>,
    /// Value of [`LEASES_VAR`].
    pub leases: Option<String>,
    /// Nextest's id of the attempt.
    pub attempt: Option<String>,
    /// Name of the test.
    pub test: Option<String>,
    /// Current directory, inside the workspace.
    pub current_dir: std::path::PathBuf,
}

/// Why the test was not run.
#[derive(Debug, thiserror::Error)]
pub enum WrapError {
    /// There is no program among the arguments.
    #[error(
        "no program to run\n  hint: this is what `testenv run` puts before each test; it is not run by hand"
    )]
    NoProgram,
    /// The variable is not what `testenv run` writes.
    #[error("{LEASES_VAR} is not a list of leases\n  | {0}")]
    BadLeases(serde_json::Error),
    /// The workspace is gone.
    #[error("failed to find the workspace\n  | {0}")]
    Workspace(io::Error),
    /// A dependency is missing.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The program cannot be started.
    #[error("failed to run {}\n  | {source}", program.display())]
    Spawn {
        /// The program.
        program: OsString,
        /// Why.
        source: io::Error,
    },
}

impl WrapError {
    /// The exit code for it.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::NoProgram | Self::BadLeases(_) => exit_codes::USAGE,
            Self::Workspace(_) => exit_codes::FAILED,
            Self::Lease(_) => exit_codes::NO_LEASE,
            Self::Spawn { source, .. } => exit_code_of_spawn(source),
        }
    }
}

/// How the test process ended.
#[derive(Debug)]
pub struct Ended {
    status: ExitStatus,
    /// Servers that are kept because it failed.
    pub kept: Vec<WayBack>,
}

impl Ended {
    /// The exit code, if the process had one. If a signal ended it, the same signal ends this process, so
    /// that whoever watches sees what it would have seen.
    pub fn end_alike(self) -> i32 {
        if let Some(signal) = self.status.signal() {
            // One core dump of a crash is enough.
            let limit = getrlimit(Resource::Core);
            let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), ..limit });
            let _ = signal_hook::low_level::emulate_default_handler(signal);
        }
        exit_code_of(self.status)
    }
}

/// Runs the test process with leases of its own.
///
/// Without leases, and where nothing depends on how the test ends, the program replaces this process, which
/// keeps the leases: they belong to the process and end with it. Otherwise the program becomes a child in the
/// same process group, which is what nextest signals; this process ends when, and as, the child does.
///
/// # Errors
/// [`WrapError`]. If the program replaces this process, this returns only on errors.
pub fn wrap(wrapped: Wrapped) -> Result<Ended, WrapError> {
    let (program, args) = wrapped.command.split_first().ok_or(WrapError::NoProgram)?;
    let mut command = Command::new(program);
    command.args(args).env_remove(LEASES_VAR);
    // The test may run cargo itself, and what that runs is none of ours.
    for (name, value) in runners_without(&wrapped.wrapper, &wrapped.environment) {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let spawn_error = |source| WrapError::Spawn { program: program.clone(), source };
    // Nextest runs each test binary with `--list` to learn its tests.
    let Some(leases) = wrapped.leases.filter(|_| !args.iter().any(|arg| arg == "--list")) else {
        return Err(spawn_error(command.exec()));
    };
    let mut requests: Vec<LeaseRequest> = serde_json::from_str(&leases).map_err(WrapError::BadLeases)?;
    for request in &mut requests {
        request.attempt.clone_from(&wrapped.attempt);
        request.test.clone_from(&wrapped.test);
    }
    let workspace = Workspace::find(&wrapped.current_dir).map_err(WrapError::Workspace)?;
    let leases = acquire(&workspace, &requests)?;
    command.envs(leases.env());
    let all = |fits: fn(KeepPolicy) -> bool| leases.held().iter().all(|held| fits(held.lease().keep));
    if all(|keep| matches!(keep, KeepPolicy::Never | KeepPolicy::Always)) {
        for held in leases.held() {
            rustix::io::fcntl_setfd(held, FdFlags::empty()).map_err(|errno| spawn_error(errno.into()))?;
        }
        return Err(spawn_error(command.exec()));
    }
    // The process group gets the signal, so the child has it too, and its end is awaited. Nextest ends a slow
    // test by SIGTERM; SIGINT is the user's Ctrl-C, which leaves nothing to look into.
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGHUP, SIGQUIT] {
        let _ = signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)));
    }
    let _ = signal_hook::flag::register(SIGINT, Arc::clone(&interrupted));
    let status = command.status().map_err(spawn_error)?;
    let kept = match status.success() {
        false if interrupted.load(Ordering::Relaxed) => Vec::new(),
        false => leases.ended(Outcome::Failed),
        // Where only failures are kept, silence is enough.
        true if all(|keep| keep != KeepPolicy::UnlessPassed) => Vec::new(),
        true => leases.ended(Outcome::Passed),
    };
    Ok(Ended { status, kept })
}

/// Cargo's variables for target runners that have this wrapper in front, and what they were without.
fn runners_without<'a>(
    wrapper: &OsStr,
    environment: &'a [(OsString, OsString)],
) -> impl Iterator<Item = (&'a OsStr, Option<&'a str>)> {
    let wrapper = wrapper.to_string_lossy().into_owned();
    environment.iter().filter_map(move |(name, value)| {
        let is_runner =
            name.to_str().is_some_and(|it| it.starts_with("CARGO_TARGET_") && it.ends_with("_RUNNER"));
        let rest = value.to_str().filter(|_| is_runner)?.strip_prefix(&wrapper)?;
        Some((name.as_os_str(), rest.strip_prefix(' ')))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wrapper_is_taken_out_of_the_environment() {
        let environment = [
            ("CARGO_TARGET_A_RUNNER", "/w qemu -v"),
            ("CARGO_TARGET_B_RUNNER", "/w"),
            ("CARGO_TARGET_C_RUNNER", "other"),
            ("PATH", "/w"),
        ];
        let environment = environment.map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let found: Vec<_> = runners_without(OsStr::new("/w"), &environment).collect();
        let expected = [
            (OsStr::new("CARGO_TARGET_A_RUNNER"), Some("qemu -v")),
            (OsStr::new("CARGO_TARGET_B_RUNNER"), None),
        ];
        assert_eq!(found, expected);
    }
}
