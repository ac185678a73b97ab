//! Before the first request: one broker per workspace, its directory, its socket.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use testenv_api::{Problem, ProblemKind};
use testenv_config::Config;
use testenv_services::machine::{Guard, Machine};
use testenv_services::sandbox::Sandbox;

use crate::{BrokerError, BrokerOptions};

/// Longest path of a unix socket, in bytes.
const SOCKET_PATH_LIMIT: usize = 107;
/// Longest path below the runtime directory: a server's socket.
const LONGEST_BELOW: &str = "/s/9999999/.s.PGSQL.65535.lock";
/// How long a broker that holds the lock may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long one that listens may take to answer before it is taken to hang.
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);

/// A broker that is about to serve.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) options: BrokerOptions,
    pub(crate) machine: Machine,
    pub(crate) listener: UnixListener,
    pub(crate) socket: PathBuf,
    /// Held for the broker's life: one broker per workspace.
    pub(crate) _lock: File,
}

/// Takes the workspace's lock, looks at the machine, and binds the socket.
pub(crate) fn start(options: &BrokerOptions) -> Result<Started, BrokerError> {
    let dir = options.workspace.runtime_dir();
    let socket = dir.join("broker.sock");
    if dir.as_os_str().len() + LONGEST_BELOW.len() > SOCKET_PATH_LIMIT {
        return Err(Problem::new(
            ProblemKind::Resources,
            "the runtime directory's path is too long for sockets",
        )
        .detail(format!("{} has {} bytes", dir.display(), dir.as_os_str().len()))
        .hint("set TESTENV_RUNTIME_DIR to a short path, such as /tmp/te")
        .into());
    }
    create_runtime_dir(&dir)?;
    let lock = take_lock(&dir, &socket)?;
    let config_file = options.workspace.config_file();
    // A configuration that cannot be used is told to whoever asks for a lease, with its place in the file.
    let config = Config::load(&config_file).unwrap_or_else(|error| {
        tracing::warn!(%error, "starting with the default configuration");
        Config::default()
    });
    raise_open_files();
    let guard = Guard::take(&dir)?;
    let sandbox = Sandbox::enter();
    let cache = config.cache.dir.as_ref().map(|dir| options.workspace.root().join(dir));
    let machine =
        Machine::open(&dir, cache.as_deref().unwrap_or(&options.cache_dir), &config, guard, sandbox)?;
    machine.store.evict(config.cache.max_size.as_bytes());
    let listener =
        bind(&socket).map_err(|error| failed(&format!("listen on {}", socket.display()), &error))?;
    Ok(Started { options: options.clone(), machine, listener, socket, _lock: lock })
}

pub(crate) fn failed(doing: &str, error: &io::Error) -> Problem {
    Problem::new(ProblemKind::Resources, format!("failed to {doing}")).detail(error.to_string())
}

/// Creates the directory, closed to other users, and refuses one that somebody else could have prepared.
fn create_runtime_dir(dir: &Path) -> Result<(), Problem> {
    let uid = rustix::process::geteuid();
    // Root's servers run as another user, who has to pass through to their sockets' directories.
    let mode = if uid.is_root() { 0o711 } else { 0o700 };
    let root = dir.parent().unwrap_or(dir);
    for path in [root, dir] {
        let created = fs::DirBuilder::new().recursive(path == root).mode(mode).create(path);
        match created {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                let hint = "set TESTENV_RUNTIME_DIR to a short path of your own, such as /tmp/te";
                return Err(failed(&format!("create {}", path.display()), &error).hint(hint));
            }
            _ => {}
        }
        let meta = fs::symlink_metadata(path)
            .map_err(|error| failed(&format!("look at {}", path.display()), &error))?;
        if !meta.is_dir() || meta.uid() != uid.as_raw() || meta.mode() & 0o022 != 0 {
            let detail = format!(
                "owner {}, mode {:o}; testenv runs as user {}",
                meta.uid(),
                meta.mode() & 0o7777,
                uid.as_raw()
            );
            return Err(Problem::new(ProblemKind::Resources, format!("{} is not safe to use", path.display()))
                .detail(detail)
                .hint("it has to be a directory of yours that nobody else can write to; remove it, or set TESTENV_RUNTIME_DIR"));
        }
    }
    Ok(())
}

/// Takes the lock, or waits until the broker that holds it answers.
fn take_lock(dir: &Path, socket: &Path) -> Result<File, BrokerError> {
    let path = dir.join("lock");
    let problem = |error: io::Error| failed(&format!("lock {}", path.display()), &error);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(problem)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) => {}
            Err(error) => return Err(problem(error.into()).into()),
        }
        // Whoever holds the lock is starting, serving or going; in the last case the lock comes free.
        if is_served(socket) {
            return Err(BrokerError::AlreadyRunning { socket: socket.to_path_buf() });
        }
        if Instant::now() > deadline {
            return Err(Problem::new(
                ProblemKind::TimedOut,
                "another broker holds the lock but does not answer",
            )
            .detail(format!("waited {} s for {}", PATIENCE.as_secs(), socket.display()))
            .hint("end it: `testenv down`, or kill the `testenv broker` process of this workspace")
            .into());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether a broker is there for whoever connects. One that was killed can be connected to for a moment longer,
/// until the kernel has closed everything that it had; one that hangs is there, and clients are told so.
fn is_served(socket: &Path) -> bool {
    let asked = UnixStream::connect(socket).and_then(|mut stream| {
        stream.set_read_timeout(Some(ANSWER_PATIENCE))?;
        stream.write_all(b"GET /v1/health HTTP/1.1\r\nhost: testenv\r\nconnection: close\r\n\r\n")?;
        stream.read(&mut [0; 16])
    });
    match asked {
        Ok(length) => length > 0,
        Err(error) => matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
    }
}

/// Binds the socket in place of one that a dead broker left, never open to others in between.
fn bind(socket: &Path) -> io::Result<UnixListener> {
    let unready = socket.with_extension("new");
    for stale in [&unready, socket] {
        match fs::remove_file(stale) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    let listener = UnixListener::bind(&unready)?;
    fs::set_permissions(&unready, fs::Permissions::from_mode(0o600))?;
    // The standard library listens with a backlog of 128; many test processes arrive at once.
    rustix::net::listen(&listener, 4096)?;
    fs::rename(&unready, socket)?;
    Ok(listener)
}

/// A broker with hundreds of servers needs thousands of files open.
fn raise_open_files() {
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, limit);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("broker.sock");
        drop(UnixListener::bind(&socket).unwrap());
        UnixStream::connect(&socket).unwrap_err();
        let _listener = bind(&socket).unwrap();
        UnixStream::connect(&socket).unwrap();
        assert_eq!(fs::metadata(&socket).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_broker_that_is_dying_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("broker.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let Ok(held) = take_lock(dir.path(), &socket) else { panic!("nobody has the lock yet") };
        let dying = std::thread::spawn(move || {
            drop(listener.accept());
            drop((listener, held));
        });
        assert!(take_lock(dir.path(), &socket).is_ok());
        dying.join().unwrap();
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("open");
        fs::create_dir(&root).unwrap();
        fs::set_permissions(&root, fs::Permissions::from_mode(0o777)).unwrap();
        let problem = create_runtime_dir(&root.join("ws")).unwrap_err();
        assert!(problem.title.contains("is not safe to use"), "{problem}");
    }
}
