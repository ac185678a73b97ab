//! RabbitMQ.

mod amqp;
mod boot;
mod definitions;
mod management;
mod namespace;
mod node;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use testenv_api::{Problem, ProblemKind};
use testenv_config::ServiceConfig;

use crate::drivers::{CONFIG_HEADER, Command, Dirs, Driver, Namespaces, shell_word, url_part};
use crate::engine::{EngineBuild, Search};
use crate::machine::Machine;
use crate::server::Session;
use crate::service::{Endpoint, Spec};
use crate::snapshot::random_password;
use crate::{Result, fork, io_problem};

use definitions::Definitions;
use management::Management;
use node::{MANAGEMENT, Node};

/// Directories of RabbitMQ's scripts: of packages for Debian and Red Hat, of its image, of Homebrew.
const SCRIPTS: [&str; 4] = [
    "/usr/lib/rabbitmq/bin",
    "/opt/rabbitmq/sbin",
    "/opt/homebrew/opt/rabbitmq/sbin",
    "/usr/local/opt/rabbitmq/sbin",
];
/// Directories of Erlang's programs, after those in `PATH`.
const ERLANG: [&str; 5] =
    ["/usr/bin", "/usr/local/bin", "/opt/erlang/bin", "/opt/homebrew/bin", "/usr/lib/erlang/bin"];
/// Beginnings of settings that testenv relies on.
const RESERVED: [&str; 21] = [
    "advertised",
    "cluster_",
    "default_pass",
    "default_permissions",
    "default_user",
    "default_users",
    "default_vhost",
    "definitions.",
    "distribution.",
    "listeners.",
    "load_definitions",
    "log.",
    "management.listener",
    "management.load_definitions",
    "management.ssl",
    "management.tcp.",
    "mqtt.listeners.",
    "nodename",
    "prometheus.tcp.",
    "stomp.listeners.",
    "stream.",
];

/// The driver of RabbitMQ.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RabbitMq;

impl RabbitMq {
    fn run(spec: &Spec, data: &Path, endpoint: &Endpoint, shared: bool, more: Option<&str>) -> Command {
        let own = spec.config.plugins.iter().map(String::as_str);
        let mut plugins: Vec<_> = own.chain(more).collect();
        plugins.sort_unstable();
        plugins.dedup();
        Node { spec, data, home: &endpoint.socket_dir, endpoint, plugins, shared }
            .command(None, node::WHEN_UP)
    }
}

impl Driver for RabbitMq {
    fn search(&self, _config: &ServiceConfig) -> Search {
        Search {
            title: "RabbitMQ",
            // The one of its scripts that packages put nothing else in the place of.
            programs: &[("rabbitmq-defaults", "rabbitmq")],
            install: "Debian, Ubuntu: apt-get install rabbitmq-server".into(),
            dirs: SCRIPTS.map(PathBuf::from).into(),
        }
    }

    fn version(&self, program: &Path) -> std::io::Result<String> {
        release(program).map(|(version, _)| version)
    }

    fn identity(&self, program: &Path) -> PathBuf {
        release(program).map_or_else(|_| program.to_path_buf(), |(_, file)| file)
    }

    fn interpreter(&self, version: &str, path: &str) -> Result<Option<PathBuf>> {
        let dirs = std::env::split_paths(path).chain(ERLANG.map(PathBuf::from));
        let found = dirs.map(|dir| dir.join("erl")).find_map(|file| file.canonicalize().ok());
        found.map(Some).ok_or_else(|| {
            Problem::new(ProblemKind::EngineMissing, "no Erlang on this machine")
                .detail(format!(
                    "RabbitMQ {version} needs it; found no `erl` in PATH nor in the usual places"
                ))
                .hint("install it (Debian, Ubuntu: apt-get install rabbitmq-server), or put it into PATH")
        })
    }

    fn reserved_setting(&self, config: &ServiceConfig) -> Option<(String, &'static str)> {
        let has_lines = config.settings.iter().find(|(_, value)| value.0.contains(['\n', '\r']));
        if let Some((name, _)) = has_lines {
            return Some((name.clone(), "its value has more than one line"));
        }
        let name = config.settings.keys().find(|name| RESERVED.iter().any(|it| name.starts_with(it)))?;
        let why = "testenv sets it itself; there are the keys `user`, `password`, `database` for the virtual \
                   host, `plugins`, and `seed` for definitions";
        Some((name.clone(), why))
    }

    fn file_endings(&self) -> &'static [&'static str] {
        &[".json"]
    }

    fn memory(&self) -> u64 {
        72 << 20
    }

    fn start_timeout(&self, _spec: &Spec) -> Duration {
        Duration::from_secs(60)
    }

    fn init(&self, machine: &Machine, spec: &Spec, data: &Path) -> Result<()> {
        boot::record(machine, spec, data)
    }

    fn config_files(&self, spec: &Spec, _password: &str) -> Vec<(&'static str, String)> {
        // Told to nodes in another way, and here because what is frozen depends on them.
        let plugins = ("plugins", spec.config.plugins.join("\n"));
        if spec.config.settings.is_empty() {
            return vec![plugins];
        }
        let mut text = CONFIG_HEADER.to_owned();
        for (name, value) in &spec.config.settings {
            let value = match value.0.as_str() {
                "on" => "true",
                "off" => "false",
                other => other,
            };
            text.push_str(&format!("{name} = {value}\n"));
        }
        vec![plugins, (node::SETTINGS, text)]
    }

    fn before_start(&self, machine: &Machine, spec: &Spec, _data: &Path, endpoint: &Endpoint) -> Result<()> {
        check_plugins(spec)?;
        // What `rabbitmqctl` shows that it may talk to this node: of this server alone, so not in the data.
        let file = endpoint.socket_dir.join(".erlang.cookie");
        let written = random_password().and_then(|cookie| {
            let _ = fs::remove_file(&file);
            let mut new = fs::OpenOptions::new().write(true).create_new(true).mode(0o400).open(&file)?;
            new.write_all(cookie.as_bytes())?;
            fork::chown(&file, machine.user.as_ref())
        });
        written.map_err(|error| io_problem("write RabbitMQ's cookie", &error))
    }

    fn command(&self, spec: &Spec, data: &Path, endpoint: &Endpoint, shared: bool) -> Command {
        Self::run(spec, data, endpoint, shared, shared.then_some(MANAGEMENT))
    }

    fn command_to_prepare(&self, spec: &Spec, data: &Path, endpoint: &Endpoint) -> Command {
        let steps = !spec.config.steps().is_empty();
        Self::run(spec, data, endpoint, false, steps.then_some(MANAGEMENT))
    }

    fn is_ready(&self, line: &str) -> bool {
        line.contains(" completed with ") && line.contains("plugins.")
    }

    fn reason<'a>(&self, log: &'a str) -> &'a str {
        // What follows is how Erlang's processes ended one after the other.
        let ends = ["    supervisor: ", "  crasher:\n"].into_iter().filter_map(|mark| log.find(mark));
        ends.min().map_or(log, |end| &log[..log[..end].rfind('\n').unwrap_or(end)])
    }

    fn port_is_taken(&self, log: &str) -> bool {
        log.contains("eaddrinuse")
    }

    fn warm_up(
        &self,
        _machine: &Machine,
        _spec: &Spec,
        endpoint: &Endpoint,
        _dirs: Dirs<'_>,
        _session: bool,
    ) -> Result<Option<Session>> {
        amqp::log_in(endpoint).map(|()| None)
    }

    fn set_up(&self, _spec: &Spec, _endpoint: &Endpoint) -> Result<()> {
        // A new node makes the user and the virtual host that its environment names.
        Ok(())
    }

    fn apply(
        &self,
        spec: &Spec,
        endpoint: &Endpoint,
        name: &str,
        content: &[u8],
        deadline: Instant,
    ) -> Result<()> {
        let definitions = Definitions::parse(name, content)?;
        let mut management = Management::connect(endpoint, deadline)?;
        let vhost = spec.config.database();
        let imported = if endpoint.database.starts_with("t_") && endpoint.database != vhost {
            definitions.import_into(&mut management, &endpoint.database, vhost)
        } else {
            definitions.import(&mut management, &endpoint.user, &endpoint.database)
        };
        imported.map_err(|problem| {
            let detail = format!("{}: {}", problem.title, problem.detail);
            Problem { title: format!("{name} failed"), detail, ..problem }
        })
    }

    fn after_freeze(&self, data: &Path) -> std::io::Result<()> {
        match fs::remove_dir_all(data.join("log")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn login(&self, spec: &Spec, password: &str) -> (String, String, String) {
        (spec.config.user().to_owned(), password.to_owned(), spec.config.database().to_owned())
    }

    fn url(&self, endpoint: &Endpoint) -> String {
        let Endpoint { host, port, user, password, database, .. } = endpoint;
        let (user, password, vhost) = (url_part(user), url_part(password), url_part(database));
        format!("amqp://{user}:{password}@{host}:{port}/{vhost}")
    }

    fn connect_command(&self, build: &EngineBuild, endpoint: &Endpoint) -> String {
        let Endpoint { host, user, database, ports, .. } = endpoint;
        let vhost = shell_word(database);
        if endpoint.is_remote() {
            let port = ports.get(management::PORT).copied().unwrap_or_default();
            let (host, user) = (shell_word(host), shell_word(user));
            return format!(
                "rabbitmqadmin -H {host} -P {port} -u {user} -V {vhost} list queues name messages"
            );
        }
        let port = ports.get(node::DISTRIBUTION).copied().unwrap_or_default();
        let home = shell_word(&endpoint.socket_dir.display().to_string());
        let program = shell_word(&build.bin_dir.join("rabbitmqctl").display().to_string());
        // The node is known to no epmd, so its port is told instead.
        let flags = format!("-start_epmd false -erl_epmd_port {port} -dist_listen false");
        format!(
            "HOME={home} RABBITMQ_CTL_ERL_ARGS='{flags}' {program} -n {} -p {vhost} list_queues name messages",
            node::NAME
        )
    }

    fn namespaces(&self) -> Option<&'static dyn Namespaces> {
        Some(&Self)
    }
}

/// The version of the RabbitMQ that a script belongs to, and a file that is different in others.
fn release(script: &Path) -> std::io::Result<(String, PathBuf)> {
    let plugins = node::engine_home(script.parent().unwrap_or(script)).join("plugins");
    for entry in fs::read_dir(&plugins)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(version) = name.strip_prefix("rabbit-") else { continue };
        return Ok(match version.strip_suffix(".ez") {
            Some(version) => (version.to_owned(), entry.path()),
            None => (version.to_owned(), entry.path().join("ebin/rabbit.beam")),
        });
    }
    Err(std::io::Error::other(format!("{} holds no rabbit-<version>", plugins.display())))
}

/// Refuses plugins that there are not: a node would start without them.
fn check_plugins(spec: &Spec) -> Result<()> {
    if spec.config.plugins.is_empty() {
        return Ok(());
    }
    let dirs = node::plugin_dirs(&node::engine_home(&spec.build.bin_dir));
    let entries = dirs.iter().flat_map(|dir| fs::read_dir(dir).into_iter().flatten().flatten());
    let mut known: Vec<_> = entries
        .filter_map(|entry| Some(entry.file_name().to_str()?.split_once('-')?.0.to_owned()))
        .filter(|name| name.starts_with("rabbitmq_"))
        .collect();
    let Some(missing) = spec.config.plugins.iter().find(|name| !known.contains(name)) else {
        return Ok(());
    };
    known.sort();
    let title = format!("services.{}.plugins: there is no plugin {missing}", spec.role);
    Err(Problem::new(ProblemKind::InvalidConfig, title)
        .detail(format!("{} has {}", spec.build.engine.version, known.join(", ")))
        .hint(format!("put it into {}, or take it out", dirs[0].display())))
}

#[cfg(test)]
mod tests {
    use testenv_config::{KindConfig, Setting};

    use super::*;

    fn endpoint() -> Endpoint {
        Endpoint {
            host: "127.0.0.1".into(),
            port: 20001,
            ports: [("distribution".to_owned(), 20002)].into(),
            socket_dir: "/run/a b".into(),
            user: "us/er".into(),
            password: "p@ss".into(),
            database: "/".into(),
        }
    }

    #[test]
    fn the_url_encodes_what_has_a_meaning_in_it() {
        assert_eq!(RabbitMq.url(&endpoint()), "amqp://us%2Fer:p%40ss@127.0.0.1:20001/%2F");
    }

    #[test]
    fn a_node_is_ready_when_it_says_with_how_many_plugins() {
        assert!(RabbitMq.is_ready("  Starting broker... completed with 0 plugins.\n"));
        assert!(!RabbitMq.is_ready("2026-11-21 [info] <0.1.0> started TCP listener on 127.0.0.1:1\n"));
    }

    #[test]
    fn the_reason_comes_before_what_became_of_each_process() {
        let log = "a\n1 [error] No such setting\n2 [error] <0.1.0>     supervisor: {local,x}\n3 crasher:\n";
        assert_eq!(RabbitMq.reason(log), "a\n1 [error] No such setting");
        assert_eq!(RabbitMq.reason("a\nb\n"), "a\nb\n");
    }

    #[test]
    fn settings_that_testenv_relies_on_are_refused() {
        let refused = |name: &str, value: &str| {
            let mut config = ServiceConfig::new(KindConfig::Rabbitmq);
            config.settings.insert(name.into(), Setting(value.into()));
            RabbitMq.reserved_setting(&config).is_some()
        };
        assert!(refused("listeners.tcp.default", "5672") && refused("default_pass", "x"));
        assert!(refused("channel_max", "1\nlisteners.tcp.default = 5672"));
        assert!(!refused("channel_max", "1") && !refused("collect_statistics_interval", "1"));
    }

    #[test]
    fn rabbitmqctl_is_told_where_the_node_is() {
        let build = EngineBuild {
            engine: testenv_api::Engine {
                name: "rabbitmq".into(),
                version: "4".into(),
                sha256: String::new(),
            },
            program: "/opt/rabbitmq/sbin/rabbitmq-defaults".into(),
            bin_dir: "/opt/rabbitmq/sbin".into(),
            interpreter: None,
        };
        let command = RabbitMq.connect_command(&build, &endpoint());
        assert!(command.starts_with("HOME='/run/a b' RABBITMQ_CTL_ERL_ARGS='"), "{command}");
        assert!(command.contains("-erl_epmd_port 20002 "), "{command}");
        let remote = Endpoint { socket_dir: PathBuf::new(), ..endpoint() };
        assert!(RabbitMq.connect_command(&build, &remote).starts_with("rabbitmqadmin -H 127.0.0.1"));
    }
}
