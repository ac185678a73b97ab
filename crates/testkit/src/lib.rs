//! For testenv's own tests: workspaces that the real program serves, and what is left of them afterwards.
//!
//! Everything here uses the program as its users do: as a process, through its socket, with real servers.
//! Nothing here is a mock, and nothing waits without a bound. Only tests depend on this crate.

#![forbid(unsafe_code)]

mod amqp;
mod cache;
mod clickhouse;
mod company;
mod inventory;
mod kafka;
mod machine;
mod mysql;
mod nats;
mod processes;
mod program;
mod s3;
mod session;
mod sql;
pub mod subject;
pub mod torture;
mod user;
mod wait;
mod workspace;

pub use amqp::Amqp;
pub use clickhouse::Clickhouse;
pub use company::{COMPANY, http};
pub use inventory::{Inventory, Places};
pub use kafka::Kafka;
pub use machine::{Loop, go_dir, have, kafka_dir, postgres_dir};
pub use mysql::Mysql;
pub use nats::Nats;
pub use processes::{ProcessInfo, alive, of_place as processes_of};
pub use program::{Ran, run};
pub use s3::S3;
pub use session::take_session;
pub use sql::{Sql, redis};
pub use user::{User, is_root, needs_root, skip};
pub use wait::{until, within};
pub use workspace::TestWorkspace;
