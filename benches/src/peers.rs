//! The peers that need no container engine.

use std::cell::Cell;
use std::path::Path;
use std::pin::Pin;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use postgres::{Client, NoTls};
use sqlx::migrate::Migrator;
use sqlx::testing::{TestArgs, TestFn};

use crate::cluster::{Cluster, Kind, migrate};
use crate::machine::{self, Build};
use crate::stats::{Plan, Row, measure};

static NUMBER: AtomicUsize = AtomicUsize::new(0);

fn fresh_name(prefix: &str) -> String {
    format!("{prefix}_{}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// Every server that peers share, one after the other.
pub fn on_each_cluster(mut each: impl FnMut(&Cluster) -> Result<()>) -> Result<()> {
    for build in machine::builds()? {
        for kind in [Kind::Stock, Kind::Tuned] {
            each(&Cluster::start(&build, kind)?)?;
        }
    }
    Ok(())
}

/// A database created, migrated and dropped for each test.
pub fn naive(plan: Plan, cluster: &Cluster) -> Result<Row> {
    let once = || in_new_database(cluster, "", migrate);
    measure(plan, &format!("create and migrate ({})", cluster.label), Duration::ZERO, &once)
}

/// A database cloned from a migrated template for each test.
pub fn template(plan: Plan, cluster: &Cluster) -> Result<Vec<Row>> {
    let template = fresh_name("template");
    let mut admin = cluster.connect("postgres")?;
    admin.batch_execute(&format!("CREATE DATABASE {template}"))?;
    migrate(&mut cluster.connect(&template)?)?;
    let row = |strategy: &str| {
        let from = format!("TEMPLATE {template} STRATEGY {strategy}");
        let once = || in_new_database(cluster, &from, |_| Ok(()));
        measure(
            plan,
            &format!("CREATE DATABASE … TEMPLATE, {strategy} ({})", cluster.label),
            Duration::ZERO,
            &once,
        )
    };
    ["wal_log", "file_copy"].into_iter().map(row).collect()
}

fn in_new_database(
    cluster: &Cluster,
    options: &str,
    prepare: impl Fn(&mut Client) -> Result<()>,
) -> Result<Duration> {
    let name = fresh_name("private");
    let started = Instant::now();
    let mut admin = cluster.connect("postgres")?;
    admin.batch_execute(&format!("CREATE DATABASE {name} {options}"))?;
    let mut client = cluster.connect(&name)?;
    prepare(&mut client)?;
    client.simple_query("SELECT 1")?;
    let took = started.elapsed();
    drop(client);
    admin.batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)"))?;
    Ok(took)
}

/// `#[sqlx::test]`, in a process of its own, as it reads `DATABASE_URL` once.
pub fn sqlx_test(plan: Plan, cluster: &Cluster) -> Result<Row> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--inside-sqlx", &cluster.label]).env("DATABASE_URL", cluster.url("postgres"));
    if plan.quick {
        command.arg("--quick");
    }
    let text = machine::output(&mut command)?;
    let line = text.lines().last().unwrap_or_default();
    Row::from_json(&serde_json::from_str(line)?).context("the process for sqlx printed no row")
}

/// The inside of that process: what the attribute's code runs, with the time taken when the first query has
/// been answered.
pub fn inside_sqlx(plan: Plan, label: &str) -> Result<Row> {
    let list = schema::migrations().into_iter().enumerate().map(|(at, (name, sql))| {
        let (version, sql) = (i64::try_from(at).unwrap_or_default(), sqlx::AssertSqlSafe(sql));
        sqlx::migrate::Migration::new(
            version,
            name.into(),
            sqlx::migrate::MigrationType::Simple,
            sqlx::SqlSafeStr::into_sql_str(sql),
            false,
        )
    });
    let migrator = Migrator { migrations: list.collect::<Vec<_>>().into(), ..Migrator::DEFAULT };
    let migrator: &'static Migrator = Box::leak(Box::new(migrator));
    type Answered = Pin<Box<dyn Future<Output = Result<Instant, sqlx::Error>>>>;
    let body: fn(sqlx::PgPool) -> Answered = |pool| {
        Box::pin(async move {
            sqlx::query("SELECT 1").execute(&pool).await?;
            Ok(Instant::now())
        })
    };
    let once = || {
        let mut arguments = TestArgs::new(Box::leak(fresh_name("bench::test").into_boxed_str()));
        arguments.migrator(migrator);
        let started = Instant::now();
        let answered = TestFn::run_test(body, arguments)?;
        Ok(answered - started)
    };
    measure(plan, &format!("sqlx::test ({label})"), Duration::ZERO, &once)
}

/// A server per test: initdb, start, migrate.
pub fn pgtemp(plan: Plan, build: &Build) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (place, dir) in [("disk", machine::disk_dir()?), ("tmpfs", machine::tmpfs_dir()?)] {
        let start = || {
            let builder = pgtemp::PgTempDBBuilder::new().with_bin_path(&build.bin).with_data_dir_prefix(&dir);
            builder.start()
        };
        let once = || {
            let started = Instant::now();
            let server = start();
            let took = migrated(&server.connection_uri(), started)?;
            drop(server);
            Ok(took)
        };
        rows.push(measure(
            plan,
            &format!("pgtemp (PostgreSQL {}, {place})", build.major),
            Duration::ZERO,
            &once,
        )?);
        if place == "tmpfs" {
            let servers: Vec<_> = (0..IDLE_SERVERS).map(|_| start()).collect();
            let dirs = servers.iter().map(|server| server.data_dir());
            rows.push(idle_memory(&format!("pgtemp (PostgreSQL {})", build.major), dirs)?);
        }
    }
    Ok(rows)
}

/// A server per test from the local installation: initdb, start, create, migrate.
pub fn embedded(plan: Plan, build: &Build) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (place, dir) in [("disk", machine::disk_dir()?), ("tmpfs", machine::tmpfs_dir()?)] {
        let start = || -> Result<postgresql_embedded::blocking::PostgreSQL> {
            let own = dir.join(fresh_name("embedded"));
            std::fs::create_dir(&own)?;
            let settings = postgresql_embedded::Settings {
                installation_dir: build.bin.parent().context("programs in the root directory")?.into(),
                trust_installation_dir: true,
                data_dir: own.join("data"),
                password_file: own.join("password"),
                // It removes this directory when it goes.
                socket_dir: Some(own.join("s")),
                ..Default::default()
            };
            let mut server = postgresql_embedded::blocking::PostgreSQL::new(settings);
            server.setup()?;
            server.start()?;
            server.create_database("app")?;
            Ok(server)
        };
        let once = || {
            let started = Instant::now();
            let server = start()?;
            let settings = server.settings();
            let url = format!("postgres://postgres:{}@127.0.0.1:{}/app", settings.password, settings.port);
            let took = migrated(&url, started)?;
            server.stop()?;
            Ok(took)
        };
        let who = format!("postgresql_embedded (PostgreSQL {}, {place})", build.major);
        rows.push(measure(plan, &who, Duration::ZERO, &once)?);
        if place == "tmpfs" {
            let servers = (0..IDLE_SERVERS).map(|_| start()).collect::<Result<Vec<_>>>()?;
            let dirs = servers.iter().map(|server| server.settings().data_dir.clone());
            rows.push(idle_memory(&format!("postgresql_embedded (PostgreSQL {})", build.major), dirs)?);
            for server in servers {
                server.stop()?;
            }
        }
    }
    Ok(rows)
}

/// Brings the schema over a URL, and says when the first query after it was answered.
pub fn migrated(url: &str, started: Instant) -> Result<Duration> {
    let mut client = connected(url, started)?;
    migrate(&mut client)?;
    client.simple_query("SELECT 1")?;
    Ok(started.elapsed())
}

/// Connects, trying again for a while: pgtemp returns before the server takes connections.
fn connected(url: &str, started: Instant) -> Result<Client> {
    loop {
        match Client::connect(url, NoTls) {
            Ok(client) => return Ok(client),
            Err(error) if started.elapsed() > Duration::from_secs(20) => return Err(error.into()),
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

/// Servers whose memory is taken together.
const IDLE_SERVERS: usize = 8;

fn idle_memory(who: &str, dirs: impl Iterator<Item = impl AsRef<Path>>) -> Result<Row> {
    // Let what the start dirtied settle.
    std::thread::sleep(Duration::from_secs(2));
    let count = Cell::new(0_usize);
    let roots = dirs.map(|dir| machine::postmaster(dir.as_ref())).inspect(|_| count.set(count.get() + 1));
    let bytes = roots.map(|root| machine::tree_memory(root?)).sum::<Result<u64>>()?;
    Ok(memory_row(who, bytes, count.get()))
}

/// A row of the table of memory.
pub fn memory_row(who: &str, bytes: u64, servers: usize) -> Row {
    let each = bytes as f64 / servers as f64 / f64::from(1 << 20);
    Row::new("memory", who).cell("MB a server", each).cell("servers", servers as f64)
}
