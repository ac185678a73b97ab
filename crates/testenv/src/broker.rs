//! The way to the workspace's broker: find its socket, or start it.

use std::io::{self, BufRead as _, Read};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use testenv_api::discovery::{Workspace, env};
use testenv_api::{Problem, ProblemKind};

use crate::error::{Error, Story};
use crate::http::{HttpError, Response, write_request};

/// How long a broker may take to start.
const START_LIMIT: Duration = Duration::from_secs(15);
/// How long a broker may take to answer a request that needs no waiting.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// What a starting broker may say on its standard output or error, at the most.
const OUTPUT_LIMIT: u64 = 64 * 1024;

/// Where the broker of this process's workspace listens.
#[derive(Clone, Debug)]
pub(crate) struct Broker {
    socket: PathBuf,
    /// The workspace for which a broker may be started; `None` if `TESTENV_BROKER` names the socket.
    workspace: Option<PathBuf>,
}

impl Broker {
    /// Works out the socket from the environment and the current directory.
    pub(crate) fn find() -> Result<Self, Error> {
        // A named broker may serve a workspace that is not even on this machine.
        if let Some(socket) = std::env::var_os(env::BROKER).filter(|it| !it.is_empty()) {
            return Ok(Self { socket: socket.into(), workspace: None });
        }
        let found = std::env::current_dir().and_then(|here| Workspace::find(&here));
        let workspace = found.map_err(|error| {
            Error::NoBroker(
                Story::new("cannot work out which workspace this test belongs to")
                    .detail(error.to_string())
                    .hint(format!("set {} to the directory that holds testenv.toml", env::WORKSPACE)),
            )
        })?;
        Ok(Self { socket: workspace.socket(), workspace: Some(workspace.root().to_path_buf()) })
    }

    /// A connection to the broker, which is started if there is none and it may be.
    ///
    /// Connecting to a unix socket waits only while more than a thousand other connections wait to be
    /// accepted, so it gets no limit of its own.
    pub(crate) fn connect(&self) -> Result<UnixStream, Error> {
        let error = match UnixStream::connect(&self.socket) {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        match (&self.workspace, error.kind()) {
            (Some(workspace), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                let ready = start(workspace)?;
                UnixStream::connect(&self.socket).map_err(|error| self.unreachable(&error, Some(&ready)))
            }
            _ => Err(self.unreachable(&error, None)),
        }
    }

    /// One request and its whole answer, on a connection of its own. Starts no broker.
    pub(crate) fn call(&self, method: &str, path: &str, body: &[u8]) -> Result<Vec<u8>, Error> {
        let mut stream = UnixStream::connect(&self.socket).map_err(|error| self.unreachable(&error, None))?;
        let mut exchange = || {
            stream.set_write_timeout(Some(ANSWER_LIMIT))?;
            write_request(&mut stream, method, path, body)?;
            let mut response = Response::read(Timed::new(stream.try_clone()?, ANSWER_LIMIT))?;
            Ok((response.status, response.body.all()?))
        };
        match exchange() {
            Ok((200..=299, body)) => Ok(body),
            Ok((status, body)) => Err(refusal(status, &body)),
            Err(error) => Err(self.lost(&format!("{method} {path}"), &error, ANSWER_LIMIT)),
        }
    }

    /// The error for an exchange that broke.
    pub(crate) fn lost(&self, doing: &str, error: &HttpError, limit: Duration) -> Error {
        let timed_out = matches!(error, HttpError::Io(error) if error.kind() == io::ErrorKind::TimedOut);
        let title = match timed_out {
            true => format!("the broker has not answered {doing} within {limit:?}"),
            false => format!("the broker's answer to {doing} broke off"),
        };
        Error::Lost(
            Story::new(title)
                .detail(format!("socket: {}\nlast seen: {error}", self.socket.display()))
                .hint("`testenv status` shows what the broker is doing; `testenv down` ends it, the next test starts another"),
        )
    }

    fn unreachable(&self, error: &io::Error, started: Option<&str>) -> Error {
        let mut detail = format!("socket: {}\n{error}", self.socket.display());
        if let Some(line) = started {
            detail.push_str(&format!("\na broker that was just started said: {line}"));
        }
        let hint = match (&self.workspace, error.kind()) {
            (None, _) => format!(
                "{} names this socket; start a broker there, or unset it and one is started by itself",
                env::BROKER
            ),
            (_, io::ErrorKind::PermissionDenied) => {
                format!(
                    "the socket belongs to another user; set {} to a directory of your own",
                    env::RUNTIME_DIR
                )
            }
            (_, io::ErrorKind::InvalidInput) => {
                format!(
                    "a socket's path has 107 bytes at the most; set {} to a short directory",
                    env::RUNTIME_DIR
                )
            }
            _ => "run `testenv broker` in a terminal to see why".to_owned(),
        };
        Error::NoBroker(Story::new("cannot reach the broker").detail(detail).hint(hint))
    }
}

/// What an answer with an error status means.
pub(crate) fn refusal(status: u16, body: &[u8]) -> Error {
    match serde_json::from_slice::<Problem>(body) {
        Ok(problem) => Error::Refused(problem),
        Err(_) => {
            let text: String = String::from_utf8_lossy(body).chars().take(400).collect();
            Error::Lost(
                Story::new(format!("the broker answered {status} without saying why"))
                    .detail(text)
                    .hint("is it a testenv broker that listens there? `testenv status` tells"),
            )
        }
    }
}

/// Whether a broker is leaving, so that the next one should be asked.
pub(crate) fn is_leaving(error: &Error) -> bool {
    matches!(error, Error::Refused(problem) if problem.kind == ProblemKind::ShuttingDown)
}

/// A stream whose reads all end by one point in time.
#[derive(Debug)]
pub(crate) struct Timed {
    stream: UnixStream,
    /// `None` once only what has come already is wanted.
    deadline: Option<Instant>,
}

impl Timed {
    pub(crate) fn new(stream: UnixStream, limit: Duration) -> Self {
        Self { stream, deadline: Some(Instant::now() + limit) }
    }

    /// From now on, reads what has come already and waits for nothing.
    pub(crate) fn stop_waiting(&mut self) -> io::Result<()> {
        self.deadline = None;
        self.stream.set_nonblocking(true)
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let out_of_time = || io::Error::new(io::ErrorKind::TimedOut, "nothing came until the time was up");
        loop {
            if let Some(deadline) = self.deadline {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(out_of_time());
                }
                self.stream.set_read_timeout(Some(left))?;
            }
            match self.stream.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(out_of_time()),
                done => return done,
            }
        }
    }
}

/// Starts the broker of a workspace and waits until it says that it is ready; returns what it said.
///
/// Many tests may do this at the same moment: the broker's lock lets one win, and the others report the
/// winner's socket.
fn start(workspace: &Path) -> Result<String, Error> {
    let program = find_program()?;
    let failed = |title: String, detail: String| {
        Error::NoBroker(Story::new(title).detail(detail).hint(format!(
            "run `{} broker` in {} to see more",
            program.display(),
            workspace.display()
        )))
    };
    let mut child = Command::new(&program)
        .args(["broker", "--detach", "--workspace"])
        .arg(workspace)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(format!("cannot start {}", program.display()), error.to_string()))?;

    let deadline = Instant::now() + START_LIMIT;
    let said = listen(child.stdout.take().expect("standard output is piped"), true);
    let complained = listen(child.stderr.take().expect("standard error is piped"), false);
    let line = said.recv_timeout(START_LIMIT).ok();
    if let Some(line) = line.as_deref().filter(|line| line.starts_with("ready ")) {
        reap(child);
        return Ok(line.trim_end().to_owned());
    }
    let title = match line {
        Some(_) => "the broker did not start".to_owned(),
        None => {
            // It is stuck before it has a session of its own, so it is still ours to end.
            let _ = child.kill();
            format!("the broker was not ready within {START_LIMIT:?}")
        }
    };
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_secs(1));
    let mut detail = complained.recv_timeout(left).unwrap_or_default();
    if let Some(status) = child.try_wait().ok().flatten().filter(|status| !status.success()) {
        detail.push_str(&format!("\n{} broker: {status}", program.display()));
    }
    reap(child);
    Err(failed(title, detail.trim().to_owned()))
}

/// Reads a child's output beside the caller: its first line, or all of it.
fn listen(from: impl Read + Send + 'static, only_a_line: bool) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let mut from = io::BufReader::new(from.take(OUTPUT_LIMIT));
        // Whatever came before an error is what there is to say.
        let _ = match only_a_line {
            true => from.read_until(b'\n', &mut text),
            false => from.read_to_end(&mut text),
        };
        // Nobody listens any more once the time is up.
        let _ = sender.send(String::from_utf8_lossy(&text).into_owned());
    });
    receiver
}

/// Lets the short-lived starter end without waiting for it and without leaving a zombie.
fn reap(mut child: Child) {
    std::thread::spawn(move || child.wait());
}

/// The program `testenv`: the one that is named, else in `PATH`, else where `cargo install` puts it.
fn find_program() -> Result<PathBuf, Error> {
    let named = std::env::var_os(env::BIN).filter(|it| !it.is_empty()).map(PathBuf::from);
    let mut looked = Vec::new();
    match named {
        Some(path) => looked.push(path),
        None => {
            let path = std::env::var_os("PATH").unwrap_or_default();
            looked.extend(std::env::split_paths(&path).map(|dir| dir.join("testenv")));
            looked.extend(std::env::home_dir().map(|home| home.join(".cargo/bin/testenv")));
        }
    }
    if let Some(found) = looked.iter().find(|path| path.is_file()) {
        return Ok(found.clone());
    }
    let places: Vec<_> = looked.iter().map(|path| path.display().to_string()).collect();
    Err(Error::NoBroker(
        Story::new("no broker is running, and the program `testenv` that starts one is not there")
            .detail(format!("looked for:\n{}", places.join("\n")))
            .hint(format!(
                "install it with `cargo install testenv-cli`, or set {} to the path of the program",
                env::BIN
            )),
    ))
}
