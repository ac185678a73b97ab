//! `cargo xtask codegen`: builds and starts the `codegen` program, which writes the generated pages of `docs/`.

use anyhow::{Result, bail};

use crate::run;

/// Writes the pages, or with `--check` fails when one is stale.
pub(crate) fn codegen(arguments: &[String]) -> Result<()> {
    if !matches!(arguments, [] | [_]) || arguments.iter().any(|argument| argument != "--check") {
        bail!("`cargo xtask codegen` takes --check and nothing else");
    }
    let program = ["run", "--quiet", "--package", "xtask", "--features", "codegen", "--bin", "codegen", "--"];
    run::step("generated pages", run::cargo(&program).args(arguments))
}
