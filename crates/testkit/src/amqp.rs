//! A client of RabbitMQ for tests, as far as AMQP 0-9-1 is needed: declares, publishes, gets.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use testenv_api::Lease;

/// A connection to RabbitMQ with one channel.
#[derive(Debug)]
pub struct Amqp {
    stream: TcpStream,
}

/// Class and number of a method.
type Method = (u16, u16);

impl Amqp {
    /// Connects as the lease says.
    ///
    /// # Errors
    /// What the server says.
    pub fn connect(lease: &Lease) -> Result<Self, String> {
        Self::connect_as(lease, &lease.user, &lease.password, &lease.database)
    }

    /// Connects with another login, or to another virtual host.
    ///
    /// # Errors
    /// What the server says.
    pub fn connect_as(lease: &Lease, user: &str, password: &str, vhost: &str) -> Result<Self, String> {
        let said = |error: io::Error| error.to_string();
        let stream = TcpStream::connect((lease.host.as_str(), lease.port)).map_err(said)?;
        stream.set_nodelay(true).map_err(said)?;
        stream.set_read_timeout(Some(Duration::from_secs(20))).map_err(said)?;
        let mut amqp = Self { stream };
        amqp.stream.write_all(b"AMQP\0\0\x09\x01").map_err(said)?;
        amqp.expect((10, 10))?;
        let tells = [text("authentication_failure_close"), vec![b't', 1]].concat();
        let properties = [text("capabilities"), vec![b'F'], long(&tells)].concat();
        let login = long(format!("\0{user}\0{password}").as_bytes());
        amqp.send(0, (10, 11), &[long(&properties), text("PLAIN"), login, text("en_US")].concat())?;
        let limits = amqp.expect((10, 30))?;
        amqp.send(0, (10, 31), &[&limits[..6], &[0, 0]].concat())?;
        amqp.send(0, (10, 40), &[text(vhost), vec![0, 0]].concat())?;
        amqp.expect((10, 41))?;
        amqp.open_channel()?;
        Ok(amqp)
    }

    /// Declares a durable queue.
    ///
    /// # Errors
    /// What the server says.
    pub fn declare(&mut self, queue: &str) -> Result<(), String> {
        self.declare_with(queue, 0b10).map(drop)
    }

    /// How many messages are in a queue.
    ///
    /// # Errors
    /// What the server says, such as that there is no such queue.
    pub fn count(&mut self, queue: &str) -> Result<u32, String> {
        self.declare_with(queue, 0b1)
    }

    /// Deletes a queue with all that is in it.
    ///
    /// # Errors
    /// What the server says.
    pub fn delete(&mut self, queue: &str) -> Result<(), String> {
        self.send(1, (50, 40), &[vec![0, 0], text(queue), vec![0]].concat())?;
        self.expect((50, 41)).map(drop)
    }

    /// Publishes a persistent message.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn publish(&mut self, exchange: &str, key: &str, body: &str) -> Result<(), String> {
        self.send(1, (60, 40), &[vec![0, 0], text(exchange), text(key), vec![0]].concat())?;
        // The only property is that it is persistent.
        let size = (body.len() as u64).to_be_bytes();
        let header = [&[0, 60, 0, 0], &size[..], &[0x10, 0, 2]].concat();
        self.frame(2, 1, &header)?;
        self.frame(3, 1, body.as_bytes())
    }

    /// Takes a message out of a queue.
    ///
    /// # Errors
    /// What the server says.
    pub fn get(&mut self, queue: &str) -> Result<Option<String>, String> {
        self.get_with(queue, 1)
    }

    /// All messages that are in a queue, which stay there.
    ///
    /// # Errors
    /// What the server says.
    pub fn look(&mut self, queue: &str) -> Result<Vec<String>, String> {
        let mut messages = Vec::new();
        while let Some(message) = self.get_with(queue, 0)? {
            messages.push(message);
        }
        // Nothing was acknowledged, and all of it is given back.
        self.send(1, (60, 120), &[&0_u64.to_be_bytes()[..], &[0b11]].concat())?;
        self.count(queue)?;
        Ok(messages)
    }

    fn get_with(&mut self, queue: &str, no_acknowledgement: u8) -> Result<Option<String>, String> {
        self.send(1, (60, 70), &[vec![0, 0], text(queue), vec![no_acknowledgement]].concat())?;
        let mut body = None;
        loop {
            let (kind, payload) = self.read()?;
            match (kind, method_of(&payload)) {
                (1, (60, 72)) => return Ok(None),
                (1, (60, 71)) => {}
                (1, _) => return Err(self.refusal(&payload)),
                (2, _) => body = Some(String::new()),
                (3, _) => return Ok(Some(String::from_utf8_lossy(&payload).into_owned())),
                _ if body.is_some() => return Ok(body),
                _ => {}
            }
        }
    }

    fn declare_with(&mut self, queue: &str, bits: u8) -> Result<u32, String> {
        self.send(1, (50, 10), &[vec![0, 0], text(queue), vec![bits], long(&[])].concat())?;
        let answer = self.expect((50, 11))?;
        let count = &answer[usize::from(answer[0]) + 1..];
        Ok(u32::from_be_bytes(count[..4].try_into().expect("four bytes")))
    }

    fn open_channel(&mut self) -> Result<(), String> {
        self.send(1, (20, 10), &[0])?;
        self.expect((20, 11)).map(drop)
    }

    /// Reads until a method comes, and gives back its arguments if it is the expected one.
    fn expect(&mut self, expected: Method) -> Result<Vec<u8>, String> {
        loop {
            let (kind, payload) = self.read()?;
            if kind != 1 {
                continue;
            }
            if method_of(&payload) == expected {
                return Ok(payload[4..].to_vec());
            }
            return Err(self.refusal(&payload));
        }
    }

    /// The text of a refusal. The channel that it closes is opened anew.
    fn refusal(&mut self, payload: &[u8]) -> String {
        let said = match payload.get(7..) {
            Some(said) => {
                String::from_utf8_lossy(&said[..usize::from(payload[6]).min(said.len())]).into_owned()
            }
            None => format!("{payload:?}"),
        };
        if method_of(payload) == (20, 40) {
            let _ = self.send(1, (20, 41), &[]);
            let _ = self.open_channel();
        }
        said
    }

    fn send(&mut self, channel: u8, (class, number): Method, arguments: &[u8]) -> Result<(), String> {
        let payload = [&class.to_be_bytes()[..], &number.to_be_bytes(), arguments].concat();
        self.frame(1, channel, &payload)
    }

    fn frame(&mut self, kind: u8, channel: u8, payload: &[u8]) -> Result<(), String> {
        let frame = [&[kind, 0, channel], long(payload).as_slice(), &[0xce]].concat();
        self.stream.write_all(&frame).map_err(|error| error.to_string())
    }

    /// Reads a frame: its kind and its payload.
    fn read(&mut self) -> Result<(u8, Vec<u8>), String> {
        let mut head = [0; 7];
        self.stream.read_exact(&mut head).map_err(|error| error.to_string())?;
        let size = u32::from_be_bytes(head[3..].try_into().expect("four bytes")) as usize;
        let mut payload = vec![0; size + 1];
        self.stream.read_exact(&mut payload).map_err(|error| error.to_string())?;
        payload.pop();
        Ok((head[0], payload))
    }
}

fn method_of(payload: &[u8]) -> Method {
    match payload {
        [a, b, c, d, ..] => (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])),
        _ => (0, 0),
    }
}

/// A text with its length before it.
fn text(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).expect("texts of tests are short");
    [&[length], text.as_bytes()].concat()
}

/// Bytes with their length before them.
fn long(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("texts of tests are short");
    [&length.to_be_bytes()[..], bytes].concat()
}
