//! A service of a workspace: a role, its configuration, the engine build that serves it, and its driver.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use testenv_api::{Problem, ProblemKind, ServiceKind};
use testenv_config::{KindConfig, ServiceConfig};

use crate::drivers::{self, Driver};
use crate::engine::{self, EngineBuild};
use crate::machine::Machine;
use crate::{Result, process::Spawn};

/// The kind of service that the wire knows, for one in `testenv.toml`.
pub fn kind(config: KindConfig) -> ServiceKind {
    match config {
        KindConfig::Postgres => ServiceKind::Postgres,
        KindConfig::Redis | KindConfig::Valkey => ServiceKind::Redis,
        KindConfig::Mysql | KindConfig::Mariadb => ServiceKind::Mysql,
        KindConfig::Clickhouse => ServiceKind::Clickhouse,
        KindConfig::S3 => ServiceKind::S3,
        KindConfig::Kafka => ServiceKind::Kafka,
        KindConfig::Rabbitmq => ServiceKind::Rabbitmq,
        KindConfig::Nats => ServiceKind::Nats,
        KindConfig::Custom => ServiceKind::Custom,
    }
}

/// What a kind of service is without a word of it in `testenv.toml`; `None` where it cannot be without.
pub fn plain(kind: ServiceKind) -> Option<ServiceConfig> {
    Some(ServiceConfig::new(match kind {
        ServiceKind::Postgres => KindConfig::Postgres,
        ServiceKind::Redis => KindConfig::Redis,
        ServiceKind::Mysql => KindConfig::Mysql,
        ServiceKind::Clickhouse => KindConfig::Clickhouse,
        ServiceKind::S3 => KindConfig::S3,
        ServiceKind::Kafka => KindConfig::Kafka,
        ServiceKind::Rabbitmq => KindConfig::Rabbitmq,
        ServiceKind::Nats => KindConfig::Nats,
        ServiceKind::Custom => return None,
    }))
}

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
    /// Further TCP ports, by what they are for.
    pub ports: BTreeMap<String, u16>,
    /// Directory of the unix socket.
    pub socket_dir: PathBuf,
    /// User; empty where the service has none.
    pub user: String,
    /// Password; empty where none is needed.
    pub password: String,
    /// What in the server is meant: the database of an SQL server, the number of one in Redis, a bucket, a
    /// virtual host, a prefix of topics; empty where the service has none.
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
        let kind = kind(config.service);
        let driver = drivers::of(kind)?;
        if let Some((setting, why)) = driver.reserved_setting(config) {
            let title = format!("services.{role}.settings.{setting} cannot be set");
            return Err(Problem::new(ProblemKind::InvalidConfig, title).detail(why));
        }
        let build = engine::find(driver, config, root, path, machine.user.as_ref())?;
        Ok(Self {
            role: role.to_owned(),
            kind,
            config: config.clone(),
            root: root.to_path_buf(),
            build,
            driver,
        })
    }

    /// Whether leases can have namespaces in a shared server.
    pub fn has_namespaces(&self) -> bool {
        self.driver.namespaces().is_some()
    }

    /// What a server is taken to need before one was measured, in bytes.
    pub fn memory(&self) -> u64 {
        self.driver.memory()
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
        let ports: Vec<_> =
            endpoint.ports.iter().map(|(name, port)| (format!("port.{name}"), port.to_string())).collect();
        let mut values = vec![
            ("url", url.as_str()),
            ("host", &endpoint.host),
            ("port", &port),
            ("user", &endpoint.user),
            ("password", &endpoint.password),
            ("database", &endpoint.database),
            ("socket", &socket),
            ("role", &self.role),
        ];
        values.extend(ports.iter().map(|(name, port)| (name.as_str(), port.as_str())));
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
