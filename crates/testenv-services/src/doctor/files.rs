//! Reading what the kernel says of itself, below a root that tests can choose.

use std::fs;
use std::path::{Path, PathBuf};

/// The files under `/proc` and `/sys`.
#[derive(Clone, Debug)]
pub(super) struct Files {
    root: PathBuf,
}

/// A line of `/proc/self/mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// The directory of its file system that is mounted.
    pub(super) root: PathBuf,
    /// Where.
    pub(super) point: PathBuf,
    /// Options of the mount and of the file system, together.
    pub(super) options: Vec<String>,
    /// Type of file system.
    pub(super) kind: String,
}

impl Files {
    /// Those of this machine.
    pub(super) fn of_machine() -> Self {
        Self { root: PathBuf::from("/") }
    }

    /// Those in a directory.
    #[cfg(test)]
    pub(super) fn at(root: &Path) -> Self {
        Self { root: root.to_path_buf() }
    }

    /// Where an absolute path is.
    pub(super) fn path(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// What a file says, without the space around it.
    pub(super) fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        Some(fs::read_to_string(self.path(path.as_ref())).ok()?.trim().to_owned())
    }

    /// The number in a file. `None` also for `max`, which means that there is no limit.
    pub(super) fn number(&self, path: impl AsRef<Path>) -> Option<u64> {
        self.text(path)?.parse().ok()
    }

    /// The number of a kernel parameter, by its name: `kernel.pid_max`.
    pub(super) fn sysctl(&self, name: &str) -> Option<u64> {
        self.number(sysctl_file(name))
    }

    /// Everything that is mounted, in the order in which it was.
    pub(super) fn mounts(&self) -> Vec<Mount> {
        let text = self.text("/proc/self/mountinfo").unwrap_or_default();
        text.lines().filter_map(parse_mount).collect()
    }
}

/// The file of a kernel parameter.
pub(super) fn sysctl_file(name: &str) -> PathBuf {
    Path::new("/proc/sys").join(name.replace('.', "/"))
}

/// The command that sets a kernel parameter until the next start of the machine.
pub(super) fn set_sysctl(setting: &str) -> String {
    format!("{}sysctl -w {setting}", sudo())
}

/// What a command that needs root begins with.
pub(super) fn sudo() -> &'static str {
    if rustix::process::geteuid().is_root() { "" } else { "sudo " }
}

/// A line such as `22 27 0:21 / /proc rw,relatime shared:1 - proc proc rw,hidepid=2`.
fn parse_mount(line: &str) -> Option<Mount> {
    let (mount, system) = line.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(3);
    let (root, point, options) = (mount.next()?, mount.next()?, mount.next()?);
    let mut system = system.split(' ');
    let (kind, more) = (system.next()?, system.nth(1).unwrap_or_default());
    let options = options.split(',').chain(more.split(',')).map(str::to_owned).collect();
    Some(Mount { root: unescape(root), point: unescape(point), options, kind: kind.to_owned() })
}

/// Spaces in paths are written `\040`.
fn unescape(path: &str) -> PathBuf {
    PathBuf::from(path.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_with_the_options_of_both_halves() {
        let mount =
            parse_mount("22 27 0:21 /a /my\\040dir rw,relatime shared:1 master:2 - proc proc rw,hidepid=2");
        let mount = mount.unwrap();
        assert_eq!((mount.kind.as_str(), mount.point.to_str()), ("proc", Some("/my dir")));
        assert_eq!((mount.root.to_str(), mount.options.last().unwrap().as_str()), (Some("/a"), "hidepid=2"));
        assert_eq!(parse_mount("22 27 0:21 /"), None);
    }

    #[test]
    fn numbers_are_read_and_what_is_none_is_none() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("proc/sys/kernel")).unwrap();
        fs::write(dir.path().join("proc/sys/kernel/pid_max"), "4194304\n").unwrap();
        fs::write(dir.path().join("limit"), "max\n").unwrap();
        let files = Files::at(dir.path());
        assert_eq!(files.sysctl("kernel.pid_max"), Some(4_194_304));
        assert_eq!((files.number("/limit"), files.sysctl("kernel.none")), (None, None));
    }
}
