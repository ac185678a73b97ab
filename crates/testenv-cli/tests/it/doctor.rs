//! `testenv doctor` on machines that lack something, made with what this one has.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use serde_json::Value;
use testkit::{TestWorkspace, User, is_root, needs_root, skip};

use crate::broker::other_version;
use crate::support::{Place, eventually, signal_pid};

const TESTENV: &str = env!("CARGO_BIN_EXE_testenv");
const CONFIG: &str = "[services.database]\nservice = \"postgres\"\n[services.cache]\nservice = \"redis\"\n";
/// Exit code where a role cannot work.
const UNFIT: i32 = 125;
/// Root without the right to mount, as in most containers of CI systems.
const NO_MOUNTS: &[&str] = &["setpriv", "--bounding-set", "-sys_admin", "--"];

/// A workspace with two roles.
fn workspace() -> TestWorkspace {
    TestWorkspace::new(TESTENV).config(CONFIG)
}

/// The same, of an ordinary user, to whom permissions mean something.
fn of_ordinary_user() -> TestWorkspace {
    TestWorkspace::of_user(TESTENV, if is_root() { User::Nobody } else { User::Own }).config(CONFIG)
}

/// Runs it, checks its exit code and that it says all of these.
#[track_caller]
fn doctor(workspace: &TestWorkspace, arguments: &[&str], code: i32, parts: &[&str]) -> String {
    let ran = workspace.run(&[&["doctor"], arguments].concat());
    assert_eq!(ran.code, Some(code), "{}", ran.said());
    // Lines are broken where they are long.
    let said = ran.stdout.replace("\n  | ", " ").split_whitespace().collect::<Vec<_>>().join(" ");
    for part in parts {
        assert!(said.contains(part), "it does not say {part:?}:\n{}", ran.said());
    }
    ran.stdout
}

/// What `--json` says.
#[track_caller]
fn json(workspace: &TestWorkspace) -> Value {
    let ran = workspace.run(&["doctor", "--json"]);
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}:\n{}", ran.said()))
}

/// The findings of one check.
fn findings<'a>(json: &'a Value, check: &str) -> Vec<&'a Value> {
    json["findings"].as_array().unwrap().iter().filter(|finding| finding["check"] == check).collect()
}

#[test]
fn a_machine_that_is_fit_is_told_in_a_few_lines_and_left_as_it_was() {
    let workspace = workspace().own_cache();
    let parts =
        ["testenv ", "fit for this workspace", "database: postgres ", "cache: redis ", "no broker runs"];
    let said = doctor(&workspace, &[], 0, &parts);
    assert!(!said.contains('\x1b'), "colours where no terminal is");
    assert!(!workspace.base().join("c").exists(), "the cache was not asked for yet");
    assert!(fs::read_dir(workspace.base().join("r")).unwrap().next().is_none(), "nothing stays of trying");
    let in_full = doctor(&workspace, &["--verbose"], 0, &["ok open-files ulimit -n"]);
    assert!(in_full.lines().count() > said.lines().count());
    workspace.end();
}

#[test]
fn machines_read_the_same() {
    let workspace = workspace();
    let json = json(&workspace);
    assert_eq!((&json["unit"], &json["max_servers"]), (&"servers".into(), &256.into()));
    assert!(json["capacity"]["servers"].as_u64() > Some(0), "{json}");
    for check in [
        "engine",
        "client",
        "memory",
        "cache",
        "dev-shm",
        "forks",
        "fork-room",
        "open-files",
        "processes",
        "process-ids",
        "cgroup-pids",
        "user-namespaces",
        "pidfd",
        "proc",
        "inotify",
        "ports",
        "somaxconn",
        "container-engine",
        "runtime-dir",
        "broker",
        "leftovers",
    ] {
        for finding in findings(&json, check) {
            assert!(finding["seen"].as_str().is_some_and(|seen| !seen.is_empty()), "{finding}");
            assert!(finding["commands"].is_array() && finding["fixable"].is_boolean(), "{finding}");
        }
        assert!(!findings(&json, check).is_empty(), "no {check}");
    }
    workspace.end();
}

#[test]
fn few_open_files_are_told_in_servers() {
    let workspace = workspace().through(&["prlimit", "--nofile=128:128"]);
    let parts = ["warning[open-files]: ulimit -n 128", "about 17 servers", "65536"];
    doctor(&workspace, &[], 0, &parts);
    workspace.end();
    let workspace = self::workspace().through(&["prlimit", "--nofile=48:48"]);
    doctor(&workspace, &[], UNFIT, &["problem[open-files]: ulimit -n 48", "not fit for this workspace"]);
    workspace.end();
}

#[test]
fn the_broker_raises_what_it_may_and_one_that_could_not_is_told() {
    let workspace = workspace().through(&["prlimit", "--nofile=128:256"]);
    doctor(&workspace, &[], 0, &["ulimit -n 128, raised to 256 by the broker"]);
    workspace.start().unwrap();
    let limits = fs::read_to_string(format!("/proc/{}/limits", workspace.broker_pid().unwrap())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(line.split_whitespace().nth(3), Some("256"), "{line}");
    let workspace = workspace.through(&["prlimit", "--nofile=128:512"]);
    let parts = ["ulimit -n 256 of the broker that runs, 512 here", "about 43 servers", "testenv down"];
    doctor(&workspace, &[], 0, &parts);
    workspace.end();
}

/// A control group of this test's own with few processes, where the machine lets one be made.
struct FewProcesses(PathBuf);

impl FewProcesses {
    fn new() -> Option<Self> {
        let name = format!("testenv-test-{}", std::process::id());
        let made = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"].map(|root| Path::new(root).join(&name));
        let group = made.into_iter().find(|dir| fs::create_dir(dir).is_ok()).map(Self)?;
        fs::write(group.0.join("pids.max"), "60").ok().map(|()| group)
    }

    /// A command that runs another in it.
    fn enter(&self) -> String {
        format!("echo $$ > {}/cgroup.procs && exec \"$@\"", self.0.display())
    }
}

impl Drop for FewProcesses {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_container_s_limit_of_processes_is_told_in_servers() {
    if !needs_root("to make a control group") {
        return;
    }
    let Some(group) = FewProcesses::new() else {
        return skip("no control group with a limit of processes can be made here");
    };
    let workspace = workspace().through(&["sh", "-c", &group.enter(), "sh"]);
    let parts = ["warning[cgroup-pids]: ", " of 60 left", "about 8 servers", "--pids-limit"];
    doctor(&workspace, &[], 0, &parts);
    // Nothing of it may be in the group any longer.
    eventually("the group is empty", || fs::read_to_string(group.0.join("cgroup.procs")).unwrap().is_empty());
    workspace.end();
}

#[test]
fn a_closed_cache_is_told_and_opened() {
    let workspace = of_ordinary_user().own_cache();
    let cache = workspace.base().join("c");
    fs::create_dir(&cache).unwrap();
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o000)).unwrap();
    if is_root() {
        User::Nobody.own(&cache).unwrap();
    }
    let parts = ["problem[cache]: ", "Permission denied", "chmod u+rwx", "testenv doctor --fix # does that"];
    let said = doctor(&workspace, &[], UNFIT, &parts);
    assert!(!said.contains("problem[forks]"), "said once: {said}");
    assert!(said.contains("database: postgres "), "engines are looked for all the same");
    let fixed = ["fixed: gave ", "the mode 700", "fit for this workspace", "cache in "];
    doctor(&workspace, &["--fix"], 0, &fixed);
    let again = doctor(&workspace, &["--fix"], 0, &[]);
    assert!(!again.contains("fixed: "), "{again}");
    workspace.end();
}

#[test]
fn a_cache_that_is_no_directory_is_told() {
    let workspace = workspace().own_cache();
    fs::write(workspace.base().join("c"), "").unwrap();
    doctor(&workspace, &["--fix"], UNFIT, &["problem[cache]: ", "Not a directory", "TESTENV_CACHE_DIR"]);
}

#[test]
fn a_role_whose_engine_is_missing_cannot_work() {
    let config = format!(
        "{CONFIG}[services.old]\nservice = \"postgres\"\nversion = \"99\"\n\
                          [services.away]\nservice = \"redis\"\nbin_dir = \"nowhere\"\n"
    );
    let workspace = TestWorkspace::new(TESTENV).config(&config);
    let parts = [
        "not fit for this workspace",
        "problem[engine]: old: no PostgreSQL 99 on this machine",
        "whoever asks for old is refused",
        "found only ",
        "problem[engine]: away: no Redis or Valkey on this machine",
        "apt-get install redis-server",
        "database: postgres ",
    ];
    doctor(&workspace, &[], UNFIT, &parts);
    let json = json(&workspace);
    let severities =
        findings(&json, "engine").into_iter().map(|it| (it["subject"].as_str(), it["severity"].as_str()));
    assert!(severities.clone().any(|it| it == (Some("old"), Some("problem"))), "{json}");
    assert!(severities.clone().any(|it| it == (Some("cache"), Some("ok"))), "{json}");
    workspace.end();
}

#[test]
fn a_configuration_that_cannot_be_used_is_told_beside_the_rest() {
    let workspace = TestWorkspace::new(TESTENV).config("[services.a]\nservice = \"postgre\"\n");
    doctor(&workspace, &[], 124, &["problem[config]: ", "line 2", "postgre", "ok memory"]);
}

#[test]
fn container_engines_that_do_not_answer_are_told_apart() {
    let workspace = workspace();
    let socket = workspace.base().join("d.sock");
    let url = format!("unix://{}", socket.display());
    let workspace = workspace.env("DOCKER_HOST", &url);
    doctor(
        &workspace,
        &[],
        0,
        &["warning[container-engine]: DOCKER_HOST=", "there is no such socket", "unset DOCKER_HOST"],
    );
    let listener = UnixListener::bind(&socket).unwrap();
    doctor(&workspace, &[], 0, &["no answer within 2 s", "systemctl restart docker"]);
    drop(listener);
    doctor(&workspace, &[], 0, &["nobody listens: Connection refused"]);
    workspace.end();
}

#[test]
fn root_that_may_not_mount_is_told_what_it_costs() {
    if !needs_root("to give up the right to mount") {
        return;
    }
    let workspace = workspace().through(NO_MOUNTS);
    let parts = [
        "warning[forks]: forks by copy (no overlay: unshare: Operation not permitted",
        "80 ms",
        "warning[user-namespaces]: ",
        "--cap-add SYS_ADMIN",
    ];
    doctor(&workspace, &[], 0, &parts);
    workspace.end();
    let demanding = format!("{CONFIG}[cache]\nfork = \"overlay\"\n");
    let workspace = TestWorkspace::new(TESTENV).config(&demanding).through(NO_MOUNTS);
    doctor(&workspace, &[], UNFIT, &["problem[forks]: no way to fork", "cache.fork = \"auto\""]);
    workspace.end();
}

#[test]
fn an_ordinary_user_without_user_namespaces_is_told_which_parameter_to_set() {
    if !needs_root("to change the root directory") {
        return;
    }
    // The kernel gives no user namespace to a process whose root directory is not that of its mounts.
    let workspace = of_ordinary_user();
    let root = workspace.base().join("root");
    fs::create_dir(&root).unwrap();
    let root = root.display();
    let script = format!("mount --rbind / {root} && exec chroot --userspec=65534:65534 {root} \"$@\"");
    let workspace = workspace.through_to_user(&["unshare", "--mount", "sh", "-c", &script, "sh"]);
    let parts =
        ["warning[user-namespaces]: ", "unshare: Operation not permitted", "warning[forks]: forks by copy"];
    doctor(&workspace, &[], 0, &parts);
    workspace.end();
}

#[test]
fn ports_that_connections_take_are_told() {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let first: u16 = range.split_whitespace().next().unwrap().parse().unwrap();
    let config = format!("{CONFIG}[pool]\nports = [{}, {}]\n", first, first + 999);
    let workspace = TestWorkspace::new(TESTENV).config(&config);
    doctor(&workspace, &[], 0, &["warning[ports]: ", "1,000 of the 1,000 ports", "ip_local_reserved_ports="]);
    workspace.end();
}

#[test]
fn what_a_killed_broker_left_is_told_and_removed() {
    let workspace = workspace();
    drop(workspace.lease("cache"));
    doctor(&workspace, &[], 0, &["broker 0", "runs, process"]);
    signal_pid(workspace.broker_pid().unwrap(), "KILL");
    eventually("nobody listens", || UnixStream::connect(workspace.socket()).is_err());
    let runtime = workspace.runtime().to_path_buf();
    let directory = runtime.display().to_string();
    doctor(&workspace, &[], 0, &["[leftovers]: a dead broker left ", &directory, "testenv doctor --fix"]);
    let parts = ["fixed: ", "removed what was left of it in ", "nothing left by dead brokers"];
    doctor(&workspace, &["--fix"], 0, &parts);
    assert!(!workspace.socket().exists() && !runtime.join("s").exists());
    workspace.assert_nothing_left();
    drop(workspace.lease("cache"));
    workspace.end();
}

#[test]
fn what_a_living_broker_has_is_not_repaired() {
    let workspace = workspace();
    let held = workspace.lease("cache");
    let fixed = doctor(&workspace, &["--fix"], 0, &["nothing left by dead brokers"]);
    assert!(!fixed.contains("fixed: "), "{fixed}");
    assert!(testkit::redis(held.lease()).is_ok(), "the server is still there");
    drop(held);
    workspace.end();
}

#[test]
fn a_runtime_directory_that_others_can_write_to_is_told_and_closed() {
    let workspace = workspace();
    let root = workspace.base().join("r");
    fs::set_permissions(&root, fs::Permissions::from_mode(0o777)).unwrap();
    doctor(&workspace, &[], UNFIT, &["problem[runtime-dir]: others can write to ", "chmod go-w "]);
    doctor(&workspace, &["--fix"], 0, &["fixed: gave ", "the mode 755", "fit for"]);
    workspace.end();
}

#[test]
fn a_broker_of_another_version_is_told() {
    let mut place = Place::with_config(CONFIG);
    place.set_program(other_version(&place));
    place.call(&["broker", "--detach"]).expect(0);
    place.set_program(TESTENV.into());
    let said = place.call(&["doctor"]).expect(0).stdout;
    assert!(said.contains("note[broker]: broker 9."), "{said}");
    signal_pid(place.status().health.pid, "STOP");
    let said = place.call(&["doctor"]).expect(125).stdout;
    assert!(said.contains("problem[broker]: ") && said.contains("    testenv down\n"), "{said}");
}
