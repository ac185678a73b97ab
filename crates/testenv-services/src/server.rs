//! A running server on a fork of a snapshot.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use testenv_api::{Problem, ProblemKind};
use testenv_config::Span;

use crate::drivers::Dirs;
use crate::fork::Fork;
use crate::log::{self, Log};
use crate::machine::Machine;
use crate::process::{self, Process};
use crate::service::{Endpoint, Spec};
use crate::snapshot::Snapshot;
use crate::{Result, io_problem, sweep};

/// How many ports are tried before a start is given up.
const PORT_TRIES: usize = 8;
/// How long to wait before a server is asked again whether it is ready.
const ASK_EVERY: Duration = Duration::from_millis(10);
/// Lines of a log shown with an error.
const LOG_LINES: usize = 20;

/// An authenticated session of a server that nobody uses yet.
#[derive(Debug)]
pub struct Session {
    /// The connection.
    pub stream: UnixStream,
    /// What the server sent from `AuthenticationOk` to `ReadyForQuery`.
    pub greeting: Vec<u8>,
}

/// What a server is started for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To be prepared and frozen.
    Preparing,
    /// For one lease.
    Lease,
    /// For many leases at once.
    Sharing,
}

/// How a server is to be started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StartOptions {
    /// Many leases will use it at once.
    pub shared: bool,
    /// Nobody waits for it: a session is opened to fill its caches, and kept to be handed over. When somebody
    /// does wait, their own first session does the same work, so theirs would only come later.
    pub ahead: bool,
}

/// A running server. Dropping it kills it and removes its data.
#[derive(Debug)]
pub struct Server {
    /// Where it is.
    pub endpoint: Endpoint,
    /// Its log.
    pub log: Log,
    /// A session to hand over, if the service has such.
    pub session: Option<Session>,
    exited: Arc<AtomicBool>,
    process: Process,
    fork: Fork,
}

impl Server {
    /// Forks `snapshot` and starts a server on it; returns when it has answered. `on_exit` is called when the
    /// server has ended, for whatever reason.
    ///
    /// The server dies with the calling thread: call from one that lives as long as the broker.
    ///
    /// # Errors
    /// [`ProblemKind::StartFailed`] with the last lines of the log, or [`ProblemKind::Resources`].
    pub fn start(
        machine: &Machine,
        spec: &Spec,
        snapshot: &Snapshot,
        options: StartOptions,
        on_exit: impl FnOnce() + Send + 'static,
    ) -> Result<Self> {
        machine.check_room()?;
        let fork = machine
            .forks
            .fork(&snapshot.data(), spec.driver.renames_directories())
            .map_err(|error| io_problem("fork the snapshot's data", &error))?;
        let purpose = if options.shared { Purpose::Sharing } else { Purpose::Lease };
        let mut server = Self::start_on(machine, spec, fork, snapshot.login(), purpose, on_exit)?;
        let data = server.fork.data();
        let dirs = Dirs { frozen: &snapshot.data(), data: &data };
        let warmed = spec.driver.warm_up(machine, spec, &server.endpoint, dirs, options.ahead);
        server.session = warmed.map_err(|problem| server.with_log(problem))?;
        Ok(server)
    }

    /// Starts a server on a directory, without warming it up.
    pub(crate) fn start_on(
        machine: &Machine,
        spec: &Spec,
        fork: Fork,
        (user, password, database): (String, String, String),
        purpose: Purpose,
        on_exit: impl FnOnce() + Send + 'static,
    ) -> Result<Self> {
        let socket_dir =
            machine.socket_dir().map_err(|error| io_problem("create a socket directory", &error))?;
        let mut endpoint = Endpoint {
            host: "127.0.0.1".into(),
            socket_dir,
            user,
            password,
            database,
            ..Endpoint::default()
        };
        let data = fork.data();
        let started = start_process(machine, spec, &data, &mut endpoint, purpose);
        let (process, pipe, read_so_far) = match started {
            Ok(started) => started,
            Err(problem) => {
                let _ = fs::remove_dir_all(&endpoint.socket_dir);
                return Err(problem);
            }
        };
        let log = Log::without(spec.driver.noise());
        log.append(&read_so_far);
        let exited = Arc::new(AtomicBool::new(false));
        let server =
            Self { endpoint, log: log.clone(), session: None, exited: Arc::clone(&exited), process, fork };
        log::collect(pipe, log, move || {
            exited.store(true, Ordering::Release);
            on_exit();
        })
        .map_err(|error| io_problem("read the server's log", &error))?;
        Ok(server)
    }

    /// Process id of the server's first process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Whether it has ended by itself.
    pub fn has_exited(&self) -> bool {
        self.exited.load(Ordering::Acquire)
    }

    /// Becomes true when it has ended by itself.
    pub fn exited(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.exited)
    }

    /// Its data directory.
    pub(crate) fn data(&self) -> std::path::PathBuf {
        self.fork.data()
    }

    /// Stops it cleanly and gives back its data.
    pub(crate) fn stop(mut self, spec: &Spec) -> Result<Fork> {
        let failed = |error: std::io::Error| io_problem(format!("stop the {} server", spec.kind), &error);
        self.session = None;
        self.process.signal(spec.driver.signal_of(spec)).map_err(failed)?;
        let timeout = spec.driver.stop_timeout();
        if self.process.wait(timeout).map_err(failed)?.is_none() {
            let problem = Problem::new(
                ProblemKind::StartFailed,
                format!("the {} server did not stop within {} s", spec.kind, timeout.as_secs()),
            );
            return Err(self.with_log(problem));
        }
        let empty = Fork::nothing();
        Ok(std::mem::replace(&mut self.fork, empty))
    }

    /// Adds the end of the log to a problem.
    pub(crate) fn with_log(&self, problem: Problem) -> Problem {
        let log = self.log.tail(LOG_LINES);
        if log.is_empty() {
            return problem;
        }
        let detail = format!("{}\nlast lines of the server's log:\n{log}", problem.detail);
        problem.detail(detail.trim_start().to_owned())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let shared_memory = sweep::shared_memory_of(&self.fork.data());
        self.process.kill();
        if let Some((id, owner)) = shared_memory {
            process::remove_shared_memory(id, owner);
        }
        let _ = fs::remove_dir_all(&self.endpoint.socket_dir);
    }
}

/// Starts the program on one port after the other until it says that it is ready.
fn start_process(
    machine: &Machine,
    spec: &Spec,
    data: &Path,
    endpoint: &mut Endpoint,
    purpose: Purpose,
) -> Result<(Process, OwnedFd, Vec<u8>)> {
    let what = format!("{} {}", spec.build.engine.name, spec.build.engine.version);
    let mut last_log = String::new();
    for _ in 0..PORT_TRIES {
        let port = || machine.ports.next().ok_or_else(|| no_port(machine));
        endpoint.port = port()?;
        endpoint.ports = spec
            .driver
            .further_ports(spec)
            .into_iter()
            .map(|name| Ok((name, port()?)))
            .collect::<Result<_>>()?;
        endpoint.name_first_port(&spec.config);
        spec.driver.before_start(machine, spec, data, endpoint)?;
        let command = match purpose {
            Purpose::Preparing => spec.driver.command_to_prepare(spec, data, endpoint),
            Purpose::Lease => spec.driver.command(spec, data, endpoint, false),
            Purpose::Sharing => spec.driver.command(spec, data, endpoint, true),
        };
        let mut spawn = machine.spawn(command.program, command.args, data);
        spawn.env = command.env;
        spawn.pid_namespace = machine.sandbox.pid_namespaces;
        let failed = |error: std::io::Error| io_problem(format!("start {what}"), &error);
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|error| failed(error.into()))?;
        rustix::io::ioctl_fionbio(&reader, true).map_err(|error| failed(error.into()))?;
        let mut process = process::spawn(&spawn, writer).map_err(failed)?;
        let mut reader = BufReader::new(fs::File::from(reader));
        match wait_until_ready(&mut reader, spec, endpoint) {
            Ok(Seen { mut log, by_its_port }) => {
                // Its own word can be believed; an answer from its port may be somebody else's.
                let taken = by_its_port.then(|| endpoint.taken_by_others_than(process.pid())).flatten();
                let Some(port) = taken else {
                    log.extend_from_slice(reader.buffer());
                    return Ok((process, reader.into_inner().into(), log));
                };
                process.kill();
                last_log = format!("somebody else listens on port {port}");
            }
            Err((reason, seen)) => {
                let status = process.wait(Duration::from_millis(100)).ok().flatten();
                process.kill();
                if let Some((id, owner)) = sweep::shared_memory_of(data) {
                    process::remove_shared_memory(id, owner);
                }
                let log = String::from_utf8_lossy(&seen).into_owned();
                if spec.driver.port_is_taken(&log) {
                    last_log = log;
                    continue;
                }
                let reason = status.map_or(reason, |status| format!("it ended: {status}"));
                let log = last_lines(spec.driver.reason(&log), spec.driver.noise());
                return Err(Problem::new(ProblemKind::StartFailed, format!("{what} did not start"))
                    .detail(format!("{reason}\n{log}").trim_end().to_owned()));
            }
        }
    }
    Err(Problem::new(ProblemKind::StartFailed, format!("{what} found {PORT_TRIES} ports in a row taken"))
        .detail(last_lines(&last_log, spec.driver.noise()))
        .hint("set `pool.ports` in testenv.toml to a range that nothing else uses"))
}

fn no_port(machine: &Machine) -> Problem {
    let (first, last) = machine.ports.range();
    Problem::new(ProblemKind::Resources, format!("no TCP port free between {first} and {last}"))
        .detail("every port of the range has a listener")
        .hint("set `pool.ports` in testenv.toml to a wider range, or lower `pool.max_servers`")
}

fn last_lines(log: &str, noise: fn(&str) -> bool) -> String {
    let lines: Vec<_> = log.lines().filter(|line| !noise(line)).collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}

/// What was read of a server's log while it became ready.
struct Seen {
    log: Vec<u8>,
    /// Whether its port was asked; else the log itself says so.
    by_its_port: bool,
}

/// Waits until the server is ready, by its own word; what was read of its log so far either way.
fn wait_until_ready(
    reader: &mut BufReader<fs::File>,
    spec: &Spec,
    endpoint: &Endpoint,
) -> std::result::Result<Seen, (String, Vec<u8>)> {
    const MAX_LOG: u64 = 1 << 20;
    let own = spec.config.start_timeout.map(Span::as_duration);
    let timeout = own.unwrap_or_else(|| spec.driver.start_timeout(spec));
    let deadline = Instant::now() + timeout;
    let (mut log, mut line_at) = (Vec::new(), 0);
    loop {
        let asked = spec.driver.ask_ready(spec, endpoint);
        if let Some(Ok(())) = asked {
            return Ok(Seen { log, by_its_port: true });
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let pause = if asked.is_some() { left.min(ASK_EVERY) } else { left };
        match process::readable(reader.get_ref().as_fd(), pause) {
            Ok(true) => {}
            Ok(false) if left > pause => continue,
            Ok(false) => {
                let saw = asked.and_then(Result::err).map_or_else(String::new, |saw| format!("; {saw}"));
                return Err((format!("it was not ready within {} s{saw}", timeout.as_secs()), log));
            }
            Err(error) => return Err((error.to_string(), log)),
        }
        loop {
            let room = MAX_LOG.saturating_sub(log.len() as u64);
            match reader.by_ref().take(room).read_until(b'\n', &mut log) {
                Ok(0) => return Err(("it closed its log before it was ready".into(), log)),
                Ok(_) if spec.driver.says_ready(spec, &String::from_utf8_lossy(&log[line_at..])) => {
                    return Ok(Seen { log, by_its_port: false });
                }
                Ok(_) => line_at = log.len(),
                // A line that is not whole yet.
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) => return Err((error.to_string(), log)),
            }
        }
    }
}
