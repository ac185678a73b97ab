//! A lease on the wire: asked for, received, held, and told how its test ended.

use std::fmt;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use testenv_api::{
    Event, KeepPolicy, KeepRequest, Kept, Lease, LeaseRequest, Outcome, OutcomeRequest, ServiceKind,
};

use crate::broker::{Broker, Timed, is_leaving, refusal};
use crate::error::{Error, Story};
use crate::http::{Body, HttpError, Response, write_request};

/// The broker ends the wait; this much later the harness stops believing in its answer.
const WAIT_MARGIN: Duration = Duration::from_secs(10);
/// How often a request is repeated when the broker that had it leaves.
const RETRIES: u32 = 4;
/// Lines of a server's log that a handle gives.
pub(crate) const LOG_LINES: usize = 1000;

/// A request that has been sent. Dropping it takes the request back.
#[derive(Debug)]
pub(crate) struct Asked {
    request: LeaseRequest,
    service: ServiceKind,
    wait: Duration,
    broker: Broker,
    /// `None` if the broker left before it took the request.
    stream: Option<UnixStream>,
}

impl Asked {
    /// Sends a request, without waiting for the answer.
    pub(crate) fn send(request: LeaseRequest, service: ServiceKind, wait: Duration) -> Result<Self, Error> {
        let mut asked = Self { request, service, wait, broker: Broker::find()?, stream: None };
        asked.send_again()?;
        Ok(asked)
    }

    fn send_again(&mut self) -> Result<(), Error> {
        let body = serde_json::to_vec(&self.request).map_err(|error| {
            Error::Misused(Story::new("the request for a lease cannot be written").detail(error.to_string()))
        })?;
        let mut stream = self.broker.connect()?;
        let sent = stream
            .set_write_timeout(Some(WAIT_MARGIN))
            .and_then(|()| write_request(&mut stream, "POST", "/v1/leases", &body));
        self.stream = match sent {
            Ok(()) => Some(stream),
            // The broker left between the connection and the request: `receive` asks the next one.
            Err(error) if is_hang_up(&error) => None,
            Err(error) => return Err(self.lost(&error.into())),
        };
        Ok(())
    }

    /// Waits for the answer.
    pub(crate) fn receive(mut self) -> Result<Held, Error> {
        let deadline = Instant::now() + self.wait + WAIT_MARGIN;
        for retry in 1..=RETRIES {
            match self.try_receive(deadline)? {
                Some(held) => return Ok(held),
                // A broker that is leaving needs a moment until its place is free.
                None => std::thread::sleep(Duration::from_millis(50) * retry.pow(2)),
            }
            self.send_again()?;
        }
        self.try_receive(deadline)?.ok_or_else(|| self.lost(&HttpError::Closed { before_answer: true }))
    }

    /// Reads the answer; `None` if the broker left without one.
    fn try_receive(&mut self, deadline: Instant) -> Result<Option<Held>, Error> {
        let Some(stream) = self.stream.take() else { return Ok(None) };
        let limit = deadline.saturating_duration_since(Instant::now());
        let mut response = match Response::read(Timed::new(stream, limit)) {
            Ok(response) => response,
            Err(HttpError::Closed { before_answer: true }) => return Ok(None),
            Err(HttpError::Io(error)) if is_hang_up(&error) => return Ok(None),
            Err(error) => return Err(self.lost(&error)),
        };
        if response.status != 200 {
            let body = response.body.all().map_err(|error| self.lost(&error))?;
            let error = refusal(response.status, &body);
            return if is_leaving(&error) { Ok(None) } else { Err(error) };
        }
        let line = response.body.line().map_err(|error| self.lost(&error))?;
        let line = line.ok_or_else(|| self.lost(&HttpError::Closed { before_answer: false }))?;
        let lease: Lease = serde_json::from_slice(&line).map_err(|error| {
            let seen: String = String::from_utf8_lossy(&line).chars().take(400).collect();
            Error::Lost(Story::new("the broker's lease cannot be read").detail(format!("{error}\n{seen}")))
        })?;
        if lease.service != self.service {
            return Err(Error::Misused(
                Story::new(format!(
                    "the role `{}` is {}, but the test asks for {}",
                    lease.role, lease.service, self.service
                ))
                .hint("name another role, or take the other type of handle"),
            ));
        }
        Ok(Some(Held {
            #[cfg(feature = "tokio-postgres")]
            handover: Mutex::new(lease.handover.clone()),
            lease,
            broker: self.broker.clone(),
            body: Mutex::new(response.body),
            keep: self.request.keep,
            reports_itself: true,
        }))
    }

    fn lost(&self, error: &HttpError) -> Error {
        let what = match &self.request.role {
            Some(role) => format!("the request for `{role}`"),
            None => format!("the request for {}", self.service),
        };
        self.broker.lost(&what, error, self.wait + WAIT_MARGIN)
    }
}

fn is_hang_up(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted
    )
}

/// A lease that lasts as long as this value: dropping it closes the connection, which is the release.
pub(crate) struct Held {
    pub(crate) lease: Lease,
    broker: Broker,
    body: Mutex<Body<Timed>>,
    keep: Option<KeepPolicy>,
    #[cfg(feature = "tokio-postgres")]
    handover: Mutex<Option<String>>,
    /// Whether dropping tells the broker how the test ended. A scope that watches the test does it better.
    pub(crate) reports_itself: bool,
}

impl Held {
    /// Tells the broker how the test ended.
    pub(crate) fn tell(&self, outcome: Outcome) -> Result<Kept, Error> {
        self.post("outcome", serde_json::to_vec(&OutcomeRequest { outcome }))
    }

    /// Tells the broker that the test passed, if that changes what it keeps.
    pub(crate) fn tell_passed(&self) -> Result<(), Error> {
        match self.keep {
            Some(KeepPolicy::UnlessPassed) => self.tell(Outcome::Passed).map(drop),
            _ => Ok(()),
        }
    }

    /// Asks the broker to keep the data when the lease ends.
    pub(crate) fn keep(&self, reason: &str) -> Result<Kept, Error> {
        self.post("keep", serde_json::to_vec(&KeepRequest { reason: Some(reason.to_owned()) }))
    }

    /// The server's log, as far as it belongs to this lease.
    pub(crate) fn logs(&self, lines: usize) -> Result<String, Error> {
        let path = format!("/v1/leases/{}/logs?tail={lines}", self.lease.id);
        let body = self.broker.call("GET", &path, b"")?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// What the broker has said since the lease began, without waiting for more.
    pub(crate) fn events(&self) -> Vec<Event> {
        let mut body = self.body.lock().unwrap_or_else(PoisonError::into_inner);
        let mut events = Vec::new();
        if body.stream().stop_waiting().is_err() {
            return events;
        }
        // A line that is not understood comes from a newer broker and says nothing to us.
        while let Ok(Some(line)) = body.line() {
            events.extend(serde_json::from_slice(&line).ok());
        }
        events
    }

    /// The socket of an authenticated session, once.
    #[cfg(feature = "tokio-postgres")]
    pub(crate) fn take_handover(&self) -> Option<String> {
        self.handover.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn post(&self, what: &str, body: serde_json::Result<Vec<u8>>) -> Result<Kept, Error> {
        let unreadable = |error: serde_json::Error| {
            Error::Lost(
                Story::new(format!("the broker's answer about `{what}` cannot be read"))
                    .detail(error.to_string()),
            )
        };
        let path = format!("/v1/leases/{}/{what}", self.lease.id);
        let answer = self.broker.call("POST", &path, &body.map_err(unreadable)?)?;
        serde_json::from_slice(&answer).map_err(unreadable)
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
            crate::story::tell_failure(self);
        } else if let Err(error) = self.tell_passed() {
            crate::story::complain(&error);
        }
    }
}
