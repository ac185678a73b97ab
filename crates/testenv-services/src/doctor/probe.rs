//! Trying what the broker does when it starts, in a place of its own.
//!
//! What works is only known by trying, and trying moves a process into namespaces that it cannot leave. So this
//! runs in a process of its own, which tells what it found as JSON and ends.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use testenv_config::{CacheConfig, Config, KindConfig, ServiceConfig};

use super::Subject;
use crate::machine::{Guard, Machine};
use crate::sandbox::Sandbox;
use crate::service::{Endpoint, Runtime, Spec, Surroundings};
use crate::{Result, fork, io_problem};

/// What the names of directories begin with in which things are tried.
pub(super) const SCRATCH: &str = "doctor-";

/// What trying showed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Probe {
    /// The namespaces that a broker gets.
    pub namespaces: Namespaces,
    /// How and where forks are made, or why they cannot be.
    pub forks: Result<Forks>,
    /// The engine of each role, or why it has none.
    pub engines: Vec<RoleEngine>,
}

/// The namespaces that a broker gets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces {
    /// Whether it may mount.
    pub may_mount: bool,
    /// Whether servers have PID namespaces of their own.
    pub pid_namespaces: bool,
    /// Why it may not mount, in the kernel's words.
    pub refusal: String,
}

/// How and where forks are made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forks {
    /// The strategy, and why none of the faster ones: `copy (no overlay: …)`.
    pub strategy: String,
    /// Where servers' data goes, and why there: `tmpfs (private, …)`.
    pub storage: String,
    /// Bytes that are free there.
    pub free: u64,
}

/// The engine of a role.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RoleEngine {
    /// The role; the kind of service where `testenv.toml` has no roles.
    pub role: String,
    /// Whether `testenv.toml` asks for it.
    pub wanted: bool,
    /// What was found.
    pub found: Result<FoundEngine>,
}

/// A build of an engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundEngine {
    /// Name, such as `postgres`.
    pub name: String,
    /// Version.
    pub version: String,
    /// Directory of its programs.
    pub dir: PathBuf,
    /// The variable that declares its server, if somebody else runs that.
    pub declared_by: Option<String>,
    /// The program that its connect command starts, by name or path.
    pub client: String,
}

impl RoleEngine {
    /// Whether somebody else runs the role's server.
    pub(super) fn is_external(&self) -> bool {
        self.found.as_ref().is_ok_and(|found| found.declared_by.is_some())
    }
}

/// A directory for trying things out in, gone when dropped. It has the lock that a broker's directory has, so that
/// one whose maker was killed is found as a dead broker's is.
struct Scratch {
    dir: PathBuf,
    _lock: File,
}

impl Scratch {
    /// Beside the directories of brokers if that is there, as it is the same file system then.
    fn new(runtime_root: &Path) -> Result<Self> {
        let parent = if runtime_root.is_dir() { runtime_root } else { Path::new("/tmp") };
        let dir = parent.join(format!("{SCRATCH}{}", std::process::id()));
        let make = || {
            fork::make_dir(&dir, 0o711, None)?;
            let lock = File::create_new(dir.join("lock"))?;
            rustix::fs::flock(&lock, FlockOperation::LockExclusive)?;
            Ok(lock)
        };
        match make() {
            Ok(lock) => Ok(Self { dir, _lock: lock }),
            Err(error) => Err(io_problem(format!("create {}", dir.display()), &error)),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Tries everything. Call it first thing in `main`, and in a process that ends afterwards.
///
/// # Errors
/// When there is no place to try it in.
pub fn probe(subject: &Subject) -> Result<Probe> {
    let config = &subject.config;
    let scratch = Scratch::new(&subject.runtime_root)?;
    let guard = Guard::take(&scratch.dir)?;
    let sandbox = Sandbox::enter();
    let namespaces = Namespaces {
        may_mount: sandbox.may_mount,
        pid_namespaces: sandbox.pid_namespaces,
        refusal: sandbox.refusal.clone(),
    };
    let made = missing(&subject.cache_dir);
    let opened = Machine::open(&scratch.dir, &subject.cache_dir, config, guard, sandbox.clone());
    let forks = opened.as_ref().map(describe).map_err(Clone::clone);
    // Without a machine that works for forks there still is one to look for engines on.
    let machine = match opened {
        Ok(machine) => machine,
        Err(_) => {
            let config = Config { cache: CacheConfig::default(), ..config.clone() };
            Machine::open(&scratch.dir, &scratch.dir.join("c"), &config, Guard::take(&scratch.dir)?, sandbox)?
        }
    };
    let engines = engines(subject, &machine);
    machine.clear();
    for dir in made {
        // Only if nobody has put anything there meanwhile.
        let _ = fs::remove_dir(dir);
    }
    Ok(Probe { namespaces, forks, engines })
}

/// Directories that the cache's use makes, innermost first.
fn missing(cache_dir: &Path) -> Vec<PathBuf> {
    let inner = ["snapshots", "forks"].map(|name| cache_dir.join(name));
    let above = cache_dir.ancestors().map(Path::to_path_buf);
    inner.into_iter().chain(above).filter(|dir| !dir.exists()).collect()
}

fn describe(machine: &Machine) -> Forks {
    let free = rustix::fs::statvfs(machine.forks.dir());
    Forks {
        strategy: machine.strategy.clone(),
        storage: machine.storage.clone(),
        free: free.map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize)),
    }
}

/// The engine of each role, or, where there are no roles, of what can be leased without.
fn engines(subject: &Subject, machine: &Machine) -> Vec<RoleEngine> {
    let around = Surroundings {
        root: &subject.root,
        path: &subject.path,
        environment: &subject.environment,
        runtimes: &subject.config.runtime,
        machine,
    };
    let look = |role: &str, config: &ServiceConfig, wanted| {
        let found = Spec::resolve(role, config, around).map(found);
        RoleEngine { role: role.to_owned(), wanted, found }
    };
    let services = &subject.config.services;
    if services.is_empty() {
        let kinds = [("postgres", KindConfig::Postgres), ("redis", KindConfig::Redis)];
        return kinds.map(|(role, kind)| look(role, &ServiceConfig::new(kind), false)).into();
    }
    services.iter().map(|(role, config)| look(role, config, true)).collect()
}

fn found(spec: Spec) -> FoundEngine {
    let command = spec.connect_command(&Endpoint::default());
    // Passwords come first, as variables.
    let client = command.split(' ').find(|word| !word.contains('=')).unwrap_or_default();
    FoundEngine {
        client: client.to_owned(),
        declared_by: match spec.runtime {
            Runtime::External(declared) => Some(declared.variable),
            _ => None,
        },
        name: spec.build.engine.name,
        version: spec.build.engine.version,
        dir: spec.build.bin_dir,
    }
}
