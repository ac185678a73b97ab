//! A company's own server, and how tests speak to it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use testenv_api::Lease;

/// The server, in Python.
pub const COMPANY: &str = include_str!("../fixtures/company.py");

/// A request in HTTP with the lease's login; status and body of the answer.
///
/// # Errors
/// What became of the connection.
pub fn http(lease: &Lease, method: &str, path: &str, body: &str) -> Result<(u16, String), String> {
    let said = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect((lease.host.as_str(), lease.port)).map_err(said)?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).map_err(said)?;
    let (user, password, length) = (&lease.user, &lease.password, body.len());
    let request = format!(
        "{method} {path} HTTP/1.0\r\nhost: test\r\nauthorization: Bearer {user}:{password}\r\n\
         content-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).map_err(said)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(said)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| format!("no answer: {answer:?}"))?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.ok_or_else(|| format!("no status: {head:?}"))?, body.to_owned()))
}
