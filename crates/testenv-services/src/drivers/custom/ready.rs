//! Whether a server is ready, as `testenv.toml` says it is known.

use std::thread;
use std::time::{Duration, Instant};

use testenv_config::{Ready, ReadyConfig};

use super::shell;
use super::values::Values;
use crate::drivers::http::Http;
use crate::service::{Endpoint, Spec};
use crate::stream::Timed;

/// How long one question may take.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait after a command said no: it costs more than a question over a socket.
const COMMAND_PAUSE: Duration = Duration::from_millis(50);
/// Lines shown of what a command printed.
const LINES: usize = 3;

/// Whether a line of the log says that the server is ready.
pub(super) fn says(spec: &Spec, line: &str) -> bool {
    let ready = spec.config.ready.clone().unwrap_or_default();
    matches!(ready.way(), Ok(Ready::Log(text)) if line.contains(text))
}

/// Asks the server. `None` where its log is the one to go by.
pub(super) fn ask(spec: &Spec, endpoint: &Endpoint) -> Option<Result<(), String>> {
    let ready = spec.config.ready.clone().unwrap_or_default();
    let port = port(&ready, endpoint);
    let deadline = Instant::now() + QUESTION_TIMEOUT;
    Some(match ready.way().unwrap_or(Ready::Tcp) {
        Ready::Log(_) => return None,
        Ready::Tcp => {
            let connected = Timed::connect_tcp(&endpoint.host, port, deadline);
            connected.map(drop).map_err(|error| format!("port {port}: {error}"))
        }
        Ready::Http(path, status) => {
            get(&endpoint.host, port, path, status, deadline).map_err(|said| format!("GET {path}: {said}"))
        }
        Ready::Command(command) => {
            let command = Values::of_commands(spec, endpoint).fill_command(command);
            shell::run(spec, &command, deadline).map(drop).map_err(|problem| {
                thread::sleep(COMMAND_PAUSE);
                let said: Vec<_> = problem.detail.lines().take(LINES).collect();
                format!("{}: {}", problem.title, said.join("; "))
            })
        }
    })
}

/// The port that is asked.
pub(super) fn port(ready: &ReadyConfig, endpoint: &Endpoint) -> u16 {
    let named = ready.port.as_ref().and_then(|name| endpoint.ports.get(name));
    named.copied().unwrap_or(endpoint.port)
}

fn get(host: &str, port: u16, path: &str, wanted: Option<u16>, deadline: Instant) -> Result<(), String> {
    let answer = Http::connect(host, port, deadline).and_then(|mut http| http.request("GET", path, None));
    let answer = answer.map_err(|error| error.to_string())?;
    match wanted {
        Some(wanted) if answer.status == wanted => Ok(()),
        None if answer.is_success() => Ok(()),
        _ => Err(format!("status {} {}", answer.status, answer.text(200)).trim_end().to_owned()),
    }
}
