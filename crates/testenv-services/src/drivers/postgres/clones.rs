//! Databases of a shared PostgreSQL server, cloned from a template without copying it.
//!
//! `CREATE DATABASE … STRATEGY wal_log` copies the relations that the template's `pg_class` lists. The template
//! it is given here is a *stub*: a database whose directory was reduced, while the server was stopped, to what
//! the server insists on and an empty `pg_class`. It copies nothing and takes a fraction of a millisecond of
//! work. Then an overlay of the frozen, prepared database's directory is mounted at the new database's place,
//! before anybody can connect to it. Where the machine allows no overlay, or the server is older than 15,
//! databases are cloned by PostgreSQL itself.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Instant;

use testenv_api::{Problem, ProblemKind};

use super::wire::{Connection, WireError};
use super::{STATEMENT_TIMEOUT, admin, execute, quote_name, quote_text};
use crate::drivers::Finish;
use crate::fork::{self, Strategy};
use crate::machine::Machine;
use crate::namespace::Clones;
use crate::server::{Server, Session};
use crate::service::{Endpoint, Spec};
use crate::snapshot::{Snapshot, Template};
use crate::{Result, io_problem};

/// Name of the stub.
const STUB: &str = "testenv_stub";
/// Object ids given to clones start here: far above what a prepared database has used, far below where they wrap.
const FIRST_OID: u32 = 1_000_000_000;
/// How many closed databases may wait to be dropped. Whoever closes one more waits until there is room, and may:
/// a server so far behind gains nothing from more databases, and every drop has a time limit.
const MAX_CLOSED: usize = 256;

type Rows = Vec<Vec<Option<String>>>;

/// Databases of one server, cloned from the prepared one.
#[derive(Debug)]
pub(super) struct Databases {
    server: Endpoint,
    /// The server's data directory.
    data: PathBuf,
    snapshot: Arc<Snapshot>,
    machine: Arc<Machine>,
    /// Databases are created one at a time.
    creating: Mutex<Admin>,
    /// Files of the databases that there are, by the names they were created with.
    overlays: Mutex<HashMap<String, Overlay>>,
    /// Sessions that close databases, as many as were needed at once.
    closing: Mutex<Vec<Admin>>,
    /// Names of databases without sessions and files, to be dropped.
    closed: mpsc::SyncSender<String>,
    last_oid: AtomicU32,
}

#[derive(Debug)]
struct Admin {
    endpoint: Endpoint,
    /// `None` before its first statement, and after it broke: tests are superusers, and some end every session
    /// but their own.
    connection: Option<Connection>,
}

impl Admin {
    fn new(endpoint: &Endpoint) -> Self {
        Self { endpoint: endpoint.clone(), connection: None }
    }

    /// Runs a statement, in a new session if the old one is gone.
    fn execute(&mut self, sql: &str, doing: &str) -> Result<Rows> {
        let had_one = self.connection.is_some();
        let mut done = self.try_to(sql)?;
        if had_one && done.as_ref().is_err_and(WireError::session_is_gone) {
            done = self.try_to(sql)?;
        }
        done.map_err(|error| super::statement_problem(&format!("failed to {doing}"), &error))
    }

    fn try_to(&mut self, sql: &str) -> Result<Result<Rows, WireError>> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => admin(&self.endpoint, "postgres")?,
        };
        let done = connection.run(sql, Instant::now() + STATEMENT_TIMEOUT);
        // After anything but an answer to this very statement, what comes next could be the answer to it.
        if done.as_ref().err().is_none_or(|error| !error.session_is_gone()) {
            self.connection = Some(connection);
        }
        Ok(done)
    }
}

/// The files of a database.
#[derive(Debug)]
struct Overlay {
    oid: u32,
    /// Its directory in the server's data, over which they are mounted.
    target: PathBuf,
    /// What was changed of them.
    changes: PathBuf,
}

impl Databases {
    /// # Errors
    /// When the server does not answer.
    pub(super) fn new(machine: &Arc<Machine>, snapshot: &Arc<Snapshot>, server: &Server) -> Result<Self> {
        let mut creating = Admin::new(&server.endpoint);
        creating.connection = Some(admin(&server.endpoint, "postgres")?);
        let (closed, to_drop) = mpsc::sync_channel(MAX_CLOSED);
        let (dropping, exited) = (Admin::new(&server.endpoint), server.exited());
        std::thread::Builder::new()
            .name("dropper".into())
            .spawn(move || drop_all(&to_drop, dropping, &exited))
            .map_err(|error| io_problem("start a thread", &error))?;
        Ok(Self {
            server: server.endpoint.clone(),
            data: server.data(),
            snapshot: Arc::clone(snapshot),
            machine: Arc::clone(machine),
            creating: Mutex::new(creating),
            overlays: Mutex::default(),
            closing: Mutex::default(),
            closed,
            last_oid: AtomicU32::new(FIRST_OID),
        })
    }

    /// Mounts the prepared database's files at the place of database `oid`.
    fn mount(&self, template: Template, oid: u32, in_user_namespace: bool) -> std::io::Result<Overlay> {
        let frozen = self.snapshot.data().join("base").join(template.database_oid.to_string());
        let target = self.data.join("base").join(oid.to_string());
        let changes = self.data.with_file_name(format!("db-{oid}"));
        let owner = self.machine.user.as_ref();
        fork::make_dir(&changes, 0o711, None)?;
        let mounted = fork::overlay(&frozen, &changes, &target, owner, in_user_namespace);
        if mounted.is_err() {
            let _ = fs::remove_dir_all(&changes);
        }
        mounted.map(|()| Overlay { oid, target, changes })
    }

    /// `ALTER DATABASE … SET` of the template holds for its clones too, which `CREATE DATABASE` does not see to.
    fn copy_settings(admin: &mut Admin, template: &str, name: &str) -> Result<()> {
        let (template, clone) = (quote_text(template), quote_text(name));
        let sql = format!(
            "INSERT INTO pg_catalog.pg_db_role_setting SELECT clone.oid, setrole, setconfig \
             FROM pg_catalog.pg_db_role_setting JOIN pg_catalog.pg_database template ON template.oid = setdatabase, \
             pg_catalog.pg_database clone WHERE template.datname = {template} AND clone.datname = {clone}"
        );
        admin.execute(&sql, "copy the database's settings").map(drop)
    }
}

impl Clones for Databases {
    fn create(&self, name: &str) -> Result<Endpoint> {
        let owner = quote_name(&self.server.user);
        let mut admin = self.creating.lock().expect("no panic while locked");
        let quoted = quote_name(name);
        match (self.machine.forks.strategy(), self.snapshot.template()) {
            (Strategy::Overlay { in_user_namespace }, Some(template)) => {
                let oid = self.last_oid.fetch_add(1, Ordering::Relaxed) + 1;
                let sql = format!(
                    "CREATE DATABASE {quoted} TEMPLATE {STUB} OWNER {owner} STRATEGY wal_log OID = {oid}"
                );
                admin.execute(&sql, "create a database")?;
                let mounted = self.mount(template, oid, in_user_namespace);
                let overlay = mounted.map_err(|error| {
                    let _ = admin.execute(&format!("DROP DATABASE {quoted}"), "drop a database");
                    io_problem("mount a database's files", &error)
                })?;
                self.overlays.lock().expect("no panic while locked").insert(name.to_owned(), overlay);
            }
            _ => {
                let template = quote_name(&self.server.database);
                let sql = format!("CREATE DATABASE {quoted} TEMPLATE {template} OWNER {owner}");
                admin.execute(&sql, "create a database")?;
            }
        }
        if self.snapshot.template().is_none_or(|template| template.has_settings) {
            Self::copy_settings(&mut admin, &self.server.database, name)?;
        }
        Ok(Endpoint { database: name.to_owned(), ..self.server.clone() })
    }

    /// Ends the sessions of a database, removes its files, and leaves the rest to [`drop_all`].
    fn remove(&self, name: &str) -> Result<()> {
        let mut name = name.to_owned();
        let overlay = self.overlays.lock().expect("no panic while locked").remove(&name);
        if let Some(overlay) = overlay {
            let spare = self.closing.lock().expect("no panic while locked").pop();
            let mut admin = spare.unwrap_or_else(|| Admin::new(&self.server));
            let found = overlay.close(&mut admin);
            self.closing.lock().expect("no panic while locked").push(admin);
            // A test that dropped its database has perhaps created it anew.
            name = found?.unwrap_or(name);
        }
        // Nobody is there to receive it once the server has ended.
        let _ = self.closed.send(name);
        Ok(())
    }

    fn open_session(&self, database: &Endpoint) -> Result<Option<Session>> {
        Connection::open(database, &database.user, &database.database, STATEMENT_TIMEOUT)
            .map(Connection::into_session)
            .map_err(|error| super::statement_problem("the new database does not answer", &error))
    }
}

impl Overlay {
    /// Ends the sessions of the database and removes its files. Its name, unless a test has dropped it.
    fn close(&self, admin: &mut Admin) -> Result<Option<String>> {
        let Self { oid, target, changes } = self;
        let mut run = |sql: &str| admin.execute(sql, "close a database");
        // A test can have renamed it.
        let found = run(&format!("SELECT datname FROM pg_database WHERE oid = {oid}"))?;
        let name = found.into_iter().flatten().flatten().next();
        if let Some(name) = &name {
            let quoted = quote_name(name);
            run(&format!("ALTER DATABASE {quoted} WITH ALLOW_CONNECTIONS false IS_TEMPLATE false"))?;
            run(&format!(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datid = {oid}"
            ))?;
            // Nothing of this database may be left to write when its files go: a session of another database
            // that has to make room in the buffers would fail for it.
            run("CHECKPOINT")?;
        }
        fork::unmount(target).map_err(|error| io_problem("unmount a database's files", &error))?;
        let _ = fs::remove_dir_all(changes);
        if name.is_none() {
            // PostgreSQL could not remove the directory while something was mounted over it.
            fs::remove_dir_all(target)
                .map_err(|error| io_problem("remove a database's directory", &error))?;
        }
        Ok(name)
    }
}

/// Drops closed databases, one after the other, until there is no host any more to close one.
///
/// This is a thread's work, since it may take long and must keep nobody waiting: PostgreSQL drops a database once
/// every session of the server has heard of it, and one that compresses a gigabyte listens only every other second.
fn drop_all(to_drop: &mpsc::Receiver<String>, mut admin: Admin, exited: &AtomicBool) {
    for name in to_drop {
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quote_name(&name));
        let dropped = admin.execute(&sql, "drop a database");
        if exited.load(Ordering::Acquire) {
            return;
        }
        if let Err(problem) = dropped {
            tracing::warn!(%problem, database = name, "a database could not be dropped");
        }
    }
}

/// A stub, as it is before it is reduced.
#[derive(Debug)]
struct Stub {
    oid: u32,
    /// Name of the file that holds its `pg_class`.
    pg_class: String,
}

/// Creates the stub in a server that is being prepared; `None` where clones are made another way.
pub(super) fn create_stub(spec: &Spec, server: &Server) -> Result<Option<(Template, Finish)>> {
    if spec.build.major() < 15 {
        return Ok(None);
    }
    let endpoint = &server.endpoint;
    let mut admin = admin(endpoint, "postgres")?;
    let name = quote_name(&endpoint.database);
    execute(&mut admin, &format!("CREATE DATABASE {STUB} TEMPLATE {name}"), "create the stub")?;
    execute(
        &mut admin,
        &format!("ALTER DATABASE {STUB} WITH IS_TEMPLATE true ALLOW_CONNECTIONS false"),
        "close the stub",
    )?;
    let names = format!("{}, {}", quote_text(&endpoint.database), quote_text(STUB));
    let sql = format!(
        "SELECT oid, EXISTS (SELECT FROM pg_db_role_setting WHERE setdatabase = oid) \
         FROM pg_database WHERE datname IN ({names}) ORDER BY datname = {}",
        quote_text(STUB)
    );
    let rows = admin
        .run(&sql, Instant::now() + STATEMENT_TIMEOUT)
        .map_err(|error| super::statement_problem("failed to look up the template", &error))?;
    let oid = |row: usize| rows.get(row)?.first()?.as_deref()?.parse().ok();
    let (Some(database_oid), Some(stub_oid)) = (oid(0), oid(1)) else {
        return Err(Problem::new(ProblemKind::Internal, "the template is not in pg_database"));
    };
    let has_settings = rows[0].get(1).is_some_and(|value| value.as_deref() == Some("t"));
    let mut connection = self::admin(endpoint, &endpoint.database)?;
    let rows =
        execute(&mut connection, "SELECT pg_relation_filenode('pg_class')", "find the file of pg_class")?;
    let pg_class = rows.into_iter().flatten().flatten().next().unwrap_or_default();
    let stub = Stub { oid: stub_oid, pg_class };
    Ok(Some((Template { database_oid, has_settings }, Box::new(move |data| stub.reduce(data)))))
}

impl Stub {
    /// Reduces its directory, while the server is stopped, to what makes a clone of it copy nothing.
    fn reduce(&self, data: &Path) -> std::io::Result<()> {
        let dir = data.join("base").join(self.oid.to_string());
        let kept = ["PG_VERSION", "pg_filenode.map", &self.pg_class];
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            if !kept.iter().any(|kept| entry.file_name() == **kept) {
                fs::remove_file(entry.path())?;
            }
        }
        fs::OpenOptions::new().write(true).truncate(true).open(dir.join(&self.pg_class)).map(drop)
    }
}
