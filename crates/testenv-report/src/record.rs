//! `run.json`: testenv's own record of a run.
//!
//! The format is named in its first field, `"format": "testenv-run/1"`. Within a version fields may be added
//! and readers skip those they do not know; anything else gets a new version, and old ones stay readable.
//! The types here are the format; the model is free to change without it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use testenv_model::{
    Attempt, Case, CaseId, CaseVerdict, LeaseUse, Outcome, Output, Phases, Plan, Run, RunVerdict,
    case_verdict, counts, lease_statistics, reconcile, run_verdict,
};

/// Name and version of the format.
pub const FORMAT: &str = "testenv-run/1";

/// Why a record cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It is not JSON, or not of this shape.
    #[error("it is not a record of a run")]
    Malformed(#[from] serde_json::Error),
    /// It is a record of another version.
    #[error("its format is {found:?}; this version of testenv reads {FORMAT:?}")]
    UnknownFormat {
        /// What its first field says.
        found: String,
    },
    /// An outcome that this version of the format does not have.
    #[error("{outcome:?} of {case} is not an outcome")]
    UnknownOutcome {
        /// The word.
        outcome: String,
        /// The case whose attempt it belongs to.
        case: CaseId,
    },
}

/// The record of a run, as indented JSON.
///
/// # Panics
/// Never: nothing in it can fail to be JSON.
pub fn to_json(run: &Run) -> String {
    let mut text = serde_json::to_string_pretty(&RunRecord::of(run)).expect("strings and numbers are JSON");
    text.push('\n');
    text
}

/// Reads a record. What can be worked out from the attempts, such as verdicts and counts, is.
///
/// # Errors
/// [`RecordError`].
pub fn from_json(text: &str) -> Result<Run, RecordError> {
    let header: Header = serde_json::from_str(text)?;
    if header.format != FORMAT {
        return Err(RecordError::UnknownFormat { found: header.format });
    }
    serde_json::from_str::<RunRecord>(text)?.into_run()
}

#[derive(Deserialize)]
struct Header {
    format: String,
}

#[derive(Serialize, Deserialize)]
struct RunRecord {
    format: String,
    #[serde(default)]
    id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    started_unix_ms: Option<u64>,
    wall_us: u64,
    verdict: String,
    counts: CountsRecord,
    leases: LeaseStatisticsRecord,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    shared_leases: Vec<LeaseRecord>,
    plan: PlanRecord,
    cases: Vec<CaseRecord>,
}

#[derive(Serialize, Deserialize)]
struct CountsRecord {
    passed: usize,
    flaky: usize,
    failed: usize,
    skipped: usize,
}

#[derive(Serialize, Deserialize)]
struct LeaseStatisticsRecord {
    count: usize,
    warm: usize,
    p50_us: u64,
    p99_us: u64,
    setup_us: u64,
    total_us: u64,
}

/// The planned set is what was reported, less `unplanned`, and `missing`.
#[derive(Default, Serialize, Deserialize)]
struct PlanRecord {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    planned: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unknown_because: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    missing: Vec<IdRecord>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    doubled: Vec<IdRecord>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    unplanned: Vec<IdRecord>,
}

#[derive(Serialize, Deserialize)]
struct IdRecord {
    suite: String,
    name: String,
}

#[derive(Serialize, Deserialize)]
struct CaseRecord {
    suite: String,
    name: String,
    verdict: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    flaky_fails: bool,
    attempts: Vec<AttemptRecord>,
}

#[derive(Serialize, Deserialize)]
struct AttemptRecord {
    outcome: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    started_unix_ms: Option<u64>,
    setup_us: u64,
    test_us: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    stdout: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    stderr: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    leases: Vec<LeaseRecord>,
}

#[derive(Serialize, Deserialize)]
struct LeaseRecord {
    id: String,
    role: String,
    total_us: u64,
    prepare_us: u64,
    fork_us: u64,
    warm: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kept: Option<String>,
}

impl RunRecord {
    fn of(run: &Run) -> Self {
        let counts = counts(run);
        let leases = lease_statistics(run);
        let verdict = match run_verdict(run) {
            RunVerdict::Passed => "passed",
            RunVerdict::Failed { .. } => "failed",
            RunVerdict::Unreconciled(_) => "unreconciled",
            RunVerdict::NoTests => "no-tests",
        };
        Self {
            format: FORMAT.into(),
            id: run.id.clone(),
            started_unix_ms: run.started_unix_ms,
            wall_us: run.wall_us,
            verdict: verdict.into(),
            counts: CountsRecord {
                passed: counts.passed,
                flaky: counts.flaky,
                failed: counts.failed,
                skipped: counts.skipped,
            },
            leases: LeaseStatisticsRecord {
                count: leases.count,
                warm: leases.warm,
                p50_us: leases.p50_us,
                p99_us: leases.p99_us,
                setup_us: leases.setup_us,
                total_us: leases.total_us,
            },
            shared_leases: run.shared_leases.iter().map(LeaseRecord::of).collect(),
            plan: PlanRecord::of(run),
            cases: run.cases.iter().map(CaseRecord::of).collect(),
        }
    }

    fn into_run(self) -> Result<Run, RecordError> {
        let cases: Vec<Case> = self.cases.into_iter().map(CaseRecord::into_case).collect::<Result<_, _>>()?;
        Ok(Run {
            id: self.id,
            started_unix_ms: self.started_unix_ms,
            wall_us: self.wall_us,
            shared_leases: self.shared_leases.into_iter().map(LeaseRecord::into_use).collect(),
            plan: self.plan.into_plan(&cases),
            cases,
        })
    }
}

impl PlanRecord {
    fn of(run: &Run) -> Self {
        let planned = match &run.plan {
            Plan::Known(planned) => planned,
            Plan::Unknown(why) => return Self { unknown_because: Some(why.clone()), ..Self::default() },
        };
        let differs = reconcile(planned, ran(&run.cases));
        let ids = |ids: Vec<CaseId>| {
            ids.into_iter().map(|id| IdRecord { suite: id.suite, name: id.name }).collect()
        };
        Self {
            planned: Some(planned.len()),
            unknown_because: None,
            missing: ids(differs.missing),
            doubled: ids(differs.doubled),
            unplanned: ids(differs.unplanned),
        }
    }

    fn into_plan(self, cases: &[Case]) -> Plan {
        if self.planned.is_none() {
            return Plan::Unknown(self.unknown_because.unwrap_or_default());
        }
        let id = |id: IdRecord| CaseId::new(id.suite, id.name);
        let mut planned: BTreeSet<CaseId> = ran(cases).cloned().collect();
        planned.extend(self.missing.into_iter().map(id));
        for unplanned in self.unplanned.into_iter().map(id) {
            planned.remove(&unplanned);
        }
        Plan::Known(planned)
    }
}

/// The cases that count as reported.
fn ran(cases: &[Case]) -> impl Iterator<Item = &CaseId> {
    cases.iter().filter(|case| case_verdict(case) != CaseVerdict::Skipped).map(|case| &case.id)
}

impl CaseRecord {
    fn of(case: &Case) -> Self {
        let verdict = match case_verdict(case) {
            CaseVerdict::Passed => "passed",
            CaseVerdict::Flaky => "flaky",
            CaseVerdict::Failed => "failed",
            CaseVerdict::Skipped => "skipped",
        };
        Self {
            suite: case.id.suite.clone(),
            name: case.id.name.clone(),
            verdict: verdict.into(),
            flaky_fails: case.flaky_fails,
            attempts: case.attempts.iter().map(AttemptRecord::of).collect(),
        }
    }

    fn into_case(self) -> Result<Case, RecordError> {
        let id = CaseId::new(self.suite, self.name);
        let attempts =
            self.attempts.into_iter().map(|attempt| attempt.into_attempt(&id)).collect::<Result<_, _>>()?;
        Ok(Case { id, attempts, flaky_fails: self.flaky_fails })
    }
}

impl AttemptRecord {
    fn of(attempt: &Attempt) -> Self {
        Self {
            outcome: attempt.outcome.as_str().into(),
            started_unix_ms: attempt.started_unix_ms,
            setup_us: attempt.phases.setup_us,
            test_us: attempt.phases.test_us,
            kind: attempt.kind.clone(),
            message: attempt.message.clone(),
            stdout: attempt.output.stdout.clone(),
            stderr: attempt.output.stderr.clone(),
            leases: attempt.leases.iter().map(LeaseRecord::of).collect(),
        }
    }

    fn into_attempt(self, case: &CaseId) -> Result<Attempt, RecordError> {
        let outcome = Outcome::ALL.into_iter().find(|outcome| outcome.as_str() == self.outcome);
        Ok(Attempt {
            outcome: outcome
                .ok_or_else(|| RecordError::UnknownOutcome { outcome: self.outcome, case: case.clone() })?,
            started_unix_ms: self.started_unix_ms,
            phases: Phases { setup_us: self.setup_us, test_us: self.test_us },
            kind: self.kind,
            message: self.message,
            output: Output { stdout: self.stdout, stderr: self.stderr },
            leases: self.leases.into_iter().map(LeaseRecord::into_use).collect(),
        })
    }
}

impl LeaseRecord {
    fn of(lease: &LeaseUse) -> Self {
        let LeaseUse { id, role, total_us, prepare_us, fork_us, warm, kept } = lease.clone();
        Self { id, role, total_us, prepare_us, fork_us, warm, kept }
    }

    fn into_use(self) -> LeaseUse {
        let Self { id, role, total_us, prepare_us, fork_us, warm, kept } = self;
        LeaseUse { id, role, total_us, prepare_us, fork_us, warm, kept }
    }
}
