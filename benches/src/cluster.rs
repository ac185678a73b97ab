//! A PostgreSQL server for the peers that need one to run, with stock or test-only settings.

use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use postgres::{Client, Config, NoTls};

use crate::machine::{self, Build};

/// How long a server may take to answer.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Settings and storage of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// PostgreSQL's defaults, data on disk.
    Stock,
    /// Nothing is made durable, data on tmpfs.
    Tuned,
}

impl Kind {
    /// For tables.
    pub fn label(self) -> &'static str {
        match self {
            Self::Stock => "stock settings, disk",
            Self::Tuned => "no fsync, tmpfs",
        }
    }
}

/// A running server; it ends with this value.
#[derive(Debug)]
pub struct Cluster {
    bin: PathBuf,
    dir: PathBuf,
    port: u16,
    options: String,
    /// For tables.
    pub label: String,
}

impl Cluster {
    /// Makes a cluster and starts its server.
    pub fn start(build: &Build, kind: Kind) -> Result<Self> {
        let storage = match kind {
            Kind::Stock => machine::disk_dir()?,
            Kind::Tuned => machine::tmpfs_dir()?,
        };
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let dir = storage.join(format!("cluster-{port}"));
        let text = dir.to_str().context("a directory whose name is not UTF-8")?;
        run(Command::new(build.bin.join("initdb")).args(["-D", text, "-U", "postgres", "-A", "trust", "-N"]))?;
        let mut options = format!("-p {port} -k {text} -c max_connections=200 -c listen_addresses=127.0.0.1");
        if kind == Kind::Tuned {
            options.push_str(
                " -c fsync=off -c synchronous_commit=off -c full_page_writes=off -c autovacuum=off",
            );
        }
        let label = format!("PostgreSQL {}, {}", build.major, kind.label());
        let cluster = Self { bin: build.bin.clone(), dir, port, options, label };
        cluster.start_again()?;
        Ok(cluster)
    }

    /// Starts the server after [`Cluster::stop`], and waits until it answers.
    pub fn start_again(&self) -> Result<()> {
        // `pg_ctl start -w` would look for an answer ten times a second only.
        let mut start = Command::new(self.bin.join("pg_ctl"));
        start.args(["start", "-W", "-o", &self.options, "-D"]).arg(&self.dir);
        run(start.arg("-l").arg(self.dir.join("log")))?;
        let until = Instant::now() + START_LIMIT;
        while let Err(error) = self.connect("postgres") {
            if Instant::now() > until {
                return Err(error.context("the server did not answer in time"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Stops the server as one stops it for good: cleanly.
    pub fn stop(&self) -> Result<()> {
        self.end("fast")
    }

    fn end(&self, mode: &str) -> Result<()> {
        run(Command::new(self.bin.join("pg_ctl")).args(["stop", "-m", mode, "-D"]).arg(&self.dir))
    }

    /// URL of one of its databases.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// A new connection over the unix socket.
    pub fn connect(&self, database: &str) -> Result<Client> {
        let mut config = Config::new();
        config.host_path(&self.dir).port(self.port).user("postgres").dbname(database);
        Ok(config.connect(NoTls)?)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Err(error) = self.end("immediate") {
            eprintln!("a server is left behind: {error:#}");
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Runs one of PostgreSQL's programs, as an unprivileged user if this is root, whom they refuse.
fn run(command: &mut Command) -> Result<()> {
    if machine::is_root() {
        command.uid(machine::NOBODY).gid(machine::NOBODY);
    }
    // Not piped: a server that pg_ctl starts would hold the pipe open.
    let errors = machine::disk_dir()?.join("stderr.log");
    let status = command
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(&errors)?)
        .status()
        .with_context(|| format!("failed to start {:?}", command.get_program()))?;
    if !status.success() {
        bail!("{:?} ended with {status}\n{}", command, fs::read_to_string(&errors).unwrap_or_default());
    }
    Ok(())
}

/// Brings the schema into a database.
pub fn migrate(client: &mut Client) -> Result<()> {
    for (name, sql) in schema::migrations() {
        client.batch_execute(&sql).with_context(|| format!("failed to apply {name}"))?;
    }
    Ok(())
}

/// Writes the migrations as files.
pub fn write_migrations(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)?;
    for (name, sql) in schema::migrations() {
        fs::write(dir.join(name), sql)?;
    }
    Ok(())
}
