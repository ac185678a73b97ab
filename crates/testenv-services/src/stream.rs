//! A connection to a server: over its unix socket where there is one, else over TCP.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::service::Endpoint;

/// How long connecting over TCP may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection to a server.
#[derive(Debug)]
pub(crate) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    /// Connects: to the socket if the endpoint has a directory for such, else to its address.
    pub(crate) fn connect(endpoint: &Endpoint, socket: &Path) -> io::Result<Self> {
        if !endpoint.is_remote() {
            return UnixStream::connect(socket).map(Self::Unix);
        }
        Self::connect_tcp(&endpoint.host, endpoint.port)
    }

    /// Connects to an address, or to each of a name's in turn.
    pub(crate) fn connect_tcp(host: &str, port: u16) -> io::Result<Self> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"));
        for address in (host.trim_matches(['[', ']']), port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(Self::Tcp(stream));
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Bounds each read and each write that follows.
    pub(crate) fn set_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.set_read_timeout(timeout).and(stream.set_write_timeout(timeout)),
            Self::Tcp(stream) => stream.set_read_timeout(timeout).and(stream.set_write_timeout(timeout)),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(buffer),
            Self::Tcp(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(buffer),
            Self::Tcp(stream) => stream.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection whose reads and writes all end by one point in time, however slowly the other side sends.
#[derive(Debug)]
pub(crate) struct Timed {
    stream: Stream,
    /// When everything on it has to be done.
    pub(crate) deadline: Instant,
}

impl Timed {
    /// Connects to an address, or to each of a name's in turn.
    pub(crate) fn connect_tcp(host: &str, port: u16, deadline: Instant) -> io::Result<Self> {
        Ok(Self { stream: Stream::connect_tcp(host, port)?, deadline })
    }

    /// Bounds the next read or write by the time that is left.
    fn bound(&self) -> io::Result<()> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_timeout(Some(left))
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.bound()?;
        self.stream.read(buffer).map_err(timed_out)
    }
}

impl Write for Timed {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.bound()?;
        self.stream.write(buffer).map_err(timed_out)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A socket says `WouldBlock` when its time is up.
fn timed_out(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock { io::ErrorKind::TimedOut.into() } else { error }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn a_server_that_dribbles_is_not_waited_for_longer_than_one_that_is_silent() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            while stream.write_all(b".").is_ok() {
                thread::sleep(Duration::from_millis(10));
            }
        });
        let deadline = Instant::now() + Duration::from_millis(200);
        let mut stream = Timed::connect_tcp("127.0.0.1", port, deadline).unwrap();
        let error = stream.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(stream);
        server.join().unwrap();
    }
}
