//! As much of MySQL's protocol as preparing a server takes: log in, run statements one at a time.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use super::auth;
use crate::service::Endpoint;
use crate::stream::Stream;

/// Most of one packet's payload. A longer message comes in several, each but the last of this length.
const MAX_PAYLOAD: usize = 0xff_ffff;
/// Bytes of a row that are looked at; what is longer is read and dropped.
const MAX_ROW: usize = 1 << 16;
/// Bytes of rows that are kept of one answer; what comes after them is read and dropped.
const MAX_KEPT: usize = 1 << 20;
/// Packets of a login, at the most.
const MAX_LOGIN_PACKETS: usize = 8;

/// What this client can do, told to the server: the protocol of MySQL 4.1, a first database, plugins for
/// authentication, several results of one statement (which calling a procedure has).
const CAPABILITIES: u32 =
    LONG_PASSWORD | PROTOCOL_41 | TRANSACTIONS | SECURE_CONNECTION | MULTI_RESULTS | PLUGIN_AUTH;
const LONG_PASSWORD: u32 = 1;
const CONNECT_WITH_DB: u32 = 8;
const PROTOCOL_41: u32 = 0x200;
const TRANSACTIONS: u32 = 0x2000;
const SECURE_CONNECTION: u32 = 0x8000;
const MULTI_RESULTS: u32 = 0x2_0000;
const PLUGIN_AUTH: u32 = 0x8_0000;
/// `utf8mb4_general_ci`, which all servers know; `SET NAMES` chooses the server's own.
const CHARACTER_SET: u8 = 45;

const MORE_RESULTS: u16 = 0x8;
const NO_BACKSLASH_ESCAPES: u16 = 0x200;

/// What went wrong with a statement.
#[derive(Debug)]
pub(crate) enum ClientError {
    /// The server refused it.
    Server {
        /// Number of the error.
        code: u16,
        /// What the server said.
        message: String,
    },
    /// The connection broke, or its deadline passed.
    Io(io::Error),
}

impl ClientError {
    /// Whether the time was up.
    pub(crate) fn timed_out(&self) -> bool {
        matches!(self, Self::Io(error) if matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock))
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server { code, message } => write!(f, "ERROR {code}: {message}"),
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

/// Rows as text, without the NULLs.
pub(crate) type Rows = Vec<Vec<Option<String>>>;

/// A session with a server.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: Stream,
    /// What was read from it and not yet looked at.
    unread: io::Cursor<Vec<u8>>,
    deadline: Instant,
    /// Number of the next packet within its exchange.
    sequence: u8,
    /// What the server said last about the session.
    status: u16,
    version: String,
}

impl Connection {
    /// Logs in as the endpoint says: over its unix socket where it has one, else over TCP. `database` may be
    /// empty.
    pub(crate) fn open(
        endpoint: &Endpoint,
        socket: &Path,
        database: &str,
        timeout: Duration,
    ) -> Result<Self, ClientError> {
        let stream = Stream::connect(endpoint, socket)?;
        let deadline = Instant::now() + timeout;
        let mut connection = Self::over(stream, deadline);
        connection.log_in(endpoint, database)?;
        Ok(connection)
    }

    fn over(stream: Stream, deadline: Instant) -> Self {
        let unread = io::Cursor::default();
        Self { stream, unread, deadline, sequence: 0, status: 0, version: String::new() }
    }

    /// The version that the server says it has.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// Whether a backslash in a text escapes what follows it, as it does unless the SQL mode says otherwise.
    pub(crate) fn backslash_escapes(&self) -> bool {
        self.status & NO_BACKSLASH_ESCAPES == 0
    }

    /// Runs a statement to its end, and gives back the first rows of all its results.
    pub(crate) fn run(&mut self, sql: &[u8], deadline: Instant) -> Result<Rows, ClientError> {
        const QUERY: u8 = 3;
        self.deadline = deadline;
        self.sequence = 0;
        self.send(&[&[QUERY], sql].concat())?;
        let (mut rows, mut kept) = (Vec::new(), 0);
        loop {
            self.read_result(&mut rows, &mut kept)?;
            if self.status & MORE_RESULTS == 0 {
                return Ok(rows);
            }
        }
    }

    fn log_in(&mut self, endpoint: &Endpoint, database: &str) -> Result<(), ClientError> {
        let greeting = self.receive()?;
        let greeting = match greeting.first() {
            Some(0xff) => return Err(server_error(&greeting)),
            _ => Greeting::read(&greeting).ok_or_else(malformed)?,
        };
        self.version = greeting.version;
        let password = endpoint.password.as_bytes();
        let (mut plugin, mut salt) = (greeting.plugin, greeting.salt);
        // A server's own default may be a plugin that the user does not have, or that this client does not know.
        let proof = auth::prove(&plugin, password, &salt).unwrap_or_default();
        self.send(&login(&endpoint.user, database, &plugin, &proof))?;
        for _ in 0..MAX_LOGIN_PACKETS {
            let packet = self.receive()?;
            match (packet.first(), packet.get(1)) {
                (Some(0), _) => return self.read_status(&packet),
                (Some(0xff), _) => return Err(server_error(&packet)),
                (Some(0xfe), _) => {
                    (plugin, salt) = read_switch(&packet).ok_or_else(malformed)?;
                    let proof =
                        auth::prove(&plugin, password, &salt).ok_or_else(|| unknown_plugin(&plugin))?;
                    self.send(&proof)?;
                }
                (Some(1), Some(&auth::FAST_OK)) => {}
                (Some(1), Some(&auth::FULL)) => self.say_password(password, &salt)?,
                _ => return Err(malformed().into()),
            }
        }
        Err(malformed().into())
    }

    /// Tells the server the password, which it has not seen since it started: as it is through a unix socket,
    /// encrypted with the server's public key over TCP.
    fn say_password(&mut self, password: &[u8], salt: &[u8]) -> Result<(), ClientError> {
        const ASK_FOR_KEY: u8 = 2;
        if matches!(self.stream, Stream::Unix(_)) {
            return self.send(&[password, &[0]].concat());
        }
        self.send(&[ASK_FOR_KEY])?;
        let packet = self.receive()?;
        let key = packet.strip_prefix(&[1]).ok_or_else(malformed)?;
        let secret = auth::encrypt(password, salt, key).ok_or_else(malformed)?;
        self.send(&secret)
    }

    /// Reads one result: its status alone, or columns and rows.
    fn read_result(&mut self, rows: &mut Rows, kept: &mut usize) -> Result<(), ClientError> {
        let first = self.receive()?;
        match first.first() {
            Some(0) => return self.read_status(&first),
            Some(0xff) => return Err(server_error(&first)),
            // It asks for a file of this machine, which it was not told that it could.
            Some(0xfb) | None => return Err(malformed().into()),
            Some(_) => {}
        }
        let columns = Cursor(&first).number().ok_or_else(malformed)?;
        for _ in 0..columns {
            self.receive()?;
        }
        self.receive()?;
        loop {
            let packet = self.receive()?;
            match packet.first() {
                Some(0xff) => return Err(server_error(&packet)),
                Some(0xfe) if packet.len() < 9 => return self.read_end(&packet),
                _ if *kept < MAX_KEPT => {
                    *kept += packet.len();
                    rows.push(read_row(&packet, columns));
                }
                _ => {}
            }
        }
    }

    /// Takes the status out of a packet that says that all went well.
    fn read_status(&mut self, packet: &[u8]) -> Result<(), ClientError> {
        let mut cursor = Cursor(&packet[1..]);
        let status = cursor.number().and_then(|_| cursor.number()).and_then(|_| cursor.u16());
        self.status = status.ok_or_else(malformed)?;
        Ok(())
    }

    /// Takes the status out of a packet that ends rows.
    fn read_end(&mut self, packet: &[u8]) -> Result<(), ClientError> {
        let mut cursor = Cursor(&packet[1..]);
        self.status = cursor.u16().and_then(|_| cursor.u16()).ok_or_else(malformed)?;
        Ok(())
    }

    fn send(&mut self, payload: &[u8]) -> Result<(), ClientError> {
        let mut rest = payload;
        loop {
            let (chunk, after) = rest.split_at(rest.len().min(MAX_PAYLOAD));
            let mut packet = Vec::with_capacity(chunk.len() + 4);
            packet.extend_from_slice(&u32::try_from(chunk.len()).unwrap_or_default().to_le_bytes()[..3]);
            packet.push(self.sequence);
            packet.extend_from_slice(chunk);
            self.sequence = self.sequence.wrapping_add(1);
            self.stream.set_timeout(Some(self.left()?))?;
            self.stream.write_all(&packet)?;
            // A full packet says that another one follows, if only an empty one.
            if chunk.len() < MAX_PAYLOAD {
                return Ok(());
            }
            rest = after;
        }
    }

    /// Reads a message, as much of it as anybody looks at.
    fn receive(&mut self) -> Result<Vec<u8>, ClientError> {
        let mut message = Vec::new();
        loop {
            let mut header = [0; 4];
            self.read_exact(&mut header)?;
            self.sequence = header[3].wrapping_add(1);
            let length = usize::from(header[0]) | usize::from(header[1]) << 8 | usize::from(header[2]) << 16;
            let mut left = length;
            while left > 0 {
                let mut chunk = [0; 8192];
                let count = left.min(chunk.len());
                self.read_exact(&mut chunk[..count])?;
                let room = MAX_ROW.saturating_sub(message.len());
                message.extend_from_slice(&chunk[..count.min(room)]);
                left -= count;
            }
            if length < MAX_PAYLOAD {
                return Ok(message);
            }
        }
    }

    fn read_exact(&mut self, mut buffer: &mut [u8]) -> Result<(), ClientError> {
        while !buffer.is_empty() {
            match self.unread.read(buffer)? {
                0 => self.fill()?,
                count => buffer = &mut buffer[count..],
            }
        }
        Ok(())
    }

    fn fill(&mut self) -> Result<(), ClientError> {
        self.stream.set_timeout(Some(self.left()?))?;
        let mut chunk = [0; 8192];
        match self.stream.read(&mut chunk) {
            Ok(0) => {
                let what = "the server closed the connection";
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, what).into())
            }
            Ok(count) => {
                self.unread = io::Cursor::new(chunk[..count].to_vec());
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The time that is left, not zero.
    fn left(&self) -> Result<Duration, ClientError> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::Error::from(io::ErrorKind::TimedOut).into()) } else { Ok(left) }
    }
}

/// What a server says first.
#[derive(Debug, PartialEq, Eq)]
struct Greeting {
    version: String,
    salt: Vec<u8>,
    plugin: String,
}

impl Greeting {
    fn read(packet: &[u8]) -> Option<Self> {
        const VERSION: u8 = 10;
        const SALT_LENGTH: usize = 20;
        let mut cursor = Cursor(packet);
        if cursor.take(1)? != [VERSION] {
            return None;
        }
        let version = cursor.text()?;
        cursor.take(4)?;
        let mut salt = cursor.take(8)?.to_vec();
        // A filler, capabilities, character set, status, length of the salt, more fillers.
        cursor.take(1 + 2 + 1 + 2 + 2 + 1 + 10)?;
        let rest = cursor.take(SALT_LENGTH - salt.len() + 1)?;
        salt.extend_from_slice(&rest[..rest.len() - 1]);
        let plugin = cursor.text().unwrap_or_else(|| auth::NATIVE.to_owned());
        Some(Self { version, salt, plugin })
    }
}

/// The answer to a greeting.
fn login(user: &str, database: &str, plugin: &str, proof: &[u8]) -> Vec<u8> {
    let with_database = if database.is_empty() { 0 } else { CONNECT_WITH_DB };
    let mut packet = Vec::with_capacity(128);
    packet.extend_from_slice(&(CAPABILITIES | with_database).to_le_bytes());
    packet.extend_from_slice(&u32::try_from(MAX_PAYLOAD).unwrap_or(u32::MAX).to_le_bytes());
    packet.push(CHARACTER_SET);
    packet.extend_from_slice(&[0; 23]);
    packet.extend_from_slice(user.as_bytes());
    packet.push(0);
    packet.push(u8::try_from(proof.len()).unwrap_or_default());
    packet.extend_from_slice(proof);
    if !database.is_empty() {
        packet.extend_from_slice(database.as_bytes());
        packet.push(0);
    }
    packet.extend_from_slice(plugin.as_bytes());
    packet.push(0);
    packet
}

/// Another plugin for authentication, and its salt.
fn read_switch(packet: &[u8]) -> Option<(String, Vec<u8>)> {
    let mut cursor = Cursor(packet.get(1..)?);
    let plugin = cursor.text()?;
    let salt = cursor.0.strip_suffix(&[0]).unwrap_or(cursor.0);
    Some((plugin, salt.to_vec()))
}

/// A row's values; those that were cut off with what was too long are missing.
fn read_row(packet: &[u8], columns: u64) -> Vec<Option<String>> {
    let mut cursor = Cursor(packet);
    let mut row = Vec::new();
    for _ in 0..columns {
        let Some(first) = cursor.0.first() else { break };
        if *first == 0xfb {
            let _ = cursor.take(1);
            row.push(None);
            continue;
        }
        let value = cursor.number().and_then(|length| cursor.take(usize::try_from(length).ok()?));
        let Some(value) = value else { break };
        row.push(Some(String::from_utf8_lossy(value).into_owned()));
    }
    row
}

/// Reads an error: its number, a state of five characters behind a mark, the message.
fn server_error(packet: &[u8]) -> ClientError {
    let mut cursor = Cursor(packet.get(1..).unwrap_or_default());
    let code = cursor.u16().unwrap_or_default();
    let text = match cursor.0 {
        [b'#', rest @ ..] => rest.get(5..).unwrap_or_default(),
        rest => rest,
    };
    ClientError::Server { code, message: String::from_utf8_lossy(text).into_owned() }
}

fn unknown_plugin(plugin: &str) -> io::Error {
    let plugin: String = plugin.chars().take(64).filter(|c| !c.is_control()).collect();
    let what = format!(
        "the user logs in with {plugin}, which testenv does not know: it knows {} and {}",
        auth::NATIVE,
        auth::CACHING_SHA2
    );
    io::Error::new(io::ErrorKind::Unsupported, what)
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the answer is not of MySQL's protocol")
}

/// Reads what packets consist of.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_le_bytes([bytes[0], bytes[1]]))
    }

    /// A number that says its own length.
    fn number(&mut self) -> Option<u64> {
        let length = match self.take(1)?[0] {
            small @ 0..=0xfa => return Some(small.into()),
            0xfc => 2,
            0xfd => 3,
            0xfe => 8,
            _ => return None,
        };
        let mut bytes = [0; 8];
        bytes[..length].copy_from_slice(self.take(length)?);
        Some(u64::from_le_bytes(bytes))
    }

    /// A text that ends with a zero.
    fn text(&mut self) -> Option<String> {
        let end = self.0.iter().position(|byte| *byte == 0)?;
        let text = String::from_utf8_lossy(self.take(end)?).into_owned();
        self.take(1)?;
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    /// What MariaDB 10.11 says first.
    const GREETING: &[u8] = b"\x0a5.5.5-10.11.19-MariaDB\0\x04\0\0\0Tz;:1-hn\0\xfe\xf7\x2d\x02\0\xff\x81\x15\0\0\0\0\0\0\x1d\0\0\0@AG]nq1\x22jX\x5ds\0mysql_native_password\0";

    #[test]
    fn greetings_are_read() {
        let greeting = Greeting::read(GREETING).unwrap();
        assert_eq!(greeting.version, "5.5.5-10.11.19-MariaDB");
        assert_eq!(greeting.salt, b"Tz;:1-hn@AG]nq1\"jX]s");
        assert_eq!(greeting.plugin, auth::NATIVE);
    }

    #[test]
    fn greetings_that_end_early_or_are_none_are_refused() {
        for end in 0..GREETING.len() - "mysql_native_password\0".len() {
            assert_eq!(Greeting::read(&GREETING[..end]), None, "{end}");
        }
        assert_eq!(Greeting::read(b"SSH-2.0-OpenSSH_9.2p1\r\n"), None);
    }

    #[test]
    fn errors_are_read_with_and_without_a_state() {
        let said = |packet: &[u8]| server_error(packet).to_string();
        assert_eq!(said(b"\xff\x28\x04#42000You have an error"), "ERROR 1064: You have an error");
        assert_eq!(said(b"\xff\x10\x04Too many connections"), "ERROR 1040: Too many connections");
        assert_eq!(said(b"\xff"), "ERROR 0: ");
        assert_eq!(said(b"\xff\x28\x04#42"), "ERROR 1064: ");
    }

    #[test]
    fn numbers_and_rows_that_are_cut_off_are_not_made_up() {
        assert_eq!(Cursor(b"\xfc\x01\x02").number(), Some(0x201));
        assert_eq!(Cursor(b"\xfe\x01\x02").number(), None);
        assert_eq!(Cursor(b"\xff").number(), None);
        assert_eq!(read_row(b"\x03abc\xfb\x01x", 3), [Some("abc".into()), None, Some("x".into())]);
        assert_eq!(read_row(b"\x03abc\xfe\xff\xff\xff\xff\xff\xff\xff\xffx", 2), [Some("abc".into())]);
        assert_eq!(read_row(b"\x01a", u64::MAX), [Some("a".into())]);
    }

    /// What a connection makes of a server that sends `packets`, whatever it is sent.
    fn answered(packets: &[u8]) -> Result<Rows, ClientError> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(packets).unwrap();
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut connection = Connection::over(Stream::Unix(ours), deadline);
        connection.run(b"SELECT 1", deadline)
    }

    #[test]
    fn rows_are_read_to_the_end_of_all_results() {
        let rows = answered(
            b"\x01\0\0\x01\x01\x01\0\0\x02c\x05\0\0\x03\xfe\0\0\x02\0\x02\0\0\x04\x01a\x05\0\0\x05\xfe\0\0\x08\0\
              \x07\0\0\x06\0\0\0\x02\0\0\0",
        );
        assert_eq!(rows.unwrap(), [[Some("a".to_owned())]]);
    }

    #[test]
    fn hostile_answers_are_errors() {
        for packets in [
            &b""[..],
            b"\x01\0\0",
            b"\0\0\0\x01",
            b"\x01\0\0\x01\xfb",
            b"\x0b\0\0\x01\xfb/etc/passwd",
            b"\x09\0\0\x01\xfe\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\x02\0\0\x01\0\xff",
            b"\xff\xff\xff\x01\0",
        ] {
            answered(packets).unwrap_err();
        }
    }
}
