//! Statements over ClickHouse's HTTP interface, one after the other.

use std::fmt;
use std::io;
use std::time::Instant;

use crate::drivers::http::Http;
use crate::drivers::url_part;
use crate::service::Endpoint;

/// Bytes of an error that are shown.
const MAX_ERROR: usize = 4 << 10;
/// Statements on one connection: servers close one that was used very often.
const PER_CONNECTION: usize = 1000;
/// The first version whose changes of data can be waited for.
const WAITS_FOR_MUTATIONS: u32 = 20;

/// What went wrong with a statement.
#[derive(Debug)]
pub(super) enum ClientError {
    /// The server refused it: what it said.
    Server(String),
    /// The connection broke, or its deadline passed.
    Io(io::Error),
}

impl ClientError {
    /// Whether the time was up.
    pub(super) fn timed_out(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::TimedOut)
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(said) => f.write_str(said),
            Self::Io(_) if self.timed_out() => f.write_str("the server did not answer in time"),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A server and how to use it.
#[derive(Debug)]
pub(super) struct Client<'a> {
    endpoint: &'a Endpoint,
    /// Path and query of every request.
    target: String,
    deadline: Instant,
    connection: Option<(Http, usize)>,
}

impl<'a> Client<'a> {
    /// A client that has to be done by `deadline`. `database` may be empty.
    pub(super) fn new(endpoint: &'a Endpoint, database: &str, deadline: Instant) -> Self {
        let mut target = String::from("/?wait_end_of_query=1");
        for (name, value) in
            [("user", &*endpoint.user), ("password", &endpoint.password), ("database", database)]
        {
            if !value.is_empty() {
                target.push_str(&format!("&{name}={}", url_part(value)));
            }
        }
        Self { endpoint, target, deadline, connection: None }
    }

    /// Keeps settings, the database in use and temporary tables from one statement to the next, and waits until
    /// statements are done that a server of this major version would go on with in the background.
    pub(super) fn in_session(mut self, id: &str, version: u32) -> Self {
        self.target.push_str(&format!("&session_id={}&session_timeout=600", url_part(id)));
        if version >= WAITS_FOR_MUTATIONS {
            self.target.push_str("&mutations_sync=1");
        }
        self
    }

    /// Runs a statement, and gives back what it prints.
    pub(super) fn run(&mut self, sql: &[u8]) -> Result<String, ClientError> {
        let (mut http, used) = match self.connection.take() {
            Some((http, used)) if used < PER_CONNECTION => (http, used),
            _ => (Http::connect(&self.endpoint.host, self.endpoint.port, self.deadline)?, 0),
        };
        let answer = http.send("POST", &self.target, "", Some(sql))?;
        if !answer.is_success() {
            return Err(ClientError::Server(answer.text(MAX_ERROR)));
        }
        self.connection = Some((http, used + 1));
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    }
}
