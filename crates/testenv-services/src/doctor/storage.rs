//! Directories: the cache, the runtime directory, `/dev/shm`.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD};

use super::finding::{Check, Finding, Group, Severity};
use super::load::{counted, size};
use super::repair::Repair;
use crate::drivers::shell_word;
use crate::fork;

const CACHE: Check = Check::new("cache", Group::Disk);
const SHM: Check = Check::new("dev-shm", Group::Disk);
const RUNTIME: Check = Check::new("runtime-dir", Group::Broker);

/// Space that a snapshot takes while it is made: PostgreSQL's, with nothing in it.
const SNAPSHOT: u64 = 64 << 20;
/// Space below which a suite of some size fills the disk.
const LITTLE: u64 = 1 << 30;
/// Files of PostgreSQL's snapshot.
const SNAPSHOT_FILES: u64 = 1_200;
/// What `/dev/shm` has to have free for testenv to use it.
const SHM_WANTED: u64 = 384 << 20;
/// Longest path of a socket, and the longest name of one below the runtime directory.
const LONGEST_RUNTIME_DIR: usize = 107 - 30;

/// Whether a directory can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// It can be written to.
    Usable,
    /// It is not there, but can be made.
    Absent,
    /// `at` stands in the way.
    Refused {
        /// The directory or file.
        at: PathBuf,
        /// What the system says.
        error: String,
        /// Its mode, if it belongs to this user.
        own_mode: Option<u32>,
    },
}

/// Looks whether `dir` can be written to, by trying, or made.
fn look(dir: &Path) -> Reach {
    let refused = |at: &Path, error: &dyn std::fmt::Display| {
        let own = rustix::process::geteuid().as_raw();
        let meta = fs::metadata(at).ok().filter(|meta| meta.is_dir() && meta.uid() == own);
        let own_mode = meta.map(|meta| meta.mode() & 0o7777);
        Reach::Refused { at: at.to_path_buf(), error: error.to_string(), own_mode }
    };
    match fs::metadata(dir) {
        Ok(meta) if !meta.is_dir() => refused(dir, &"it is not a directory"),
        Ok(_) => try_to_write(dir).map_or_else(|error| refused(dir, &error), |()| Reach::Usable),
        Err(error) => {
            let exists = |at: &&Path| fs::metadata(at).is_ok();
            let Some(nearest) = dir.ancestors().skip(1).find(exists) else { return refused(dir, &error) };
            let flags = Access::WRITE_OK | Access::EXEC_OK;
            match rustix::fs::accessat(CWD, nearest, flags, AtFlags::EACCESS) {
                _ if error.kind() != io::ErrorKind::NotFound => refused(nearest, &error),
                Ok(()) => Reach::Absent,
                Err(error) => refused(nearest, &io::Error::from(error)),
            }
        }
    }
}

fn try_to_write(dir: &Path) -> io::Result<()> {
    fs::read_dir(dir)?;
    let file = dir.join(format!(".doctor-{}", std::process::id()));
    File::create_new(&file)?;
    fs::remove_file(&file)
}

/// The cache.
#[derive(Clone, Debug)]
pub(super) struct Cache {
    pub(super) dir: PathBuf,
    pub(super) access: Reach,
    /// Bytes that are free on its file system.
    pub(super) free: u64,
    /// Files that can still be made there; `None` where there is no limit.
    pub(super) free_files: Option<u64>,
    /// Bytes that snapshots take.
    pub(super) held: u64,
    /// `cache.max_size`.
    pub(super) max_size: u64,
}

pub(super) fn read_cache(dir: &Path, max_size: u64) -> Cache {
    let snapshots = dir.join("snapshots");
    let access = match look(&snapshots) {
        Reach::Absent => look(dir),
        other => other,
    };
    let there = dir.ancestors().find(|dir| dir.exists()).unwrap_or(dir);
    let stat = rustix::fs::statvfs(there).ok();
    Cache {
        dir: dir.to_path_buf(),
        access,
        free: stat.as_ref().map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize)),
        free_files: stat.filter(|stat| stat.f_files > 0).map(|stat| stat.f_favail),
        held: fork::disk_usage(&snapshots),
        max_size,
    }
}

pub(super) fn judge_cache(seen: &Cache) -> Finding {
    let dir = seen.dir.display();
    if let Reach::Refused { at, error, own_mode } = &seen.access {
        return refused(CACHE, &seen.dir, at, error, *own_mode)
            .means("no snapshot can be stored, so no role can be prepared")
            .advice("make it writable, or choose another directory: `cache.dir` in testenv.toml, TESTENV_CACHE_DIR");
    }
    let absent = if seen.access == Reach::Absent { ", made on first use" } else { "" };
    let text = format!("cache in {dir} ({} free{absent})", size(seen.free));
    let files = seen.free_files.unwrap_or(u64::MAX);
    if seen.free < SNAPSHOT || files < SNAPSHOT_FILES {
        return Finding::new(CACHE, Severity::Problem, text)
            .means(format!(
                "a snapshot of PostgreSQL takes about {} and {} files while it is made; {} files can be",
                size(SNAPSHOT),
                counted(SNAPSHOT_FILES),
                counted(files)
            ))
            .advice("free some space, or move the cache: `cache.dir` in testenv.toml, TESTENV_CACHE_DIR")
            .command("testenv clean");
    }
    let room = seen.free.saturating_add(seen.held);
    let severity = match () {
        () if seen.free < LITTLE || files < 20 * SNAPSHOT_FILES => Severity::Warning,
        () if room < seen.max_size => Severity::Note,
        () => Severity::Ok,
    };
    Finding::new(CACHE, severity, text)
        .means(format!(
            "snapshots take {} and may take {} (`cache.max_size`); room for about {} more of 40 MiB",
            size(seen.held),
            size(seen.max_size),
            counted((seen.free / (40 << 20)).min(files / SNAPSHOT_FILES)),
        ))
        .advice("free some space, or have testenv remove old snapshots sooner")
        .command("testenv clean")
        .command(format!("max_size = \"{}MiB\"    # testenv.toml, [cache]", (room >> 20) / 2))
}

/// A directory that cannot be used.
fn refused(check: Check, dir: &Path, at: &Path, error: &str, own_mode: Option<u32>) -> Finding {
    let below =
        if at == dir || at.starts_with(dir) { String::new() } else { format!(" for {}", dir.display()) };
    let text = format!("{}{below} cannot be used: {error}", at.display());
    let finding = Finding::new(check, Severity::Problem, text);
    match own_mode.filter(|mode| mode & 0o700 != 0o700) {
        Some(mode) => {
            let finding = finding.command(format!("chmod u+rwx {}", shell_word(&at.to_string_lossy())));
            // What is around testenv's own directories is not testenv's to change.
            let own = at.starts_with(dir);
            let repair = Repair::SetMode { path: at.to_path_buf(), mode: mode | 0o700 };
            if own { finding.repair(repair) } else { finding }
        }
        None => finding,
    }
}

/// `/dev/shm`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shm {
    /// Size and free bytes, where it is a tmpfs.
    pub(super) tmpfs: Option<(u64, u64)>,
    /// Whether the broker has a tmpfs of its own instead.
    pub(super) private: bool,
}

pub(super) fn read_shm(private: bool) -> Shm {
    const TMPFS_MAGIC: u64 = 0x0102_1994;
    let dir = Path::new("/dev/shm");
    let is_tmpfs = rustix::fs::statfs(dir).is_ok_and(|stat| stat.f_type.cast_unsigned() == TMPFS_MAGIC);
    let stat = rustix::fs::statvfs(dir).ok().filter(|_| is_tmpfs);
    let bytes = |blocks: u64, size: u64| blocks.saturating_mul(size);
    let tmpfs = stat.map(|it| (bytes(it.f_blocks, it.f_frsize), bytes(it.f_bavail, it.f_frsize)));
    Shm { tmpfs, private }
}

pub(super) fn judge_shm(seen: Shm) -> Finding {
    let text = match seen.tmpfs {
        Some((all, free)) => format!("/dev/shm {} ({} free)", size(all), size(free)),
        None => "/dev/shm is no tmpfs".to_owned(),
    };
    if seen.private || seen.tmpfs.is_some_and(|(_, free)| free > SHM_WANTED) {
        return Finding::ok(SHM, text);
    }
    Finding::new(SHM, Severity::Warning, text)
        .means(format!(
            "the broker may not mount a tmpfs of its own, and wants {} free here: servers' data goes to disk",
            size(SHM_WANTED)
        ))
        .advice("enlarge it: docker run --shm-size=1g, or")
        .command(format!("{}mount -o remount,size=2g /dev/shm", super::files::sudo()))
}

/// The directories in which brokers have their sockets.
#[derive(Clone, Debug)]
pub(super) struct Runtime {
    /// The workspace's.
    pub(super) dir: PathBuf,
    /// The one around it, and the workspace's: owner, mode, and whether each is a directory; those that are there.
    pub(super) there: Vec<(PathBuf, u32, u32, bool)>,
    pub(super) access: Reach,
    pub(super) user: u32,
}

pub(super) fn read_runtime(dir: &Path) -> Runtime {
    let root = dir.parent().unwrap_or(dir);
    let meta = |dir: &Path| {
        let meta = fs::symlink_metadata(dir).ok()?;
        Some((dir.to_path_buf(), meta.uid(), meta.mode() & 0o7777, meta.is_dir()))
    };
    let access = match look(dir) {
        Reach::Absent => look(root),
        other => other,
    };
    Runtime {
        dir: dir.to_path_buf(),
        there: [root, dir].into_iter().filter_map(meta).collect(),
        access,
        user: rustix::process::geteuid().as_raw(),
    }
}

pub(super) fn judge_runtime(seen: &Runtime) -> Finding {
    let move_it = "set TESTENV_RUNTIME_DIR to a short path of your own";
    let dir = seen.dir.display();
    let length = seen.dir.as_os_str().len();
    if length > LONGEST_RUNTIME_DIR {
        let text = format!("{dir} is too long for sockets, with {length} bytes");
        return Finding::new(RUNTIME, Severity::Problem, text)
            .means(format!("no broker starts: it may have {LONGEST_RUNTIME_DIR}"))
            .advice(move_it)
            .command("export TESTENV_RUNTIME_DIR=/tmp/te");
    }
    for (path, owner, mode, is_dir) in &seen.there {
        let shown = path.display();
        if !is_dir || *owner != seen.user {
            let what = if *is_dir { format!("belongs to user {owner}") } else { "is not a directory".into() };
            return Finding::new(RUNTIME, Severity::Problem, format!("{shown} {what}"))
                .means("no broker starts: whoever owns it could read what tests say to their servers")
                .advice(format!("remove it, or {move_it}"))
                .command("export TESTENV_RUNTIME_DIR=/tmp/te");
        }
        if mode & 0o022 != 0 {
            let word = shell_word(&path.to_string_lossy());
            return Finding::new(
                RUNTIME,
                Severity::Problem,
                format!("others can write to {shown}, mode {mode:o}"),
            )
            .means("no broker starts: they could put sockets of their own there")
            .advice("close it")
            .command(format!("chmod go-w {word}"))
            .repair(Repair::SetMode { path: path.clone(), mode: mode & !0o022 });
        }
    }
    match &seen.access {
        Reach::Refused { at, error, own_mode } => refused(RUNTIME, &seen.dir, at, error, *own_mode)
            .means("no broker starts: it has nowhere to listen")
            .advice(format!("make it writable, or {move_it}")),
        _ => Finding::ok(RUNTIME, format!("sockets in {dir}")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn cache(access: Reach, free: u64, free_files: u64) -> Finding {
        let dir = PathBuf::from("/var/cache/testenv");
        let free_files = Some(free_files);
        judge_cache(&Cache { dir, access, free, free_files, held: 100 << 20, max_size: 4 << 30 })
    }

    #[test]
    fn a_full_disk_hinders_everything() {
        let finding = cache(Reach::Usable, 10 << 20, 1_000_000);
        assert_eq!((finding.severity, finding.commands[0].as_str()), (Severity::Problem, "testenv clean"));
        assert_eq!(cache(Reach::Usable, 500 << 20, 1_000_000).severity, Severity::Warning);
        assert_eq!(cache(Reach::Usable, 50 << 30, 100).severity, Severity::Problem, "no files left");
        let small = cache(Reach::Usable, 2 << 30, 1_000_000);
        assert_eq!(small.severity, Severity::Note, "less than the cache may take");
        assert!(small.commands[1].starts_with("max_size = \"1074MiB\""), "{small:?}");
        assert_eq!(cache(Reach::Usable, 50 << 30, 1_000_000).severity, Severity::Ok);
    }

    #[test]
    fn a_cache_that_is_not_there_yet_is_no_problem() {
        let finding = cache(Reach::Absent, 50 << 30, 1_000_000);
        assert_eq!(finding.severity, Severity::Ok);
        assert!(finding.seen.contains("made on first use"), "{finding:?}");
    }

    #[test]
    fn a_closed_cache_is_repaired_only_where_it_is_testenvs_own() {
        let refused = |at: &str, own_mode| {
            let error = "Permission denied (os error 13)".into();
            cache(Reach::Refused { at: at.into(), error, own_mode }, 50 << 30, 1_000_000)
        };
        let own = refused("/var/cache/testenv", Some(0o500));
        let path = PathBuf::from("/var/cache/testenv");
        assert_eq!(own.repair, Some(Repair::SetMode { path, mode: 0o700 }));
        assert_eq!(own.commands, ["chmod u+rwx /var/cache/testenv"]);
        let around = refused("/var/cache", Some(0o000));
        assert_eq!((around.repair, around.commands.len()), (None, 1));
        let others = refused("/var/cache/testenv", None);
        assert_eq!((others.severity, others.repair, others.commands.len()), (Severity::Problem, None, 0));
    }

    #[test]
    fn directories_are_looked_at_by_trying() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(look(dir.path()), Reach::Usable);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing stays");
        assert_eq!(look(&dir.path().join("a/b")), Reach::Absent);
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(matches!(look(&dir.path().join("file")), Reach::Refused { own_mode: None, .. }));
        assert!(matches!(look(&dir.path().join("file/x")), Reach::Refused { .. }));
        assert!(matches!(look(Path::new("/proc/self/fd/x")), Reach::Refused { .. } | Reach::Absent));
    }

    #[test]
    fn shared_memory_matters_where_there_is_no_tmpfs_of_ones_own() {
        let small = Shm { tmpfs: Some((64 << 20, 64 << 20)), private: false };
        let finding = judge_shm(small);
        assert_eq!(finding.severity, Severity::Warning);
        assert!(finding.advice.contains("--shm-size"), "{finding:?}");
        assert_eq!(judge_shm(Shm { private: true, ..small }).severity, Severity::Ok);
        assert_eq!(judge_shm(Shm { tmpfs: None, private: false }).severity, Severity::Warning);
        assert_eq!(judge_shm(Shm { tmpfs: Some((2 << 30, 1 << 30)), private: false }).severity, Severity::Ok);
    }

    fn runtime(dir: &str, there: Vec<(PathBuf, u32, u32, bool)>) -> Finding {
        judge_runtime(&Runtime { dir: dir.into(), there, access: Reach::Absent, user: 1000 })
    }

    #[test]
    fn a_runtime_directory_has_to_be_ones_own_closed_and_short() {
        let one = |uid, mode, is_dir| runtime("/run/te/x", vec![("/run/te".into(), uid, mode, is_dir)]);
        assert_eq!(one(1000, 0o700, true).severity, Severity::Ok);
        assert!(one(0, 0o700, true).seen.contains("belongs to user 0"));
        assert!(one(1000, 0o700, false).seen.contains("is not a directory"));
        let open = one(1000, 0o777, true);
        assert_eq!(open.repair, Some(Repair::SetMode { path: "/run/te".into(), mode: 0o755 }));
        let long = runtime(&format!("/tmp/{}", "x".repeat(80)), vec![]);
        assert!(long.severity == Severity::Problem && long.seen.contains("too long"), "{long:?}");
    }

    #[test]
    fn the_real_ones_are_read() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(judge_runtime(&read_runtime(&dir.path().join("x"))).severity, Severity::Ok);
        let cache = read_cache(&dir.path().join("c"), 1 << 30);
        assert_eq!((cache.access, cache.held), (Reach::Absent, 0));
    }
}
