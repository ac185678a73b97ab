//! What `testenv run` puts before each test process. See [`testenv_runner::wrap`].
//!
//! A program of its own, as it starts once per test: no argument parser, no async runtime.

#![forbid(unsafe_code)]
#![expect(clippy::print_stderr, reason = "the test's own standard error is where its reader looks")]

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;

use testenv_runner::wrap::{LEASES_VAR, Wrapped, wrap};

fn main() -> ExitCode {
    let ended = wrap(Wrapped {
        wrapper: env::args_os().next().unwrap_or_default(),
        command: env::args_os().skip(1).collect(),
        environment: env::vars_os().collect(),
        leases: env::var(LEASES_VAR).ok(),
        attempt: env::var("NEXTEST_ATTEMPT_ID").ok(),
        test: env::var("NEXTEST_TEST_NAME").ok(),
        current_dir: env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
    });
    let code = match ended {
        Ok(ended) => {
            ended.kept.iter().for_each(|way_back| eprint!("\n{way_back}"));
            ended.end_alike()
        }
        Err(error) => {
            eprintln!("error: {error}");
            error.exit_code()
        }
    };
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
