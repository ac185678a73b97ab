//! Limits of the control groups that this process is in, of both versions.

use std::path::{Path, PathBuf};

use super::files::{Files, Mount};

/// The limit that leaves the least.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Limit {
    /// The file that says it.
    pub(super) file: PathBuf,
    /// How much there may be.
    pub(super) limit: u64,
    /// How much there is, without what the kernel gives back when asked.
    pub(super) used: u64,
}

impl Limit {
    /// How much is left.
    pub(super) fn left(&self) -> u64 {
        self.limit.saturating_sub(self.used)
    }
}

/// How a controller says its limit, in one version of control groups.
struct Names {
    limit: &'static str,
    used: &'static str,
}

/// A limit of memory from here on is none: version 1 says "no limit" as the largest number of pages.
const NO_MEMORY_LIMIT: u64 = 1 << 60;

/// The limit of memory, in bytes.
pub(super) fn memory(files: &Files) -> Option<Limit> {
    let v1 = Names { limit: "memory.limit_in_bytes", used: "memory.usage_in_bytes" };
    let v2 = Names { limit: "memory.max", used: "memory.current" };
    tightest(files, "memory", &v1, &v2, |dir| {
        // Pages of files that nobody has used lately are given back before anything is killed.
        let stat = files.text(dir.join("memory.stat")).unwrap_or_default();
        let line =
            |name: &str| stat.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        line("total_inactive_file ").or_else(|| line("inactive_file ")).unwrap_or(0)
    })
    .filter(|limit| limit.limit < NO_MEMORY_LIMIT)
}

/// The limit of processes and threads.
pub(super) fn tasks(files: &Files) -> Option<Limit> {
    let names = Names { limit: "pids.max", used: "pids.current" };
    tightest(files, "pids", &names, &names, |_| 0)
}

/// The limit that leaves the least, of the group and those around it.
fn tightest(
    files: &Files,
    controller: &str,
    v1: &Names,
    v2: &Names,
    given_back: impl Fn(&Path) -> u64,
) -> Option<Limit> {
    let groups = files.text("/proc/self/cgroup")?;
    let mounts = files.mounts();
    let of_v1 = |mount: &Mount| mount.kind == "cgroup" && mount.options.iter().any(|it| it == controller);
    let (names, dirs) = match mounts.iter().find(|mount| of_v1(mount)) {
        Some(mount) => (v1, dirs(mount, group(&groups, controller)?)),
        None => (v2, dirs(mounts.iter().find(|mount| mount.kind == "cgroup2")?, group(&groups, "")?)),
    };
    let limits = dirs.into_iter().filter_map(|dir| {
        let file = dir.join(names.limit);
        let limit = files.number(&file)?;
        let used = files.number(dir.join(names.used)).unwrap_or(0).saturating_sub(given_back(&dir));
        Some(Limit { file, limit, used })
    });
    limits.min_by_key(Limit::left)
}

/// The group of a controller in `/proc/self/cgroup`; the one of version 2 has an empty name.
fn group<'a>(groups: &'a str, controller: &str) -> Option<&'a str> {
    groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        controllers.split(',').any(|it| it == controller).then_some(path)
    })
}

/// The group's directory and those above it, as far up as they are mounted. A container may see its group by the
/// name that it has outside, or be told of one that is not mounted at all: then what is mounted is its own.
fn dirs(mount: &Mount, group: &str) -> Vec<PathBuf> {
    let below = Path::new(group).strip_prefix(&mount.root).unwrap_or(Path::new(""));
    let escapes = below.components().any(|part| part.as_os_str() == "..");
    let dir = if escapes { mount.point.clone() } else { mount.point.join(below) };
    dir.ancestors().take_while(|dir| dir.starts_with(&mount.point)).map(Path::to_path_buf).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A machine with these files.
    fn machine(content: &[(&str, &str)]) -> (tempfile::TempDir, Files) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in content {
            let file = dir.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        let files = Files::at(dir.path());
        (dir, files)
    }

    const V2: &str = "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw";

    #[test]
    fn of_version_2_the_tightest_of_all_levels_counts() {
        let (_dir, files) = machine(&[
            ("proc/self/cgroup", "0::/user.slice/app\n"),
            ("proc/self/mountinfo", V2),
            ("sys/fs/cgroup/user.slice/app/memory.max", "max\n"),
            ("sys/fs/cgroup/user.slice/memory.max", "1000\n"),
            ("sys/fs/cgroup/user.slice/memory.current", "700\n"),
            ("sys/fs/cgroup/user.slice/memory.stat", "anon 1\ninactive_file 200\nactive_file 5\n"),
            ("sys/fs/cgroup/user.slice/app/pids.max", "50\n"),
            ("sys/fs/cgroup/user.slice/app/pids.current", "10\n"),
            ("sys/fs/cgroup/user.slice/pids.max", "45\n"),
        ]);
        let file = PathBuf::from("/sys/fs/cgroup/user.slice/memory.max");
        let limit = memory(&files).unwrap();
        assert_eq!((limit.left(), &limit), (500, &Limit { file, limit: 1000, used: 500 }));
        assert_eq!(tasks(&files).unwrap().left(), 40);
    }

    #[test]
    fn of_version_1_no_limit_is_none() {
        let (_dir, files) = machine(&[
            ("proc/self/cgroup", "8:pids:/\n4:memory:/docker/abc\n0::/\n"),
            (
                "proc/self/mountinfo",
                "35 31 0:31 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                 36 31 0:38 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids",
            ),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712"),
            ("sys/fs/cgroup/pids/pids.max", "max"),
        ]);
        assert_eq!((memory(&files), tasks(&files)), (None, None));
        let file = files.path(Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes"));
        fs::write(file, "2147483648").unwrap();
        assert_eq!(memory(&files).unwrap().limit, 2 << 30);
    }

    #[test]
    fn a_group_that_is_not_mounted_here_is_looked_for_at_the_mount() {
        let mount = Mount {
            root: "/".into(),
            point: "/sys/fs/cgroup".into(),
            options: Vec::new(),
            kind: "cgroup2".into(),
        };
        assert_eq!(dirs(&mount, "/../../elsewhere"), [PathBuf::from("/sys/fs/cgroup")]);
        assert_eq!(dirs(&mount, "/a"), [PathBuf::from("/sys/fs/cgroup/a"), "/sys/fs/cgroup".into()]);
    }

    #[test]
    fn a_machine_without_control_groups_has_no_limits() {
        let (_dir, files) = machine(&[("proc/self/mountinfo", "")]);
        assert_eq!((memory(&files), tasks(&files)), (None, None));
    }
}
