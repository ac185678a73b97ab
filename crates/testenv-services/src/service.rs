//! A service of a workspace: a role, its configuration, the engine build that serves it, and its driver.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Instant;

use testenv_api::{Problem, ProblemKind, ServiceKind};
use testenv_config::{KindConfig, ServiceConfig};

use crate::engine::{self, EngineBuild};
use crate::machine::Machine;
use crate::postgres::Postgres;
use crate::redis::Redis;
use crate::server::Session;
use crate::{Result, process::Spawn};

/// A role of a workspace with everything needed to prepare and start it.
#[derive(Clone)]
pub struct Spec {
    /// The role's name.
    pub role: String,
    /// Kind of service.
    pub kind: ServiceKind,
    /// Its table in `testenv.toml`.
    pub config: ServiceConfig,
    /// The workspace, against which paths are resolved.
    pub root: PathBuf,
    /// The engine build that serves it.
    pub build: EngineBuild,
    pub(crate) driver: &'static dyn Driver,
}

impl std::fmt::Debug for Spec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spec")
            .field("role", &self.role)
            .field("engine", &self.build.engine)
            .finish_non_exhaustive()
    }
}

/// Where a server is and how to log in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// TCP host.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Directory of the unix socket.
    pub socket_dir: PathBuf,
    /// User; empty where the service has none.
    pub user: String,
    /// Password; empty where none is needed.
    pub password: String,
    /// Database.
    pub database: String,
}

impl Spec {
    /// Resolves a role: checks its configuration and finds its engine.
    ///
    /// # Errors
    /// [`ProblemKind::InvalidConfig`] and [`ProblemKind::EngineMissing`].
    pub fn resolve(
        role: &str,
        config: &ServiceConfig,
        root: &Path,
        path: &str,
        machine: &Machine,
    ) -> Result<Self> {
        let (kind, driver): (_, &'static dyn Driver) = match config.service {
            KindConfig::Postgres => (ServiceKind::Postgres, &Postgres),
            KindConfig::Redis | KindConfig::Valkey => (ServiceKind::Redis, &Redis),
        };
        if let Some((setting, why)) = driver.reserved_setting(config) {
            let title = format!("services.{role}.settings.{setting} cannot be set");
            return Err(Problem::new(ProblemKind::InvalidConfig, title).detail(why));
        }
        let build = engine::find(config, root, path, machine.user.as_ref())?;
        Ok(Self {
            role: role.to_owned(),
            kind,
            config: config.clone(),
            root: root.to_path_buf(),
            build,
            driver,
        })
    }

    /// URL of an endpoint, over TCP.
    pub fn url(&self, endpoint: &Endpoint) -> String {
        self.driver.url(endpoint)
    }

    /// Where the unix socket is, in the form that the service's clients take.
    pub fn socket(&self, endpoint: &Endpoint) -> String {
        self.driver.socket(endpoint).display().to_string()
    }

    /// Shell command that connects a client.
    pub fn connect_command(&self, endpoint: &Endpoint) -> String {
        self.driver.connect_command(&self.build, endpoint)
    }

    /// The role's environment variables, filled in for an endpoint.
    ///
    /// # Errors
    /// [`ProblemKind::InvalidConfig`] for a template with an unknown placeholder.
    pub fn env(&self, endpoint: &Endpoint) -> Result<BTreeMap<String, String>> {
        let (url, port, socket) = (self.url(endpoint), endpoint.port.to_string(), self.socket(endpoint));
        let values = [
            ("url", url.as_str()),
            ("host", &endpoint.host),
            ("port", &port),
            ("user", &endpoint.user),
            ("password", &endpoint.password),
            ("database", &endpoint.database),
            ("socket", &socket),
            ("role", &self.role),
        ];
        let expand = |(name, template): (String, String)| {
            let value = testenv_config::expand(&template, &values).map_err(|error| {
                Problem::new(
                    ProblemKind::InvalidConfig,
                    format!("services.{}.env.{name}: {error}", self.role),
                )
            })?;
            Ok((name, value))
        };
        self.config.env_templates().into_iter().map(expand).collect()
    }
}

/// First line of every configuration file.
pub(crate) const CONFIG_HEADER: &str =
    "# Written by testenv: its own settings first, then those of testenv.toml.\n";

/// What is different from one kind of service to the next.
pub(crate) trait Driver: Sync {
    /// A setting in the configuration that testenv itself has to control, and why.
    fn reserved_setting(&self, config: &ServiceConfig) -> Option<(String, &'static str)>;

    /// Files that a step given as a directory consists of, by their endings.
    fn file_endings(&self) -> &'static [&'static str];

    /// Turns an empty directory into the data of a new server.
    fn init(&self, machine: &Machine, spec: &Spec, data: &Path) -> Result<()>;

    /// The configuration files of a server, by their names in its data directory.
    fn config_files(&self, spec: &Spec, password: &str) -> Vec<(&'static str, String)>;

    /// The server's program and arguments; `shared` when many leases will use it at once.
    fn command(
        &self,
        spec: &Spec,
        data: &Path,
        endpoint: &Endpoint,
        shared: bool,
    ) -> (PathBuf, Vec<OsString>);

    /// Whether a line of the log says that the server accepts connections.
    fn is_ready(&self, line: &str) -> bool;

    /// Whether a log says that the server's port was taken.
    fn port_is_taken(&self, log: &str) -> bool;

    /// Makes a server that is ready a fast one. With `session`, also opens a session on it.
    fn warm_up(
        &self,
        endpoint: &Endpoint,
        frozen: &Path,
        data: &Path,
        machine: &Machine,
        session: bool,
    ) -> Result<Option<Session>>;

    /// Creates users, databases, extensions in a new server.
    fn set_up(&self, spec: &Spec, endpoint: &Endpoint) -> Result<()>;

    /// Applies one file of migrations or seed.
    fn apply(&self, endpoint: &Endpoint, name: &str, content: &[u8], deadline: Instant) -> Result<()>;

    /// What a server is doing now, for the message about a step that took too long.
    fn doing(&self, endpoint: &Endpoint) -> String;

    /// Last thing before a prepared server is stopped to be frozen.
    fn before_freeze(&self, spec: &Spec, endpoint: &Endpoint) -> Result<()>;

    /// Last thing after it was stopped: removes what a fork has no use for.
    fn after_freeze(&self, data: &Path) -> std::io::Result<()>;

    /// Where to connect at first, before [`set_up`](Self::set_up) has created anything.
    fn login(&self, spec: &Spec, password: &str) -> (String, String, String);

    fn url(&self, endpoint: &Endpoint) -> String;
    fn socket(&self, endpoint: &Endpoint) -> PathBuf;
    fn connect_command(&self, build: &EngineBuild, endpoint: &Endpoint) -> String;
}

impl Machine {
    /// How a program of this broker is started, as the servers' user.
    pub(crate) fn spawn(&self, program: PathBuf, args: Vec<OsString>, cwd: &Path) -> Spawn<'_> {
        Spawn {
            program,
            args,
            env: Vec::new(),
            cwd: cwd.to_path_buf(),
            user: self.user.as_ref(),
            guard: self.guard(),
            pid_namespace: false,
            process_group: false,
        }
    }
}

/// Quotes a word for a shell.
pub(crate) fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@%+=,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Encodes what has a meaning in URLs.
pub(crate) fn url_part(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_a_shell_cannot_break_out() {
        assert_eq!(shell_word("plain-1.0"), "plain-1.0");
        assert_eq!(shell_word("a'b; rm"), r"'a'\''b; rm'");
        assert_eq!(shell_word(""), "''");
    }

    #[test]
    fn parts_of_a_url_are_encoded() {
        assert_eq!(url_part("p@ss/wörd"), "p%40ss%2Fw%C3%B6rd");
    }
}
