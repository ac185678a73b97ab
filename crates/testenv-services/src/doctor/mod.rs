//! `testenv doctor`: whether this machine is fit for a workspace, and what to change.
//!
//! Each check is two functions: one reads what the machine says, the other judges it, and only it decides. What can
//! only be known by trying (namespaces, mounts, engines) is tried as the broker does, by a process of its own: see
//! [`probe`](fn@probe). Nothing here prints, and nothing is changed but by [`Repair`].

mod broker;
mod cgroup;
mod containers;
mod engines;
mod files;
mod finding;
mod forks;
mod kernel;
mod limits;
mod load;
mod memory;
mod network;
mod probe;
mod repair;
mod storage;

pub use memory::available as available_memory;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;
use testenv_api::{Problem, ProblemKind};
use testenv_config::Config;

pub use broker::{Broker, Leftover};
pub use finding::{Check, Finding, Group, Severity};
pub use probe::{Forks, FoundEngine, Namespaces, Probe, RoleEngine, probe};
pub use repair::Repair;

use files::Files;
use load::Load;

use crate::sandbox;

const CONFIG: Check = Check::new("config", Group::Services);
const PROBE: Check = Check::new("probe", Group::Disk);

/// What is examined. Not to be shown: there may be secrets in the environment.
#[derive(Clone)]
#[expect(missing_debug_implementations, reason = "it has secrets")]
pub struct Subject {
    /// Root of the workspace.
    pub root: PathBuf,
    /// Its `testenv.toml`, or the defaults where that cannot be used.
    pub config: Config,
    /// Why it cannot be used.
    pub config_problem: Option<Problem>,
    /// The broker's directory.
    pub runtime_dir: PathBuf,
    /// The directory around it.
    pub runtime_root: PathBuf,
    /// Directory of the snapshots.
    pub cache_dir: PathBuf,
    /// Value of `PATH`.
    pub path: String,
    /// Environment variables, which may name container engines and servers that others run.
    pub environment: BTreeMap<String, String>,
}

/// Everything that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What people call the servers that are counted.
    pub unit: &'static str,
    /// How many of them the machine bears at once, and the check that says so.
    pub servers: Option<Capacity>,
    /// Most servers that testenv starts: `pool.max_servers`.
    pub max_servers: u64,
    /// One or more of each check, in the order in which people read them.
    pub findings: Vec<Finding>,
}

/// How many servers there can be at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Capacity {
    /// So many.
    pub servers: u64,
    /// What ends first.
    pub limited_by: &'static str,
}

impl Report {
    /// How much the worst finding hinders.
    pub fn worst(&self) -> Severity {
        self.findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Ok)
    }

    fn new(load: &Load, mut findings: Vec<Finding>) -> Self {
        findings.sort_by_key(|finding| finding.check.group);
        let known = findings.iter().filter_map(|finding| Some((finding.servers?, finding.check.name)));
        let servers = known.min().map(|(servers, limited_by)| Capacity { servers, limited_by });
        Self { unit: load.unit, servers, max_servers: load.max_servers, findings }
    }
}

/// Looks at everything.
///
/// `probed` is what trying showed, `broker` what the workspace's broker says of itself.
pub fn examine(subject: &Subject, probed: &Result<Probe, Problem>, broker: &Broker) -> Report {
    let files = Files::of_machine();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let engines = probed.as_ref().map_or(&[][..], |probe| &probe.engines);
    let external: Vec<_> = engines.iter().filter(|it| it.is_external()).map(|it| it.role.as_str()).collect();
    let load = Load::of(&subject.config, processors, &external, broker.servers());
    let mut findings = Vec::new();
    findings.extend(subject.config_problem.as_ref().map(judge_config));
    findings.extend(machine(subject, &files, &load, probed.as_ref().ok(), broker.pid()));
    match probed {
        Ok(probe) => findings.extend(tried(subject, &load, probe, &findings)),
        Err(problem) => findings.push(judge_untried(problem)),
    }
    findings.extend(containers::judge(&containers::read(containers::targets(&subject.environment))));
    findings.push(broker::judge_broker(broker));
    findings
        .extend(broker::judge_leftovers(broker::read_leftovers(&subject.runtime_root, &subject.cache_dir)));
    Report::new(&load, findings)
}

/// What the machine says of itself.
fn machine(
    subject: &Subject,
    files: &Files,
    load: &Load,
    probe: Option<&Probe>,
    broker_pid: Option<u32>,
) -> Vec<Finding> {
    let config = &subject.config;
    let own = || crate::process::User {
        name: "this user".into(),
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
    };
    let servers_user = sandbox::server_user().unwrap_or_else(own);
    let is_root = rustix::process::geteuid().is_root();
    let private = probe.is_some_and(|probe| {
        probe.forks.as_ref().is_ok_and(|forks| forks.storage.starts_with("tmpfs (private"))
    });
    let watched = config.services.values().filter(|service| !service.steps().is_empty()).count() as u64;
    let group = limits::read_group(files);
    vec![
        memory::judge(&memory::read(files), load),
        storage::judge_cache(&storage::read_cache(&subject.cache_dir, config.cache.max_size.as_bytes())),
        storage::judge_shm(storage::read_shm(private)),
        limits::judge_open_files(limits::read_open_files(files, broker_pid), load),
        limits::judge_processes(&limits::read_processes(files, servers_user.uid, servers_user.name), load),
        limits::judge_process_ids(limits::read_process_ids(files), load),
        limits::judge_group(group.as_ref(), load),
        kernel::judge_user_namespaces(
            &kernel::read_user_namespaces(files),
            probe.map(|probe| &probe.namespaces),
        ),
        kernel::judge_pidfd(&kernel::read_pidfd()),
        kernel::judge_proc(kernel::read_proc(files).as_ref(), is_root),
        kernel::judge_inotify(kernel::read_inotify(files), watched),
        network::judge_ports(&network::read_ports(files, config.pool.ports), load),
        network::judge_backlog(network::read_backlog(files), load),
        storage::judge_runtime(&storage::read_runtime(&subject.runtime_dir)),
    ]
}

/// What trying showed. Where a directory cannot be used, that was said, and is not said again.
fn tried(subject: &Subject, load: &Load, probe: &Probe, said: &[Finding]) -> Vec<Finding> {
    let has = |program: &str| engines::in_path(&subject.path, program);
    let has_apt = has("apt-get");
    let mut findings: Vec<_> = probe.engines.iter().map(|it| engines::judge_engine(it, has_apt)).collect();
    findings.extend(engines::judge_clients(&probe.engines, has));
    let known =
        said.iter().any(|finding| finding.severity == Severity::Problem && finding.check.name == "cache");
    if probe.forks.is_ok() || !known {
        findings.push(forks::judge_strategy(&probe.forks, load, &subject.config.cache));
    }
    if let Ok(forks) = &probe.forks {
        findings.push(forks::judge_room(forks, load, &subject.config.cache));
    }
    findings
}

fn judge_config(problem: &Problem) -> Finding {
    Finding::new(CONFIG, Severity::Problem, problem.title.clone())
        .means(
            format!("{}\nevery lease is refused; everything below is for the defaults", problem.detail)
                .trim_start(),
        )
        .advice(problem.hint.clone())
}

fn judge_untried(problem: &Problem) -> Finding {
    let hinders = problem.kind != ProblemKind::TimedOut;
    Finding::new(PROBE, if hinders { Severity::Problem } else { Severity::Warning }, problem.title.clone())
        .means(format!("{}\nwhat a broker could do here was not found out", problem.detail).trim_start())
        .advice(problem.hint.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_first_is_the_machines_capacity() {
        let load = load::tests::load(load::tests::TWO_ROLES);
        let many = Finding::ok(CONFIG, "").servers(500);
        let few = Finding::new(PROBE, Severity::Note, "").servers(7);
        let report = Report::new(&load, vec![few, many, Finding::ok(CONFIG, "")]);
        assert_eq!(report.servers, Some(Capacity { servers: 7, limited_by: "probe" }));
        assert_eq!((report.worst(), report.findings[0].check), (Severity::Note, CONFIG));
    }

    #[test]
    fn this_machine_can_be_examined() {
        let dir = tempfile::tempdir().unwrap();
        let subject = Subject {
            root: dir.path().into(),
            config: Config::default(),
            config_problem: Some(
                Problem::new(ProblemKind::InvalidConfig, "testenv.toml is wrong").detail("line 1"),
            ),
            runtime_dir: dir.path().join("r/x"),
            runtime_root: dir.path().join("r"),
            cache_dir: dir.path().join("c"),
            path: String::new(),
            environment: BTreeMap::new(),
        };
        let untried = Err(Problem::new(ProblemKind::TimedOut, "it took too long"));
        let report = examine(&subject, &untried, &Broker::None);
        let names: Vec<_> = report.findings.iter().map(|finding| finding.check.name).collect();
        for name in
            ["config", "memory", "cache", "open-files", "ports", "probe", "container-engine", "leftovers"]
        {
            assert!(names.contains(&name), "{names:?}");
        }
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(
            (&json["findings"][0]["check"], &json["findings"][0]["severity"]),
            (&"config".into(), &"problem".into())
        );
    }
}
