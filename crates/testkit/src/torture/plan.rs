//! What happens when, worked out from a seed alone.

use std::time::Duration;

/// A small generator of random numbers (SplitMix64): the same seed gives the same plan on every machine.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, which is not 0.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// One thing that is done to the clients or to a broker. Numbers choose among what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// SIGKILL for a client.
    KillClient(u64),
    /// SIGKILL for a workspace's broker.
    KillBroker(u64),
    /// A client may come to its normal end.
    Finish(u64),
}

/// One step: wait, then act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) wait: Duration,
    pub(crate) action: Action,
}

/// Draws the next step: of 100 actions, 80 kill a client, 5 a broker, 15 let a client finish.
pub(crate) fn step(random: &mut Random) -> Step {
    let wait = Duration::from_micros(random.below(40_000));
    let choice = random.below(u64::MAX);
    let action = match random.below(100) {
        0..5 => Action::KillBroker(choice),
        5..20 => Action::Finish(choice),
        _ => Action::KillClient(choice),
    };
    Step { wait, action }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_plan() {
        let plan = |seed| {
            let mut random = Random::new(seed);
            (0..500).map(|_| step(&mut random)).collect::<Vec<_>>()
        };
        assert_eq!(plan(1), plan(1));
        assert_ne!(plan(1), plan(2));
        let brokers = plan(1).iter().filter(|step| matches!(step.action, Action::KillBroker(_))).count();
        assert!((10..50).contains(&brokers), "{brokers}");
    }
}
