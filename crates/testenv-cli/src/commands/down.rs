//! `testenv down`.

use std::fs;
use std::path::{Path, PathBuf};

use testenv_api::Health;
use testenv_api::client::Client;
use testenv_api::discovery::{Workspace, runtime_root};
use testenv_runner::exit_codes;

use crate::args::DownArgs;
use crate::broker_process::{Ending, end};
use crate::error::CliError;
use crate::output::{plural, say};

pub(crate) fn down(workspace: &Workspace, args: &DownArgs) -> Result<i32, CliError> {
    if !args.all {
        down_one(&workspace.socket(), args.if_idle)?;
        return Ok(exit_codes::OK);
    }
    let mut failed = None;
    let sockets = sockets_of_user();
    if sockets.is_empty() {
        say("no broker runs\n");
    }
    for socket in sockets {
        if let Err(error) = down_one(&socket, args.if_idle) {
            error.report();
            failed = Some(exit_codes::FAILED);
        }
    }
    Ok(failed.unwrap_or(exit_codes::OK))
}

fn down_one(socket: &Path, only_idle: bool) -> Result<(), CliError> {
    // Asked first, as afterwards nobody knows.
    let limit = std::time::Duration::from_secs(2);
    let health =
        Client::at(socket).of_any_version().with_answer_limit(limit).get::<Health>("/v1/health").ok();
    let whose =
        health.as_ref().map_or(format!("on {}", socket.display()), |it| format!("of {}", it.workspace));
    match end(socket, only_idle)? {
        Ending::NotRunning => {
            // What a killed broker leaves; its successor would replace it as well.
            let stale = fs::remove_file(socket).is_ok();
            let note = if stale { " (removed a stale socket)" } else { "" };
            say(format_args!("no broker runs {whose}{note}\n"));
        }
        Ending::Stopped => {
            let leases = health.map_or(0, |health| health.leases);
            let took =
                if leases > 0 { format!(", and {} with it", plural(leases, "lease")) } else { String::new() };
            say(format_args!("ended the broker {whose}{took}\n"));
        }
        Ending::Killed => say(format_args!(
            "killed the broker {whose}, which did not answer; its servers are gone with it, and the next broker \
             removes the rest\n"
        )),
    }
    Ok(())
}

/// Sockets of the brokers of all workspaces.
fn sockets_of_user() -> Vec<PathBuf> {
    let entries = fs::read_dir(runtime_root()).into_iter().flatten().flatten();
    let mut sockets: Vec<PathBuf> =
        entries.map(|entry| entry.path().join("broker.sock")).filter(|it| it.exists()).collect();
    sockets.sort();
    sockets
}
