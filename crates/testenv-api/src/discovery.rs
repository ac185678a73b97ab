//! Where the broker of a workspace listens, worked out alike by every client.
//!
//! A workspace is the nearest directory at or above the current one that holds `testenv.toml`; without
//! one, it is the nearest that holds `.git`, and else the current directory. Its broker listens on
//! `<runtime directory>/<hash of the workspace's path>/broker.sock`.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Name of the configuration file that marks a workspace.
pub const CONFIG_FILE: &str = "testenv.toml";

/// Environment variables that testenv reads, each with its meaning.
pub mod env {
    /// Path of the broker's socket; replaces every other way of finding one.
    pub const BROKER: &str = "TESTENV_BROKER";
    /// Directory of the workspace; replaces the search for `testenv.toml`.
    pub const WORKSPACE: &str = "TESTENV_WORKSPACE";
    /// Directory for sockets and locks; replaces `$XDG_RUNTIME_DIR/testenv`. Keep it short: socket paths have
    /// a limit of 107 bytes.
    pub const RUNTIME_DIR: &str = "TESTENV_RUNTIME_DIR";
    /// Path of the `testenv` program that starts a broker; else `testenv` is looked up in `PATH`.
    pub const BIN: &str = "TESTENV_BIN";
    /// When to keep a test's data: `failed`, `unless-passed`, `always`, `never`.
    pub const KEEP: &str = "TESTENV_KEEP";
    /// How long to wait for a lease, in milliseconds.
    pub const WAIT_MS: &str = "TESTENV_WAIT_MS";
    /// Seed of everything random in faults, a whole number. With the same one a run meets the same delays.
    pub const SEED: &str = "TESTENV_SEED";
    /// What the broker writes to its log: `error`, `warn`, `info` (default), `debug`, or a filter such as
    /// `info,testenv_services=debug`.
    pub const LOG: &str = "TESTENV_LOG";
    /// Names of the variables that say where leases are, separated by commas; set by `testenv exec` and `testenv
    /// run` for the programs that they start, so that no broker takes a lease for a server that CI declares.
    pub const LEASED: &str = "TESTENV_LEASED";
    /// Directory for snapshots; replaces `$XDG_CACHE_HOME/testenv` and, for root, `/var/cache/testenv`.
    pub const CACHE_DIR: &str = "TESTENV_CACHE_DIR";
}

/// A directory whose tests share one broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// The workspace named by `TESTENV_WORKSPACE`, or else the one around `start`.
    ///
    /// # Errors
    /// When the directory does not exist or cannot be resolved.
    pub fn find(start: &Path) -> io::Result<Self> {
        if let Some(named) = std::env::var_os(env::WORKSPACE).filter(|it| !it.is_empty()) {
            return Self::at(Path::new(&named));
        }
        let start = start.canonicalize()?;
        let marked_by = |marker: &str| start.ancestors().find(|dir| dir.join(marker).exists());
        let root = marked_by(CONFIG_FILE).or_else(|| marked_by(".git")).unwrap_or(&start);
        Ok(Self { root: root.to_path_buf() })
    }

    /// The workspace whose root is `root`.
    ///
    /// # Errors
    /// When the directory does not exist or cannot be resolved.
    pub fn at(root: &Path) -> io::Result<Self> {
        Ok(Self { root: root.canonicalize()? })
    }

    /// The directory, absolute and free of symbolic links.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Path of `testenv.toml`, which need not exist.
    pub fn config_file(&self) -> PathBuf {
        self.root.join(CONFIG_FILE)
    }

    /// Directory of this workspace's broker: its socket, lock and log, and the sockets of its servers.
    pub fn runtime_dir(&self) -> PathBuf {
        // FNV-1a: stable, tiny, and only a name; the broker checks that the workspace is the same.
        let hash = self.root.as_os_str().as_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        runtime_root().join(format!("{:010x}", hash >> 24))
    }

    /// Socket on which the workspace's broker listens, unless `TESTENV_BROKER` names another.
    pub fn socket(&self) -> PathBuf {
        match std::env::var_os(env::BROKER).filter(|it| !it.is_empty()) {
            Some(path) => PathBuf::from(path),
            None => self.runtime_dir().join("broker.sock"),
        }
    }
}

/// Directory under which every workspace of this user has its runtime directory.
///
/// Root's servers run as an unprivileged user that has to reach their sockets, so for root this is
/// `/run/testenv`, not the closed `/run/user/0`.
pub fn runtime_root() -> PathBuf {
    let given = |name: &str| std::env::var_os(name).filter(|it: &OsString| !it.is_empty()).map(PathBuf::from);
    if let Some(dir) = given(env::RUNTIME_DIR) {
        return dir;
    }
    let uid = current_uid();
    if uid == 0 {
        return PathBuf::from("/run/testenv");
    }
    match given("XDG_RUNTIME_DIR") {
        Some(dir) if dir.is_dir() => dir.join("testenv"),
        _ => PathBuf::from(format!("/tmp/testenv-{uid}")),
    }
}

/// Effective user id, read from the owner of `/proc/self` so that no `unsafe` or extra crate is needed.
fn current_uid() -> u32 {
    std::fs::metadata("/proc/self").map_or(0, |meta| meta.uid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_root_gives_the_same_short_directory() {
        let workspace = Workspace::at(Path::new("/")).unwrap();
        assert_eq!(workspace.runtime_dir(), Workspace::at(Path::new("/./")).unwrap().runtime_dir());
        assert_eq!(workspace.runtime_dir().file_name().unwrap().len(), 10);
    }

    #[test]
    fn two_roots_have_two_directories() {
        let root = Workspace::at(Path::new("/")).unwrap();
        let proc_dir = Workspace::at(Path::new("/proc")).unwrap();
        assert_ne!(root.runtime_dir(), proc_dir.runtime_dir());
    }
}
