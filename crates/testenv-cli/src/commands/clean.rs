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
    namespaces: usize,
}

/// Only the broker knows which snapshots are in use, so it does the work. Its start has already removed what
/// earlier brokers left.
pub(crate) fn clean(workspace: &Workspace, args: &CleanArgs) -> Result<i32, CliError> {
    ensure_same_version(workspace)?;
    let client = Client::of(workspace);
    let path = match &args.external {
        // Whatever else is in it would be a role that there is not, and part of another request.
        Some(role) => format!("/v1/clean?external={}", encoded(role)),
        None => "/v1/clean".to_owned(),
    };
    let request = || client.post::<Cleaned>(&path, &());
    let cleaned = match request() {
        Err(error) if error.broker_is_gone() && !args.no_start => {
            start_broker(workspace)?;
            request()?
        }
        other => other?,
    };
    match &args.external {
        Some(role) => say(format_args!(
            "removed {} namespaces from the external server of {role}\n",
            cleaned.namespaces
        )),
        None => say(format_args!("freed {}; snapshots in use stay\n", size(cleaned.freed_bytes))),
    }
    Ok(exit_codes::OK)
}

/// For a query: everything but letters and digits by its number.
fn encoded(text: &str) -> String {
    let one = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(one).collect()
}
