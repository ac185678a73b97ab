//! As much of HTTP/1.1 as a client of the broker needs, strict and with limits.

use std::io::{self, Read as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Size of an answer's head at the most, in bytes.
const HEAD_LIMIT_BYTES: usize = 64 << 10;
/// Size of one line of a streamed body at the most, in bytes.
const LINE_LIMIT_BYTES: usize = 1 << 20;
/// Size of the line that says how long a chunk is, at the most, in bytes.
const CHUNK_LINE_LIMIT_BYTES: usize = 256;

/// Time left until `deadline`; an error when there is none, as a timeout of zero would mean "for ever".
pub(super) fn left_until(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::Error::new(io::ErrorKind::TimedOut, "the time allowed for it is over"));
    }
    Ok(left)
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not an answer that a broker gives: {what}"))
}

/// An answer whose head has been read.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Body,
}

impl Answer {
    /// Reads and checks the head.
    pub(super) fn read(stream: UnixStream, deadline: Instant) -> io::Result<Self> {
        Self::read_while(stream, deadline, Duration::MAX, || Ok(()))
    }

    /// The same; until the answer begins, `is_well` is asked whenever `patience` is over whether to go on waiting.
    pub(super) fn read_while(
        stream: UnixStream,
        deadline: Instant,
        patience: Duration,
        is_well: impl Fn() -> io::Result<()>,
    ) -> io::Result<Self> {
        let mut input = Input { stream, deadline, buffer: Vec::new(), at: 0 };
        input.fill_while(patience, is_well)?;
        let head = input.take_until(b"\r\n\r\n", HEAD_LIMIT_BYTES)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let head = std::str::from_utf8(&head).map_err(|_| malformed("its head is not text"))?;
        let mut lines = head.split("\r\n");
        let status = status_of(lines.next().unwrap_or_default())?;
        let mut framing = Framing::UntilClose;
        for line in lines {
            let (name, value) = line.split_once(':').ok_or_else(|| malformed("a header without a colon"))?;
            let value = value.trim();
            let next = if name.eq_ignore_ascii_case("content-length") {
                let length =
                    value.bytes().all(|byte| byte.is_ascii_digit()).then(|| value.parse().ok()).flatten();
                Framing::Length(length.ok_or_else(|| malformed("a length that is no number"))?)
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                if !value.eq_ignore_ascii_case("chunked") {
                    return Err(malformed("an unknown transfer encoding"));
                }
                Framing::ChunkHead
            } else {
                continue;
            };
            if !matches!(framing, Framing::UntilClose) {
                return Err(malformed("two headers that say how long the body is"));
            }
            framing = next;
        }
        Ok(Self { status, body: Body { input, framing, pending: Vec::new() } })
    }
}

/// The status of `HTTP/1.1 200 OK`.
fn status_of(line: &str) -> io::Result<u16> {
    let rest = line.strip_prefix("HTTP/1.1 ").ok_or_else(|| malformed("it does not start with HTTP/1.1"))?;
    let code = rest.get(..3).filter(|_| matches!(rest.as_bytes().get(3), None | Some(b' ')));
    code.filter(|code| code.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|code| code.parse().ok())
        .filter(|code| (200..600).contains(code))
        .ok_or_else(|| malformed("its status is no final one"))
}

/// How the end of a body is found, and how much of it is still to come.
#[derive(Debug)]
enum Framing {
    Length(usize),
    UntilClose,
    ChunkHead,
    ChunkData(usize),
    Ended,
}

/// The body of an answer, as far as it has not been read.
#[derive(Debug)]
pub(super) struct Body {
    input: Input,
    framing: Framing,
    /// Decoded, but not yet asked for.
    pending: Vec<u8>,
}

impl Body {
    pub(super) fn stream(&self) -> &UnixStream {
        &self.input.stream
    }

    pub(super) fn set_deadline(&mut self, deadline: Instant) {
        self.input.deadline = deadline;
    }

    /// Everything up to the end.
    pub(super) fn read_to_end(&mut self, limit: usize) -> io::Result<Vec<u8>> {
        while self.decode_more()? {
            if self.pending.len() > limit {
                return Err(malformed("it is too long"));
            }
        }
        Ok(std::mem::take(&mut self.pending))
    }

    /// The next line without its end; `None` when the body has ended.
    pub(super) fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut seen = 0;
        loop {
            if let Some(at) = self.pending[seen..].iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.pending.drain(..=seen + at).collect();
                line.pop();
                return Ok(Some(line));
            }
            seen = self.pending.len();
            if seen > LINE_LIMIT_BYTES {
                return Err(malformed("a line is too long"));
            }
            if !self.decode_more()? {
                return if self.pending.is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
    }

    /// Moves some bytes from the input to `pending`; false at the end of the body.
    fn decode_more(&mut self) -> io::Result<bool> {
        loop {
            match self.framing {
                Framing::Ended | Framing::Length(0) => return Ok(false),
                Framing::Length(left) => {
                    let taken = self.input.take_some(left, &mut self.pending)?;
                    if taken == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    self.framing = Framing::Length(left - taken);
                    return Ok(true);
                }
                Framing::UntilClose => return Ok(self.input.take_some(usize::MAX, &mut self.pending)? > 0),
                Framing::ChunkHead => match self.chunk_length()? {
                    0 => {
                        while !self.chunk_line()?.is_empty() {} // trailers
                        self.framing = Framing::Ended;
                    }
                    length => self.framing = Framing::ChunkData(length),
                },
                Framing::ChunkData(left) => {
                    let taken = self.input.take_some(left, &mut self.pending)?;
                    if taken == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    self.framing = Framing::ChunkData(left - taken);
                    if left == taken {
                        if !self.chunk_line()?.is_empty() {
                            return Err(malformed("a chunk longer than it says"));
                        }
                        self.framing = Framing::ChunkHead;
                    }
                    return Ok(true);
                }
            }
        }
    }

    fn chunk_line(&mut self) -> io::Result<Vec<u8>> {
        Ok(self.input.take_until(b"\r\n", CHUNK_LINE_LIMIT_BYTES)?.ok_or(io::ErrorKind::UnexpectedEof)?)
    }

    fn chunk_length(&mut self) -> io::Result<usize> {
        let line = self.chunk_line()?;
        let digits = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let hex =
            std::str::from_utf8(digits).ok().filter(|it| it.bytes().all(|byte| byte.is_ascii_hexdigit()));
        hex.filter(|hex| (1..=8).contains(&hex.len()))
            .and_then(|hex| usize::from_str_radix(hex, 16).ok())
            .ok_or_else(|| malformed("a chunk whose length is no number"))
    }
}

/// A stream with a deadline and what has been read ahead of it.
struct Input {
    stream: UnixStream,
    deadline: Instant,
    buffer: Vec<u8>,
    at: usize,
}

impl std::fmt::Debug for Input {
    /// Leaves out what was read: the answer to a request for a lease has a password in it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Input").field("at", &self.at).finish_non_exhaustive()
    }
}

impl Input {
    /// Reads more; false when the peer has closed.
    fn fill(&mut self) -> io::Result<bool> {
        self.fill_while(Duration::MAX, || Ok(()))
    }

    /// The same; whenever nothing has come for `patience`, `is_well` is asked whether to go on waiting.
    fn fill_while(&mut self, patience: Duration, is_well: impl Fn() -> io::Result<()>) -> io::Result<bool> {
        if self.at == self.buffer.len() {
            self.buffer.clear();
            self.at = 0;
        }
        let mut block = [0; 8192];
        loop {
            self.stream.set_read_timeout(Some(left_until(self.deadline)?.min(patience)))?;
            match self.stream.read(&mut block) {
                Ok(count) => {
                    self.buffer.extend_from_slice(&block[..count]);
                    return Ok(count > 0);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A read timeout shows as WouldBlock; the next round says TimedOut if the deadline is over.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => is_well()?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Everything before `end`, which is dropped; `None` when the peer closed before the first byte.
    fn take_until(&mut self, end: &[u8], limit: usize) -> io::Result<Option<Vec<u8>>> {
        let mut seen = 0;
        loop {
            let ahead = &self.buffer[self.at..];
            if let Some(found) = ahead[seen..].windows(end.len()).position(|window| window == end) {
                let taken = ahead[..seen + found].to_vec();
                self.at += seen + found + end.len();
                return Ok(Some(taken));
            }
            if ahead.len() > limit {
                return Err(malformed("its head or the head of a chunk is too long"));
            }
            let empty = ahead.is_empty();
            seen = ahead.len().saturating_sub(end.len() - 1);
            if !self.fill()? {
                return if empty { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    /// Appends up to `limit` bytes to `out`; 0 when the peer has closed.
    fn take_some(&mut self, limit: usize, out: &mut Vec<u8>) -> io::Result<usize> {
        if self.at == self.buffer.len() && !self.fill()? {
            return Ok(0);
        }
        let count = limit.min(self.buffer.len() - self.at);
        out.extend_from_slice(&self.buffer[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// What a client makes of an answer that arrives one byte at a time, and then the connection closes.
    fn lines_of(answer: &str) -> io::Result<(u16, Vec<String>)> {
        let (mut theirs, ours) = UnixStream::pair()?;
        let answer = answer.to_owned();
        let writer = std::thread::spawn(move || {
            for byte in answer.as_bytes() {
                if theirs.write_all(&[*byte]).is_err() {
                    return;
                }
            }
        });
        let result = (|| {
            let mut answer = Answer::read(ours, Instant::now() + Duration::from_secs(10))?;
            let mut lines = Vec::new();
            while let Some(line) = answer.body.line()? {
                lines.push(String::from_utf8_lossy(&line).into_owned());
            }
            Ok((answer.status, lines))
        })();
        writer.join().unwrap();
        result
    }

    fn check(answer: &str, status: u16, lines: &[&str]) {
        let found = lines_of(answer).unwrap();
        assert_eq!(found, (status, lines.iter().map(|line| (*line).to_owned()).collect()), "{answer}");
    }

    #[test]
    fn reads_every_framing() {
        check("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\na\nb\n", 200, &["a", "b"]);
        check("HTTP/1.1 200 OK\r\n\r\na\nb\n", 200, &["a", "b"]);
        check("HTTP/1.1 404\r\nContent-Length:0\r\n\r\n", 404, &[]);
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n";
        check(&format!("{chunked}3\r\na\nb\r\n2;x=y\r\nc\n\r\n0\r\nt: v\r\n\r\n"), 200, &["a", "bc"]);
    }

    #[test]
    fn refuses_what_no_broker_says() {
        let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(70_000));
        for answer in [
            "HTTP/1.0 200 OK\r\n\r\n",
            "HTTP/1.1 2000 OK\r\n\r\n",
            "HTTP/1.1 +20 OK\r\n\r\n",
            "HTTP/1.1 101 Switching\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\na",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff1\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nab\r\n",
            &long,
        ] {
            let error = lines_of(answer).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{answer:.80}: {error}");
        }
    }

    #[test]
    fn an_answer_cut_short_is_an_end_and_not_a_line() {
        for answer in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\na",
            "HTTP/1.1 200 OK\r\n\r\na",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\na",
        ] {
            assert_eq!(lines_of(answer).unwrap_err().kind(), io::ErrorKind::UnexpectedEof, "{answer}");
        }
    }

    #[test]
    fn cut_and_damaged_answers_never_panic_or_hang() {
        let whole = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\na\nb\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n";
        // A small generator with a fixed start: the same bytes on every run.
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut random = move |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % below as u64) as usize
        };
        for _ in 0..5000 {
            let mut bytes = whole[..=random(whole.len())].to_vec();
            for _ in 0..random(4) {
                let at = random(bytes.len());
                bytes[at] = random(256) as u8;
            }
            let (mut theirs, ours) = UnixStream::pair().unwrap();
            theirs.write_all(&bytes).unwrap();
            drop(theirs);
            if let Ok(mut answer) = Answer::read(ours, Instant::now() + Duration::from_secs(10)) {
                while let Ok(Some(line)) = answer.body.line() {
                    assert!(line.len() <= whole.len());
                }
            }
        }
    }

    #[test]
    fn a_broker_that_says_nothing_runs_into_the_deadline() {
        let (_theirs, ours) = UnixStream::pair().unwrap();
        let error = Answer::read(ours, Instant::now() + Duration::from_millis(20)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn a_line_without_an_end_is_refused() {
        let (mut theirs, ours) = UnixStream::pair().unwrap();
        let writer = std::thread::spawn(move || {
            let _ = theirs.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
            while theirs.write_all(&[b'x'; 4096]).is_ok() {}
        });
        let mut answer = Answer::read(ours, Instant::now() + Duration::from_secs(10)).unwrap();
        assert_eq!(answer.body.line().unwrap_err().kind(), io::ErrorKind::InvalidData);
        drop(answer);
        writer.join().unwrap();
    }
}
