//! Namespaces: what each lease has of its own in a server that many share.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Instant;

use testenv_api::{Problem, ProblemKind};

use crate::Result;
use crate::drivers::Namespaces;
use crate::machine::Machine;
use crate::server::{Server, Session};
use crate::service::{Endpoint, Spec};
use crate::snapshot::{Plan, Snapshot, perform};

/// A running server that gives out namespaces.
#[derive(Debug)]
pub struct Host {
    server: Server,
    machine: Arc<Machine>,
    clones: Box<dyn Clones>,
}

/// A namespace of a shared server. Dropping it removes it.
#[derive(Debug)]
pub struct Namespace {
    host: Arc<Host>,
    name: String,
    /// How it is used.
    pub endpoint: Endpoint,
}

/// How prepared namespaces come into being in one running server, and go.
pub(crate) trait Clones: Debug + Send + Sync {
    /// Makes one called `name`, prepared as the role says.
    fn create(&self, server: &Server, name: &str) -> Result<Endpoint>;

    /// Removes one, or at least closes it and sees to the rest soon after.
    fn remove(&self, server: &Server, name: &str) -> Result<()>;

    /// Opens a session on one, to be handed over, where the kind of service has such.
    fn open_session(&self, _namespace: &Endpoint) -> Result<Option<Session>> {
        Ok(None)
    }
}

impl Host {
    /// Makes a running server of `snapshot`, a [`Variant::Template`](crate::snapshot::Variant), a host.
    ///
    /// # Errors
    /// When the server does not answer, or its kind has no namespaces.
    pub fn new(
        machine: &Arc<Machine>,
        spec: &Arc<Spec>,
        snapshot: &Arc<Snapshot>,
        mut server: Server,
    ) -> Result<Arc<Self>> {
        server.session = None;
        let clones = spec.driver.clones(machine, spec, snapshot, &server)?;
        Ok(Arc::new(Self { server, machine: Arc::clone(machine), clones }))
    }

    /// The server.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Makes a prepared namespace; `name` consists of a-z, 0-9 and `_`.
    ///
    /// # Errors
    /// [`ProblemKind::StartFailed`] with what the server said.
    pub fn create(self: &Arc<Self>, name: &str) -> Result<Namespace> {
        self.machine.check_room()?;
        let failed = |problem: Problem| match problem.kind {
            ProblemKind::PrepareFailed => Problem { kind: ProblemKind::StartFailed, ..problem },
            _ => problem,
        };
        let endpoint = self.clones.create(&self.server, name).map_err(failed)?;
        Ok(Namespace { host: Arc::clone(self), name: name.to_owned(), endpoint })
    }
}

impl Namespace {
    /// The server it is in.
    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// Opens a session on it, which fills the caches that a first session would otherwise wait for. `None` where
    /// the kind of service has no sessions to hand over.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn open_session(&self) -> Result<Option<Session>> {
        self.host.clones.open_session(&self.endpoint)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if self.host.server.has_exited() {
            return;
        }
        if let Err(problem) = self.host.clones.remove(&self.host.server, &self.name) {
            tracing::warn!(%problem, namespace = self.name, "a namespace could not be removed");
        }
    }
}

/// Namespaces that are made by applying the role's migrations and seed to an empty one.
#[derive(Debug)]
pub(crate) struct Replay {
    machine: Arc<Machine>,
    spec: Arc<Spec>,
    plan: Plan,
}

impl Replay {
    /// # Errors
    /// When a file that the role names cannot be read.
    pub(crate) fn new(machine: &Arc<Machine>, spec: &Arc<Spec>) -> Result<Self> {
        let plan = Plan::read(spec, machine)?;
        Ok(Self { machine: Arc::clone(machine), spec: Arc::clone(spec), plan })
    }

    fn namespaces(&self) -> Result<&'static dyn Namespaces> {
        self.spec.driver.namespaces().ok_or_else(|| {
            Problem::new(ProblemKind::BadRequest, format!("{} has no namespaces", self.spec.kind))
        })
    }
}

impl Clones for Replay {
    fn create(&self, server: &Server, name: &str) -> Result<Endpoint> {
        let namespaces = self.namespaces()?;
        let endpoint = namespaces
            .create(&self.spec, &server.endpoint, name)
            .map_err(|problem| server.with_log(problem))?;
        let deadline = Instant::now() + self.spec.config.prepare_timeout();
        for stage in self.plan.steps() {
            let performed = perform(&self.machine, &self.spec, server, &endpoint, stage, deadline, &|_| {});
            if let Err(problem) = performed {
                let _ = namespaces.remove(&self.spec, &server.endpoint, name);
                return Err(problem);
            }
        }
        Ok(endpoint)
    }

    fn remove(&self, server: &Server, name: &str) -> Result<()> {
        self.namespaces()?.remove(&self.spec, &server.endpoint, name)
    }
}
