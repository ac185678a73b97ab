//! `docs/benchmarks.json` and `docs/benchmarks.md`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::machine;
use crate::stats::{Plan, Row};
use crate::targets;

/// Tables in order: key, heading, how it was measured.
const TABLES: [(&str, &str, &str); 7] = [
    (
        "floor",
        "What the machine charges",
        "What no way to a database can do without, measured without testenv. A server starts on a directory in tmpfs \
         that was shut down cleanly, without fsync, by `pg_ctl`, and is asked every millisecond.",
    ),
    (
        "private",
        "A private, migrated database",
        "From asking to the answer to the first query on a new connection; giving it back is not part of it. One \
         after the other, at most 200 times or for 6 seconds; for testenv, warm, with 40 ms between, in which the \
         pool refills as it does while a test works. \"A second\" counts whole cycles (get, connect, query, give back) \
         of 4 workers over 5 seconds.",
    ),
    (
        "lease",
        "testenv: where the time goes",
        "The lease is the time from the request to its answer. The first query is on a new connection over the unix \
         socket, which the test's driver makes; the second connection over TCP with a password.",
    ),
    (
        "memory",
        "Memory of an idle server",
        "Proportional set size of the servers' processes two seconds after the last of them was ready, divided by \
         their number. For testenv these are pooled servers, each with the sessions that wait in it.",
    ),
    (
        "faults",
        "The proxy of a lease that asked for faults",
        "A Redis that is asked over TCP past its proxy and through it, in turns. A round trip is a `PING` and its answer \
         on an open connection; the throughput is that of the fastest of five answers of 64 MiB. Leases that ask for no \
         faults have no proxy.",
    ),
    (
        "suite",
        "1,000 tests",
        "Each test has a private, migrated database and runs three queries. Two tests at once, as nextest does on two \
         cores. \"nextest\" is a process per test, \"cargo test\" one process for all. Slow ones run a tenth.",
    ),
    (
        "build",
        "As a dependency",
        "Crates in the tree (build dependencies included) and the time of a clean debug build of an empty crate that \
         has only this dependency, downloads done.",
    ),
];

/// Said below the table of targets.
const TARGETS: &str = "The last column is the same thing done by the least that can do it, on the same machine. What the \
    misses are made of:

- **Lease.** The broker itself takes about 0.1 ms (the summary of `testenv run` shows it). The rest is waking two \
    processes that were idle for 40 ms and find the processor's caches full of PostgreSQL, which refilled the pool \
    meanwhile. The p99 is a lease that comes while both processors are at that.
- **First query.** A session is a process: this is what a new one costs on any server here. `db.connect()` of the harness \
    takes over a session that is open already, and does not pay for it.
- **Servers a second.** A server is six processes; their start and end are about 4,000 page faults. Of the processors' \
    time, 70 % is the kernel's, and about a tenth the dynamic linker's (10.8 %, perf on PostgreSQL 15, measured by hand): \
    Debian's PostgreSQL 15 links 40 libraries, the newer build 15.
- **Clean build.** Crates that wait for each other: `syn`, `serde_derive`, and `testenv-api`, whose types it derives.";

/// Writes both files; what was not measured this time stays as it was. A quick run is only printed.
pub fn write(plan: Plan, rows: &[Row]) -> Result<()> {
    if plan.quick {
        println!("{}\n{}", targets::table(rows), tables(rows)?);
        return Ok(());
    }
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let json_path = docs.join("benchmarks.json");
    let old = fs::read_to_string(&json_path).ok().and_then(|text| serde_json::from_str(&text).ok());
    let rows = merged(old.as_ref().unwrap_or(&Value::Null), rows);
    let machine = machine::describe()?;
    let versions = versions()?;
    let document = json!({
        "version": 1,
        "machine": machine,
        "crates": versions,
        "rows": rows.iter().map(Row::to_json).collect::<Vec<_>>(),
    });
    fs::create_dir_all(&docs)?;
    fs::write(&json_path, format!("{document:#}\n"))?;
    fs::write(docs.join("benchmarks.md"), page(&machine, &versions, &rows)?)?;
    println!("wrote docs/benchmarks.json and docs/benchmarks.md");
    Ok(())
}

/// The old rows with the new ones in their places, or behind.
fn merged(old: &Value, new: &[Row]) -> Vec<Row> {
    let mut rows: Vec<Row> =
        old["rows"].as_array().into_iter().flatten().filter_map(Row::from_json).collect();
    for row in new {
        match rows.iter_mut().find(|old| old.table == row.table && old.who == row.who) {
            Some(old) => *old = row.clone(),
            None => rows.push(row.clone()),
        }
    }
    rows
}

fn page(machine: &Value, versions: &BTreeMap<String, String>, rows: &[Row]) -> Result<String> {
    let text = |key: &str| machine[key].as_str().unwrap_or_default().to_owned();
    let postgres: Vec<_> =
        machine["postgres"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let crates: Vec<_> = versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    let mut page = format!(
        "# Benchmarks

Written by `cargo xtask bench`, with the same numbers in `benchmarks.json`. All of them are from one machine and one
day, on the same schema: {} tables, 150 indexes, {0} migration files. They are not all from one run: a later run of
named benches replaces only their rows. Between runs, the machine's speed changes by a factor of up to two. Lower is
better, except where it says \"a second\".

| | |
|---|---|
| machine | {}, {} cores, {} GiB |
| system | {}, {} on disk, run as {} |
| servers | PostgreSQL {}; Redis {} |
| crates | {} |
| compiler | {} |
| date | {} |
",
        schema::TABLES,
        text("cpu"),
        machine["cores"],
        machine["memory_gib"],
        text("kernel"),
        text("disk"),
        text("user"),
        postgres.join(" and "),
        text("redis"),
        crates.join(", "),
        text("rustc"),
        text("date"),
    );
    write!(page, "\n## Targets\n\n{}\n{TARGETS}\n{}", targets::table(rows), tables(rows)?)?;
    Ok(page)
}

fn tables(rows: &[Row]) -> Result<String> {
    let mut text = String::new();
    for (key, heading, method) in TABLES {
        let rows: Vec<_> = rows.iter().filter(|row| row.table == key).collect();
        if rows.is_empty() {
            continue;
        }
        let mut columns: Vec<&String> = Vec::new();
        for column in rows.iter().flat_map(|row| row.cells.keys()) {
            if !columns.contains(&column) {
                columns.push(column);
            }
        }
        let names: Vec<_> = columns.iter().map(|column| column.as_str()).collect();
        write!(
            text,
            "\n## {heading}\n\n{method}\n\n| | {} |\n|---|{}\n",
            names.join(" | "),
            "---:|".repeat(names.len())
        )?;
        for row in rows {
            let cells: Vec<_> =
                columns.iter().map(|column| row.cells.get(*column).map(shown).unwrap_or_default()).collect();
            writeln!(text, "| {} | {} |", row.who, cells.join(" | "))?;
        }
    }
    Ok(text)
}

/// A number without a needless `.0`.
fn shown(number: &Value) -> String {
    match number.as_f64() {
        Some(number) if number.fract() == 0.0 => format!("{number:.0}"),
        _ => number.to_string(),
    }
}

/// Versions of the peers, from the lock file.
fn versions() -> Result<BTreeMap<String, String>> {
    const PEERS: [&str; 5] =
        ["pgtemp", "postgresql_embedded", "sqlx", "testcontainers", "testcontainers-modules"];
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock");
    let lock = fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
    let value =
        |line: &str, key: &str| Some(line.strip_prefix(key)?.trim_matches([' ', '=', '"']).to_owned());
    let lines: Vec<_> = lock.lines().collect();
    let pairs =
        lines.windows(2).filter_map(|pair| Some((value(pair[0], "name")?, value(pair[1], "version")?)));
    Ok(pairs.filter(|(name, _)| PEERS.contains(&name.as_str())).collect())
}
