//! A child process that gets the signals its parent gets.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus};
use std::thread;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, getpgrp, kill_process, waitid};
use rustix::termios::tcgetpgrp;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::exit_codes;

/// The exit code a shell would show for `status`: the command's own, or 128 and the number of the signal.
pub fn exit_code_of(status: ExitStatus) -> i32 {
    let signal = || exit_codes::SIGNAL_BASE + status.signal().unwrap_or(0);
    status.code().unwrap_or_else(signal)
}

/// The exit code of a command that could not be started.
pub(crate) fn exit_code_of_spawn(error: &io::Error) -> i32 {
    match error.kind() {
        io::ErrorKind::NotFound => exit_codes::NOT_FOUND,
        _ => exit_codes::CANNOT_RUN,
    }
}

/// How a child ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChildEnd {
    pub(crate) status: ExitStatus,
    /// Whether somebody asked for the end by a signal, such as Ctrl-C.
    pub(crate) interrupted: bool,
}

/// Runs the command and waits for it. SIGTERM, SIGHUP, SIGINT and SIGQUIT do not end this process meanwhile;
/// they are passed on, unless the terminal has given them to the child already.
pub(crate) fn run_forwarding(command: &mut Command) -> io::Result<ChildEnd> {
    let mut signals = Signals::new([SIGTERM, SIGHUP, SIGINT, SIGQUIT])?;
    let handle = signals.handle();
    let mut child = command.spawn()?;
    let pid = Pid::from_child(&child);
    let forwarder = thread::spawn(move || {
        let mut interrupted = false;
        for number in signals.forever() {
            interrupted = true;
            // Ctrl-C reaches the whole foreground group, and the child is in ours.
            let from_terminal = matches!(number, SIGINT | SIGQUIT) && is_foreground();
            if let (Some(signal), false) = (Signal::from_named_raw(number), from_terminal) {
                let _ = kill_process(pid, signal);
            }
        }
        interrupted
    });
    // The child is not reaped before the forwarder has ended, so that no signal can hit another process that
    // got the same id.
    while let Err(rustix::io::Errno::INTR) =
        waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
    {}
    handle.close();
    let interrupted = forwarder.join().unwrap_or(false);
    Ok(ChildEnd { status: child.wait()?, interrupted })
}

fn is_foreground() -> bool {
    tcgetpgrp(io::stdin()).is_ok_and(|group| group == getpgrp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> i32 {
        let end = run_forwarding(Command::new("sh").args(["-c", script])).unwrap();
        assert!(!end.interrupted);
        exit_code_of(end.status)
    }

    #[test]
    fn codes_and_signals_come_through() {
        assert_eq!(sh("exit 0"), 0);
        assert_eq!(sh("exit 42"), 42);
        assert_eq!(sh("kill -KILL $$"), 137);
    }

    #[test]
    fn a_missing_program_has_the_code_a_shell_gives() {
        let error = run_forwarding(&mut Command::new("/nonexistent/program")).unwrap_err();
        assert_eq!(exit_code_of_spawn(&error), 127);
        let error = run_forwarding(&mut Command::new("/etc/passwd")).unwrap_err();
        assert_eq!(exit_code_of_spawn(&error), 126);
    }
}
