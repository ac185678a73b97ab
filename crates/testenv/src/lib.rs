//! A PostgreSQL and a Redis of its own for every test, in milliseconds.
//!
//! ```no_run,test_harness
//! use testenv::{Postgres, Redis};
//!
//! #[testenv::test]
//! fn orders_are_stored_and_cached(db: Postgres, cache: Redis) {
//!     // Each is a real server that nobody else uses, migrated and seeded.
//!     let database_url = db.url(); // postgres://postgres:…@127.0.0.1:20001/app
//!     let redis_url = cache.url(); // redis://:…@127.0.0.1:20002/0
//! }
//! ```
//!
//! What the services are made of stands in `testenv.toml` beside the workspace's `Cargo.toml`; without that
//! file they are empty.
//!
//! ```toml
//! [services.database]
//! service = "postgres"
//! migrations = "migrations"
//!
//! [services.cache]
//! service = "redis"
//! ```
//!
//! # How it works
//!
//! A test asks a *broker* for its dependencies and gets a *lease* on each. The broker starts by itself on
//! first use (the program `testenv`, `cargo install --path crates/testenv-cli`) and leaves when it has
//! been idle. It prepares each dependency once, freezes the data, and forks a server from it for every
//! lease, ahead of demand. A lease lasts as long as the connection over which it was asked for, so it ends
//! when the test does, whether that passes, panics, or is killed. Nothing is left to a destructor.
//!
//! This works alike under `cargo test`, where tests are threads, and `cargo nextest`, where they are
//! processes.
//!
//! # Tests
//!
//! [`macro@test`] makes a test of a function whose arguments are [`Fixture`]s: the handles [`Postgres`],
//! [`Redis`], [`Mysql`], [`ClickHouse`] and so on, and whatever you make of them. All leases of a test are asked
//! for at once. Async tests may also have [`AsyncFixture`]s, such as `Transaction`.
//!
//! Without the macro, [`postgres`], [`redis`], [`Postgres::builder`] and [`acquire`] do the same:
//!
//! ```no_run,test_harness
//! #[test]
//! fn orders_are_stored() -> Result<(), testenv::Error> {
//!     let db = testenv::postgres()?;
//!     assert!(db.port() > 0);
//!     Ok(())
//! }
//! ```
//!
//! # When a test fails
//!
//! When the test panics or returns an error, it prints the end of each server's log and the command that
//! connects to the server, which is kept for a while as the test left it:
//!
//! ```text
//! testenv: `database` (postgres 15.14, a server of its own)
//!   the end of its log:
//!   | ERROR:  new row for relation "orders" violates check constraint "orders_total_check"
//!   | STATEMENT:  INSERT INTO orders (total) VALUES (-1)
//!   kept as the test left it, for 60 min:
//!     psql -h /run/testenv/3f0c2a91b7/s/41 -p 20001 -U postgres -d app
//!   `testenv down` ends it sooner
//! ```
//!
//! The handle of a plain function does so when it is dropped by a panic; the macro sees errors too.
//!
//! # Features
//!
//! None is on by default, and without them the crate brings fewer than fifteen crates and no async runtime.
//!
//! - `tokio` runs async tests on a tokio runtime; without it, on a small executor of this crate.
//! - `tokio-postgres` adds `Postgres::connect` and `Transaction`. The first connection takes over a session
//!   that is authenticated already.
//! - `sqlx` adds `Postgres::pool` and `SqlxTransaction`.
//! - `redis` adds `Redis::connect` and `Redis::connection`.
//!
//! # Environment
//!
//! `TESTENV_KEEP` says when data is kept, `TESTENV_WAIT_MS` how long to wait for a lease, `TESTENV_SEED` what is
//! random in faults. `TESTENV_BROKER`,
//! `TESTENV_WORKSPACE`, `TESTENV_RUNTIME_DIR` and `TESTENV_BIN` lead to the broker; see
//! [`testenv_api::discovery::env`]. `NEXTEST_ATTEMPT_ID` and `NEXTEST_TEST_NAME` name the test. Nothing else
//! is read.

#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod builder;
mod clickhouse;
mod error;
mod executor;
mod faults;
mod fixture;
mod handle;
mod kafka;
mod lease;
mod mysql;
mod nats;
mod needs;
#[cfg(any(test, not(feature = "tokio")))]
mod park;
mod postgres;
mod rabbitmq;
mod redis;
mod s3;
mod scope;
mod settings;
mod story;

pub use testenv_api::client::ClientError;
pub use testenv_api::{
    Connections, Direction, Effect, Engine, Fault, FaultsStatus, Isolation, KeepPolicy, Kept, Lease, Problem,
    ProblemKind, ServiceKind, Timings,
};

pub use builder::{Builder, acquire};
pub use clickhouse::ClickHouse;
pub use error::{BoxError, Error, Story};
pub use faults::{FaultGuard, Faults};
pub use fixture::{AsyncFixture, Context, Fixture, Shared};
pub use kafka::Kafka;
pub use mysql::Mysql;
pub use nats::Nats;
pub use needs::Needs;
pub use postgres::Postgres;
#[cfg(feature = "sqlx")]
pub use postgres::SqlxTransaction;
#[cfg(feature = "tokio-postgres")]
pub use postgres::Transaction;
pub use rabbitmq::RabbitMq;
pub use redis::Redis;
pub use s3::S3;

/// Makes a test of a function whose arguments are fixtures.
///
/// The function may be async or not, have any number of arguments, and return whatever a test may return.
/// Other attributes work as they do on `#[test]`: `#[ignore]`, `#[should_panic]`, `#[cfg(…)]`.
///
/// ```no_run,test_harness
/// use testenv::{Postgres, Redis};
///
/// #[testenv::test]
/// fn a_sync_test(db: Postgres) {
///     assert!(db.url().starts_with("postgres://"));
/// }
///
/// #[testenv::test]
/// async fn an_async_test(db: Postgres, cache: Redis) -> Result<(), testenv::Error> {
///     let _ = (db.url(), cache.url());
///     Ok(())
/// }
/// ```
///
/// # Options of an argument
///
/// `#[testenv(role = "…")]` names the role in `testenv.toml`, which is needed where several roles are of the
/// same kind of service. `#[testenv(isolation = "…")]` overrides the isolation for this argument.
/// `#[testenv(faults)]` puts a proxy in front of the server, on which the test can set [`Faults`].
///
/// ```no_run,test_harness
/// # use testenv::Redis;
/// #[testenv::test]
/// fn two_of_a_kind(#[testenv(role = "cache")] cache: Redis, #[testenv(role = "queue")] queue: Redis) {}
/// ```
///
/// # Options of the test
///
/// - `isolation = "server"`, `"namespace"` or `"shared"`: see [`Isolation`]. Else the role's own holds.
/// - `flavor = "multi_thread"` and `worker_threads = 2`: the tokio runtime of an async test, which is
///   single-threaded otherwise. With the feature `tokio`.
/// - `block_on = "smol::block_on"`: the function that runs an async test, for any other executor.
///
/// ```no_run,test_harness
/// # use testenv::Postgres;
/// # mod smol { pub fn block_on<F: Future>(_: F) -> F::Output { unimplemented!() } }
/// #[testenv::test(isolation = "namespace", block_on = "smol::block_on")]
/// async fn on_another_executor(db: Postgres) {}
/// ```
///
/// # What is refused
///
/// Type parameters, since nobody could fill them in; arguments that are no fixtures:
///
/// ```compile_fail,test_harness
/// #[testenv::test]
/// fn a_string_is_no_fixture(db: String) {}
/// ```
pub use testenv_macros::{Context, test};

/// A PostgreSQL of the caller's own, for code that wants no macro. The lease ends when the handle is dropped.
///
/// # Errors
/// Those of [`Builder::acquire`].
pub fn postgres() -> Result<Postgres, Error> {
    Postgres::builder().acquire()
}

/// A Redis of the caller's own, for code that wants no macro. The lease ends when the handle is dropped.
///
/// # Errors
/// Those of [`Builder::acquire`].
pub fn redis() -> Result<Redis, Error> {
    Redis::builder().acquire()
}

/// A NATS of the caller's own, for code that wants no macro. The lease ends when the handle is dropped.
///
/// # Errors
/// Those of [`Builder::acquire`].
pub fn nats() -> Result<Nats, Error> {
    Nats::builder().acquire()
}

/// A MySQL or MariaDB of the caller's own, for code that wants no macro. The lease ends when the handle is dropped.
///
/// # Errors
/// Those of [`Builder::acquire`].
pub fn mysql() -> Result<Mysql, Error> {
    Mysql::builder().acquire()
}

/// A Kafka of the caller's own, for code that wants no macro. The lease ends when the handle is dropped.
///
/// # Errors
/// Those of [`Builder::acquire`].
pub fn kafka() -> Result<Kafka, Error> {
    Kafka::builder().acquire()
}

/// A RabbitMQ of the caller's own, for code that wants no macro. The lease ends when the handle is dropped.
///
/// # Errors
/// Those of [`Builder::acquire`].
pub fn rabbitmq() -> Result<RabbitMq, Error> {
    RabbitMq::builder().acquire()
}

/// A ClickHouse of the caller's own, for code that wants no macro. The lease ends when the handle is dropped.
///
/// # Errors
/// Those of [`Builder::acquire`].
pub fn clickhouse() -> Result<ClickHouse, Error> {
    ClickHouse::builder().acquire()
}

/// A store of objects of the caller's own, for code that wants no macro. The lease ends when the handle is dropped.
///
/// # Errors
/// Those of [`Builder::acquire`].
pub fn s3() -> Result<S3, Error> {
    S3::builder().acquire()
}

/// What the macro's code calls. No part of the interface.
#[doc(hidden)]
pub mod __private {
    pub use crate::builder::{Acquire, FromHeld, Handle, Service};
    pub use crate::executor::block_on;
    #[cfg(feature = "tokio")]
    pub use crate::executor::block_on_multi_thread;
    pub use crate::needs::{Ask, Asked, Wish};
    pub use crate::scope::{Pending, Scope};
}
