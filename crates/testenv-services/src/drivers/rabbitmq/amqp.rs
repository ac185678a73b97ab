//! As much of AMQP 0-9-1 as it takes to log in: whoever gets that far has asked a question that only the server
//! with this user, this password and this virtual host can answer.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use testenv_api::{Problem, ProblemKind};

use crate::Result;
use crate::service::Endpoint;
use crate::stream::Timed;

/// How long logging in may take.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(20);
/// What a client says first: that it speaks AMQP 0-9-1.
const PROTOCOL: &[u8; 8] = b"AMQP\x00\x00\x09\x01";
/// Last byte of a frame.
const FRAME_END: u8 = 0xce;
/// Size of a frame at the most, in bytes. Before it is agreed on, none is larger than a few hundred.
const MAX_FRAME: u32 = 128 << 10;
/// Frames that are not the expected one, such as heartbeats, at the most.
const MAX_OTHER: usize = 16;

/// Class and number of a method.
type Method = (u16, u16);
const START: Method = (10, 10);
const START_OK: Method = (10, 11);
const TUNE: Method = (10, 30);
const TUNE_OK: Method = (10, 31);
const OPEN: Method = (10, 40);
const OPEN_OK: Method = (10, 41);
const CLOSE: Method = (10, 50);
const CLOSE_OK: Method = (10, 51);

/// Logs in, opens the virtual host, and closes the connection.
///
/// # Errors
/// [`ProblemKind::StartFailed`] with what the server said.
pub(super) fn log_in(endpoint: &Endpoint) -> Result<()> {
    let connected = Timed::connect_tcp(&endpoint.host, endpoint.port, Instant::now() + LOGIN_TIMEOUT);
    connected.and_then(|mut stream| handshake(&mut stream, endpoint)).map_err(|error| {
        let Endpoint { user, database, .. } = endpoint;
        let title = format!("the RabbitMQ server lets {user} not into virtual host {database}");
        Problem::new(ProblemKind::StartFailed, title).detail(error.to_string())
    })
}

fn handshake(stream: &mut (impl Read + Write), endpoint: &Endpoint) -> io::Result<()> {
    stream.write_all(PROTOCOL)?;
    expect(stream, START)?;
    stream.write_all(&start_ok(&endpoint.user, &endpoint.password))?;
    let limits = expect(stream, TUNE)?;
    // The server's own limits are agreed to, but for heartbeats: nobody would answer them.
    let limits = limits.get(..6).ok_or_else(|| malformed("it tells no limits"))?;
    let mut frames = frame(TUNE_OK, &[limits, &[0, 0]].concat());
    frames.extend(frame(OPEN, &[short_text(&endpoint.database).as_slice(), &[0, 0]].concat()));
    stream.write_all(&frames)?;
    expect(stream, OPEN_OK)?;
    let farewell = [200_u16.to_be_bytes().as_slice(), &short_text("done"), &[0; 4]].concat();
    stream.write_all(&frame(CLOSE, &farewell))?;
    expect(stream, CLOSE_OK).map(drop)
}

/// Says who is there, and that a refusal is to be told before the connection is closed.
fn start_ok(user: &str, password: &str) -> Vec<u8> {
    let capability = [short_text("authentication_failure_close").as_slice(), b"t\x01"].concat();
    let properties = [short_text("capabilities").as_slice(), b"F", &long(&capability)].concat();
    let login = format!("\0{user}\0{password}");
    let arguments =
        [long(&properties), short_text("PLAIN"), long(login.as_bytes()), short_text("en_US")].concat();
    frame(START_OK, &arguments)
}

/// Reads frames until the expected method comes; its arguments.
fn expect(stream: &mut impl Read, expected: Method) -> io::Result<Vec<u8>> {
    for _ in 0..MAX_OTHER {
        let mut head = [0; 7];
        stream.read_exact(&mut head)?;
        if head.starts_with(b"AMQP") {
            return Err(malformed("it speaks another version of the protocol"));
        }
        let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
        if size > MAX_FRAME {
            return Err(malformed("a frame larger than any can be"));
        }
        let mut payload = vec![0; size as usize + 1];
        stream.read_exact(&mut payload)?;
        if payload.pop() != Some(FRAME_END) {
            return Err(malformed("a frame without its end"));
        }
        if head[0] != 1 || payload.len() < 4 {
            continue;
        }
        let arguments = payload.split_off(4);
        let method =
            (u16::from_be_bytes([payload[0], payload[1]]), u16::from_be_bytes([payload[2], payload[3]]));
        if method == expected {
            return Ok(arguments);
        }
        if method == CLOSE {
            return Err(io::Error::other(close_reason(&arguments)));
        }
    }
    Err(malformed("other frames than the one that has to come"))
}

/// Code and text of a `Connection.Close`.
fn close_reason(arguments: &[u8]) -> String {
    let code = arguments.first_chunk().map_or(0, |code| u16::from_be_bytes(*code));
    let length = usize::from(arguments.get(2).copied().unwrap_or(0));
    let text = arguments.get(3..).unwrap_or_default();
    format!("{code} {}", String::from_utf8_lossy(&text[..length.min(text.len())]))
}

fn frame((class, number): Method, arguments: &[u8]) -> Vec<u8> {
    let payload = [class.to_be_bytes().as_slice(), &number.to_be_bytes(), arguments].concat();
    [&[1, 0, 0], long(&payload).as_slice(), &[FRAME_END]].concat()
}

/// A text of at most 255 bytes, with its length before it.
fn short_text(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).unwrap_or(u8::MAX);
    [&[length], &text.as_bytes()[..usize::from(length)]].concat()
}

/// Bytes with their length before them.
fn long(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("what testenv sends is short");
    [length.to_be_bytes().as_slice(), bytes].concat()
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("this is not AMQP 0-9-1: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that has said everything already.
    struct Said<'a>(&'a [u8], Vec<u8>);

    impl Read for Said<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read(buffer)
        }
    }

    impl Write for Said<'_> {
        fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
            self.1.write(buffer)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn talk(said: &[Vec<u8>]) -> std::result::Result<Vec<u8>, String> {
        let said = said.concat();
        let mut server = Said(&said, Vec::new());
        let endpoint = Endpoint {
            user: "u".into(),
            password: "secret".into(),
            database: "/".into(),
            ..Endpoint::default()
        };
        handshake(&mut server, &endpoint).map_err(|error| error.to_string())?;
        Ok(server.1)
    }

    #[test]
    fn logging_in_is_agreed_to_step_by_step() {
        let tune = frame(TUNE, &[0x07, 0xff, 0, 2, 0, 0, 0, 60]);
        let heartbeat = vec![8, 0, 0, 0, 0, 0, 0, FRAME_END];
        let sent = talk(&[
            frame(START, &[0, 9, 0, 0, 0, 0]),
            heartbeat,
            tune,
            frame(OPEN_OK, &[0]),
            frame(CLOSE_OK, &[]),
        ])
        .unwrap();
        assert!(sent.starts_with(PROTOCOL));
        let agreed = frame(TUNE_OK, &[0x07, 0xff, 0, 2, 0, 0, 0, 0]);
        assert!(sent.windows(agreed.len()).any(|window| window == agreed));
        let login = b"\0\0\0\x09\0u\0secret";
        assert!(sent.windows(login.len()).any(|window| window == login));
    }

    #[test]
    fn a_refusal_is_told_in_the_servers_words() {
        let words = "ACCESS_REFUSED - Login was refused";
        let refusal = [403_u16.to_be_bytes().as_slice(), &short_text(words), &[0; 4]].concat();
        let said = talk(&[frame(START, &[0, 9]), frame(CLOSE, &refusal)]).unwrap_err();
        assert_eq!(said, format!("403 {words}"));
        assert_eq!(close_reason(&[1]), "0 ");
        assert_eq!(close_reason(&[1, 147, 200, b'x']), "403 x");
    }

    #[test]
    fn hostile_answers_are_refused() {
        let oversized = vec![1, 0, 0, 0xff, 0xff, 0xff, 0xff];
        let heartbeats = [8, 0, 0, 0, 0, 0, 0, FRAME_END].repeat(100);
        let endless = [frame(START, &[]), frame(TUNE, &[1, 2])];
        for (said, says) in [
            (vec![], "fill whole buffer"),
            (vec![b"HTTP/1.1 400 Bad Request\r\n".to_vec()], "larger than any"),
            (vec![b"AMQP\0\0\x09\x01".to_vec()], "another version"),
            (vec![oversized], "larger than any"),
            (vec![vec![1, 0, 0, 0, 0, 0, 1, b'x', b'y']], "without its end"),
            (vec![heartbeats], "other frames"),
            (endless.to_vec(), "no limits"),
        ] {
            let error = talk(&said).unwrap_err();
            assert!(error.contains(says), "{said:?}: {error}");
        }
    }
}
