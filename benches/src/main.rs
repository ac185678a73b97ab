//! Measures testenv beside its peers, in one run, on the same schema.
//!
//! Started by `cargo xtask bench`. Everything is blocking and, rates apart, one thing at a time: what is measured
//! is the servers and the ways to them, not this program.

#![forbid(unsafe_code)]

mod cluster;
mod containers;
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
    "floor", "naive", "template", "sqlx", "pgtemp", "embedded", "docker", "ours", "suite", "build", "report",
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
    } else if has("--rows") {
        run(plan, &names, false).map(|rows| rows.iter().for_each(|row| println!("{}", row.to_json())))
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
            // These start servers themselves, which PostgreSQL refuses to root.
            "pgtemp" | "embedded" if machine::is_root() => rows.extend(as_nobody(plan, name)?),
            "pgtemp" => rows.extend(for_each_build(|build| peers::pgtemp(plan, build))?),
            "embedded" => rows.extend(for_each_build(|build| peers::embedded(plan, build))?),
            "docker" => rows.extend(containers::containers(plan, start_engine)?),
            "suite" => rows.extend(suites::suites(plan)?),
            "build" => rows.extend(tree::trees()?),
            "ours" => rows.extend(ours::ours(plan)?),
            "report" => {}
            other => bail!("there is no bench {other:?}"),
        }
    }
    Ok(rows)
}

fn for_each_build(mut each: impl FnMut(&machine::Build) -> Result<Vec<Row>>) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for build in machine::builds()? {
        rows.extend(each(&build)?);
    }
    Ok(rows)
}

/// Runs one bench in a process that is not root.
fn as_nobody(plan: Plan, name: &str) -> Result<Vec<Row>> {
    // A copy, as the target directory may be below a home that is closed to others.
    let program = machine::disk_dir()?.join("benches");
    std::fs::copy(std::env::current_exe()?, &program)?;
    let mut command = Command::new(&program);
    command.args([name, "--rows"]).uid(machine::NOBODY).gid(machine::NOBODY);
    command.current_dir("/").env("HOME", machine::disk_dir()?).stderr(Stdio::inherit());
    if plan.quick {
        command.arg("--quick");
    }
    let output = command.output().context("failed to start this program again")?;
    if !output.status.success() {
        bail!("{name} ended with {}", output.status);
    }
    let rows = String::from_utf8_lossy(&output.stdout);
    let rows = rows.lines().map(|line| Row::from_json(&serde_json::from_str(line)?).context("a row"));
    rows.collect()
}
