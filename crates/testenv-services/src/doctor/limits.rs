//! Limits of open files, processes and threads.

use std::fs;

use rustix::process::{Resource, getrlimit};

use super::cgroup::{self, Limit};
use super::files::{Files, set_sysctl, sudo};
use super::finding::{Check, Finding, Group, Severity};
use super::load::{Load, counted};

const OPEN_FILES: Check = Check::new("open-files", Group::Limits);
const PROCESSES: Check = Check::new("processes", Group::Limits);
const PROCESS_IDS: Check = Check::new("process-ids", Group::Limits);
const CGROUP_PIDS: Check = Check::new("cgroup-pids", Group::Limits);

/// PostgreSQL does not start with fewer files; it wants 58 beside those it has.
const FEWEST_FILES: u64 = 64;
/// A limit of files that is enough for any pool.
const ENOUGH_FILES: u64 = 65_536;
/// The most processes that 64-bit Linux can count.
const MOST_PIDS: u64 = 4_194_304;

/// `ulimit -n`; `None` is unlimited.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpenFiles {
    pub(super) soft: Option<u64>,
    pub(super) hard: Option<u64>,
    /// What the broker has that runs already, which another shell may have started.
    pub(super) broker: Option<u64>,
}

pub(super) fn read_open_files(files: &Files, broker_pid: Option<u32>) -> OpenFiles {
    let limit = getrlimit(Resource::Nofile);
    let limits = broker_pid.and_then(|pid| files.text(format!("/proc/{pid}/limits")));
    let broker = limits.and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
        line.split_whitespace().next()?.parse().ok()
    });
    OpenFiles { soft: limit.current, hard: limit.maximum, broker }
}

pub(super) fn judge_open_files(seen: OpenFiles, load: &Load) -> Finding {
    let shown = |limit: Option<u64>| limit.map_or_else(|| "unlimited".to_owned(), |it| it.to_string());
    if let Some(broker) = seen.broker.filter(|broker| seen.hard.is_none_or(|hard| *broker < hard)) {
        let servers = load.by_files(broker);
        let text = format!("ulimit -n {broker} of the broker that runs, {} here", shown(seen.hard));
        return Finding::new(OPEN_FILES, load.severity(servers), text)
            .means(format!("the broker opens {} files for each: {}", load.cost.files, load.about(servers)))
            .servers(servers)
            .advice("end it; the next lease starts one with the limit of its shell")
            .command("testenv down");
    }
    let text = if seen.soft == seen.hard {
        format!("ulimit -n {}", shown(seen.soft))
    } else {
        format!("ulimit -n {}, raised to {} by the broker", shown(seen.soft), shown(seen.hard))
    };
    let Some(hard) = seen.hard else { return Finding::ok(OPEN_FILES, text) };
    let servers = if hard < FEWEST_FILES { 0 } else { load.by_files(hard) };
    let mut means = format!("the broker opens {} files for each: {}", load.cost.files, load.about(servers));
    if hard < FEWEST_FILES {
        means = format!("PostgreSQL does not start with fewer than {FEWEST_FILES}");
    }
    Finding::new(OPEN_FILES, load.severity(servers), text)
        .means(means)
        .servers(servers)
        .advice(format!(
            "raise it where the shell comes from (docker run --ulimit nofile={ENOUGH_FILES}, LimitNOFILE= of a \
             systemd unit, limits.conf and a new login), then `testenv down`"
        ))
        .command(if rustix::process::geteuid().is_root() {
            format!("ulimit -n {ENOUGH_FILES}")
        } else {
            format!("sudo prlimit --pid $$ --nofile={ENOUGH_FILES}:{ENOUGH_FILES}")
        })
}

/// `ulimit -u`, and how much of it the user has.
#[derive(Clone, Debug)]
pub(super) struct Processes {
    /// The user that servers run as.
    pub(super) user: String,
    /// `None` is unlimited.
    pub(super) limit: Option<u64>,
    /// Processes and threads that the user has.
    pub(super) used: u64,
}

pub(super) fn read_processes(files: &Files, uid: u32, user: String) -> Processes {
    Processes { user, limit: getrlimit(Resource::Nproc).current, used: tasks_of(files, uid) }
}

/// Processes and threads of a user.
fn tasks_of(files: &Files, uid: u32) -> u64 {
    let entries = fs::read_dir(files.path("/proc".as_ref())).into_iter().flatten().flatten();
    let is_process = |name: &std::ffi::OsStr| name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
    let statuses = entries
        .filter(|entry| is_process(&entry.file_name()))
        .filter_map(|entry| fs::read_to_string(entry.path().join("status")).ok());
    statuses.filter_map(|status| threads_if_of(&status, uid)).sum()
}

/// The number of threads in `/proc/PID/status`, if the process is the user's.
fn threads_if_of(status: &str, uid: u32) -> Option<u64> {
    let first = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse::<u64>().ok())
    };
    (first("Uid:")? == u64::from(uid)).then(|| first("Threads:"))?
}

fn each_task(load: &Load, servers: u64) -> String {
    format!("{} processes and threads each: {}", load.cost.tasks, load.about(servers))
}

pub(super) fn judge_processes(seen: &Processes, load: &Load) -> Finding {
    let Some(limit) = seen.limit else { return Finding::ok(PROCESSES, "ulimit -u unlimited") };
    let servers = load.by_tasks(limit.saturating_sub(seen.used));
    let text = format!("ulimit -u {limit}, of which {} has {}", seen.user, counted(seen.used));
    Finding::new(PROCESSES, load.severity(servers), text)
        .means(each_task(load, servers))
        .servers(servers)
        .advice("raise it where the shell comes from (TasksMax= of systemd, limits.conf and a new login), then `testenv down`")
        .command(format!("{}prlimit --pid $$ --nproc=65536:65536", sudo()))
        .command(load.max_servers_line(servers))
}

/// How many processes the kernel can have.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProcessIds {
    pub(super) pid_max: Option<u64>,
    pub(super) threads_max: Option<u64>,
    pub(super) used: u64,
}

pub(super) fn read_process_ids(files: &Files) -> ProcessIds {
    // 0.00 0.00 0.00 1/97 1234: running and all of them.
    let load = files.text("/proc/loadavg").unwrap_or_default();
    let used = load.split_whitespace().nth(3).and_then(|it| it.split_once('/')?.1.parse().ok());
    ProcessIds {
        pid_max: files.sysctl("kernel.pid_max"),
        threads_max: files.sysctl("kernel.threads-max"),
        used: used.unwrap_or(0),
    }
}

pub(super) fn judge_process_ids(seen: ProcessIds, load: &Load) -> Finding {
    let limits = [("kernel.pid_max", seen.pid_max), ("kernel.threads-max", seen.threads_max)];
    let known = limits.into_iter().filter_map(|(name, limit)| Some((limit?, name)));
    let Some((limit, name)) = known.min() else {
        return Finding::new(PROCESS_IDS, Severity::Note, "kernel.pid_max cannot be read");
    };
    let servers = load.by_tasks(limit.saturating_sub(seen.used));
    Finding::new(
        PROCESS_IDS,
        load.severity(servers),
        format!("{name} {limit}, {} in use", counted(seen.used)),
    )
    .means(each_task(load, servers))
    .servers(servers)
    .advice("raise it")
    .command(set_sysctl(&format!("{name}={}", if name == "kernel.pid_max" { MOST_PIDS } else { 200_000 })))
}

pub(super) fn read_group(files: &Files) -> Option<Limit> {
    cgroup::tasks(files)
}

pub(super) fn judge_group(seen: Option<&Limit>, load: &Load) -> Finding {
    let Some(limit) = seen else { return Finding::ok(CGROUP_PIDS, "no pids.max") };
    let servers = load.by_tasks(limit.left());
    let text = format!("{} of {} left ({})", limit.left(), limit.limit, limit.file.display());
    Finding::new(CGROUP_PIDS, load.severity(servers), text)
        .means(each_task(load, servers))
        .servers(servers)
        .advice("raise it: docker run --pids-limit=-1, TasksMax=infinity of a systemd unit or slice, podPidsLimit of a kubelet")
        .command(load.max_servers_line(servers))
}

#[cfg(test)]
mod tests {
    use super::super::load::tests::{TWO_ROLES, load};
    use super::*;

    fn open_files(soft: u64, hard: u64) -> Finding {
        judge_open_files(OpenFiles { soft: Some(soft), hard: Some(hard), broker: None }, &load(TWO_ROLES))
    }

    #[test]
    fn what_the_broker_can_raise_hinders_nobody() {
        let finding = open_files(256, 524_288);
        assert_eq!(finding.severity, Severity::Ok);
        assert_eq!(finding.seen, "ulimit -n 256, raised to 524288 by the broker");
        let unlimited = OpenFiles { soft: Some(1024), hard: None, broker: Some(4096) };
        assert_eq!(judge_open_files(unlimited, &load(TWO_ROLES)).severity, Severity::Ok);
    }

    #[test]
    fn a_broker_that_runs_with_a_lower_limit_is_told() {
        let seen = OpenFiles { soft: Some(1024), hard: Some(524_288), broker: Some(128) };
        let finding = judge_open_files(seen, &load(TWO_ROLES));
        assert_eq!((finding.severity, finding.servers), (Severity::Warning, Some(17)));
        assert_eq!(finding.commands, ["testenv down"]);
    }

    #[test]
    fn few_open_files_are_told_in_servers() {
        let finding = open_files(1024, 1024);
        assert_eq!((finding.severity, finding.servers), (Severity::Note, Some(196)));
        assert!(finding.means.contains("room for about 190 PostgreSQL servers at once"), "{}", finding.means);
        let finding = open_files(128, 128);
        assert_eq!((finding.severity, finding.servers), (Severity::Warning, Some(17)));
        assert_eq!(open_files(48, 48).severity, Severity::Problem);
        assert!(open_files(48, 48).means.contains("does not start with fewer than 64"));
    }

    #[test]
    fn the_user_s_own_processes_count() {
        let judge = |used| {
            let user = "me".to_owned();
            judge_processes(&Processes { user, limit: Some(4096), used }, &load(TWO_ROLES))
        };
        assert_eq!((judge(100).severity, judge(100).servers), (Severity::Ok, Some(499)));
        assert_eq!(judge(4000).severity, Severity::Warning);
        assert_eq!(judge(5000).severity, Severity::Problem);
    }

    #[test]
    fn threads_are_counted_by_real_user() {
        let status = "Name:\tx\nUid:\t1000\t0\t0\t0\nThreads:\t7\n";
        assert_eq!((threads_if_of(status, 1000), threads_if_of(status, 0)), (Some(7), None));
        assert!(tasks_of(&Files::of_machine(), rustix::process::getuid().as_raw()) > 0);
    }

    #[test]
    fn the_smaller_of_the_kernel_s_limits_counts() {
        let seen = ProcessIds { pid_max: Some(32_768), threads_max: Some(2000), used: 1900 };
        let finding = judge_process_ids(seen, &load(TWO_ROLES));
        assert_eq!((finding.severity, finding.servers), (Severity::Warning, Some(12)));
        assert!(finding.seen.starts_with("kernel.threads-max 2000"), "{}", finding.seen);
        let seen = ProcessIds { pid_max: Some(32_768), threads_max: None, used: 300 };
        assert_eq!(judge_process_ids(seen, &load(TWO_ROLES)).severity, Severity::Ok);
    }

    #[test]
    fn a_container_s_limit_of_processes_is_told_with_its_file() {
        let limit = Limit { file: "/sys/fs/cgroup/pids.max".into(), limit: 100, used: 40 };
        let finding = judge_group(Some(&limit), &load(TWO_ROLES));
        assert_eq!((finding.severity, finding.servers), (Severity::Warning, Some(7)));
        assert!(finding.seen.contains("60 of 100 left (/sys/fs/cgroup/pids.max)"), "{}", finding.seen);
        assert!(finding.advice.contains("--pids-limit"), "{}", finding.advice);
        assert_eq!(judge_group(None, &load(TWO_ROLES)).severity, Severity::Ok);
    }
}
