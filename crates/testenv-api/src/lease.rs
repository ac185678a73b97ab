//! A lease: what a test asks for, what it gets, and what is said about it while it lasts.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A kind of dependency that testenv knows how to prepare, fork and probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum ServiceKind {
    /// PostgreSQL.
    Postgres,
    /// Redis, or Valkey, which speaks the same protocol.
    Redis,
    /// MySQL, or MariaDB, which speaks the same protocol.
    Mysql,
    /// ClickHouse.
    Clickhouse,
    /// A store of objects that speaks the protocol of Amazon S3.
    S3,
    /// Apache Kafka.
    Kafka,
    /// RabbitMQ.
    Rabbitmq,
    /// NATS with JetStream.
    Nats,
    /// Whatever a workspace describes itself.
    Custom,
}

impl ServiceKind {
    /// All kinds.
    pub const ALL: [Self; 9] = [
        Self::Postgres,
        Self::Redis,
        Self::Mysql,
        Self::Clickhouse,
        Self::S3,
        Self::Kafka,
        Self::Rabbitmq,
        Self::Nats,
        Self::Custom,
    ];

    /// The name used in `testenv.toml` and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Redis => "redis",
            Self::Mysql => "mysql",
            Self::Clickhouse => "clickhouse",
            Self::S3 => "s3",
            Self::Kafka => "kafka",
            Self::Rabbitmq => "rabbitmq",
            Self::Nats => "nats",
            Self::Custom => "custom",
        }
    }
}

impl fmt::Display for ServiceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How far a lease is kept apart from every other lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// A server of its own: own roles, settings, extensions, log.
    Server,
    /// A namespace of its own (a database, bucket, virtual host, prefix of topics) in a server shared with other
    /// leases.
    Namespace,
    /// The one migrated database that all `shared` leases of a role use; for tests that roll back what they do.
    Shared,
}

impl Isolation {
    /// The name used in `testenv.toml` and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Namespace => "namespace",
            Self::Shared => "shared",
        }
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// When the data behind a lease outlives it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum KeepPolicy {
    /// Kept when the test says that it failed.
    #[default]
    Failed,
    /// Kept unless the test says that it passed, so after a SIGKILL or a timeout too.
    UnlessPassed,
    /// Always kept.
    Always,
    /// Never kept.
    Never,
}

/// Body of `POST /v1/leases`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct LeaseRequest {
    /// The role in `testenv.toml`, such as `database`. Either this or `service` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// The kind of service, for which exactly one role must be configured, or none (then defaults hold).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceKind>,
    /// Overrides the role's isolation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
    /// Which attempt of which test asks, as the runner names it (`NEXTEST_ATTEMPT_ID`), for the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<String>,
    /// The test's name, for `testenv status` and for messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<String>,
    /// When to keep the data; the broker's configuration decides where this is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<KeepPolicy>,
    /// How long to wait for the lease, in milliseconds; bounded by the broker's own limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
    /// Asks for an already authenticated session to take over beside the lease (see [`Lease::handover`]).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub handover: bool,
    /// Puts a proxy in front of the server, on which faults can be set (`…/faults`). Url, port and environment of
    /// the lease then lead through it. It costs some microseconds a round trip, so it is there only when asked for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub faults: bool,
    /// Seed of everything random in faults: with the same one, the same connection meets the same delays.
    /// 0 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}

/// The engine build behind a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Engine {
    /// Name of the program: `postgres`, `redis`, `valkey`.
    pub name: String,
    /// Full version as the engine says it, such as `15.18`.
    pub version: String,
    /// SHA-256 of the server's executable, in hex.
    pub sha256: String,
}

/// First line of the answer to `POST /v1/leases`: a running, ready, prepared dependency.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Lease {
    /// Unique for the broker's life.
    pub id: String,
    /// Role in `testenv.toml`.
    pub role: String,
    /// Kind of service.
    pub service: ServiceKind,
    /// How far it is kept apart from other leases.
    pub isolation: Isolation,
    /// Where the server runs; `native` here.
    pub runtime: String,
    /// Which build of the engine runs.
    pub engine: Engine,
    /// Key of the snapshot it was forked from.
    pub snapshot: String,
    /// Connection URL over TCP, understood by every client of the service.
    pub url: String,
    /// TCP host, `127.0.0.1`.
    pub host: String,
    /// TCP port: the server's own, or that of the proxy in front of it if the lease has faults.
    pub port: u16,
    /// Further TCP ports, by what they are for; those of the proxy if `port` is.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ports: BTreeMap<String, u16>,
    /// The server's own URL, if `url` leads through a proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direct_url: Option<String>,
    /// The server's own TCP port, if `port` is that of a proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direct_port: Option<u16>,
    /// User to connect as; empty where the service has none.
    pub user: String,
    /// Password; empty where none is needed.
    pub password: String,
    /// What in the server is the lease's: the database of an SQL server, the number of one in Redis, the bucket
    /// of S3, the virtual host of RabbitMQ, the prefix of topics in Kafka; empty where the service has none.
    pub database: String,
    /// Where the server's unix socket is: the directory for PostgreSQL, the file for others; empty where the
    /// service has none. It is the server's own: no fault has an effect on it, and PostgreSQL's clients need the
    /// server's own port beside it.
    pub socket: String,
    /// Environment variables of the role, its templates filled in.
    pub env: BTreeMap<String, String>,
    /// Shell command that connects a client, past any proxy.
    pub connect_command: String,
    /// When the data outlives the lease. With `unless-passed`, the test has to say that it passed.
    #[serde(default)]
    pub keep: KeepPolicy,
    /// Unix socket on which one already authenticated session can be taken over, if it was asked for and is
    /// there. Connect, and receive one message: the server's bytes from `AuthenticationOk` to `ReadyForQuery`
    /// as data, and the session's file descriptor as `SCM_RIGHTS`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handover: Option<String>,
    /// Where the time went.
    pub timings: Timings,
}

impl fmt::Debug for Lease {
    /// Leaves out what logs in: the password, and the URL and environment that hold it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("id", &self.id)
            .field("role", &self.role)
            .field("service", &self.service)
            .field("isolation", &self.isolation)
            .field("host", &self.host)
            .field("port", &self.port)
            .field("database", &self.database)
            .finish_non_exhaustive()
    }
}

/// Where the time of a lease went, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Timings {
    /// From the request's arrival to the lease.
    pub total_us: u64,
    /// Thereof: preparing the snapshot (init, migrate, seed), 0 when it was there.
    pub prepare_us: u64,
    /// Thereof: waiting for a server to be forked and ready, 0 when one was warm.
    pub fork_us: u64,
    /// Whether the lease came out of the warm pool.
    pub warm: bool,
}

/// Every line after the first in the answer to `POST /v1/leases`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The server ended while it was leased.
    ServerExited {
        /// What is known about why, such as `exit status: 1`.
        reason: String,
        /// The last lines of its log.
        log_tail: String,
    },
    /// The broker is going away, and the lease with it.
    BrokerStopping,
}

/// How a test ended, as the test itself says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It passed: the data goes when the lease ends.
    Passed,
    /// It failed: the data is kept, unless the policy is `never`.
    Failed,
}

/// Body of `POST /v1/leases/{id}/outcome`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct OutcomeRequest {
    /// How the test ended.
    pub outcome: Outcome,
}

/// Body of `POST /v1/leases/{id}/keep`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct KeepRequest {
    /// Why, for `testenv status`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Answer to `POST /v1/leases/{id}/outcome` and `…/keep`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Kept {
    /// Whether the server stays when the lease ends.
    pub kept: bool,
    /// For how long, in seconds, counted from the end of the lease.
    pub keep_seconds: u64,
    /// Shell command that connects a client.
    pub connect_command: String,
    /// The last lines of the server's log that belong to this lease.
    pub log_tail: String,
}
