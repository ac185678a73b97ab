//! The machine: what is installed, where data goes, how much memory processes take.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

/// User that runs servers when this is root.
pub const NOBODY: u32 = 65534;

/// Whether this process is root.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

/// Where the directories of runs are, on disk and on tmpfs.
const DISK: &str = "/var/tmp";
const TMPFS: &str = "/dev/shm";
/// How their names begin; the number of the process follows.
const PREFIX: &str = "testenv-bench-";

/// Directory of this run on disk.
pub fn disk_dir() -> Result<PathBuf> {
    own_dir(DISK)
}

/// Directory of this run on tmpfs.
pub fn tmpfs_dir() -> Result<PathBuf> {
    own_dir(TMPFS)
}

/// Open to all, as servers run as somebody else.
fn own_dir(parent: &str) -> Result<PathBuf> {
    let dir = Path::new(parent).join(format!("{PREFIX}{}", std::process::id()));
    if !dir.is_dir() {
        fs::create_dir(&dir).with_context(|| format!("failed to create {}", dir.display()))?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o777))?;
    }
    Ok(dir)
}

/// Removes both directories.
pub fn clean_up() {
    for dir in [disk_dir(), tmpfs_dir()].into_iter().flatten() {
        let _ = fs::remove_dir_all(dir);
    }
}

/// Removes the directories of runs that were killed: those whose process is gone.
pub fn sweep() {
    for entry in [DISK, TMPFS].into_iter().flat_map(fs::read_dir).flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// An installed PostgreSQL.
#[derive(Clone, Debug)]
pub struct Build {
    /// Directory of its programs.
    pub bin: PathBuf,
    /// Major version.
    pub major: u32,
    /// Full version.
    pub version: String,
}

/// The oldest and the newest PostgreSQL of this machine, or its only one.
pub fn builds() -> Result<Vec<Build>> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let dirs = debian.map(|entry| entry.path().join("bin")).chain(std::env::split_paths(&path));
    let mut builds: Vec<Build> = dirs.filter_map(|bin| build_in(&bin)).collect();
    builds.sort_by_key(|build| build.major);
    builds.dedup_by_key(|build| build.major);
    if builds.is_empty() {
        bail!("no PostgreSQL found; `cargo xtask setup` installs one");
    }
    let newest = builds.pop();
    builds.truncate(1);
    builds.extend(newest);
    Ok(builds)
}

fn build_in(bin: &Path) -> Option<Build> {
    let programs = ["initdb", "pg_ctl", "postgres"];
    if !programs.iter().all(|program| bin.join(program).is_file()) {
        return None;
    }
    let text = output(Command::new(bin.join("postgres")).arg("--version")).ok()?;
    let version = text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let major = version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
    Some(Build { bin: bin.into(), major, version: version.into() })
}

/// What a program prints.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("failed to start {:?}", command.get_program()))?;
    if !output.status.success() {
        bail!("{command:?} ended with {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Memory of a process and all below it, in bytes, shared pages counted by share.
pub fn tree_memory(root: u32) -> Result<u64> {
    let mut tree = vec![root];
    let parents: Vec<(u32, u32)> = processes().filter_map(|pid| Some((pid, parent_of(pid)?))).collect();
    let mut at = 0;
    while at < tree.len() {
        let children = parents.iter().filter(|(_, parent)| *parent == tree[at]).map(|(pid, _)| *pid);
        let children: Vec<_> = children.collect();
        tree.extend(children);
        at += 1;
    }
    tree.into_iter().map(memory).sum()
}

/// Every process.
pub fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The parent of a process.
pub fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Memory of one process, in bytes, shared pages counted by share.
pub fn memory(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("failed to read {path}"))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Pss:"))
        .with_context(|| format!("no Pss in {path}"))?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib << 10)
}

/// Process id in a data directory's `postmaster.pid`.
pub fn postmaster(data_dir: &Path) -> Result<u32> {
    let text = fs::read_to_string(data_dir.join("postmaster.pid"))?;
    Ok(text.lines().next().unwrap_or_default().trim().parse()?)
}

/// What the numbers depend on, for the report.
pub fn describe() -> Result<Value> {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|it| it.1);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory_kib: u64 =
        memory.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or_default();
    let shown =
        |program: &str, arguments: &[&str]| output(Command::new(program).args(arguments)).unwrap_or_default();
    Ok(json!({
        "cpu": cpu.unwrap_or("unknown"),
        "cores": std::thread::available_parallelism()?.get(),
        "memory_gib": (memory_kib as f64 / f64::from(1 << 20)).round(),
        "kernel": shown("uname", &["-sr"]),
        "disk": shown("stat", &["-f", "-c", "%T", "/var/tmp"]),
        "rustc": shown("rustc", &["--version"]),
        "user": if is_root() { "root" } else { "an ordinary user" },
        "postgres": builds()?.into_iter().map(|build| build.version).collect::<Vec<_>>(),
        "redis": shown("redis-server", &["--version"]).split_whitespace().nth(2).unwrap_or_default().trim_start_matches("v="),
        "date": shown("date", &["-u", "+%F"]),
    }))
}
