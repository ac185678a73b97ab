//! Starting and ending the processes that testenv owns. The one module with `unsafe` in it.
//!
//! A server process dies with the thread that started it (`PR_SET_PDEATHSIG`), so only threads that live as
//! long as the broker may start one. Where the machine allows, it is also the first process of a PID
//! namespace of its own: killing it makes the kernel kill every process it ever started, at once, however
//! busy they are.
#![expect(unsafe_code, reason = "setting up a child between fork and exec, and freeing System V memory")]

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, PidfdFlags, Signal};
use rustix::thread::UnshareFlags;

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
    /// Let go after the process has ended, since that dies with it.
    parent: Option<Parent>,
}

/// Signals that end a process which does not handle them.
const ENDING: [Signal; 6] =
    [Signal::TERM, Signal::INT, Signal::QUIT, Signal::HUP, Signal::USR1, Signal::USR2];
/// How long a process may take to stop before its children are looked for.
const STOP_PATIENCE: Duration = Duration::from_millis(50);
/// Stack of a thread that only starts a process and waits, in bytes.
const PARENT_STACK: usize = 128 << 10;

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
    let (child, parent) = if spawn.pid_namespace {
        let (child, parent) = in_pid_namespace(command)?;
        (child, Some(parent))
    } else {
        (command.spawn()?, None)
    };
    let pid = Pid::from_child(&child);
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    Ok(Process { child, pidfd, process_group: spawn.process_group, parent })
}

/// A thread that a process was started from, and that ends when this is dropped.
#[derive(Debug)]
struct Parent {
    _released: mpsc::Sender<()>,
}

/// Starts the command as the first process of a new PID namespace.
///
/// That takes a thread of its own, which stays for as long as the process does: a thread whose children are born
/// into another namespace cannot go back from inside a user namespace, and the process dies with its parent.
fn in_pid_namespace(mut command: Command) -> io::Result<(Child, Parent)> {
    let (give, given) = mpsc::channel();
    let (released, wait) = mpsc::channel::<()>();
    let parent = move || {
        // SAFETY: affects only which namespace this thread's children are born into, and it has but one.
        let unshared = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWPID) };
        let child = unshared.map_err(io::Error::from).and_then(|()| command.spawn());
        // It holds the process' outputs open, whose end is how the end of the process is noticed.
        drop(command);
        let _ = give.send(child);
        let _ = wait.recv();
    };
    std::thread::Builder::new().name("parent".into()).stack_size(PARENT_STACK).spawn(parent)?;
    let gone = |_| Err(io::Error::other("the thread that starts a server ended without a result"));
    let child = given.recv().unwrap_or_else(gone)?;
    Ok((child, Parent { _released: released }))
}

impl Process {
    /// Process id as the broker sees it.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the process alone. One that it does not handle ends it, as it ends any process.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        // The first process of a PID namespace would not take notice of it.
        let deaf = self.parent.is_some() && ENDING.contains(&signal) && !handles(self.pid(), signal);
        let signal = if deaf { Signal::KILL } else { signal };
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
        if self.parent.is_none() {
            self.kill_children();
        }
        let _ = self.signal(Signal::KILL);
        if self.process_group {
            let _ = rustix::process::kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        }
        // SIGKILL cannot be refused, so this ends as soon as the kernel has torn the process down.
        let _ = self.child.wait();
    }
}

impl Process {
    /// Kills what it started itself, where there is no PID namespace that does. A busy backend of PostgreSQL
    /// would not notice the end of its server before its query is done.
    fn kill_children(&self) {
        // Stopped, it starts nothing more, and takes notice of no child's end, so that no number is used again.
        let pid = self.pid();
        let _ = self.signal(Signal::STOP);
        let deadline = Instant::now() + STOP_PATIENCE;
        while !is_stopped(pid) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_micros(100));
        }
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)) {
            let _ = rustix::process::kill_process(child, Signal::KILL);
        }
    }
}

/// Whether a process has a handler for a signal, or ignores it on purpose. One that cannot be asked is taken to.
fn handles(pid: u32, signal: Signal) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mask = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
    };
    let bit = 1_u64 << (signal.as_raw() - 1);
    match (mask("SigCgt:"), mask("SigIgn:")) {
        (Some(caught), Some(ignored)) => (caught | ignored) & bit != 0,
        _ => true,
    }
}

/// Whether a process is stopped, or has ended.
fn is_stopped(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_none_or(|state| "TtZX".contains(state))
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

/// Frees a System V shared memory segment that a killed server of user `owner` left behind.
///
/// Only its owner may, or root with all of its rights, which root in a container may lack.
pub(crate) fn remove_shared_memory(id: i32, owner: u32) {
    let remove = move || {
        // SAFETY: IPC_RMID takes no buffer; a wrong id is refused by the kernel.
        unsafe { libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()) }
    };
    if remove() == 0 || !rustix::process::geteuid().is_root() {
        return;
    }
    let user = rustix::thread::Uid::from_raw(owner);
    // A thread's user is its own; this one has nothing else to do.
    let as_owner = std::thread::spawn(move || {
        if rustix::thread::set_thread_res_uid(user, user, user).is_ok() {
            remove();
        }
    });
    let _ = as_owner.join();
}

#[cfg(test)]
mod tests {
    use std::fs::File;

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
    fn killing_it_kills_its_children_whatever_group_they_are_in() {
        use std::io::Read as _;
        let (mut process, mut output) = run("setsid sleep 60 & echo started; wait", false);
        let mut started = [0; 8];
        output.read_exact(&mut started).unwrap();
        process.kill();
        // The end of the output is the end of the last process that has it.
        assert!(readable(output.as_fd(), Duration::from_secs(10)).unwrap());
        assert_eq!(output.read(&mut [0; 8]).unwrap(), 0);
    }

    #[test]
    fn tells_how_it_ended() {
        let (mut process, _output) = run("exit 3", false);
        let status = process.wait(Duration::from_secs(10)).unwrap().unwrap();
        assert_eq!(status.code(), Some(3));
    }
}
