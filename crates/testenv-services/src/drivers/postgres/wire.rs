//! As much of PostgreSQL's protocol as preparing a server takes: log in over the unix socket, run statements.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use fallible_iterator::FallibleIterator as _;
use postgres_protocol::message::backend::{ErrorFields, Message};
use postgres_protocol::message::frontend;

use crate::server::Session;
use crate::service::Endpoint;

/// What went wrong with a statement.
#[derive(Debug)]
pub(crate) enum WireError {
    /// The connection failed, or the time was up (`ErrorKind::WouldBlock`, `TimedOut`).
    Io(io::Error),
    /// The server refused.
    Server {
        /// Message with severity and code, such as `ERROR 42P01: relation "x" does not exist`.
        message: String,
        /// Where in the statement's text, counted in characters from 1.
        position: Option<usize>,
    },
}

impl WireError {
    /// Whether the session cannot be used any more: it failed, the time was up, or the server ended it.
    pub(crate) fn session_is_gone(&self) -> bool {
        match self {
            Self::Io(_) => true,
            // Class 57P: the administrator, a crash, or the end of the server.
            Self::Server { message, .. } => {
                message.split(' ').nth(1).is_some_and(|code| code.starts_with("57P"))
            }
        }
    }

    /// Whether the time was up.
    pub(crate) fn timed_out(&self) -> bool {
        matches!(self, Self::Io(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut))
    }
}

impl std::fmt::Display for WireError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::Server { message, .. } => f.write_str(message),
        }
    }
}

impl From<io::Error> for WireError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A session with a server.
#[derive(Debug)]
pub(crate) struct Connection {
    session: Session,
    buffer: BytesMut,
    deadline: Instant,
    /// Whether what arrives is still part of the greeting.
    recording: bool,
}

impl Connection {
    /// Logs in over the unix socket, where the server trusts whoever can reach it.
    pub(crate) fn open(
        endpoint: &Endpoint,
        user: &str,
        database: &str,
        timeout: Duration,
    ) -> Result<Self, WireError> {
        let stream = UnixStream::connect(super::socket_file(endpoint))?;
        let session = Session { stream, greeting: Vec::with_capacity(512) };
        let buffer = BytesMut::with_capacity(8192);
        let mut connection = Self { session, buffer, deadline: Instant::now() + timeout, recording: true };
        let mut out = BytesMut::new();
        // The same as tokio-postgres sends, so that a session handed over to it is the session it asked for.
        let parameters = [("client_encoding", "UTF8"), ("user", user), ("database", database)];
        frontend::startup_message(parameters, &mut out)?;
        connection.session.stream.write_all(&out)?;
        loop {
            match connection.receive()? {
                Message::ReadyForQuery(_) => {
                    connection.recording = false;
                    return Ok(connection);
                }
                Message::ErrorResponse(body) => return Err(server_error(body.fields())),
                _ => {}
            }
        }
    }

    /// Runs statements, and gives back the rows of all of them as text.
    pub(crate) fn run(
        &mut self,
        sql: &str,
        deadline: Instant,
    ) -> Result<Vec<Vec<Option<String>>>, WireError> {
        self.deadline = deadline;
        let mut out = BytesMut::new();
        frontend::query(sql, &mut out)?;
        self.session.stream.write_all(&out)?;
        let (mut rows, mut failure) = (Vec::new(), None);
        loop {
            match self.receive()? {
                Message::DataRow(body) => {
                    let text = |range: Option<std::ops::Range<usize>>| {
                        Ok(range.map(|range| String::from_utf8_lossy(&body.buffer()[range]).into_owned()))
                    };
                    rows.push(body.ranges().map(text).collect()?);
                }
                Message::ErrorResponse(body) => failure = Some(server_error(body.fields())),
                Message::CopyInResponse(_) => {
                    frontend::copy_fail("testenv has no data for COPY FROM STDIN", &mut out)?;
                    self.session.stream.write_all(&out)?;
                }
                Message::ReadyForQuery(_) => return failure.map_or(Ok(rows), Err),
                _ => {}
            }
        }
    }

    /// Gives up the session, to be handed over.
    pub(crate) fn into_session(self) -> Session {
        let _ = self.session.stream.set_read_timeout(None);
        self.session
    }

    fn receive(&mut self) -> Result<Message, WireError> {
        loop {
            if let Some(message) = Message::parse(&mut self.buffer)? {
                return Ok(message);
            }
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::from(io::ErrorKind::TimedOut).into());
            }
            self.session.stream.set_read_timeout(Some(left))?;
            let mut chunk = [0; 8192];
            match self.session.stream.read(&mut chunk) {
                Ok(0) => {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the server closed the connection",
                    )
                    .into());
                }
                Ok(count) => {
                    self.buffer.extend_from_slice(&chunk[..count]);
                    if self.recording {
                        self.session.greeting.extend_from_slice(&chunk[..count]);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn server_error(mut fields: ErrorFields<'_>) -> WireError {
    let (mut severity, mut code, mut text, mut extra, mut position) =
        (String::new(), String::new(), String::new(), String::new(), None);
    while let Ok(Some(field)) = fields.next() {
        let value = String::from_utf8_lossy(field.value_bytes()).into_owned();
        match field.type_() {
            b'S' => severity = value,
            b'C' => code = value,
            b'M' => text = value,
            b'D' => extra.push_str(&format!("\nDETAIL: {value}")),
            b'H' => extra.push_str(&format!("\nHINT: {value}")),
            b'W' => extra.push_str(&format!("\nCONTEXT: {value}")),
            b'P' => position = value.parse().ok(),
            _ => {}
        }
    }
    WireError::Server { message: format!("{severity} {code}: {text}{extra}"), position }
}
