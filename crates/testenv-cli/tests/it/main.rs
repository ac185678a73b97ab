//! The real programs `testenv` and `testenv-wrap` with a real broker, PostgreSQL, Redis and cargo-nextest.

mod broker;
mod doctor;
mod exec;
mod run;
mod support;
