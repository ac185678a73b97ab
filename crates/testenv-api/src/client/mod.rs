//! A blocking client of the broker, with the standard library only.
//!
//! One connection per request, every wait bounded, every answer limited in size. The harness, the runner and
//! the command line all talk to the broker through this module, so they agree on what a broken answer is.
//!
//! ```no_run
//! use testenv_api::client::Client;
//! use testenv_api::discovery::Workspace;
//! use testenv_api::LeaseRequest;
//!
//! let workspace = Workspace::find(std::path::Path::new("."))?;
//! let client = Client::of(&workspace);
//! let held = client.lease_or_start(&workspace, &LeaseRequest { role: Some("database".into()), ..Default::default() })?;
//! println!("{}", held.lease().url);
//! drop(held); // gives it back
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod error;
mod http;
mod start;

use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use error::ClientError;
use http::{Answer, Body};
pub use start::{INSTALL, START_LIMIT, start_broker};

use crate::discovery::Workspace;
use crate::{Event, Lease, LeaseRequest, PROTOCOL, PROTOCOL_HEADER, Problem, ProblemKind};

/// How long the broker may take over anything but a lease.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// How long a lease may take on top of the wait that the request allows. The broker bounds its own work; this
/// leaves room for migrations that really take minutes.
pub const LEASE_LIMIT: Duration = Duration::from_secs(600);

/// Size of an answer's body at the most, leases apart, in bytes.
const BODY_LIMIT_BYTES: usize = 64 << 20;

/// How long a broker may say nothing to a request for a lease, which may take minutes when migrations do, before
/// it is asked whether it is well.
const PATIENCE: Duration = Duration::from_secs(10);

/// The request for a lease.
const LEASE: &str = "POST /v1/leases";

/// The request that every broker answers at once.
const HEALTH: &str = "GET /v1/health";

/// How often a lease is asked for again when the broker went away under the request.
const LEASE_ATTEMPTS: usize = 4;

/// A broker, known by the socket it listens on.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    answer_limit: Duration,
    any_version: bool,
}

impl Client {
    /// The broker that listens on `socket`.
    pub fn at(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into(), answer_limit: ANSWER_LIMIT, any_version: false }
    }

    /// The broker of `workspace`.
    pub fn of(workspace: &Workspace) -> Self {
        Self::at(workspace.socket())
    }

    /// The same broker, which may take no longer than `limit` over anything but a lease.
    #[must_use]
    pub fn with_answer_limit(mut self, limit: Duration) -> Self {
        self.answer_limit = limit;
        self
    }

    /// The same broker, asked without saying which protocol this client speaks, so that one of another version
    /// answers too. For what hardly ever changes: its health, and its end.
    #[must_use]
    pub fn of_any_version(mut self) -> Self {
        self.any_version = true;
        self
    }

    /// Socket of the broker.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// `GET path`, answered with JSON.
    ///
    /// # Errors
    /// [`ClientError`]; a broker's own refusal is [`ClientError::Problem`].
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let operation = format!("GET {path}");
        self.decode(&operation, &self.exchange(&operation, None)?)
    }

    /// `GET path`, answered with text.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn get_text(&self, path: &str) -> Result<String, ClientError> {
        let body = self.exchange(&format!("GET {path}"), None)?;
        Ok(String::from_utf8(body)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }

    /// `POST path` with a JSON body, answered with JSON.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        let operation = format!("POST {path}");
        let json = serde_json::to_vec(body).map_err(|error| self.lost(&operation, error.into()))?;
        self.decode(&operation, &self.exchange(&operation, Some(&json))?)
    }

    /// `POST path` with a JSON body, of whose answer only the success counts.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn post_only(&self, path: &str, body: &impl Serialize) -> Result<(), ClientError> {
        let operation = format!("POST {path}");
        let json = serde_json::to_vec(body).map_err(|error| self.lost(&operation, error.into()))?;
        self.exchange(&operation, Some(&json)).map(drop)
    }

    /// `DELETE path`, answered with JSON.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let operation = format!("DELETE {path}");
        self.decode(&operation, &self.exchange(&operation, None)?)
    }

    /// Asks for a lease and holds it until the answer is dropped or this process ends.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn lease(&self, request: &LeaseRequest) -> Result<Held, ClientError> {
        let limit = LEASE_LIMIT + Duration::from_millis(request.wait_ms.unwrap_or(0));
        self.ask(request, limit)?.receive()
    }

    /// The first half of [`Client::lease`]: sends the request and waits for nothing, so that several can be on
    /// their way at once. The answer has to come within `limit` from now.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn ask(&self, request: &LeaseRequest, limit: Duration) -> Result<Asked, ClientError> {
        let json = serde_json::to_vec(request).map_err(|error| self.lost(LEASE, error.into()))?;
        let deadline = Instant::now() + limit;
        let stream = self.connect_and_write(LEASE, Some(&json), deadline)?;
        Ok(Asked { client: self.clone(), stream, deadline })
    }

    /// Asks for a lease, and starts the workspace's broker if none runs or the running one is just leaving.
    ///
    /// # Errors
    /// As [`Client::get`], and those of [`start_broker`].
    pub fn lease_or_start(&self, workspace: &Workspace, request: &LeaseRequest) -> Result<Held, ClientError> {
        let mut attempt = 1;
        loop {
            match self.lease(request) {
                Err(error) if error.broker_is_gone() && attempt < LEASE_ATTEMPTS => start_broker(workspace)?,
                other => return other,
            }
            attempt += 1;
        }
    }

    /// The whole body of an answer that is a success.
    fn exchange(&self, operation: &str, json: Option<&[u8]>) -> Result<Vec<u8>, ClientError> {
        self.send(operation, json, Instant::now() + self.answer_limit)?
            .read_to_end(BODY_LIMIT_BYTES)
            .map_err(|error| self.lost(operation, error))
    }

    /// Sends one request and reads the head of its answer; an answer that is no success becomes an error.
    fn send(&self, operation: &str, json: Option<&[u8]>, deadline: Instant) -> Result<Body, ClientError> {
        let stream = self.connect_and_write(operation, json, deadline)?;
        self.success(operation, Answer::read(stream, deadline))
    }

    fn connect_and_write(
        &self,
        operation: &str,
        json: Option<&[u8]>,
        deadline: Instant,
    ) -> Result<UnixStream, ClientError> {
        let stream = UnixStream::connect(&self.socket)
            .map_err(|source| ClientError::NotListening { socket: self.socket.clone(), source })?;
        self.write(&stream, operation, json.unwrap_or_default(), deadline)
            .map_err(|error| self.lost(operation, error))?;
        Ok(stream)
    }

    /// The body of an answer that is a success.
    fn success(&self, operation: &str, answer: io::Result<Answer>) -> Result<Body, ClientError> {
        let Answer { status, mut body } = answer.map_err(|error| self.lost(operation, error))?;
        if (200..300).contains(&status) {
            return Ok(body);
        }
        let text = body.read_to_end(BODY_LIMIT_BYTES).map_err(|error| self.lost(operation, error))?;
        Err(ClientError::Problem(serde_json::from_slice(&text).unwrap_or_else(|_| {
            let kind = if status == 426 { ProblemKind::ProtocolMismatch } else { ProblemKind::Internal };
            Problem::new(kind, format!("the broker answered {operation} with status {status}"))
                .detail(String::from_utf8_lossy(&text[..text.len().min(2000)]))
        })))
    }

    fn write(
        &self,
        mut stream: &UnixStream,
        operation: &str,
        json: &[u8],
        deadline: Instant,
    ) -> io::Result<()> {
        let mut request = format!("{operation} HTTP/1.1\r\nhost: testenv\r\nconnection: close\r\n");
        if !self.any_version {
            request.push_str(&format!("{PROTOCOL_HEADER}: {PROTOCOL}\r\n"));
        }
        if operation.starts_with("POST") {
            request
                .push_str(&format!("content-type: application/json\r\ncontent-length: {}\r\n", json.len()));
        }
        request.push_str("\r\n");
        let mut request = request.into_bytes();
        request.extend_from_slice(json);
        stream.set_write_timeout(Some(http::left_until(deadline)?))?;
        stream.write_all(&request)
    }

    fn decode<T: DeserializeOwned>(&self, operation: &str, json: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(json).map_err(|error| self.lost(operation, error.into()))
    }

    fn lost(&self, operation: &str, source: io::Error) -> ClientError {
        ClientError::Lost { operation: operation.to_owned(), socket: self.socket.clone(), source }
    }
}

/// A lease that has been asked for: dropping this takes the request back.
#[derive(Debug)]
pub struct Asked {
    client: Client,
    stream: UnixStream,
    deadline: Instant,
}

impl Asked {
    /// Waits for the lease, as long as the broker is well: one that hangs is noticed well before the lease is
    /// given up.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn receive(self) -> Result<Held, ClientError> {
        let Self { client, stream, deadline } = self;
        // Of whatever version it may be: a refusal on that account is on its way already.
        let doctor = client.clone().of_any_version();
        let is_well = || {
            let limit = http::left_until(deadline)?.min(client.answer_limit);
            match doctor.clone().with_answer_limit(limit).exchange(HEALTH, None) {
                Err(ClientError::Lost { source, .. }) => Err(source),
                _ => Ok(()),
            }
        };
        let answer = Answer::read_while(stream, deadline, PATIENCE.min(client.answer_limit), is_well);
        let mut body = client.success(LEASE, answer)?;
        let line = body.line().and_then(|line| line.ok_or_else(|| io::ErrorKind::UnexpectedEof.into()));
        let lease = client.decode(LEASE, &line.map_err(|error| client.lost(LEASE, error))?)?;
        Ok(Held { lease, body, socket: client.socket })
    }
}

/// A lease that is held: dropping this gives it back.
///
/// The connection is the lease. Passing its descriptor on (it has close-on-exec) to a program executed in the
/// same process passes the lease on too; a child that inherits it holds nothing.
#[derive(Debug)]
pub struct Held {
    lease: Lease,
    body: Body,
    socket: PathBuf,
}

impl Held {
    /// What is leased.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// The broker that gave it.
    pub fn client(&self) -> Client {
        Client::at(&self.socket)
    }

    /// The next thing the broker says about the lease, if it says one within `wait`; `None` when it does not.
    ///
    /// # Errors
    /// [`ClientError::Lost`] when the connection is closed, and the lease with it.
    pub fn next_event(&mut self, wait: Duration) -> Result<Option<Event>, ClientError> {
        let lost = |source| ClientError::Lost {
            operation: format!("watch lease {}", self.lease.id),
            socket: self.socket.clone(),
            source,
        };
        self.body.set_deadline(Instant::now() + wait);
        match self.body.line() {
            Ok(Some(line)) => serde_json::from_slice(&line).map(Some).map_err(|error| lost(error.into())),
            Ok(None) => Err(lost(io::ErrorKind::UnexpectedEof.into())),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(None),
            Err(error) => Err(lost(error)),
        }
    }
}

impl AsFd for Held {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.body.stream().as_fd()
    }
}
