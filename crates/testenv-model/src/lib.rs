//! What a test run leaves behind: a [`Run`] of [`Case`]s of [`Attempt`]s, and the conclusions drawn from it.
//!
//! Every format is read into this model and written from it. Everything here is a value or a pure function of
//! values: no IO, no clock, no serialization.

#![forbid(unsafe_code)]

mod reconcile;
mod run;
mod statistics;
mod verdict;

pub use reconcile::{Reconciliation, reconcile};
pub use run::{Attempt, Case, CaseId, LeaseUse, Outcome, Output, Phases, Plan, Run};
pub use statistics::{Counts, LeaseStatistics, counts, lease_statistics, percentile};
pub use verdict::{CaseVerdict, RunVerdict, case_verdict, run_verdict};
