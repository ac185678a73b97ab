//! Starting and ending the processes that testenv owns. The one module with `unsafe` in it.
//!
//! A server process dies with the thread that started it (`PR_SET_PDEATHSIG`), so only threads that live as
//! long as the broker may start one. Where the machine allows, it is also the first process of a PID
//! namespace of its own: killing it makes the kernel kill every process it ever started, at once, however
//! busy they are.
#![expect(unsafe_code, reason = "setting up a child between fork and exec, and freeing System V memory")]

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, PidfdFlags, Signal};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

/// The unprivileged user that servers run as when the broker is root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Login name, for messages.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
}

/// What to start.
#[derive(Clone, Debug)]
pub(crate) struct Spawn<'a> {
    /// Program, by absolute path.
    pub(crate) program: PathBuf,
    /// Arguments.
    pub(crate) args: Vec<OsString>,
    /// Environment on top of the broker's.
    pub(crate) env: Vec<(OsString, OsString)>,
    /// Working directory.
    pub(crate) cwd: PathBuf,
    /// User to run as, if not the broker's.
    pub(crate) user: Option<&'a User>,
    /// Held open by the process and by all it starts, so that the next broker can tell whether any is left.
    pub(crate) guard: BorrowedFd<'a>,
    /// Whether it gets a PID namespace of its own.
    pub(crate) pid_namespace: bool,
    /// Whether it leads a process group of its own.
    pub(crate) process_group: bool,
}

/// A process of ours, killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pidfd: OwnedFd,
    process_group: bool,
}

/// Starts a process with both its outputs on `output`.
pub(crate) fn spawn(spawn: &Spawn<'_>, output: OwnedFd) -> io::Result<Process> {
    let mut command = Command::new(&spawn.program);
    command
        .args(&spawn.args)
        .envs(spawn.env.iter().map(|(name, value)| (name, value)))
        .current_dir(&spawn.cwd)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output);
    if let Some(user) = spawn.user {
        command.uid(user.uid).gid(user.gid);
    }
    if spawn.process_group {
        command.process_group(0);
    }
    let guard = spawn.guard.as_raw_fd();
    // SAFETY: between fork and exec only two system calls are made, both async-signal-safe. `guard` is open
    // for as long as `spawn` is borrowed.
    unsafe {
        command.pre_exec(move || {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            rustix::io::fcntl_setfd(BorrowedFd::borrow_raw(guard), rustix::io::FdFlags::empty())?;
            Ok(())
        });
    }
    let child = if spawn.pid_namespace { in_pid_namespace(|| command.spawn())? } else { command.spawn()? };
    let pid = Pid::from_child(&child);
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    Ok(Process { child, pidfd, process_group: spawn.process_group })
}

/// Runs `start` so that the one process it starts is the first of a new PID namespace.
fn in_pid_namespace<T>(start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    thread_local! {
        static OWN: io::Result<File> = File::open("/proc/self/ns/pid");
    }
    OWN.with(|own| {
        let own = own.as_ref().map_err(|error| io::Error::new(error.kind(), error.to_string()))?;
        // SAFETY: affects only which namespace this thread's next children are born into. No thread is
        // started from here before it is undone.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWPID) }?;
        let started = start();
        rustix::thread::move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::ProcessID))?;
        started
    })
}

impl Process {
    /// Process id as the broker sees it.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the process alone.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(rustix::process::pidfd_send_signal(&self.pidfd, signal)?)
    }

    /// Waits until it has ended; `None` when the time is up first.
    pub(crate) fn wait(&mut self, timeout: Duration) -> io::Result<Option<ExitStatus>> {
        if !readable(self.pidfd.as_fd(), timeout)? {
            return Ok(None);
        }
        self.child.wait().map(Some)
    }

    /// Kills it, with all of its process group or PID namespace, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        let _ = self.signal(Signal::KILL);
        if self.process_group {
            let _ = rustix::process::kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        }
        // SIGKILL cannot be refused, so this ends as soon as the kernel has torn the process down.
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.kill();
        }
    }
}

/// Waits until `fd` can be read or is at its end; `false` when the time is up first.
pub(crate) fn readable(fd: BorrowedFd<'_>, timeout: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left =
            rustix::event::Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match rustix::event::poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&left)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Moves the process into new namespaces. Call while it has one thread only.
pub(crate) fn unshare_process(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: called before any other thread exists, and no file descriptor table is shared.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(Into::into)
}

/// Frees a System V shared memory segment that a killed server left behind.
pub(crate) fn remove_shared_memory(id: i32) {
    // SAFETY: IPC_RMID takes no buffer; a wrong id is refused by the kernel.
    unsafe { libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: &str, process_group: bool) -> (Process, File) {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let guard = File::open("/dev/null").unwrap();
        let process = spawn(
            &Spawn {
                program: "/bin/sh".into(),
                args: vec!["-c".into(), script.into()],
                env: vec![],
                cwd: "/".into(),
                user: None,
                guard: guard.as_fd(),
                pid_namespace: false,
                process_group,
            },
            writer,
        )
        .unwrap();
        (process, reader.into())
    }

    #[test]
    fn waits_no_longer_than_told() {
        let (mut process, _output) = run("sleep 60", false);
        assert!(process.wait(Duration::from_millis(20)).unwrap().is_none());
        process.kill();
    }

    #[test]
    fn killing_a_group_leaves_no_grandchild_holding_the_output() {
        use std::io::Read as _;
        let (mut process, mut output) = run("sleep 60 & echo started; wait", true);
        let mut started = [0; 8];
        output.read_exact(&mut started).unwrap();
        process.kill();
        let mut rest = String::new();
        output.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "");
    }

    #[test]
    fn tells_how_it_ended() {
        let (mut process, _output) = run("exit 3", false);
        let status = process.wait(Duration::from_secs(10)).unwrap().unwrap();
        assert_eq!(status.code(), Some(3));
    }
}
