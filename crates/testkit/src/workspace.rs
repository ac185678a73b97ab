//! A workspace of its own, served by the real program.
#![expect(clippy::print_stderr, reason = "a test that fails shows its broker's log")]

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use testenv_api::client::{Client, ClientError, Held};
use testenv_api::discovery::{Workspace, env};
use testenv_api::{BrokerStatus, Health, LeaseRequest};

use crate::inventory::{Inventory, Places};
use crate::machine::Loop;
use crate::program::{Ran, run};
use crate::user::User;
use crate::wait::within;
use crate::{cache, processes};

/// How long any invocation of the program may take, unless a test says otherwise.
const LIMIT: Duration = Duration::from_secs(60);

/// A directory with a `testenv.toml`, and runtime and cache directories that no other workspace uses, though
/// the cache is shared with other tests of the same user. Its broker is ended when this is dropped.
#[derive(Debug)]
pub struct TestWorkspace {
    /// Before the directory they are in: fields are dropped in this order.
    mounts: Vec<Loop>,
    base: tempfile::TempDir,
    program: PathBuf,
    user: User,
    cache: PathBuf,
    through: Vec<OsString>,
    /// Whether that command becomes the workspace's user itself.
    becomes_user: bool,
    env: Vec<(OsString, OsString)>,
    places: Places,
}

impl TestWorkspace {
    /// An empty workspace for the test's own user; `program` is the `testenv` to use.
    pub fn new(program: impl AsRef<Path>) -> Self {
        Self::of_user(program, User::Own)
    }

    /// An empty workspace for another user.
    ///
    /// # Panics
    /// When its directories cannot be made.
    pub fn of_user(program: impl AsRef<Path>, user: User) -> Self {
        // Paths of sockets have a limit of 107 bytes, and servers of root's broker pass through as another user.
        let base = tempfile::Builder::new().prefix("te-").tempdir_in("/tmp").expect("a directory in /tmp");
        fs::set_permissions(base.path(), fs::Permissions::from_mode(0o711)).expect("its mode can be set");
        user.own(base.path()).expect("it can be given away");
        for name in ["w", "r"] {
            let dir = base.path().join(name);
            fs::create_dir(&dir).expect("a directory");
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o711)).expect("its mode can be set");
            user.own(&dir).expect("it can be given away");
        }
        let program = reachable(program.as_ref(), base.path(), user);
        let cache = cache::shared(user);
        let named = Workspace::at(&base.path().join("w")).expect("it was just made").runtime_dir();
        let places = Places {
            base: base.path().to_path_buf(),
            runtime: base.path().join("r").join(named.file_name().unwrap_or_default()),
            cache: cache.clone(),
            segments_before: Places::segments_now(),
        };
        Self {
            mounts: Vec::new(),
            base,
            program,
            user,
            cache,
            through: Vec::new(),
            becomes_user: false,
            env: Vec::new(),
            places,
        }
    }

    /// Writes `testenv.toml`.
    #[must_use]
    pub fn config(self, text: &str) -> Self {
        self.write("testenv.toml", text);
        self
    }

    /// Writes a file, in directories that are made.
    #[must_use]
    pub fn file(self, path: &str, content: &str) -> Self {
        self.write(path, content);
        self
    }

    /// Uses another cache directory, instead of the one that tests share.
    #[must_use]
    pub fn cache(mut self, dir: impl Into<PathBuf>) -> Self {
        self.cache = dir.into();
        self.places.cache.clone_from(&self.cache);
        self
    }

    /// Uses a new cache directory that is nobody else's.
    #[must_use]
    pub fn own_cache(self) -> Self {
        let dir = self.base.path().join("c");
        self.cache(dir)
    }

    /// Keeps what a test has mounted below [`TestWorkspace::base`], until the broker has ended.
    #[must_use]
    pub fn with_mount(mut self, mount: Loop) -> Self {
        self.mounts.push(mount);
        self
    }

    /// Runs the program through another one, such as `setpriv … --`.
    #[must_use]
    pub fn through(mut self, command: &[&str]) -> Self {
        self.through = command.iter().map(OsString::from).collect();
        self
    }

    /// The same with a command that needs the test's own rights, and becomes the workspace's user itself.
    #[must_use]
    pub fn through_to_user(mut self, command: &[&str]) -> Self {
        self.becomes_user = true;
        self.through(command)
    }

    /// Sets an environment variable of the program.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.into(), value.as_ref().into()));
        self
    }

    /// Writes or replaces a file.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, path: &str, content: &str) {
        let root = self.root();
        let file = root.join(path);
        let dir = file.parent().expect("a file is in a directory");
        fs::create_dir_all(dir).expect("directories can be made");
        fs::write(&file, content).expect("a file can be written");
        for made in file.ancestors().take_while(|made| *made != root) {
            self.user.own(made).expect("it can be given away");
        }
    }

    /// Root of the workspace.
    pub fn root(&self) -> PathBuf {
        self.base.path().join("w")
    }

    /// A directory for whatever else a test needs; gone with the workspace.
    pub fn base(&self) -> &Path {
        self.base.path()
    }

    /// The workspace's runtime directory, which the broker makes.
    pub fn runtime(&self) -> &Path {
        &self.places.runtime
    }

    /// Where traces of its broker would be.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// The broker's socket.
    pub fn socket(&self) -> PathBuf {
        self.places.runtime.join("broker.sock")
    }

    /// The broker's client.
    pub fn client(&self) -> Client {
        Client::at(self.socket())
    }

    /// The environment in which the program serves this workspace.
    pub fn environment(&self) -> Vec<(OsString, OsString)> {
        let own = [
            (env::WORKSPACE, self.root().into_os_string()),
            (env::RUNTIME_DIR, self.base.path().join("r").into_os_string()),
            (env::CACHE_DIR, self.cache.clone().into_os_string()),
            (env::BIN, self.program.clone().into_os_string()),
        ];
        own.into_iter().map(|(name, value)| (name.into(), value)).chain(self.env.iter().cloned()).collect()
    }

    /// Has a command run in this workspace: its user, directory and environment.
    fn apply(&self, command: &mut Command) {
        for inherited in [env::BROKER, env::WORKSPACE, env::KEEP, env::WAIT_MS, env::LOG] {
            command.env_remove(inherited);
        }
        command.envs(self.environment()).current_dir(self.root());
        if !self.becomes_user {
            self.user.apply(command);
        }
    }

    /// The program with these arguments.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.command_of(&self.program, arguments)
    }

    /// Another program, run in this workspace as `testenv` is: by the same user, through the same command.
    pub fn command_of(&self, program: &Path, arguments: &[impl AsRef<OsStr>]) -> Command {
        let mut words = self.through.iter().map(OsString::as_os_str).chain([program.as_os_str()]);
        let mut command = Command::new(words.next().expect("the program is always there"));
        command.args(words).args(arguments);
        self.apply(&mut command);
        command
    }

    /// Runs the program to its end.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Ran {
        run(&mut self.command(arguments), LIMIT)
    }

    /// Starts the broker, if none runs.
    ///
    /// # Errors
    /// What the program says.
    pub fn start(&self) -> Result<(), String> {
        let ran = self.run(&["broker", "--detach"]);
        if ran.code == Some(0) { Ok(()) } else { Err(ran.stderr) }
    }

    /// Leases, starting the broker if none runs.
    ///
    /// # Errors
    /// What the broker says, or the program that starts it.
    pub fn try_lease(&self, request: &LeaseRequest) -> Result<Held, String> {
        for _ in 0..4 {
            match self.client().lease(request) {
                Ok(held) => return Ok(held),
                Err(error) if error.broker_is_gone() => self.start()?,
                Err(error) => return Err(error.to_string()),
            }
        }
        Err("the broker went away again and again".into())
    }

    /// Leases a role.
    ///
    /// # Panics
    /// With the message, when there is no lease.
    #[track_caller]
    pub fn lease(&self, role: &str) -> Held {
        self.lease_as(&LeaseRequest { role: Some(role.into()), ..LeaseRequest::default() })
    }

    /// Leases.
    ///
    /// # Panics
    /// With the message, when there is no lease.
    #[track_caller]
    pub fn lease_as(&self, request: &LeaseRequest) -> Held {
        match self.try_lease(request) {
            Ok(held) => held,
            Err(message) => panic!("{message}\n{}", self.broker_log()),
        }
    }

    /// The message with which a lease of `role` is refused.
    ///
    /// # Panics
    /// When it is not refused.
    #[track_caller]
    pub fn refusal(&self, role: &str) -> String {
        match self.try_lease(&LeaseRequest { role: Some(role.into()), ..LeaseRequest::default() }) {
            Ok(held) => panic!("got a lease: {:?}", held.lease()),
            Err(message) => message,
        }
    }

    /// What the broker says about itself.
    ///
    /// # Panics
    /// When it does not answer.
    #[track_caller]
    pub fn status(&self) -> BrokerStatus {
        self.client().get("/v1/status").unwrap_or_else(|error| panic!("{error}\n{}", self.broker_log()))
    }

    /// Process id of the broker.
    ///
    /// # Errors
    /// Why it does not answer.
    pub fn broker_pid(&self) -> Result<u32, ClientError> {
        self.client().get::<Health>("/v1/health").map(|health| health.pid)
    }

    /// The end of the broker's log.
    pub fn broker_log(&self) -> String {
        let log = fs::read_to_string(self.places.runtime.join("broker.log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        format!("broker.log:\n{}", lines[lines.len().saturating_sub(40)..].join("\n"))
    }

    /// Ends the broker.
    #[track_caller]
    pub fn down(&self) -> Ran {
        self.run(&["down"])
    }

    /// What is on the machine of this workspace.
    pub fn inventory(&self) -> Inventory {
        Inventory::take(&self.places)
    }

    /// Checks that nothing is left on the machine, now or very soon.
    ///
    /// # Panics
    /// With what is left.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        let left = within(Duration::from_secs(5), || {
            let inventory = self.inventory();
            if inventory.is_empty() { Ok(()) } else { Err(inventory.to_string()) }
        });
        if let Err(left) = left {
            panic!("left behind:\n{left}\n{}", self.broker_log());
        }
    }

    /// Ends the broker and checks that nothing of it is left.
    #[track_caller]
    pub fn end(self) {
        let _ = self.down().expect_success();
        self.assert_nothing_left();
    }
}

impl Drop for TestWorkspace {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.broker_log());
        }
        let mut down = self.command(&["down"]);
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            run(&mut down, Duration::from_secs(30))
        }));
        if ended.is_err() || std::thread::panicking() {
            // What a defect leaves must not stay on the machine of whoever runs the tests.
            for left in processes::of_place(self.base.path()) {
                if let Some(pid) = i32::try_from(left.pid).ok().and_then(rustix::process::Pid::from_raw) {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
        }
    }
}

/// The program, or a copy of it that `user` can get to.
fn reachable(program: &Path, base: &Path, user: User) -> PathBuf {
    if user == User::Own || is_open(program) {
        return program.to_path_buf();
    }
    let copy = base.join("testenv");
    fs::copy(program, &copy).expect("the program can be copied");
    copy
}

fn is_open(program: &Path) -> bool {
    program
        .ancestors()
        .all(|path| fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o001 != 0))
}
