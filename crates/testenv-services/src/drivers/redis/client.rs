//! As much of a Redis client as preparing a server takes.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::time::Duration;

use testenv_api::{Problem, ProblemKind};

use crate::Result;
use crate::service::Endpoint;
use crate::stream::Stream;

/// How long a command of testenv's own may take.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest text in a reply, in bytes, and most items in a list.
const MAX_TEXT: usize = 1 << 20;
const MAX_ITEMS: usize = 1 << 16;
/// How deep lists may be in lists.
const MAX_DEPTH: usize = 8;

/// A connection that is logged in.
pub(super) struct Client(BufReader<Stream>);

/// What a command gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Text(String),
    Number(i64),
    List(Vec<Reply>),
    Nil,
}

impl Reply {
    /// The texts of a list; none of anything else.
    pub(super) fn into_texts(self) -> Vec<String> {
        let text = |reply| match reply {
            Self::Text(text) => Some(text),
            _ => None,
        };
        match self {
            Self::List(items) => items.into_iter().filter_map(text).collect(),
            _ => Vec::new(),
        }
    }
}

impl Client {
    /// Connects and logs in. The endpoint's database is not selected.
    pub(super) fn open(endpoint: &Endpoint, socket: &Path) -> Result<Self> {
        let opened = Stream::connect(endpoint, socket).and_then(|stream| {
            stream.set_timeout(Some(COMMAND_TIMEOUT))?;
            Ok(Self(BufReader::new(stream)))
        });
        let mut client = opened.map_err(|error| {
            Problem::new(ProblemKind::PrepareFailed, "the Redis server does not answer")
                .detail(error.to_string())
        })?;
        match (endpoint.user.as_str(), endpoint.password.as_str()) {
            (_, "") => {}
            ("", password) => drop(client.call(&["AUTH", password])?),
            (user, password) => drop(client.call(&["AUTH", user, password])?),
        }
        Ok(client)
    }

    /// Runs a command.
    ///
    /// # Errors
    /// What the server says against it, or what became of the connection.
    pub(super) fn call(&mut self, words: &[&str]) -> Result<Reply> {
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        let sent = self.0.get_mut().write_all(request.as_bytes());
        let reply = sent.and_then(|()| reply(&mut self.0, MAX_DEPTH)).map_err(|error| error.to_string());
        reply.and_then(|reply| reply).map_err(|error| {
            Problem::new(ProblemKind::PrepareFailed, "the Redis server refused a command")
                .detail(format!("{}: {error}", words[0]))
        })
    }
}

/// Reads a whole reply; an error of the server's is the inner one.
fn reply(input: &mut impl io::BufRead, depth: usize) -> io::Result<std::result::Result<Reply, String>> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut line = String::new();
    if input.by_ref().take(MAX_TEXT as u64).read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let line = line.trim_end();
    let mut rest = line.chars();
    let kind = rest.next();
    let rest = rest.as_str();
    let number = || rest.parse::<i64>().map_err(|_| bad("no number where one has to be"));
    let within = |limit: usize| match usize::try_from(number()?) {
        Ok(count) if count <= limit => Ok(Some(count)),
        Ok(_) => Err(bad("a reply larger than testenv reads")),
        Err(_) => Ok(None),
    };
    Ok(Ok(match kind {
        Some('+') => Reply::Text(rest.to_owned()),
        Some('-') => return Ok(Err(rest.to_owned())),
        Some(':') => Reply::Number(number()?),
        Some('$') => match within(MAX_TEXT)? {
            Some(length) => {
                let mut body = vec![0; length + 2];
                input.read_exact(&mut body)?;
                Reply::Text(String::from_utf8_lossy(&body[..length]).into_owned())
            }
            None => Reply::Nil,
        },
        Some('*') if depth == 0 => return Err(bad("lists in lists in lists")),
        Some('*') => match within(MAX_ITEMS)? {
            Some(count) => {
                let mut items = Vec::new();
                for _ in 0..count {
                    // An error can be an item, as in the reply of a transaction.
                    items.push(reply(input, depth - 1)?.unwrap_or_else(Reply::Text));
                }
                Reply::List(items)
            }
            None => Reply::Nil,
        },
        _ => return Err(bad("this is not the protocol of Redis")),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> std::result::Result<Reply, String> {
        reply(&mut text.as_bytes(), MAX_DEPTH).unwrap_or_else(|error| Err(format!("io: {error}")))
    }

    #[test]
    fn every_kind_of_reply_is_read_whole() {
        assert_eq!(read("+OK\r\n"), Ok(Reply::Text("OK".into())));
        assert_eq!(read("$-1\r\n"), Ok(Reply::Nil));
        assert_eq!(read("$4\r\na\r\nb\r\n"), Ok(Reply::Text("a\r\nb".into())));
        assert_eq!(
            read("*2\r\n:7\r\n-ERR no\r\n"),
            Ok(Reply::List(vec![Reply::Number(7), Reply::Text("ERR no".into())]))
        );
        assert_eq!(read("-ERR no such\r\n"), Err("ERR no such".into()));
    }

    #[test]
    fn hostile_replies_are_refused() {
        for text in ["", "hello\r\n", "$999999999999\r\n", "*999999999\r\n", ":x\r\n", "$5\r\nab"] {
            assert!(read(text).unwrap_err().starts_with("io: "), "{text:?}");
        }
        let deep = "*1\r\n".repeat(1000);
        assert!(read(&deep).unwrap_err().contains("lists in lists"));
    }
}
