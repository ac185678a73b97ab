//! Namespaces: what each lease has of its own in a server that many share.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Instant;

use testenv_api::{Problem, ProblemKind};
use testenv_config::ExternalConfig;

use crate::Result;
use crate::drivers::Namespaces;
use crate::external::{self, Owner};
use crate::machine::Machine;
use crate::server::{Server, Session};
use crate::service::{Endpoint, Runtime, Spec};
use crate::snapshot::{Plan, Snapshot, perform};

/// A server that gives out namespaces.
#[derive(Debug)]
pub struct Host {
    run_by: RunBy,
    machine: Arc<Machine>,
    clones: Box<dyn Clones>,
}

/// Who runs a server.
#[derive(Debug)]
enum RunBy {
    Us(Box<Server>),
    Others(Owner),
}

/// The server that namespaces are to be made in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Origin<'a> {
    /// One of testenv's own, forked from a snapshot.
    Forked { snapshot: &'a Arc<Snapshot>, server: &'a Server },
    /// One that was declared.
    Declared { endpoint: &'a Endpoint, key: &'a str },
}

/// A namespace of a shared server. Dropping it removes it.
#[derive(Debug)]
pub struct Namespace {
    host: Arc<Host>,
    name: String,
    /// How it is used.
    pub endpoint: Endpoint,
}

/// How prepared namespaces come into being in one server, and go.
pub(crate) trait Clones: Debug + Send + Sync {
    /// Makes one called `name`, prepared as the role says.
    fn create(&self, name: &str) -> Result<Endpoint>;

    /// Removes one, or at least closes it and sees to the rest soon after.
    fn remove(&self, name: &str) -> Result<()>;

    /// Whether the server has no more of what a namespace takes, so that another server has to take its place.
    fn is_used_up(&self) -> bool {
        false
    }

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
        let clones = spec.driver.clones(machine, spec, Origin::Forked { snapshot, server: &server })?;
        Ok(Arc::new(Self { run_by: RunBy::Us(Box::new(server)), machine: Arc::clone(machine), clones }))
    }

    /// Makes the role's external server a host, once what was left behind in it is removed. `key` is that of the
    /// state which its namespaces are to have.
    ///
    /// # Errors
    /// When the server does not answer, or others have left too much behind; and for a role that has none.
    pub fn external(
        machine: &Arc<Machine>,
        spec: &Arc<Spec>,
        key: &str,
        limits: &ExternalConfig,
    ) -> Result<Arc<Self>> {
        let Runtime::External(declared) = &spec.runtime else {
            return Err(Problem::new(ProblemKind::Internal, format!("{} is not external", spec.role)));
        };
        let owner = Owner::here(&spec.root);
        let namespaces = spec.namespaces()?;
        machine.before_first_use(&declared.endpoint, || {
            external::sweep(spec, namespaces, &declared.endpoint, &owner, limits)
        })?;
        let clones =
            spec.driver.clones(machine, spec, Origin::Declared { endpoint: &declared.endpoint, key })?;
        Ok(Arc::new(Self { run_by: RunBy::Others(owner), machine: Arc::clone(machine), clones }))
    }

    /// The server, unless others run it.
    pub fn server(&self) -> Option<&Server> {
        match &self.run_by {
            RunBy::Us(server) => Some(server),
            RunBy::Others(_) => None,
        }
    }

    /// Whether it is known to have ended.
    pub fn has_exited(&self) -> bool {
        self.server().is_some_and(Server::has_exited)
    }

    /// Whether it can give out namespaces: it runs, and is not used up.
    pub fn is_usable(&self) -> bool {
        !self.has_exited() && !self.clones.is_used_up()
    }

    /// Makes a prepared namespace. `id` is different for each of this broker's.
    ///
    /// # Errors
    /// [`ProblemKind::StartFailed`] with what the server said.
    pub fn create(self: &Arc<Self>, role: &str, id: &str) -> Result<Namespace> {
        let id = id.replace('-', "_");
        let (name, server) = match &self.run_by {
            RunBy::Us(server) => {
                self.machine.check_room()?;
                (format!("t_{}_{id}", role.replace('-', "_")), Some(server))
            }
            RunBy::Others(owner) => (owner.name(&id), None),
        };
        let endpoint = self.clones.create(&name).map_err(|problem| {
            let kind = match problem.kind {
                ProblemKind::PrepareFailed => ProblemKind::StartFailed,
                other => other,
            };
            let problem = Problem { kind, ..problem };
            server.map_or(problem.clone(), |server| server.with_log(problem))
        })?;
        Ok(Namespace { host: Arc::clone(self), name, endpoint })
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
        if self.host.has_exited() {
            return;
        }
        if let Err(problem) = self.host.clones.remove(&self.name) {
            tracing::warn!(%problem, namespace = self.name, "a namespace could not be removed");
        }
    }
}

/// Namespaces that are made by applying the role's migrations and seed to an empty one.
#[derive(Debug)]
pub(crate) struct Replay {
    machine: Arc<Machine>,
    spec: Arc<Spec>,
    server: Endpoint,
    namespaces: &'static dyn Namespaces,
    plan: Plan,
}

impl Replay {
    /// # Errors
    /// When a file that the role names cannot be read, or the kind of service has no namespaces.
    pub(crate) fn new(machine: &Arc<Machine>, spec: &Arc<Spec>, origin: Origin<'_>) -> Result<Self> {
        let replay = Self {
            machine: Arc::clone(machine),
            spec: Arc::clone(spec),
            server: origin.endpoint().clone(),
            namespaces: spec.namespaces()?,
            plan: Plan::read(spec, machine)?,
        };
        replay.check(origin.key(), replay.key())?;
        Ok(replay)
    }

    /// Refuses what would not be what was asked for, because a file was changed meanwhile.
    fn check(&self, expected: &str, found: &str) -> Result<()> {
        if expected == found {
            return Ok(());
        }
        let title = format!("the files of services.{} were changed while they were applied", self.spec.role);
        Err(Problem::new(ProblemKind::StartFailed, title).hint("ask again"))
    }

    /// Applies the role's steps to a namespace that is empty.
    pub(crate) fn fill(&self, namespace: &Endpoint) -> Result<()> {
        let deadline = Instant::now() + self.spec.config.prepare_timeout();
        for stage in self.plan.steps() {
            perform(&self.machine, &self.spec, namespace, stage, deadline, &|_| {})?;
        }
        if self.plan.has_commands() {
            let now = Plan::read(&self.spec, &self.machine)?;
            self.check(self.key(), now.key())?;
        }
        Ok(())
    }

    /// Key of the state that namespaces are brought to.
    pub(crate) fn key(&self) -> &str {
        self.plan.key()
    }
}

impl Clones for Replay {
    fn create(&self, name: &str) -> Result<Endpoint> {
        let endpoint = self.namespaces.create(&self.spec, &self.server, name)?;
        self.fill(&endpoint).inspect_err(|_| drop(self.remove(name)))?;
        Ok(endpoint)
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.namespaces.remove(&self.spec, &self.server, name)
    }
}

impl Origin<'_> {
    /// How the server is reached.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        match self {
            Self::Forked { server, .. } => &server.endpoint,
            Self::Declared { endpoint, .. } => endpoint,
        }
    }

    /// Key of the state that namespaces are to have.
    fn key(&self) -> &str {
        match self {
            Self::Forked { snapshot, .. } => &snapshot.key,
            Self::Declared { key, .. } => key,
        }
    }
}
