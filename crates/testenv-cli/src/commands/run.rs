//! `testenv run`.

use std::ffi::OsString;
use std::path::PathBuf;

use testenv_api::client::INSTALL;
use testenv_api::discovery::Workspace;
use testenv_config::PerConfig;
use testenv_runner::exit_codes;
use testenv_runner::run::{self, LeasePlan, Options, Palette, summary};

use crate::args::RunArgs;
use crate::broker_process::ensure_same_version;
use crate::error::CliError;
use crate::{leasing, output};

pub(crate) fn run(workspace: &Workspace, args: &RunArgs) -> Result<i32, CliError> {
    let config = leasing::config(workspace)?;
    let requests = leasing::requests(&config, &args.leases)?;
    let leases = match args.per.unwrap_or(config.run.per) {
        _ if requests.is_empty() => LeasePlan::None,
        PerConfig::Test => LeasePlan::PerTest(requests),
        PerConfig::Run => LeasePlan::PerRun(requests),
        PerConfig::None => LeasePlan::None,
    };
    ensure_same_version(workspace)?;
    let (testenv, wrapper) = programs()?;
    let options = Options {
        leases,
        nextest_args: args.nextest_args.clone(),
        profile: args.profile.clone().or_else(|| std::env::var("NEXTEST_PROFILE").ok()),
        cargo: std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")),
        wrapper,
        testenv,
        environment: |name| std::env::var_os(name).filter(|value| !value.is_empty()),
        output: workspace.root().join(&config.run.output),
    };
    let Some(finished) = run::run(workspace, &options)? else { return Ok(exit_codes::OK) };
    let base = std::env::current_dir().unwrap_or_default();
    output::say(summary(&finished, Palette::new(output::colours()), &base));
    Ok(finished.exit_code)
}

/// This program, and the wrapper that is installed beside it.
fn programs() -> Result<(PathBuf, PathBuf), CliError> {
    let missing = |what: &str, error: String| {
        let text = format!(
            "failed to find {what}\n  | {error}\n  hint: {INSTALL} installs testenv and testenv-wrap side by side"
        );
        CliError::new(exit_codes::NOT_FOUND, text)
    };
    let testenv = std::env::current_exe().map_err(|error| missing("this program", error.to_string()))?;
    let wrapper = testenv.with_file_name("testenv-wrap");
    if !wrapper.is_file() {
        return Err(missing("testenv-wrap", format!("{} is not there", wrapper.display())));
    }
    Ok((testenv, wrapper))
}
