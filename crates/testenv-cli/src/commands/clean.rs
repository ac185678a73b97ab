//! `testenv clean`.

use serde::Deserialize;
use testenv_api::client::{Client, start_broker};
use testenv_api::discovery::Workspace;
use testenv_runner::exit_codes;

use crate::args::CleanArgs;
use crate::broker_process::ensure_same_version;
use crate::error::CliError;
use crate::output::{say, size};

/// What the broker says that it removed.
#[derive(Debug, Deserialize)]
struct Cleaned {
    freed_bytes: u64,
}

/// Only the broker knows which snapshots are in use, so it does the work. Its start has already removed what
/// earlier brokers left.
pub(crate) fn clean(workspace: &Workspace, args: &CleanArgs) -> Result<i32, CliError> {
    ensure_same_version(workspace)?;
    let client = Client::of(workspace);
    let request = || client.post::<Cleaned>("/v1/clean", &());
    let cleaned = match request() {
        Err(error) if error.broker_is_gone() && !args.no_start => {
            start_broker(workspace)?;
            request()?
        }
        other => other?,
    };
    say(format_args!("freed {}; snapshots in use stay\n", size(cleaned.freed_bytes)));
    Ok(exit_codes::OK)
}
