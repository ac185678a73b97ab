//! What a workspace's broker has left on the machine.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use crate::processes::{self, ProcessInfo};

/// Files of a runtime directory that stay, for the next broker.
const STAY: &[&str] = &["lock", "guard", "broker.log"];

/// Where a workspace's broker leaves traces.
#[derive(Clone, Debug)]
pub struct Places {
    /// Directory that holds everything which is the workspace's alone.
    pub base: PathBuf,
    /// The workspace's runtime directory.
    pub runtime: PathBuf,
    /// Directory of the snapshots.
    pub cache: PathBuf,
    /// Shared memory segments that were there before.
    pub segments_before: BTreeSet<i64>,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Processes that have to do with the workspace.
    pub processes: Vec<ProcessInfo>,
    /// Mounts, in whichever namespace.
    pub mounts: Vec<String>,
    /// Sockets, and everything else in the runtime directory that should not stay.
    pub files: Vec<PathBuf>,
    /// System V segments that nobody is attached to and whose creator is gone.
    pub segments: Vec<String>,
}

impl Inventory {
    /// Looks everywhere.
    pub fn take(places: &Places) -> Self {
        Self {
            processes: processes::of_place(&places.base),
            mounts: mounts(&places.runtime),
            files: files(places),
            segments: segments()
                .into_iter()
                .filter(|segment| !places.segments_before.contains(&segment.id) && segment.is_forgotten())
                .map(|segment| segment.line)
                .collect(),
        }
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Inventory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for process in &self.processes {
            writeln!(f, "process {}: {}", process.pid, process.command)?;
        }
        for mount in &self.mounts {
            writeln!(f, "mount: {mount}")?;
        }
        for file in &self.files {
            writeln!(f, "file: {}", file.display())?;
        }
        for segment in &self.segments {
            writeln!(f, "shared memory: {segment}")?;
        }
        Ok(())
    }
}

impl Places {
    /// The segments there are now.
    pub(crate) fn segments_now() -> BTreeSet<i64> {
        segments().into_iter().map(|segment| segment.id).collect()
    }
}

/// Mounts that a workspace's broker made, in the mount namespaces of all processes. Wherever it makes one, the
/// name of its runtime directory is part of the path.
fn mounts(runtime: &Path) -> Vec<String> {
    let name = runtime.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut seen = BTreeSet::new();
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(namespace) = fs::read_link(entry.path().join("ns/mnt")) else { continue };
        if seen.insert(namespace) {
            let table = fs::read_to_string(entry.path().join("mountinfo")).unwrap_or_default();
            found.extend(table.lines().filter(|line| line.contains(&name)).map(str::to_owned));
        }
    }
    found.into_iter().collect()
}

fn files(places: &Places) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(&places.runtime).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if !STAY.iter().any(|stays| name == **stays) {
            found.push(entry.path());
            sockets(&entry.path(), &mut found);
        }
    }
    let hash = places.runtime.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let shared = fs::read_dir("/dev/shm").into_iter().flatten().flatten();
    found.extend(
        shared
            .filter(|entry| entry.file_name().to_string_lossy().ends_with(&format!("-{hash}")))
            .map(|entry| entry.path()),
    );
    let on_disk = places.cache.join("forks").join(&hash);
    found.extend(on_disk.exists().then_some(on_disk));
    found
}

fn sockets(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_socket() => found.push(entry.path()),
            Ok(kind) if kind.is_dir() => sockets(&entry.path(), found),
            _ => {}
        }
    }
}

struct Segment {
    id: i64,
    creator: u32,
    attached: u64,
    line: String,
}

impl Segment {
    fn is_forgotten(&self) -> bool {
        self.attached == 0 && !Path::new(&format!("/proc/{}", self.creator)).exists()
    }
}

/// `/proc/sysvipc/shm`: key, id, mode, size, creator, last user, attached, …
fn segments() -> Vec<Segment> {
    let table = fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
    let parse = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let field = |index: usize| fields.get(index).copied();
        Some(Segment {
            id: field(1)?.parse().ok()?,
            creator: field(4)?.parse().ok()?,
            attached: field(6)?.parse().ok()?,
            line: line.trim().to_owned(),
        })
    };
    table.lines().filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn what_is_left_is_found_and_what_may_stay_is_not() {
        let base = tempfile::tempdir().unwrap();
        let runtime = base.path().join("r/0123456789");
        fs::create_dir_all(runtime.join("s/1")).unwrap();
        fs::write(runtime.join("lock"), "").unwrap();
        let places = Places {
            base: base.path().to_path_buf(),
            runtime: runtime.clone(),
            cache: base.path().join("c"),
            segments_before: Places::segments_now(),
        };
        let _listener = UnixListener::bind(runtime.join("s/1/socket")).unwrap();
        let inventory = Inventory::take(&places);
        assert_eq!(inventory.files, [runtime.join("s"), runtime.join("s/1/socket")]);
        fs::remove_dir_all(runtime.join("s")).unwrap();
        let inventory = Inventory::take(&places);
        assert!(inventory.is_empty(), "{inventory}");
    }
}
