//! One connection through the proxy: bytes, ends and resets are passed on, each way by itself.

use std::sync::Arc;
use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::watch;

use super::line::{Ending, Line, Next};
use super::plan::{Conditions, Plan, Way};
use super::random::Random;

/// Bytes that are read at once.
const BUFFER: usize = 32 << 10;
/// How often a connection that ends is read before whatever still comes makes its end a reset.
const MAX_DRAINS: usize = 64;

/// How each side of a connection learns that it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Over {
    client: Close,
    server: Close,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Close {
    /// By the end of what it reads.
    Orderly,
    /// By a reset.
    Reset,
}

impl Over {
    /// Both sides are told that it has ended.
    const CLOSED: Self = Self { client: Close::Orderly, server: Close::Orderly };
    /// Both sides are told that it is lost.
    pub(super) const RESET: Self = Self { client: Close::Reset, server: Close::Reset };

    /// Whoever is at the end of this way is told that the connection is lost.
    fn reset_at_the_end_of(way: Way) -> Self {
        match way {
            Way::Up => Self { server: Close::Reset, ..Self::CLOSED },
            Way::Down => Self { client: Close::Reset, ..Self::CLOSED },
        }
    }

    /// Closes both sides as they are to learn it.
    pub(super) fn close(self, client: &TcpStream, server: Option<&TcpStream>) {
        self.client.close(client);
        if let Some(server) = server {
            self.server.close(server);
        }
    }
}

impl Close {
    /// Prepares a connection that is dropped next.
    fn close(self, stream: &TcpStream) {
        match self {
            Self::Reset => drop(stream.set_zero_linger()),
            Self::Orderly => {
                let _ = rustix::net::shutdown(stream, rustix::net::Shutdown::Write);
                // What has come and was never read would make the kernel send a reset.
                let mut unread = [0; 4096];
                let mut is_more = || stream.try_read(&mut unread).is_ok_and(|count| count > 0);
                (0..MAX_DRAINS).all(|_| is_more());
            }
        }
    }
}

/// What a plan says about the whole of a connection: whether it is reset, and who is told so.
pub(super) fn verdict(plan: &Plan, number: u64) -> Option<Over> {
    let is_reset = |way| Conditions::of(plan, number, way).reset;
    match (is_reset(Way::Up), is_reset(Way::Down)) {
        (true, true) => Some(Over::RESET),
        (true, false) => Some(Over::reset_at_the_end_of(Way::Up)),
        (false, true) => Some(Over::reset_at_the_end_of(Way::Down)),
        (false, false) => None,
    }
}

/// Carries a connection to its end, by whichever plan holds.
pub(super) async fn carry(
    client: &mut TcpStream,
    server: &mut TcpStream,
    number: u64,
    seed: u64,
    plans: &mut watch::Receiver<Arc<Plan>>,
) -> Over {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let mut up = OneWay::new(Way::Up, number, seed);
    let mut down = OneWay::new(Way::Down, number, seed);
    // Held for as long as it is followed: who has changed the plan waits until the last one is let go.
    let mut plan = Arc::default();
    loop {
        let newest = Arc::clone(&plans.borrow_and_update());
        if !Arc::ptr_eq(&plan, &newest) {
            plan = newest;
            if let Some(over) = verdict(&plan, number) {
                return over;
            }
            if !up.follow(&plan, number) || !down.follow(&plan, number) {
                return Over::RESET;
            }
        }
        let (this, other, ended) = tokio::select! {
            changed = plans.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return Over::CLOSED,
            },
            ended = up.flow(&mut from_client, &mut to_server), if !up.is_done => (&mut up, &mut down, ended),
            ended = down.flow(&mut from_server, &mut to_client), if !down.is_done => (&mut down, &mut up, ended),
        };
        match ended {
            Ended::Limit => return Over::CLOSED,
            Ended::By(Ending::Reset) => return Over::reset_at_the_end_of(this.way),
            Ended::By(Ending::Closed) if other.is_done => return Over::CLOSED,
            Ended::By(Ending::Closed) => this.is_done = true,
            Ended::Broken if other.is_done => return Over::reset_at_the_end_of(other.way),
            Ended::Broken => {
                this.is_done = true;
                other.lose_sender();
            }
        }
    }
}

/// How one way of a connection came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// The sender has ended it, and the receiver is to be told, or has been if the end is an orderly one.
    By(Ending),
    /// The receiver takes nothing any more.
    Broken,
    /// As much has passed as may.
    Limit,
}

/// One way of a connection. Everything it knows is in here, so that [`OneWay::flow`] can be dropped at any time.
struct OneWay {
    way: Way,
    line: Line,
    /// What was read last while no fault held, and how much of it is still to be written.
    buffer: Box<[u8; BUFFER]>,
    unwritten: std::ops::Range<usize>,
    /// Whether its end has been passed on, or nobody is there to take it.
    is_done: bool,
    /// Whether its sender is known to have lost the connection, so that its end is a reset.
    has_lost_sender: bool,
}

impl OneWay {
    fn new(way: Way, number: u64, seed: u64) -> Self {
        Self {
            way,
            line: Line::new(Random::new(seed, number, way)),
            buffer: Box::new([0; BUFFER]),
            unwritten: 0..0,
            is_done: false,
            has_lost_sender: false,
        }
    }

    /// Goes by another plan. Whether the connection makes sense under it.
    fn follow(&mut self, plan: &Plan, number: u64) -> bool {
        let now = Instant::now();
        // It was read under the old conditions, which were clear.
        self.line.send(&self.buffer[self.unwritten.clone()], now);
        self.unwritten = 0..0;
        self.line.change(Conditions::of(plan, number, self.way), now);
        !self.line.is_torn()
    }

    /// The other way is broken: whoever sends this way has lost the connection.
    fn lose_sender(&mut self) {
        self.has_lost_sender = true;
        if self.line.has_ended() {
            self.line.end(Ending::Reset, Instant::now());
        }
    }

    /// Passes on what comes until it ends.
    async fn flow(&mut self, from: &mut ReadHalf<'_>, to: &mut WriteHalf<'_>) -> Ended {
        loop {
            let ended = if self.line.is_clear() {
                self.forward(from, to).await
            } else {
                match self.step(from, to).await {
                    Some(ended) => ended,
                    None => continue,
                }
            };
            if ended == Ended::By(Ending::Closed) {
                let _ = rustix::net::shutdown(to.as_ref(), rustix::net::Shutdown::Write);
            }
            return ended;
        }
    }

    /// The quick way, as long as no fault holds: what is read is written.
    async fn forward(&mut self, from: &mut ReadHalf<'_>, to: &mut WriteHalf<'_>) -> Ended {
        loop {
            while !self.unwritten.is_empty() {
                match to.write(&self.buffer[self.unwritten.clone()]).await {
                    Ok(count) => self.unwritten.start += count,
                    Err(_) => return Ended::Broken,
                }
            }
            match from.read(&mut self.buffer[..]).await {
                Ok(count) if count > 0 => self.unwritten = 0..count,
                read => return Ended::By(self.ending(read.is_ok())),
            }
        }
    }

    /// One step under faults: something is read, or written, or becomes due.
    async fn step(&mut self, from: &mut ReadHalf<'_>, to: &mut WriteHalf<'_>) -> Option<Ended> {
        let (bytes, due) = match self.line.next(Instant::now()) {
            Next::Limit => return Some(Ended::Limit),
            Next::End(ending) => return Some(Ended::By(ending)),
            Next::Bytes(bytes) => (Some(bytes), None),
            Next::At(due) => (None, Some(due)),
            Next::Nothing => (None, None),
        };
        tokio::select! {
            written = to.write(bytes.unwrap_or_default()), if bytes.is_some() => match written {
                Ok(count) => self.line.passed(count, Instant::now()),
                Err(_) => return Some(Ended::Broken),
            },
            read = from.read(&mut self.buffer[..]), if self.line.has_room() => match read {
                Ok(count) if count > 0 => self.line.send(&self.buffer[..count], Instant::now()),
                read => self.line.end(self.ending(read.is_ok()), Instant::now()),
            },
            () = sleep_until(due), if due.is_some() => {}
            // Full, stalled or cut: only another plan helps, and that drops this future.
            else => std::future::pending().await,
        }
        None
    }

    /// What the end of what can be read means.
    fn ending(&self, is_orderly: bool) -> Ending {
        if is_orderly && !self.has_lost_sender { Ending::Closed } else { Ending::Reset }
    }
}

async fn sleep_until(due: Option<Instant>) {
    if let Some(due) = due {
        tokio::time::sleep_until(due.into()).await;
    }
}
