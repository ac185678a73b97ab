//! `testenv exec`.

use testenv_api::discovery::Workspace;
use testenv_runner::{exec, exit_codes};

use crate::args::ExecArgs;
use crate::broker_process::ensure_same_version;
use crate::error::CliError;
use crate::leasing;

pub(crate) fn exec(workspace: &Workspace, args: &ExecArgs) -> Result<i32, CliError> {
    let requests = leasing::requests(&leasing::config(workspace)?, &args.leases)?;
    if requests.is_empty() {
        let text = format!(
            "there is nothing to lease: {} has no roles\n  hint: add a [services.database] to it, or ask for \
             `--service postgres` or `--service redis`",
            workspace.config_file().display()
        );
        return Err(CliError::new(exit_codes::USAGE, text));
    }
    ensure_same_version(workspace)?;
    let ended = exec::exec(workspace, &requests, &args.command)?;
    for incident in &ended.incidents {
        eprintln!("testenv: {incident}");
    }
    for way_back in &ended.kept {
        eprint!("{way_back}");
    }
    Ok(ended.code)
}
