//! Chance that repeats itself: numbers that follow from a seed.

use std::time::Duration;

use super::plan::Way;

/// SplitMix64: small, quick, and the same on every machine and in every version of testenv.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

/// By how much the state grows with each number.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Random {
    /// The numbers of one way of one connection, which do not depend on what happens on any other.
    pub(super) fn new(seed: u64, connection: u64, way: Way) -> Self {
        let mut mixed = Self(seed);
        mixed.0 = mixed.next() ^ connection;
        mixed.0 = mixed.next() ^ way as u64;
        Self(mixed.next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`.
    fn below(&mut self, limit: u64) -> u64 {
        let product = u128::from(self.next()) * u128::from(limit);
        // The upper half of a product of two numbers of 64 bits has 64.
        (product >> 64) as u64
    }

    /// A time from nothing to `limit`, in whole microseconds.
    pub(super) fn up_to(&mut self, limit: Duration) -> Duration {
        let limit = u64::try_from(limit.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.below(limit.saturating_add(1)))
    }

    /// Whether something happens that happens in so many cases of a hundred.
    pub(super) fn happens(&mut self, percent: u8) -> bool {
        self.below(100) < u64::from(percent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn times(seed: u64, connection: u64, way: Way) -> Vec<u128> {
        let mut random = Random::new(seed, connection, way);
        (0..6).map(|_| random.up_to(SECOND).as_micros()).collect()
    }

    #[test]
    fn a_seed_gives_the_same_times_on_every_machine_and_in_every_version() {
        assert_eq!(times(1, 0, Way::Up), [884_790, 403_167, 838_265, 576_769, 607_603, 900_187]);
    }

    #[test]
    fn seeds_connections_and_ways_have_times_of_their_own() {
        let all = [
            times(1, 0, Way::Up),
            times(2, 0, Way::Up),
            times(1, 1, Way::Up),
            times(1, 0, Way::Down),
            times(0, 1, Way::Up),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[..at].contains(one), "{one:?}");
        }
    }

    #[test]
    fn times_keep_to_their_limit_and_use_all_of_it() {
        let mut random = Random::new(7, 7, Way::Down);
        let limit = Duration::from_micros(3);
        let drawn: std::collections::BTreeSet<_> =
            (0..200).map(|_| random.up_to(limit).as_micros()).collect();
        assert_eq!(drawn.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert_eq!(random.up_to(Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn what_always_happens_happens_and_what_happens_seldom_is_seldom() {
        let mut random = Random::new(0, 0, Way::Up);
        assert!((0..1000).all(|_| random.happens(100)));
        let seldom = (0..10_000).filter(|_| random.happens(5)).count();
        assert!((400..600).contains(&seldom), "{seldom}");
    }
}
