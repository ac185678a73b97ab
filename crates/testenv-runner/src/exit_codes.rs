//! What the exit code of `testenv` means. `docs/exit-codes.md` says the same for people.
//!
//! `testenv run` passes nextest's own codes on (0, 4, 94, 100, 101, …), so the codes of testenv's own lie
//! where nextest has none.

/// All went well.
pub const OK: i32 = 0;
/// Something failed that has no code of its own.
pub const FAILED: i32 = 1;
/// The command line is wrong.
pub const USAGE: i32 = 2;
/// Nextest: there was no test to run.
pub const NO_TESTS: i32 = 4;
/// Nextest: tests failed.
pub const TESTS_FAILED: i32 = 100;
/// Nextest did not report exactly the tests that were planned, though none failed.
pub const UNRECONCILED: i32 = 120;
/// Nextest ended without a report that could be read.
pub const NO_REPORT: i32 = 121;
/// No broker could be reached or started, or it went away.
pub const NO_BROKER: i32 = 122;
/// The broker refused a lease, or what it gave cannot be used together.
pub const NO_LEASE: i32 = 123;
/// `testenv.toml` cannot be used.
pub const BAD_CONFIG: i32 = 124;
/// `testenv doctor`: a role of the workspace cannot work on this machine.
pub const UNFIT: i32 = 125;
/// The command is there, but cannot be run.
pub const CANNOT_RUN: i32 = 126;
/// There is no such command.
pub const NOT_FOUND: i32 = 127;
/// Added to the number of the signal that ended the command.
pub const SIGNAL_BASE: i32 = 128;
