//! The lease protocol between tests and the broker: its wire types, and where a broker listens.
//!
//! HTTP/1.1 and JSON over a unix socket. `POST /v1/leases` answers with one line of JSON, a [`Lease`],
//! and keeps the response open; closing the connection is the release. Everything here compiles into
//! every test binary, so this crate is small, has no async, and no IO of its own beyond looking up paths; the
//! feature `client` adds a blocking client that uses the standard library only.

#![forbid(unsafe_code)]

#[cfg(feature = "client")]
pub mod client;
pub mod discovery;
mod error;
mod faults;
mod lease;
mod status;

pub use error::{Problem, ProblemKind};
pub use faults::{
    Connections, Direction, Effect, Fault, FaultsRequest, FaultsStatus, ServerAction, ServerRequest,
    ServerState, ServerStatus,
};
pub use lease::{
    Engine, Event, Isolation, KeepPolicy, KeepRequest, Kept, Lease, LeaseRequest, Outcome, OutcomeRequest,
    ServiceKind, Timings,
};
pub use status::{
    BrokerStatus, EndedLease, Health, HeldLease, KeptServer, PoolStatus, RoleInfo, SnapshotStatus,
};

/// Version of the protocol this crate speaks. A broker answers requests of its own version only.
pub const PROTOCOL: u32 = 1;

/// Request header that carries the client's [`PROTOCOL`], and response header that carries the broker's.
pub const PROTOCOL_HEADER: &str = "testenv-protocol";

/// Version of the program this crate was built into, compared by `testenv` to notice an older broker.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
