//! Noticing in a microsecond that no file has changed, where the kernel can promise it.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use super::{Fingerprint, MAX_FILES};

/// File systems whose every change passes through this kernel. On others, such as a directory shared with a
/// virtual machine's host, a file can change without the kernel hearing of it.
const LOCAL: [u64; 7] = [
    0xEF53,      // ext4
    0x5846_5342, // XFS
    0x9123_683E, // btrfs
    0x0102_1994, // tmpfs
    0x794C_7630, // overlay
    0xF2F5_2010, // F2FS
    0x2FC1_2FC1, // ZFS
];

/// Files that are looked at again and again, with the least work that tells for sure whether they changed.
#[derive(Debug)]
pub struct Watch {
    paths: Vec<PathBuf>,
    seen: Fingerprint,
    /// Absent where the kernel cannot be relied on.
    events: Option<Events>,
}

#[derive(Debug)]
struct Events {
    inotify: OwnedFd,
    /// The paths themselves, without what is in them: a directory put in another's place makes no event.
    roots: Fingerprint,
}

impl Watch {
    /// Looks at the files and directories under `paths`, and watches them from now on.
    pub fn new(paths: Vec<PathBuf>) -> Self {
        // Watched first and looked at then: what changes in between is noticed twice, not missed.
        let events = watch(&paths);
        let seen = Fingerprint::take(paths.iter().map(PathBuf::as_path));
        Self { paths, seen, events }
    }

    /// Whether nothing has changed since they were last looked at.
    pub fn is_unchanged(&mut self) -> bool {
        if self.events.as_ref().is_some_and(|events| events.none_since(&self.paths)) {
            return true;
        }
        let again = Self::new(std::mem::take(&mut self.paths));
        let unchanged = again.seen == self.seen;
        *self = again;
        unchanged
    }
}

impl Events {
    fn none_since(&self, paths: &[PathBuf]) -> bool {
        let mut buffer = [std::mem::MaybeUninit::uninit(); 512];
        let event = inotify::Reader::new(&self.inotify, &mut buffer).next().map(drop);
        event == Err(rustix::io::Errno::AGAIN) && roots(paths) == self.roots
    }
}

fn roots(paths: &[PathBuf]) -> Fingerprint {
    let mut seen = Vec::new();
    for path in paths {
        super::look_at_one(path, &mut seen);
    }
    Fingerprint(seen)
}

fn watch(paths: &[PathBuf]) -> Option<Events> {
    let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok()?;
    let mut left = MAX_FILES;
    for path in paths {
        let is_file = fs::metadata(path).ok()?.is_file();
        watch_tree(&inotify, if is_file { path.parent()? } else { path }, !is_file, &mut left)?;
    }
    Some(Events { inotify, roots: roots(paths) })
}

/// `None` when something is there that cannot be watched.
fn watch_tree(inotify: &OwnedFd, dir: &Path, deep: bool, left: &mut usize) -> Option<()> {
    let kind = rustix::fs::statfs(dir).ok()?.f_type;
    if !LOCAL.contains(&u64::try_from(kind).ok()?) {
        return None;
    }
    let changes = WatchFlags::MODIFY
        | WatchFlags::ATTRIB
        | WatchFlags::CREATE
        | WatchFlags::DELETE
        | WatchFlags::MOVE
        | WatchFlags::DELETE_SELF
        | WatchFlags::MOVE_SELF;
    inotify::add_watch(inotify, dir, changes).ok()?;
    if !deep {
        return Some(());
    }
    for entry in fs::read_dir(dir).ok()?.flatten() {
        *left = left.checked_sub(1)?;
        let kind = entry.file_type().ok()?;
        if kind.is_symlink() {
            return None;
        }
        if kind.is_dir() {
            watch_tree(inotify, &entry.path(), true, left)?;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl FnOnce(&Path)) -> bool {
        let dir = tempfile::tempdir().unwrap();
        let migrations = dir.path().join("migrations");
        fs::create_dir_all(migrations.join("inner")).unwrap();
        fs::write(migrations.join("inner/a.sql"), "1").unwrap();
        let mut watch = Watch::new(vec![migrations]);
        assert!(watch.is_unchanged());
        change(dir.path());
        watch.is_unchanged()
    }

    #[test]
    fn every_kind_of_change_is_noticed() {
        assert!(check(|_| {}));
        assert!(check(|dir| fs::write(dir.join("elsewhere"), "").unwrap()));
        assert!(!check(|dir| fs::write(dir.join("migrations/inner/a.sql"), "22").unwrap()));
        assert!(!check(|dir| fs::write(dir.join("migrations/b.sql"), "").unwrap()));
        assert!(!check(|dir| fs::remove_file(dir.join("migrations/inner/a.sql")).unwrap()));
        assert!(!check(|dir| fs::rename(dir.join("migrations"), dir.join("gone")).unwrap()));
    }

    #[test]
    fn a_directory_put_in_the_place_of_another_is_noticed() {
        assert!(!check(|dir| {
            fs::create_dir(dir.join("other")).unwrap();
            fs::write(dir.join("other/a.sql"), "1").unwrap();
            fs::rename(dir.join("migrations"), dir.join("old")).unwrap();
            fs::rename(dir.join("other"), dir.join("migrations")).unwrap();
        }));
    }

    #[test]
    fn a_file_is_watched_through_its_directory() {
        let dir = tempfile::tempdir().unwrap();
        let seed = dir.path().join("seed.sql");
        fs::write(&seed, "1").unwrap();
        let mut watch = Watch::new(vec![seed.clone()]);
        fs::write(dir.path().join("other"), "1").unwrap();
        assert!(watch.is_unchanged(), "another file is none of its business");
        fs::write(dir.path().join("new"), "22").unwrap();
        fs::rename(dir.path().join("new"), &seed).unwrap();
        assert!(!watch.is_unchanged());
    }

    #[test]
    fn links_are_looked_at_instead_of_watched() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("migrations")).unwrap();
        fs::write(dir.path().join("target.sql"), "1").unwrap();
        std::os::unix::fs::symlink("../target.sql", dir.path().join("migrations/a.sql")).unwrap();
        let mut watch = Watch::new(vec![dir.path().join("migrations")]);
        assert!(watch.events.is_none() && watch.is_unchanged());
        fs::write(dir.path().join("target.sql"), "22").unwrap();
        assert!(!watch.is_unchanged());
    }
}
