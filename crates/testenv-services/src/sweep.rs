//! Removing what a broker that was killed left behind.
//!
//! Every process of a broker holds a lock on the workspace's guard file. The kernel gives the lock up when the
//! last of them is gone, so a new broker that can take it knows that nothing is left, without looking.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::process::{Pid, Signal};
use testenv_api::{Problem, ProblemKind};

use crate::{Result, io_problem, process};

/// How long killed processes may take to go.
const PATIENCE: Duration = Duration::from_secs(10);

/// Opens and locks the guard file, ending processes of an earlier broker that still hold it.
pub(crate) fn guard(runtime_dir: &Path) -> Result<File> {
    let path = runtime_dir.join("guard");
    let problem = |error: std::io::Error| io_problem(format!("lock {}", path.display()), &error);
    let guard = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(problem)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match rustix::fs::flock(&guard, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(guard),
            Err(rustix::io::Errno::WOULDBLOCK) => {}
            Err(error) => return Err(problem(error.into())),
        }
        let holders = holders(&guard);
        if Instant::now() > deadline {
            return Err(Problem::new(ProblemKind::Resources, "processes of an earlier broker do not end")
                .detail(format!("still there after {} s: {holders:?}", PATIENCE.as_secs()))
                .hint("end them by hand, then try again"));
        }
        for pid in &holders {
            tracing::warn!(pid, "ending a process that an earlier broker left behind");
            if let Some(pid) = Pid::from_raw(*pid) {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Processes, other than this one, that have the file open.
fn holders(file: &File) -> Vec<i32> {
    let Ok(wanted) = file.metadata() else { return Vec::new() };
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let holds = |pid: &i32| {
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        descriptors.flatten().any(|descriptor| {
            fs::metadata(descriptor.path())
                .is_ok_and(|open| (open.dev(), open.ino()) == (wanted.dev(), wanted.ino()))
        })
    };
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != own)
        .filter(holds)
        .collect()
}

/// Removes a directory of an earlier broker with all that is in it, if it is there.
pub(crate) fn remove_dir(dir: &Path) -> Result<()> {
    for fork in fs::read_dir(dir).into_iter().flatten().flatten() {
        if let Some((id, owner)) = shared_memory_of(&fork.path().join("data")) {
            process::remove_shared_memory(id, owner);
        }
    }
    match fs::remove_dir_all(dir) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io_problem(format!("remove {}", dir.display()), &error)),
    }
}

/// The System V segment of a PostgreSQL server, and the server's user.
///
/// A server notes the segment in its `postmaster.pid`, but makes it before: for one that was killed in between, the
/// kernel's table is searched for the key that servers use first, the number of their data directory.
pub(crate) fn shared_memory_of(data: &Path) -> Option<(i32, u32)> {
    let file = data.join("postmaster.pid");
    let owner = fs::metadata(&file).ok()?.uid();
    let text = fs::read_to_string(&file).ok()?;
    let noted = text.lines().nth(6).and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    let table = || fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
    let id = noted.or_else(|| segment_with_key(&table(), fs::metadata(data).ok()?.ino()))?;
    Some((id, owner))
}

/// Looks a segment up in `/proc/sysvipc/shm`: key, id, mode, size, …
fn segment_with_key(table: &str, inode: u64) -> Option<i32> {
    let key = (inode as u32).cast_signed();
    let mut rows = table.lines().map(str::split_whitespace);
    rows.find_map(|mut row| (row.next()?.parse() == Ok(key)).then(|| row.next()?.parse().ok()).flatten())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_that_holds_the_guard_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let first = guard(dir.path()).unwrap();
        rustix::io::fcntl_setfd(&first, rustix::io::FdFlags::empty()).unwrap();
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        assert!(first.as_raw_fd() > 2);
        drop(first);
        let reaper = std::thread::spawn(move || child.wait().unwrap());
        guard(dir.path()).unwrap();
        assert!(!reaper.join().unwrap().success());
    }

    #[test]
    fn the_shared_memory_of_a_server_is_read_from_its_pid_file() {
        let dir = tempfile::tempdir().unwrap();
        let text = "12\n/data\n1600000000\n20001\n/run/x\n127.0.0.1\n  5432001     65537\nready   \n";
        fs::write(dir.path().join("postmaster.pid"), text).unwrap();
        let own = rustix::process::geteuid().as_raw();
        assert_eq!(shared_memory_of(dir.path()), Some((65537, own)));
        assert_eq!(shared_memory_of(&dir.path().join("none")), None);
    }

    #[test]
    fn the_shared_memory_of_a_server_that_has_noted_none_is_found_by_its_key() {
        let table = "       key      shmid perms       size\n   1037746     425986   600         56\n        -1  7  600 56\n";
        assert_eq!(segment_with_key(table, 1_037_746), Some(425_986));
        assert_eq!(segment_with_key(table, 0x1_ffff_ffff), Some(7));
        assert_eq!(segment_with_key(table, 5), None);
    }
}
