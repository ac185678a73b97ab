//! From flags, environment and `testenv.toml` to requests for leases.

use testenv_api::discovery::{Workspace, env};
use testenv_api::{KeepPolicy, LeaseRequest};
use testenv_config::{Config, KeepConfig};
use testenv_runner::exit_codes;

use crate::args::LeaseArgs;
use crate::error::CliError;

/// The words for when to keep.
pub(crate) static KEEP_WORDS: [(&str, KeepPolicy); 4] = [
    ("failed", KeepPolicy::Failed),
    ("unless-passed", KeepPolicy::UnlessPassed),
    ("always", KeepPolicy::Always),
    ("never", KeepPolicy::Never),
];

/// Reads `testenv.toml`.
pub(crate) fn config(workspace: &Workspace) -> Result<Config, CliError> {
    Ok(Config::load(&workspace.config_file())?)
}

/// One request per role or service. What is to be kept is always said, so that whoever runs with the leases
/// knows it too. Empty only if `testenv.toml` has no roles and none was asked for.
pub(crate) fn requests(config: &Config, args: &LeaseArgs) -> Result<Vec<LeaseRequest>, CliError> {
    let template = LeaseRequest {
        isolation: args.isolation,
        keep: Some(keep(config, args)?),
        wait_ms: number(env::WAIT_MS, "is no number of milliseconds")?,
        faults: args.faults,
        seed: number(env::SEED, "is no seed, which is a whole number")?,
        ..LeaseRequest::default()
    };
    let roles = match &config.run.roles {
        _ if !args.roles.is_empty() || !args.services.is_empty() => args.roles.clone(),
        Some(roles) => roles.clone(),
        None => config.services.keys().cloned().collect(),
    };
    if let Some(unknown) = roles.iter().find(|role| !config.services.contains_key(*role)) {
        let known: Vec<&str> = config.services.keys().map(String::as_str).collect();
        let hint = match known.as_slice() {
            [] => "without testenv.toml, ask for `--service postgres` or `--service redis`".to_owned(),
            known => format!("testenv.toml has {}", known.join(", ")),
        };
        return Err(CliError::new(
            exit_codes::USAGE,
            format!("there is no role {unknown:?}\n  hint: {hint}"),
        ));
    }
    let by_role = roles.into_iter().map(|role| LeaseRequest { role: Some(role), ..template.clone() });
    let by_kind = args.services.iter().map(|kind| LeaseRequest { service: Some(*kind), ..template.clone() });
    Ok(by_role.chain(by_kind).collect())
}

fn keep(config: &Config, args: &LeaseArgs) -> Result<KeepPolicy, CliError> {
    if let Some(policy) = args.keep {
        return Ok(policy);
    }
    if let Some(word) = std::env::var_os(env::KEEP).filter(|it| !it.is_empty()) {
        let found = KEEP_WORDS.iter().find(|(known, _)| word == *known);
        return found.map(|(_, policy)| *policy).ok_or_else(|| {
            let words = KEEP_WORDS.map(|(word, _)| word).join(", ");
            let text = format!("{}={} means nothing\n  hint: {words}", env::KEEP, word.to_string_lossy());
            CliError::new(exit_codes::USAGE, text)
        });
    }
    Ok(match config.broker.keep {
        KeepConfig::Failed => KeepPolicy::Failed,
        KeepConfig::UnlessPassed => KeepPolicy::UnlessPassed,
        KeepConfig::Always => KeepPolicy::Always,
        KeepConfig::Never => KeepPolicy::Never,
    })
}

/// The number in an environment variable, if there is one.
fn number(variable: &str, wrong: &str) -> Result<Option<u64>, CliError> {
    let Some(text) = std::env::var_os(variable).filter(|it| !it.is_empty()) else { return Ok(None) };
    let text = text.to_string_lossy();
    let refuse = |_| CliError::new(exit_codes::USAGE, format!("{variable}={text} {wrong}"));
    text.parse().map(Some).map_err(refuse)
}
