//! Making a snapshot: init, set up, migrate, seed, freeze.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use testenv_api::{Problem, ProblemKind};
use testenv_config::PrepareTable;

use super::plan::{Action, Plan, Stage};
use super::{FORMAT, Meta, Snapshot, Template};
use crate::drivers::Finish;
use crate::fork::Fork;
use crate::inputs::KeyHash;
use crate::log::Log;
use crate::machine::Machine;
use crate::process::{self, Spawn};
use crate::server::{Purpose, Server};
use crate::service::{Endpoint, Runtime, Spec};
use crate::{Result, io_problem};

/// Bytes of a command's output shown when it fails.
const OUTPUT_LINES: usize = 40;

/// Which state of the role is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Variant {
    /// A server, prepared.
    Server,
    /// A server with what it takes to clone its database quickly.
    Template,
}

/// What servers, or namespaces, of a role are made from.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// Hash of everything that makes their state.
    pub key: String,
    /// The snapshot; `None` for an external server, which is not forked from anything.
    pub snapshot: Option<Arc<Snapshot>>,
}

impl Prepared {
    /// Whether it can still be used: nobody has removed the cache's directory by hand.
    pub fn is_there(&self) -> bool {
        self.snapshot.as_ref().is_none_or(|snapshot| snapshot.is_there())
    }
}

impl From<Arc<Snapshot>> for Prepared {
    fn from(snapshot: Arc<Snapshot>) -> Self {
        Self { key: snapshot.key.clone(), snapshot: Some(snapshot) }
    }
}

/// What the role's servers are made from: its snapshot, out of the cache or made now. `progress` is told what is
/// being done.
///
/// # Errors
/// [`ProblemKind::PrepareFailed`] when a migration or seed fails or does not end in time.
pub fn ensure(machine: &Machine, spec: &Spec, variant: Variant, progress: &dyn Fn(&str)) -> Result<Prepared> {
    let plan = Plan::read(spec, machine)?;
    if spec.runtime != Runtime::Native {
        return Ok(Prepared { key: plan.key().to_owned(), snapshot: None });
    }
    let snapshot = match variant {
        Variant::Server => prepared(machine, spec, &plan, progress),
        Variant::Template if !spec.driver.has_template() => prepared(machine, spec, &plan, progress),
        Variant::Template => {
            let key = KeyHash::default().with(plan.key()).with("template").key();
            match machine.store.get(&key) {
                Some(snapshot) => Ok(snapshot),
                None => prepared(machine, spec, &plan, progress)
                    .and_then(|prepared| with_template(machine, spec, prepared, &key, progress)),
            }
        }
    };
    snapshot.map(Prepared::from)
}

fn prepared(machine: &Machine, spec: &Spec, plan: &Plan, progress: &dyn Fn(&str)) -> Result<Arc<Snapshot>> {
    if let Some(snapshot) = machine.store.get(plan.key()) {
        return Ok(snapshot);
    }
    let deadline = Instant::now() + spec.config.prepare_timeout();
    // The latest stage whose state is in the cache: after one more migration, only that one is applied.
    let known = plan
        .stages
        .iter()
        .enumerate()
        .rev()
        .find_map(|(index, stage)| machine.store.get(&stage.key).map(|snapshot| (index + 1, snapshot)));
    let (done, parent) = match known {
        Some(found) => found,
        None => (0, initialised(machine, spec, plan, progress)?),
    };
    let fork = fork_of(machine, spec, &parent)?;
    let mut login = parent.login();
    if done == 0 {
        let password = match &spec.config.password {
            Some(password) => password.clone(),
            None => random_password().map_err(|error| io_problem("make up a password", &error))?,
        };
        configure(machine, spec, &fork, &password)
            .map_err(|error| io_problem("write the server's configuration", &error))?;
        login = spec.driver.login(spec, &password);
    }
    let server = Server::start_on(machine, spec, fork, login.clone(), Purpose::Preparing, || {})?;
    for stage in &plan.stages[done..] {
        perform(machine, spec, &server.endpoint, stage, deadline, progress)
            .map_err(|problem| server.with_log(problem))?;
    }
    progress("freezing the snapshot");
    freeze(machine, spec, server, plan.key(), describe(spec, plan), None)
}

/// A server that was initialised and nothing more.
fn initialised(
    machine: &Machine,
    spec: &Spec,
    plan: &Plan,
    progress: &dyn Fn(&str),
) -> Result<Arc<Snapshot>> {
    if let Some(snapshot) = machine.store.get(&plan.base_key) {
        return Ok(snapshot);
    }
    progress("initialising the server");
    let fork = machine.forks.empty().map_err(|error| io_problem("create a data directory", &error))?;
    spec.driver.init(machine, spec, &fork.data())?;
    let meta = Meta {
        format: FORMAT,
        engine: spec.build.engine.clone(),
        description: format!("{} {}, empty", spec.build.engine.name, spec.build.engine.version),
        user: String::new(),
        password: String::new(),
        database: String::new(),
        bytes: 0,
        template: None,
    };
    machine.store.put(&plan.base_key, &fork.data(), meta, machine.user.as_ref())
}

/// The same state with what namespaces are cloned from, under `key`; the state itself where that is all it takes.
fn with_template(
    machine: &Machine,
    spec: &Spec,
    prepared: Arc<Snapshot>,
    key: &str,
    progress: &dyn Fn(&str),
) -> Result<Arc<Snapshot>> {
    progress("making the template for namespaces");
    let fork = fork_of(machine, spec, &prepared)?;
    let server = Server::start_on(machine, spec, fork, prepared.login(), Purpose::Preparing, || {})?;
    match spec.driver.make_template(spec, &server)? {
        Some(template) => {
            let description = format!("{}, as a template", prepared.meta.description);
            freeze(machine, spec, server, key, description, Some(template))
        }
        None => Ok(prepared),
    }
}

fn freeze(
    machine: &Machine,
    spec: &Spec,
    server: Server,
    key: &str,
    description: String,
    template: Option<(Template, Finish)>,
) -> Result<Arc<Snapshot>> {
    spec.driver.before_freeze(spec, &server.endpoint).map_err(|problem| server.with_log(problem))?;
    let Endpoint { user, password, database, .. } = server.endpoint.clone();
    let fork = server.stop(spec)?;
    let (template, finish) = template.unzip();
    let finished = spec
        .driver
        .after_freeze(&fork.data())
        .and_then(|()| finish.map_or(Ok(()), |finish| finish(&fork.data())));
    finished.map_err(|error| io_problem("freeze the snapshot", &error))?;
    let meta = Meta {
        format: FORMAT,
        engine: spec.build.engine.clone(),
        description,
        user,
        password,
        database,
        bytes: 0,
        template,
    };
    machine.store.put(key, &fork.data(), meta, machine.user.as_ref())
}

/// Does what a stage says with the server, or with a namespace of it: whichever `endpoint` is.
pub(crate) fn perform(
    machine: &Machine,
    spec: &Spec,
    endpoint: &Endpoint,
    stage: &Stage,
    deadline: Instant,
    progress: &dyn Fn(&str),
) -> Result<()> {
    let (what, done) = match &stage.action {
        Action::SetUp => {
            progress("setting up users and databases");
            return spec.driver.set_up(spec, endpoint);
        }
        Action::File { name, content } => {
            progress(&format!("applying {name}"));
            (name.clone(), spec.driver.apply(spec, endpoint, name, content, deadline))
        }
        Action::Command(table) => {
            progress(&format!("running {}", table.command));
            (table.command.clone(), run_command(machine, spec, endpoint, table, deadline))
        }
    };
    done.map_err(|mut problem| {
        problem.title = format!("preparing {}: {}", spec.role, problem.title);
        if Instant::now() < deadline {
            return problem;
        }
        let doing = spec.driver.doing(endpoint);
        let limit = spec.config.prepare_timeout().as_secs();
        let saw = if doing.is_empty() { String::new() } else { format!("\nthe server was at: {doing}") };
        problem.detail = format!("{what} was running when {limit} s were up\n{}{saw}", problem.detail);
        let hint = format!("if it needs longer, raise `prepare_timeout` of services.{}", spec.role);
        problem.hint(hint)
    })
}

fn run_command(
    machine: &Machine,
    spec: &Spec,
    endpoint: &Endpoint,
    table: &PrepareTable,
    deadline: Instant,
) -> Result<()> {
    let defaults = testenv_config::ServiceConfig { env: None, ..spec.config.clone() };
    let defaults = Spec { config: defaults, ..spec.clone() }.env(endpoint)?;
    let line = spec.driver.command_line(spec, endpoint, &table.command);
    let mut spawn = machine.spawn("/bin/sh".into(), vec!["-c".into(), line.into()], &spec.root);
    spawn.env = defaults
        .into_iter()
        .chain(spec.env(endpoint)?)
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    // It is the user's own program, so it runs as the user who started the broker.
    spawn.user = None;
    spawn.process_group = true;
    run_tool(&spawn, &table.command, deadline).map(drop)
}

/// Runs a program to its end and gives back what it printed.
pub(crate) fn run_tool(spawn: &Spawn<'_>, name: &str, deadline: Instant) -> Result<String> {
    let failed = |error: std::io::Error| io_problem(format!("run {name}"), &error);
    let (reader, writer) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
    rustix::io::ioctl_fionbio(&reader, true).map_err(|error| failed(error.into()))?;
    let mut process = process::spawn(spawn, writer).map_err(failed)?;
    let (mut reader, output) = (File::from(reader), Log::default());
    let status = loop {
        let mut chunk = [0; 16 * 1024];
        match reader.read(&mut chunk) {
            Ok(0) => {
                break process.wait(deadline.saturating_duration_since(Instant::now())).map_err(failed)?;
            }
            Ok(count) => {
                output.append(&chunk[..count]);
                continue;
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(failed(error)),
        }
        // Something it left in the background can hold the pipe open, so its own end is looked for too.
        if let Some(status) = process.wait(Duration::ZERO).map_err(failed)? {
            break Some(status);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break None;
        }
        process::readable(reader.as_fd(), left.min(Duration::from_millis(50))).map_err(failed)?;
    };
    if status.is_none() {
        process.kill();
    }
    let printed = output.tail(OUTPUT_LINES);
    match status {
        Some(status) if status.success() => Ok(printed),
        Some(status) => Err(Problem::new(ProblemKind::PrepareFailed, format!("`{name}` failed"))
            .detail(format!("{status}\n{printed}").trim_end().to_owned())),
        None => {
            Err(Problem::new(ProblemKind::PrepareFailed, format!("`{name}` did not end in time"))
                .detail(printed))
        }
    }
}

/// Writes the server's configuration files.
fn configure(machine: &Machine, spec: &Spec, fork: &Fork, password: &str) -> std::io::Result<()> {
    for (name, text) in spec.driver.config_files(spec, password) {
        let path = fork.data().join(name);
        fs::write(&path, text)?;
        crate::fork::chown(&path, machine.user.as_ref())?;
    }
    Ok(())
}

fn describe(spec: &Spec, plan: &Plan) -> String {
    let steps = plan.stages.len() - 1;
    let prepared = match steps {
        0 => "no migrations".to_owned(),
        1 => "1 step".to_owned(),
        steps => format!("{steps} steps"),
    };
    format!("{} {}, {}, {prepared}", spec.build.engine.name, spec.build.engine.version, spec.role)
}

fn fork_of(machine: &Machine, spec: &Spec, snapshot: &Snapshot) -> Result<Fork> {
    let forked = machine.forks.fork(&snapshot.data(), spec.driver.renames_directories());
    forked.map_err(|error| io_problem("fork a snapshot", &error))
}

/// A password that no other user of the machine can guess: 96 random bits.
pub(crate) fn random_password() -> std::io::Result<String> {
    let mut bytes = [0; 12];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(crate::inputs::hex(&bytes))
}
