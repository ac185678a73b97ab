//! Recording how a node boots, so that others boot in a fraction of the time.
//!
//! A node loads hundreds of modules one by one, and each takes longer the more there are. One node is run for
//! testenv alone, and writes down what it has loaded by the time it is up, as a boot file that loads all of it at
//! once. Where that does not work, nodes boot as they always do.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use testenv_api::{Problem, ProblemKind};

use super::node::{BOOT, DISTRIBUTION, NO_PLUGINS, Node};
use crate::drivers::Command;
use crate::machine::Machine;
use crate::service::{Endpoint, Spec};
use crate::snapshot::run_tool;
use crate::{Result, fork, io_problem};

/// How long a node may take to boot that nobody has booted before.
const TIMEOUT: Duration = Duration::from_secs(120);
/// Evaluated before the node boots, and after.
const BEFORE: &str = include_str!("boot_before.erl");
const AFTER: &str = include_str!("boot_after.erl");
/// Evaluated by a node that only shows that it boots.
const AT_ONCE: &str = "erlang:halt(0).";

/// Makes `data` the directory of a new node: nothing is in it but what helps it to boot.
pub(super) fn record(machine: &Machine, spec: &Spec, data: &Path) -> Result<()> {
    let problem = |error: std::io::Error| io_problem("prepare a directory for RabbitMQ", &error);
    let port = machine.ports.next().unwrap_or_default();
    let endpoint = Endpoint {
        host: "127.0.0.1".into(),
        user: "guest".into(),
        password: "guest".into(),
        database: "/".into(),
        ports: [(DISTRIBUTION.to_owned(), port)].into(),
        ..Endpoint::default()
    };
    fork::make_dir(&data.join(NO_PLUGINS), 0o755, machine.user.as_ref()).map_err(problem)?;
    // Settings are not known yet, and only ever change how a node behaves that is up.
    let mut plain = spec.clone();
    plain.config.settings.clear();
    let node =
        Node { spec: &plain, data, home: data, endpoint: &endpoint, plugins: Vec::new(), shared: false };

    let file = data.join(format!("{BOOT}.boot"));
    let mut recording = node.command(Some(BEFORE), AFTER);
    recording.args.extend(["-testenv_boot".into(), (&file).into()]);
    run(machine, data, recording).map_err(|problem| {
        let engine = &spec.build.engine;
        let title = format!("{} {} does not start", engine.name, engine.version);
        Problem { kind: ProblemKind::StartFailed, title, ..problem }
    })?;
    clear(data).map_err(problem)?;
    if let Err(refused) = run(machine, data, node.command(None, AT_ONCE)) {
        tracing::warn!(problem = %refused, "RabbitMQ starts slowly: it does not from the recorded boot file");
        fs::remove_file(&file).map_err(problem)?;
    }
    clear(data).map_err(problem)
}

fn run(machine: &Machine, data: &Path, command: Command) -> Result<String> {
    let mut spawn = machine.spawn(command.program, command.args, data);
    spawn.env = command.env;
    spawn.process_group = true;
    run_tool(&spawn, "erl", Instant::now() + TIMEOUT)
}

/// Removes all that a node has written, but the boot file.
fn clear(data: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(data)? {
        let path = entry?.path();
        let stays = path.file_name().is_some_and(|name| name == NO_PLUGINS)
            || path.extension().is_some_and(|ending| ending == "boot");
        match fs::metadata(&path)?.is_dir() {
            _ if stays => {}
            true => fs::remove_dir_all(&path)?,
            false => fs::remove_file(&path)?,
        }
    }
    Ok(())
}
