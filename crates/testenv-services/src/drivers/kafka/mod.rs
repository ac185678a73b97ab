//! Apache Kafka in KRaft mode: one process that is broker and controller.

mod archive;
mod client;
mod config;
mod java;
mod namespace;
mod topics;
mod wire;

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use testenv_api::{Problem, ProblemKind};
use testenv_config::ServiceConfig;

use self::client::{Client, Coordinated};
use self::topics::Topic;
use crate::drivers::{Command, Dirs, Driver, Namespaces, shell_word};
use crate::engine::{EngineBuild, Search};
use crate::fork::Strategy;
use crate::machine::Machine;
use crate::server::Session;
use crate::service::{Endpoint, Spec};
use crate::{Result, fork, io_problem, snapshot};

/// The oldest Kafka that is whole without ZooKeeper, and that was tried.
const OLDEST: (u32, u32) = (3, 5);
/// How long a server may take to have a leader for each partition, or its own topics made.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long making the storage may take.
const FORMAT_TIMEOUT: Duration = Duration::from_secs(60);
/// How long to wait before a server is asked again.
const ASK_EVERY: Duration = Duration::from_millis(5);
/// Topics created by one request.
const TOPICS_AT_ONCE: usize = 100;

/// The driver of Kafka.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kafka;

impl Driver for Kafka {
    fn search(&self, _: &ServiceConfig) -> Search {
        Search {
            title: "Apache Kafka",
            programs: &[("kafka-server-start.sh", "kafka")],
            install: "unpack kafka_2.13-VERSION.tgz from kafka.apache.org as /opt/kafka".to_owned(),
            dirs: usual_dirs(),
        }
    }

    fn version(&self, program: &Path) -> std::io::Result<String> {
        let jar = core_jar(program)?;
        Ok(version_in(&jar).expect("it was found by its version").to_owned())
    }

    fn identity(&self, program: &Path) -> PathBuf {
        core_jar(program).unwrap_or_else(|_| program.to_path_buf())
    }

    fn interpreter(&self, version: &str, path: &str) -> Result<Option<PathBuf>> {
        let mut numbers = version.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
        let version_numbers = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        if version_numbers < OLDEST {
            let (major, minor) = OLDEST;
            let title = format!("Kafka {version} is older than testenv can run");
            return Err(Problem::new(ProblemKind::EngineMissing, title)
                .detail(format!("{major}.{minor} is the oldest: testenv runs Kafka without ZooKeeper"))
                .hint("install a newer one, or name its directory with `bin_dir`"));
        }
        let least = if version_numbers.0 >= 4 { 17 } else { 11 };
        java::find(path, least, &format!("Kafka {version}")).map(Some)
    }

    fn reserved_setting(&self, config: &ServiceConfig) -> Option<(String, &'static str)> {
        let name = config.settings.keys().find(|name| config::is_reserved(name))?;
        Some((name.clone(), "testenv sets it itself; a password is given with `password`"))
    }

    fn file_endings(&self) -> &'static [&'static str] {
        &[".topics"]
    }

    fn further_ports(&self, _: &Spec) -> Vec<String> {
        vec![config::CONTROLLER.to_owned()]
    }

    fn memory(&self) -> u64 {
        140 << 20
    }

    fn start_timeout(&self, _: &Spec) -> Duration {
        Duration::from_secs(60)
    }

    /// The one that makes the archive has some work left.
    fn stop_timeout(&self) -> Duration {
        Duration::from_secs(90)
    }

    fn init(&self, machine: &Machine, spec: &Spec, data: &Path) -> Result<()> {
        let problem = |error: std::io::Error| io_problem("make Kafka's storage", &error);
        for dir in ["logs", "tmp"] {
            fork::make_dir(&data.join(dir), 0o700, machine.user.as_ref()).map_err(problem)?;
        }
        let config = data.join("format.properties");
        let own = config::own_settings("");
        let places = Endpoint { host: "127.0.0.1".into(), port: 1, ..Endpoint::default() };
        let places = config::places_of(&places, data)
            .map(|(name, value)| format!("{name}={}\n", config::escaped(&value)));
        fs::write(&config, format!("{own}{}", places.concat())).map_err(problem)?;
        fork::chown(&config, machine.user.as_ref()).map_err(problem)?;
        let mut command = java_command(spec, data, "kafka.tools.StorageTool");
        let id = cluster_id().map_err(problem)?;
        command.args.extend(["format", "--cluster-id", &id, "--config"].map(Into::into));
        command.args.push(config.clone().into());
        let mut spawn = machine.spawn(command.program, command.args, data);
        spawn.env = command.env;
        let deadline = Instant::now() + FORMAT_TIMEOUT;
        snapshot::run_tool(&spawn, "kafka-storage format", deadline)?;
        fs::remove_file(config).map_err(problem)
    }

    fn config_files(&self, spec: &Spec, _: &str) -> Vec<(&'static str, String)> {
        vec![
            ("server.properties", config::server(&spec.config)),
            ("log4j2.properties", config::LOG4J2.into()),
            ("log4j.properties", config::LOG4J.into()),
        ]
    }

    fn before_start(&self, machine: &Machine, spec: &Spec, data: &Path, _: &Endpoint) -> Result<()> {
        let prepared = archive::link(machine, spec, data).and_then(|()| match machine.forks.strategy() {
            Strategy::Overlay { .. } => own_directories(machine, data),
            Strategy::Reflink | Strategy::Copy => Ok(()),
        });
        prepared.map_err(|error| io_problem("prepare Kafka's start", &error))
    }

    fn command(&self, spec: &Spec, data: &Path, endpoint: &Endpoint, _shared: bool) -> Command {
        let mut command = java_command(spec, data, "kafka.Kafka");
        // Flags stand before the class.
        command.args.splice(0..0, archive::flag(data).map(Into::into));
        command.args.push(data.join("server.properties").into());
        for (name, value) in config::places_of(endpoint, data) {
            command.args.extend(["--override".into(), format!("{name}={value}").into()]);
        }
        command
    }

    fn is_ready(&self, line: &str) -> bool {
        line.contains("Kafka Server started")
    }

    /// The first error, without the places in Kafka's source where it passed through.
    fn reason<'a>(&self, log: &'a str) -> &'a str {
        let error = log.find(" ERROR ").or_else(|| log.find(" FATAL "));
        let Some(start) = error.map(|at| log[..at].rfind('\n').map_or(0, |end| end + 1)) else { return log };
        let rest = &log[start..];
        rest.find("\n\tat ").map_or(rest, |end| &rest[..end])
    }

    fn port_is_taken(&self, log: &str) -> bool {
        log.contains("Socket server failed to bind") && log.contains("Address already in use")
    }

    fn warm_up(
        &self,
        _machine: &Machine,
        _spec: &Spec,
        endpoint: &Endpoint,
        dirs: Dirs<'_>,
        ahead: bool,
    ) -> Result<Option<Session>> {
        let mut client = Client::open(endpoint)?;
        let id = stored_cluster_id(dirs.data)?;
        wait_until(|| {
            let cluster = client.cluster()?;
            let here = |broker: &client::Broker| broker.host == endpoint.host && broker.port == endpoint.port;
            if cluster.id != id || !cluster.brokers.iter().any(here) {
                let saw = format!("cluster {} with {:?}, not cluster {id}", cluster.id, cluster.brokers);
                return Err(Problem::new(ProblemKind::StartFailed, "another Kafka answered").detail(saw));
            }
            let waiting = cluster.topics.into_iter().find(|(_, usable)| !usable);
            Ok(waiting.map(|(topic, _)| format!("the topic {topic} has no leader")))
        })?;
        if ahead {
            // Has it load the consumers' offsets, as the first of them would otherwise wait for.
            client.find_coordinator(Coordinated::Group, "testenv")?;
        }
        Ok(None)
    }

    fn set_up(&self, _spec: &Spec, endpoint: &Endpoint) -> Result<()> {
        make_own_topics(&mut Client::open(endpoint)?)
    }

    fn apply(
        &self,
        _spec: &Spec,
        endpoint: &Endpoint,
        name: &str,
        content: &[u8],
        deadline: Instant,
    ) -> Result<()> {
        let failed = |line: usize, detail: String| {
            Problem::new(ProblemKind::PrepareFailed, format!("{name}:{line} failed")).detail(detail)
        };
        let topics = topics::parse(content, &endpoint.database).map_err(|(line, what)| failed(line, what))?;
        let (mut client, _) = namespace::controller(endpoint)?;
        for some in topics.chunks(TOPICS_AT_ONCE) {
            if Instant::now() > deadline {
                return Err(failed(some[0].line, "the time for preparing was up".into()));
            }
            create(&mut client, some).map_err(|(line, what)| failed(line, what))?;
        }
        // They are created by the controller; the broker hears of it a little later.
        let mut client = Client::open(endpoint)?;
        wait_until(|| {
            let cluster = client.cluster()?;
            let usable =
                |topic: &&Topic| cluster.topics.iter().any(|(name, usable)| *usable && *name == topic.name);
            let waiting = topics.iter().find(|topic| !usable(topic));
            Ok(waiting.map(|topic| format!("the topic {} has no leader", topic.name)))
        })
    }

    fn after_freeze(&self, data: &Path) -> std::io::Result<()> {
        archive::unlink(data)?;
        // Topics that were deleted are still there under other names for a while.
        for entry in fs::read_dir(data.join("logs"))? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().ends_with("-delete") {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }

    fn login(&self, spec: &Spec, _: &str) -> (String, String, String) {
        match spec.config.password.as_deref() {
            None | Some("") => <_>::default(),
            Some(password) => (config::USER.into(), password.to_owned(), String::new()),
        }
    }

    fn url(&self, endpoint: &Endpoint) -> String {
        format!("{}:{}", endpoint.host, endpoint.port)
    }

    fn connect_command(&self, build: &EngineBuild, endpoint: &Endpoint) -> String {
        let program = match build.bin_dir.join("kafka-console-consumer.sh") {
            there if there.exists() => shell_word(&there.display().to_string()),
            _ => "kafka-console-consumer.sh".to_owned(),
        };
        let topics = format!("{}.*", endpoint.database);
        let mut command = format!(
            "{program} --bootstrap-server {} --from-beginning --include {}",
            self.url(endpoint),
            shell_word(&topics)
        );
        if !endpoint.password.is_empty() {
            for property in [
                "security.protocol=SASL_PLAINTEXT".to_owned(),
                "sasl.mechanism=PLAIN".to_owned(),
                format!("sasl.jaas.config={}", config::login_module(&endpoint.user, &endpoint.password, "")),
            ] {
                command.push_str(&format!(" --consumer-property {}", shell_word(&property)));
            }
        }
        command
    }

    fn namespaces(&self) -> Option<&'static dyn Namespaces> {
        Some(&Kafka)
    }
}

/// Where the archive that kafka.apache.org gives is mostly unpacked, and where Homebrew puts it.
fn usual_dirs() -> Vec<PathBuf> {
    let mut dirs = vec!["/opt/kafka/bin".into()];
    for (parent, inner) in [
        ("/opt", "bin"),
        ("/usr/local", "bin"),
        ("/usr/share", "bin"),
        ("/opt/homebrew/opt", "libexec/bin"),
        ("/usr/local/opt", "libexec/bin"),
    ] {
        let children = fs::read_dir(parent).into_iter().flatten().flatten();
        let named = children.filter(|child| child.file_name().to_string_lossy().starts_with("kafka"));
        dirs.extend(named.map(|child| child.path().join(inner)));
    }
    dirs
}

/// Kafka's libraries, in an order that is always the same.
fn jars(bin_dir: &Path) -> Vec<PathBuf> {
    let libs = bin_dir.parent().map(|home| home.join("libs")).unwrap_or_default();
    let files = fs::read_dir(libs).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut jars: Vec<_> = files.filter(|file| file.extension().is_some_and(|it| it == "jar")).collect();
    jars.sort();
    jars
}

/// The library that is the server, and has the version in its name.
fn core_jar(program: &Path) -> std::io::Result<PathBuf> {
    let bin_dir = program.parent().unwrap_or(program);
    jars(bin_dir).into_iter().find(|jar| version_in(jar).is_some()).ok_or_else(|| {
        let what = "there is no libs/kafka_2.13-VERSION.jar beside its directory";
        std::io::Error::new(std::io::ErrorKind::NotFound, what)
    })
}

/// `kafka_2.13-4.1.0.jar` → `4.1.0`; nothing for the libraries of its tests and sources.
fn version_in(jar: &Path) -> Option<&str> {
    let name = jar.file_name()?.to_str()?.strip_prefix("kafka_2.")?.strip_suffix(".jar")?;
    let (_scala, version) = name.split_once('-')?;
    version.chars().all(|c| c.is_ascii_digit() || c == '.').then_some(version)
}

/// Makes the directories of the topics the fork's own. Kafka renames them when it deletes topics, which an overlay
/// allows only for those that are not in the frozen data, and a Kafka that may not halts.
fn own_directories(machine: &Machine, data: &Path) -> std::io::Result<()> {
    let (frozen, own) = (data.join("logs"), data.join("own"));
    fork::copy_tree(&frozen, &own, machine.user.as_ref(), &fork::plain_copy)?;
    fs::remove_dir_all(&frozen)?;
    fs::rename(own, frozen)
}

/// A Java that runs a class of Kafka's.
fn java_command(spec: &Spec, data: &Path, class: &str) -> Command {
    let mut args = java::flags();
    for (name, value) in [
        // Libraries for compression are unpacked there when they are first used.
        ("java.io.tmpdir", data.join("tmp").display().to_string()),
        ("log4j2.configurationFile", data.join("log4j2.properties").display().to_string()),
        ("log4j.configuration", format!("file:{}", data.join("log4j.properties").display())),
        // No setting of a client's makes the server read files or the environment.
        ("org.apache.kafka.automatic.config.providers", "none".to_owned()),
    ] {
        args.push(format!("-D{name}={value}").into());
    }
    args.push(class.into());
    let path = std::env::join_paths(jars(&spec.build.bin_dir)).unwrap_or_default();
    let program = spec.build.interpreter.clone().unwrap_or_else(|| "java".into());
    Command { program, args, env: vec![("CLASSPATH".into(), path)] }
}

/// A cluster's id as Kafka makes them: 128 bits in base 64, here of letters and digits alone.
fn cluster_id() -> std::io::Result<String> {
    const DIGITS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut bytes = [0; 22];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let digit = |(at, byte): (usize, &u8)| match at {
        // The last one has two bits.
        21 => char::from(b"AQgw"[usize::from(byte % 4)]),
        _ => char::from(DIGITS[usize::from(*byte) % DIGITS.len()]),
    };
    Ok(bytes.iter().enumerate().map(digit).collect())
}

/// The id of the cluster that a server's data says it is.
fn stored_cluster_id(data: &Path) -> Result<String> {
    let file = data.join("logs/meta.properties");
    let text =
        fs::read_to_string(&file).map_err(|error| io_problem(format!("read {}", file.display()), &error))?;
    let id = text.lines().find_map(|line| line.strip_prefix("cluster.id="));
    Ok(id.unwrap_or_default().trim().to_owned())
}

/// Has the server make the topics that it keeps offsets and transactions in: at the first need of one that would
/// take a tenth of a second.
fn make_own_topics(client: &mut Client) -> Result<()> {
    for of in [Coordinated::Group, Coordinated::Transaction] {
        wait_until(|| {
            let code = client.find_coordinator(of, "testenv")?;
            Ok((!code.is_done()).then(|| code.to_string()))
        })?;
    }
    Ok(())
}

/// Creates topics.
///
/// # Errors
/// The line of the first one that was refused, and what the server said.
fn create(client: &mut Client, topics: &[Topic]) -> Result<(), (usize, String)> {
    let first = topics.first().map_or(0, |topic| topic.line);
    let created = client.create_topics(topics).map_err(|problem| (first, problem.detail))?;
    let refused = topics.iter().find_map(|topic| {
        let (_, code, said) = created.iter().find(|(name, _, _)| *name == topic.name)?;
        (!code.is_done()).then(|| (topic.line, format!("{code}: {said}").trim_end_matches(": ").to_owned()))
    });
    refused.map_or(Ok(()), Err)
}

/// Asks until nothing is in the way any more.
fn wait_until(mut ask: impl FnMut() -> Result<Option<String>>) -> Result<()> {
    let deadline = Instant::now() + SETTLE_TIMEOUT;
    while let Some(waiting) = ask()? {
        if Instant::now() > deadline {
            let limit = SETTLE_TIMEOUT.as_secs();
            return Err(Problem::new(
                ProblemKind::StartFailed,
                format!("Kafka was not ready within {limit} s"),
            )
            .detail(waiting));
        }
        std::thread::sleep(ASK_EVERY);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_in_the_name_of_the_server_alone() {
        assert_eq!(version_in(Path::new("/libs/kafka_2.13-4.1.0.jar")), Some("4.1.0"));
        for other in ["kafka_2.13-4.1.0-test.jar", "kafka_2.13-4.1.0-sources.jar", "kafka-clients-4.1.0.jar"]
        {
            assert_eq!(version_in(Path::new(other)), None);
        }
    }

    #[test]
    fn a_directory_without_libraries_is_told() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("bin")).unwrap();
        let error = Kafka.version(&dir.path().join("bin/kafka-server-start.sh")).unwrap_err();
        assert!(error.to_string().contains("no libs/kafka_2.13-VERSION.jar"), "{error}");
    }

    #[test]
    fn a_kafka_that_needs_zookeeper_is_refused() {
        let problem = Kafka.interpreter("2.8.2", "").unwrap_err();
        assert!(problem.title.contains("Kafka 2.8.2 is older than testenv can run"), "{problem}");
        assert!(problem.detail.contains("3.5 is the oldest"), "{problem}");
    }

    #[test]
    fn the_reason_is_the_first_error_without_its_trace() {
        let log = "1 WARN x\n2 ERROR Exiting Kafka (kafka.Kafka$)\nConfigException: Invalid value\n\tat a\n\tat b\n3 INFO y\n";
        assert_eq!(Kafka.reason(log), "2 ERROR Exiting Kafka (kafka.Kafka$)\nConfigException: Invalid value");
        assert_eq!(Kafka.reason("no room for a heap\n"), "no room for a heap\n");
    }

    #[test]
    fn a_clusters_id_is_one_that_kafka_takes() {
        let (one, other) = (cluster_id().unwrap(), cluster_id().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.len(), 22);
        assert!(one.ends_with(['A', 'Q', 'g', 'w']));
    }

    #[test]
    fn only_a_server_that_listens_is_ready() {
        assert!(
            Kafka.is_ready("2026-01-01 INFO [KafkaRaftServer nodeId=1] Kafka Server started (kafka.server)")
        );
        assert!(!Kafka.is_ready("2026-01-01 INFO [KafkaRaftServer nodeId=1] Kafka Server stopped"));
        assert!(Kafka.port_is_taken(
            "KafkaException: Socket server failed to bind to 127.0.0.1:1: Address already in use."
        ));
    }
}
