//! Faults on the way to a server, and of the server itself.

use std::fmt;
use std::time::Duration;

use testenv_api::client::{Client, ClientError};
use testenv_api::{
    Connections, Direction, Effect, Fault, FaultsRequest, FaultsStatus, ProblemKind, ServerAction,
    ServerRequest, ServerStatus,
};

use crate::error::Error;
use crate::lease::Held;
use crate::story;

/// What can go wrong between a test and its server, and with the server; see [`Postgres::faults`].
///
/// Each fault holds until its [`FaultGuard`] is dropped. Several hold together. The call returns when every open
/// connection goes by the fault, so that the next byte meets it.
///
/// Faults concern both directions and all connections, those that are open and those to come, unless
/// [`upstream`](Self::upstream), [`downstream`](Self::downstream), [`on_open`](Self::on_open) or
/// [`on_new`](Self::on_new) say otherwise:
///
/// ```no_run,test_harness
/// # use std::time::Duration;
/// # use testenv::Postgres;
/// #[testenv::test]
/// fn a_slow_database_is_borne(#[testenv(faults)] db: Postgres) -> Result<(), testenv::Error> {
///     let slow = db.faults().latency(Duration::from_millis(200))?;
///     let narrow = db.faults().downstream().bandwidth(64 << 10)?;
///     // … whatever the code under test does over db.url() takes its time …
///     drop((slow, narrow));
///     // … and now it does not.
///     Ok(())
/// }
/// ```
///
/// [`Postgres::faults`]: crate::Postgres::faults
#[derive(Clone, Copy, Debug)]
#[must_use = "nothing happens until a fault is named"]
pub struct Faults<'a> {
    held: &'a Held,
    direction: Direction,
    connections: Connections,
}

/// A fault that holds until this is dropped.
#[must_use = "the fault ends when this is dropped; `.leave()` lets it hold until the lease ends"]
pub struct FaultGuard {
    client: Client,
    lease: String,
    ends: Option<End>,
}

/// What ends a fault.
#[derive(Debug)]
enum End {
    /// The removal of the fault of that name.
    Remove(String),
    /// Letting the server go on.
    Resume,
}

impl<'a> Faults<'a> {
    pub(crate) fn new(held: &'a Held) -> Self {
        Self { held, direction: Direction::Both, connections: Connections::All }
    }

    /// Only from the test to the server.
    pub fn upstream(self) -> Self {
        Self { direction: Direction::Up, ..self }
    }

    /// Only from the server to the test.
    pub fn downstream(self) -> Self {
        Self { direction: Direction::Down, ..self }
    }

    /// Only on connections that are open now.
    pub fn on_open(self) -> Self {
        Self { connections: Connections::Open, ..self }
    }

    /// Only on connections that are opened from now on.
    pub fn on_new(self) -> Self {
        Self { connections: Connections::New, ..self }
    }

    /// Bytes come later, in their order. Both directions are meant unless one is named, so that an answer comes twice
    /// as late.
    ///
    /// # Errors
    /// Those of [`Faults::add`].
    pub fn latency(&self, latency: Duration) -> Result<FaultGuard, Error> {
        self.add(Effect::Latency { latency_ms: millis(latency), jitter_ms: 0 })
    }

    /// Bytes come up to so much later, at random: the same with the same `TESTENV_SEED`.
    ///
    /// # Errors
    /// Those of [`Faults::add`].
    pub fn jitter(&self, jitter: Duration) -> Result<FaultGuard, Error> {
        self.add(Effect::Latency { latency_ms: 0, jitter_ms: millis(jitter) })
    }

    /// Of a hundred pieces so many are lost, at random. TCP sends them again, so nothing is missing: they come 200 ms
    /// later, and what follows waits behind them.
    ///
    /// # Errors
    /// Those of [`Faults::add`].
    pub fn loss(&self, percent: u8) -> Result<FaultGuard, Error> {
        self.add(Effect::Loss { percent, retransmit_ms: Effect::RETRANSMIT_MS })
    }

    /// No more than so many bytes a second, in each direction.
    ///
    /// # Errors
    /// Those of [`Faults::add`].
    pub fn bandwidth(&self, bytes_per_second: u64) -> Result<FaultGuard, Error> {
        self.add(Effect::Bandwidth { bytes_per_second })
    }

    /// Bytes wait until the fault ends, and come then: a network that was away for a while.
    ///
    /// # Errors
    /// Those of [`Faults::add`].
    pub fn stall(&self) -> Result<FaultGuard, Error> {
        self.add(Effect::Stall)
    }

    /// Bytes are swallowed, and nobody is told. A connection that has lost bytes is reset when the fault ends.
    ///
    /// # Errors
    /// Those of [`Faults::add`].
    pub fn cut(&self) -> Result<FaultGuard, Error> {
        self.add(Effect::Cut)
    }

    /// The server hears nothing more; what it says still arrives.
    ///
    /// # Errors
    /// Those of [`Faults::add`].
    pub fn cut_upstream(&self) -> Result<FaultGuard, Error> {
        self.upstream().cut()
    }

    /// The server hears and does what it is told; what it answers does not arrive.
    ///
    /// # Errors
    /// Those of [`Faults::add`].
    pub fn cut_downstream(&self) -> Result<FaultGuard, Error> {
        self.downstream().cut()
    }

    /// The end of a connection is passed on later.
    ///
    /// # Errors
    /// Those of [`Faults::add`].
    pub fn slow_close(&self, delay: Duration) -> Result<FaultGuard, Error> {
        self.add(Effect::SlowClose { delay_ms: millis(delay) })
    }

    /// Connections are closed after so many bytes from now on, counted for each connection and direction.
    ///
    /// # Errors
    /// Those of [`Faults::add`].
    pub fn limit_bytes(&self, bytes: u64) -> Result<FaultGuard, Error> {
        self.add(Effect::LimitBytes { bytes })
    }

    /// New connections are refused, as if no server listened.
    ///
    /// # Errors
    /// Those of [`Faults::add`].
    pub fn refuse(&self) -> Result<FaultGuard, Error> {
        self.add(Effect::Refuse)
    }

    /// Resets the connections that are open now (RST), at once; new ones work. To have new ones reset too, add
    /// [`Effect::Reset`].
    ///
    /// # Errors
    /// Those of [`Faults::add`].
    pub fn reset(&self) -> Result<(), Error> {
        self.on_open().add(Effect::Reset)?.remove()
    }

    /// Adds a fault by its effect.
    ///
    /// # Errors
    /// When the lease did not ask for faults, the effect makes no sense, or the broker does not answer.
    pub fn add(&self, effect: Effect) -> Result<FaultGuard, Error> {
        let fault =
            Fault { name: String::new(), direction: self.direction, connections: self.connections, effect };
        let request = FaultsRequest { add: vec![fault] };
        let added: Vec<Fault> = self.held.client.post(&self.held.path("faults"), &request)?;
        let name = added.into_iter().map(|fault| fault.name).next();
        Ok(self.guard(name.map(End::Remove)))
    }

    /// The faults that hold, how many connections there are, and the seed.
    ///
    /// # Errors
    /// When the lease did not ask for faults, or the broker does not answer.
    pub fn list(&self) -> Result<FaultsStatus, Error> {
        Ok(self.held.client.get(&self.held.path("faults"))?)
    }

    /// Ends all faults on the way to the server, whoever added them.
    ///
    /// # Errors
    /// When the lease did not ask for faults, or the broker does not answer.
    pub fn clear(&self) -> Result<(), Error> {
        Ok(self.held.client.delete::<FaultsStatus>(&self.held.path("faults")).map(drop)?)
    }

    /// Stops all processes of the server where they are (SIGSTOP): connections stay, nobody answers. It goes on when
    /// the guard is dropped.
    ///
    /// This, [`resume`](Self::resume), [`kill`](Self::kill) and [`restart`](Self::restart) need no proxy, so they work
    /// for leases that did not ask for faults, but only with [`Isolation::Server`](crate::Isolation::Server).
    ///
    /// # Errors
    /// When other leases use the server too, it has ended, or the broker does not answer.
    pub fn pause(&self) -> Result<FaultGuard, Error> {
        self.act(ServerAction::Pause)?;
        Ok(self.guard(Some(End::Resume)))
    }

    /// Lets a paused server go on, as the end of the guard does.
    ///
    /// # Errors
    /// Those of [`Faults::pause`].
    pub fn resume(&self) -> Result<(), Error> {
        self.act(ServerAction::Resume)
    }

    /// Kills all processes of the server (SIGKILL); returns when they are gone. Its connections end, and new ones are
    /// refused.
    ///
    /// # Errors
    /// Those of [`Faults::pause`].
    pub fn kill(&self) -> Result<(), Error> {
        self.act(ServerAction::Kill)
    }

    /// Kills the server and starts it again on its data.
    ///
    /// # Errors
    /// Those of [`Faults::pause`], or that the broker cannot restart this server.
    pub fn restart(&self) -> Result<(), Error> {
        self.act(ServerAction::Restart)
    }

    fn act(&self, action: ServerAction) -> Result<(), Error> {
        Ok(act(&self.held.client, &self.held.lease.id, action)?)
    }

    fn guard(&self, ends: Option<End>) -> FaultGuard {
        FaultGuard { client: self.held.client.clone(), lease: self.held.lease.id.clone(), ends }
    }
}

impl FaultGuard {
    /// Ends the fault now, as dropping does, and says whether that worked.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub fn remove(mut self) -> Result<(), Error> {
        Ok(self.end()?)
    }

    /// Lets the fault hold until [`Faults::clear`] or the end of the lease; of a paused server, until
    /// [`Faults::resume`].
    pub fn leave(mut self) {
        self.ends = None;
    }

    fn end(&mut self) -> Result<(), ClientError> {
        let ended = match self.ends.take() {
            Some(End::Remove(name)) => self
                .client
                .delete::<FaultsStatus>(&format!("/v1/leases/{}/faults/{name}", self.lease))
                .map(drop),
            Some(End::Resume) => act(&self.client, &self.lease, ServerAction::Resume),
            None => Ok(()),
        };
        match ended {
            // It was cleared, or the lease has ended, and the fault with it.
            Err(ClientError::Problem(problem)) if problem.kind == ProblemKind::NotFound => Ok(()),
            ended => ended,
        }
    }
}

impl Drop for FaultGuard {
    fn drop(&mut self) {
        match self.end() {
            Err(error) if !error.broker_is_gone() => story::complain(&error.into()),
            _ => {}
        }
    }
}

impl fmt::Debug for FaultGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultGuard").field("lease", &self.lease).field("ends", &self.ends).finish()
    }
}

fn act(client: &Client, lease: &str, action: ServerAction) -> Result<(), ClientError> {
    let path = format!("/v1/leases/{lease}/server");
    client.post::<ServerStatus>(&path, &ServerRequest { action }).map(drop)
}

/// Whole milliseconds, no less than what was asked for.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rounded_up() {
        assert_eq!(millis(Duration::ZERO), 0);
        assert_eq!(millis(Duration::from_micros(1)), 1);
        assert_eq!(millis(Duration::from_millis(20)), 20);
        assert_eq!(millis(Duration::MAX), u64::MAX);
    }
}
