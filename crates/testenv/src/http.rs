//! Just enough of HTTP/1.1 to talk to the broker: a request, a status, a body in one of two framings.
//!
//! Every length has a limit and everything that is not exactly understood is refused: whoever listens on
//! the socket may be something else than a broker.

use std::io::{self, BufRead as _, BufReader, Read, Write};

use testenv_api::{PROTOCOL, PROTOCOL_HEADER};

/// Bytes of status line and headers at the most, and of a chunked body's trailers.
const HEAD_LIMIT: usize = 64 * 1024;
/// Bytes of one line of a body, or of a whole one, at the most.
pub(crate) const BODY_LIMIT: usize = 1024 * 1024;
/// Bytes of the line before a chunk at the most.
const CHUNK_LINE_LIMIT: usize = 1024;

/// Why an answer could not be read.
#[derive(Debug)]
pub(crate) enum HttpError {
    /// The connection failed or ran out of time.
    Io(io::Error),
    /// The other side closed before the answer was complete.
    Closed {
        /// Whether not a single byte of the answer had come.
        before_answer: bool,
    },
    /// The answer is not HTTP/1.1 as it is spoken here.
    Malformed(String),
    /// A limit was reached.
    TooLong(&'static str),
}

impl From<io::Error> for HttpError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl std::fmt::Display for HttpError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Closed { before_answer: true } => {
                f.write_str("the connection was closed without an answer")
            }
            Self::Closed { before_answer: false } => {
                f.write_str("the connection was closed within the answer")
            }
            Self::Malformed(what) => write!(f, "the answer is not HTTP/1.1: {what}"),
            Self::TooLong(what) => write!(f, "the answer is too long: {what}"),
        }
    }
}

/// Writes a whole request at once.
pub(crate) fn write_request(out: &mut impl Write, method: &str, path: &str, body: &[u8]) -> io::Result<()> {
    let mut request = format!(
        "{method} {path} HTTP/1.1\r\nhost: testenv\r\n{PROTOCOL_HEADER}: {PROTOCOL}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    out.write_all(&request)
}

/// An answer whose head has been read.
#[derive(Debug)]
pub(crate) struct Response<R> {
    pub(crate) status: u16,
    pub(crate) body: Body<R>,
}

/// The body of an answer, read piece by piece.
#[derive(Debug)]
pub(crate) struct Body<R> {
    reader: BufReader<R>,
    framing: Framing,
}

#[derive(Debug)]
enum Framing {
    /// So many bytes are left.
    Length(u64),
    /// So many bytes are left of this chunk; `None` before the first.
    Chunked(Option<u64>),
    Ended,
}

impl<R: Read> Response<R> {
    /// Reads status line and headers.
    pub(crate) fn read(reader: R) -> Result<Self, HttpError> {
        let mut reader = BufReader::new(reader);
        let mut budget = HEAD_LIMIT;
        let status = match read_line(&mut reader, &mut budget, "status line and headers") {
            Ok(line) => status(&line)?,
            Err(HttpError::Closed { .. }) if budget == HEAD_LIMIT => {
                return Err(HttpError::Closed { before_answer: true });
            }
            Err(error) => return Err(error),
        };

        let mut length = None;
        let mut chunked = false;
        loop {
            let line = read_line(&mut reader, &mut budget, "status line and headers")?;
            if line.is_empty() {
                break;
            }
            let (name, value) = header(&line)?;
            if name.eq_ignore_ascii_case("content-length") {
                let value = parse_length(value)?;
                if length.is_some_and(|other| other != value) {
                    return Err(HttpError::Malformed("two different lengths".to_owned()));
                }
                length = Some(value);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                if chunked || !value.eq_ignore_ascii_case("chunked") {
                    return Err(HttpError::Malformed(format!("transfer encoding {value:?}")));
                }
                chunked = true;
            }
        }
        let framing = match (length, chunked) {
            (Some(_), true) => return Err(HttpError::Malformed("both a length and chunks".to_owned())),
            (None, true) => Framing::Chunked(None),
            (Some(length), false) => Framing::Length(length),
            (None, false) if status == 204 => Framing::Ended,
            (None, false) => return Err(HttpError::Malformed("neither a length nor chunks".to_owned())),
        };
        Ok(Self { status, body: Body { reader, framing } })
    }
}

impl<R: Read> Body<R> {
    /// The next line without its end, or `None` at the end of the body.
    pub(crate) fn line(&mut self) -> Result<Option<Vec<u8>>, HttpError> {
        let mut line = Vec::new();
        loop {
            let piece = self.piece()?;
            if piece.is_empty() {
                return Ok(Some(line).filter(|it| !it.is_empty()));
            }
            let end = piece.iter().position(|byte| *byte == b'\n');
            let taken = end.unwrap_or(piece.len());
            if line.len() + taken > BODY_LIMIT {
                return Err(HttpError::TooLong("a line has more than 1 MiB"));
            }
            line.extend_from_slice(&piece[..taken]);
            self.consume(taken + usize::from(end.is_some()));
            if end.is_some() {
                return Ok(Some(line));
            }
        }
    }

    /// All that is left.
    pub(crate) fn all(&mut self) -> Result<Vec<u8>, HttpError> {
        let mut all = Vec::new();
        loop {
            let piece = self.piece()?;
            if piece.is_empty() {
                return Ok(all);
            }
            if all.len() + piece.len() > BODY_LIMIT {
                return Err(HttpError::TooLong("the body has more than 1 MiB"));
            }
            all.extend_from_slice(piece);
            let taken = piece.len();
            self.consume(taken);
        }
    }

    /// The stream beneath.
    pub(crate) fn stream(&mut self) -> &mut R {
        self.reader.get_mut()
    }

    /// Bytes that are there, or none at the end of the body.
    fn piece(&mut self) -> Result<&[u8], HttpError> {
        if let Framing::Chunked(left) = self.framing
            && matches!(left, None | Some(0))
        {
            self.next_chunk(left.is_none())?;
        }
        let left = match self.framing {
            Framing::Ended | Framing::Length(0) => return Ok(&[]),
            Framing::Length(left) | Framing::Chunked(Some(left)) => left,
            Framing::Chunked(None) => unreachable!("next_chunk has set a size or ended the body"),
        };
        let buffer = self.reader.fill_buf()?;
        if buffer.is_empty() {
            return Err(HttpError::Closed { before_answer: false });
        }
        let there = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        Ok(&buffer[..there])
    }

    fn consume(&mut self, taken: usize) {
        self.reader.consume(taken);
        if let Framing::Length(left) | Framing::Chunked(Some(left)) = &mut self.framing {
            *left -= taken as u64;
        }
    }

    /// Reads the line before a chunk; behind the last one, the trailers too.
    fn next_chunk(&mut self, is_first: bool) -> Result<(), HttpError> {
        let mut budget = CHUNK_LINE_LIMIT;
        if !is_first && !read_line(&mut self.reader, &mut budget, "the line before a chunk")?.is_empty() {
            return Err(HttpError::Malformed("a chunk is longer than it said".to_owned()));
        }
        let line = read_line(&mut self.reader, &mut budget, "the line before a chunk")?;
        let digits = line.split(';').next().unwrap_or_default().trim_end();
        let is_size = (1..=8).contains(&digits.len()) && digits.bytes().all(|it| it.is_ascii_hexdigit());
        let size = match u64::from_str_radix(digits, 16) {
            Ok(size) if is_size => size,
            _ => return Err(HttpError::Malformed(format!("chunk size {digits:?}"))),
        };
        if size > 0 {
            self.framing = Framing::Chunked(Some(size));
            return Ok(());
        }
        let mut budget = HEAD_LIMIT;
        while !read_line(&mut self.reader, &mut budget, "trailers")?.is_empty() {}
        self.framing = Framing::Ended;
        Ok(())
    }
}

/// One line that ends in CR LF, as text without its end.
fn read_line<R: Read>(
    reader: &mut BufReader<R>,
    budget: &mut usize,
    what: &'static str,
) -> Result<String, HttpError> {
    let mut line = Vec::new();
    let read = reader.take(*budget as u64).read_until(b'\n', &mut line)?;
    let had = std::mem::replace(budget, *budget - read);
    match line.strip_suffix(b"\r\n") {
        Some(text) if text.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~' | 0x80..)) => {
            Ok(String::from_utf8_lossy(text).into_owned())
        }
        Some(_) => Err(HttpError::Malformed("control characters in the head".to_owned())),
        None if line.ends_with(b"\n") => Err(HttpError::Malformed("a line ends without CR".to_owned())),
        None if read == had => Err(HttpError::TooLong(what)),
        None => Err(HttpError::Closed { before_answer: false }),
    }
}

fn status(line: &str) -> Result<u16, HttpError> {
    let refuse =
        || HttpError::Malformed(format!("status line {:?}", line.chars().take(80).collect::<String>()));
    let rest = line.strip_prefix("HTTP/1.1 ").ok_or_else(refuse)?;
    let (digits, reason) = rest.split_at_checked(3).ok_or_else(refuse)?;
    let is_shaped =
        digits.bytes().all(|it| it.is_ascii_digit()) && (reason.is_empty() || reason.starts_with(' '));
    match digits.parse() {
        Ok(status @ 200..=599) if is_shaped => Ok(status),
        _ => Err(refuse()),
    }
}

fn header(line: &str) -> Result<(&str, &str), HttpError> {
    let is_token = |it: u8| it.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&it);
    match line.split_once(':') {
        Some((name, value)) if !name.is_empty() && name.bytes().all(is_token) => {
            Ok((name, value.trim_matches([' ', '\t'])))
        }
        _ => Err(HttpError::Malformed(format!("header {:?}", line.chars().take(80).collect::<String>()))),
    }
}

fn parse_length(value: &str) -> Result<u64, HttpError> {
    let is_number = !value.is_empty() && value.bytes().all(|it| it.is_ascii_digit());
    match value.parse() {
        Ok(length) if is_number => Ok(length),
        _ => Err(HttpError::Malformed(format!("length {:?}", value.chars().take(80).collect::<String>()))),
    }
}

#[cfg(test)]
mod tests;
