//! The attempts of a run, as they were seen.

use std::collections::BTreeSet;
use std::fmt;

/// One execution of a suite.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Run {
    /// The runner's own id of the run, such as nextest's UUID. Empty if it has none.
    pub id: String,
    /// When it started, in milliseconds since the Unix epoch.
    pub started_unix_ms: Option<u64>,
    /// From the first test's start to the last one's end, as the runner says.
    pub wall_us: u64,
    /// What was leased for the run as a whole, and shared by its attempts.
    pub shared_leases: Vec<LeaseUse>,
    /// What was meant to run.
    pub plan: Plan,
    /// What did run, in the order it was reported. A case reported twice is here twice.
    pub cases: Vec<Case>,
}

/// What was meant to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// It is not known, for this reason.
    Unknown(String),
    /// Exactly these.
    Known(BTreeSet<CaseId>),
}

impl Default for Plan {
    fn default() -> Self {
        Self::Unknown("nobody asked".into())
    }
}

/// The name of a test, unique within a workspace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CaseId {
    /// The binary or package that holds it, such as `orders::checkout`.
    pub suite: String,
    /// Its name in there, such as `cart::is_empty_at_first`.
    pub name: String,
}

impl CaseId {
    /// The case `name` of `suite`.
    pub fn new(suite: impl Into<String>, name: impl Into<String>) -> Self {
        Self { suite: suite.into(), name: name.into() }
    }
}

impl fmt::Display for CaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.suite, self.name)
    }
}

/// One test with everything that happened to it in a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// Its name.
    pub id: CaseId,
    /// Its attempts in the order they ran: one, or more where failures are retried.
    pub attempts: Vec<Attempt>,
    /// Whether the policy of the run counts a test that failed and then passed as failed.
    pub flaky_fails: bool,
}

/// One execution of one test.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attempt {
    /// How it ended.
    pub outcome: Outcome,
    /// When it started, in milliseconds since the Unix epoch.
    pub started_unix_ms: Option<u64>,
    /// Where the time went.
    pub phases: Phases,
    /// What the runner calls the way it ended, such as `test failure with exit code 101`.
    pub kind: Option<String>,
    /// Why it failed, in the test's own words.
    pub message: Option<String>,
    /// What it wrote.
    pub output: Output,
    /// What it leased.
    pub leases: Vec<LeaseUse>,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// It passed.
    #[default]
    Passed,
    /// It failed by itself.
    Failed,
    /// It ran out of time and was ended.
    TimedOut,
    /// It was ended by a signal.
    Aborted,
    /// It passed, but left something behind that its runner counts as a failure.
    Leaked,
    /// It could not be run at all.
    NotStarted,
    /// It was not meant to run.
    Skipped,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 7] = [
        Self::Passed,
        Self::Failed,
        Self::TimedOut,
        Self::Aborted,
        Self::Leaked,
        Self::NotStarted,
        Self::Skipped,
    ];

    /// Whether the test ran and did not pass.
    pub const fn is_failure(self) -> bool {
        !matches!(self, Self::Passed | Self::Skipped)
    }

    /// Its name in records and summaries.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::TimedOut => "timed-out",
            Self::Aborted => "aborted",
            Self::Leaked => "leaked",
            Self::NotStarted => "not-started",
            Self::Skipped => "skipped",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where the time of an attempt went, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phases {
    /// Getting its dependencies.
    pub setup_us: u64,
    /// Everything else.
    pub test_us: u64,
}

impl Phases {
    /// An attempt that took `total_us`, of which its leases took `setup_us`; never more than there was.
    pub fn split(total_us: u64, setup_us: u64) -> Self {
        let setup_us = setup_us.min(total_us);
        Self { setup_us, test_us: total_us - setup_us }
    }

    /// Both together.
    pub fn total_us(self) -> u64 {
        self.setup_us.saturating_add(self.test_us)
    }
}

/// What an attempt wrote, as far as it was kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// One lease that an attempt held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseUse {
    /// Id the broker gave it.
    pub id: String,
    /// Role, such as `database`.
    pub role: String,
    /// From the request to the lease, in microseconds.
    pub total_us: u64,
    /// Thereof preparing the snapshot, in microseconds.
    pub prepare_us: u64,
    /// Thereof forking and starting the server, in microseconds.
    pub fork_us: u64,
    /// Whether the server was there already.
    pub warm: bool,
    /// Command that connects to the server that was kept, if it was.
    pub kept: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setup_never_exceeds_the_whole() {
        assert_eq!(Phases::split(10, 3), Phases { setup_us: 3, test_us: 7 });
        assert_eq!(Phases::split(10, 30), Phases { setup_us: 10, test_us: 0 });
        assert_eq!(Phases::split(u64::MAX, 1).total_us(), u64::MAX);
    }
}
