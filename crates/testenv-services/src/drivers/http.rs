//! As much of an HTTP/1.1 client as the interfaces of servers take: one request after the other on a connection,
//! strict, and with limits on everything that a server can send.

use std::io::{self, BufReader, Read as _, Write as _};
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::stream::Timed;

/// Size of an answer's head at the most, in bytes.
const MAX_HEAD: u64 = 64 << 10;
/// Size of an answer's body at the most, in bytes.
const MAX_BODY: usize = 16 << 20;
/// Length of the line that says how long a chunk is, at the most, in bytes.
const MAX_CHUNK_LINE: u64 = 256;
/// Heads that only announce another, at the most.
const MAX_INTERIM: usize = 8;

/// A connection to a server.
#[derive(Debug)]
pub(crate) struct Http {
    stream: BufReader<Timed>,
    /// Header lines sent with every request.
    headers: String,
}

/// What a server answers.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// What the server says it is; empty when it does not.
    pub(crate) server: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// Whether the server did what it was asked.
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body as text, at the most `limit` bytes of it.
    pub(crate) fn text(&self, limit: usize) -> String {
        String::from_utf8_lossy(&self.body[..self.body.len().min(limit)]).trim().to_owned()
    }
}

impl Http {
    /// Connects; everything has to be done by `deadline`.
    pub(crate) fn connect(host: &str, port: u16, deadline: Instant) -> io::Result<Self> {
        let stream = Timed::connect_tcp(host, port, deadline)?;
        Ok(Self { stream: BufReader::new(stream), headers: format!("host: {host}:{port}\r\n") })
    }

    /// Sends this login with every request.
    pub(crate) fn login(mut self, user: &str, password: &str) -> Self {
        let login = BASE64.encode(format!("{user}:{password}"));
        self.headers.push_str(&format!("authorization: Basic {login}\r\n"));
        self
    }

    /// Sends a request and reads the answer. `path` is encoded already; `json` is the body.
    pub(crate) fn request(&mut self, method: &str, path: &str, json: Option<&[u8]>) -> io::Result<Answer> {
        let headers = if json.is_some() { "content-type: application/json\r\n" } else { "" };
        self.send(method, path, headers, json)
    }

    /// Sends a request and reads the answer. `path` is encoded already, `headers` are whole lines.
    pub(crate) fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &str,
        body: Option<&[u8]>,
    ) -> io::Result<Answer> {
        let mut request = format!("{method} {path} HTTP/1.1\r\n{}{headers}", self.headers).into_bytes();
        if let Some(body) = body {
            write!(request, "content-length: {}\r\n", body.len())?;
        }
        request.extend_from_slice(b"\r\n");
        request.extend_from_slice(body.unwrap_or_default());
        self.stream.get_mut().write_all(&request)?;
        for _ in 0..MAX_INTERIM {
            let answer = read(&mut self.stream, method != "HEAD")?;
            if answer.status >= 200 {
                return Ok(answer);
            }
        }
        Err(malformed("one interim answer after the other"))
    }
}

/// How the end of a body is found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}

/// Reads an answer; `may_have_body` is not so of one to HEAD.
fn read(input: &mut impl io::BufRead, may_have_body: bool) -> io::Result<Answer> {
    let mut head = input.by_ref().take(MAX_HEAD);
    let status = status(&line(&mut head)?)?;
    let (mut framing, mut server) = (Framing::UntilClose, String::new());
    loop {
        let line = line(&mut head)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| malformed("a header without a colon"))?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("transfer-encoding") {
            if !value.eq_ignore_ascii_case("chunked") {
                return Err(malformed("an unknown transfer encoding"));
            }
            framing = Framing::Chunked;
        } else if name.eq_ignore_ascii_case("server") {
            value.clone_into(&mut server);
        } else if name.eq_ignore_ascii_case("content-length") && framing != Framing::Chunked {
            let length = value.parse().ok().filter(|_| value.bytes().all(|byte| byte.is_ascii_digit()));
            framing = Framing::Length(length.ok_or_else(|| malformed("a length that is no number"))?);
        }
    }
    let has_body = may_have_body && status >= 200 && !matches!(status, 204 | 304);
    let body = if has_body { body(input, framing)? } else { Vec::new() };
    Ok(Answer { status, server, body })
}

fn body(input: &mut impl io::BufRead, framing: Framing) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    let mut append = |input: &mut dyn io::Read, length: usize| -> io::Result<usize> {
        if length > MAX_BODY.saturating_sub(body.len()) {
            return Err(malformed("it is larger than testenv reads"));
        }
        input.take(length as u64).read_to_end(&mut body)
    };
    match framing {
        Framing::Length(length) => {
            if append(input, length)? < length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Framing::UntilClose => {
            if append(input, MAX_BODY)? == MAX_BODY {
                return Err(malformed("it is larger than testenv reads"));
            }
        }
        Framing::Chunked => loop {
            let size = line(&mut input.by_ref().take(MAX_CHUNK_LINE))?;
            let size = size.split(';').next().unwrap_or_default().trim();
            let size =
                usize::from_str_radix(size, 16).map_err(|_| malformed("a chunk of no known length"))?;
            if append(input, size)? < size {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            // After the last chunk, there may be headers before the empty line.
            let mut tail = input.by_ref().take(MAX_HEAD);
            while !line(&mut tail)?.is_empty() {
                if size > 0 {
                    return Err(malformed("a chunk longer than it said"));
                }
            }
            if size == 0 {
                break;
            }
        },
    }
    Ok(body)
}

/// Reads a line, without its end.
fn line(input: &mut impl io::BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    input.read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    String::from_utf8(line).map_err(|_| malformed("its head is not text"))
}

/// The status of `HTTP/1.1 200 OK`.
fn status(line: &str) -> io::Result<u16> {
    let rest = line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..));
    let code = rest.and_then(|rest| rest.split(' ').next()).unwrap_or_default();
    let known = code.parse().ok().filter(|status| (100..600).contains(status));
    known.ok_or_else(|| malformed("it is not HTTP/1.1"))
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not an answer in HTTP: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> Result<(u16, String), String> {
        read(&mut text.as_bytes(), true)
            .map(|answer| (answer.status, answer.text(100)))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn bodies_of_every_framing_are_read() {
        let ok = |status, body: &str| Ok((status, body.to_owned()));
        assert_eq!(answer("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhello"), ok(200, "he"));
        let chunked = "HTTP/1.1 400 Bad\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\na: b\r\n\r\n";
        assert_eq!(answer(chunked), ok(400, "hello"));
        assert_eq!(answer("HTTP/1.0 200 OK\r\n\r\nhello"), ok(200, "hello"));
        assert_eq!(answer("HTTP/1.1 204\r\ncontent-length: 7\r\n\r\n"), ok(204, ""));
    }

    #[test]
    fn what_is_not_http_or_ends_early_or_never_is_refused() {
        for (text, says) in [
            ("", "unexpected end"),
            ("AMQP\0\0\u{9}\u{1}", "unexpected end"),
            ("SSH-2.0-OpenSSH\r\n", "not HTTP/1.1"),
            ("HTTP/1.1 99 x\r\n\r\n", "not HTTP/1.1"),
            ("HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "without a colon"),
            ("HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\nhello", "no number"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello", "unexpected end"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n", "larger than"),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n", "unknown transfer"),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", "no known length"),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhello\r\n", "longer than it said"),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n", "larger than"),
        ] {
            let said = answer(text).unwrap_err();
            assert!(said.contains(says), "{text:?}: {said}");
        }
        let endless = format!("HTTP/1.1 200 OK\r\nx: {}\r\n", "y".repeat(100_000));
        assert!(answer(&endless).unwrap_err().contains("unexpected end"));
        let endless = format!("100000\r\n{}\r\n", "x".repeat(1 << 20)).repeat(MAX_BODY / (1 << 20) + 1);
        let endless = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{endless}");
        assert!(answer(&endless).unwrap_err().contains("larger than"));
    }
}
