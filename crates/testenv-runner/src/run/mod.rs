//! `testenv run`: a suite under cargo-nextest, each test process with leases of its own.
//!
//! The plan comes from `nextest list`, the attempts from nextest's JUnit XML, the times of the leases from the
//! broker. A run is only as good as its plan: a test that was planned and not reported, or reported twice,
//! fails the run even if nextest is content.

mod args;
mod error;
mod files;
mod nextest;
mod plan;
mod report_path;
mod runners;
mod summary;
mod timings;

use std::ffi::OsString;
use std::path::PathBuf;
use std::thread::{self, JoinHandle};

use testenv_api::client::Client;
use testenv_api::discovery::Workspace;
use testenv_api::{KeepPolicy, LeaseRequest, Outcome};
use testenv_model::{LeaseUse, Plan, Run, RunVerdict, run_verdict};

use crate::{LeaseError, Leases, WayBack, acquire, exit_codes};
pub use error::RunError;
use files::Files;
use nextest::Nextest;
pub use summary::{Palette, summary};

/// What to run, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whose leases they are, and which.
    pub leases: LeasePlan,
    /// Arguments for `cargo nextest run`.
    pub nextest_args: Vec<OsString>,
    /// Nextest's profile, where the arguments name none.
    pub profile: Option<String>,
    /// The program `cargo`.
    pub cargo: OsString,
    /// The program `testenv-wrap`.
    pub wrapper: PathBuf,
    /// The program `testenv`, for tests that ask for leases themselves.
    pub testenv: PathBuf,
    /// Looks up a variable of the environment. The target runners that it sets go on running what they ran.
    pub environment: fn(name: &str) -> Option<OsString>,
    /// Directory for `run.json` and `junit.xml`.
    pub output: PathBuf,
}

/// Whose leases they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeasePlan {
    /// Each test process has its own.
    PerTest(Vec<LeaseRequest>),
    /// All tests of the run share one set.
    PerRun(Vec<LeaseRequest>),
    /// The tests ask for themselves, or need nothing.
    None,
}

/// What came of a run.
#[derive(Debug)]
pub struct Finished {
    /// Its record.
    pub run: Run,
    /// Tests that are there and were not meant to run.
    pub skipped: usize,
    /// Shared servers that are kept because tests failed.
    pub kept: Vec<WayBack>,
    /// Files that were written: the record, and the JUnit XML.
    pub files: [PathBuf; 2],
    /// The exit code for it.
    pub exit_code: i32,
}

/// Runs the suite. `None` if nextest was told not to run any test (`--no-run`), and did not.
///
/// # Errors
/// [`RunError`]; failed tests are no error.
pub fn run(workspace: &Workspace, options: &Options) -> Result<Option<Finished>, RunError> {
    let nextest = Nextest::new(workspace, options);
    let prepared = prepare(workspace, &options.leases);
    let listed = nextest.list()?;
    let plan = match nextest.args.option(&["--rerun", "-R", "--stress-count", "--stress-duration"]) {
        Some(option) => Plan::Unknown(format!("`nextest list` knows no {option}")),
        None => Plan::Known(listed.planned),
    };
    let shared = match &options.leases {
        LeasePlan::PerRun(requests) => Some(acquire(workspace, requests)?),
        LeasePlan::PerTest(_) | LeasePlan::None => None,
    };
    if let Some(prepared) = prepared {
        // The thread ends by itself: the broker bounds its work, and the client its wait.
        prepared.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    }
    let files = Files::create(&options.output)?;
    let (code, started) = nextest.run(&files, &listed.triples, shared.as_ref())?;
    if code == exit_codes::OK && nextest.args.option(&["--no-run"]).is_some() {
        return Ok(None);
    }
    let mut run = nextest.read_report(&files, started, code)?;
    run.plan = plan;
    let attempts: usize = run.cases.iter().map(|case| case.attempts.len()).sum();
    let each = match &options.leases {
        LeasePlan::PerTest(requests) => requests.len(),
        LeasePlan::PerRun(_) | LeasePlan::None => 0,
    };
    let client = Client::of(workspace);
    let ended = timings::ended_leases(&client, &run.id, attempts * each);
    timings::attribute_leases(&mut run, ended);
    timings::forget_evicted(&mut run, &client);
    let exit_code = exit_code_of_run(&run, code);
    let outcome = if exit_code == exit_codes::OK { Outcome::Passed } else { Outcome::Failed };
    let kept = shared.as_ref().map(|leases| leases.ended(outcome)).unwrap_or_default();
    run.shared_leases = shared.iter().flat_map(|leases| uses(leases, &kept)).collect();
    let files = files.write(&run)?;
    Ok(Some(Finished { run, skipped: listed.skipped, kept, files, exit_code }))
}

/// Leases once what each test will lease, and gives it back. So migrations run while cargo builds, their time is
/// no test's, and a migration that fails is said once instead of by every test.
fn prepare(workspace: &Workspace, leases: &LeasePlan) -> Option<JoinHandle<Result<(), LeaseError>>> {
    let LeasePlan::PerTest(requests) = leases else { return None };
    let keep_nothing =
        |request: &LeaseRequest| LeaseRequest { keep: Some(KeepPolicy::Never), ..request.clone() };
    let (workspace, requests) = (workspace.clone(), requests.iter().map(keep_nothing).collect::<Vec<_>>());
    Some(thread::spawn(move || acquire(&workspace, &requests).map(drop)))
}

/// Nextest's own code, unless nextest is content and the record is not.
fn exit_code_of_run(run: &Run, nextest: i32) -> i32 {
    match (nextest, run_verdict(run)) {
        (exit_codes::OK, RunVerdict::Failed { .. }) => exit_codes::TESTS_FAILED,
        (exit_codes::OK, RunVerdict::Unreconciled(_)) => exit_codes::UNRECONCILED,
        (code, _) => code,
    }
}

fn uses(leases: &Leases, kept: &[WayBack]) -> Vec<LeaseUse> {
    let each = leases.held().iter().map(|held| {
        let lease = held.lease();
        let way_back = kept.iter().find(|way_back| way_back.role == lease.role);
        LeaseUse {
            id: lease.id.clone(),
            role: lease.role.clone(),
            total_us: lease.timings.total_us,
            prepare_us: lease.timings.prepare_us,
            fork_us: lease.timings.fork_us,
            warm: lease.timings.warm,
            kept: way_back.map(|way_back| way_back.kept.connect_command.clone()),
        }
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use testenv_model::{Attempt, Case, CaseId};

    use super::*;

    fn run_of(planned: &[&str], reported: &[(&str, testenv_model::Outcome)]) -> Run {
        let case = |(name, outcome): &(&str, testenv_model::Outcome)| Case {
            id: CaseId::new("s", *name),
            attempts: vec![Attempt { outcome: *outcome, ..Attempt::default() }],
            flaky_fails: false,
        };
        Run {
            plan: Plan::Known(planned.iter().map(|name| CaseId::new("s", *name)).collect()),
            cases: reported.iter().map(case).collect(),
            ..Run::default()
        }
    }

    #[test]
    fn a_content_nextest_does_not_hide_a_lost_test() {
        use testenv_model::Outcome::{Failed, Passed};
        assert_eq!(exit_code_of_run(&run_of(&["a"], &[("a", Passed)]), 0), exit_codes::OK);
        assert_eq!(exit_code_of_run(&run_of(&["a", "b"], &[("a", Passed)]), 0), exit_codes::UNRECONCILED);
        assert_eq!(exit_code_of_run(&run_of(&["a"], &[("a", Failed)]), 0), exit_codes::TESTS_FAILED);
        assert_eq!(exit_code_of_run(&run_of(&["a", "b"], &[("a", Failed)]), 100), exit_codes::TESTS_FAILED);
        assert_eq!(exit_code_of_run(&run_of(&[], &[]), 4), exit_codes::NO_TESTS);
    }
}
