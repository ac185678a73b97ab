//! A workspace with a broker of its own, and the program under test.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use testenv_api::BrokerStatus;

/// How long one call of the program may take, in seconds. The first one of all makes snapshots.
const CALL_LIMIT_SECONDS: &str = "120";

/// A workspace in a directory of its own. Its broker and everything else goes when it is dropped.
pub(crate) struct Place {
    root: PathBuf,
    program: PathBuf,
}

/// What a call of the program came to.
#[derive(Debug)]
pub(crate) struct Called {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Place {
    /// An empty workspace.
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Short, as sockets lie below, and open to the user that servers run as.
        let name = format!("te{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let root = Path::new("/tmp").join(name);
        fs::create_dir_all(root.join("w")).unwrap();
        fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
        Self { root, program: env!("CARGO_BIN_EXE_testenv").into() }
    }

    /// A workspace with this `testenv.toml`.
    pub(crate) fn with_config(text: &str) -> Self {
        let place = Self::new();
        place.write("testenv.toml", text);
        place
    }

    /// A workspace with the suite of `fixtures/suite` in it.
    pub(crate) fn with_suite() -> Self {
        let place = Self::new();
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/suite");
        for file in [
            "Cargo.toml",
            "Cargo.lock",
            ".config/nextest.toml",
            "src/lib.rs",
            "tests/own.rs",
            "tests/ends.rs",
        ] {
            place.write(file, &fs::read_to_string(fixture.join(file)).unwrap());
        }
        place
    }

    /// Where the workspace is.
    pub(crate) fn dir(&self) -> PathBuf {
        self.root.join("w")
    }

    /// Writes a file of the workspace.
    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.dir().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// The program with another executable in its place.
    pub(crate) fn set_program(&mut self, program: PathBuf) {
        self.program = program;
    }

    /// The program with these arguments, to be started.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        self.prepare(Command::new(&self.program), args)
    }

    /// A command in the workspace, with its environment.
    pub(crate) fn prepare<S: AsRef<OsStr>>(&self, mut command: Command, args: &[S]) -> Command {
        command.args(args).current_dir(self.dir()).stdin(Stdio::null());
        // These tests run under nextest themselves, and maybe under testenv.
        for (name, _) in std::env::vars_os() {
            let name_text = name.to_string_lossy();
            if ["NEXTEST", "TESTENV_", "CARGO_TARGET_", "CARGO_BUILD_", "PG", "DATABASE_URL"]
                .iter()
                .any(|it| name_text.starts_with(it))
            {
                command.env_remove(&name);
            }
        }
        let user = rustix::process::geteuid().as_raw();
        command
            .env("TESTENV_RUNTIME_DIR", self.root.join("r"))
            .env("TESTENV_CACHE_DIR", format!("/tmp/testenv-tests-{user}"))
            .env("TESTENV_BIN", &self.program)
            .env("RUST_BACKTRACE", "0");
        command
    }

    /// Calls the program and waits for its end, within a limit.
    pub(crate) fn call<S: AsRef<OsStr>>(&self, args: &[S]) -> Called {
        self.call_with(args, |command| command)
    }

    /// The same, with something changed about the command.
    pub(crate) fn call_with<S: AsRef<OsStr>>(
        &self,
        args: &[S],
        change: impl FnOnce(&mut Command) -> &mut Command,
    ) -> Called {
        let mut timeout = Command::new("timeout");
        timeout.args(["--foreground", CALL_LIMIT_SECONDS]).arg(&self.program);
        let mut command = self.prepare(timeout, args);
        let output = change(&mut command).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Called { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Runs a shell script under `testenv exec --service postgres`.
    pub(crate) fn exec(&self, script: &str) -> Called {
        self.call(&["exec", "--service", "postgres", "--", "sh", "-c", script])
    }

    /// What the broker says about itself.
    pub(crate) fn status(&self) -> BrokerStatus {
        let called = self.call(&["status", "--json"]);
        serde_json::from_str(&called.stdout).unwrap_or_else(|error| panic!("{error}: {called:?}"))
    }

    /// Socket of the workspace's broker, whether it runs or not.
    pub(crate) fn socket(&self) -> PathBuf {
        let dirs = fs::read_dir(self.root.join("r")).unwrap();
        dirs.flatten().map(|dir| dir.path().join("broker.sock")).next().unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let ended = self.call(&["down"]);
        if !thread::panicking() {
            assert_eq!(ended.code, Some(0), "{ended:?}");
        }
        let _ = fs::remove_dir_all(&self.root);
    }
}

impl Called {
    /// Checks the exit code.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.stdout, self.stderr);
        self
    }

    /// Checks that its standard error has all of these.
    #[track_caller]
    pub(crate) fn complains(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(self.stderr.contains(part), "no {part:?} in\n{}", self.stderr);
        }
        self
    }
}

/// Waits until it is true, for ten seconds.
#[track_caller]
pub(crate) fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_true() {
        assert!(Instant::now() < deadline, "not within 10 s: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Sends a signal to a child by its name, such as `TERM`.
pub(crate) fn signal(child: &Child, name: &str) {
    signal_pid(child.id(), name);
}

/// Sends a signal to a process.
pub(crate) fn signal_pid(pid: u32, name: &str) {
    let sent = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status().unwrap();
    assert!(sent.success());
}

/// What a shell command prints.
#[track_caller]
pub(crate) fn sh(script: &str) -> String {
    let output = Command::new("sh").args(["-c", script]).output().unwrap();
    assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
