//! `testenv.toml`: which services a workspace needs, how they are prepared, and within what limits.
//!
//! Parsing and checking only. Nothing here looks at engines, servers or the environment; paths are kept as
//! written and resolved against the workspace's root by whoever uses them. The configuration reference in
//! `docs/configuration.md` is generated from the documentation comments of these types.

#![forbid(unsafe_code)]

mod custom;
mod service;
mod template;
mod units;
mod words;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

pub use custom::{CommandConfig, FileConfig, FromTable, NamespaceConfig, Ready, ReadyConfig, SignalConfig};
pub use service::{
    IsolationConfig, KindConfig, NAME_LIMIT, NamesConfig, PrepareStep, PrepareTable, RuntimeConfig,
    ServiceConfig, Setting, StepsConfig,
};
pub use template::{TemplateError, expand, fill};
pub use units::{ByteSize, Span};

/// The whole of `testenv.toml`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// One table per role: the name that tests use for a dependency, such as `database` or `cache`.
    pub services: BTreeMap<String, ServiceConfig>,
    /// Where services run.
    pub runtime: RuntimesConfig,
    /// Limits of what is left behind in servers that others run.
    pub external: ExternalConfig,
    /// Limits of the warm pool.
    pub pool: PoolConfig,
    /// Limits of the broker.
    pub broker: BrokerConfig,
    /// Where snapshots are kept and how much room they get.
    pub cache: CacheConfig,
    /// What `testenv run` gives to the tests it runs.
    pub run: RunConfig,
}

/// Where services run.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct RuntimesConfig {
    /// Runtime of the services that name none.
    pub default: RuntimeConfig,
    /// The runtime that every service must turn out to have, so that a laptop and CI agree: anything else is
    /// refused. No such demand when absent.
    pub require: Option<RuntimeConfig>,
}

/// Limits of what is left behind in external servers, whose namespaces outlive a broker that is killed.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ExternalConfig {
    /// Namespaces of others that may be in a server when it is first used; with more it is refused.
    pub max_leftovers: usize,
    /// Namespaces of others older than this are removed; this workspace's own always are.
    pub max_age: Span,
}

impl Default for ExternalConfig {
    fn default() -> Self {
        Self { max_leftovers: 100, max_age: Span::from_secs(24 * 3600) }
    }
}

/// Limits of the warm pool: servers that wait, started and ready, for a test to ask.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct PoolConfig {
    /// Servers kept warm for each role while tests ask for them. The pool grows to this ahead of demand and
    /// shrinks to one when nobody has asked for a while. 0 turns the warm pool off.
    pub warm: usize,
    /// Servers at the most, warm, leased and kept together, and databases at the most in a shared server. Further
    /// requests wait for one to come back.
    pub max_servers: usize,
    /// Memory at the most for all servers together, as measured (proportional set size) and, for those being
    /// started, estimated. Further requests wait.
    pub max_memory: ByteSize,
    /// How long a request waits for a lease before it is refused.
    pub wait: Span,
    /// First and last TCP port given to servers. Ports in use by others are skipped.
    pub ports: (u16, u16),
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            warm: 8,
            max_servers: 256,
            max_memory: ByteSize::gib(4),
            wait: Span::from_secs(60),
            ports: (20_000, 32_000),
        }
    }
}

/// Limits of the broker.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct BrokerConfig {
    /// The broker ends by itself when nobody has held or asked for a lease for this long.
    pub idle_exit: Span,
    /// When the data behind a lease outlives it: `failed`, `unless-passed`, `always` or `never`.
    pub keep: KeepConfig,
    /// How long a kept server stays.
    pub keep_for: Span,
    /// How many servers are kept at the most; the oldest goes first.
    pub keep_max: usize,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            idle_exit: Span::from_secs(600),
            keep: KeepConfig::default(),
            keep_for: Span::from_secs(3600),
            keep_max: 8,
        }
    }
}

/// When the data behind a lease outlives it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, serde::Serialize))]
#[serde(rename_all = "kebab-case")]
pub enum KeepConfig {
    /// When the test says that it failed.
    #[default]
    Failed,
    /// Unless the test says that it passed: after a SIGKILL or a timeout too.
    UnlessPassed,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Where snapshots are kept and how much room they get.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct CacheConfig {
    /// Directory of the snapshots; `$TESTENV_CACHE_DIR`, else `$XDG_CACHE_HOME/testenv`, when absent.
    pub dir: Option<PathBuf>,
    /// Size at the most. The least recently used snapshots go first.
    pub max_size: ByteSize,
    /// Where servers' own data goes while they run: `auto` takes a private tmpfs and falls back to disk.
    pub storage: StorageConfig,
    /// Size at the most of that tmpfs.
    pub tmpfs_size: ByteSize,
    /// How a server gets its copy of a snapshot: `auto` takes the fastest that this machine allows.
    pub fork: ForkConfig,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            dir: None,
            max_size: ByteSize::gib(4),
            storage: StorageConfig::default(),
            tmpfs_size: ByteSize::gib(4),
            fork: ForkConfig::default(),
        }
    }
}

/// Where servers' own data goes while they run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, serde::Serialize))]
#[serde(rename_all = "lowercase")]
pub enum StorageConfig {
    /// A tmpfs where there is one to be had, else disk.
    #[default]
    Auto,
    /// A tmpfs, or an error.
    Tmpfs,
    /// The cache's file system.
    Disk,
}

/// How a server gets its copy of a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, serde::Serialize))]
#[serde(rename_all = "lowercase")]
pub enum ForkConfig {
    /// The first of the following that works on this machine.
    #[default]
    Auto,
    /// An overlay mount in the broker's own mount namespace.
    Overlay,
    /// Copies that share their blocks, on a file system that can (btrfs, XFS).
    Reflink,
    /// Plain copies.
    Copy,
}

/// What `testenv run` and `testenv exec` give to the commands they run.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct RunConfig {
    /// Roles to lease; all of them when absent.
    pub roles: Option<Vec<String>>,
    /// Whether each test process has leases of its own, or all tests of a run share one set.
    pub per: PerConfig,
    /// Directory for the run's record and JUnit XML, relative to the workspace.
    pub output: PathBuf,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self { roles: None, per: PerConfig::default(), output: PathBuf::from("target/testenv") }
    }
}

/// Whose leases they are in `testenv run`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, serde::Serialize))]
#[serde(rename_all = "lowercase")]
pub enum PerConfig {
    /// Each test process has its own.
    #[default]
    Test,
    /// All tests of the run share one set.
    Run,
    /// Nothing is leased by the runner: the tests ask for themselves, through the harness.
    None,
}

/// Why `testenv.toml` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is there but cannot be read.
    #[error("failed to read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML, or not of this shape.
    #[error("{} is not a valid configuration\n{source}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A value is of the right type but cannot be meant.
    #[error("{}: {at}: {what}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Key, such as `services.database.user`.
        at: String,
        /// What is wrong with it and what it may be.
        what: String,
    },
}

impl Config {
    /// Reads and checks the file; without one, everything has its default and there are no roles.
    ///
    /// # Errors
    /// [`ConfigError`], with the place in the file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text, path),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(ConfigError::Read { path: path.to_path_buf(), source }),
        }
    }

    /// Parses and checks the text of a file; `path` is only named in errors.
    ///
    /// ```
    /// # use std::path::Path;
    /// let config = testenv_config::Config::parse(
    ///     r#"
    ///     [services.database]
    ///     service = "postgres"
    ///     migrations = "migrations"
    ///     "#,
    ///     Path::new("testenv.toml"),
    /// )?;
    /// assert_eq!(config.services["database"].database(), "app");
    /// # Ok::<(), testenv_config::ConfigError>(())
    /// ```
    ///
    /// # Errors
    /// [`ConfigError::Parse`] and [`ConfigError::Invalid`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let mut config: Self = toml::from_str(text)
            .map_err(|source| ConfigError::Parse { path: path.to_path_buf(), source: Box::new(source) })?;
        for (role, service) in &mut config.services {
            service.role.clone_from(role);
        }
        config.check().map_err(|(at, what)| ConfigError::Invalid { path: path.to_path_buf(), at, what })?;
        config.share_out_database_url();
        Ok(config)
    }

    fn share_out_database_url(&mut self) {
        let wants: Vec<_> = self.services.values().map(ServiceConfig::wants_database_url).collect();
        let count = wants.iter().filter(|wants| **wants).count();
        for (service, wants) in self.services.values_mut().zip(wants) {
            service.alone_with_database_url = count == usize::from(wants);
        }
    }

    fn check(&self) -> Result<(), (String, String)> {
        for (role, service) in &self.services {
            service::check_role_name(role).map_err(|what| (format!("services.{role}"), what))?;
            service.check().map_err(|(key, what)| (format!("services.{role}.{key}"), what))?;
        }
        let (first, last) = self.pool.ports;
        if first < 1024 || first > last {
            let what = format!("[{first}, {last}] is not a range of ports from 1024 up");
            return Err(("pool.ports".into(), what));
        }
        if self.pool.max_servers == 0 {
            return Err(("pool.max_servers".into(), "0 servers serve nobody; give at least 1".into()));
        }
        for role in self.run.roles.iter().flatten() {
            if !self.services.contains_key(role) {
                return Err(("run.roles".into(), format!("there is no [services.{role}]")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Config::parse(text, Path::new("testenv.toml")).unwrap_err().to_string()
    }

    #[test]
    fn an_empty_file_has_no_roles_and_all_defaults() {
        assert_eq!(Config::parse("", Path::new("x")).unwrap(), Config::default());
    }

    #[test]
    fn a_missing_file_is_an_empty_one() {
        assert_eq!(Config::load(Path::new("/nonexistent/testenv.toml")).unwrap(), Config::default());
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let text = error("[services.db]\nservice = \"postgres\"\nmigration = \"x\"\n");
        assert!(text.contains("unknown field `migration`"), "{text}");
        assert!(text.contains("line 3"), "{text}");
    }

    #[test]
    fn a_range_of_ports_the_wrong_way_round_is_refused() {
        assert!(error("[pool]\nports = [3000, 2000]").contains("pool.ports"));
    }

    #[test]
    fn run_roles_must_exist() {
        assert!(error("[run]\nroles = [\"db\"]").contains("there is no [services.db]"));
    }
}
