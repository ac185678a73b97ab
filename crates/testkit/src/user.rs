//! Users that tests run as, and tests that this user cannot run.
#![expect(clippy::print_stderr, reason = "a skipped test says so, and why")]

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

/// A user that the program runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// The user of the test itself.
    Own,
    /// `nobody`, an ordinary user without a home; only root can become it.
    Nobody,
}

impl User {
    /// Its user and group id, if it is not the test's own.
    pub const fn ids(self) -> Option<(u32, u32)> {
        match self {
            Self::Own => None,
            Self::Nobody => Some((65534, 65534)),
        }
    }

    /// Its user id.
    pub fn uid(self) -> u32 {
        self.ids().map_or_else(|| rustix::process::geteuid().as_raw(), |(uid, _)| uid)
    }

    /// Has a command run as this user.
    pub fn apply(self, command: &mut Command) {
        if let Some((uid, gid)) = self.ids() {
            command.uid(uid).gid(gid);
        }
    }

    /// Gives a file or directory to this user.
    ///
    /// # Errors
    /// What the file system says.
    pub fn own(self, path: &Path) -> std::io::Result<()> {
        match self.ids() {
            Some((uid, gid)) => std::os::unix::fs::lchown(path, Some(uid), Some(gid)),
            None => Ok(()),
        }
    }
}

/// Whether the test runs as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Says that a test is skipped, and why.
pub fn skip(why: &str) {
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    eprintln!("SKIPPED {name}: {why}");
}

/// Whether the test runs as root; when not, says that it is skipped because of `what`.
pub fn needs_root(what: &str) -> bool {
    if !is_root() {
        skip(&format!("needs root, {what}"));
    }
    is_root()
}
