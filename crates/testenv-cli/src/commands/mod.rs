//! One module per command. Each answers with the program's exit code.

pub(crate) mod broker;
pub(crate) mod clean;
pub(crate) mod doctor;
pub(crate) mod down;
pub(crate) mod exec;
pub(crate) mod faults;
pub(crate) mod run;
pub(crate) mod status;
