//! One workspace of the torture, its clients, and the checks after each death of its broker.

use std::io::Read as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use testenv_api::{Isolation, LeaseRequest};

use super::Options;
use super::client::{ClientSpec, DISTURBED, LOST, REFUSED};
use super::report::Report;
use crate::processes::{self, ProcessInfo};
use crate::wait::within;
use crate::workspace::TestWorkspace;

/// How long a client may take to come to its end after it was told.
const END_LIMIT: Duration = Duration::from_secs(40);
/// Rows of the table in a prepared database.
const SEEDED_ROWS: i64 = 3;

/// A workspace that is tortured.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) workspace: TestWorkspace,
    clients: Vec<Running>,
    broker_kills: Vec<Instant>,
    number: usize,
    started: usize,
}

#[derive(Debug)]
struct Running {
    child: Child,
    since: Instant,
    name: String,
    killed: bool,
}

impl Site {
    pub(crate) fn new(program: &Path, number: usize, options: &Options) -> Self {
        let mut workspace = TestWorkspace::of_user(program, options.user)
            .config(&format!(
                "[services.database]\nservice = \"postgres\"\nmigrations = \"migrations\"\nseed = \"seed.sql\"\n\
                 [services.cache]\nservice = \"redis\"\n{}",
                options.config
            ))
            .file("migrations/1_items.sql", "CREATE TABLE items (id bigserial PRIMARY KEY, name text NOT NULL);")
            .file("seed.sql", "INSERT INTO items (name) VALUES ('one'), ('two'), ('three');");
        if !options.through.is_empty() {
            let through: Vec<_> = options.through.iter().map(String::as_str).collect();
            workspace = workspace.through(&through);
        }
        Self { workspace, clients: Vec::new(), broker_kills: Vec::new(), number, started: 0 }
    }

    /// Makes the snapshots, by leasing everything once.
    pub(crate) fn prepare(&self) -> Result<(), String> {
        for (role, isolation) in [
            ("database", Isolation::Server),
            ("database", Isolation::Namespace),
            ("cache", Isolation::Server),
        ] {
            let isolation = Some(isolation);
            self.workspace.try_lease(&LeaseRequest {
                role: Some(role.into()),
                isolation,
                ..Default::default()
            })?;
        }
        Ok(())
    }

    /// Clients that run.
    pub(crate) fn client_count(&self) -> usize {
        self.clients.len()
    }

    /// Starts one more client: servers, databases of a shared server and Redis in turn.
    pub(crate) fn start_client(&mut self, options: &Options) {
        let database = |isolation| ("database".to_owned(), isolation);
        let roles = match self.started % 4 {
            0 => vec![database(Isolation::Server)],
            1 => vec![database(Isolation::Namespace)],
            2 => vec![("cache".to_owned(), Isolation::Server), database(Isolation::Namespace)],
            _ => vec![database(Isolation::Server), ("cache".to_owned(), Isolation::Server)],
        };
        let name = format!("client_{}_{}", self.number, self.started);
        let spec = ClientSpec {
            name: name.clone(),
            roles,
            seeded_rows: SEEDED_ROWS,
            limit_ms: 120_000,
            grandchild: false,
        };
        self.started += 1;
        let client = &options.client;
        let mut command = self.workspace.command_of(&client.program, &client.arguments);
        let child = spec.apply(&mut command).spawn().expect("a client can be started");
        self.clients.push(Running { child, since: Instant::now(), name, killed: false });
    }

    /// Kills a client.
    pub(crate) fn kill_client(&mut self, choice: u64, report: &mut Report) {
        if let Some(at) = self.choose(choice) {
            let mut client = self.clients.swap_remove(at);
            client.killed = client.child.kill().is_ok();
            report.client_kills += 1;
            self.settle(client, report);
        }
    }

    /// Lets a client come to its end, which has to be a good one.
    pub(crate) fn finish(&mut self, choice: u64, report: &mut Report) {
        if let Some(at) = self.choose(choice) {
            let client = self.clients.swap_remove(at);
            self.settle(client, report);
        }
    }

    /// Lets all clients come to their end.
    pub(crate) fn finish_all(&mut self, report: &mut Report) {
        for mut client in std::mem::take(&mut self.clients) {
            drop(client.child.stdin.take());
            self.settle(client, report);
        }
    }

    /// Takes note of clients that have ended without being told to.
    pub(crate) fn reap(&mut self, report: &mut Report) {
        let mut at = 0;
        while at < self.clients.len() {
            if matches!(self.clients[at].child.try_wait(), Ok(Some(_))) {
                let client = self.clients.swap_remove(at);
                self.settle(client, report);
            } else {
                at += 1;
            }
        }
    }

    fn choose(&self, choice: u64) -> Option<usize> {
        let count = u64::try_from(self.clients.len()).ok().filter(|count| *count > 0)?;
        usize::try_from(choice % count).ok()
    }

    /// Waits for the end of a client and judges it.
    fn settle(&self, mut client: Running, report: &mut Report) {
        drop(client.child.stdin.take());
        let ended = within(END_LIMIT, || match client.child.try_wait() {
            Ok(Some(status)) => Ok(status),
            _ => Err(format!("{} does not end", client.name)),
        });
        let Ok(status) = ended else {
            let _ = client.child.kill();
            let _ = client.child.wait();
            report.failures.push(format!("{} did not end within {} s", client.name, END_LIMIT.as_secs()));
            return;
        };
        if client.killed && status.signal() == Some(9) {
            return;
        }
        let mut line = String::new();
        if let Some(mut stdout) = client.child.stdout.take() {
            let _ = stdout.read_to_string(&mut line);
        }
        let broker_died = self.broker_kills.iter().any(|killed| *killed >= client.since);
        let line = line.lines().last().unwrap_or_default();
        match status.code().and_then(|code| u8::try_from(code).ok()) {
            Some(0) => report.finished += 1,
            Some(LOST | REFUSED) if broker_died => report.lost_with_broker += 1,
            Some(LOST) => {
                report.failures.push(format!("{} lost its broker, which nobody killed: {line}", client.name))
            }
            Some(REFUSED) => report.failures.push(format!("{} was refused: {line}", client.name)),
            Some(DISTURBED) => report.disturbed.push(format!("{}: {line}", client.name)),
            _ => report.failures.push(format!("{} ended with {status}: {line}", client.name)),
        }
    }

    /// Kills the broker, has the next one start, and checks that nothing of the dead one is left.
    pub(crate) fn kill_broker(&mut self, report: &mut Report) {
        let Ok(pid) = self.workspace.broker_pid() else { return };
        let clients: Vec<_> = self.clients.iter().map(|client| client.child.id()).collect();
        let mut victims = processes::of_place(self.workspace.base());
        let namespace = victims.iter().find(|it| it.pid == pid).map(|it| it.mount_namespace.clone());
        victims.retain(|process| {
            !clients.contains(&process.pid) && is_of_broker(process, pid, namespace.as_deref())
        });
        let Some(victim) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
        let killed = Instant::now();
        self.broker_kills.push(killed);
        let _ = rustix::process::kill_process(victim, Signal::KILL);
        report.broker_kills += 1;
        if let Err(message) = self.next_broker(pid) {
            report.failures.push(format!("no broker after one was killed: {message}"));
            return;
        }
        report.restarts.push(killed.elapsed());
        // The kernel may still be busy with those that have nothing open any more.
        let gone = within(Duration::from_secs(2), || match victims.iter().find(|it| processes::alive(it)) {
            Some(left) => Err(format!("after a kill: process {}: {}", left.pid, left.command)),
            None => Ok(()),
        });
        report.left_behind.extend(gone.err());
    }

    /// Waits for a broker other than `dead`, starting it if no client does.
    fn next_broker(&self, dead: u32) -> Result<(), String> {
        let deadline = Instant::now() + Duration::from_secs(40);
        loop {
            match self.workspace.broker_pid() {
                Ok(pid) if pid != dead => return Ok(()),
                Ok(_) => {}
                Err(error) if error.broker_is_gone() => self.workspace.start()?,
                Err(error) => return Err(error.to_string()),
            }
            if Instant::now() > deadline {
                return Err(format!("the killed broker {dead} still answers"));
            }
        }
    }

    /// Checks a broker that nobody uses any more, then ends it, and looks at what is left.
    pub(crate) fn end(self, report: &mut Report) {
        if let Err(found) = within(Duration::from_secs(15), || self.balance()) {
            report.left_behind.push(format!("in the last broker: {found}"));
        }
        let down = self.workspace.down();
        if down.code != Some(0) {
            report.failures.push(format!("`testenv down` failed: {}", down.said()));
        }
        let left = within(Duration::from_secs(5), || match self.workspace.inventory() {
            inventory if inventory.is_empty() => Ok(()),
            inventory => Err(inventory.to_string()),
        });
        report.left_behind.extend(left.err());
    }

    /// Without leases, a broker has what its warm pools hold and nothing else.
    fn balance(&self) -> Result<(), String> {
        let Ok(pid) = self.workspace.broker_pid() else { return Ok(()) };
        let status = self.workspace.status();
        let pools = &status.pools;
        let leased: usize = pools.iter().map(|pool| pool.leased + pool.starting + pool.waiting).sum();
        if leased > 0 || !status.leases.is_empty() {
            return Err(format!("without clients there are leases: {pools:?}"));
        }
        let warm =
            |isolation| pools.iter().filter(|pool| pool.isolation == isolation).map(|pool| pool.warm).sum();
        let (servers, databases): (usize, usize) = (warm(Isolation::Server), warm(Isolation::Namespace));
        let hosts = pools.iter().filter(|pool| pool.isolation == Isolation::Namespace).count();
        let sockets = std::fs::read_dir(self.workspace.runtime().join("s")).map_or(0, Iterator::count);
        if sockets < servers || sockets > servers + hosts {
            return Err(format!(
                "{sockets} servers have sockets; {servers} are warm, {hosts} host databases"
            ));
        }
        let table = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        let overlays =
            table.lines().filter(|line| line.contains(" - overlay ") && self.is_ours(line)).count();
        if overlays > servers + hosts + databases {
            return Err(format!(
                "{overlays} overlays; {servers} servers, {hosts} hosts, {databases} databases"
            ));
        }
        Ok(())
    }

    fn is_ours(&self, mount: &str) -> bool {
        mount.contains(&*self.workspace.base().to_string_lossy())
    }
}

/// Whether a process is the broker, or one of its servers, rather than a program that a client started.
fn is_of_broker(process: &ProcessInfo, broker: u32, namespace: Option<&str>) -> bool {
    process.pid == broker
        || namespace == Some(process.mount_namespace.as_str()) && !process.command.contains("broker --")
}
