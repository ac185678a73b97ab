//! TCP ports for servers that cannot choose one themselves.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// Hands out ports of a range in turn, skipping those that somebody listens on.
///
/// Between the look and the server's own bind somebody else can take a port; a server that then fails to
/// start is started again on the next one.
#[derive(Debug)]
pub struct Ports {
    first: u16,
    count: u32,
    cursor: AtomicU32,
}

impl Ports {
    /// Ports from `first` to `last`, starting at a place that differs from process to process.
    pub fn new(first: u16, last: u16) -> Self {
        let count = u32::from(last - first) + 1;
        Self { first, count, cursor: AtomicU32::new(std::process::id().wrapping_mul(97) % count) }
    }

    /// A port nobody listens on now, or `None` when all are taken.
    pub fn next(&self) -> Option<u16> {
        (0..self.count).find_map(|_| {
            let turn = self.cursor.fetch_add(1, Ordering::Relaxed) % self.count;
            let port = self.first + u16::try_from(turn).expect("the range is of u16");
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok().then_some(port)
        })
    }

    /// The range, for messages.
    pub fn range(&self) -> (u16, u16) {
        (self.first, self.first + u16::try_from(self.count - 1).expect("the range is of u16"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skips_a_port_in_use_and_says_when_none_is_left() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        assert_eq!(Ports::new(port, port).next(), None);
        drop(taken);
        assert_eq!(Ports::new(port, port).next(), Some(port));
    }
}
