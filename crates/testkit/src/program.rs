//! Running programs to their end, for so long at the most.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

/// How a program ended.
#[derive(Clone, Debug)]
pub struct Ran {
    /// Exit code; `None` after a signal.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it said on its standard error.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
}

impl Ran {
    /// Everything it said.
    pub fn said(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// The same result, if it was a success.
    ///
    /// # Panics
    /// With what it said, otherwise.
    #[track_caller]
    #[must_use]
    pub fn expect_success(self) -> Self {
        assert_eq!(self.code, Some(0), "{}", self.said());
        self
    }
}

/// Runs a command, and kills it with its process group if it takes longer than `limit`.
///
/// Its output goes to files: a daemon that kept a pipe open would hold up whoever reads the pipe to its end.
///
/// # Panics
/// When it cannot be started, or takes longer, with what it said so far.
#[track_caller]
pub fn run(command: &mut Command, limit: Duration) -> Ran {
    let (mut stdout, mut stderr) =
        (tempfile::tempfile().expect("a temporary file"), tempfile::tempfile().expect("a temporary file"));
    let begun = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(stdout.try_clone().expect("a descriptor"))
        .stderr(stderr.try_clone().expect("a descriptor"))
        .process_group(0)
        .spawn()
        .unwrap_or_else(|error| panic!("failed to start {command:?}: {error}"));
    let status = loop {
        match child.try_wait().expect("a child can be waited for") {
            Some(status) => break status,
            None if begun.elapsed() > limit => {
                let _ = rustix::process::kill_process_group(Pid::from_child(&child), Signal::KILL);
                let _ = child.wait();
                let said = text(&mut stdout) + &text(&mut stderr);
                panic!("{command:?} took longer than {} s; it said\n{said}", limit.as_secs());
            }
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    Ran { code: status.code(), stdout: text(&mut stdout), stderr: text(&mut stderr), took: begun.elapsed() }
}

fn text(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).expect("a temporary file can be read");
    String::from_utf8_lossy(&bytes).into_owned()
}
