//! Why there is no run to speak of.

use std::io;
use std::path::PathBuf;

use testenv_report::junit::JunitError;

use crate::child::exit_code_of_spawn;
use crate::{LeaseError, exit_codes};

/// Why there is no run to speak of.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A shared dependency is missing.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// Cargo or nextest cannot be started.
    #[error("failed to run cargo\n  | {0}")]
    Spawn(io::Error),
    /// There is no nextest.
    #[error("cargo has no nextest\n  hint: `cargo install --locked cargo-nextest`")]
    NoNextest,
    /// A file of the run cannot be written or read.
    #[error("failed to {action} {}\n  | {source}", path.display())]
    File {
        /// What was tried, such as `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nextest failed before it ran a test, and has said why.
    #[error("cargo nextest {step} ended with exit code {code} before any test ran")]
    Nextest {
        /// `list` or `run`.
        step: &'static str,
        /// Its exit code.
        code: i32,
    },
    /// The list of tests is not what this version of testenv can read.
    #[error(
        "failed to read nextest's list of tests\n  | {0}\n  hint: testenv knows cargo-nextest 0.9.100 to 0.9.x"
    )]
    List(serde_json::Error),
    /// Nextest says that all is well, but there is no report.
    #[error("cargo nextest wrote no JUnit report\n  | looked for {looked_for}")]
    NoReport {
        /// Where it should be.
        looked_for: String,
    },
    /// There is a report, but it cannot be read.
    #[error("failed to read nextest's JUnit report {}\n  | {source}", path.display())]
    BadReport {
        /// The report.
        path: PathBuf,
        /// Why.
        source: JunitError,
    },
}

impl RunError {
    /// The exit code for it.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Lease(_) => exit_codes::NO_LEASE,
            Self::Spawn(source) => exit_code_of_spawn(source),
            Self::NoNextest => exit_codes::NOT_FOUND,
            Self::Nextest { code, .. } => *code,
            Self::NoReport { .. } | Self::BadReport { .. } | Self::List(_) => exit_codes::NO_REPORT,
            Self::File { .. } => exit_codes::FAILED,
        }
    }
}
