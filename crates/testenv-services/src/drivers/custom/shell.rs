//! Commands that `testenv.toml` names: run as the broker's own user, in the workspace's root.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::time::Instant;

use crate::process::Spawn;
use crate::service::Spec;
use crate::snapshot::run_tool;
use crate::{Result, io_problem};

/// Runs a command to its end, and gives back what it printed.
pub(super) fn run(spec: &Spec, command: &str, deadline: Instant) -> Result<String> {
    // It ends with the thread that runs it, so that the next broker need not find it.
    let guard = File::open("/dev/null").map_err(|error| io_problem("open /dev/null", &error))?;
    let spawn = Spawn {
        program: "/bin/sh".into(),
        args: vec!["-c".into(), command.into()],
        env: Vec::new(),
        cwd: spec.root.clone(),
        user: None,
        guard: guard.as_fd(),
        pid_namespace: false,
        process_group: true,
    };
    run_tool(&spawn, command, deadline)
}
