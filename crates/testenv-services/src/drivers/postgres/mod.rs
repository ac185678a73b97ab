//! PostgreSQL.

mod clones;
mod templates;
mod wire;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit as _, Mac as _};
use rustix::process::Signal;
use sha2::{Digest as _, Sha256};
use testenv_api::{Problem, ProblemKind};
use testenv_config::ServiceConfig;

use crate::drivers::{CONFIG_HEADER, Command, Dirs, Driver, Finish, Namespaces, shell_word, url_part};
use crate::engine::{EngineBuild, Search};
use crate::fork;
use crate::machine::Machine;
use crate::namespace::{Clones, Origin};
use crate::server::{Server, Session};
use crate::service::{Endpoint, Spec};
use crate::snapshot::{Template, run_tool};
use crate::{Result, io_problem};

use clones::Databases;
use templates::Templates;
use wire::{Connection, WireError};

/// Superuser that `initdb` creates and that testenv itself logs in as.
const ADMIN: &str = "postgres";
/// Connections that a server shared by many leases takes, unless the configuration says otherwise.
const SHARED_CONNECTIONS: u32 = 500;
/// How long a statement of testenv's own may take.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);
/// The file in which a database keeps what every new session needs to know of its catalogs.
const RELATION_CACHE: &str = "pg_internal.init";

/// Settings that make a server quick and small, at the price of what only matters after a power cut.
const TEST_SETTINGS: &[(&str, &str)] = &[
    ("fsync", "off"),
    ("synchronous_commit", "off"),
    ("full_page_writes", "off"),
    ("wal_level", "minimal"),
    ("max_wal_senders", "0"),
    ("max_wal_size", "1GB"),
    ("checkpoint_timeout", "1d"),
    ("shared_buffers", "16MB"),
    ("max_connections", "100"),
    // The default of 64 alone takes more memory than the rest of an idle server's shared state.
    ("max_pred_locks_per_transaction", "16"),
    ("wal_buffers", "256kB"),
    ("max_files_per_process", "64"),
    ("huge_pages", "off"),
    ("jit", "off"),
    ("autovacuum", "off"),
    ("log_checkpoints", "off"),
    ("bgwriter_delay", "10s"),
    ("wal_writer_delay", "10s"),
    ("max_logical_replication_workers", "0"),
    ("dynamic_shared_memory_type", "mmap"),
    ("timezone", "UTC"),
    ("lc_messages", "C"),
];

/// Settings that testenv relies on.
const RESERVED: &[(&str, &str)] = &[
    ("port", "testenv gives every server a port of its own"),
    ("listen_addresses", "servers listen on 127.0.0.1 only"),
    ("unix_socket_directories", "every server has a socket directory of its own"),
    ("data_directory", "every server has a data directory of its own"),
    ("hba_file", "testenv writes it"),
    ("ident_file", "testenv writes it"),
    ("config_file", "testenv writes it"),
    ("external_pid_file", "testenv keeps track of its servers itself"),
    ("logging_collector", "testenv reads the server's log from its standard error"),
    ("log_destination", "testenv reads the server's log from its standard error"),
    ("lc_messages", "testenv reads the server's log, in English"),
    ("event_source", "testenv reads the server's log from its standard error"),
];

/// The driver of PostgreSQL.
#[derive(Debug)]
pub(crate) struct Postgres;

impl Driver for Postgres {
    fn search(&self, _: &ServiceConfig) -> Search {
        Search {
            title: "PostgreSQL",
            programs: &[("postgres", "postgres")],
            install: "Debian, Ubuntu: apt-get install postgresql".into(),
            dirs: usual_dirs(),
        }
    }

    fn stop_signal(&self) -> Signal {
        // Ends sessions too; SIGTERM would wait for them.
        Signal::INT
    }

    fn reserved_setting(&self, config: &ServiceConfig) -> Option<(String, &'static str)> {
        let reserved = |name: &String| {
            let (_, why) = RESERVED.iter().find(|(reserved, _)| name.eq_ignore_ascii_case(reserved))?;
            Some((name.clone(), *why))
        };
        config.settings.keys().find_map(reserved)
    }

    fn file_endings(&self) -> &'static [&'static str] {
        &[".sql"]
    }

    fn init(&self, machine: &Machine, spec: &Spec, data: &Path) -> Result<()> {
        let mut args: Vec<OsString> = vec!["-D".into(), data.into(), "-U".into(), ADMIN.into()];
        args.extend(["--auth=trust", "--no-sync", "--no-instructions", "--wal-segsize=1"].map(Into::into));
        args.push(format!("--encoding={}", spec.config.encoding.as_deref().unwrap_or("UTF8")).into());
        args.push(format!("--locale={}", spec.config.locale.as_deref().unwrap_or("C.UTF-8")).into());
        let parent = data.parent().unwrap_or(data);
        let spawn = machine.spawn(spec.build.bin_dir.join("initdb"), args, parent);
        run_tool(&spawn, "initdb", Instant::now() + Duration::from_secs(60)).map(drop)
    }

    fn config_files(&self, spec: &Spec, _password: &str) -> Vec<(&'static str, String)> {
        let mut conf = String::from(CONFIG_HEADER);
        let io_method = (spec.build.major() >= 18).then_some(("io_method", "sync"));
        let own =
            TEST_SETTINGS.iter().copied().chain(io_method).map(|(name, value)| (name, value.to_owned()));
        let given = spec.config.settings.iter().map(|(name, value)| (name.as_str(), value.0.clone()));
        for (name, value) in own.chain(given) {
            conf.push_str(&format!("{name} = '{}'\n", value.replace('\\', r"\\").replace('\'', "''")));
        }
        // Whoever reaches the socket's directory is trusted; everybody on the machine can reach TCP.
        let hba = "local all all trust\nlocal replication all trust\n\
                   host all all 127.0.0.1/32 scram-sha-256\nhost all all ::1/128 scram-sha-256\n\
                   host replication all 127.0.0.1/32 scram-sha-256\n";
        vec![("postgresql.conf", conf), ("pg_hba.conf", hba.to_owned())]
    }

    fn command(&self, spec: &Spec, data: &Path, endpoint: &Endpoint, shared: bool) -> Command {
        let mut args: Vec<OsString> =
            vec!["-D".into(), data.into(), "-p".into(), endpoint.port.to_string().into()];
        if shared && !spec.config.settings.contains_key("max_connections") {
            args.extend(["-c".into(), format!("max_connections={SHARED_CONNECTIONS}").into()]);
        }
        args.extend([
            "-h".into(),
            endpoint.host.clone().into(),
            "-k".into(),
            endpoint.socket_dir.clone().into(),
        ]);
        Command { program: spec.build.program.clone(), args, env: Vec::new() }
    }

    fn is_ready(&self, line: &str) -> bool {
        line.contains("database system is ready to accept connections")
    }

    fn port_is_taken(&self, log: &str) -> bool {
        log.contains("Address already in use")
    }

    fn warm_up(
        &self,
        machine: &Machine,
        _spec: &Spec,
        endpoint: &Endpoint,
        dirs: Dirs<'_>,
        session: bool,
    ) -> Result<Option<Session>> {
        restore_relation_caches(dirs, machine)
            .map_err(|error| io_problem("restore the relation caches", &error))?;
        let opened = session
            .then(|| Connection::open(endpoint, &endpoint.user, &endpoint.database, STATEMENT_TIMEOUT));
        let opened = opened
            .transpose()
            .map_err(|error| statement_problem("the new server does not answer", &error))?;
        Ok(opened.and_then(Connection::into_session))
    }

    fn login(&self, spec: &Spec, password: &str) -> (String, String, String) {
        (spec.config.user().to_owned(), password.to_owned(), spec.config.database().to_owned())
    }

    fn set_up(&self, spec: &Spec, endpoint: &Endpoint) -> Result<()> {
        let (user, database) = (quote_name(&endpoint.user), quote_name(&endpoint.database));
        let secret = quote_text(&scram_verifier(&endpoint.password));
        let mut admin = admin(endpoint, "postgres")?;
        let mut run = |sql: String| execute(&mut admin, &sql, "set up the server");
        if endpoint.user != ADMIN {
            run(format!("CREATE ROLE {user} LOGIN SUPERUSER"))?;
        }
        run(format!("ALTER ROLE {user} PASSWORD {secret}"))?;
        run(format!("CREATE DATABASE {database} OWNER {user}"))?;
        create_extensions(spec, endpoint)
    }

    fn apply(
        &self,
        _spec: &Spec,
        endpoint: &Endpoint,
        name: &str,
        content: &[u8],
        deadline: Instant,
    ) -> Result<()> {
        let failed = |title: String| Problem::new(ProblemKind::PrepareFailed, title);
        let sql = std::str::from_utf8(content).map_err(|error| {
            failed(format!("{name} is not UTF-8 text"))
                .detail(error.to_string())
                .hint("convert the file to UTF-8")
        })?;
        let timeout = deadline.saturating_duration_since(Instant::now()).min(STATEMENT_TIMEOUT);
        let opened = Connection::open(endpoint, &endpoint.user, &endpoint.database, timeout);
        let mut connection =
            opened.map_err(|error| statement_problem("the server does not answer", &error))?;
        connection.run(sql, deadline).map(drop).map_err(|error| match &error {
            _ if error.timed_out() => failed(format!("{name} did not finish in time")),
            WireError::Server { message, position } => {
                let place = position.map_or_else(String::new, |at| format!("\nat {name}:{}", line_of(sql, at)));
                let problem = failed(format!("{name} failed")).detail(format!("{message}{place}"));
                if message.contains("COPY FROM STDIN") || sql.lines().any(|line| line.starts_with('\\')) {
                    return problem.hint(
                        "the file is written for psql; use a command: { command = \"psql -v ON_ERROR_STOP=1 -f FILE\", inputs = [\"FILE\"] }",
                    );
                }
                problem
            }
            WireError::Io(_) => failed(format!("{name} failed")).detail(error.to_string()),
        })
    }

    fn doing(&self, endpoint: &Endpoint) -> String {
        let sql = "SELECT coalesce(state, '') || ', waiting for ' || coalesce(wait_event_type || ' ' || wait_event, 'nothing') \
                   || ', for ' || (clock_timestamp() - query_start)::text || E':\\n' || left(query, 400) \
                   FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
        let rows = admin(endpoint, "postgres")
            .ok()
            .and_then(|mut admin| admin.run(sql, Instant::now() + Duration::from_secs(5)).ok());
        rows.into_iter().flatten().flatten().flatten().collect::<Vec<_>>().join("\n")
    }

    fn before_freeze(&self, _spec: &Spec, endpoint: &Endpoint) -> Result<()> {
        // A session's start writes the database's relation cache, if it is not there.
        for database in ["postgres", &endpoint.database] {
            execute(&mut admin(endpoint, database)?, "SELECT 1", "read the catalogs")?;
        }
        Ok(())
    }

    fn after_freeze(&self, data: &Path) -> std::io::Result<()> {
        for leftover in ["postmaster.opts", "postmaster.pid", "pg_stat/pgstat.stat"] {
            match fs::remove_file(data.join(leftover)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn url(&self, endpoint: &Endpoint) -> String {
        let Endpoint { host, port, user, password, database, .. } = endpoint;
        format!("postgres://{}:{}@{host}:{port}/{}", url_part(user), url_part(password), url_part(database))
    }

    fn socket(&self, endpoint: &Endpoint) -> PathBuf {
        endpoint.socket_dir.clone()
    }

    fn connect_command(&self, _build: &EngineBuild, endpoint: &Endpoint) -> String {
        let Endpoint { socket_dir, host, port, user, database, .. } = endpoint;
        // Over the socket no password is asked for; of another's server, it is left to psql to ask.
        let host = if endpoint.is_remote() { host.clone() } else { socket_dir.display().to_string() };
        let (user, database) = (shell_word(user), shell_word(database));
        format!("psql -h {} -p {port} -U {user} -d {database}", shell_word(&host))
    }

    fn namespaces(&self) -> Option<&'static dyn Namespaces> {
        Some(&Postgres)
    }

    fn has_template(&self) -> bool {
        true
    }

    fn make_template(&self, spec: &Spec, server: &Server) -> Result<Option<(Template, Finish)>> {
        clones::create_stub(spec, server)
    }

    fn clones(
        &self,
        machine: &Arc<Machine>,
        spec: &Arc<Spec>,
        origin: Origin<'_>,
    ) -> Result<Box<dyn Clones>> {
        Ok(match origin {
            Origin::Forked { snapshot, server } => Box::new(Databases::new(machine, snapshot, server)?),
            Origin::Declared { .. } => Box::new(Templates::new(machine, spec, origin)?),
        })
    }
}

impl Namespaces for Postgres {
    fn schemes(&self) -> (&'static [&'static str], u16) {
        (&["postgres", "postgresql"], 5432)
    }

    fn ask_version(&self, server: &Endpoint) -> Result<String> {
        let rows = execute(&mut admin(server, "postgres")?, "SHOW server_version", "ask for the version")?;
        let version = rows.into_iter().flatten().flatten().next().unwrap_or_default();
        Ok(version.split(' ').next().unwrap_or_default().to_owned())
    }

    fn create(&self, spec: &Spec, server: &Endpoint, name: &str) -> Result<Endpoint> {
        let (database, owner) = (quote_name(name), quote_name(&server.user));
        let sql = format!("CREATE DATABASE {database} OWNER {owner}");
        execute(&mut admin(server, "postgres")?, &sql, "create a database")?;
        let endpoint = Endpoint { database: name.to_owned(), ..server.clone() };
        create_extensions(spec, &endpoint)?;
        Ok(endpoint)
    }

    fn remove(&self, _spec: &Spec, server: &Endpoint, name: &str) -> Result<()> {
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quote_name(name));
        execute(&mut admin(server, "postgres")?, &sql, "drop a database").map(drop)
    }

    fn list(&self, _spec: &Spec, server: &Endpoint) -> Result<Vec<String>> {
        let sql = r"SELECT datname FROM pg_database WHERE datname LIKE 't\_%' ORDER BY datname";
        let rows = execute(&mut admin(server, "postgres")?, sql, "list the databases")?;
        Ok(rows.into_iter().flatten().flatten().collect())
    }
}

/// Directories that hold a server's programs: Debian's, those of Red Hat's community packages, Homebrew's on
/// both of its roots, that of a build from source.
fn usual_dirs() -> Vec<PathBuf> {
    let parents = [
        ("/usr/lib/postgresql", ""),
        ("/usr", "pgsql-"),
        ("/opt/homebrew/opt", "postgresql@"),
        ("/usr/local/opt", "postgresql@"),
    ];
    let versions = parents.iter().flat_map(|(parent, name)| {
        let entries = fs::read_dir(parent).into_iter().flatten().flatten();
        let named = entries.filter(move |entry| entry.file_name().to_string_lossy().starts_with(name));
        named.map(|entry| entry.path().join("bin"))
    });
    versions.chain(["/usr/local/pgsql/bin".into()]).collect()
}

fn create_extensions(spec: &Spec, endpoint: &Endpoint) -> Result<()> {
    let mut admin = admin(endpoint, &endpoint.database)?;
    for extension in &spec.config.extensions {
        let sql = format!("CREATE EXTENSION IF NOT EXISTS {} CASCADE", quote_name(extension));
        execute(&mut admin, &sql, &format!("create extension {extension}")).map_err(|problem| {
            problem.hint("install the package that brings the extension (Debian: postgresql-contrib or postgresql-15-NAME)")
        })?;
    }
    Ok(())
}

/// The socket's file.
fn socket_file(endpoint: &Endpoint) -> PathBuf {
    endpoint.socket_dir.join(format!(".s.PGSQL.{}", endpoint.port))
}

/// A session of testenv's own: as the superuser of a server that testenv runs, or as whom a server was declared.
fn admin(endpoint: &Endpoint, database: &str) -> Result<Connection> {
    let user = if endpoint.is_remote() { &endpoint.user } else { ADMIN };
    Connection::open(endpoint, user, database, STATEMENT_TIMEOUT)
        .map_err(|error| statement_problem("the server does not answer", &error))
}

fn execute(connection: &mut Connection, sql: &str, doing: &str) -> Result<Vec<Vec<Option<String>>>> {
    connection
        .run(sql, Instant::now() + STATEMENT_TIMEOUT)
        .map_err(|error| statement_problem(&format!("failed to {doing}"), &error))
}

fn statement_problem(title: &str, error: &WireError) -> Problem {
    Problem::new(ProblemKind::PrepareFailed, title).detail(error.to_string())
}

/// Puts back the relation caches, which a starting server removes because after a crash they could be wrong.
/// After the clean stop that a snapshot is made from they are right, and without them every first session
/// of a database reads all its catalogs.
fn restore_relation_caches(dirs: Dirs<'_>, machine: &Machine) -> std::io::Result<()> {
    let Dirs { frozen, data } = dirs;
    let databases =
        fs::read_dir(frozen.join("base"))?.flatten().map(|entry| Path::new("base").join(entry.file_name()));
    for dir in std::iter::once(PathBuf::from("global")).chain(databases) {
        let kept = frozen.join(&dir).join(RELATION_CACHE);
        if kept.exists() {
            let restored = data.join(&dir).join(RELATION_CACHE);
            fs::copy(kept, &restored)?;
            fork::chown(&restored, machine.user.as_ref())?;
        }
    }
    Ok(())
}

fn quote_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn quote_text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The line on which the character number `position` (from 1) is.
fn line_of(text: &str, position: usize) -> usize {
    text.chars().take(position.saturating_sub(1)).filter(|c| *c == '\n').count() + 1
}

/// What PostgreSQL stores instead of a password, with a single round of hashing: the password guards a
/// throwaway server, and the usual 4,096 rounds would cost every connection milliseconds.
fn scram_verifier(password: &str) -> String {
    const ROUNDS: u32 = 1;
    let hmac = |key: &[u8], text: &[u8]| {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
        mac.update(text);
        mac.finalize().into_bytes()
    };
    // Not a secret: the password is random, so a salt has nothing to add.
    let salt = &Sha256::digest(password)[..16];
    let salted = hmac(password.as_bytes(), &[salt, &ROUNDS.to_be_bytes()].concat());
    let stored_key = Sha256::digest(hmac(&salted, b"Client Key"));
    let server_key = hmac(&salted, b"Server Key");
    format!("SCRAM-SHA-256${ROUNDS}:{}${}:{}", base64(salt), base64(&stored_key), base64(&server_key))
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_cannot_break_out_of_their_quotes() {
        assert_eq!(quote_name("a\"b"), "\"a\"\"b\"");
        assert_eq!(quote_text("a'b"), "'a''b'");
    }

    #[test]
    fn a_position_is_told_as_a_line() {
        assert_eq!(line_of("SELECT 1;\nSELEC 2;", 11), 2);
        assert_eq!(line_of("x", 1), 1);
    }

    #[test]
    fn verifiers_have_the_form_that_postgres_stores() {
        let verifier = scram_verifier("secret");
        assert!(verifier.starts_with("SCRAM-SHA-256$1:"), "{verifier}");
        assert_eq!(verifier.matches('$').count(), 2);
    }
}
