//! NATS with JetStream.
//!
//! A server of a lease's own has one account, in which JetStream is enabled. A shared one has further accounts,
//! one for each lease: see [`accounts`].

mod accounts;
mod client;
mod seed;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::Value;
use testenv_api::{Problem, ProblemKind};
use testenv_config::{ServiceConfig, Setting};

use crate::Result;
use crate::drivers::{CONFIG_HEADER, Command, Dirs, Driver, Namespaces, shell_word, url_part};
use crate::engine::{EngineBuild, Search};
use crate::machine::Machine;
use crate::namespace::{Clones, Origin, Replay};
use crate::server::Session;
use crate::service::{Endpoint, Spec};

use client::Client;

/// Settings that testenv relies on, and those that open ports or write files. In small letters.
const RESERVED: &[&str] = &[
    "accounts",
    "addr",
    "authorization",
    "cluster",
    "gateway",
    "host",
    "http",
    "http_port",
    "https",
    "https_port",
    "include",
    "jetstream",
    "jetstream.store",
    "jetstream.store_dir",
    "leaf",
    "leafnodes",
    "listen",
    "log_file",
    "logfile",
    "logtime",
    "monitor_port",
    "mqtt",
    "net",
    "no_auth_user",
    "operator",
    "operators",
    "pid_file",
    "pidfile",
    "port",
    "ports_file_dir",
    "prof_port",
    "remote_syslog",
    "resolver",
    "server_name",
    "store_dir",
    "syslog",
    "system",
    "system_account",
    "tls",
    "trusted",
    "trusted_keys",
    "websocket",
];
/// What JetStream may take, in bytes: as much as any stream's configuration reserves. The fork's own file system
/// is the limit.
const STORE_LIMIT: &str = "1099511627776";
/// The user, if the configuration names none; it is also the name of the account.
const USER: &str = "app";

/// The driver of NATS.
pub(crate) struct Nats;

impl Driver for Nats {
    fn search(&self, _: &ServiceConfig) -> Search {
        Search {
            title: "NATS",
            programs: &[("nats-server", "nats-server")],
            install: "Debian, Ubuntu: apt-get install nats-server".into(),
            dirs: Vec::new(),
        }
    }

    fn reserved_setting(&self, config: &ServiceConfig) -> Option<(String, &'static str)> {
        let reserved = |name: &&String| {
            let name = name.to_ascii_lowercase();
            let block = name.split('.').next().unwrap_or_default();
            RESERVED.contains(&name.as_str()) || (block != "jetstream" && RESERVED.contains(&block))
        };
        let name = config.settings.keys().find(reserved)?;
        Some((name.clone(), "testenv sets it itself, or it would open a port of its own"))
    }

    fn file_endings(&self) -> &'static [&'static str] {
        &[".json"]
    }

    fn stop_signal(&self) -> Signal {
        Signal::INT
    }

    fn init(&self, _: &Machine, _: &Spec, _: &Path) -> Result<()> {
        Ok(())
    }

    fn config_files(&self, spec: &Spec, password: &str) -> Vec<(&'static str, String)> {
        let text = |accounts: &str| configuration(&spec.config, password, accounts);
        vec![("nats.conf", text("")), ("shared.conf", text(&accounts::configuration(password)))]
    }

    fn command(&self, spec: &Spec, data: &Path, endpoint: &Endpoint, shared: bool) -> Command {
        let config = data.join(if shared { "shared.conf" } else { "nats.conf" });
        let args = vec![
            "--config".into(),
            config.into(),
            "--addr".into(),
            endpoint.host.as_str().into(),
            "--port".into(),
            endpoint.port.to_string().into(),
            "--store_dir".into(),
            data.into(),
        ];
        Command { program: spec.build.program.clone(), args, env: Vec::new() }
    }

    fn is_ready(&self, line: &str) -> bool {
        line.contains("Server is ready")
    }

    fn port_is_taken(&self, log: &str) -> bool {
        log.contains("address already in use")
    }

    fn warm_up(
        &self,
        _machine: &Machine,
        _spec: &Spec,
        endpoint: &Endpoint,
        _dirs: Dirs<'_>,
        _session: bool,
    ) -> Result<Option<Session>> {
        let answer = Client::open(endpoint)?.ask("INFO", &Value::Null)?;
        answer.map(|_| None).map_err(|refusal| {
            Problem::new(ProblemKind::StartFailed, "JetStream does not answer").detail(refusal.to_string())
        })
    }

    fn set_up(&self, _: &Spec, _: &Endpoint) -> Result<()> {
        Ok(())
    }

    fn apply(
        &self,
        _spec: &Spec,
        endpoint: &Endpoint,
        name: &str,
        content: &[u8],
        deadline: Instant,
    ) -> Result<()> {
        seed::apply(&mut Client::open_until(endpoint, deadline)?, name, content)
    }

    fn login(&self, spec: &Spec, password: &str) -> (String, String, String) {
        (user(&spec.config).to_owned(), password.to_owned(), String::new())
    }

    fn url(&self, endpoint: &Endpoint) -> String {
        let Endpoint { host, port, user, password, .. } = endpoint;
        let login = match user.as_str() {
            "" => String::new(),
            user => format!("{}:{}@", url_part(user), url_part(password)),
        };
        format!("nats://{login}{host}:{port}")
    }

    fn connect_command(&self, _: &EngineBuild, endpoint: &Endpoint) -> String {
        let Endpoint { host, port, user, password, .. } = endpoint;
        let (user, password) = (shell_word(user), shell_word(password));
        format!("NATS_URL=nats://{host}:{port} NATS_USER={user} NATS_PASSWORD={password} nats subscribe '>'")
    }

    fn namespaces(&self) -> Option<&'static dyn Namespaces> {
        Some(&accounts::Foreign)
    }

    fn clones(
        &self,
        machine: &Arc<Machine>,
        spec: &Arc<Spec>,
        origin: Origin<'_>,
    ) -> Result<Box<dyn Clones>> {
        if let Origin::Declared { endpoint, .. } = origin {
            return Err(accounts::refusal(endpoint));
        }
        let replay = Replay::new(machine, spec, origin)?;
        Ok(Box::new(accounts::Accounts::new(origin.endpoint().clone(), replay)))
    }
}

fn user(config: &ServiceConfig) -> &str {
    config.user.as_deref().unwrap_or(USER)
}

/// The configuration of a server, with more accounts than the one that is always there.
fn configuration(config: &ServiceConfig, password: &str, accounts: &str) -> String {
    let (top, mut blocks) = sorted(&config.settings);
    let jetstream = blocks.remove("jetstream").unwrap_or_default();
    let mut text = format!(
        "{CONFIG_HEADER}server_name: testenv\nlogtime: false\n\
         jetstream {{\n    max_memory_store: {STORE_LIMIT}\n    max_file_store: {STORE_LIMIT}\n{jetstream}}}\n\
         accounts {{\n    {USER}: {{ jetstream: enabled, users: [ {{ user: {}, password: {} }} ] }}\n{accounts}}}\n\
         {top}",
        quote(user(config)),
        quote(password),
    );
    for (name, lines) in blocks {
        text.push_str(&format!("{name} {{\n{lines}}}\n"));
    }
    text
}

/// Settings of the top, and those of blocks, whose names are `block.setting`.
fn sorted(settings: &BTreeMap<String, Setting>) -> (String, BTreeMap<&str, String>) {
    let (mut top, mut blocks) = (String::new(), BTreeMap::<&str, String>::new());
    for (name, Setting(value)) in settings {
        let value = if is_plain(value) { value.clone() } else { quote(value) };
        match name.split_once('.') {
            Some((block, name)) => {
                blocks.entry(block).or_default().push_str(&format!("    {name}: {value}\n"));
            }
            None => top.push_str(&format!("{name}: {value}\n")),
        }
    }
    (top, blocks)
}

/// Whether a value is a number, a size, or a boolean, which NATS wants without quotes. `2m` is two minutes, which
/// it wants with quotes.
fn is_plain(value: &str) -> bool {
    const UNITS: [&str; 13] = ["", "k", "kb", "kib", "m", "mb", "mib", "g", "gb", "gib", "t", "tb", "tib"];
    let number = value.strip_prefix('-').unwrap_or(value);
    let digits = number.bytes().take_while(u8::is_ascii_digit).count();
    let unit = &number[digits..];
    let is_size = digits > 0 && unit != "m" && UNITS.contains(&unit.to_ascii_lowercase().as_str());
    is_size || ["on", "off", "true", "false"].contains(&value)
}

/// Quotes a value for the configuration.
fn quote(value: &str) -> String {
    let escaped: String = value
        .chars()
        .map(|c| match c {
            '"' | '\\' => format!("\\{c}"),
            c if c.is_ascii_control() => format!("\\x{:02x}", u32::from(c)),
            c => c.to_string(),
        })
        .collect();
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use testenv_config::KindConfig;

    use super::*;

    fn config(settings: &[(&str, &str)]) -> ServiceConfig {
        let mut config = ServiceConfig::new(KindConfig::Nats);
        let settings = settings.iter().map(|(name, value)| ((*name).into(), Setting((*value).into())));
        config.settings = settings.collect();
        config
    }

    #[test]
    fn settings_go_where_they_belong() {
        let config = config(&[
            ("max_payload", "8MB"),
            ("ping_interval", "2m"),
            ("write_deadline", "10s"),
            ("jetstream.max_outstanding_catchup", "64MB"),
            ("limits.x", "on"),
        ]);
        let text = configuration(&config, "secret", "");
        assert!(text.contains("    max_outstanding_catchup: 64MB\n}\naccounts {"), "{text}");
        assert!(
            text.ends_with(
                "max_payload: 8MB\nping_interval: \"2m\"\nwrite_deadline: \"10s\"\nlimits {\n    x: on\n}\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn values_cannot_break_out_of_their_quotes() {
        assert_eq!(quote("a\"b\\\n"), r#""a\"b\\\x0a""#);
        let mut config = config(&[]);
        config.user = Some("x\" }, { user: \"y".into());
        assert!(configuration(&config, "p", "").contains(r#"user: "x\" }, { user: \"y", password: "p""#));
    }

    #[test]
    fn settings_that_open_ports_are_refused() {
        for name in ["port", "HTTP_port", "websocket.port", "cluster.listen", "jetstream.store_dir"] {
            let (refused, _) = Nats.reserved_setting(&config(&[(name, "1")])).unwrap();
            assert_eq!(refused, name);
        }
        assert!(Nats.reserved_setting(&config(&[("jetstream.max_file_store", "1G")])).is_none());
    }

    #[test]
    fn urls_and_commands_carry_the_login() {
        let endpoint = Endpoint {
            host: "127.0.0.1".into(),
            port: 4222,
            user: "app".into(),
            password: "p@ss'".into(),
            ..Endpoint::default()
        };
        assert_eq!(Nats.url(&endpoint), "nats://app:p%40ss%27@127.0.0.1:4222");
    }
}
