//! `testenv broker`: in the foreground, or in a session of its own.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use testenv_api::discovery::{Workspace, env};
use testenv_broker::{BrokerError, BrokerOptions};
use testenv_runner::exit_codes;

use crate::args::BrokerArgs;
use crate::error::CliError;
use crate::output::say;

/// How long the background process may take until it accepts connections; clients wait a little longer.
const READY_LIMIT: Duration = Duration::from_secs(25);
/// Name of the background process' log in the workspace's runtime directory.
const LOG_FILE: &str = "broker.log";

pub(crate) fn broker(workspace: &Workspace, args: &BrokerArgs) -> Result<i32, CliError> {
    if args.detach {
        return detach(workspace);
    }
    if args.session {
        // A session of its own: no terminal's Ctrl-C, no job control, reaches it.
        let _ = rustix::process::setsid();
    }
    tracing_subscriber::fmt()
        .with_env_filter(log_filter())
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let options = BrokerOptions {
        workspace: workspace.clone(),
        cache_dir: cache_dir(),
        path: std::env::var("PATH").unwrap_or_default(),
        environment: environment(),
    };
    let on_ready = |socket: &Path| {
        say_ready(socket);
        if args.session {
            leave_the_starter(&workspace.runtime_dir());
        }
    };
    match testenv_broker::run(&options, on_ready) {
        Ok(()) => Ok(exit_codes::OK),
        Err(BrokerError::AlreadyRunning { socket }) if args.session => {
            say_ready(&socket);
            Ok(exit_codes::OK)
        }
        Err(error) => {
            let hint = match &error {
                BrokerError::AlreadyRunning { .. } => {
                    "\n  hint: `testenv status` shows it, `testenv down` ends it"
                }
                BrokerError::Failed(_) => "",
            };
            Err(CliError::new(exit_codes::NO_BROKER, format!("{error}{hint}")))
        }
    }
}

/// The variables that may declare external servers: all but those that say where leases are, which a broker gets
/// that is started from inside a test.
pub(super) fn environment() -> BTreeMap<String, String> {
    let leased = std::env::var(env::LEASED).unwrap_or_default();
    let leased: Vec<_> = leased.split(',').collect();
    let text =
        |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    std::env::vars_os().filter_map(text).filter(|(name, _)| !leased.contains(&name.as_str())).collect()
}

/// Tells whoever waits; that nobody may be left to read it does not matter.
fn say_ready(socket: &Path) {
    say(format_args!("ready {}\n", socket.display()));
}

/// From here on nobody reads what this process says: its log takes the place of the starter's pipes, which
/// the starter waits to see closed.
fn leave_the_starter(runtime_dir: &Path) {
    let log = File::create(runtime_dir.join(LOG_FILE)).or_else(|_| File::create("/dev/null"));
    if let Ok(log) = log {
        let _ = rustix::stdio::dup2_stdout(&log);
        let _ = rustix::stdio::dup2_stderr(&log);
    }
}

/// Starts this program again as a background process, and waits until it accepts connections.
fn detach(workspace: &Workspace) -> Result<i32, CliError> {
    let failed = |what: &str| CliError::new(exit_codes::NO_BROKER, what);
    let program = std::env::current_exe()
        .map_err(|error| failed(&format!("failed to find this program\n  | {error}")))?;
    let mut child = Command::new(program)
        .args(["broker", "--session", "--workspace"])
        .arg(workspace.root())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(&format!("failed to start the broker\n  | {error}")))?;
    let (Some(stdout), Some(mut stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(failed("failed to watch the broker start"));
    };
    let (send, ready) = mpsc::channel();
    thread::spawn(move || {
        let mut line = String::new();
        let _ = BufReader::new(stdout).read_line(&mut line);
        let _ = send.send(line);
    });
    match ready.recv_timeout(READY_LIMIT) {
        Ok(line) if line.starts_with("ready ") => {
            say(line);
            Ok(exit_codes::OK)
        }
        Ok(_) => {
            // It has closed its output without a word, so it ends, and has said why.
            let mut said = String::new();
            let _ = stderr.read_to_string(&mut said);
            let _ = child.wait();
            let said = said.trim().strip_prefix("error: ").unwrap_or(said.trim()).to_owned();
            Err(failed(if said.is_empty() { "the broker ended at once, without a word" } else { &said }))
        }
        Err(_) => {
            let _ = child.kill();
            let _ = child.wait();
            let limit = READY_LIMIT.as_secs();
            Err(failed(&format!("the broker did not accept connections within {limit} s, and was ended")))
        }
    }
}

fn log_filter() -> tracing_subscriber::EnvFilter {
    let given = std::env::var(env::LOG).ok().filter(|it| !it.is_empty());
    tracing_subscriber::EnvFilter::new(given.as_deref().unwrap_or("info"))
}

/// Where snapshots go if the configuration does not say.
pub(crate) fn cache_dir() -> PathBuf {
    let given = |name: &str| std::env::var_os(name).filter(|it| !it.is_empty()).map(PathBuf::from);
    if let Some(dir) = given(env::CACHE_DIR) {
        return dir;
    }
    if rustix::process::geteuid().is_root() {
        // Root's servers run as an unprivileged user, who cannot reach root's home.
        return PathBuf::from("/var/cache/testenv");
    }
    match (given("XDG_CACHE_HOME"), given("HOME")) {
        (Some(cache), _) => cache.join("testenv"),
        (None, Some(home)) => home.join(".cache/testenv"),
        (None, None) => std::env::temp_dir().join("testenv-cache"),
    }
}
