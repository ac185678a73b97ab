//! A client of NATS for tests: publishes, subscribes, asks.

use std::collections::VecDeque;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};
use testenv_api::Lease;

/// A connection to NATS.
#[derive(Debug)]
pub struct Nats {
    stream: BufReader<TcpStream>,
    asked: u64,
    /// Messages that came while something else was waited for.
    early: VecDeque<String>,
}

impl Nats {
    /// Connects as the lease says.
    ///
    /// # Errors
    /// What the server says.
    pub fn connect(lease: &Lease) -> Result<Self, String> {
        Self::connect_as(lease, &lease.user, &lease.password)
    }

    /// Connects with another login.
    ///
    /// # Errors
    /// What the server says.
    pub fn connect_as(lease: &Lease, user: &str, password: &str) -> Result<Self, String> {
        let said = |error: io::Error| error.to_string();
        let stream = TcpStream::connect((lease.host.as_str(), lease.port)).map_err(said)?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).map_err(said)?;
        let mut nats = Self { stream: BufReader::new(stream), asked: 0, early: VecDeque::new() };
        let mut login = json!({ "verbose": false, "headers": true, "no_responders": true });
        (login["user"], login["pass"]) = (user.into(), password.into());
        nats.send(&format!("CONNECT {login}\r\nSUB inbox.* 1\r\n"))?;
        nats.flush()?;
        Ok(nats)
    }

    /// Publishes a message.
    ///
    /// # Errors
    /// What the server says.
    pub fn publish(&mut self, subject: &str, message: &str) -> Result<(), String> {
        self.send(&format!("PUB {subject} {}\r\n{message}\r\n", message.len()))?;
        self.flush()
    }

    /// Subscribes to a subject.
    ///
    /// # Errors
    /// What the server says.
    pub fn subscribe(&mut self, subject: &str) -> Result<(), String> {
        self.send(&format!("SUB {subject} 2\r\n"))?;
        self.flush()
    }

    /// The next message of a subscription.
    ///
    /// # Errors
    /// What the server says, or that none came.
    pub fn message(&mut self) -> Result<String, String> {
        if let Some(message) = self.early.pop_front() {
            return Ok(message);
        }
        loop {
            if let Line::Message(message) = self.line()? {
                return Ok(message);
            }
        }
    }

    /// Publishes a message and waits for the answer to it.
    ///
    /// # Errors
    /// What the server says, or JetStream.
    pub fn ask(&mut self, subject: &str, message: &str) -> Result<Value, String> {
        self.asked += 1;
        self.send(&format!("PUB {subject} inbox.{} {}\r\n{message}\r\n", self.asked, message.len()))?;
        let answer = self.message()?;
        let answer: Value = serde_json::from_str(&answer).map_err(|error| format!("{error}: {answer:?}"))?;
        match answer.get("error") {
            Some(error) => Err(error.to_string()),
            None => Ok(answer),
        }
    }

    /// Names of the streams.
    ///
    /// # Errors
    /// What the server says, or JetStream.
    pub fn streams(&mut self) -> Result<Vec<String>, String> {
        let answer = self.ask("$JS.API.STREAM.NAMES", "")?;
        let names = answer["streams"].as_array().into_iter().flatten();
        let mut names: Vec<_> = names.filter_map(Value::as_str).map(str::to_owned).collect();
        names.sort();
        Ok(names)
    }

    fn send(&mut self, text: &str) -> Result<(), String> {
        self.stream.get_mut().write_all(text.as_bytes()).map_err(|error| error.to_string())
    }

    /// Waits until the server has done all that it was told.
    fn flush(&mut self) -> Result<(), String> {
        self.send("PING\r\n")?;
        loop {
            match self.line()? {
                Line::Pong => return Ok(()),
                Line::Message(message) => self.early.push_back(message),
                Line::Other => {}
            }
        }
    }

    fn line(&mut self) -> Result<Line, String> {
        let mut line = String::new();
        self.stream.read_line(&mut line).map_err(|error| error.to_string())?;
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        match words.as_slice() {
            ["PONG"] => Ok(Line::Pong),
            ["MSG" | "HMSG", .., size] => {
                let mut message = vec![0; size.parse::<usize>().map_err(|error| error.to_string())? + 2];
                self.stream.read_exact(&mut message).map_err(|error| error.to_string())?;
                Ok(Line::Message(String::from_utf8_lossy(&message).trim_end().to_owned()))
            }
            ["INFO", ..] => Ok(Line::Other),
            ["PING"] => self.send("PONG\r\n").map(|()| Line::Other),
            _ => Err(if line.is_empty() { "the server closed the connection".into() } else { line }),
        }
    }
}

enum Line {
    Pong,
    Message(String),
    Other,
}
