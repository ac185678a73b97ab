//! The broker owns every lifetime: it makes snapshots, keeps servers warm, leases them to tests, and takes
//! everything back.
//!
//! A lease lives exactly as long as the connection that asked for it, and no longer than the process that
//! opened that connection. Nothing depends on a test's good behaviour: when it is killed, the kernel closes
//! its socket. Nor on the broker's: when that is killed, the kernel kills its servers and drops its mounts,
//! and the next broker removes the rest.
//!
//! The state of pools and leases is in `core`, changed under one lock and without IO; what takes time is
//! done by `workers`. `api` is the HTTP face of it.

#![forbid(unsafe_code)]

mod api;
mod core;
mod ended;
mod faults;
mod handover;
mod loan;
mod memory;
mod metrics;
mod pool;
mod roles;
mod startup;
mod workers;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use testenv_api::Problem;
use testenv_api::discovery::Workspace;

pub use api::openapi;

/// What a broker is started with. The program that starts it reads the environment, the broker does not.
#[derive(Clone)]
pub struct BrokerOptions {
    /// Workspace to serve.
    pub workspace: Workspace,
    /// Directory of the snapshots, when the configuration names none.
    pub cache_dir: PathBuf,
    /// Value of `PATH`, in which engines are looked for.
    pub path: String,
    /// Variables that may declare external servers.
    pub environment: BTreeMap<String, String>,
}

impl std::fmt::Debug for BrokerOptions {
    /// Leaves out the environment: there are secrets in it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BrokerOptions").field("workspace", &self.workspace).finish_non_exhaustive()
    }
}

/// Why a broker did not run, or stopped running.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// Another broker serves this workspace already and answers on its socket.
    #[error("a broker serves this workspace already, on {}", socket.display())]
    AlreadyRunning {
        /// Its socket.
        socket: PathBuf,
    },
    /// It could not start; what happened, what it saw, what to do.
    #[error("{0}")]
    Failed(Problem),
}

impl From<Problem> for BrokerError {
    fn from(problem: Problem) -> Self {
        Self::Failed(problem)
    }
}

/// Runs a broker until it is told to stop, gets SIGTERM or SIGINT, or has been idle long enough.
///
/// `on_ready` is called with the socket's path once requests are accepted. Call this first thing in `main`:
/// the process moves into namespaces of its own, which it can only do while it has a single thread.
///
/// # Errors
/// [`BrokerError::AlreadyRunning`] when the workspace has a broker, else why it could not start.
pub fn run(options: &BrokerOptions, on_ready: impl FnOnce(&std::path::Path)) -> Result<(), BrokerError> {
    let started = startup::start(options)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| startup::failed("start the broker's threads", &error))?;
    let served = runtime.block_on(api::serve(started, on_ready));
    runtime.shutdown_timeout(Duration::from_secs(5));
    served.map_err(BrokerError::from)
}
