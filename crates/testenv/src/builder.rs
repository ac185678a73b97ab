//! Asking for one lease, with everything that can be asked for.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use testenv_api::{Isolation, KeepPolicy, LeaseRequest, ServiceKind};

use crate::error::Error;
use crate::lease::{self, Held};
use crate::needs::Asked;
use crate::settings;

/// Longer waits are cut to this, which is longer than any test lives.
const MAX_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// A request for a lease on a service of type `S`; see [`Postgres::builder`](crate::Postgres::builder).
#[must_use = "nothing is asked for until `acquire`"]
#[derive(Clone, Debug)]
pub struct Builder<S> {
    pub(crate) role: Option<String>,
    pub(crate) isolation: Option<Isolation>,
    keep: Option<KeepPolicy>,
    wait: Option<Duration>,
    pub(crate) test: Option<String>,
    pub(crate) faults: bool,
    service: PhantomData<fn() -> S>,
}

/// A kind of handle: which service it is for, and how it is made of a lease.
///
/// Sealed: testenv has to know how to prepare and fork a service.
pub trait Service: FromHeld {
    /// The kind of service.
    const KIND: ServiceKind;
}

/// How a handle is made of a lease.
pub trait FromHeld: Sized {
    /// The handle that holds this lease.
    fn from_held(held: Handle) -> Self;
}

/// A lease, opaque to other crates.
#[derive(Clone, Debug)]
pub struct Handle(pub(crate) Arc<Held>);

/// What [`acquire`] takes: a builder, or a tuple of them.
pub trait Acquire {
    /// A handle, or a tuple of them.
    type Output;
    /// Requests on their way.
    type Asked;
    /// Sends the requests, without waiting.
    fn ask(self) -> Result<Self::Asked, Error>;
    /// Waits for the answers.
    fn receive(asked: Self::Asked) -> Result<Self::Output, Error>;
}

impl<S: Service> Builder<S> {
    pub(crate) fn new() -> Self {
        Self {
            role: None,
            isolation: None,
            keep: None,
            wait: None,
            test: None,
            faults: false,
            service: PhantomData,
        }
    }

    /// The role in `testenv.toml`. Needed only where several roles are of this kind of service.
    pub fn role(mut self, role: impl Into<String>) -> Self {
        self.role = Some(role.into());
        self
    }

    /// How far the lease is kept apart from others; else the role's own isolation holds.
    pub fn isolation(mut self, isolation: Isolation) -> Self {
        self.isolation = Some(isolation);
        self
    }

    /// When the data outlives the lease; else `TESTENV_KEEP` or the configuration decides.
    pub fn keep(mut self, keep: KeepPolicy) -> Self {
        self.keep = Some(keep);
        self
    }

    /// How long to wait for the lease; else `TESTENV_WAIT_MS` or the broker's configuration decides.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = Some(wait);
        self
    }

    /// Puts a proxy in front of the server, on which [`Faults`](crate::Faults) can be set. It costs some microseconds a
    /// round trip; without this there is none.
    pub fn faults(mut self) -> Self {
        self.faults = true;
        self
    }

    /// Asks for the lease and waits for it.
    ///
    /// # Errors
    /// When there is no broker and none can be started, or the broker refuses. The error says what to do.
    pub fn acquire(self) -> Result<S, Error> {
        acquire(self)
    }

    pub(crate) fn send(self) -> Result<Asked, Error> {
        let wait = match self.wait {
            Some(wait) => Some(wait),
            None => settings::wait()?,
        };
        let keep = match self.keep {
            Some(keep) => Some(keep),
            None => settings::keep()?,
        };
        let shared = self.isolation == Some(Isolation::Shared);
        let request = LeaseRequest {
            service: self.role.is_none().then_some(S::KIND),
            role: self.role,
            isolation: self.isolation,
            attempt: settings::attempt(),
            test: self.test.or_else(settings::test_name),
            keep,
            wait_ms: wait.map(|wait| wait.min(MAX_WAIT).as_millis() as u64),
            // A session that nobody takes over is a session wasted, so it is asked for where it can be used.
            handover: cfg!(feature = "tokio-postgres")
                && S::KIND == ServiceKind::Postgres
                && !shared
                && !self.faults,
            faults: self.faults,
            seed: settings::seed()?,
        };
        lease::Asked::send(request, S::KIND).map(Asked)
    }
}

/// Asks for several leases at once: all requests are sent before the first answer is read.
///
/// ```no_run
/// use testenv::{Postgres, Redis};
///
/// # fn main() -> Result<(), testenv::Error> {
/// let (db, cache) = testenv::acquire((Postgres::builder(), Redis::builder().role("cache")))?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// Those of [`Builder::acquire`]. If one lease cannot be had, the others are given back.
pub fn acquire<A: Acquire>(wanted: A) -> Result<A::Output, Error> {
    A::receive(wanted.ask()?)
}

impl<S: Service> Acquire for Builder<S> {
    type Output = S;
    type Asked = Asked;

    fn ask(self) -> Result<Asked, Error> {
        self.send()
    }

    fn receive(asked: Asked) -> Result<S, Error> {
        Ok(S::from_held(Handle(Arc::new(asked.0.receive()?))))
    }
}

macro_rules! acquire_tuple {
    ($($item:ident)+) => {
        #[expect(non_snake_case, reason = "the variables are named after the type parameters")]
        impl<$($item: Acquire),+> Acquire for ($($item,)+) {
            type Output = ($($item::Output,)+);
            type Asked = ($($item::Asked,)+);

            fn ask(self) -> Result<Self::Asked, Error> {
                let ($($item,)+) = self;
                Ok(($($item.ask()?,)+))
            }

            fn receive(($($item,)+): Self::Asked) -> Result<Self::Output, Error> {
                Ok(($($item::receive($item)?,)+))
            }
        }
    };
}

acquire_tuple!(A);
acquire_tuple!(A B);
acquire_tuple!(A B C);
acquire_tuple!(A B C D);
