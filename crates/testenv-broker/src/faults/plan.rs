//! The faults of a lease, and what they come to for one way of one connection. Pure.

use std::time::Duration;

use testenv_api::{Connections, Direction, Effect, Fault};
use tokio::sync::mpsc;

/// One way of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// To the server.
    Up,
    /// To the test.
    Down,
}

/// The faults that hold, until the next plan takes this one's place.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) placed: Vec<Placed>,
    /// Closed when the last connection has let go of this plan.
    pub(super) _follower: Option<mpsc::Sender<()>>,
}

/// A fault in its place.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    /// Unlike that of every other fault of the lease, also of one that had its name.
    pub(super) id: u64,
    /// How many connections there had been when it was added.
    pub(super) after: u64,
    pub(super) fault: Fault,
}

/// What the faults come to for one way of one connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Conditions {
    pub(super) latency: Duration,
    pub(super) jitter: Duration,
    /// How likely a piece is lost, in percent, and when it is sent again.
    pub(super) losses: Vec<(u8, Duration)>,
    pub(super) bytes_per_second: Option<u64>,
    pub(super) close_delay: Duration,
    /// Bytes that still pass, each limit with the id of its fault.
    pub(super) limits: Vec<(u64, u64)>,
    pub(super) stalled: bool,
    pub(super) cut: bool,
    pub(super) reset: bool,
}

impl Placed {
    fn concerns(&self, connection: u64, way: Way) -> bool {
        let connection_is_meant = match self.fault.connections {
            Connections::All => true,
            Connections::Open => connection < self.after,
            Connections::New => connection >= self.after,
        };
        let way_is_meant = match self.fault.direction {
            Direction::Both => true,
            Direction::Up => way == Way::Up,
            Direction::Down => way == Way::Down,
        };
        connection_is_meant && way_is_meant
    }
}

impl Conditions {
    /// What a plan means for one way of the connection with this number.
    pub(super) fn of(plan: &Plan, connection: u64, way: Way) -> Self {
        let mut conditions = Self::default();
        for placed in plan.placed.iter().filter(|placed| placed.concerns(connection, way)) {
            conditions.add(placed);
        }
        conditions
    }

    /// Whether nothing is to be done but to pass bytes on.
    pub(super) fn is_clear(&self) -> bool {
        *self == Self::default()
    }

    /// The longest time that something may be on its way.
    pub(super) fn longest(&self) -> Duration {
        let losses = self.losses.iter().map(|(_, first)| retransmissions(*first, MAX_RETRANSMISSIONS));
        losses.fold(self.latency + self.jitter, |sum, one| sum + one)
    }

    fn add(&mut self, placed: &Placed) {
        match placed.fault.effect {
            Effect::Latency { latency_ms, jitter_ms } => {
                self.latency += Duration::from_millis(latency_ms);
                self.jitter += Duration::from_millis(jitter_ms);
            }
            Effect::Loss { percent, retransmit_ms } => {
                self.losses.push((percent, Duration::from_millis(retransmit_ms)));
            }
            Effect::Bandwidth { bytes_per_second } => {
                let least = self.bytes_per_second.map_or(bytes_per_second, |it| it.min(bytes_per_second));
                self.bytes_per_second = Some(least);
            }
            Effect::SlowClose { delay_ms } => self.close_delay += Duration::from_millis(delay_ms),
            Effect::LimitBytes { bytes } => self.limits.push((placed.id, bytes)),
            Effect::Stall => self.stalled = true,
            Effect::Cut => self.cut = true,
            Effect::Reset => self.reset = true,
            Effect::Refuse => {}
        }
    }
}

/// How often one piece is lost at the most.
pub(super) const MAX_RETRANSMISSIONS: u32 = 6;

/// How long it takes to send something again so many times, when each time takes twice as long as the one before.
pub(super) fn retransmissions(first: Duration, times: u32) -> Duration {
    first * ((1 << times) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(faults: &[(u64, Fault)]) -> Plan {
        let placed = |(id, (after, fault)): (usize, &(u64, Fault))| Placed {
            id: id as u64,
            after: *after,
            fault: fault.clone(),
        };
        Plan { placed: faults.iter().enumerate().map(placed).collect(), _follower: None }
    }

    #[test]
    fn faults_add_up_and_the_narrowest_line_counts() {
        let effects = [
            Effect::Latency { latency_ms: 20, jitter_ms: 1 },
            Effect::Latency { latency_ms: 5, jitter_ms: 2 },
            Effect::Bandwidth { bytes_per_second: 100 },
            Effect::Bandwidth { bytes_per_second: 50 },
            Effect::Loss { percent: 3, retransmit_ms: 10 },
            Effect::LimitBytes { bytes: 7 },
        ];
        let conditions = Conditions::of(&plan(&effects.map(|effect| (0, effect.into()))), 0, Way::Up);
        assert_eq!(conditions.latency, Duration::from_millis(25));
        assert_eq!(conditions.jitter, Duration::from_millis(3));
        assert_eq!(conditions.bytes_per_second, Some(50));
        assert_eq!(conditions.limits, [(5, 7)]);
        assert_eq!(conditions.longest(), Duration::from_millis(28 + 10 * 63));
        assert!(!conditions.is_clear());
    }

    #[test]
    fn a_fault_concerns_the_ways_and_connections_that_it_names() {
        let cut = |direction, connections| Fault { direction, connections, ..Effect::Cut.into() };
        let is_cut =
            |fault: Fault, connection, way| Conditions::of(&plan(&[(3, fault)]), connection, way).cut;
        for (connections, number, expected) in [
            (Connections::All, 0, true),
            (Connections::All, 3, true),
            (Connections::Open, 2, true),
            (Connections::Open, 3, false),
            (Connections::New, 2, false),
            (Connections::New, 3, true),
        ] {
            assert_eq!(is_cut(cut(Direction::Both, connections), number, Way::Up), expected);
        }
        for (direction, way, expected) in [
            (Direction::Up, Way::Up, true),
            (Direction::Up, Way::Down, false),
            (Direction::Down, Way::Down, true),
            (Direction::Both, Way::Down, true),
        ] {
            assert_eq!(is_cut(cut(direction, Connections::All), 0, way), expected);
        }
    }

    #[test]
    fn a_refusal_is_no_matter_of_open_connections() {
        let plan = plan(&[(0, Effect::Refuse.into())]);
        assert!(Conditions::of(&plan, 0, Way::Up).is_clear());
    }
}
