//! Starting the broker of a workspace.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::ClientError;
use crate::discovery::{Workspace, env};

/// How long a broker may take until it accepts connections.
pub const START_LIMIT: Duration = Duration::from_secs(30);

/// How the program is installed, as hints say it.
pub const INSTALL: &str = "`cargo install --path crates/testenv-cli` in a clone of testenv";

/// How much of what the program says on its standard error is shown, in bytes.
const STDERR_LIMIT_BYTES: u64 = 16 << 10;

/// Starts the workspace's broker, in a session of its own, and returns when it accepts connections, which is
/// at once when another one does already.
///
/// The program is `$TESTENV_BIN`, else `testenv` beside this program, in `PATH`, or in `~/.cargo/bin`.
///
/// # Errors
/// [`ClientError::Start`] with what the program said.
pub fn start_broker(workspace: &Workspace) -> Result<(), ClientError> {
    if let Some(named) = std::env::var_os(env::BROKER).filter(|it| !it.is_empty()) {
        return Err(ClientError::Start {
            title: format!("no broker listens on {}", PathBuf::from(named).display()),
            detail: String::new(),
            hint: format!("{} names this socket; unset it to have a broker started", env::BROKER),
        });
    }
    let looked = places();
    let Some(program) = looked.iter().find(|path| path.is_file()) else {
        let looked: BTreeSet<_> = looked.iter().map(|path| path.display().to_string()).collect();
        return Err(ClientError::Start {
            title: "no broker runs, and the program `testenv` that starts one is not there".into(),
            detail: format!("looked for {}", looked.into_iter().collect::<Vec<_>>().join(", ")),
            hint: format!("{INSTALL}, or set {} to the path of testenv", env::BIN),
        });
    };
    let mut child = Command::new(program)
        .args(["broker", "--detach", "--workspace"])
        .arg(workspace.root())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| ClientError::Start {
            title: "no broker runs, and the program that starts one cannot be run".into(),
            detail: format!("{}: {source}", program.display()),
            hint: format!("set {} to the path of another testenv", env::BIN),
        })?;
    // Threads of their own, as a pipe has no read timeout. They end with the pipes.
    let (send, lines) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        thread::spawn(move || {
            BufReader::new(stdout.take(4096))
                .lines()
                .map_while(Result::ok)
                .all(|line| send.send(line).is_ok())
        });
    }
    let (send, errors) = mpsc::channel();
    if let Some(stderr) = child.stderr.take() {
        thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stderr.take(STDERR_LIMIT_BYTES).read_to_end(&mut text);
            let _ = send.send(String::from_utf8_lossy(&text).into_owned());
        });
    }
    let deadline = Instant::now() + START_LIMIT;
    let title = loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) if line.starts_with("ready ") => {
                let _ = child.wait(); // it has detached and leaves by itself after that line
                return Ok(());
            }
            Ok(_) => {}
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let _ = child.kill();
                break format!("the broker was not ready within {} s", START_LIMIT.as_secs());
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break "the broker did not start".to_owned(),
        }
    };
    let _ = child.wait();
    let detail = errors.recv_timeout(Duration::from_secs(1)).unwrap_or_default();
    Err(ClientError::Start {
        title,
        detail: detail.trim_end().to_owned(),
        hint: format!("`{} broker` runs it in the foreground and shows more", program.display()),
    })
}

/// Where the program that starts a broker may be: where it is named, else beside this program (which may be
/// itself, or the wrapper that is installed with it), in `PATH`, and where `cargo install` puts it.
fn places() -> Vec<PathBuf> {
    let given = |name: &str| std::env::var_os(name).filter(|it| !it.is_empty());
    if let Some(named) = given(env::BIN) {
        return vec![PathBuf::from(named)];
    }
    let own = std::env::current_exe().ok().and_then(|program| Some(program.parent()?.to_path_buf()));
    let path = given("PATH").unwrap_or_default();
    let home = given("HOME").map(|home| PathBuf::from(home).join(".cargo/bin"));
    own.into_iter().chain(std::env::split_paths(&path)).chain(home).map(|dir| dir.join("testenv")).collect()
}
