//! Pausing, resuming and killing a server: its first process with all that it has started.
//!
//! Processes are held by descriptors (`pidfd`), so that a number which the kernel gives to another process meanwhile
//! does no harm.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// How long processes may take to stop. One that waits for a disk does not stop before it has it.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// How long they may take to be gone after they were killed.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// Between two looks at whether they have stopped.
const LOOK_EVERY: Duration = Duration::from_micros(200);

/// A server's processes.
#[derive(Debug)]
pub(crate) struct Processes {
    first: i32,
    descriptor: OwnedFd,
}

impl Processes {
    /// The process `first` and all that it has started. Call this while it cannot have been waited for.
    ///
    /// # Errors
    /// When there is no such process.
    pub(crate) fn of(first: u32) -> io::Result<Self> {
        let first = i32::try_from(first).map_err(|_| io::ErrorKind::InvalidInput)?;
        Ok(Self { first, descriptor: open(first)? })
    }

    /// Stops them all; returns when none runs.
    ///
    /// # Errors
    /// When one does not stop in time; those that have stopped stay so.
    pub(crate) fn pause(&self) -> io::Result<()> {
        self.stop_all(&mut BTreeMap::new())
    }

    /// Lets them go on, the first one last, so that it sees none of the others at rest.
    ///
    /// # Errors
    /// When the server is gone.
    pub(crate) fn resume(&self) -> io::Result<()> {
        for process in self.below()?.values().rev() {
            // One that has ended needs nothing.
            let _ = pidfd_send_signal(process, Signal::CONT);
        }
        Ok(pidfd_send_signal(&self.descriptor, Signal::CONT)?)
    }

    /// Kills them all; returns when the first one is gone.
    ///
    /// # Errors
    /// When it is not gone in time.
    pub(crate) fn kill(&self) -> io::Result<()> {
        // Stopped, none of them starts another while they are killed one by one. Those that do not stop are killed
        // all the same.
        let mut all = BTreeMap::new();
        let _ = self.stop_all(&mut all);
        for process in all.values() {
            let _ = pidfd_send_signal(process, Signal::KILL);
        }
        match pidfd_send_signal(&self.descriptor, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => self.wait(),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until the first process has ended.
    fn wait(&self) -> io::Result<()> {
        let limit = Timespec { tv_sec: KILL_LIMIT.as_secs().cast_signed(), tv_nsec: 0 };
        let mut polled = [PollFd::new(&self.descriptor, PollFlags::IN)];
        match rustix::event::poll(&mut polled, Some(&limit))? {
            0 => Err(io::ErrorKind::TimedOut.into()),
            _ => Ok(()),
        }
    }

    /// Stops the first process and everything below it, which is added to `all`. What is below is looked for again
    /// until nothing new is there, since a process may have started another before it stopped.
    fn stop_all(&self, all: &mut BTreeMap<i32, OwnedFd>) -> io::Result<()> {
        let deadline = Instant::now() + STOP_LIMIT;
        pidfd_send_signal(&self.descriptor, Signal::STOP)?;
        wait_until_at_rest(self.first, deadline)?;
        loop {
            let mut new = self.below()?;
            new.retain(|pid, _| !all.contains_key(pid));
            if new.is_empty() {
                return Ok(());
            }
            for process in new.values() {
                let _ = pidfd_send_signal(process, Signal::STOP);
            }
            let pids: Vec<i32> = new.keys().copied().collect();
            all.append(&mut new);
            pids.into_iter().try_for_each(|pid| wait_until_at_rest(pid, deadline))?;
        }
    }

    /// Everything that the first process has started, and what that has started.
    fn below(&self) -> io::Result<BTreeMap<i32, OwnedFd>> {
        let mut found = BTreeMap::new();
        let mut parents = vec![self.first];
        while let Some(parent) = parents.pop() {
            for child in children(parent) {
                let Ok(process) = open(child) else { continue };
                // Opened first, and seen to be a child after that: it is the child that was opened.
                if !found.contains_key(&child) && children(parent).contains(&child) {
                    found.insert(child, process);
                    parents.push(child);
                }
            }
        }
        // And it was the first process that was looked at, if that is still there.
        is_there(&self.descriptor)?;
        Ok(found)
    }
}

fn open(pid: i32) -> io::Result<OwnedFd> {
    let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// Whether a process has not ended. It need not have been waited for.
fn is_there(process: &OwnedFd) -> io::Result<()> {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    match rustix::event::poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&now))? {
        0 => Ok(()),
        _ => Err(rustix::io::Errno::SRCH.into()),
    }
}

/// The processes that one has started, by any of its threads.
fn children(pid: i32) -> Vec<i32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let of_thread =
        |thread: fs::DirEntry| fs::read_to_string(thread.path().join("children")).unwrap_or_default();
    threads
        .map(of_thread)
        .flat_map(|children| {
            children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()
        })
        .collect()
}

fn wait_until_at_rest(pid: i32, deadline: Instant) -> io::Result<()> {
    while !is_at_rest(pid) {
        if Instant::now() > deadline {
            let what = format!("process {pid} did not stop within {} s", STOP_LIMIT.as_secs());
            return Err(io::Error::new(io::ErrorKind::TimedOut, what));
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

/// Whether nothing of a process runs: each thread is stopped, or waits for a child that is, until which the kernel
/// stops nobody who used `vfork`. A process that has ended is at rest too.
fn is_at_rest(pid: i32) -> bool {
    let is_stopped = |state: &char| "TtZX".contains(*state);
    let waits_for_child = || {
        let stopped = |child: i32| states(child).iter().any(|state| "Tt".contains(*state));
        children(pid).into_iter().any(stopped)
    };
    states(pid).iter().all(|state| is_stopped(state) || *state == 'D' && waits_for_child())
}

/// What each thread of a process is doing, in the kernel's letters.
fn states(pid: i32) -> Vec<char> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let state = |thread: fs::DirEntry| {
        let stat = fs::read_to_string(thread.path().join("stat")).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    };
    threads.filter_map(state).collect()
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A shell with a child that counts in a file, and a grandchild that does.
    fn counting(dir: &std::path::Path) -> Child {
        let script = "count() { n=0; while :; do n=$((n+1)); echo $n > $1; sleep 0.01; done; }; \
                      (count a & count b) & wait";
        Command::new("sh").args(["-c", script]).current_dir(dir).stdout(Stdio::null()).spawn().unwrap()
    }

    /// Killed however the test ends.
    struct Killed(Processes);

    impl Drop for Killed {
        fn drop(&mut self) {
            let _ = self.0.kill();
        }
    }

    fn counts(dir: &std::path::Path) -> [String; 2] {
        ["a", "b"].map(|name| fs::read_to_string(dir.join(name)).unwrap_or_default())
    }

    fn until(what: &str, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !is_so() {
            assert!(Instant::now() < deadline, "{what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn is_counting(dir: &std::path::Path) {
        let before = counts(dir);
        until("they do not count", || {
            counts(dir).iter().zip(&before).all(|(now, before)| !now.is_empty() && now != before)
        });
    }

    #[test]
    fn all_of_a_server_stops_goes_on_and_goes() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = counting(dir.path());
        let Killed(processes) = &Killed(Processes::of(child.id()).unwrap());
        is_counting(dir.path());
        processes.pause().unwrap();
        let paused = counts(dir.path());
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(counts(dir.path()), paused);
        processes.pause().unwrap();
        processes.resume().unwrap();
        is_counting(dir.path());
        let below: Vec<i32> = processes.below().unwrap().into_keys().collect();
        assert!(below.len() >= 2, "{below:?}");
        processes.kill().unwrap();
        child.wait().unwrap();
        until("some are left", || below.iter().all(|pid| is_at_rest(*pid)));
        processes.resume().unwrap_err();
        processes.pause().unwrap_err();
        processes.kill().unwrap();
    }
}
