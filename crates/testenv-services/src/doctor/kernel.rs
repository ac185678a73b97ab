//! What the kernel allows: user namespaces, pidfd, inotify, and how much of itself it shows in `/proc`.

use std::fs;
use std::path::Path;

use rustix::process::PidfdFlags;

use super::files::{Files, Mount, set_sysctl};
use super::finding::{Check, Finding, Group, Severity};
use super::probe::Namespaces;

const USER_NAMESPACES: Check = Check::new("user-namespaces", Group::Kernel);
const PIDFD: Check = Check::new("pidfd", Group::Kernel);
const PROC: Check = Check::new("proc", Group::Kernel);
const INOTIFY: Check = Check::new("inotify", Group::Kernel);

/// Directories of one role's files that are watched, with some room.
const WATCHES_PER_ROLE: u64 = 64;

/// Parameters that close user namespaces to ordinary users: the name, and the value that opens them.
const GATES: [(&str, u64); 3] = [
    ("user.max_user_namespaces", 15_000),
    ("kernel.unprivileged_userns_clone", 1),
    ("kernel.apparmor_restrict_unprivileged_userns", 0),
];

/// What decides about user namespaces.
#[derive(Clone, Debug)]
pub(super) struct UserNamespaces {
    pub(super) is_root: bool,
    /// The values of [`GATES`]; `None` where the kernel has no such parameter.
    pub(super) gates: [Option<u64>; 3],
}

pub(super) fn read_user_namespaces(files: &Files) -> UserNamespaces {
    UserNamespaces {
        is_root: rustix::process::geteuid().is_root(),
        gates: GATES.map(|(name, _)| files.sysctl(name)),
    }
}

/// `entered` is what came of trying, as the broker does.
pub(super) fn judge_user_namespaces(seen: &UserNamespaces, entered: Option<&Namespaces>) -> Finding {
    let Some(entered) = entered else {
        return Finding::new(USER_NAMESPACES, Severity::Note, "namespaces were not tried");
    };
    if entered.may_mount {
        let text = if seen.is_root { "namespaces of root's own" } else { "user namespaces" };
        return Finding::ok(USER_NAMESPACES, text);
    }
    let finding = Finding::new(
        USER_NAMESPACES,
        Severity::Warning,
        format!("no namespaces for testenv's servers: {}", entered.refusal),
    )
    .means(
        "a server's processes are looked for and ended one by one, mounts cannot be private, and what a killed \
         broker leaves is only removed by the next one",
    );
    if seen.is_root {
        return finding.advice(
            "let the container have them, or leave it: docker run --cap-add SYS_ADMIN --security-opt \
             seccomp=unconfined --security-opt apparmor=unconfined",
        );
    }
    let closed = GATES.iter().zip(seen.gates).filter(|((_, open), value)| match (value, open) {
        (Some(value), 0) => *value != 0,
        (Some(value), _) => *value == 0,
        (None, _) => false,
    });
    let commands: Vec<_> = closed.map(|((name, open), _)| set_sysctl(&format!("{name}={open}"))).collect();
    let advice = match commands.as_slice() {
        [] => {
            "no kernel parameter forbids it, so a container does: docker run --security-opt seccomp=unconfined \
             --security-opt apparmor=unconfined"
        }
        _ => "allow them; a file in /etc/sysctl.d makes it last",
    };
    Finding { commands, ..finding.advice(advice) }
}

/// Whether the kernel gives out descriptors of processes.
pub(super) fn read_pidfd() -> Result<(), String> {
    let opened = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty());
    opened.map(drop).map_err(|error| error.to_string())
}

pub(super) fn judge_pidfd(seen: &Result<(), String>) -> Finding {
    let Err(error) = seen else { return Finding::ok(PIDFD, "pidfd") };
    Finding::new(PIDFD, Severity::Problem, format!("pidfd_open: {error}"))
        .means("every server's start fails: the broker watches servers and their holders through pidfds")
        .advice(
            "use Linux 5.3 or newer; in a container, a newer engine or a profile that lets pidfd_open through: \
             docker run --security-opt seccomp=unconfined",
        )
}

/// How `/proc` is mounted; `None` when nothing is mounted there.
pub(super) fn read_proc(files: &Files) -> Option<Mount> {
    files.mounts().into_iter().rfind(|mount| mount.point == Path::new("/proc") && mount.kind == "proc")
}

pub(super) fn judge_proc(seen: Option<&Mount>, is_root: bool) -> Finding {
    let Some(mount) = seen else {
        return Finding::new(PROC, Severity::Problem, "no /proc")
            .means("the broker asks it who holds a lease, what servers take, and which processes are left")
            .advice("mount it")
            .command(format!("{}mount -t proc proc /proc", super::files::sudo()));
    };
    let option = |name: &str| mount.options.iter().find_map(|it| it.strip_prefix(name));
    if option("subset=").is_some_and(|subset| subset == "pid") {
        return Finding::new(PROC, Severity::Warning, "/proc is mounted with subset=pid")
            .means("neither memory nor limits can be read, so testenv cannot keep within them")
            .advice("mount it whole")
            .command(format!("{}mount -o remount,subset= /proc", super::files::sudo()));
    }
    match option("hidepid=") {
        None | Some("0" | "off") => Finding::ok(PROC, "/proc shows all processes"),
        Some(_) if is_root => Finding::ok(PROC, "/proc hides others' processes, not from root"),
        Some(hidden) => Finding::new(PROC, Severity::Note, format!("/proc is mounted with hidepid={hidden}"))
            .means("testenv sees its own processes, which are all it needs; those of other users are hidden"),
    }
}

/// How much of inotify this user has, and may have: used, then limit.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Inotify {
    pub(super) instances: (u64, Option<u64>),
    pub(super) watches: (u64, Option<u64>),
}

pub(super) fn read_inotify(files: &Files) -> Inotify {
    let (instances, watches) = inotify_of_this_user();
    Inotify {
        instances: (instances, files.sysctl("fs.inotify.max_user_instances")),
        watches: (watches, files.sysctl("fs.inotify.max_user_watches")),
    }
}

/// Instances and watches of this user's processes, as far as they can be looked into.
fn inotify_of_this_user() -> (u64, u64) {
    let (mut instances, mut watches) = (0, 0);
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let status = fs::read_to_string(process.path().join("status")).unwrap_or_default();
        let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next());
        if uid.and_then(|uid| uid.parse().ok()) != Some(rustix::process::getuid().as_raw()) {
            continue;
        }
        for file in fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten() {
            if fs::read_link(file.path()).is_ok_and(|to| to == Path::new("anon_inode:inotify")) {
                let info = process.path().join("fdinfo").join(file.file_name());
                let info = fs::read_to_string(info).unwrap_or_default();
                instances += 1;
                watches += info.lines().filter(|line| line.starts_with("inotify ")).count() as u64;
            }
        }
    }
    (instances, watches)
}

/// `roles` is how many roles have files to be watched.
pub(super) fn judge_inotify(seen: Inotify, roles: u64) -> Finding {
    let limits = [
        ("fs.inotify.max_user_instances", seen.instances, roles, 1024),
        ("fs.inotify.max_user_watches", seen.watches, roles * WATCHES_PER_ROLE, 524_288),
    ];
    let short = limits.into_iter().find(|(_, (used, limit), wanted, _)| {
        limit.is_some_and(|limit| limit.saturating_sub(*used) < *wanted)
    });
    let Some((name, (used, limit), wanted, enough)) = short else {
        let shown = |limit: Option<u64>| limit.map_or_else(|| "?".into(), |it: u64| it.to_string());
        return Finding::ok(
            INOTIFY,
            format!("inotify {} instances, {} watches", shown(seen.instances.1), shown(seen.watches.1)),
        );
    };
    let text = format!("{name} {}, of which {used} are in use", limit.unwrap_or(0));
    Finding::new(INOTIFY, Severity::Warning, text)
        .means(format!(
            "this workspace watches its migrations with {wanted}: without, every lease looks at each file, which \
             takes about 4 µs a file"
        ))
        .advice("raise it; editors and build tools use the same ones")
        .command(set_sysctl(&format!("{name}={enough}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> Namespaces {
        Namespaces { refusal: "unshare: Operation not permitted".into(), ..Namespaces::default() }
    }

    fn user(gates: [Option<u64>; 3]) -> Finding {
        judge_user_namespaces(&UserNamespaces { is_root: false, gates }, Some(&refused()))
    }

    #[test]
    fn the_parameter_that_closes_user_namespaces_is_named_with_its_command() {
        let ubuntu = user([Some(15_000), Some(1), Some(1)]);
        assert_eq!(ubuntu.severity, Severity::Warning);
        assert!(ubuntu.commands[0].ends_with("sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"));
        let off = user([Some(0), Some(0), None]);
        assert_eq!(off.commands.len(), 2, "{:?}", off.commands);
        let container = user([Some(15_000), None, None]);
        assert!(container.commands.is_empty() && container.advice.contains("docker run"), "{container:?}");
    }

    #[test]
    fn root_in_a_container_is_told_what_the_container_lacks() {
        let seen = UserNamespaces { is_root: true, gates: [Some(0), None, None] };
        let finding = judge_user_namespaces(&seen, Some(&refused()));
        assert!(finding.advice.contains("--cap-add SYS_ADMIN") && finding.commands.is_empty(), "{finding:?}");
        let allowed = Namespaces { may_mount: true, ..Namespaces::default() };
        assert_eq!(judge_user_namespaces(&seen, Some(&allowed)).severity, Severity::Ok);
    }

    #[test]
    fn without_pidfds_nothing_starts() {
        assert_eq!(judge_pidfd(&Ok(())).severity, Severity::Ok);
        let finding = judge_pidfd(&Err("Function not implemented".into()));
        assert_eq!(finding.severity, Severity::Problem);
        assert!(finding.seen.contains("Function not implemented"), "{finding:?}");
    }

    #[test]
    fn how_proc_is_mounted() {
        let mount = |options: &str| Mount {
            root: "/".into(),
            point: "/proc".into(),
            options: options.split(',').map(str::to_owned).collect(),
            kind: "proc".into(),
        };
        let judge = |options: &str| judge_proc(Some(&mount(options)), false).severity;
        assert_eq!(judge("rw,relatime"), Severity::Ok);
        assert_eq!((judge("rw,hidepid=2"), judge("rw,hidepid=invisible")), (Severity::Note, Severity::Note));
        assert_eq!((judge("rw,hidepid=off"), judge("rw,subset=pid")), (Severity::Ok, Severity::Warning));
        assert_eq!(judge_proc(Some(&mount("hidepid=2")), true).severity, Severity::Ok);
        assert_eq!(judge_proc(None, true).severity, Severity::Problem);
        assert!(read_proc(&Files::of_machine()).is_some());
    }

    #[test]
    fn watches_that_an_editor_has_taken_are_missed() {
        let seen = Inotify { instances: (3, Some(128)), watches: (8190, Some(8192)) };
        let finding = judge_inotify(seen, 2);
        assert_eq!(finding.severity, Severity::Warning);
        assert!(finding.seen.contains("max_user_watches 8192, of which 8190"), "{finding:?}");
        assert!(finding.commands[0].ends_with("fs.inotify.max_user_watches=524288"), "{finding:?}");
        assert_eq!(judge_inotify(seen, 0).severity, Severity::Ok, "nothing is to be watched");
        let seen = Inotify { instances: (128, Some(128)), ..seen };
        assert!(judge_inotify(seen, 1).seen.contains("max_user_instances"));
        assert_eq!(judge_inotify(Inotify::default(), 5).severity, Severity::Ok, "no limit is known");
    }
}
