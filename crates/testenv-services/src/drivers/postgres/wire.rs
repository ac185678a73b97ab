//! As much of PostgreSQL's protocol as preparing a server takes: log in, run statements.

use std::io::{self, Read as _, Write as _};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use fallible_iterator::FallibleIterator as _;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::backend::{ErrorFields, Message};
use postgres_protocol::message::frontend;

use crate::server::Session;
use crate::service::Endpoint;
use crate::stream::Stream;

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
            Self::Server { .. } => self.code().is_some_and(|code| code.starts_with("57P")),
        }
    }

    /// The server's code for what is wrong, such as `42P01`.
    pub(crate) fn code(&self) -> Option<&str> {
        match self {
            Self::Io(_) => None,
            Self::Server { message, .. } => message.split(' ').nth(1).map(|code| code.trim_end_matches(':')),
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
    stream: Stream,
    /// What the server sent once it had let us in.
    greeting: Vec<u8>,
    buffer: BytesMut,
    deadline: Instant,
    /// Whether what arrives is still part of the greeting.
    recording: bool,
}

impl Connection {
    /// Logs in: over the unix socket, where the server trusts whoever can reach it, or else over TCP with the
    /// endpoint's password.
    pub(crate) fn open(
        endpoint: &Endpoint,
        user: &str,
        database: &str,
        timeout: Duration,
    ) -> Result<Self, WireError> {
        let stream = Stream::connect(endpoint, &super::socket_file(endpoint))?;
        let mut connection = Self {
            stream,
            greeting: Vec::with_capacity(512),
            buffer: BytesMut::with_capacity(8192),
            deadline: Instant::now() + timeout,
            recording: false,
        };
        let mut out = BytesMut::new();
        // The same as tokio-postgres sends, so that a session handed over to it is the session it asked for.
        let parameters = [("client_encoding", "UTF8"), ("user", user), ("database", database)];
        frontend::startup_message(parameters, &mut out)?;
        connection.recording = matches!(connection.stream, Stream::Unix(_));
        connection.send(&mut out)?;
        loop {
            match connection.receive()? {
                Message::ReadyForQuery(_) => {
                    connection.recording = false;
                    return Ok(connection);
                }
                Message::AuthenticationCleartextPassword => {
                    frontend::password_message(endpoint.password.as_bytes(), &mut out)?;
                    connection.send(&mut out)?;
                }
                Message::AuthenticationMd5Password(body) => {
                    let hash = md5_hash(user.as_bytes(), endpoint.password.as_bytes(), body.salt());
                    frontend::password_message(hash.as_bytes(), &mut out)?;
                    connection.send(&mut out)?;
                }
                Message::AuthenticationSasl(_) => connection.answer_scram(&endpoint.password)?,
                Message::ErrorResponse(body) => return Err(server_error(body.fields())),
                _ => {}
            }
        }
    }

    /// Proves the password without saying it, and has the server prove that it knows it too.
    fn answer_scram(&mut self, password: &str) -> Result<(), WireError> {
        let unexpected = || io::Error::new(io::ErrorKind::InvalidData, "the server answers out of turn");
        let mut scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
        let mut out = BytesMut::new();
        frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), &mut out)?;
        self.send(&mut out)?;
        match self.receive()? {
            Message::AuthenticationSaslContinue(body) => scram.update(body.data())?,
            Message::ErrorResponse(body) => return Err(server_error(body.fields())),
            _ => return Err(unexpected().into()),
        }
        frontend::sasl_response(scram.message(), &mut out)?;
        self.send(&mut out)?;
        match self.receive()? {
            Message::AuthenticationSaslFinal(body) => Ok(scram.finish(body.data())?),
            Message::ErrorResponse(body) => Err(server_error(body.fields())),
            _ => Err(unexpected().into()),
        }
    }

    fn send(&mut self, out: &mut BytesMut) -> Result<(), WireError> {
        self.stream.set_timeout(Some(self.left()?))?;
        self.stream.write_all(out)?;
        out.clear();
        Ok(())
    }

    /// The time that is left, not zero.
    fn left(&self) -> Result<Duration, WireError> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::Error::from(io::ErrorKind::TimedOut).into()) } else { Ok(left) }
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
        self.send(&mut out)?;
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
                    self.send(&mut out)?;
                }
                Message::ReadyForQuery(_) => return failure.map_or(Ok(rows), Err),
                _ => {}
            }
        }
    }

    /// Gives up the session, to be handed over: only those over a unix socket can be.
    pub(crate) fn into_session(self) -> Option<Session> {
        let _ = self.stream.set_timeout(None);
        match self.stream {
            Stream::Unix(stream) => Some(Session { stream, greeting: self.greeting }),
            Stream::Tcp(_) => None,
        }
    }

    fn receive(&mut self) -> Result<Message, WireError> {
        loop {
            if let Some(message) = Message::parse(&mut self.buffer)? {
                return Ok(message);
            }
            self.stream.set_timeout(Some(self.left()?))?;
            let mut chunk = [0; 8192];
            match self.stream.read(&mut chunk) {
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
                        self.greeting.extend_from_slice(&chunk[..count]);
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
