//! Measures testenv beside its peers, in one run, on the same schema.
//!
//! Started by `cargo xtask bench`. Everything is blocking and, rates apart, one thing at a time: what is measured
//! is the servers and the ways to them, not this program.

#![forbid(unsafe_code)]

mod cluster;
mod containers;
mod faults;
mod floor;
mod machine;
mod ours;
mod peers;
mod report;
mod stats;
mod suites;
mod targets;
mod tree;

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use stats::{Plan, Row};

/// Everything that can be named, in the order of the page. `report` measures nothing: the page is written anew.
const NAMES: &[&str] = &[
    "floor", "naive", "template", "sqlx", "pgtemp", "embedded", "docker", "ours", "faults", "suite", "build",
    "report",
];

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (flags, names): (Vec<_>, Vec<_>) =
        arguments.iter().map(String::as_str).partition(|it| it.starts_with("--"));
    let has = |flag: &str| flags.contains(&flag);
    let plan = Plan { quick: has("--quick") };
    let done = if has("--inside-sqlx") {
        peers::inside_sqlx(plan, names.first().context("a label")?).map(|row| println!("{}", row.to_json()))
    } else if has("--inside-docker") {
        containers::inside(plan).map(|rows| rows.iter().for_each(|row| println!("{}", row.to_json())))
    } else if has("--inside-apart") {
        inside_apart(plan, &names).map(|rows| rows.iter().for_each(|row| println!("{}", row.to_json())))
    } else {
        machine::sweep();
        all(plan, &names, has("--docker"))
    };
    machine::clean_up();
    done
}

fn all(plan: Plan, names: &[&str], start_engine: bool) -> Result<()> {
    if let Some(unknown) = names.iter().find(|name| !NAMES.contains(name)) {
        bail!("there is no bench {unknown:?}; there are {}", NAMES.join(", "));
    }
    let names = if names.is_empty() { NAMES } else { names };
    let rows = run(plan, names, start_engine)?;
    report::write(plan, &rows)
}

fn run(plan: Plan, names: &[&str], start_engine: bool) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for name in names {
        eprintln!("{name}");
        match *name {
            "floor" => rows.extend(floor::floors(plan)?),
            "naive" => peers::on_each_cluster(|cluster| {
                rows.push(peers::naive(plan, cluster)?);
                Ok(())
            })?,
            "template" => peers::on_each_cluster(|cluster| {
                rows.extend(peers::template(plan, cluster)?);
                Ok(())
            })?,
            "sqlx" => peers::on_each_cluster(|cluster| {
                rows.push(peers::sqlx_test(plan, cluster)?);
                Ok(())
            })?,
            "pgtemp" | "embedded" => rows.extend(apart(plan, name)?),
            "docker" => rows.extend(containers::containers(plan, start_engine)?),
            "suite" => rows.extend(suites::suites(plan)?),
            "build" => rows.extend(tree::trees()?),
            "ours" => rows.extend(ours::ours(plan)?),
            "faults" => rows.extend(faults::faults(plan)?),
            "report" => {}
            other => bail!("there is no bench {other:?}"),
        }
    }
    Ok(rows)
}

/// Runs a peer that starts servers itself in a process of its own: PostgreSQL refuses them to root, and what the
/// peer leaves among the temporary files goes with our directory.
fn apart(plan: Plan, name: &str) -> Result<Vec<Row>> {
    let dir = machine::disk_dir()?;
    // A copy, as the target directory may be below a home that is closed to others.
    let program = dir.join("benches");
    std::fs::copy(std::env::current_exe()?, &program)?;
    let mut command = Command::new(&program);
    command.args(["--inside-apart", name]).current_dir("/").stderr(Stdio::inherit());
    command.env("HOME", &dir).env("TMPDIR", &dir);
    if machine::is_root() {
        command.uid(machine::NOBODY).gid(machine::NOBODY);
    }
    if plan.quick {
        command.arg("--quick");
    }
    let rows = machine::output(&mut command)?;
    rows.lines().map(|line| Row::from_json(&serde_json::from_str(line)?).context("a row")).collect()
}

/// The inside of that process.
fn inside_apart(plan: Plan, names: &[&str]) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for build in machine::builds()? {
        rows.extend(match names {
            ["pgtemp"] => peers::pgtemp(plan, &build)?,
            ["embedded"] => peers::embedded(plan, &build)?,
            other => bail!("{other:?} is not one peer that starts servers"),
        });
    }
    Ok(rows)
}
