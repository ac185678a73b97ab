//! `cargo xtask bench`: builds and starts the program in `benches/`, a workspace of its own.

use anyhow::Result;

use crate::run;
use crate::setup::{self, Need};

/// Runs the benches that are named, or all.
pub(crate) fn bench(arguments: &[String]) -> Result<()> {
    let tools = setup::ensure(Need::Everything)?;
    run::step("build", &mut run::cargo(&["build", "--release", "--package", "testenv-cli"]))?;
    let mut program = run::cargo(&["run", "--release", "--manifest-path", "benches/Cargo.toml", "--"]);
    run::step("bench", program.args(arguments).env("PATH", tools.path()?))
}
