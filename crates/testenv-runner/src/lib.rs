//! Running things with leased dependencies: a command ([`exec`]), one test process ([`wrap`]), a whole suite
//! under cargo-nextest ([`run`]).
//!
//! Everything here is synchronous. Nothing here prints, exits, or reads the environment, except that the
//! programs it runs inherit what they always inherit; the command line does these things.

#![forbid(unsafe_code)]

mod child;
pub mod exec;
pub mod exit_codes;
mod leases;
pub mod run;
pub mod wrap;

pub use child::exit_code_of;
pub use leases::{LeaseError, Leases, WayBack, acquire};
