//! `cargo xtask test`: everything that must hold, on a machine that may have only Rust.

use std::collections::hash_map::DefaultHasher;
use std::ffi::OsString;
use std::fs;
use std::hash::{Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Result, bail};

use crate::setup::{self, Need};
use crate::{codegen, hygiene, run};

/// Runs every check; nextest is last, so that its summary is what one sees.
pub(crate) fn test(arguments: &[String]) -> Result<()> {
    let (own, for_nextest) = match arguments.iter().position(|argument| argument == "--") {
        Some(at) => (&arguments[..at], &arguments[at + 1..]),
        None => (arguments, &[][..]),
    };
    let quick = match own {
        [] => false,
        [flag] if flag == "--quick" => true,
        other => bail!("`cargo xtask test` does not know {other:?}; it takes --quick and -- NEXTEST ARGS"),
    };
    let started = Instant::now();
    let tools = setup::ensure(Need::Everything)?;
    // What a linter finds is told at the end; it does not keep anyone from seeing whether the tests pass.
    let lints = if quick { Ok(()) } else { lints() };
    run::step("build", &mut run::cargo(&["build", "--workspace", "--bins"]))?;
    let testenv = PrivateTestenv::new(tools.path()?);
    let mut doctests = run::cargo(&["test", "--quiet", "--workspace", "--doc"]);
    run::step("documentation tests", testenv.apply(&mut doctests))?;
    println!("\n=== everything before the tests took {:.0} s", started.elapsed().as_secs_f64());
    let mut nextest = run::cargo(&["nextest", "run", "--workspace"]);
    run::tail(testenv.apply(nextest.args(for_nextest)), || testenv.down())?;
    lints
}

/// Runs every check that is no test, and names all that failed.
fn lints() -> Result<()> {
    let mut clippy = run::cargo(&["clippy", "--quiet", "--workspace", "--all-targets"]);
    clippy.args(["--features", "xtask/codegen", "--", "-D", "warnings"]);
    let mut benches =
        run::cargo(&["clippy", "--quiet", "--manifest-path", "benches/Cargo.toml", "--workspace"]);
    benches.args(["--all-targets", "--", "-D", "warnings"]);
    let mut doc = run::cargo(&["doc", "--quiet", "--workspace", "--no-deps"]);
    let results = [
        run::step("format", &mut run::cargo(&["fmt", "--all", "--check"])),
        run::step("clippy", &mut clippy),
        run::step(
            "format of the benches",
            &mut run::cargo(&["fmt", "--manifest-path", "benches/Cargo.toml", "--all", "--check"]),
        ),
        run::step("clippy of the benches", &mut benches),
        run::step("documentation", doc.env("RUSTDOCFLAGS", "-D warnings")),
        hygiene::hygiene(),
        codegen::codegen(&["--check".to_owned()]),
    ];
    let failures: Vec<_> =
        results.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect();
    if failures.is_empty() {
        return Ok(());
    }
    let failures = failures.join("\n");
    eprintln!("\n=== these checks failed:\n{failures}");
    bail!("the tests passed, but these checks failed:\n{failures}")
}

/// An environment in which tests use the `testenv` that was just built, with sockets and snapshots of its own,
/// so that the brokers of whoever works here are not disturbed.
pub(crate) struct PrivateTestenv {
    path: OsString,
    program: PathBuf,
    runtime: PathBuf,
    cache: PathBuf,
}

impl PrivateTestenv {
    pub(crate) fn new(path: OsString) -> Self {
        // Paths of sockets have a limit of 107 bytes, which a target directory can exceed.
        let mut hasher = DefaultHasher::new();
        run::target_dir().hash(&mut hasher);
        let runtime = PathBuf::from(format!("/tmp/te-{:08x}", hasher.finish() >> 32));
        let program = run::target_dir().join("debug/testenv");
        Self { path, program, runtime, cache: run::reachable_dir("testenv-cache") }
    }

    /// The same with another cache directory.
    pub(crate) fn with_cache(self, cache: PathBuf) -> Self {
        Self { cache, ..self }
    }

    /// The program.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// Sets the environment of a command.
    pub(crate) fn apply<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        for inherited in ["TESTENV_BROKER", "TESTENV_WORKSPACE", "TESTENV_KEEP", "TESTENV_WAIT_MS"] {
            command.env_remove(inherited);
        }
        command
            .env("PATH", &self.path)
            .env("TESTENV_BIN", &self.program)
            .env("TESTENV_RUNTIME_DIR", &self.runtime)
            .env("TESTENV_CACHE_DIR", &self.cache)
    }

    /// Ends every broker that was started in this environment; a broker that is gone already is none to end.
    pub(crate) fn down(&self) {
        let workspaces = fs::read_dir(&self.runtime).into_iter().flatten().flatten();
        for socket in
            workspaces.map(|entry| entry.path().join("broker.sock")).filter(|socket| socket.exists())
        {
            let mut down = Command::new(&self.program);
            let down = self.apply(&mut down).arg("down").env("TESTENV_BROKER", &socket);
            let silent = down.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            if silent.status().is_err() {
                return;
            }
        }
        let _ = fs::remove_dir_all(&self.runtime);
    }
}
