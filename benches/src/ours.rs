//! testenv itself, through its protocol, against a broker of its own.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use postgres::{Config, NoTls};
use serde_json::json;
use testenv_api::client::{Client, Held};
use testenv_api::{BrokerStatus, Isolation, Lease, LeaseRequest, PoolStatus};

use crate::machine::{self, Build};
use crate::stats::{PACE, Plan, Row, Samples, WORKERS, rate_per_second};
use crate::{cluster, peers};

/// Servers in the pool when idle memory is taken.
const POOLED: usize = 32;

/// A workspace with a broker of its own; the broker ends with this value.
pub struct Workspace {
    /// The directory with `testenv.toml`.
    pub dir: PathBuf,
    client: Client,
}

impl Workspace {
    /// Writes `testenv.toml` and the migrations, and starts the broker. `warm` is the size of the pool.
    pub fn start(name: &str, builds: &[Build], warm: usize) -> Result<Self> {
        let dir = machine::disk_dir()?.join(name);
        cluster::write_migrations(&dir.join("migrations"))?;
        let mut config = format!("[pool]\nwarm = {warm}\n\n[services.cache]\nservice = \"redis\"\n");
        for Build { major, bin, .. } in builds {
            config.push_str(&format!(
                "\n[services.pg{major}]\nservice = \"postgres\"\nversion = \"{major}\"\nbin_dir = {bin:?}\nmigrations = \"migrations\"\n"
            ));
        }
        fs::write(dir.join("testenv.toml"), config)?;
        let client = start_broker(&dir)?;
        Ok(Self { dir, client })
    }

    fn lease(&self, role: &str, isolation: Option<Isolation>) -> Result<Held> {
        self.lease_as(&LeaseRequest { role: Some(role.into()), isolation, ..Default::default() })
    }

    /// Leases.
    pub fn lease_as(&self, request: &LeaseRequest) -> Result<Held> {
        Ok(self.client.lease(request)?)
    }

    fn status(&self) -> Result<BrokerStatus> {
        Ok(self.client.get("/v1/status")?)
    }

    /// The pool of whole servers of a role.
    fn pool(&self, role: &str) -> Result<PoolStatus> {
        let pools = self.status()?.pools.into_iter();
        let found = pools.filter(|pool| pool.role == role).find(|pool| pool.isolation == Isolation::Server);
        found.with_context(|| format!("the broker has no pool for {role}"))
    }

    /// Waits until so many servers of a role are warm.
    fn wait_for_pool(&self, role: &str, warm: usize) -> Result<()> {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let pool = self.pool(role)?;
            if pool.warm >= warm {
                return Ok(());
            }
            if Instant::now() > until {
                bail!("the pool of {role} did not get {warm} warm servers in a minute; last seen: {pool:?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        if let Err(error) = self.client.post_only("/v1/shutdown", &json!({ "when": "now" })) {
            eprintln!("a broker is left behind: {error}");
        }
        // It takes its socket away last.
        let until = Instant::now() + Duration::from_secs(10);
        while self.client.socket().exists() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Environment of the broker, and of tests that use it: apart from any other on this machine.
pub fn environment() -> Result<[(&'static str, PathBuf); 3]> {
    let program =
        std::env::var_os("TESTENV_BIN").context("TESTENV_BIN is not set; `cargo xtask bench` sets it")?;
    let dir = machine::disk_dir()?;
    Ok([
        ("TESTENV_BIN", program.into()),
        ("TESTENV_RUNTIME_DIR", dir.join("run")),
        ("TESTENV_CACHE_DIR", dir.join("cache")),
    ])
}

fn start_broker(dir: &Path) -> Result<Client> {
    let environment = environment()?;
    let mut command = Command::new(&environment[0].1);
    command.args(["broker", "--detach", "--workspace"]).arg(dir).current_dir(dir).envs(environment);
    let mut child =
        command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn().context("failed to start testenv")?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("a pipe")?).read_line(&mut line)?;
    let status = child.wait()?;
    match line.trim().strip_prefix("ready ") {
        Some(socket) if status.success() => Ok(Client::at(socket)),
        _ => bail!("the broker did not start ({status}): {line:?}"),
    }
}

/// Lease, first query, sustained rate, memory: every version, every isolation, warm and cold.
pub fn ours(plan: Plan) -> Result<Vec<Row>> {
    let builds = machine::builds()?;
    let mut rows = Vec::new();
    let warm = Workspace::start("warm", &builds, 8)?;
    for build in &builds {
        rows.push(first_ever(&warm, build)?);
    }
    for build in &builds {
        for isolation in [Isolation::Server, Isolation::Namespace] {
            rows.extend(postgres(plan, &warm, build, isolation)?);
        }
    }
    rows.push(redis(plan, "testenv, Redis, warm", &warm, PACE)?);
    drop(warm);

    let cold = Workspace::start("cold", &builds, 0)?;
    for build in &builds {
        for isolation in [Isolation::Server, Isolation::Namespace] {
            rows.push(cold_postgres(plan, &cold, build, isolation)?);
        }
    }
    rows.push(redis(plan, "testenv, Redis, pool empty", &cold, Duration::ZERO)?);
    drop(cold);

    for build in &builds {
        rows.push(pooled_memory(build)?);
    }
    Ok(rows)
}

fn role(build: &Build) -> String {
    format!("pg{}", build.major)
}

fn name(build: &Build, isolation: Isolation, how: &str) -> String {
    let what = if isolation == Isolation::Server { "server" } else { "database" };
    format!("testenv, a {what} of its own, {how} (PostgreSQL {})", build.major)
}

/// The very first lease: init, migrate, freeze, fork.
fn first_ever(workspace: &Workspace, build: &Build) -> Result<Row> {
    let who = format!("testenv, nothing prepared: init, migrate, freeze, fork (PostgreSQL {})", build.major);
    eprintln!("  {who}");
    let started = Instant::now();
    let held = workspace.lease(&role(build), None)?;
    query(held.lease())?;
    let ms = started.elapsed().as_secs_f64() * 1000.0;
    Ok(Row::new("private", who).cell("p50 ms", ms).cell("samples", 1.0))
}

fn postgres(plan: Plan, workspace: &Workspace, build: &Build, isolation: Isolation) -> Result<Vec<Row>> {
    let who = name(build, isolation, "warm");
    eprintln!("  {who}");
    let role = role(build);
    let (mut leases, mut queries, mut tcp, mut both) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    Samples::take(plan, PACE, || {
        let started = Instant::now();
        let held = workspace.lease(&role, Some(isolation))?;
        let leased = started.elapsed();
        query(held.lease())?;
        let answered = started.elapsed();
        postgres::Client::connect(&held.lease().url, NoTls)?.simple_query("SELECT 1")?;
        tcp.push(started.elapsed() - answered);
        leases.push(leased);
        queries.push(answered - leased);
        both.push(answered);
        Ok(answered)
    })?;
    let once = || {
        let started = Instant::now();
        let held = workspace.lease(&role, Some(isolation))?;
        query(held.lease())?;
        Ok(started.elapsed())
    };
    let rate = rate_per_second(plan.rate_window(), &once)?;
    let [leases, queries, tcp, both] = [leases, queries, tcp, both].map(without_first).map(Samples::of);
    let private = Row::new("private", &who).latency(&both).cell("a second", rate);
    let lease = Row::new("lease", &who)
        .cell("lease p50 ms", leases.percentile_ms(50))
        .cell("lease p99 ms", leases.percentile_ms(99))
        .cell("first query, new connection, p50 ms", queries.percentile_ms(50))
        .cell("p99 ms", queries.percentile_ms(99))
        .cell("second connection, TCP, p50 ms", tcp.percentile_ms(50))
        .cell("samples", leases.len() as f64);
    Ok(vec![private, lease])
}

fn cold_postgres(plan: Plan, workspace: &Workspace, build: &Build, isolation: Isolation) -> Result<Row> {
    let who = name(build, isolation, "pool empty");
    eprintln!("  {who}");
    let once = || {
        let started = Instant::now();
        let held = workspace.lease(&role(build), Some(isolation))?;
        query(held.lease())?;
        Ok(started.elapsed())
    };
    let samples = Samples::take(plan, Duration::from_millis(10), once)?;
    Ok(Row::new("private", who).latency(&samples))
}

/// Without the sample that does not count: the one that found a pool, or a template, not made yet.
fn without_first(mut samples: Vec<Duration>) -> Vec<Duration> {
    samples.remove(0);
    samples
}

/// One query on a new connection over the unix socket.
fn query(lease: &Lease) -> Result<()> {
    let mut config = Config::new();
    config.host_path(&lease.socket).port(lease.port).user(&lease.user).dbname(&lease.database);
    config.connect(NoTls)?.simple_query("SELECT 1")?;
    Ok(())
}

fn redis(plan: Plan, who: &str, workspace: &Workspace, pause: Duration) -> Result<Row> {
    eprintln!("  {who}");
    let mut answers = Vec::new();
    let leases = Samples::take(plan, pause, || {
        let started = Instant::now();
        let held = workspace.lease("cache", None)?;
        let leased = started.elapsed();
        ping(held.lease())?;
        answers.push(started.elapsed() - leased);
        Ok(leased)
    })?;
    let once = || {
        let started = Instant::now();
        ping(workspace.lease("cache", None)?.lease())?;
        Ok(started.elapsed())
    };
    let rate = rate_per_second(plan.rate_window(), &once)?;
    Ok(Row::new("lease", who)
        .cell("lease p50 ms", leases.percentile_ms(50))
        .cell("lease p99 ms", leases.percentile_ms(99))
        .cell("first query, new connection, p50 ms", Samples::of(without_first(answers)).percentile_ms(50))
        .cell("samples", leases.len() as f64)
        .cell("a second", rate))
}

fn ping(lease: &Lease) -> Result<()> {
    let mut stream = UnixStream::connect(&lease.socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(format!("AUTH {}\r\nPING\r\n", lease.password).as_bytes())?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer)?;
    match &answer {
        b"+OK\r\n+PONG\r\n" => Ok(()),
        other => bail!("Redis answered {:?}", String::from_utf8_lossy(other)),
    }
}

fn pooled_memory(build: &Build) -> Result<Row> {
    let who = format!("testenv, {POOLED} pooled (PostgreSQL {})", build.major);
    eprintln!("  {who}");
    let workspace = Workspace::start(&format!("pool{}", build.major), std::slice::from_ref(build), POOLED)?;
    let role = role(build);
    // The pool grows with demand: ask faster than it can fork, until it wants to be full.
    loop {
        let burst = (0..WORKERS).map(|_| workspace.lease(&role, None)).collect::<Result<Vec<_>>>()?;
        drop(burst);
        if workspace.pool(&role)?.target >= POOLED {
            break;
        }
    }
    workspace.wait_for_pool(&role, POOLED - 2)?;
    let pool = workspace.pool(&role)?;
    let servers = pool.warm + pool.starting + pool.leased;
    let status = workspace.status()?;
    let bytes = children_named(status.health.pid, "postgres")?;
    Ok(peers::memory_row(&who, bytes, servers))
}

/// Memory of every `postgres` below the broker, not of the broker.
fn children_named(broker: u32, program: &str) -> Result<u64> {
    let is_named =
        |pid: u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == program);
    let below =
        |pid: &u32| std::iter::successors(Some(*pid), |pid| machine::parent_of(*pid)).any(|it| it == broker);
    machine::processes().filter(below).filter(|pid| is_named(*pid)).map(machine::memory).sum()
}
