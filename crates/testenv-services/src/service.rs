//! A service of a workspace: a role, its configuration, the engine build that serves it, and its driver.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use testenv_api::{Problem, ProblemKind, ServiceKind};
use testenv_config::{KindConfig, RuntimeConfig, RuntimesConfig, ServiceConfig};

use crate::drivers::{self, Driver, Namespaces};
use crate::engine::{self, EngineBuild};
use crate::external::{self, Declared};
use crate::listening;
use crate::machine::Machine;
use crate::{Result, process::Spawn};

impl Endpoint {
    /// Names the main port too, where the configuration has a name for it.
    pub(crate) fn name_first_port(&mut self, config: &ServiceConfig) {
        if let Some(name) = config.first_port() {
            self.ports.insert(name.to_owned(), self.port);
        }
    }

    /// A port of a server that is not its own, but of processes that it did not start.
    pub(crate) fn taken_by_others_than(&self, pid: u32) -> Option<u16> {
        let mut ports = std::iter::once(self.port).chain(self.ports.values().copied());
        ports.find(|port| listening::is_taken_by_others(pid, *port))
    }

    /// Whether there is only TCP: no unix socket of it can be reached from here.
    pub(crate) fn is_remote(&self) -> bool {
        self.socket_dir.as_os_str().is_empty()
    }
}

/// The kind of service that the wire knows, for one in `testenv.toml`.
pub fn kind(config: KindConfig) -> ServiceKind {
    match config {
        KindConfig::Postgres => ServiceKind::Postgres,
        KindConfig::Redis | KindConfig::Valkey => ServiceKind::Redis,
        KindConfig::Mysql | KindConfig::Mariadb => ServiceKind::Mysql,
        KindConfig::Clickhouse => ServiceKind::Clickhouse,
        KindConfig::S3 | KindConfig::Minio | KindConfig::Versitygw => ServiceKind::S3,
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
    /// Where it runs.
    pub runtime: Runtime,
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
    /// Directory of the unix socket; empty where there is none.
    pub socket_dir: PathBuf,
    /// User; empty where the service has none.
    pub user: String,
    /// Password; empty where none is needed.
    pub password: String,
    /// What in the server is meant: the database of an SQL server, the number of one in Redis, a bucket, a
    /// virtual host, a prefix of topics; empty where the service has none.
    pub database: String,
}

/// Where a service runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// As processes of this machine.
    Native,
    /// In a server that others run.
    External(Declared),
}

impl Runtime {
    /// The name used in `testenv.toml` and on the wire.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::External(_) => "external",
        }
    }
}

/// What a role is resolved against.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// The workspace, against which paths are resolved.
    pub root: &'a Path,
    /// Value of `PATH`, in which engines are looked for.
    pub path: &'a str,
    /// Variables that may declare servers.
    pub environment: &'a BTreeMap<String, String>,
    /// What the workspace says about runtimes.
    pub runtimes: &'a RuntimesConfig,
    /// The machine.
    pub machine: &'a Machine,
}

impl Spec {
    /// Resolves a role: checks its configuration, decides where it runs, and finds its engine.
    ///
    /// # Errors
    /// [`ProblemKind::InvalidConfig`], [`ProblemKind::EngineMissing`], and [`ProblemKind::StartFailed`] for an
    /// external server that does not answer.
    pub fn resolve(role: &str, config: &ServiceConfig, around: Surroundings<'_>) -> Result<Self> {
        let kind = kind(config.service);
        let driver = drivers::of(kind);
        if let Some((setting, why)) = driver.reserved_setting(config) {
            let title = format!("services.{role}.settings.{setting} cannot be set");
            return Err(Problem::new(ProblemKind::InvalidConfig, title).detail(why));
        }
        let (runtime, build) = place(role, config, driver, around)?;
        if let Some(required) = around.runtimes.require
            && required != RuntimeConfig::Auto
            && format!("{required:?}").to_lowercase() != runtime.as_str()
        {
            let title =
                format!("services.{role} would run {}, and runtime.require forbids it", runtime.as_str());
            return Err(Problem::new(ProblemKind::InvalidConfig, title)
                .detail(format!("testenv.toml requires {required:?} for every service").to_lowercase())
                .hint("set `runtime` of the service, or take `runtime.require` out"));
        }
        Ok(Self {
            role: role.to_owned(),
            kind,
            config: config.clone(),
            root: around.root.to_path_buf(),
            runtime,
            build,
            driver,
        })
    }

    /// The namespaces of this kind of service.
    ///
    /// # Errors
    /// [`ProblemKind::BadRequest`] where it has none.
    pub(crate) fn namespaces(&self) -> Result<&'static dyn Namespaces> {
        self.driver.namespaces().ok_or_else(|| {
            Problem::new(ProblemKind::BadRequest, format!("{} has no namespaces", self.kind))
                .hint("ask for isolation `server`: every lease then has a server of its own")
        })
    }

    /// Removes every namespace in the role's external server, whoever made it; how many there were. Zero for a
    /// role that is not external.
    ///
    /// # Errors
    /// What the server says against it.
    pub fn clean_external(&self) -> Result<usize> {
        match &self.runtime {
            Runtime::Native => Ok(0),
            Runtime::External(declared) => external::clean(self, self.namespaces()?, &declared.endpoint),
        }
    }

    /// Whether leases can have namespaces in a shared server.
    pub fn has_namespaces(&self) -> bool {
        self.driver.namespaces().is_some()
    }

    /// What a server is taken to need before one was measured, in bytes.
    pub fn memory(&self) -> u64 {
        self.driver.memory()
    }

    /// Whether leases of a shared server take turns, because it is reset in between.
    pub fn takes_turns(&self) -> bool {
        self.config.reset.is_some()
    }

    /// Brings a shared server back to where it began.
    ///
    /// # Errors
    /// When that fails; the server is in no state to be used then.
    pub fn reset(&self, machine: &Machine, endpoint: &Endpoint) -> Result<()> {
        self.driver.reset(machine, self, endpoint)
    }

    /// URL of an endpoint, over TCP.
    pub fn url(&self, endpoint: &Endpoint) -> String {
        self.driver.url_of(self, endpoint)
    }

    /// Where the unix socket is, in the form that the service's clients take.
    pub fn socket(&self, endpoint: &Endpoint) -> String {
        if endpoint.is_remote() { String::new() } else { self.driver.socket(endpoint).display().to_string() }
    }

    /// Shell command that connects a client.
    pub fn connect_command(&self, endpoint: &Endpoint) -> String {
        self.driver.connect_command_of(self, endpoint)
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

/// Decides where a role runs, and which build that is.
fn place(
    role: &str,
    config: &ServiceConfig,
    driver: &'static dyn Driver,
    around: Surroundings<'_>,
) -> Result<(Runtime, EngineBuild)> {
    let wanted = config.runtime.unwrap_or(around.runtimes.default);
    let declared = match wanted {
        RuntimeConfig::Native => None,
        RuntimeConfig::External | RuntimeConfig::Auto => {
            external::find(role, config, driver, around.environment)?
        }
    };
    match declared {
        Some(declared) => {
            let build = external::build(role, config, driver, &declared)?;
            Ok((Runtime::External(declared), build))
        }
        None if wanted == RuntimeConfig::External => {
            let variable = config.url_env();
            let title = format!("services.{role} is external, and {variable} is not set");
            Err(Problem::new(ProblemKind::InvalidConfig, title)
                .detail("the broker keeps the environment that it was started with")
                .hint(format!("set {variable} to the server's URL, then `testenv down`, and try again")))
        }
        None => {
            let Surroundings { root, path, machine, .. } = around;
            Ok((Runtime::Native, engine::find(driver, config, root, path, machine.user.as_ref())?))
        }
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
