//! Nothing of its own: the suites are in `tests/`, their functions written by `build.rs`.

#![forbid(unsafe_code)]
