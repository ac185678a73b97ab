//! What it costs to have it as a dependency: crates, and a clean build.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::Result;

use crate::machine;
use crate::stats::Row;

/// testenv's harness, bare and with its drivers, and testcontainers-rs.
pub fn trees() -> Result<Vec<Row>> {
    let harness = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/testenv").canonicalize()?;
    let ours = |features: &str| format!("testenv = {{ path = {harness:?}, features = [{features}] }}");
    [
        ("testenv", ours("")),
        ("testenv, feature tokio-postgres", ours("\"tokio-postgres\"")),
        ("testenv, feature sqlx", ours("\"sqlx\"")),
        ("sqlx with its test attribute", "sqlx = { version = \"0.9\", default-features = false, features = [\"macros\", \"migrate\", \"postgres\", \"runtime-tokio\"] }".into()),
        ("testcontainers-modules, feature postgres", "testcontainers-modules = { version = \"0.15\", features = [\"postgres\"] }".into()),
    ]
    .iter()
    .map(|(who, dependency)| tree(who, dependency))
    .collect()
}

fn tree(who: &str, dependency: &str) -> Result<Row> {
    eprintln!("  {who}");
    let dir = machine::disk_dir()?.join("tree");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(dir.join("src"))?;
    fs::write(dir.join("src/lib.rs"), "")?;
    let manifest = format!(
        "[package]\nname = \"tree\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n\n[dependencies]\n{dependency}\n"
    );
    fs::write(dir.join("Cargo.toml"), manifest)?;
    // The same versions as everywhere here, where it is one of the crates that are here.
    fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock"), dir.join("Cargo.lock"))?;
    let cargo = |arguments: &[&str]| {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(arguments).current_dir(&dir).env("CARGO_TARGET_DIR", dir.join("target"));
        cargo
    };
    machine::output(&mut cargo(&["fetch"]))?;
    let list = machine::output(&mut cargo(&[
        "tree",
        "--edges",
        "normal,build",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ]))?;
    let crates: BTreeSet<&str> = list.lines().map(|line| line.trim_end_matches(" (*)")).collect();
    let started = Instant::now();
    machine::output(&mut cargo(&["build", "--quiet"]))?;
    Ok(Row::new("build", who)
        .cell("crates", (crates.len() - 1) as f64)
        .cell("clean build s", started.elapsed().as_secs_f64()))
}
