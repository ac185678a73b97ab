//! `cargo xtask`: the one entry for everything that a developer or CI runs.
//!
//! Depends on next to nothing, so that it is built in seconds and can say what a fresh machine lacks before
//! anything else happens. What needs our own crates (`codegen`) or heavy peers (`bench`) is built and started
//! from here as a program of its own.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is a program for the terminal")]

mod bench;
mod codegen;
mod demo;
mod hygiene;
mod run;
mod setup;
mod test;
mod torture;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask <command>

  test [--quick] [-- NEXTEST ARGS]   install what is missing, then lints, documentation, every test
                                     --quick leaves out lints and documentation
  demo                               run the example's suite twice through `testenv run`: cold, then warm
  bench [--quick] [--docker] [NAME..]
                                     measure testenv beside its peers; writes docs/benchmarks.{md,json}
  codegen [--check]                  write the generated pages of docs/, or fail when they are stale
  torture [--kills N] [--seed N] [--tests N] [--nobody] [--unprivileged]
                                     kill tests and brokers at random moments, 1,000 times, and look at what is left
  setup                              only install what is missing
  hygiene                            only check licences, crates and the edges between our own crates
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = match arguments.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("help", &[][..]),
    };
    let done = match command {
        "test" => test::test(rest),
        "demo" => demo::demo(rest),
        "torture" => torture::torture(rest),
        "bench" => bench::bench(rest),
        "codegen" => codegen::codegen(rest),
        "setup" => setup::ensure(setup::Need::Everything).map(drop),
        "hygiene" => hygiene::hygiene(),
        "help" | "--help" | "-h" => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        other => {
            eprintln!("error: there is no command {other:?}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}
