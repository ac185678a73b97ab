//! Wall time of 1,000 tests, each with a private, migrated database and three queries, under nextest (a process
//! per test) and, for two of them, in one process.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::cluster::{Cluster, Kind};
use crate::machine::{self, Build};
use crate::ours::{self, Workspace};
use crate::stats::{Plan, Row};

/// How the tests are started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Runner {
    Nextest,
    Libtest,
}

/// How many of the tests are run: names are `t0000` to `t0999`.
#[derive(Clone, Copy, Debug)]
struct Part {
    tests: u32,
    prefix: &'static str,
}

const ALL: Part = Part { tests: 1000, prefix: "t" };
const TENTH: Part = Part { tests: 100, prefix: "t00" };
const QUICK: Part = Part { tests: 10, prefix: "t000" };

/// Every suite on the machine's oldest PostgreSQL, and testenv's on the newest too. What is slow
/// runs a tenth.
pub fn suites(plan: Plan) -> Result<Vec<Row>> {
    let part = |full| if plan.quick { QUICK } else { full };
    let builds = machine::builds()?;
    machine::output(cargo().args(["nextest", "run", "--no-run", "--package", "suites", "--cargo-quiet"]))?;
    let mut rows = Vec::new();
    let oldest = builds.first().context("a PostgreSQL")?;
    for (kind, full) in [(Kind::Tuned, ALL), (Kind::Stock, TENTH)] {
        let cluster = Cluster::start(oldest, kind)?;
        let environment = [("DATABASE_URL", PathBuf::from(cluster.url("postgres")))];
        let label = &cluster.label;
        rows.push(run(
            "naive",
            &format!("create and migrate ({label})"),
            Runner::Nextest,
            part(full),
            &environment,
        )?);
        rows.push(run("sqlx", &format!("sqlx::test ({label})"), Runner::Nextest, part(full), &environment)?);
        if kind == Kind::Tuned {
            rows.push(run(
                "sqlx",
                &format!("sqlx::test ({label})"),
                Runner::Libtest,
                part(TENTH),
                &environment,
            )?);
        }
    }
    for build in &builds {
        rows.extend(ours(build, part(ALL))?);
    }
    Ok(rows)
}

fn ours(build: &Build, part: Part) -> Result<Vec<Row>> {
    let workspace = Workspace::start(&format!("suite{}", build.major), std::slice::from_ref(build), 8)?;
    let mut environment = ours::environment()?.to_vec();
    environment.push(("TESTENV_WORKSPACE", workspace.dir.clone()));
    let who = |what: &str| format!("testenv, {what} (PostgreSQL {})", build.major);
    let suite = |name, what, runner| run(name, &who(what), runner, part, &environment);
    Ok(vec![
        suite("ours", "a server of its own, cold start included", Runner::Nextest)?,
        suite("ours", "a server of its own", Runner::Nextest)?,
        suite("ours_sqlx", "a server of its own, sqlx pool", Runner::Nextest)?,
        suite("ours_database", "a database of its own", Runner::Nextest)?,
        suite("ours_sqlx", "a server of its own, sqlx pool", Runner::Libtest)?,
    ])
}

fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo
}

fn run(suite: &str, who: &str, runner: Runner, part: Part, environment: &[(&str, PathBuf)]) -> Result<Row> {
    let who = match runner {
        Runner::Nextest => format!("{who}, nextest"),
        Runner::Libtest => format!("{who}, cargo test"),
    };
    eprintln!("  {who}: {} tests", part.tests);
    let mut command = cargo();
    match runner {
        Runner::Nextest => command.args(["nextest", "run", "--cargo-quiet", "--status-level", "fail"]),
        Runner::Libtest => command.args(["test", "--quiet"]),
    };
    command
        .args(["--package", "suites", "--test", suite])
        .envs(environment.iter().map(|(name, value)| (name, value)));
    match runner {
        Runner::Nextest => command.args(["-E", &format!("test(/^{}/)", part.prefix)]),
        Runner::Libtest => command.args(["--", part.prefix]),
    };
    let output = command.output().with_context(|| format!("failed to start {command:?}"))?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    ensure!(output.status.success(), "{command:?} ended with {}\n{text}", output.status);
    let (seconds, passed) =
        summary(&text).with_context(|| format!("no summary in what {command:?} printed"))?;
    ensure!(passed == part.tests, "{passed} tests of {suite} passed, not {}", part.tests);
    Ok(Row::new("suite", who)
        .cell("tests", f64::from(part.tests))
        .cell("wall s", seconds)
        .cell("s for 1,000", seconds * 1000.0 / f64::from(part.tests)))
}

/// Seconds and tests passed, from nextest's `Summary [ 1.5s] 10 tests run: 10 passed` or libtest's
/// `test result: ok. 10 passed; …; finished in 1.5s`.
fn summary(text: &str) -> Option<(f64, u32)> {
    let line = text.lines().find(|line| line.contains("Summary [") || line.contains("; finished in "))?;
    let (_, after) = line.split_once("Summary [").or_else(|| line.split_once("; finished in "))?;
    let seconds = after.split_once('s')?.0.trim().parse().ok()?;
    let passed = line.split_once(" passed")?.0.rsplit(' ').next()?.parse().ok()?;
    Some((seconds, passed))
}

#[cfg(test)]
mod tests {
    use super::summary;

    #[test]
    fn reads_the_summary_of_both_runners() {
        let nextest = "─────\n     Summary [  15.536s] 88 tests run: 88 passed, 912 skipped\n";
        assert_eq!(summary(nextest), Some((15.536, 88)));
        let libtest = "test result: ok. 10 passed; 0 failed; 0 ignored; 0 measured; 990 filtered out; finished in 1.25s\n";
        assert_eq!(summary(libtest), Some((1.25, 10)));
        assert_eq!(summary("error: nothing was run"), None);
    }
}
