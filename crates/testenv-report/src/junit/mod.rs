//! JUnit XML.

mod read;
mod write;

pub use read::{JunitError, read};
pub use write::write;

/// Type that nextest gives to the failure of a test that passed in the end, where that counts as failed.
const FLAKY_FAILURE: &str = "flaky failure";

/// Suites in which nextest reports its set-up scripts.
const SETUP_SCRIPT_PREFIX: &str = "@setup-script:";
