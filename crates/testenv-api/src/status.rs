//! What a broker says about itself.

use serde::{Deserialize, Serialize};

use crate::{Engine, Isolation, Outcome, ServiceKind, Timings};

/// Answer to `GET /v1/health`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Health {
    /// Version of the broker's program.
    pub version: String,
    /// Version of the protocol it speaks.
    pub protocol: u32,
    /// Process id.
    pub pid: u32,
    /// Directory that holds `testenv.toml`.
    pub workspace: String,
    /// Leases held now.
    pub leases: usize,
}

/// A role of `testenv.toml`, an item of `GET /v1/services`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RoleInfo {
    /// The role's name.
    pub role: String,
    /// Kind of service.
    pub service: ServiceKind,
    /// Isolation that leases of the role have unless they ask for another.
    pub isolation: Isolation,
    /// Names of the environment variables that the role fills, without their values.
    pub env: Vec<String>,
}

/// Answer to `GET /v1/status`, what `testenv status` shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BrokerStatus {
    /// Version, process, workspace.
    pub health: Health,
    /// Since when it runs, in seconds.
    pub uptime_seconds: u64,
    /// How servers get their copy of a snapshot: `overlay`, `reflink` or `copy`, and why.
    pub fork_strategy: String,
    /// Where servers' data lives: `tmpfs` or a directory.
    pub fork_storage: String,
    /// Memory of all servers together, in bytes (proportional set size).
    pub server_memory_bytes: u64,
    /// Bytes that forked data takes.
    pub fork_bytes: u64,
    /// Warm and leased servers by role and isolation.
    pub pools: Vec<PoolStatus>,
    /// Leases held now.
    pub leases: Vec<HeldLease>,
    /// Servers kept for debugging.
    pub kept: Vec<KeptServer>,
    /// Snapshots in the cache.
    pub snapshots: Vec<SnapshotStatus>,
}

/// One pool: everything forked from one snapshot in one isolation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PoolStatus {
    /// Role that it serves.
    pub role: String,
    /// Kind of service.
    pub service: ServiceKind,
    /// Isolation.
    pub isolation: Isolation,
    /// Engine build.
    pub engine: Engine,
    /// Snapshot forked from.
    pub snapshot: String,
    /// Ready and waiting.
    pub warm: usize,
    /// Being started.
    pub starting: usize,
    /// Leased.
    pub leased: usize,
    /// Requests that wait.
    pub waiting: usize,
    /// What was in the way of the last start that somebody waited for; empty when nothing was.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub waits_for: String,
    /// How many the pool tries to keep warm now.
    pub target: usize,
}

/// A lease held now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HeldLease {
    /// Lease id.
    pub id: String,
    /// Role.
    pub role: String,
    /// Test that holds it, if it said so.
    pub test: Option<String>,
    /// Process that holds it, if it is on this machine.
    pub pid: Option<u32>,
    /// Held for this long, in milliseconds.
    pub held_ms: u64,
    /// Isolation.
    pub isolation: Isolation,
}

/// A lease that has ended, an item of `GET /v1/leases/ended`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EndedLease {
    /// Lease id.
    pub id: String,
    /// Role.
    pub role: String,
    /// Attempt that held it, if it said so.
    pub attempt: Option<String>,
    /// Where the time of getting it went.
    pub timings: Timings,
    /// How long it was held, in microseconds.
    pub held_us: u64,
    /// How the test said it ended.
    pub outcome: Option<Outcome>,
    /// Connect command of the kept server, if it was kept.
    pub kept: Option<String>,
}

/// A server kept for debugging.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KeptServer {
    /// Lease id it was kept from.
    pub id: String,
    /// Role.
    pub role: String,
    /// Test that held it, if it said so.
    pub test: Option<String>,
    /// Goes away in this many seconds.
    pub expires_seconds: u64,
    /// Shell command that connects a client.
    pub connect_command: String,
}

/// A snapshot in the cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SnapshotStatus {
    /// Key: hash of everything that made it.
    pub key: String,
    /// Engine and what it holds, for people.
    pub description: String,
    /// Size on disk.
    pub bytes: u64,
    /// Last used, in seconds since the Unix epoch.
    pub used_unix_seconds: u64,
}
