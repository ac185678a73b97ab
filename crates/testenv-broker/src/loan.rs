//! What is leased, and the way it takes: out of the pool, to a test, and back.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};

use testenv_services::log::Log;
use testenv_services::namespace::Namespace;
use testenv_services::server::{Server, Session};
use testenv_services::service::{Endpoint, Spec};

use crate::core::{Core, PoolKey};

/// Something that can be leased.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) spec: Arc<Spec>,
    pub(crate) snapshot: String,
    pub(crate) what: What,
}

#[derive(Debug)]
pub(crate) enum What {
    Server(Box<Server>),
    Namespace(Box<Namespace>, Option<Session>),
    Shared(Shared),
}

/// What all `shared` leases of a role use.
#[derive(Clone, Debug)]
pub(crate) enum Shared {
    /// A server of testenv's own.
    Server(Arc<Server>),
    /// A namespace of an external server.
    Namespace(Arc<Namespace>),
}

/// An item on its way to a test or with it. Wherever it is dropped, the item goes back.
#[derive(Debug)]
pub(crate) struct Loan {
    pub(crate) item: Option<Item>,
    pub(crate) key: PoolKey,
    pub(crate) core: Weak<Core>,
}

impl Item {
    pub(crate) fn endpoint(&self) -> &Endpoint {
        match &self.what {
            What::Server(server) => &server.endpoint,
            What::Namespace(namespace, _) => &namespace.endpoint,
            What::Shared(shared) => shared.endpoint(),
        }
    }

    /// The session that warmed it up, once.
    pub(crate) fn take_session(&mut self) -> Option<Session> {
        match &mut self.what {
            What::Server(server) => server.session.take(),
            What::Namespace(_, session) => session.take(),
            What::Shared(_) => None,
        }
    }

    /// The server, unless others run it.
    pub(crate) fn server(&self) -> Option<&Server> {
        match &self.what {
            What::Server(server) => Some(server),
            What::Namespace(namespace, _) => namespace.host().server(),
            What::Shared(shared) => shared.server(),
        }
    }

    /// The server's log; empty where others run it.
    pub(crate) fn log(&self) -> Log {
        self.server().map(|server| server.log.clone()).unwrap_or_default()
    }

    /// Becomes true when the server has ended, if that can be known.
    pub(crate) fn exited(&self) -> Arc<AtomicBool> {
        self.server().map(Server::exited).unwrap_or_default()
    }

    pub(crate) fn has_exited(&self) -> bool {
        self.server().is_some_and(Server::has_exited)
    }
}

impl Shared {
    pub(crate) fn endpoint(&self) -> &Endpoint {
        match self {
            Self::Server(server) => &server.endpoint,
            Self::Namespace(namespace) => &namespace.endpoint,
        }
    }

    fn server(&self) -> Option<&Server> {
        match self {
            Self::Server(server) => Some(server),
            Self::Namespace(namespace) => namespace.host().server(),
        }
    }

    pub(crate) fn has_exited(&self) -> bool {
        self.server().is_some_and(Server::has_exited)
    }
}

impl Loan {
    /// The item.
    pub(crate) fn item(&mut self) -> &mut Item {
        self.item.as_mut().expect("a loan holds its item until it is dropped")
    }

    pub(crate) fn into_item(mut self) -> Item {
        self.item.take().expect("a loan holds its item until it is dropped")
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        if let (Some(item), Some(core)) = (self.item.take(), self.core.upgrade()) {
            core.jobs.give_back(self.key.clone(), item);
        }
    }
}
