//! Forks: copy-on-write views of a frozen directory, one for each server.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::mount::{MountFlags, UnmountFlags};

use crate::process::User;

/// How a fork gets its view of the frozen directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// An overlay mount: nothing is copied but what the server writes to.
    Overlay {
        /// Whether the mount is made inside a user namespace.
        in_user_namespace: bool,
    },
    /// Copies that share their blocks with the original.
    Reflink,
    /// Plain copies.
    Copy,
}

impl Strategy {
    /// Name, as in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Overlay { .. } => "overlay",
            Self::Reflink => "reflink",
            Self::Copy => "copy",
        }
    }
}

/// The place where forks live.
#[derive(Debug)]
pub struct ForkRoot {
    dir: PathBuf,
    strategy: Strategy,
    owner: Option<User>,
    next: AtomicU64,
}

/// One fork: a directory that looks like the frozen one and can be written to.
#[derive(Debug)]
pub struct Fork {
    dir: PathBuf,
    mounted: bool,
}

impl ForkRoot {
    /// Forks in `dir`, which exists, belonging to `owner` (the broker's user when absent).
    pub fn new(dir: PathBuf, strategy: Strategy, owner: Option<User>) -> Self {
        Self { dir, strategy, owner, next: AtomicU64::new(0) }
    }

    /// The directory that forks are made in.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// How forks are made.
    pub fn strategy(&self) -> Strategy {
        self.strategy
    }

    /// Makes a fork of `frozen`, for a server that `renames_directories`, or for one that does not.
    ///
    /// # Errors
    /// What the file system says; nothing is left behind.
    pub fn fork(&self, frozen: &Path, renames_directories: bool) -> io::Result<Fork> {
        let mut fork = self.create()?;
        match self.strategy {
            // There, the kernel refuses to rename a directory that comes from the frozen one.
            Strategy::Overlay { in_user_namespace: true } if renames_directories => {
                copy_tree(frozen, &fork.data(), self.owner.as_ref(), &plain_copy)?;
            }
            Strategy::Overlay { in_user_namespace } => {
                let data = fork.data();
                overlay(frozen, &fork.dir, &data, self.owner.as_ref(), in_user_namespace)?;
                fork.mounted = true;
            }
            Strategy::Reflink => copy_tree(frozen, &fork.data(), self.owner.as_ref(), &reflink)?,
            Strategy::Copy => copy_tree(frozen, &fork.data(), self.owner.as_ref(), &plain_copy)?,
        }
        Ok(fork)
    }

    /// Makes a fork of nothing: an empty directory.
    ///
    /// # Errors
    /// What the file system says.
    pub fn empty(&self) -> io::Result<Fork> {
        let fork = self.create()?;
        make_dir(&fork.data(), 0o700, self.owner.as_ref())?;
        Ok(fork)
    }

    fn create(&self) -> io::Result<Fork> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let dir = self.dir.join(number.to_string());
        make_dir(&dir, 0o711, None)?;
        Ok(Fork { dir, mounted: false })
    }
}

impl Fork {
    /// No fork at all: what is left of one that was taken over.
    pub(crate) fn nothing() -> Self {
        Self { dir: PathBuf::new(), mounted: false }
    }

    /// The directory for a server to use.
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }
}

impl Drop for Fork {
    fn drop(&mut self) {
        if self.mounted {
            let _ = rustix::mount::unmount(self.data(), UnmountFlags::DETACH);
        }
        if !self.dir.as_os_str().is_empty() {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// Mounts an overlay of `lower` at `target`, keeping what is written in `dir`.
pub(crate) fn overlay(
    lower: &Path,
    dir: &Path,
    target: &Path,
    owner: Option<&User>,
    in_user_namespace: bool,
) -> io::Result<()> {
    let (upper, work) = (dir.join("upper"), dir.join("work"));
    make_dir(&upper, 0o700, owner)?;
    make_dir(&work, 0o700, None)?;
    if !target.exists() {
        make_dir(target, 0o700, owner)?;
    }
    let mut options = Vec::with_capacity(256);
    for (key, path) in [(&b"lowerdir="[..], lower), (b",upperdir=", &upper), (b",workdir=", &work)] {
        options.extend_from_slice(key);
        for byte in path.as_os_str().as_bytes() {
            if matches!(byte, b':' | b',' | b'\\') {
                options.push(b'\\');
            }
            options.push(*byte);
        }
    }
    // What comes from `lower` can be renamed too, where the kernel allows it.
    options.extend_from_slice(if in_user_namespace { b",userxattr" } else { b",redirect_dir=on" });
    let options = CString::new(options)?;
    Ok(rustix::mount::mount("overlay", target, "overlay", MountFlags::NODEV | MountFlags::NOSUID, &*options)?)
}

/// Unmounts what [`overlay`] mounted.
pub(crate) fn unmount(target: &Path) -> io::Result<()> {
    Ok(rustix::mount::unmount(target, UnmountFlags::DETACH)?)
}

pub(crate) fn make_dir(path: &Path, mode: u32, owner: Option<&User>) -> io::Result<()> {
    fs::DirBuilder::new().mode(mode).create(path)?;
    chown(path, owner)
}

pub(crate) fn chown(path: &Path, owner: Option<&User>) -> io::Result<()> {
    match owner {
        Some(user) => std::os::unix::fs::lchown(path, Some(user.uid), Some(user.gid)),
        None => Ok(()),
    }
}

/// Copies a directory tree; each file by `copy_file`.
pub(crate) fn copy_tree(
    from: &Path,
    to: &Path,
    owner: Option<&User>,
    copy_file: &dyn Fn(&Path, &Path) -> io::Result<()>,
) -> io::Result<()> {
    make_dir(to, fs::metadata(from)?.mode() & 0o777, owner)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_tree(&source, &target, owner, copy_file)?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&source)?, &target)?;
        } else if kind.is_file() {
            copy_file(&source, &target)?;
            chown(&target, owner)?;
        }
        // Sockets and pipes of a stopped server mean nothing to the next.
    }
    Ok(())
}

pub(crate) fn plain_copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::copy(from, to).map(drop)
}

fn reflink(from: &Path, to: &Path) -> io::Result<()> {
    let source = File::open(from)?;
    let target = File::create_new(to)?;
    rustix::fs::ioctl_ficlone(&target, &source)?;
    target.set_permissions(fs::Permissions::from_mode(source.metadata()?.mode() & 0o777))
}

/// Whether `strategy` works from `frozen_on` (a directory on the cache's file system) to `forks`, by trying all that a
/// database does to a file system: change, create, rename and remove files and directories.
///
/// # Errors
/// What went wrong, when it does not work.
pub fn probe(strategy: Strategy, frozen_on: &Path, forks: &Path) -> io::Result<()> {
    let frozen = frozen_on.join(format!(".probe-{}", std::process::id()));
    let _ = fs::remove_dir_all(&frozen);
    fs::create_dir_all(frozen.join("dir/inner"))?;
    let tried = (|| {
        fs::write(frozen.join("dir/file"), "frozen")?;
        fs::write(frozen.join("other"), "frozen")?;
        let probe_dir = forks.join(format!("probe-{}", std::process::id()));
        fs::create_dir_all(&probe_dir)?;
        let root = ForkRoot::new(probe_dir.clone(), strategy, None);
        let used = root.fork(&frozen, false).and_then(|fork| use_as_a_database_does(&fork.data()));
        let _ = fs::remove_dir_all(&probe_dir);
        used?;
        match fs::read_to_string(frozen.join("dir/file"))?.as_str() {
            "frozen" => Ok(()),
            _ => Err(io::Error::other("a fork wrote through to the frozen directory")),
        }
    })();
    let _ = fs::remove_dir_all(&frozen);
    tried
}

fn use_as_a_database_does(data: &Path) -> io::Result<()> {
    fs::write(data.join("dir/file"), "changed")?;
    fs::rename(data.join("other"), data.join("dir/renamed"))?;
    fs::remove_dir_all(data.join("dir/inner"))?;
    fs::create_dir(data.join("dir/inner"))?;
    fs::write(data.join("dir/inner/new"), "new")?;
    fs::remove_file(data.join("dir/file"))?;
    match fs::read_dir(data.join("dir/inner"))?.count() {
        1 => Ok(()),
        _ => Err(io::Error::other("a directory made anew still shows what was removed")),
    }
}

/// Space that forks in `root` take, in bytes as allocated: for overlays, only what was changed.
pub fn changed_bytes(root: &Path) -> u64 {
    let forks = fs::read_dir(root).into_iter().flatten().flatten();
    forks
        .flat_map(|fork| fs::read_dir(fork.path()).into_iter().flatten().flatten())
        .filter(|entry| entry.file_name() != "data" || !entry.path().with_file_name("upper").exists())
        .map(|entry| disk_usage(&entry.path()))
        .sum()
}

/// Space in use under a directory, in bytes as allocated.
pub fn disk_usage(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => disk_usage(&entry.path()),
            Ok(meta) => meta.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_independent_and_gone_when_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let (frozen, forks) = (dir.path().join("frozen"), dir.path().join("forks"));
        fs::create_dir_all(frozen.join("a/b")).unwrap();
        fs::create_dir(&forks).unwrap();
        fs::write(frozen.join("a/b/file"), "frozen").unwrap();
        let root = ForkRoot::new(forks.clone(), Strategy::Copy, None);
        let fork = root.fork(&frozen, false).unwrap();
        fs::write(fork.data().join("a/b/file"), "changed").unwrap();
        assert_eq!(fs::read_to_string(frozen.join("a/b/file")).unwrap(), "frozen");
        drop(fork);
        assert_eq!(fs::read_dir(forks).unwrap().count(), 0);
    }

    #[test]
    fn the_probe_accepts_copies_everywhere() {
        let dir = tempfile::tempdir().unwrap();
        probe(Strategy::Copy, dir.path(), dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_probe_says_no_where_blocks_cannot_be_shared() {
        // /proc/self is no place for files on any machine.
        probe(Strategy::Reflink, Path::new("/proc/self"), Path::new("/proc/self")).unwrap_err();
    }
}
