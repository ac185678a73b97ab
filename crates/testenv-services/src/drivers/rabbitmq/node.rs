//! How a node is run: Erlang's program with RabbitMQ in it, without the scripts that usually start it.
//!
//! Nothing that nodes of one machine would share is left: no epmd, which would know all of them by one name; no
//! file outside of the data directory; no port but those given.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::thread;

use crate::drivers::Command;
use crate::service::{Endpoint, Spec};

/// Name of every node. It is part of what is frozen, and nobody else can ask for it.
pub(super) const NAME: &str = "rabbit@localhost";
/// The configuration file. Nodes without settings have none, as they would read the schema of every plugin first.
pub(super) const SETTINGS: &str = "rabbitmq.conf";
/// The recorded boot file, without its ending.
pub(super) const BOOT: &str = "testenv";
/// A directory without plugins: nodes that use none do not look through those there are.
pub(super) const NO_PLUGINS: &str = "no-plugins";
/// The plugin with the HTTP interface for administrators.
pub(super) const MANAGEMENT: &str = "rabbitmq_management";
/// What a node's port for `rabbitmqctl` is called.
pub(super) const DISTRIBUTION: &str = "distribution";

/// The data directory, by a name that is the same for each fork: streams take down where they are.
const DATA: &str = "/proc/self/cwd";
/// Evaluated in a node that is up and serves somebody. The monitor would start an epmd.
pub(super) const WHEN_UP: &str = "catch supervisor:terminate_child(rabbit_sup, rabbit_epmd_monitor_sup).";

/// A plugin that listens: name of the port, the application, and the keys that tell it.
type Listener = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

/// Those that come with RabbitMQ.
const LISTENERS: [Listener; 7] = [
    ("management", MANAGEMENT, &[("tcp_config", r#"[{port,{}},{ip,"127.0.0.1"}]"#)]),
    ("prometheus", "rabbitmq_prometheus", &[("tcp_config", r#"[{port,{}},{ip,"127.0.0.1"}]"#)]),
    ("mqtt", "rabbitmq_mqtt", &[("tcp_listeners", r#"[{"127.0.0.1",{}}]"#)]),
    ("stomp", "rabbitmq_stomp", &[("tcp_listeners", r#"[{"127.0.0.1",{}}]"#)]),
    (
        "stream",
        "rabbitmq_stream",
        &[
            ("tcp_listeners", r#"[{"127.0.0.1",{}}]"#),
            ("advertised_host", r#""127.0.0.1""#),
            ("advertised_port", "{}"),
        ],
    ),
    ("web_mqtt", "rabbitmq_web_mqtt", &[("tcp_config", r#"[{port,{}},{ip,"127.0.0.1"}]"#)]),
    ("web_stomp", "rabbitmq_web_stomp", &[("tcp_config", r#"[{port,{}},{ip,"127.0.0.1"}]"#)]),
];

/// What the user's own environment could tell a node, and must not.
const NOT_INHERITED: [&str; 24] = [
    "ERL_FLAGS",
    "ERL_ZFLAGS",
    "ERL_INETRC",
    "NOTIFY_SOCKET",
    "RABBITMQ_BASE",
    "RABBITMQ_CONFIG_BASE",
    "RABBITMQ_ERLANG_COOKIE",
    "RABBITMQ_FEATURE_FLAGS",
    "RABBITMQ_FEATURE_FLAGS_FILE",
    "RABBITMQ_FORCED_FEATURE_FLAGS_ON_INIT",
    "RABBITMQ_KEEP_PID_FILE_ON_EXIT",
    "RABBITMQ_LOAD_DEFINITIONS",
    "RABBITMQ_LOG",
    "RABBITMQ_LOG_FEATURE_FLAGS_REGISTRY",
    "RABBITMQ_MNESIA_DIR",
    "RABBITMQ_MOTD_FILE",
    "RABBITMQ_PID_FILE",
    "RABBITMQ_PLUGINS_EXPAND_DIR",
    "RABBITMQ_PRODUCT_NAME",
    "RABBITMQ_PRODUCT_VERSION",
    "RABBITMQ_QUORUM_DIR",
    "RABBITMQ_STREAM_DIR",
    "RABBITMQ_UPGRADE_LOG",
    "RABBITMQ_USE_LONGNAME",
];

/// A node to be run.
pub(super) struct Node<'a> {
    pub(super) spec: &'a Spec,
    /// Its working directory.
    pub(super) data: &'a Path,
    /// Its home directory: where the cookie is.
    pub(super) home: &'a Path,
    pub(super) endpoint: &'a Endpoint,
    /// Plugins to enable.
    pub(super) plugins: Vec<&'a str>,
    pub(super) shared: bool,
}

impl Node<'_> {
    /// The program. What is evaluated `before` the boot and `after` it is for special occasions.
    pub(super) fn command(&self, before: Option<&str>, after: &str) -> Command {
        let mut args: Vec<OsString> =
            NOT_INHERITED.iter().flat_map(|name| ["-u", *name]).map(OsString::from).collect();
        args.push(self.spec.build.interpreter.clone().unwrap_or_else(|| "erl".into()).into());
        args.push("-noinput".into());
        args.extend(before.iter().flat_map(|text| ["-eval".into(), text.into()]));
        args.extend(["-s", "rabbit", "boot", "-eval", after].map(OsString::from));
        args.push("-boot".into());
        let recorded = self.data.join(format!("{BOOT}.boot")).exists();
        args.push(if recorded { format!("./{BOOT}").into() } else { "start_sasl".into() });
        args.extend(self.flags().into_iter().map(OsString::from));
        args.extend(self.listeners().into_iter().map(OsString::from));
        Command { program: "/usr/bin/env".into(), args, env: self.environment() }
    }

    /// Flags of Erlang's: schedulers that sleep when there is nothing to do, and a distribution that needs no epmd.
    fn flags(&self) -> Vec<String> {
        let schedulers = match self.shared {
            true => thread::available_parallelism().map_or(1, |count| count.get().min(4)),
            false => 1,
        };
        let port = self.port(DISTRIBUTION);
        let sized = if self.shared { "+P 262144 +Q 65536" } else { "+P 32768 +Q 8192" };
        format!(
            "+S {schedulers}:{schedulers} {sized} +sbwt none +sbwtdcpu none +sbwtdio none +W w +B i \
             -syslog logger [] -syslog syslog_error_logger false -kernel prevent_overlapping_partitions false \
             -kernel inet_dist_use_interface {{127,0,0,1}} -sname {NAME} -erl_epmd_port {port}"
        )
        .split_whitespace()
        .map(str::to_owned)
        .collect()
    }

    /// Where each plugin that listens does so. Those that nobody asked for can be what another one needs.
    fn listeners(&self) -> Vec<String> {
        let mut flags = Vec::new();
        for (name, application, keys) in LISTENERS {
            let Some(port) = self.endpoint.ports.get(name) else { continue };
            flags.push(format!("-{application}"));
            for (key, value) in keys {
                flags.extend([(*key).to_owned(), value.replace("{}", &port.to_string())]);
            }
        }
        flags
    }

    fn environment(&self) -> Vec<(OsString, OsString)> {
        let Endpoint { port, user, password, database, .. } = self.endpoint;
        let engine = engine_home(&self.spec.build.bin_dir);
        let in_data = |name: &str| format!("{DATA}/{name}");
        let has_settings = !self.spec.config.settings.is_empty();
        // The schema that settings are checked against is in the plugins' directories.
        let plugins_dir = match self.plugins.is_empty() && !has_settings {
            true => in_data(NO_PLUGINS),
            false => plugin_dirs(&engine).map(|dir| dir.display().to_string()).join(":"),
        };
        let set = [
            ("HOME", self.home.display().to_string()),
            // Nobody can listen on port 0, so nobody else's epmd is found, nor any told of this node.
            ("ERL_EPMD_PORT", "0".to_owned()),
            ("ERL_AFLAGS", "-start_epmd false".to_owned()),
            ("ERL_CRASH_DUMP_SECONDS", "0".to_owned()),
            ("ERL_LIBS", engine.join("plugins").display().to_string()),
            ("RABBITMQ_HOME", engine.display().to_string()),
            ("RABBITMQ_NODENAME", NAME.to_owned()),
            ("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1".to_owned()),
            ("RABBITMQ_NODE_PORT", port.to_string()),
            ("RABBITMQ_DIST_PORT", self.port(DISTRIBUTION).to_string()),
            ("RABBITMQ_DEFAULT_USER", user.clone()),
            ("RABBITMQ_DEFAULT_PASS", password.clone()),
            ("RABBITMQ_DEFAULT_VHOST", database.clone()),
            ("RABBITMQ_CONF_ENV_FILE", in_data("none")),
            ("RABBITMQ_CONFIG_FILE", in_data(SETTINGS)),
            ("RABBITMQ_CONFIG_FILES", in_data("none/*.conf")),
            ("RABBITMQ_ADVANCED_CONFIG_FILE", in_data("none.config")),
            ("RABBITMQ_ENABLED_PLUGINS", self.plugins.join(",")),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", self.home.join("enabled_plugins").display().to_string()),
            ("RABBITMQ_PLUGINS_DIR", plugins_dir),
            ("RABBITMQ_MNESIA_BASE", in_data("mnesia")),
            ("RABBITMQ_LOG_BASE", in_data("log")),
            ("RABBITMQ_LOGS", "-".to_owned()),
        ];
        set.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    fn port(&self, name: &str) -> u16 {
        self.endpoint.ports.get(name).copied().unwrap_or_default()
    }
}

/// RabbitMQ's own directory, above that of its scripts.
pub(super) fn engine_home(bin_dir: &Path) -> PathBuf {
    bin_dir.parent().unwrap_or(bin_dir).to_path_buf()
}

/// Where plugins are: those that come with it, and those that packages and people add.
pub(super) fn plugin_dirs(engine: &Path) -> [PathBuf; 2] {
    ["/usr/lib/rabbitmq/plugins".into(), engine.join("plugins")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_of_a_plugin_has_a_name_in_the_configuration() {
        let mut config = testenv_config::ServiceConfig::new(testenv_config::KindConfig::Rabbitmq);
        config.plugins = vec!["rabbitmq_stream".into()];
        let mut names: Vec<_> = LISTENERS.iter().map(|(name, ..)| (*name).to_owned()).collect();
        names.push(DISTRIBUTION.to_owned());
        names.sort();
        let mut known = config.port_names();
        known.sort();
        assert_eq!(names, known);
    }
}
