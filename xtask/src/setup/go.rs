//! Servers that come as source through Go's module proxy: MinIO and the Versity S3 Gateway.
//!
//! Each is built by `go install` into one directory, and left out where Go is not there: the tests that need it
//! are skipped then.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;

use super::Missing;
use crate::run;

/// A program to build.
struct Module {
    program: &'static str,
    package: &'static str,
    version: &'static str,
    /// Tells the program its version, which `go install` does not.
    flags: &'static str,
    takes: &'static str,
}

const MODULES: [Module; 2] = [
    Module {
        program: "minio",
        package: "github.com/minio/minio",
        version: "v0.0.0-20260212201848-7aac2a2c5b7c",
        flags: "-X github.com/minio/minio/cmd.ReleaseTag=RELEASE.2026-02-12T20-18-48Z \
                -X github.com/minio/minio/cmd.Version=2026-02-12T20:18:48Z",
        takes: "five minutes",
    },
    Module {
        program: "versitygw",
        package: "github.com/versity/versitygw/cmd/versitygw",
        version: "v1.8.0",
        flags: "-X main.Version=v1.8.0",
        takes: "two minutes",
    },
];

/// Where they go.
pub(super) fn dir() -> PathBuf {
    run::reachable_dir("testenv-tools").join("go")
}

pub(super) fn missing() -> Vec<Missing> {
    if skipped().is_some() {
        return Vec::new();
    }
    let lacking = MODULES.iter().filter(|module| !is_here(module));
    lacking
        .map(|module| Missing {
            what: format!(
                "{} (built from source: about {} on two cores; into {})",
                module.program,
                module.takes,
                dir().display()
            ),
            command: format!("go install {}@{}", module.package, module.version),
            install: Some(Box::new(|| install(module))),
        })
        .collect()
}

/// Why tests of S3 are skipped, when they are.
pub(super) fn skipped() -> Option<String> {
    let lacking = MODULES.iter().any(|module| !is_here(module));
    (lacking && run::which("go").is_none()).then(|| {
        let programs = MODULES.map(|module| module.program).join(" and ");
        format!("Go is not installed, and {programs} come as its source")
    })
}

fn is_here(module: &Module) -> bool {
    run::which(module.program).is_some() || dir().join(module.program).is_file()
}

fn install(module: &Module) -> Result<()> {
    let mut go = run::command("go");
    go.args(["install", "-ldflags", &format!("-s -w {}", module.flags)]);
    go.arg(format!("{}@{}", module.package, module.version));
    // Moved when it is whole: a build that was interrupted is none.
    let staging = dir().join("staging");
    run::step(module.program, go.env("GOBIN", &staging))?;
    fs::rename(staging.join(module.program), dir().join(module.program))?;
    fs::remove_dir_all(staging)?;
    Ok(())
}
