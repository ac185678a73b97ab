//! Faults: on the way between a test and its server, and of the server itself.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A fault on the connections of one lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Name by which it is taken away again, 1 to 64 of `a-z`, `A-Z`, `0-9`, `_`, `-` and `.`. A fault of the same
    /// name is replaced. When absent, the broker gives it one, such as `latency-1`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Which way it concerns.
    #[serde(default)]
    pub direction: Direction,
    /// Which connections it concerns.
    #[serde(default)]
    pub connections: Connections,
    /// What happens there.
    pub effect: Effect,
}

/// One way of a connection, or both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the test to the server.
    Up,
    /// From the server to the test.
    Down,
    /// Both ways.
    #[default]
    Both,
}

impl Direction {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Both => "both",
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which connections a fault concerns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Connections {
    /// Those that are open, and those that come.
    #[default]
    All,
    /// Those that are open when the fault is added.
    Open,
    /// Those that are opened after the fault was added.
    New,
}

impl Connections {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Open => "open",
            Self::New => "new",
        }
    }
}

impl fmt::Display for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a fault does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Effect {
    /// Bytes come later, in their order. What is on its way does not hold up what follows it.
    Latency {
        /// So much later.
        latency_ms: u64,
        /// And up to so much later still, at random.
        #[serde(default)]
        jitter_ms: u64,
    },
    /// What the loss of packets looks like over TCP: nothing is missing, but a piece that was lost comes a
    /// retransmission later, and all that follows waits behind it.
    Loss {
        /// How likely a piece is lost, and each of its retransmissions again, in percent, 1 to 100.
        percent: u8,
        /// How long it takes until the first retransmission; each further one takes twice as long as the one
        /// before.
        #[serde(default = "default_retransmit_ms")]
        retransmit_ms: u64,
    },
    /// No more than so many bytes a second.
    Bandwidth {
        /// Bytes a second, at least 1.
        bytes_per_second: u64,
    },
    /// Bytes wait until the fault is taken away, and come then.
    Stall,
    /// Bytes are swallowed, and the connection stays. One that has lost bytes is reset when the fault is taken
    /// away, because nothing that comes after a gap makes sense.
    Cut,
    /// The connection is reset (RST).
    Reset,
    /// The end of a connection is passed on later.
    SlowClose {
        /// So much later.
        delay_ms: u64,
    },
    /// The connection is closed after so many bytes, counted for each connection and direction from when the
    /// fault is added.
    LimitBytes {
        /// Bytes that still pass.
        bytes: u64,
    },
    /// New connections are refused, as if no server listened. Direction and connections mean nothing here.
    Refuse,
}

const fn default_retransmit_ms() -> u64 {
    Effect::RETRANSMIT_MS
}

impl Effect {
    /// How long Linux waits at least before it sends something lost again, in milliseconds.
    pub const RETRANSMIT_MS: u64 = 200;

    /// The name on the wire.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Latency { .. } => "latency",
            Self::Loss { .. } => "loss",
            Self::Bandwidth { .. } => "bandwidth",
            Self::Stall => "stall",
            Self::Cut => "cut",
            Self::Reset => "reset",
            Self::SlowClose { .. } => "slow-close",
            Self::LimitBytes { .. } => "limit-bytes",
            Self::Refuse => "refuse",
        }
    }
}

impl From<Effect> for Fault {
    /// Both ways, on all connections, with a name that the broker gives.
    fn from(effect: Effect) -> Self {
        Self { name: String::new(), direction: Direction::Both, connections: Connections::All, effect }
    }
}

/// Body of `POST /v1/leases/{id}/faults`. The answer is the list of what was added, with their names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct FaultsRequest {
    /// Faults to add: all of them, or none if one is refused.
    pub add: Vec<Fault>,
}

/// Answer to `GET /v1/leases/{id}/faults`, and to the removal of faults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FaultsStatus {
    /// Seed of everything random in them.
    pub seed: u64,
    /// Connections that are open through the proxy.
    pub open_connections: usize,
    /// Connections there have been since the lease began.
    pub accepted_connections: u64,
    /// The faults, oldest first.
    pub faults: Vec<Fault>,
}

/// Body of `POST /v1/leases/{id}/server`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ServerRequest {
    /// What is done to the server.
    pub action: ServerAction,
}

/// What can be done to a lease's server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum ServerAction {
    /// All of its processes are stopped where they are (SIGSTOP). Its connections stay, and new ones are taken by
    /// the kernel; nobody answers.
    Pause,
    /// They go on (SIGCONT).
    Resume,
    /// They are killed (SIGKILL).
    Kill,
    /// It is killed, if it still runs, and started again on its data, at the same place.
    Restart,
}

/// Answer to `POST /v1/leases/{id}/server`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServerStatus {
    /// What has become of the server.
    pub state: ServerState,
}

/// How a lease's server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum ServerState {
    /// It runs.
    Running,
    /// It is paused.
    Paused,
    /// It has ended.
    Ended,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_needs_no_more_than_its_effect() {
        let text = r#"{"add":[{"effect":{"kind":"latency","latency_ms":20}}]}"#;
        let request: FaultsRequest = serde_json::from_str(text).unwrap();
        assert_eq!(request.add, [Fault::from(Effect::Latency { latency_ms: 20, jitter_ms: 0 })]);
    }

    #[test]
    fn what_is_said_is_understood_again() {
        let effects = [
            Effect::Latency { latency_ms: 1, jitter_ms: 2 },
            Effect::Loss { percent: 5, retransmit_ms: Effect::RETRANSMIT_MS },
            Effect::Bandwidth { bytes_per_second: 1 << 20 },
            Effect::Stall,
            Effect::Cut,
            Effect::Reset,
            Effect::SlowClose { delay_ms: 3 },
            Effect::LimitBytes { bytes: 0 },
            Effect::Refuse,
        ];
        for effect in effects {
            let fault = Fault {
                name: "x".into(),
                direction: Direction::Up,
                connections: Connections::New,
                effect: effect.clone(),
            };
            let value = serde_json::to_value(&fault).unwrap();
            assert_eq!(value["effect"]["kind"], effect.kind());
            assert_eq!(value["direction"], fault.direction.as_str());
            assert_eq!(value["connections"], fault.connections.as_str());
            assert_eq!(serde_json::from_value::<Fault>(value).unwrap(), fault);
        }
    }

    #[test]
    fn a_misspelt_parameter_is_no_fault_without_it() {
        let text = r#"{"effect":{"kind":"latency","latency_ms":20,"jiter_ms":5}}"#;
        assert!(serde_json::from_str::<Fault>(text).unwrap_err().to_string().contains("jiter_ms"));
    }
}
