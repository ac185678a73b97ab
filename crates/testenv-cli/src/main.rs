//! The program `testenv`: arguments, configuration, exit codes, and everything that is printed.

#![forbid(unsafe_code)]
#![expect(clippy::print_stderr, reason = "this is the one crate that prints")]

mod args;
mod broker_process;
mod commands;
mod error;
mod leasing;
mod output;

use std::process::ExitCode;

use args::{Command, parse};

fn main() -> ExitCode {
    let args = parse();
    let workspace = match args.workspace() {
        Ok(workspace) => workspace,
        Err(error) => return error.report(),
    };
    let done = match args.command {
        Command::Broker(args) => commands::broker::broker(&workspace, &args),
        Command::Status(args) => commands::status::status(&workspace, &args),
        Command::Faults(args) => commands::faults::faults(&workspace, &args),
        Command::Down(args) => commands::down::down(&workspace, &args),
        Command::Clean(args) => commands::clean::clean(&workspace, &args),
        Command::Doctor(args) => commands::doctor::doctor(&workspace, &args),
        Command::Exec(args) => commands::exec::exec(&workspace, &args),
        Command::Run(args) => commands::run::run(&workspace, &args),
    };
    match done {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(error) => error.report(),
    }
}
