//! What the attempts amount to.

use crate::{Attempt, Case, CaseId, Outcome, Plan, Reconciliation, Run, reconcile};

/// What the attempts of one case amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CaseVerdict {
    /// Its only attempt passed.
    Passed,
    /// It failed and then passed.
    Flaky,
    /// It did not pass in the end, or is flaky in a run that counts this as failed.
    Failed,
    /// It was not meant to run.
    Skipped,
}

/// What the attempts of a whole run amount to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunVerdict {
    /// All that was planned ran, and passed.
    Passed,
    /// Some tests failed. Others may not have run because of that.
    Failed {
        /// Those that failed.
        failed: Vec<CaseId>,
        /// Those that were planned and not reported.
        not_run: Vec<CaseId>,
    },
    /// No test failed, but what was reported is not what was planned.
    Unreconciled(Reconciliation),
    /// Nothing was planned and nothing ran.
    NoTests,
}

/// Judges one case by its last attempt and those before it. A case without attempts was skipped.
pub fn case_verdict(case: &Case) -> CaseVerdict {
    let failed = |attempt: &Attempt| attempt.outcome.is_failure();
    match case.attempts.last() {
        None => CaseVerdict::Skipped,
        Some(last) if failed(last) => CaseVerdict::Failed,
        Some(last) if last.outcome == Outcome::Skipped => CaseVerdict::Skipped,
        Some(_) if case.attempts.iter().any(failed) => {
            if case.flaky_fails {
                CaseVerdict::Failed
            } else {
                CaseVerdict::Flaky
            }
        }
        Some(_) => CaseVerdict::Passed,
    }
}

/// Judges a run by its cases and its plan.
///
/// A runner that stops at the first failure leaves planned tests unreported; that is part of the failure.
/// Unreported tests in a run without any failure are a defect somewhere, and never a pass. A plan that is
/// not known cannot be held against the run.
pub fn run_verdict(run: &Run) -> RunVerdict {
    let ran: Vec<&Case> =
        run.cases.iter().filter(|case| case_verdict(case) != CaseVerdict::Skipped).collect();
    let failed: Vec<CaseId> = ran
        .iter()
        .filter(|case| case_verdict(case) == CaseVerdict::Failed)
        .map(|case| case.id.clone())
        .collect();
    let differs = match &run.plan {
        Plan::Known(planned) => reconcile(planned, ran.iter().map(|case| &case.id)),
        Plan::Unknown(_) => Reconciliation::default(),
    };
    if !failed.is_empty() {
        return RunVerdict::Failed { failed, not_run: differs.missing };
    }
    if !differs.is_exact() {
        return RunVerdict::Unreconciled(differs);
    }
    if ran.is_empty() { RunVerdict::NoTests } else { RunVerdict::Passed }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(name: &str, outcomes: &[Outcome]) -> Case {
        let attempt = |outcome: &Outcome| Attempt { outcome: *outcome, ..Attempt::default() };
        let attempts = outcomes.iter().map(attempt).collect();
        Case { id: CaseId::new("s", name), attempts, flaky_fails: false }
    }

    fn run(planned: &[&str], cases: Vec<Case>) -> Run {
        let plan = Plan::Known(planned.iter().map(|name| CaseId::new("s", *name)).collect());
        Run { plan, cases, ..Run::default() }
    }

    #[test]
    fn the_last_attempt_decides_and_earlier_failures_make_it_flaky() {
        use Outcome::{Aborted, Failed, Leaked, Passed, Skipped, TimedOut};
        for (outcomes, verdict) in [
            (&[][..], CaseVerdict::Skipped),
            (&[Skipped], CaseVerdict::Skipped),
            (&[Passed], CaseVerdict::Passed),
            (&[Failed], CaseVerdict::Failed),
            (&[Leaked], CaseVerdict::Failed),
            (&[TimedOut, Passed], CaseVerdict::Flaky),
            (&[Failed, Aborted, Failed], CaseVerdict::Failed),
        ] {
            assert_eq!(case_verdict(&case("x", outcomes)), verdict, "{outcomes:?}");
        }
        let strict = Case { flaky_fails: true, ..case("x", &[Failed, Passed]) };
        assert_eq!(case_verdict(&strict), CaseVerdict::Failed);
    }

    #[test]
    fn a_lost_test_is_never_a_pass() {
        let lost = run(&["a", "b"], vec![case("a", &[Outcome::Passed])]);
        let RunVerdict::Unreconciled(found) = run_verdict(&lost) else { panic!("{:?}", run_verdict(&lost)) };
        assert_eq!(found.missing, [CaseId::new("s", "b")]);
    }

    #[test]
    fn tests_not_run_after_a_failure_are_part_of_the_failure() {
        let stopped = run(&["a", "b"], vec![case("a", &[Outcome::Failed])]);
        let expected =
            RunVerdict::Failed { failed: vec![CaseId::new("s", "a")], not_run: vec![CaseId::new("s", "b")] };
        assert_eq!(run_verdict(&stopped), expected);
    }

    #[test]
    fn skipped_cases_need_no_plan_and_make_no_run() {
        assert_eq!(run_verdict(&run(&[], vec![case("a", &[Outcome::Skipped])])), RunVerdict::NoTests);
        let one = run(&["a"], vec![case("a", &[Outcome::Passed]), case("b", &[Outcome::Skipped])]);
        assert_eq!(run_verdict(&one), RunVerdict::Passed);
    }

    #[test]
    fn a_planned_test_that_was_skipped_is_missing() {
        let skipped = run(&["a"], vec![case("a", &[Outcome::Skipped])]);
        assert!(matches!(run_verdict(&skipped), RunVerdict::Unreconciled(_)));
    }
}
