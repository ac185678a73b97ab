//! As much of the text protocol of NATS as preparing a server takes: log in, ask JetStream, publish.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testenv_api::{Problem, ProblemKind};

use crate::Result;
use crate::service::Endpoint;
use crate::stream::Timed;

/// How long a connection of testenv's own may last, unless preparing gives it longer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest line read, in bytes: `INFO` is the longest there is.
const MAX_LINE: u64 = 64 << 10;
/// Longest message read, in bytes.
const MAX_MESSAGE: usize = 8 << 20;
/// Subject on which answers arrive, followed by the number of the question.
const INBOX: &str = "_INBOX.testenv";

/// A connection that is logged in.
#[derive(Debug)]
pub(super) struct Client {
    stream: BufReader<Timed>,
    version: String,
    /// Largest message that the server takes, in bytes.
    max_payload: usize,
    /// Number of the last question.
    last: u64,
}

/// An answer that says no.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// JetStream's error, with its code.
    JetStream { code: u64, description: String },
    /// Nothing listens on the subject.
    NobodyListens,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::JetStream { code, description } => write!(f, "{description} ({code})"),
            Self::NobodyListens => f.write_str("nothing listens on the subject"),
        }
    }
}

impl Client {
    /// Logs in and proves that the server lets this login in.
    pub(super) fn open(endpoint: &Endpoint) -> Result<Self> {
        Self::open_until(endpoint, Instant::now() + TIMEOUT)
    }

    /// The same for a connection that has to be done by `deadline`.
    pub(super) fn open_until(endpoint: &Endpoint, deadline: Instant) -> Result<Self> {
        let opened = (|| {
            let stream = BufReader::new(Timed::connect_tcp(&endpoint.host, endpoint.port, deadline)?);
            let mut client = Self { stream, version: String::new(), max_payload: 0, last: 0 };
            client.greet()?;
            client.log_in(endpoint)?;
            Ok(client)
        })();
        opened.map_err(|error: io::Error| {
            let Endpoint { host, port, user, .. } = endpoint;
            let kind = ProblemKind::PrepareFailed;
            Problem::new(kind, format!("NATS at {host}:{port} did not let {user} in"))
                .detail(error.to_string())
        })
    }

    /// The version that the server said it has.
    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// Asks JetStream: `subject` without `$JS.API.`.
    pub(super) fn ask(&mut self, subject: &str, body: &Value) -> Result<Result<Value, Refusal>> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.request(&format!("$JS.API.{subject}"), body.as_bytes())
    }

    /// Publishes a message into whatever stream takes its subject; answers when it is stored.
    pub(super) fn publish(&mut self, subject: &str, body: &[u8]) -> Result<Result<Value, Refusal>> {
        self.request(subject, body)
    }

    fn request(&mut self, subject: &str, body: &[u8]) -> Result<Result<Value, Refusal>> {
        let failed = |detail: String| {
            Problem::new(ProblemKind::PrepareFailed, format!("NATS did not answer {subject}")).detail(detail)
        };
        // Whitespace would end the subject, and what follows would be the protocol's next words.
        if subject.is_empty() || subject.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(failed("it is no subject: it is empty or has spaces in it".into()));
        }
        if body.len() > self.max_payload {
            let limit = self.max_payload;
            let detail = format!("{} bytes, and the server takes no more than {limit}", body.len());
            return Err(failed(detail).hint("raise it with `settings = { max_payload = \"…\" }`"));
        }
        self.last += 1;
        let mut request = format!("PUB {subject} {INBOX}.{} {}\r\n", self.last, body.len()).into_bytes();
        request.extend_from_slice(body);
        request.extend_from_slice(b"\r\n");
        let sent = self.stream.get_mut().write_all(&request);
        let message = sent.and_then(|()| self.answer()).map_err(|error| failed(error.to_string()))?;
        let Some(message) = message else { return Ok(Err(Refusal::NobodyListens)) };
        let answer: Value = serde_json::from_slice(&message).map_err(|error| failed(error.to_string()))?;
        Ok(match answer.get("error") {
            Some(error) => Err(Refusal::JetStream {
                code: error["err_code"].as_u64().or_else(|| error["code"].as_u64()).unwrap_or(0),
                description: error["description"].as_str().unwrap_or("no reason given").to_owned(),
            }),
            None => Ok(answer),
        })
    }

    /// Reads the server's `INFO`.
    fn greet(&mut self) -> io::Result<()> {
        let line = self.line()?;
        let info = line.strip_prefix("INFO ").ok_or_else(|| unexpected(&line))?;
        let info: Value = serde_json::from_str(info)?;
        info["version"].as_str().unwrap_or_default().clone_into(&mut self.version);
        let max_payload = info["max_payload"].as_u64().and_then(|bytes| usize::try_from(bytes).ok());
        self.max_payload = max_payload.unwrap_or(MAX_MESSAGE).min(MAX_MESSAGE);
        Ok(())
    }

    /// Sends the login; the answer to `PING` is the proof that it was taken.
    fn log_in(&mut self, endpoint: &Endpoint) -> io::Result<()> {
        let mut login = json!({
            "verbose": false, "pedantic": false, "lang": "testenv", "version": env!("CARGO_PKG_VERSION"),
            "protocol": 1, "echo": true, "headers": true, "no_responders": true,
        });
        if !endpoint.user.is_empty() {
            login["user"] = endpoint.user.as_str().into();
            login["pass"] = endpoint.password.as_str().into();
        }
        let login = format!("CONNECT {login}\r\nSUB {INBOX}.* 1\r\nPING\r\n");
        self.stream.get_mut().write_all(login.as_bytes())?;
        loop {
            let line = self.line()?;
            match line.split(' ').next() {
                Some("PONG") => return Ok(()),
                Some("INFO" | "+OK") => {}
                _ => return Err(unexpected(&line)),
            }
        }
    }

    /// Waits for the answer to the last question; `None` when nobody listens.
    fn answer(&mut self) -> io::Result<Option<Vec<u8>>> {
        let inbox = format!("{INBOX}.{}", self.last);
        loop {
            let line = self.line()?;
            let words: Vec<_> = line.split_ascii_whitespace().collect();
            match words.as_slice() {
                ["PING"] => self.stream.get_mut().write_all(b"PONG\r\n")?,
                ["PONG" | "+OK"] | ["INFO", ..] => {}
                ["MSG", subject, _sid, .., size] => {
                    let message = self.payload(size)?;
                    if *subject == inbox {
                        return Ok(Some(message));
                    }
                }
                ["HMSG", subject, _sid, .., headers, size] => {
                    let mut message = self.payload(size)?;
                    if *subject != inbox {
                        continue;
                    }
                    if message.starts_with(b"NATS/1.0 503") {
                        return Ok(None);
                    }
                    let headers = headers.parse::<usize>().ok().filter(|end| *end <= message.len());
                    return Ok(Some(message.split_off(headers.ok_or_else(|| unexpected(&line))?)));
                }
                _ => return Err(unexpected(&line)),
            }
        }
    }

    /// Reads a message of as many bytes as `size` says, and the end of line after it.
    fn payload(&mut self, size: &str) -> io::Result<Vec<u8>> {
        let size: usize = size.parse().map_err(|_| unexpected(size))?;
        if size > MAX_MESSAGE {
            return Err(io::Error::other(format!("a message of {size} bytes")));
        }
        let mut message = vec![0; size + 2];
        self.stream.read_exact(&mut message)?;
        message.truncate(size);
        Ok(message)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        self.stream.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)?;
        if line.pop() != Some(b'\n') {
            let what = if line.is_empty() { "it closed the connection" } else { "it sent an endless line" };
            return Err(io::Error::other(what));
        }
        let line = String::from_utf8(line).map_err(|_| io::Error::other("it sent no text"))?;
        Ok(line.trim_end_matches('\r').to_owned())
    }
}

/// The server's own error, or a line that does not belong there.
fn unexpected(line: &str) -> io::Error {
    const SHOWN: usize = 200;
    let shown: String = line.chars().take(SHOWN).collect();
    io::Error::other(match shown.strip_prefix("-ERR ") {
        Some(error) => format!("it said: {}", error.trim_matches('\'')),
        None => format!("it said something else: {shown:?}"),
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// A client of a server that reads nothing and says this.
    fn client_of(says: &str) -> Result<Client> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let says = says.to_owned();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(says.as_bytes()).unwrap();
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = io::copy(&mut stream, &mut io::sink());
        });
        let endpoint = Endpoint { host: "127.0.0.1".into(), port, user: "app".into(), ..Endpoint::default() };
        Client::open(&endpoint)
    }

    const GREETING: &str = "INFO {\"version\":\"2.9.10\",\"max_payload\":100}\r\nPONG\r\n";

    #[test]
    fn answers_are_read_whatever_comes_between() {
        let refusal = r#"{"error":{"code":400,"err_code":10058,"description":"no"}}"#;
        let mut client = client_of(&format!(
            "{GREETING}PING\r\nINFO {{}}\r\nMSG other 1 2\r\nhi\r\n\
             MSG _INBOX.testenv.1 1 10\r\n{{\"a\": \"b\"}}\r\n\
             HMSG _INBOX.testenv.2 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n\
             MSG _INBOX.testenv.3 1 {}\r\n{refusal}\r\n",
            refusal.len()
        ))
        .unwrap();
        assert_eq!(client.version(), "2.9.10");
        assert_eq!(client.ask("INFO", &Value::Null).unwrap().unwrap(), json!({ "a": "b" }));
        assert_eq!(client.ask("INFO", &Value::Null).unwrap().unwrap_err(), Refusal::NobodyListens);
        let refusal = client.ask("INFO", &Value::Null).unwrap().unwrap_err();
        assert_eq!(refusal, Refusal::JetStream { code: 10058, description: "no".into() });
        let ended = client.ask("INFO", &Value::Null).unwrap_err();
        assert!(ended.detail.contains("closed the connection"), "{ended}");
    }

    #[test]
    fn a_server_that_talks_nonsense_is_not_believed() {
        for (says, part) in [
            ("", "closed the connection"),
            ("HTTP/1.1 400 Bad Request\r\n", "something else"),
            ("INFO {}\r\n-ERR 'Authorization Violation'\r\n", "it said: Authorization Violation"),
            (&"x".repeat(70_000), "endless line"),
        ] {
            let problem = client_of(says).unwrap_err();
            assert!(problem.detail.contains(part), "{problem}");
            assert!(problem.title.contains("did not let app in"), "{problem}");
        }
        for (says, part) in [
            ("MSG _INBOX.testenv.1 1 99999999999\r\n", "a message of"),
            ("MSG _INBOX.testenv.1 1 -1\r\n", "something else"),
            ("MSG _INBOX.testenv.1 1 3\r\n{{{\r\n", "key must be a string"),
            ("HMSG _INBOX.testenv.1 1 9 3\r\n{}\n\r\n", "something else"),
        ] {
            let mut client = client_of(&format!("{GREETING}{says}")).unwrap();
            let problem = client.ask("INFO", &Value::Null).unwrap_err();
            assert!(problem.detail.contains(part), "{problem}");
        }
    }

    #[test]
    fn what_would_break_the_protocol_is_not_sent() {
        let mut client = client_of(GREETING).unwrap();
        for subject in ["", "a b", "a\r\nPUB b 0\r\n"] {
            assert!(client.publish(subject, b"").unwrap_err().detail.contains("no subject"));
        }
        let problem = client.publish("a", &[b'x'; 101]).unwrap_err();
        assert!(problem.detail.contains("no more than 100"), "{problem}");
    }
}
