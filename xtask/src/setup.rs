//! What a fresh machine lacks: found, announced, installed; nothing is ever installed twice.

mod engines;
mod go;
mod kafka;
mod nextest;
mod npm;
mod packages;

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use crate::run;

/// What the coming command cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Engines, nextest, a second PostgreSQL, lints: what the whole test suite uses.
    Everything,
    /// Engines and nextest.
    Suite,
    /// Everything, and a Docker engine with what builds an image for it.
    Containers,
}

/// What was found.
#[derive(Debug)]
pub(crate) struct Tools {
    /// Programs of a newer PostgreSQL outside the usual places.
    newer_postgres: Option<PathBuf>,
    /// Programs of a Kafka outside the usual places.
    kafka: Option<PathBuf>,
}

impl Tools {
    /// `PATH` with the engines of our own at its end, so that testenv finds them among the machine's.
    pub(crate) fn path(&self) -> Result<OsString> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let dirs = std::env::split_paths(&path).chain(self.newer_postgres.clone()).chain(self.kafka.clone());
        let dirs = dirs.chain([go::dir()]);
        std::env::join_paths(dirs).context("a directory in PATH has a colon in its name")
    }
}

/// One thing that is missing, and how it comes.
struct Missing {
    what: String,
    /// Shell command that brings it, as one would type it.
    command: String,
    install: Option<Box<dyn FnOnce() -> Result<()>>>,
}

/// Installs what is missing, saying so first; silent when nothing is.
///
/// # Errors
/// When something cannot be installed from here: the message has the command to type.
pub(crate) fn ensure(need: Need) -> Result<Tools> {
    let everything = need != Need::Suite;
    let mut missing = Vec::new();
    missing.extend(packages::missing()?);
    missing.extend(nextest::missing());
    if everything {
        missing.extend(rust_component("rustfmt", "cargo-fmt"));
        missing.extend(rust_component("clippy", "cargo-clippy"));
        missing.extend(npm::missing());
        missing.extend(go::missing());
        missing.extend(packages::missing_servers());
        // Java comes before what it runs.
        let java = packages::missing_java();
        let kafka = kafka::missing(java.is_some());
        missing.extend(java.into_iter().chain(kafka));
        missing.extend(packages::missing_file_systems());
    }
    if need == Need::Containers {
        missing.extend(packages::missing_containers());
    }
    if !missing.is_empty() {
        install(missing)?;
    }
    if everything && let Some(why) = npm::skipped() {
        println!("note: tests of a second PostgreSQL version are skipped: {why}");
    }
    if everything && let Some(why) = go::skipped() {
        println!("note: tests of S3 are skipped: {why}");
    }
    if everything && let Some(why) = kafka::skipped() {
        println!("note: tests of Kafka are skipped: {why}");
    }
    Ok(Tools { newer_postgres: npm::installed(), kafka: kafka::installed() })
}

fn install(missing: Vec<Missing>) -> Result<()> {
    println!("missing on this machine:");
    for one in &missing {
        println!("  {}", one.what);
    }
    let (can, cannot): (Vec<_>, Vec<_>) = missing.into_iter().partition(|one| one.install.is_some());
    if !cannot.is_empty() {
        let commands: Vec<_> = cannot.iter().map(|one| format!("    {}", one.command)).collect();
        bail!(
            "this cannot be installed from here; run\n\n{}\n\nand then this command again",
            commands.join("\n")
        );
    }
    println!("will be installed now by:");
    for one in &can {
        println!("  {}", one.command);
    }
    for one in can {
        println!("\n=== installing {}", one.what);
        let install = one.install.expect("sorted above");
        install()
            .with_context(|| format!("failed to install {}; `{}` does it by hand", one.what, one.command))?;
    }
    Ok(())
}

fn rust_component(name: &'static str, program: &str) -> Option<Missing> {
    if run::which(program).is_some() {
        return None;
    }
    let has_rustup = run::which("rustup").is_some();
    let command = format!("rustup component add {name}");
    let install = move || run::step(name, run::command("rustup").args(["component", "add", name]));
    Some(Missing {
        what: format!("{name}, which comes with Rust"),
        command,
        install: has_rustup.then(|| Box::new(install) as Box<_>),
    })
}
