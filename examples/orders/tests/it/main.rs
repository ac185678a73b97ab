//! The integration tests of the order service. Each gets a PostgreSQL with schema and seed, a Redis, or both, of
//! its own; so each may do to them what it likes, at the same time as all others.
//!
//! One binary with modules, so that everything links once.

mod support;

mod binary;
mod cache;
mod concurrency;
mod customers;
mod debugging;
mod events;
mod limits;
mod listing;
mod outages;
mod placing;
mod plain;
mod products;
mod progress;
mod schema;
