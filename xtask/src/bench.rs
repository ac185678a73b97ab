//! `cargo xtask bench`: builds and starts the program in `benches/`, a workspace of its own.

use anyhow::Result;

use crate::run;
use crate::setup::{self, Need};

/// Runs the benches that are named, or all. `--docker` installs and starts a Docker engine for the peers that
/// need one.
pub(crate) fn bench(arguments: &[String]) -> Result<()> {
    let docker = arguments.iter().any(|argument| argument == "--docker");
    let tools = setup::ensure(if docker { Need::Containers } else { Need::Everything })?;
    run::step("build", &mut run::cargo(&["build", "--release", "--package", "testenv-cli"]))?;
    let mut program = run::cargo(&["run", "--release", "--manifest-path", "benches/Cargo.toml", "--"]);
    program.args(arguments).env("PATH", tools.path()?);
    program.env("TESTENV_BIN", run::target_dir().join("release/testenv"));
    run::step("bench", &mut program)
}
