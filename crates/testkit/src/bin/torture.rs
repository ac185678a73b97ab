//! `cargo xtask torture` builds and runs this: `torture PROGRAM [--kills N] [--seed N]`.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is a program for the terminal")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use testkit::torture::{self, ClientProgram, Options};
use testkit::{User, is_root};

fn main() -> ExitCode {
    if let Some(code) = torture::main() {
        return ExitCode::from(code);
    }
    match parse() {
        Ok(options) => torment(&options),
        Err(what) => {
            eprintln!(
                "error: {what}\nusage: torture PROGRAM [--kills N] [--seed N] [--tests N] [--nobody] [--unprivileged]"
            );
            ExitCode::from(2)
        }
    }
}

fn parse() -> Result<Options, String> {
    let mut arguments = std::env::args().skip(1);
    let program = PathBuf::from(arguments.next().ok_or("which testenv?")?);
    let program = program.canonicalize().map_err(|error| format!("{}: {error}", program.display()))?;
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    // Another plan every time, unless one is asked for; the seed is printed.
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let client = ClientProgram { program: own, arguments: Vec::new() };
    let mut options = Options::new(&program, client, 1_000, seed);
    while let Some(argument) = arguments.next() {
        let mut number = || {
            let value = arguments.next().ok_or_else(|| format!("{argument} takes a number"))?;
            value.parse::<u64>().map_err(|error| format!("{argument} {value}: {error}"))
        };
        match argument.as_str() {
            "--kills" => options.kills = usize::try_from(number()?).map_err(|error| error.to_string())?,
            "--seed" => options.seed = number()?,
            "--tests" => options.clients = usize::try_from(number()?).map_err(|error| error.to_string())?,
            "--nobody" if is_root() => options.user = User::Nobody,
            "--unprivileged" if is_root() => {
                options.through = ["setpriv", "--bounding-set", "-sys_admin", "--"].map(String::from).into();
            }
            "--nobody" | "--unprivileged" => return Err(format!("{argument} is for root")),
            other => return Err(format!("unknown argument {other}")),
        }
    }
    Ok(options)
}

fn torment(options: &Options) -> ExitCode {
    println!("{} kills, seed {}, {} tests at a time", options.kills, options.seed, options.clients);
    let report = torture::run(options, |report| {
        println!(
            "  {:>5} kills, {} of them of brokers, {} good ends, {} lost with their broker",
            report.kills(),
            report.broker_kills,
            report.finished,
            report.lost_with_broker
        );
    });
    print!("\n{report}");
    if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
