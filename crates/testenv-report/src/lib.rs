//! Formats of test results ⇄ [`testenv_model`].
//!
//! - [`junit::read`] reads the JUnit XML that cargo-nextest writes, and [`junit::write`] writes testenv's own.
//! - [`record::to_json`] and [`record::from_json`] are `run.json`, testenv's own record of a run.
//!
//! What is read is somebody else's: every reader takes any bytes, keeps a bounded part of a test's output, and
//! answers with an error rather than a guess. Nothing here opens a file or looks at a clock.

#![forbid(unsafe_code)]

mod excerpt;
pub mod junit;
pub mod record;
mod rfc3339;
