//! `cargo xtask torture`: builds what is killed and what kills it, and runs that.

use anyhow::Result;

use crate::run;
use crate::setup::{self, Need};

/// Runs the torture with these arguments: `--kills N`, `--seed N`, `--tests N` at a time, `--nobody`, `--unprivileged`.
pub(crate) fn torture(arguments: &[String]) -> Result<()> {
    let tools = setup::ensure(Need::Suite)?;
    let packages = ["--package", "testenv-cli", "--package", "testkit", "--bins"];
    run::step("build", run::cargo(&["build"]).args(packages))?;
    let programs = run::target_dir().join("debug");
    let mut torture = run::command(&programs.join("torture").display().to_string());
    run::step("torture", torture.arg(programs.join("testenv")).args(arguments).env("PATH", tools.path()?))
}
