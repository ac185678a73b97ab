//! What this machine allows, worked out once when the broker starts: directories, user, fork strategy, ports.

use std::collections::HashSet;
use std::fs::{self, File};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use testenv_api::{Problem, ProblemKind};
use testenv_config::{Config, ForkConfig, StorageConfig};

use crate::fork::{self, ForkRoot, Strategy};
use crate::ports::Ports;
use crate::process::User;
use crate::sandbox::{self, Sandbox};
use crate::service::Endpoint;
use crate::snapshot::Store;
use crate::{Result, io_problem, sweep};

/// Space that has to be free for one more fork, in bytes.
const FORK_RESERVE: u64 = 24 << 20;

/// The machine as one broker uses it.
#[derive(Debug)]
pub struct Machine {
    /// Namespaces the broker is in.
    pub sandbox: Sandbox,
    /// User that servers run as, if not the broker's own.
    pub user: Option<User>,
    /// Where forks live.
    pub forks: ForkRoot,
    /// Frozen data directories.
    pub store: Store,
    /// Ports for servers.
    pub ports: Ports,
    /// For people: where forks live, and why there.
    pub storage: String,
    /// For people: how forks are made, and why so.
    pub strategy: String,
    sockets: PathBuf,
    guard: File,
    next_socket_dir: AtomicU64,
    /// External servers that were used, by host and port.
    used: Mutex<HashSet<(String, u16)>>,
}

/// The lock that every process of a workspace's broker holds.
#[derive(Debug)]
pub struct Guard(File);

impl Guard {
    /// Takes it, ending processes of an earlier broker that still hold it.
    ///
    /// Call this before [`Sandbox::enter`]: inside a user namespace of its own, a broker may not look at the
    /// processes of an earlier one, which are in another.
    ///
    /// # Errors
    /// When such processes do not end.
    pub fn take(runtime_dir: &Path) -> Result<Self> {
        sweep::guard(runtime_dir).map(Self)
    }
}

impl Machine {
    /// Looks at the machine, and removes what an earlier broker of the same workspace left behind.
    ///
    /// `runtime_dir` is the workspace's own and locked by the caller; `cache_dir` may be shared by brokers.
    ///
    /// # Errors
    /// When a directory cannot be used, or the configuration demands what the machine does not allow.
    pub fn open(
        runtime_dir: &Path,
        cache_dir: &Path,
        config: &Config,
        Guard(guard): Guard,
        sandbox: Sandbox,
    ) -> Result<Self> {
        let user = sandbox::server_user();
        let store = Store::open(cache_dir)?;
        let workspace = runtime_dir.file_name().unwrap_or_default().to_owned();
        let (dir, storage) = storage(runtime_dir, &workspace, cache_dir, config, &sandbox)?;
        let usable = check_reachable(&dir, user.as_ref(), "cache.dir").and_then(|()| {
            let strategy = strategy(store.dir(), &dir, config.cache.fork, &sandbox)?;
            Ok((strategy, fresh_dir(&runtime_dir.join("s"))?))
        });
        let ((strategy, why), sockets) = usable.inspect_err(|_| remove_forks(&dir, &sandbox))?;
        let (first, last) = config.pool.ports;
        Ok(Self {
            forks: ForkRoot::new(dir, strategy, user.clone()),
            sandbox,
            user,
            store,
            ports: Ports::new(first, last),
            storage,
            strategy: format!("{}{why}", strategy.as_str()),
            sockets,
            guard,
            next_socket_dir: AtomicU64::new(0),
            used: Mutex::default(),
        })
    }

    /// Removes what the broker has in directories that others see. Call it last.
    pub fn clear(&self) {
        let _ = fs::remove_dir_all(&self.sockets);
        remove_forks(self.forks.dir(), &self.sandbox);
    }

    /// A new directory for the sockets of one server, closed to other users.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn socket_dir(&self) -> std::io::Result<PathBuf> {
        let dir = self.sockets.join(self.next_socket_dir.fetch_add(1, Ordering::Relaxed).to_string());
        fork::make_dir(&dir, 0o700, self.user.as_ref())?;
        Ok(dir)
    }

    /// Runs `sweep` before this broker first uses an external server, while nobody else of it can: what is in
    /// there then is not its own. After a failure the next use is the first again.
    pub(crate) fn before_first_use(
        &self,
        server: &Endpoint,
        sweep: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let mut used = self.used.lock().expect("no panic while locked");
        let place = (server.host.clone(), server.port);
        if !used.contains(&place) {
            sweep()?;
            used.insert(place);
        }
        Ok(())
    }

    /// Held open by every process of this broker, so that the next one can tell whether any is left.
    pub(crate) fn guard(&self) -> BorrowedFd<'_> {
        self.guard.as_fd()
    }

    /// Room that is left for servers' data, in bytes; `None` where the file system does not say.
    pub fn free_storage(&self) -> Option<u64> {
        Some(free_bytes(self.forks.dir())).filter(|free| *free < u64::MAX)
    }

    /// Refuses when there is no room for one more fork.
    ///
    /// # Errors
    /// [`ProblemKind::Resources`] with what is free.
    pub fn check_room(&self) -> Result<()> {
        let free = free_bytes(self.forks.dir());
        if free >= FORK_RESERVE {
            return Ok(());
        }
        Err(Problem::new(ProblemKind::Resources, "no room left for another server's data")
            .detail(format!(
                "{} has {} MiB free; a server needs {} MiB",
                self.storage,
                free >> 20,
                FORK_RESERVE >> 20
            ))
            .hint("end some leases, or raise `cache.tmpfs_size` in testenv.toml"))
    }
}

/// Removes the directory of the forks, and the file system that may be mounted there.
fn remove_forks(dir: &Path, sandbox: &Sandbox) {
    if sandbox.may_mount {
        let _ = fork::unmount(dir);
    }
    let _ = fs::remove_dir_all(dir);
}

fn free_bytes(dir: &Path) -> u64 {
    rustix::fs::statvfs(dir).map_or(u64::MAX, |stat| stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// The directory, new and empty.
fn fresh_dir(dir: &Path) -> Result<PathBuf> {
    sweep::remove_dir(dir)?;
    fork::make_dir(dir, 0o711, None)
        .map_err(|error| io_problem(format!("create {}", dir.display()), &error))?;
    Ok(dir.to_path_buf())
}

/// Decides where forks live and makes the directory.
fn storage(
    runtime_dir: &Path,
    workspace: &std::ffi::OsStr,
    cache_dir: &Path,
    config: &Config,
    sandbox: &Sandbox,
) -> Result<(PathBuf, String)> {
    let uid = rustix::process::geteuid().as_raw();
    let shared_memory = Path::new("/dev/shm").join(format!("testenv-{uid}-{}", workspace.to_string_lossy()));
    let on_disk = cache_dir.join("forks").join(workspace);
    // Whatever is chosen now, an earlier broker may have chosen otherwise.
    sweep::remove_dir(&shared_memory)?;
    sweep::remove_dir(&on_disk)?;
    let private = runtime_dir.join("f");
    sweep::remove_dir(&private)?;
    let size = config.cache.tmpfs_size;
    let mut refused = sandbox.refusal.clone();
    if config.cache.storage != StorageConfig::Disk {
        if sandbox.may_mount {
            let private = fresh_dir(&private)?;
            match sandbox.mount_tmpfs(&private, size.as_bytes()) {
                Ok(()) => return Ok((private, format!("tmpfs (private, at most {size})"))),
                Err(error) => refused = format!("mount tmpfs: {error}"),
            }
            sweep::remove_dir(&private)?;
        }
        if is_tmpfs(Path::new("/dev/shm")) && free_bytes(Path::new("/dev/shm")) > 16 * FORK_RESERVE {
            match fresh_dir(&shared_memory) {
                Ok(dir) => return Ok((dir, format!("tmpfs (/dev/shm; no private one: {refused})"))),
                Err(problem) => refused = format!("{refused}; /dev/shm: {}", problem.detail),
            }
        }
        if config.cache.storage == StorageConfig::Tmpfs {
            return Err(Problem::new(ProblemKind::Resources, "no tmpfs for servers' data")
                .detail(refused)
                .hint(
                    "allow mounts or enlarge /dev/shm, or set `cache.storage = \"auto\"` in testenv.toml",
                ));
        }
    }
    let parent = on_disk.parent().expect("it was joined to the cache");
    for dir in [cache_dir, parent] {
        if !dir.exists() {
            fork::make_dir(dir, 0o711, None)
                .map_err(|error| io_problem(format!("create {}", dir.display()), &error))?;
        }
    }
    let dir = fresh_dir(&on_disk)?;
    let why = match config.cache.storage {
        StorageConfig::Disk => "as configured".to_owned(),
        _ => format!("no tmpfs: {refused}"),
    };
    Ok((dir.clone(), format!("disk ({}; {why})", dir.display())))
}

fn is_tmpfs(dir: &Path) -> bool {
    const TMPFS_MAGIC: i64 = 0x0102_1994;
    rustix::fs::statfs(dir).is_ok_and(|stat| stat.f_type == TMPFS_MAGIC)
}

/// The fastest strategy that works, and why faster ones do not.
fn strategy(
    frozen_on: &Path,
    forks: &Path,
    wanted: ForkConfig,
    sandbox: &Sandbox,
) -> Result<(Strategy, String)> {
    let overlay = Strategy::Overlay { in_user_namespace: sandbox.in_user_namespace };
    let candidates = match wanted {
        ForkConfig::Auto => vec![overlay, Strategy::Reflink, Strategy::Copy],
        ForkConfig::Overlay => vec![overlay],
        ForkConfig::Reflink => vec![Strategy::Reflink],
        ForkConfig::Copy => vec![Strategy::Copy],
    };
    let mut refusals = Vec::new();
    for candidate in candidates {
        let tried = match candidate {
            Strategy::Overlay { .. } if !sandbox.may_mount => {
                Err(std::io::Error::other(sandbox.refusal.clone()))
            }
            _ => fork::probe(candidate, frozen_on, forks),
        };
        match tried {
            Ok(()) if refusals.is_empty() => return Ok((candidate, String::new())),
            Ok(()) => return Ok((candidate, format!(" (no {})", refusals.join("; no ")))),
            Err(error) => refusals.push(format!("{}: {error}", candidate.as_str())),
        }
    }
    Err(Problem::new(ProblemKind::Resources, "no way to fork a data directory works on this machine")
        .detail(refusals.join("\n"))
        .hint("set `cache.fork = \"auto\"` in testenv.toml, and check that the cache directory can be written to"))
}

/// Refuses a path that the servers' user cannot get to.
///
/// # Errors
/// [`ProblemKind::Resources`] naming the directory that is closed.
pub(crate) fn check_reachable(path: &Path, user: Option<&User>, key: &str) -> Result<()> {
    let Some(user) = user else { return Ok(()) };
    for dir in path.ancestors().skip(1) {
        let Ok(meta) = fs::metadata(dir) else { continue };
        let bit = if meta.uid() == user.uid {
            0o100
        } else if meta.gid() == user.gid {
            0o010
        } else {
            0o001
        };
        if meta.mode() & bit == 0 {
            return Err(Problem::new(
                ProblemKind::Resources,
                format!("{} cannot be reached by the user that servers run as", path.display()),
            )
            .detail(format!(
                "testenv runs as root, PostgreSQL refuses to, so servers run as {}, which may not enter {}",
                user.name,
                dir.display()
            ))
            .hint(format!("chmod o+x {}, or set `{key}` to a place outside it", dir.display())));
        }
    }
    Ok(())
}
