//! `[services.<role>]`: one dependency and how it is prepared.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::custom::{CommandConfig, FileConfig, NamespaceConfig, ReadyConfig, SignalConfig, only_custom};
use crate::template;
use crate::units::Span;

/// Longest name that PostgreSQL keeps whole, in bytes.
pub const NAME_LIMIT: usize = 63;

/// Longest name of a user that MySQL takes, in characters.
const MYSQL_USER_LIMIT: usize = 32;
/// What most libraries for databases look at, so more than one kind of service may want to fill it.
const DATABASE_URL: &str = "DATABASE_URL";

/// Placeholders that environment templates may use.
const PLACEHOLDERS: [&str; 8] = ["url", "host", "port", "user", "password", "database", "socket", "role"];

/// One dependency: what it is, what it holds when a test gets it, and how the test learns where it is.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ServiceConfig {
    /// Kind of service: `postgres`, `redis` or `valkey`. `redis` takes Valkey where only that is installed.
    pub service: KindConfig,
    /// Version wanted, by its leading parts: `15`, `7.2`. The newest build found on the machine when absent.
    #[serde(default)]
    pub version: Option<String>,
    /// Directory that holds the engine's programs (`postgres` and `initdb`, `redis-server`, or
    /// `kafka-server-start.sh` with `libs` beside it), for a build outside the usual places. Relative to the
    /// workspace.
    #[serde(default)]
    pub bin_dir: Option<PathBuf>,
    /// Where the service runs; the workspace's `runtime.default` when absent.
    #[serde(default)]
    pub runtime: Option<RuntimeConfig>,
    /// Runtime `external`: the environment variable that says where the server is. When absent, the one that
    /// clients of the service read: `DATABASE_URL`, `MYSQL_URL`, `REDIS_URL`, `CLICKHOUSE_URL`,
    /// `AWS_ENDPOINT_URL`, `KAFKA_BROKERS`, `AMQP_URL`, `NATS_URL`.
    #[serde(default)]
    pub url_env: Option<String>,
    /// `server` (default) gives every lease a server of its own, `namespace` a namespace of its own in a shared
    /// server: a database, an account, a prefix of topics, whatever the service has (docs/services/).
    #[serde(default)]
    pub isolation: Option<IsolationConfig>,
    /// Name of the database, `app` when absent; of RabbitMQ, the virtual host, `/` when absent. In `namespace`
    /// isolation each lease has one named `t_…` instead.
    #[serde(default)]
    pub database: Option<String>,
    /// S3: name of the bucket, or a list of names of which seeds are for the first; `app` when absent. In
    /// `namespace` isolation each lease has one bucket, named `t-…` instead.
    #[serde(default)]
    pub bucket: Option<NamesConfig>,
    /// User that tests connect as. When absent, that of PostgreSQL is the superuser `postgres`, of MySQL the
    /// administrator `root`, of RabbitMQ the administrator `guest`, of ClickHouse the administrator `default`, of
    /// NATS `app`, of S3 the access key `testenv`. In `namespace` isolation, MySQL and ClickHouse (from 21 on) give each lease a user of its own,
    /// with rights to its database only, unless this key is given.
    #[serde(default)]
    pub user: Option<String>,
    /// Password for TCP connections. Random when absent, so that other users of the machine cannot connect;
    /// give one only to suites that hard-code it. For Redis, `""` means none. Kafka has none when absent, and
    /// everybody on the machine can connect; with one, clients log in by SASL/PLAIN as `testenv`.
    #[serde(default)]
    pub password: Option<String>,
    /// PostgreSQL: locale of the cluster, `C.UTF-8` when absent.
    #[serde(default)]
    pub locale: Option<String>,
    /// PostgreSQL: encoding of the databases, `UTF8` when absent.
    #[serde(default)]
    pub encoding: Option<String>,
    /// PostgreSQL: extensions created before the migrations run.
    #[serde(default)]
    pub extensions: Vec<String>,
    /// RabbitMQ: plugins to enable, such as `rabbitmq_management`. Those that listen get ports of their own, for
    /// the placeholders `{port.management}`, `{port.mqtt}`, `{port.prometheus}`, `{port.stomp}`, `{port.stream}`,
    /// `{port.web_mqtt}` and `{port.web_stomp}`.
    #[serde(default)]
    pub plugins: Vec<String>,
    /// Server settings on top of testenv's own, such as `work_mem = "8MB"`, for Redis `maxmemory = "64mb"`, for
    /// Kafka `"num.partitions" = 3`. ClickHouse's are those of queries, as `max_threads = 2`; those of its server
    /// begin with `server.`, and dots lead into sections: `"server.merge_tree.parts_to_throw_insert" = 600`. Those
    /// of S3 are environment variables of its server, such as `MINIO_API_REQUESTS_MAX = 100`.
    #[serde(default)]
    pub settings: BTreeMap<String, Setting>,
    /// What brings the schema: a directory of `.sql` files, applied in the order of their names, or a command.
    /// RabbitMQ takes `.json` files with definitions, as its management interface exports them.
    #[serde(default)]
    pub migrations: Option<StepsConfig>,
    /// What brings the data, after the migrations: files of the service's own form (docs/services/), or a
    /// command.
    #[serde(default)]
    pub seed: Option<StepsConfig>,
    /// Custom: the command line that runs the server, one text or a list of words, without a shell. A word that
    /// names a file of the workspace becomes its absolute path; the server runs in its data directory.
    /// docs/custom-services.md has the placeholders of this and the following keys.
    #[serde(default)]
    pub command: Option<CommandConfig>,
    /// Custom: names of the server's ports. testenv chooses their numbers; the first is `{port}`, each is
    /// `{port.NAME}`.
    #[serde(default)]
    pub ports: Vec<String>,
    /// Custom: environment variables of the server.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Custom: files that the server finds in its data directory, by their paths in it: a text, or
    /// `{ from = "…" }`, a file of the workspace; both with placeholders.
    #[serde(default)]
    pub files: BTreeMap<String, FileConfig>,
    /// Custom: files and directories the server is made of, beside those that `command` and `files` name. After a
    /// change, new leases have new servers.
    #[serde(default)]
    pub inputs: Vec<PathBuf>,
    /// Custom: how it is known that the server is ready: `{ log = "…" }`, `{ http = "/health", status = 200 }`,
    /// `{ tcp = true }` (when absent) or `{ command = "…" }`.
    #[serde(default)]
    pub ready: Option<ReadyConfig>,
    /// Custom: the URL, with placeholders; `http://{host}:{port}` when absent.
    #[serde(default)]
    pub url: Option<String>,
    /// Custom: the shell command that connects a client, for people; `curl` or `nc` when absent.
    #[serde(default)]
    pub connect: Option<String>,
    /// Custom: whether the server keeps nothing in its data directory, so that `migrations` and `seed` are applied to
    /// every server anew.
    #[serde(default)]
    pub in_memory: bool,
    /// Custom: how namespaces come and go in a shared server.
    #[serde(default)]
    pub namespace: Option<NamespaceConfig>,
    /// Custom: command that brings the shared server back to its beginning, given to `sh -c`. With it, leases of
    /// isolation `shared` take turns, and each finds the server reset.
    #[serde(default)]
    pub reset: Option<String>,
    /// Custom: the signal that makes the server stop; `SIGTERM` when absent.
    #[serde(default)]
    pub stop_signal: Option<SignalConfig>,
    /// How long a server may take until it is ready; what its kind usually takes, and 30 s at least, when absent.
    #[serde(default)]
    pub start_timeout: Option<Span>,
    /// How long preparing may take, from an empty server to the end of the seed; `120s` when absent.
    #[serde(default)]
    pub prepare_timeout: Option<Span>,
    /// Puts a proxy in front of every lease of the role, on which tests can set faults: latency, cuts, resets. Off by
    /// default; a test can also ask for it by itself.
    #[serde(default)]
    pub faults: bool,
    /// Environment variables for the commands that `testenv exec` and `testenv run` start. Placeholders:
    /// `{url}`, `{host}`, `{port}`, `{user}`, `{password}`, `{database}`, `{socket}`, `{role}`. When absent,
    /// those that clients of the service read; docs/services/ lists them.
    #[serde(default)]
    pub env: Option<BTreeMap<String, String>>,
    /// Whether no other service of the file fills `DATABASE_URL`; [`Config::parse`](crate::Config::parse) finds
    /// out.
    #[serde(skip)]
    pub alone_with_database_url: bool,
    /// Name of its table; [`Config::parse`](crate::Config::parse) knows it.
    #[serde(skip)]
    pub role: String,
}

/// Kind of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum KindConfig {
    /// PostgreSQL.
    Postgres,
    /// Redis, or Valkey where only that is installed.
    Redis,
    /// Valkey.
    Valkey,
    /// MySQL or MariaDB, whichever is installed.
    Mysql,
    /// MariaDB.
    Mariadb,
    /// ClickHouse.
    Clickhouse,
    /// A store of objects with the protocol of Amazon S3: MinIO, or versitygw where only that is installed.
    S3,
    /// MinIO.
    Minio,
    /// The Versity S3 Gateway, over a plain directory.
    Versitygw,
    /// Apache Kafka.
    Kafka,
    /// RabbitMQ.
    Rabbitmq,
    /// NATS with JetStream.
    Nats,
    /// A service that the workspace describes itself.
    Custom,
}

/// Where a service runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, serde::Serialize))]
#[serde(rename_all = "lowercase")]
pub enum RuntimeConfig {
    /// As processes on this machine, of an engine that is installed here.
    #[default]
    Native,
    /// In a server that somebody else runs and an environment variable names, as CI systems declare them. Each
    /// lease has a namespace of its own in it.
    External,
    /// `external` if the variable is set, else `native`.
    Auto,
}

/// How far a lease is kept apart from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum IsolationConfig {
    /// A server of its own.
    Server,
    /// A database of its own in a shared server.
    Namespace,
}

/// A value of a server setting, as text; TOML's numbers and booleans are taken as they are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting(pub String);

impl<'de> Deserialize<'de> for Setting {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match toml::Value::deserialize(deserializer)? {
            toml::Value::String(text) => Ok(Self(text)),
            value @ (toml::Value::Integer(_) | toml::Value::Float(_)) => Ok(Self(value.to_string())),
            toml::Value::Boolean(on) => Ok(Self(if on { "on" } else { "off" }.to_owned())),
            other => Err(serde::de::Error::custom(format!(
                "a setting is a text, a number or a boolean, not {}",
                other.type_str()
            ))),
        }
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Setting {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Setting".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": ["string", "number", "boolean"] })
    }
}

/// A name, or several.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged, expecting = "a name or a list of names")]
pub enum NamesConfig {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

/// Files to apply, or a command to run.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged, expecting = "a path, a list of paths, or a table with `command` and `inputs`")]
pub enum StepsConfig {
    /// One file, or a directory of files that are applied in the order of their names.
    Path(PathBuf),
    /// Files and directories in this order.
    Paths(Vec<PathBuf>),
    /// A command.
    Command(PrepareTable),
}

/// A command that prepares a service, such as `sqlx migrate run`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PrepareTable {
    /// Command line, given to `sh -c` in the workspace's root with the role's environment variables set.
    pub command: String,
    /// Files and directories whose content decides when the command has to run again.
    pub inputs: Vec<PathBuf>,
}

/// One step of preparing a service, as [`ServiceConfig::steps`] lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrepareStep<'a> {
    /// Apply this file, or the files of this directory.
    Files(&'a PathBuf),
    /// Run this command.
    Command(&'a PrepareTable),
}

impl ServiceConfig {
    /// A service with nothing asked for: what a test gets that uses no `testenv.toml`.
    pub fn new(service: KindConfig) -> Self {
        Self {
            service,
            version: None,
            bin_dir: None,
            runtime: None,
            url_env: None,
            isolation: None,
            database: None,
            bucket: None,
            user: None,
            password: None,
            locale: None,
            encoding: None,
            extensions: Vec::new(),
            plugins: Vec::new(),
            settings: BTreeMap::new(),
            migrations: None,
            seed: None,
            prepare_timeout: None,
            faults: false,
            env: None,
            command: None,
            ports: Vec::new(),
            environment: BTreeMap::new(),
            files: BTreeMap::new(),
            inputs: Vec::new(),
            ready: None,
            url: None,
            connect: None,
            in_memory: false,
            namespace: None,
            reset: None,
            stop_signal: None,
            start_timeout: None,
            alone_with_database_url: true,
            role: String::new(),
        }
    }

    /// Name of the database.
    pub fn database(&self) -> &str {
        self.database.as_deref().unwrap_or(match self.service {
            KindConfig::Rabbitmq => "/",
            _ => "app",
        })
    }

    /// Names of the buckets, the first of which is the one that seeds are for.
    pub fn buckets(&self) -> Vec<&str> {
        match &self.bucket {
            None => vec!["app"],
            Some(NamesConfig::One(name)) => vec![name],
            Some(NamesConfig::Many(names)) => names.iter().map(String::as_str).collect(),
        }
    }

    /// The environment variable that says where an external server is; empty where there is no usual one.
    pub fn url_env(&self) -> &str {
        self.url_env.as_deref().unwrap_or(match self.service {
            KindConfig::Postgres => "DATABASE_URL",
            KindConfig::Redis | KindConfig::Valkey => "REDIS_URL",
            KindConfig::Mysql | KindConfig::Mariadb => "MYSQL_URL",
            KindConfig::Clickhouse => "CLICKHOUSE_URL",
            KindConfig::S3 | KindConfig::Minio | KindConfig::Versitygw => "AWS_ENDPOINT_URL",
            KindConfig::Kafka => "KAFKA_BROKERS",
            KindConfig::Rabbitmq => "AMQP_URL",
            KindConfig::Nats => "NATS_URL",
            KindConfig::Custom => "",
        })
    }

    /// Names of the ports that a server has beside its main one, for placeholders such as `{port.native}`.
    pub fn port_names(&self) -> Vec<String> {
        // A plugin may need another one, so all that listen have a port as soon as there are any.
        const OF_PLUGINS: [&str; 6] = ["mqtt", "prometheus", "stomp", "stream", "web_mqtt", "web_stomp"];
        let names = match self.service {
            KindConfig::Custom => return self.ports.iter().skip(1).cloned().collect(),
            KindConfig::Rabbitmq if self.plugins.is_empty() => &["distribution", "management"][..],
            KindConfig::Rabbitmq => &[&["distribution", "management"][..], &OF_PLUGINS].concat(),
            KindConfig::Clickhouse => &["native"],
            _ => &[],
        };
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// How long preparing may take.
    pub fn prepare_timeout(&self) -> Duration {
        self.prepare_timeout.map_or(Duration::from_secs(120), Span::as_duration)
    }

    /// Administrator that tests connect as.
    pub fn user(&self) -> &str {
        self.user.as_deref().unwrap_or(match self.service {
            KindConfig::Mysql | KindConfig::Mariadb => "root",
            KindConfig::Rabbitmq => "guest",
            KindConfig::Clickhouse => "default",
            KindConfig::Custom => "app",
            _ => "postgres",
        })
    }

    /// Environment templates, those of the kind where the file gives none.
    pub fn env_templates(&self) -> BTreeMap<String, String> {
        if let Some(env) = &self.env {
            return env.clone();
        }
        if self.service == KindConfig::Custom {
            return self.custom_env();
        }
        let defaults: &[(&str, &str)] = match self.service {
            KindConfig::Postgres => &[
                (DATABASE_URL, "{url}"),
                ("PGHOST", "{host}"),
                ("PGPORT", "{port}"),
                ("PGUSER", "{user}"),
                ("PGPASSWORD", "{password}"),
                ("PGDATABASE", "{database}"),
            ],
            KindConfig::Redis | KindConfig::Valkey => &[("REDIS_URL", "{url}")],
            KindConfig::Nats => {
                &[("NATS_URL", "{url}"), ("NATS_USER", "{user}"), ("NATS_PASSWORD", "{password}")]
            }
            KindConfig::Mysql | KindConfig::Mariadb => &[
                ("MYSQL_URL", "{url}"),
                ("MYSQL_HOST", "{host}"),
                ("MYSQL_PORT", "{port}"),
                ("MYSQL_TCP_PORT", "{port}"),
                ("MYSQL_USER", "{user}"),
                ("MYSQL_PASSWORD", "{password}"),
                ("MYSQL_PWD", "{password}"),
                ("MYSQL_DATABASE", "{database}"),
            ],
            KindConfig::Kafka if self.password.as_ref().is_some_and(|it| !it.is_empty()) => &[
                ("KAFKA_BROKERS", "{url}"),
                ("KAFKA_BOOTSTRAP_SERVERS", "{url}"),
                ("KAFKA_TOPIC_PREFIX", "{database}"),
                ("KAFKA_SECURITY_PROTOCOL", "SASL_PLAINTEXT"),
                ("KAFKA_SASL_MECHANISM", "PLAIN"),
                ("KAFKA_SASL_USERNAME", "{user}"),
                ("KAFKA_SASL_PASSWORD", "{password}"),
            ],
            KindConfig::Kafka => &[
                ("KAFKA_BROKERS", "{url}"),
                ("KAFKA_BOOTSTRAP_SERVERS", "{url}"),
                ("KAFKA_TOPIC_PREFIX", "{database}"),
            ],
            KindConfig::Rabbitmq => &[
                ("AMQP_URL", "{url}"),
                ("RABBITMQ_URL", "{url}"),
                ("RABBITMQ_HOST", "{host}"),
                ("RABBITMQ_PORT", "{port}"),
                ("RABBITMQ_USER", "{user}"),
                ("RABBITMQ_PASSWORD", "{password}"),
                ("RABBITMQ_VHOST", "{database}"),
                // Last, and only with the plugin.
                ("RABBITMQ_MANAGEMENT_URL", "http://{host}:{port.management}"),
            ][..if self.plugins.iter().any(|name| name == "rabbitmq_management") { 8 } else { 7 }],
            KindConfig::Clickhouse => &[
                ("CLICKHOUSE_URL", "{url}"),
                ("CLICKHOUSE_HOST", "{host}"),
                ("CLICKHOUSE_PORT", "{port}"),
                ("CLICKHOUSE_HTTP_PORT", "{port}"),
                ("CLICKHOUSE_NATIVE_PORT", "{port.native}"),
                ("CLICKHOUSE_USER", "{user}"),
                ("CLICKHOUSE_PASSWORD", "{password}"),
                ("CLICKHOUSE_DATABASE", "{database}"),
                ("CLICKHOUSE_DB", "{database}"),
            ],
            KindConfig::S3 | KindConfig::Minio | KindConfig::Versitygw => &[
                ("AWS_ENDPOINT_URL", "{url}"),
                ("AWS_ENDPOINT_URL_S3", "{url}"),
                ("AWS_ACCESS_KEY_ID", "{user}"),
                ("AWS_SECRET_ACCESS_KEY", "{password}"),
                ("AWS_REGION", "us-east-1"),
                ("AWS_DEFAULT_REGION", "us-east-1"),
                ("S3_BUCKET", "{database}"),
            ],
            KindConfig::Custom => &[],
        };
        let shared = [(DATABASE_URL, "{url}")];
        let shared = shared.iter().filter(|_| self.is_mysql() && self.alone_with_database_url);
        let all = defaults.iter().chain(shared);
        all.map(|(name, template)| ((*name).to_owned(), (*template).to_owned())).collect()
    }

    /// Whether it may fill `DATABASE_URL`.
    pub(crate) fn wants_database_url(&self) -> bool {
        match &self.env {
            Some(env) => env.contains_key(DATABASE_URL),
            None => self.service == KindConfig::Postgres || self.is_mysql(),
        }
    }

    fn is_mysql(&self) -> bool {
        matches!(self.service, KindConfig::Mysql | KindConfig::Mariadb)
    }

    /// Migrations, then seed, in the order they are applied.
    pub fn steps(&self) -> Vec<PrepareStep<'_>> {
        let mut steps = Vec::new();
        for config in [&self.migrations, &self.seed].into_iter().flatten() {
            match config {
                StepsConfig::Path(path) => steps.push(PrepareStep::Files(path)),
                StepsConfig::Paths(paths) => steps.extend(paths.iter().map(PrepareStep::Files)),
                StepsConfig::Command(table) => steps.push(PrepareStep::Command(table)),
            }
        }
        steps
    }

    pub(crate) fn check(&self) -> Result<(), (String, String)> {
        use KindConfig::{
            Clickhouse, Custom, Mariadb, Minio, Mysql, Nats, Postgres, Rabbitmq, S3, Versitygw,
        };
        // Keys that only some kinds have.
        let with_user = [Postgres, Mysql, Mariadb, Clickhouse, Rabbitmq, Nats, S3, Minio, Versitygw, Custom];
        let limited: [(&str, bool, &[KindConfig]); 7] = [
            ("bucket", self.bucket.is_some(), &[S3, Minio, Versitygw]),
            ("database", self.database.is_some(), &[Postgres, Mysql, Mariadb, Clickhouse, Rabbitmq, Custom]),
            ("user", self.user.is_some(), &with_user),
            ("plugins", !self.plugins.is_empty(), &[Rabbitmq]),
            ("locale", self.locale.is_some(), &[Postgres]),
            ("encoding", self.encoding.is_some(), &[Postgres]),
            ("extensions", !self.extensions.is_empty(), &[Postgres]),
        ];
        let limited = limited.into_iter().chain(only_custom(self));
        let misplaced =
            limited.into_iter().find(|(_, given, kinds)| *given && !kinds.contains(&self.service));
        if let Some((key, _, kinds)) = misplaced {
            let kinds: Vec<_> = kinds.iter().map(|kind| format!("{kind:?}").to_lowercase()).collect();
            return Err((key.to_owned(), format!("only {} has this", kinds.join(", "))));
        }
        if self.service == Postgres {
            check_identifier("database", self.database())?;
            check_identifier("user", self.user())?;
            if matches!(self.database(), "postgres" | "template0" | "template1") {
                return Err(("database".into(), format!("{:?} is PostgreSQL's own", self.database())));
            }
            if self.password.as_deref() == Some("") {
                return Err(("password".into(), "PostgreSQL has no empty passwords".into()));
            }
        }
        if self.service == Nats {
            check_identifier("user", self.user.as_deref().unwrap_or("app"))?;
            // NATS takes what begins like this for the hash of a password.
            if self.password.as_deref().is_some_and(|it| it.is_empty() || it.starts_with("$2")) {
                return Err(("password".into(), "it has to be there, and not to begin with `$2`".into()));
            }
        }
        if self.is_mysql() {
            self.check_mysql()?;
        }
        if self.service == Clickhouse {
            self.check_clickhouse()?;
        }
        if matches!(self.service, S3 | Minio | Versitygw) {
            self.check_s3()?;
        }
        if self.service == Rabbitmq {
            let password = self.password.as_deref().unwrap_or("random");
            for (key, text) in [("database", self.database()), ("user", self.user()), ("password", password)]
            {
                if text.is_empty() || text.len() > 255 || !text.chars().all(|c| matches!(c, ' '..='~')) {
                    return Err((key.into(), "it has to be 1 to 255 printable characters of ASCII".into()));
                }
            }
        }
        for name in self.extensions.iter().chain(&self.plugins).chain(self.settings.keys()) {
            let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
            if name.is_empty() || !name.chars().all(word) {
                return Err((name.clone(), "not a name: letters, digits, `_`, `-` and `.` only".into()));
            }
        }
        if self.service == Custom {
            self.check_custom()?;
        }
        let ports = self.port_placeholders();
        let names = PLACEHOLDERS.into_iter().chain(ports.iter().map(String::as_str));
        let known: Vec<_> = names.map(|name| (name, "")).collect();
        for (name, text) in self.env.iter().flatten() {
            if name.is_empty() || name.contains(['=', '\0']) {
                return Err(("env".into(), format!("{name:?} cannot be the name of a variable")));
            }
            template::expand(text, &known).map_err(|error| (format!("env.{name}"), error.to_string()))?;
        }
        Ok(())
    }
}

impl ServiceConfig {
    fn check_mysql(&self) -> Result<(), (String, String)> {
        const OWN: [&str; 4] = ["information_schema", "mysql", "performance_schema", "sys"];
        check_identifier("database", self.database())?;
        check_identifier("user", self.user())?;
        if OWN.contains(&self.database().to_ascii_lowercase().as_str()) {
            return Err(("database".into(), format!("{:?} is MySQL's own", self.database())));
        }
        if self.user().chars().count() > MYSQL_USER_LIMIT {
            let what = format!("MySQL has no names of users longer than {MYSQL_USER_LIMIT} characters");
            return Err(("user".into(), what));
        }
        Ok(())
    }

    fn check_s3(&self) -> Result<(), (String, String)> {
        let buckets = self.buckets();
        if buckets.is_empty() {
            return Err(("bucket".into(), "the list is empty".into()));
        }
        if let Some(name) = buckets.iter().find(|name| !is_bucket(name)) {
            let what = format!("{name:?} is no bucket: 3 to {NAME_LIMIT} of a-z, 0-9, `-` and `.`");
            return Err(("bucket".into(), what));
        }
        if buckets.len() > 1 && self.isolation == Some(IsolationConfig::Namespace) {
            return Err(("bucket".into(), "in `namespace` isolation a lease has one bucket".into()));
        }
        // Both limits are MinIO's.
        let is_word = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        if self.user.as_deref().is_some_and(|user| user.len() < 3 || !is_word(user)) {
            let what = "an access key has 3 or more letters, digits, `-`, `_` and `.`";
            return Err(("user".into(), what.into()));
        }
        if self.password.as_deref().is_some_and(|it| it.len() < 8 || it.contains(|c: char| c.is_control())) {
            return Err(("password".into(), "a secret key has 8 or more characters".into()));
        }
        Ok(())
    }

    fn check_clickhouse(&self) -> Result<(), (String, String)> {
        check_identifier("database", self.database())?;
        check_identifier("user", self.user())?;
        if matches!(self.database(), "system" | "INFORMATION_SCHEMA" | "information_schema") {
            return Err(("database".into(), format!("{:?} is ClickHouse's own", self.database())));
        }
        // It becomes the name of an element of XML.
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if !self.user().chars().all(word) || self.user().starts_with(|c: char| c.is_ascii_digit()) {
            return Err(("user".into(), "ClickHouse's users are named with letters, digits and `_`".into()));
        }
        Ok(())
    }
}

/// Whether a text can be the name of a bucket.
fn is_bucket(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (3..=NAME_LIMIT).contains(&name.len())
        && name.starts_with(plain)
        && name.ends_with(plain)
        && name.chars().all(|c| plain(c) || matches!(c, '-' | '.'))
        && !name.contains("..")
}

fn check_identifier(key: &str, name: &str) -> Result<(), (String, String)> {
    if name.is_empty() || name.len() > NAME_LIMIT || name.contains(|c: char| c.is_control()) {
        let what = format!("{name:?} is not a name of 1 to {NAME_LIMIT} bytes without control characters");
        return Err((key.to_owned(), what));
    }
    Ok(())
}

pub(crate) fn check_role_name(role: &str) -> Result<(), String> {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    if role.is_empty() || role.len() > 32 || !role.chars().all(word) {
        return Err(format!("{role:?} is not a role: 1 to 32 of a-z, 0-9, `_` and `-`"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::{Config, PrepareStep};

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("testenv.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn migrations_come_before_seeds_whatever_their_order_in_the_file() {
        let config = parse(
            r#"
            [services.db]
            service = "postgres"
            seed = ["a.sql", "b.sql"]
            migrations = { command = "sqlx migrate run", inputs = ["migrations"] }
            "#,
        )
        .unwrap();
        let steps = config.services["db"].steps();
        assert!(matches!(steps[0], PrepareStep::Command(table) if table.command == "sqlx migrate run"));
        assert!(matches!(steps[2], PrepareStep::Files(path) if path == Path::new("b.sql")));
    }

    #[test]
    fn settings_take_numbers_and_booleans() {
        let config = parse("[services.db]\nservice=\"postgres\"\nsettings = { jit = true, work_mem = 64 }");
        let settings = &config.unwrap().services["db"].settings;
        assert_eq!((settings["jit"].0.as_str(), settings["work_mem"].0.as_str()), ("on", "64"));
    }

    #[test]
    fn what_only_postgres_has_is_refused_elsewhere() {
        let error = parse("[services.cache]\nservice = \"redis\"\ndatabase = \"x\"").unwrap_err();
        assert!(error.contains("services.cache.database: only postgres"), "{error}");
    }

    #[test]
    fn only_one_service_fills_database_url() {
        let fills = |text: &str, role: &str| {
            parse(text).unwrap().services[role].env_templates().contains_key("DATABASE_URL")
        };
        let mysql = "[services.db]\nservice = \"mysql\"\n";
        assert!(fills(mysql, "db"));
        let both = format!("{mysql}[services.pg]\nservice = \"postgres\"\n");
        assert!(!fills(&both, "db"));
        assert!(fills(&both, "pg"));
        assert!(fills(&format!("{both}env = {{ PG_URL = \"{{url}}\" }}"), "db"));
        assert!(!fills(
            &format!("{mysql}[services.x]\nservice = \"redis\"\nenv = {{ DATABASE_URL = \"x\" }}"),
            "db"
        ));
    }

    #[test]
    fn names_that_mysql_cannot_have_are_refused() {
        for (key, value) in
            [("database", "mysql"), ("database", "SYS"), ("user", &*"u".repeat(33)), ("user", "")]
        {
            let error =
                parse(&format!("[services.db]\nservice = \"mariadb\"\n{key} = {value:?}")).unwrap_err();
            assert!(error.contains(&format!("services.db.{key}")), "{error}");
        }
        parse("[services.db]\nservice = \"mysql\"\npassword = \"\"").unwrap();
    }

    #[test]
    fn buckets_have_the_names_that_s3_allows() {
        let config = |bucket: &str| parse(&format!("[services.store]\nservice = \"s3\"\nbucket = {bucket}"));
        assert_eq!(config("\"app\"").unwrap().services["store"].buckets(), ["app"]);
        let several = config("[\"app\", \"up.loads-1\"]").unwrap();
        assert_eq!(several.services["store"].buckets(), ["app", "up.loads-1"]);
        for bad in ["\"ab\"", "\"a_b\"", "\"../x\"", "\"-ab\"", "\"a..b\"", "\"App\"", "[]"] {
            let error = config(bad).unwrap_err();
            assert!(error.contains("services.store.bucket: "), "{error}");
        }
    }

    #[test]
    fn a_bad_template_is_refused_when_the_file_is_read() {
        let error = parse("[services.db]\nservice=\"postgres\"\nenv = { X = \"{uri}\" }").unwrap_err();
        assert!(error.contains("services.db.env.X: unknown placeholder {uri}"), "{error}");
    }

    #[test]
    fn hostile_names_are_refused() {
        for text in [
            "[services.\"../x\"]\nservice = \"postgres\"",
            "[services.db]\nservice = \"postgres\"\ndatabase = \"template1\"",
            "[services.db]\nservice = \"postgres\"\nextensions = [\"a; DROP\"]",
            "[services.db]\nservice = \"postgres\"\nuser = \"\"",
        ] {
            parse(text).unwrap_err();
        }
    }
}
