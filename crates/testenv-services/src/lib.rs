//! Real servers in milliseconds: engines, snapshots, forks, and the servers that run on them.
//!
//! Every service goes one way: `init → migrate → seed → freeze → fork → lease`. This crate does all but the
//! last: it finds [`Engine`](engine::EngineBuild) builds, prepares a [`Snapshot`](snapshot::Snapshot) once per
//! content hash, gives each server a copy-on-write view of it, and starts and ends servers. Its calls block,
//! with a bound on every wait; it has no async runtime, no pool and no idea of tests. Deciding *when* to fork
//! and for whom is the broker's part.

pub mod doctor;
mod drivers;
pub mod engine;
pub mod external;
pub mod fork;
pub mod inputs;
mod listening;
pub mod log;
pub mod machine;
pub mod namespace;
pub mod ports;
mod process;
pub mod sandbox;
pub mod server;
pub mod service;
pub mod snapshot;
mod stream;
pub mod sweep;

use testenv_api::{Problem, ProblemKind};

/// Result of this crate's operations: what goes wrong here is told to people, so it is a [`Problem`] at once.
pub type Result<T, E = Problem> = std::result::Result<T, E>;

/// Turns an IO error into a [`Problem`], telling apart those that say something about the machine.
pub(crate) fn io_problem(doing: impl std::fmt::Display, error: &std::io::Error) -> Problem {
    let title = format!("failed to {doing}");
    let problem = |kind| Problem::new(kind, title.clone()).detail(error.to_string());
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => problem(ProblemKind::Resources)
            .hint("free some disk space, run `testenv clean`, or move the cache with `cache.dir` in testenv.toml"),
        std::io::ErrorKind::ReadOnlyFilesystem => problem(ProblemKind::Resources)
            .hint("the file system is read-only; set `cache.dir` in testenv.toml or TESTENV_CACHE_DIR to a writable directory"),
        std::io::ErrorKind::PermissionDenied => problem(ProblemKind::Resources)
            .hint("check who owns the directory, or set `cache.dir` in testenv.toml to one that you own"),
        _ => match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE) => problem(ProblemKind::Resources)
                .hint("too many open files; raise the limit with `ulimit -n`, or lower `pool.max_servers`"),
            Some(libc::EAGAIN | libc::ENOMEM) => problem(ProblemKind::Resources)
                .hint("the machine is out of processes or memory; lower `pool.max_servers` or `pool.max_memory`"),
            _ => problem(ProblemKind::Internal),
        },
    }
}
