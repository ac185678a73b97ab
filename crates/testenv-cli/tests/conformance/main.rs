//! One suite for every service, wherever it runs and however its leases are kept apart: what a lease promises,
//! checked with the real program, real servers and real clients.
//!
//! As tests, each check of each combination is one of its own. `--matrix` runs all, and prints the table that the
//! documentation shows.
#![expect(clippy::print_stdout, reason = "a program of its own, which prints what it found")]

mod checks;
mod matrix;
mod place;

use libtest_mimic::{Arguments, Trial};
use testkit::subject::SUBJECTS;

use checks::CHECKS;
use place::Place;

/// The program under test.
const TESTENV: &str = env!("CARGO_BIN_EXE_testenv");

fn main() {
    if std::env::args().any(|argument| argument == "--matrix") {
        print!("{}", matrix::markdown());
        return;
    }
    let arguments = Arguments::from_args();
    libtest_mimic::run(&arguments, trials()).exit();
}

fn trials() -> Vec<Trial> {
    let places = SUBJECTS.iter().filter(|subject| match subject.lacking() {
        Some(why) => {
            testkit::skip(&format!("{}: {why}", subject.service()));
            false
        }
        None => true,
    });
    let places = places.flat_map(|subject| Place::all(*subject));
    let trial = |place: Place, check: &'static checks::Check| {
        let name = format!("{}::{}", place.name(), check.name);
        let ignored = !place.subject.is_here();
        Trial::test(name, move || (check.run)(&place).map_err(Into::into)).with_ignored_flag(ignored)
    };
    places.flat_map(|place| CHECKS.iter().map(move |check| trial(place, check))).collect()
}
