//! Kafka's classes as Java has them once they are loaded: an archive that saves half of every start.
//!
//! Java writes it when a server that was told so ends, and reads it again if the Java and the files of Kafka are
//! still the same to the second. So one server is started only for that, once for each build on a machine; what
//! it left is kept among the snapshots. A server without the archive starts as well, only later.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use testenv_api::Problem;

use super::{Kafka, client};
use crate::drivers::Driver as _;
use crate::inputs::KeyHash;
use crate::machine::Machine;
use crate::server::{Purpose, Server};
use crate::service::Spec;
use crate::snapshot::{FORMAT, Meta, Snapshot, run_tool};
use crate::{Result, fork, io_problem};

/// The archive's name, in a snapshot of its own and, as a link, in the data of every server.
const FILE: &str = "classes.jsa";
/// In the data of the server that makes one: the directory that it is left in.
const TRAINING: &str = "training";
/// How long one of Kafka's own clients may take.
const TOOL_TIMEOUT: Duration = Duration::from_secs(30);

/// How long another broker may take to make one.
const TURN_TIMEOUT: Duration = Duration::from_secs(40);

/// Whether the archive of a build is at hand in this process. Locked while it is being made.
type Known = Arc<Mutex<Option<bool>>>;

/// The flag that has a server on this data use the archive, or make it; none where there is no archive.
pub(super) fn flag(data: &Path) -> Option<String> {
    let training = data.join(TRAINING);
    if training.exists() {
        return Some(format!("-XX:ArchiveClassesAtExit={}", training.join(FILE).display()));
    }
    let file = data.join(FILE);
    file.exists().then(|| format!("-XX:SharedArchiveFile={}", file.display()))
}

/// Puts the archive into a server's data, making it first where there is none.
pub(super) fn link(machine: &Machine, spec: &Spec, data: &Path) -> std::io::Result<()> {
    let link = data.join(FILE);
    if data.join(TRAINING).exists() || link.is_symlink() {
        return Ok(());
    }
    match at_hand(machine, spec) {
        Some(archive) => std::os::unix::fs::symlink(archive, link),
        None => Ok(()),
    }
}

/// Takes it out of data that will be frozen.
pub(super) fn unlink(data: &Path) -> std::io::Result<()> {
    match fs::remove_file(data.join(FILE)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Where the servers' user can read the archive. The cache itself is closed to that user.
fn at_hand(machine: &Machine, spec: &Spec) -> Option<PathBuf> {
    static KNOWN: Mutex<BTreeMap<PathBuf, Known>> = Mutex::new(BTreeMap::new());
    let key = key(machine, spec);
    let file = machine.forks.dir().join(format!("classes-{key}"));
    let known = {
        let mut known = KNOWN.lock().expect("no panic while locked");
        Arc::clone(known.entry(file.clone()).or_default())
    };
    let mut known = known.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let there = *known.get_or_insert_with(|| match fetch(machine, spec, &key, &file) {
        Ok(()) => true,
        Err(problem) => {
            tracing::warn!(%problem, "Kafka's servers will start without an archive of its classes");
            false
        }
    });
    there.then_some(file)
}

/// Everything that an archive is good for alone.
fn key(machine: &Machine, spec: &Spec) -> String {
    let mut hash = KeyHash::default().with("kafka classes").with(&spec.build.engine.sha256);
    for flag in super::java::flags() {
        hash = hash.with(flag.as_encoded_bytes());
    }
    let java = spec.build.interpreter.iter().cloned();
    for file in java.chain(super::jars(&spec.build.bin_dir)) {
        let seen =
            fs::metadata(&file).map(|meta| format!("{} {} {}", meta.size(), meta.mtime(), meta.mtime_nsec()));
        hash = hash.with(file.as_os_str().as_encoded_bytes()).with(seen.unwrap_or_default());
    }
    // Who may read it.
    let uid = machine.user.as_ref().map_or_else(|| rustix::process::geteuid().as_raw(), |user| user.uid);
    hash.with(uid.to_le_bytes()).key()
}

fn fetch(machine: &Machine, spec: &Spec, key: &str, file: &Path) -> Result<()> {
    let snapshot = match machine.store.get(key) {
        Some(snapshot) => snapshot,
        None => make(machine, spec, key)?,
    };
    let copied = fork::plain_copy(&snapshot.data().join(FILE), file)
        .and_then(|()| fork::chown(file, machine.user.as_ref()));
    copied.map_err(|error| {
        let _ = fs::remove_file(file);
        io_problem("copy the archive of Kafka's classes", &error)
    })
}

/// Makes the archive, unless another broker has done so meanwhile.
fn make(machine: &Machine, spec: &Spec, key: &str) -> Result<Arc<Snapshot>> {
    let _turn = turn(machine.store.dir());
    if let Some(snapshot) = machine.store.get(key) {
        return Ok(snapshot);
    }
    let trained = train(machine, spec)?;
    let meta = Meta {
        format: FORMAT,
        engine: spec.build.engine.clone(),
        description: format!("Kafka {}, its classes", spec.build.engine.version),
        user: String::new(),
        password: String::new(),
        database: String::new(),
        bytes: 0,
        template: None,
    };
    machine.store.put(key, &trained.data().join(TRAINING), meta, machine.user.as_ref())
}

/// Waits until no other broker that shares the cache makes an archive: brokers that come to a new machine together
/// would only be in each other's way. Held until it is dropped.
fn turn(cache: &Path) -> Option<File> {
    let deadline = Instant::now() + TURN_TIMEOUT;
    let dir = File::open(cache).ok()?;
    while rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive).is_err() {
        if Instant::now() > deadline {
            return None;
        }
        std::thread::sleep(TURN_TIMEOUT / 1000);
    }
    Some(dir)
}

/// Has a server start, do what servers do, and leave its classes behind.
fn train(machine: &Machine, spec: &Spec) -> Result<fork::Fork> {
    let plain = testenv_config::ServiceConfig::new(testenv_config::KindConfig::Kafka);
    let spec = Spec { config: plain, ..spec.clone() };
    let problem = |error: std::io::Error| io_problem("make an archive of Kafka's classes", &error);
    let fork = machine.forks.empty().map_err(problem)?;
    let data = fork.data();
    Kafka.init(machine, &spec, &data)?;
    fork::make_dir(&data.join(TRAINING), 0o700, machine.user.as_ref()).map_err(problem)?;
    for (name, text) in Kafka.config_files(&spec, "") {
        fs::write(data.join(name), text).map_err(problem)?;
        fork::chown(&data.join(name), machine.user.as_ref()).map_err(problem)?;
    }
    let server = Server::start_on(machine, &spec, fork, Kafka.login(&spec, ""), Purpose::Preparing, || {})?;
    exercise(machine, &spec, &server).map_err(|problem| server.with_log(problem))?;
    server.stop(&spec)
}

/// What most tests will do first, so that the classes for it are among those that are kept.
fn exercise(machine: &Machine, spec: &Spec, server: &Server) -> Result<(), Problem> {
    const TOPIC: &str = "training";
    let mut client = client::Client::open(&server.endpoint)?;
    super::make_own_topics(&mut client)?;
    client.create_topics(&[super::topics::Topic { name: TOPIC.into(), ..Default::default() }])?;
    let data = server.data();
    for (class, more) in [
        ("org.apache.kafka.tools.VerifiableProducer", &["--acks", "-1"][..]),
        ("org.apache.kafka.tools.VerifiableConsumer", &["--group-id", TOPIC, "--reset-policy", "earliest"]),
    ] {
        let mut command = super::java_command(spec, &data, class);
        let server = Kafka.url(&server.endpoint);
        command.args.extend(
            ["--bootstrap-server", &server, "--topic", TOPIC, "--max-messages", "10"].map(Into::into),
        );
        command.args.extend(more.iter().map(Into::into));
        let mut spawn = machine.spawn(command.program, command.args, &data);
        spawn.env = command.env;
        // A build may come without its tools.
        if let Err(problem) = run_tool(&spawn, class, Instant::now() + TOOL_TIMEOUT) {
            tracing::debug!(%problem, "Kafka's classes are archived without those for a client");
        }
    }
    client.groups()?;
    client.delete_groups(&[TOPIC.into()])?;
    client.delete_topics(&[TOPIC.into()]).map(drop)
}
