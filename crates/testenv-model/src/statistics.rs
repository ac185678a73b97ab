//! Numbers for summaries.

use crate::{Attempt, CaseVerdict, LeaseUse, Run, case_verdict};

/// How many cases ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Passed at once.
    pub passed: usize,
    /// Failed, then passed.
    pub flaky: usize,
    /// Failed.
    pub failed: usize,
    /// Not meant to run.
    pub skipped: usize,
}

/// Counts the cases of a run by verdict.
pub fn counts(run: &Run) -> Counts {
    let mut counts = Counts::default();
    for case in &run.cases {
        match case_verdict(case) {
            CaseVerdict::Passed => counts.passed += 1,
            CaseVerdict::Flaky => counts.flaky += 1,
            CaseVerdict::Failed => counts.failed += 1,
            CaseVerdict::Skipped => counts.skipped += 1,
        }
    }
    counts
}

/// What the dependencies of a run cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseStatistics {
    /// How many leases there were.
    pub count: usize,
    /// How many of them came out of the warm pool.
    pub warm: usize,
    /// Half of them took no longer than this, in microseconds.
    pub p50_us: u64,
    /// 99 of 100 took no longer than this, in microseconds.
    pub p99_us: u64,
    /// Setting up, over all attempts, in microseconds.
    pub setup_us: u64,
    /// Setting up and testing, over all attempts, in microseconds.
    pub total_us: u64,
}

/// What the dependencies of a run cost, whether attempts had their own or shared them.
pub fn lease_statistics(run: &Run) -> LeaseStatistics {
    let attempts = || run.cases.iter().flat_map(|case| &case.attempts);
    let leases = || attempts().flat_map(|attempt: &Attempt| &attempt.leases).chain(&run.shared_leases);
    let mut times: Vec<u64> = leases().map(|lease: &LeaseUse| lease.total_us).collect();
    times.sort_unstable();
    LeaseStatistics {
        count: times.len(),
        warm: leases().filter(|lease| lease.warm).count(),
        p50_us: percentile(&times, 50),
        p99_us: percentile(&times, 99),
        setup_us: attempts().map(|attempt| attempt.phases.setup_us).fold(0, u64::saturating_add),
        total_us: attempts().map(|attempt| attempt.phases.total_us()).fold(0, u64::saturating_add),
    }
}

/// The smallest of the sorted values that `percent` of 100 of them do not exceed; 0 where there are none.
///
/// ```
/// assert_eq!(testenv_model::percentile(&[1, 2, 3, 4], 50), 2);
/// assert_eq!(testenv_model::percentile(&[1, 2, 3, 4], 99), 4);
/// assert_eq!(testenv_model::percentile(&[], 99), 0);
/// ```
pub fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).or(sorted.last()).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Case, CaseId, Outcome, Phases};

    #[test]
    fn leases_of_all_attempts_count() {
        let attempt = |outcome, total_us, warm| Attempt {
            outcome,
            phases: Phases::split(1000, total_us),
            leases: vec![LeaseUse { total_us, warm, ..LeaseUse::default() }],
            ..Attempt::default()
        };
        let attempts = vec![attempt(Outcome::Failed, 100, false), attempt(Outcome::Passed, 20, true)];
        let case = Case { id: CaseId::new("s", "a"), attempts, flaky_fails: false };
        let run = Run { cases: vec![case], ..Run::default() };
        let expected =
            LeaseStatistics { count: 2, warm: 1, p50_us: 20, p99_us: 100, setup_us: 120, total_us: 2000 };
        assert_eq!(lease_statistics(&run), expected);
        assert_eq!(counts(&run), Counts { flaky: 1, ..Counts::default() });
    }

    #[test]
    fn a_percentile_is_always_one_of_the_values() {
        for length in 1..200_u64 {
            let values: Vec<u64> = (0..length).collect();
            for percent in [0, 1, 50, 99, 100] {
                let found = percentile(&values, percent);
                let not_above = values.iter().filter(|value| **value <= found).count();
                assert!(not_above * 100 >= values.len() * percent, "{length} {percent} {found}");
            }
        }
    }
}
