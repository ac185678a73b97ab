//! Faults on the way to a server: a proxy in front of a lease that asked for one.
//!
//! A lease without faults has no proxy, and nothing here costs it anything. The proxy is tasks of the broker's
//! runtime: the `gate` has the listeners and the faults, each `connection` is carried by a task of its own, by the
//! newest `plan` of all faults. While no fault holds, bytes are read and written and nothing else; under faults they
//! go over a `line`, which says when they arrive. It ends with the lease.
//!
//! The proxy connects to the server over TCP, never over the unix socket: there PostgreSQL asks for no password,
//! and the proxy's port would be a way around it for everybody on the machine.

mod connection;
mod gate;
mod line;
mod plan;
pub(crate) mod processes;
mod random;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use testenv_api::{Effect, Fault, FaultsStatus, Problem, ProblemKind, ServiceKind};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use gate::{Command, Door, Gate};

/// Where proxies listen.
pub(crate) const PROXY_HOST: &str = "127.0.0.1";

/// Requests that may wait for a gate.
const MAX_WAITING: usize = 64;
/// Longest time that a fault may name, in milliseconds: one hour.
const MAX_MS: u64 = 3_600_000;
/// Longest name of a fault, in bytes.
const MAX_NAME: usize = 64;

/// The proxy of one lease. Dropping it ends its listeners and connections.
#[derive(Debug)]
pub(crate) struct Proxy {
    ports: Vec<u16>,
    commands: mpsc::Sender<Command>,
    task: AbortHandle,
}

impl Proxy {
    /// Starts a proxy with a port for each target, a host and a port.
    ///
    /// # Errors
    /// [`ProblemKind::Resources`] when there are no sockets or ports left.
    pub(crate) fn start(targets: Vec<(String, u16)>, seed: u64) -> Result<Arc<Self>, Problem> {
        let doors: std::io::Result<Vec<Door>> = targets.into_iter().map(Door::new).collect();
        let doors = doors.map_err(|error| crate::startup::failed("open a proxy for faults", &error))?;
        let ports = doors.iter().map(Door::port).collect();
        let (commands, received) = mpsc::channel(MAX_WAITING);
        let task = tokio::spawn(Gate::new(doors, seed).serve(received)).abort_handle();
        Ok(Arc::new(Self { ports, commands, task }))
    }

    /// Its ports, in the order of the targets.
    pub(crate) fn ports(&self) -> &[u16] {
        &self.ports
    }

    /// Adds faults, and returns them with their names when every connection goes by them.
    ///
    /// # Errors
    /// [`ProblemKind::BadRequest`] for one that makes no sense: then none is added.
    pub(crate) async fn add(&self, faults: Vec<Fault>) -> Result<Vec<Fault>, Problem> {
        faults.iter().try_for_each(check)?;
        self.ask(|answer| Command::Add(faults, answer)).await?
    }

    /// Takes a fault away, or all of them.
    ///
    /// # Errors
    /// [`ProblemKind::NotFound`] when there is none of that name.
    pub(crate) async fn remove(&self, name: Option<String>) -> Result<FaultsStatus, Problem> {
        self.ask(|answer| Command::Remove(name, answer)).await?
    }

    /// The faults there are.
    ///
    /// # Errors
    /// When the lease has just ended.
    pub(crate) async fn list(&self) -> Result<FaultsStatus, Problem> {
        self.ask(Command::List).await
    }

    /// The server has ended: connections are refused, as it would refuse them. What is returned comes when they are.
    pub(crate) fn server_ended(&self) -> oneshot::Receiver<()> {
        let (answer, answered) = oneshot::channel();
        let _ = self.commands.try_send(Command::ServerEnded(answer));
        answered
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Problem> {
        let (answer, answered) = oneshot::channel();
        let gone = || Problem::new(ProblemKind::NotFound, "the lease has just ended, and its proxy with it");
        self.commands.send(command(answer)).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Checks that a proxy is in the way of a service's clients.
///
/// # Errors
/// [`ProblemKind::Unsupported`] for a service that tells them the server's own address.
pub(crate) fn check_service(kind: ServiceKind) -> Result<(), Problem> {
    if kind != ServiceKind::Kafka {
        return Ok(());
    }
    Err(Problem::new(ProblemKind::Unsupported, "faults cannot be set on the way to Kafka yet")
        .detail("its clients are told the server's own address, and would go past the proxy")
        .hint("ask for the lease without faults: its server can be paused and killed all the same"))
}

/// Checks that a fault makes sense.
fn check(fault: &Fault) -> Result<(), Problem> {
    let kind = fault.effect.kind();
    let refuse = |what: String| Err(Problem::new(ProblemKind::BadRequest, format!("{kind}: {what}")));
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    if fault.name.len() > MAX_NAME || !fault.name.bytes().all(is_word) {
        return refuse(format!(
            "the name {:?} is not 1 to {MAX_NAME} of a-z, A-Z, 0-9, `_`, `-`, `.`",
            fault.name
        ));
    }
    let times: &[(&str, u64)] = match &fault.effect {
        Effect::Latency { latency_ms, jitter_ms } => {
            &[("latency_ms", *latency_ms), ("jitter_ms", *jitter_ms)]
        }
        Effect::Loss { retransmit_ms, .. } => &[("retransmit_ms", *retransmit_ms)],
        Effect::SlowClose { delay_ms } => &[("delay_ms", *delay_ms)],
        _ => &[],
    };
    if let Some((name, _)) = times.iter().find(|(_, ms)| *ms > MAX_MS) {
        return refuse(format!("`{name}` is more than an hour ({MAX_MS})"));
    }
    match fault.effect {
        Effect::Loss { percent: 0 | 101.., .. } => refuse("`percent` is not from 1 to 100".into()),
        Effect::Bandwidth { bytes_per_second: 0 } => {
            refuse("`bytes_per_second` is 0; `stall` lets nothing pass".into())
        }
        _ => Ok(()),
    }
}
