//! The workspace's broker, and what brokers that are gone have left.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use testenv_api::{Health, PROTOCOL, VERSION};

use super::finding::{Check, Finding, Group, Severity};
use super::load::size;
use super::probe::SCRATCH;
use super::repair::Repair;
use crate::fork;

const BROKER: Check = Check::new("broker", Group::Broker);
const LEFTOVERS: Check = Check::new("leftovers", Group::Broker);

/// What the workspace's broker said when it was asked how it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broker {
    /// None runs.
    None,
    /// It answered, and has so many servers.
    Answers(Health, u64),
    /// One is there, but did not answer; what happened instead.
    Silent(String),
}

impl Broker {
    /// Its process, if it answered.
    pub(super) fn pid(&self) -> Option<u32> {
        match self {
            Self::Answers(health, _) => Some(health.pid),
            Self::None | Self::Silent(_) => None,
        }
    }

    /// How many servers it has, as far as it said.
    pub(super) fn servers(&self) -> u64 {
        match self {
            Self::Answers(_, servers) => *servers,
            Self::None | Self::Silent(_) => 0,
        }
    }
}

pub(super) fn judge_broker(seen: &Broker) -> Finding {
    let health = match seen {
        Broker::None => return Finding::ok(BROKER, "no broker runs, the first lease starts one"),
        Broker::Silent(error) => {
            return Finding::new(BROKER, Severity::Problem, "a broker is there, but does not answer")
                .means(error.clone())
                .advice("end it")
                .command("testenv down");
        }
        Broker::Answers(health, _) => health,
    };
    let text = format!("broker {} runs, process {}", health.version, health.pid);
    if health.version == VERSION && health.protocol == PROTOCOL {
        return Finding::ok(BROKER, text);
    }
    let text = format!("{text}; this is {VERSION}");
    match health.leases {
        0 => Finding::new(BROKER, Severity::Note, text)
            .means("nobody holds a lease of it, so the next `testenv exec` or `testenv run` replaces it"),
        leases => Finding::new(BROKER, Severity::Warning, text)
            .means(format!("{leases} of its leases are held; until the last one ends, no other is given"))
            .advice("wait for those tests to end, or")
            .command("testenv down"),
    }
}

/// What a dead broker left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// Its runtime directory.
    pub runtime_dir: PathBuf,
    /// What is to be removed, there and elsewhere.
    pub paths: Vec<PathBuf>,
    /// How much room that takes, in bytes.
    pub bytes: u64,
    /// Whether processes of it are left.
    pub processes: bool,
}

/// What dead brokers left whose runtime directories are in `runtime_root`, all of this user.
///
/// Every broker holds a lock for as long as it lives, so one whose lock can be had is dead.
pub(super) fn read_leftovers(runtime_root: &Path, cache_dir: &Path) -> Vec<Leftover> {
    let uid = rustix::process::geteuid().as_raw();
    let dirs = fs::read_dir(runtime_root).into_iter().flatten().flatten().map(|entry| entry.path());
    let own =
        dirs.filter(|dir| fs::symlink_metadata(dir).is_ok_and(|meta| meta.is_dir() && meta.uid() == uid));
    let mut left: Vec<_> = own.filter_map(|dir| leftover(dir, cache_dir, uid)).collect();
    left.sort_by(|one, other| one.runtime_dir.cmp(&other.runtime_dir));
    left
}

fn leftover(runtime_dir: PathBuf, cache_dir: &Path, uid: u32) -> Option<Leftover> {
    if !is_free(&runtime_dir.join("lock"))? {
        return None;
    }
    let name = runtime_dir.file_name()?;
    let shared_memory = Path::new("/dev/shm").join(format!("testenv-{uid}-{}", name.to_string_lossy()));
    let elsewhere = [shared_memory, cache_dir.join("forks").join(name)];
    let is_scratch = name.to_string_lossy().starts_with(SCRATCH);
    let within = if is_scratch { &[""][..] } else { &["broker.sock", "broker.new", "s", "f"] };
    let within = within.iter().map(|name| runtime_dir.join(name));
    let is_own = |path: &PathBuf| fs::symlink_metadata(path).is_ok_and(|meta| meta.uid() == uid);
    let paths: Vec<_> = within.chain(elsewhere).filter(is_own).collect();
    let processes = is_free(&runtime_dir.join("guard")) == Some(false);
    let bytes = paths.iter().map(|path| fork::disk_usage(path)).sum();
    let any = processes || !paths.is_empty();
    any.then_some(Leftover { runtime_dir, paths, bytes, processes })
}

/// Whether nobody holds the lock on a file; `None` when there is no such file.
pub(super) fn is_free(file: &Path) -> Option<bool> {
    let file = File::open(file).ok()?;
    Some(rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_ok())
}

pub(super) fn judge_leftovers(seen: Vec<Leftover>) -> Vec<Finding> {
    if seen.is_empty() {
        return vec![Finding::ok(LEFTOVERS, "nothing left by dead brokers")];
    }
    seen.into_iter().map(judge_leftover).collect()
}

fn judge_leftover(left: Leftover) -> Finding {
    let dir = left.runtime_dir.display().to_string();
    let bytes = if left.bytes > 0 { format!(", {}", size(left.bytes)) } else { String::new() };
    let (severity, processes) = match left.processes {
        true => (Severity::Warning, "processes and "),
        false => (Severity::Note, ""),
    };
    let paths: Vec<_> = left.paths.iter().map(|path| path.display().to_string()).collect();
    Finding::new(LEFTOVERS, severity, format!("a dead broker left {processes}files in {dir}{bytes}"))
        .of(&dir)
        .means(format!(
            "they are in nobody's way; the workspace's next broker removes them\n{}",
            paths.join(", ")
        ))
        .advice("remove them now")
        .command("testenv doctor --fix")
        .repair(Repair::Sweep(left))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(version: &str, leases: usize) -> Broker {
        let (version, workspace) = (version.to_owned(), "/w".to_owned());
        Broker::Answers(Health { version, protocol: PROTOCOL, pid: 42, workspace, leases }, 8)
    }

    #[test]
    fn a_broker_of_another_version_hinders_while_it_is_used() {
        assert_eq!(judge_broker(&Broker::None).severity, Severity::Ok);
        assert_eq!(judge_broker(&health(VERSION, 3)).severity, Severity::Ok);
        assert_eq!(judge_broker(&health("0.0.1", 0)).severity, Severity::Note);
        let held = judge_broker(&health("0.0.1", 2));
        assert_eq!((held.severity, held.commands[0].as_str()), (Severity::Warning, "testenv down"));
        assert_eq!(judge_broker(&Broker::Silent("timed out".into())).severity, Severity::Problem);
    }

    /// A runtime root with the directory of one broker, which has a socket.
    fn runtime() -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("0123456789");
        fs::create_dir_all(dir.join("s/0")).unwrap();
        for file in ["lock", "guard", "broker.sock", "broker.log"] {
            fs::write(dir.join(file), "").unwrap();
        }
        (root, dir)
    }

    #[test]
    fn what_a_dead_broker_left_is_found_and_removed() {
        let (root, dir) = runtime();
        let left = read_leftovers(root.path(), &root.path().join("c"));
        assert_eq!(left[0].paths, [dir.join("broker.sock"), dir.join("s")]);
        let finding = judge_leftovers(left).remove(0);
        assert_eq!(finding.severity, Severity::Note);
        let done = finding.repair.unwrap().apply().unwrap();
        assert!(
            done.contains("removed") && !dir.join("s").exists() && dir.join("broker.log").exists(),
            "{done}"
        );
        assert_eq!(read_leftovers(root.path(), &root.path().join("c")), []);
        assert_eq!(judge_leftovers(Vec::new()).remove(0).severity, Severity::Ok);
    }

    #[test]
    fn what_a_living_broker_has_is_left_alone() {
        let (root, dir) = runtime();
        let dead = read_leftovers(root.path(), root.path()).remove(0);
        let lock = File::open(dir.join("lock")).unwrap();
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).unwrap();
        assert_eq!(read_leftovers(root.path(), root.path()), []);
        // It may also have started just after it was looked for.
        let refused = Repair::Sweep(dead).apply().unwrap_err();
        assert!(refused.title.contains("a broker has started"), "{refused}");
        assert!(dir.join("s/0").exists());
    }

    #[test]
    fn of_a_doctor_that_was_killed_all_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("doctor-1");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("lock"), "").unwrap();
        let left = read_leftovers(root.path(), root.path()).remove(0);
        Repair::Sweep(left).apply().unwrap();
        assert!(!dir.exists());
    }

    #[test]
    fn processes_of_a_dead_broker_are_noticed_by_what_they_hold() {
        let (root, dir) = runtime();
        let guard = File::open(dir.join("guard")).unwrap();
        rustix::fs::flock(&guard, FlockOperation::LockExclusive).unwrap();
        let left = read_leftovers(root.path(), root.path()).remove(0);
        assert!(left.processes);
        assert_eq!(judge_leftover(left).severity, Severity::Warning);
    }
}
