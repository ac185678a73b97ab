//! A lease: asked for, received, held, and told how its test ended.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use testenv_api::client::{self, Client, ClientError, LEASE_LIMIT, start_broker};
use testenv_api::discovery::{Workspace, env};
use testenv_api::{
    Event, KeepPolicy, KeepRequest, Kept, Lease, LeaseRequest, Outcome, OutcomeRequest, ProblemKind,
    ServiceKind,
};

use crate::error::{Error, Story};
use crate::story;

/// How often a request is sent, if the broker that has it leaves each time.
const ATTEMPTS: u32 = 5;
/// Where a test has said how long to wait, an answer may come this much later than that.
const WAIT_MARGIN: Duration = Duration::from_secs(10);
/// Time for an event that has come already to be read.
const EVENT_WAIT: Duration = Duration::from_millis(1);
/// Events of one lease that are read at the most.
const EVENT_LIMIT: usize = 16;

/// A request that has been sent. Dropping it takes the request back.
#[derive(Debug)]
pub(crate) struct Asked {
    request: LeaseRequest,
    service: ServiceKind,
    workspace: Workspace,
    asked: Result<client::Asked, ClientError>,
}

impl Asked {
    /// Sends a request, without waiting for the answer. Starts a broker if there is none.
    pub(crate) fn send(request: LeaseRequest, service: ServiceKind) -> Result<Self, Error> {
        let found = std::env::current_dir().and_then(|here| Workspace::find(&here));
        let workspace = found.map_err(|error| {
            Error::Misused(
                Story::new("cannot work out which workspace this test belongs to")
                    .detail(error.to_string())
                    .hint(format!("set {} to the directory that holds testenv.toml", env::WORKSPACE)),
            )
        })?;
        let asked = ask(&workspace, &request);
        let mut this = Self { request, service, workspace, asked };
        // Starting now lets the requests of the other arguments find a broker already.
        if matches!(&this.asked, Err(error) if error.broker_is_gone()) {
            start_broker(&this.workspace)?;
            this.asked = ask(&this.workspace, &this.request);
        }
        Ok(this)
    }

    /// Waits for the answer. If the broker leaves meanwhile, the next one is asked.
    pub(crate) fn receive(self) -> Result<Held, Error> {
        let Self { request, service, workspace, mut asked } = self;
        let mut attempt = 1;
        let held = loop {
            match asked.and_then(client::Asked::receive) {
                Ok(held) => break held,
                Err(error) if error.broker_is_gone() && attempt < ATTEMPTS => {
                    // One that is still there, but leaving, needs a moment until its place is free.
                    if matches!(&error, ClientError::Problem(problem) if problem.kind == ProblemKind::ShuttingDown)
                    {
                        std::thread::sleep(Duration::from_millis(100) * attempt);
                    }
                    start_broker(&workspace)?;
                    asked = ask(&workspace, &request);
                    attempt += 1;
                }
                Err(error) => return Err(error.into()),
            }
        };
        let lease = held.lease();
        if lease.service != service {
            return Err(Error::Misused(
                Story::new(format!(
                    "the role `{}` is {}, but the test asks for {service}",
                    lease.role, lease.service
                ))
                .hint("name another role, or take the other type of handle"),
            ));
        }
        Ok(Held {
            #[cfg(feature = "tokio-postgres")]
            handover: Mutex::new(lease.handover.clone()),
            lease: lease.clone(),
            client: held.client(),
            connection: Mutex::new(held),
            reports_itself: true,
        })
    }
}

fn ask(workspace: &Workspace, request: &LeaseRequest) -> Result<client::Asked, ClientError> {
    let limit = request.wait_ms.map_or(LEASE_LIMIT, |wait| WAIT_MARGIN + Duration::from_millis(wait));
    Client::of(workspace).ask(request, limit)
}

/// A lease that lasts as long as this value: dropping it closes the connection, which is the release.
pub(crate) struct Held {
    pub(crate) lease: Lease,
    pub(crate) client: Client,
    connection: Mutex<client::Held>,
    #[cfg(feature = "tokio-postgres")]
    handover: Mutex<Option<String>>,
    /// Whether dropping tells the broker how the test ended. A scope that watches the test does it better.
    pub(crate) reports_itself: bool,
}

impl Held {
    /// Tells the broker how the test ended.
    pub(crate) fn tell(&self, outcome: Outcome) -> Result<Kept, Error> {
        Ok(self.client.post(&self.path("outcome"), &OutcomeRequest { outcome })?)
    }

    /// Tells the broker that the test passed, if that changes what it keeps.
    pub(crate) fn tell_passed(&self) -> Result<(), Error> {
        match self.lease.keep {
            KeepPolicy::UnlessPassed => self.tell(Outcome::Passed).map(drop),
            _ => Ok(()),
        }
    }

    /// Asks the broker to keep the data when the lease ends.
    pub(crate) fn keep(&self, reason: &str) -> Result<Kept, Error> {
        Ok(self.client.post(&self.path("keep"), &KeepRequest { reason: Some(reason.to_owned()) })?)
    }

    /// The last lines of the server's log that belong to this lease.
    pub(crate) fn logs(&self, lines: usize) -> Result<String, Error> {
        Ok(self.client.get_text(&self.path(&format!("logs?tail={lines}")))?)
    }

    /// What the broker has said since the lease began, without waiting for more.
    pub(crate) fn events(&self) -> Vec<Event> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        std::iter::from_fn(|| connection.next_event(EVENT_WAIT).ok().flatten()).take(EVENT_LIMIT).collect()
    }

    /// The socket of an authenticated session, once.
    #[cfg(feature = "tokio-postgres")]
    pub(crate) fn take_handover(&self) -> Option<String> {
        self.handover.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether drivers connect over TCP: through a proxy, or because there is no unix socket.
    #[cfg(any(feature = "redis", feature = "sqlx", feature = "tokio-postgres"))]
    pub(crate) fn is_over_tcp(&self) -> bool {
        self.lease.direct_port.is_some() || self.lease.socket.is_empty()
    }

    pub(crate) fn path(&self, what: &str) -> String {
        format!("/v1/leases/{}/{what}", self.lease.id)
    }
}

/// Without the password that the lease carries.
impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held")
            .field("id", &self.lease.id)
            .field("role", &self.lease.role)
            .finish_non_exhaustive()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.reports_itself {
            return;
        }
        if std::thread::panicking() {
            story::tell_failure(self);
        } else if let Err(error) = self.tell_passed() {
            story::complain(&error);
        }
    }
}
