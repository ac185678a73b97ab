//! A PostgreSQL and a Redis of its own for every test, in milliseconds.

#![forbid(unsafe_code)]

mod builder;
mod error;
mod executor;
mod fixture;
mod handle;
mod lease;
mod needs;
#[cfg(any(test, not(feature = "tokio")))]
mod park;
mod postgres;
mod redis;
mod scope;
mod settings;
mod story;

pub use testenv_api::client::ClientError;
pub use testenv_api::{
    Engine, Isolation, KeepPolicy, Kept, Lease, Problem, ProblemKind, ServiceKind, Timings,
};
pub use testenv_macros::test;

pub use builder::{Builder, acquire};
pub use error::{BoxError, Error, Story};
pub use fixture::{AsyncFixture, Fixture, Shared};
pub use needs::Needs;
pub use postgres::Postgres;
#[cfg(feature = "sqlx")]
pub use postgres::SqlxTransaction;
#[cfg(feature = "tokio-postgres")]
pub use postgres::Transaction;
pub use redis::Redis;

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
