//! A small order service: customers, products with stock, orders and payments.
//!
//! PostgreSQL holds the truth and guards it with constraints and triggers; Redis caches products and limits how
//! often a customer may order, and the service goes on without it. It exists to have integration tests worth
//! reading, in `tests/it`.

#![forbid(unsafe_code)]

mod app;
mod cache;
mod config;
mod error;
mod events;
mod limit;

pub mod customers;
pub mod orders;
pub mod products;

pub use app::{App, serve};
pub use cache::Cache;
pub use config::{Config, ConfigError};
pub use error::ApiError;
pub use limit::Limit;
