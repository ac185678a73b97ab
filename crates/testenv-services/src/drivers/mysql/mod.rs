//! MySQL and MariaDB.

mod apply;
mod auth;
mod client;
mod config;
mod namespace;
mod script;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use testenv_api::{Problem, ProblemKind};
use testenv_config::{KindConfig, ServiceConfig};

use crate::Result;
use crate::drivers::{Command, Dirs, Driver, Namespaces, shell_word, url_part};
use crate::engine::{self, EngineBuild, Search};
use crate::machine::Machine;
use crate::server::Session;
use crate::service::{Endpoint, Spec};
use crate::snapshot::run_tool;

use client::{ClientError, Connection, Rows};

/// Administrator that a new server has, and whom tests connect as unless the configuration says otherwise.
const ADMIN: &str = "root";
/// Name of MariaDB among engines.
const MARIADB: &str = "mariadb";
/// How long a statement of testenv's own may take.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long initialising may take. MySQL takes seconds.
const INIT_TIMEOUT: Duration = Duration::from_secs(120);

/// The driver of MySQL and MariaDB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mysql;

impl Driver for Mysql {
    fn search(&self, config: &ServiceConfig) -> Search {
        let (title, programs): (_, &[_]) = match config.service {
            KindConfig::Mariadb => ("MariaDB", &[("mariadbd", MARIADB), ("mysqld", MARIADB)]),
            _ => ("MySQL or MariaDB", &[("mysqld", "mysql"), ("mariadbd", MARIADB)]),
        };
        let install = "Debian, Ubuntu: apt-get install mariadb-server-core mariadb-client-core".into();
        let dirs = ["/usr/local/mysql/bin", "/usr/libexec", "/opt/homebrew/opt/mysql/bin"];
        Search { title, programs, install, dirs: dirs.map(PathBuf::from).into() }
    }

    fn version(&self, program: &Path) -> std::io::Result<String> {
        // Else it would look for the machine's configuration, and complain of what it does not know there.
        engine::ask_version(program, &["--no-defaults", "--version"]).map(|version| short_version(&version))
    }

    fn engine_name(&self, name: &'static str, version: &str) -> &'static str {
        // MariaDB has a `mysqld` too.
        match (name, version.contains("MariaDB")) {
            (_, true) => MARIADB,
            (MARIADB, false) => "mysql",
            (name, false) => name,
        }
    }

    fn reserved_setting(&self, config: &ServiceConfig) -> Option<(String, &'static str)> {
        config.settings.keys().find_map(|name| Some((name.clone(), config::reserved(name)?)))
    }

    fn file_endings(&self) -> &'static [&'static str] {
        &[".sql"]
    }

    fn memory(&self) -> u64 {
        64 << 20
    }

    fn start_timeout(&self, _spec: &Spec) -> Duration {
        Duration::from_secs(60)
    }

    fn init(&self, machine: &Machine, spec: &Spec, data: &Path) -> Result<()> {
        let mariadb = is_mariadb(&spec.build);
        let program = if mariadb { find_install_tool(&spec.build)? } else { spec.build.program.clone() };
        let mut args = vec!["--no-defaults".into()];
        args.extend(directories(&spec.build, data));
        args.extend(config::at_init(mariadb).map(OsString::from));
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let spawn = machine.spawn(program, args, data.parent().unwrap_or(data));
        run_tool(&spawn, &name, Instant::now() + INIT_TIMEOUT).map(drop)
    }

    fn config_files(&self, spec: &Spec, password: &str) -> Vec<(&'static str, String)> {
        let mariadb = is_mariadb(&spec.build);
        vec![
            (config::FILE, config::text(mariadb, &spec.config.settings)),
            (config::FIRST_STATEMENTS, config::first_statements(mariadb, password)),
        ]
    }

    fn command(&self, spec: &Spec, data: &Path, endpoint: &Endpoint, shared: bool) -> Command {
        let mut args = vec![path_option("defaults-file", &data.join(config::FILE))];
        args.extend(directories(&spec.build, data));
        args.push(path_option("socket", &self.socket(endpoint)));
        args.push(format!("--port={}", endpoint.port).into());
        args.push(format!("--bind-address={}", endpoint.host).into());
        let first_statements = data.join(config::FIRST_STATEMENTS);
        if first_statements.exists() {
            args.push(path_option("init-file", &first_statements));
        }
        if shared && !config::sets(&spec.config.settings, "max_connections") {
            args.push(format!("--max-connections={}", config::SHARED_CONNECTIONS).into());
        }
        Command { program: spec.build.program.clone(), args, env: Vec::new() }
    }

    fn is_ready(&self, line: &str) -> bool {
        line.contains("ready for connections")
    }

    fn port_is_taken(&self, log: &str) -> bool {
        log.contains("Bind on TCP/IP port") && log.contains("Address already in use")
    }

    fn warm_up(
        &self,
        _machine: &Machine,
        _spec: &Spec,
        endpoint: &Endpoint,
        _dirs: Dirs<'_>,
        _session: bool,
    ) -> Result<Option<Session>> {
        // Over TCP, because accounts that log in through the socket may be others. From then on MySQL knows the
        // password, and no client has to ask for the key to say it with.
        let over_tcp = Endpoint { socket_dir: PathBuf::new(), ..endpoint.clone() };
        open(&over_tcp, &endpoint.database)?;
        Ok(None)
    }

    fn set_up(&self, spec: &Spec, endpoint: &Endpoint) -> Result<()> {
        let admin = Endpoint { user: ADMIN.into(), ..endpoint.clone() };
        let mut admin = open(&admin, "")?;
        let account = format!("{}@'%'", quote_text(&endpoint.user));
        let password = quote_text(&endpoint.password);
        for sql in [
            "SET sql_mode = ''".to_owned(),
            format!("CREATE DATABASE {}", quote_name(&endpoint.database)),
            format!("CREATE USER {account} IDENTIFIED BY {password}"),
            format!("GRANT ALL PRIVILEGES ON *.* TO {account} WITH GRANT OPTION"),
        ] {
            execute(&mut admin, &sql, &format!("set up the server of {}", spec.role))?;
        }
        Ok(())
    }

    fn apply(
        &self,
        _spec: &Spec,
        endpoint: &Endpoint,
        name: &str,
        content: &[u8],
        deadline: Instant,
    ) -> Result<()> {
        let timeout = deadline.saturating_duration_since(Instant::now()).min(STATEMENT_TIMEOUT);
        let opened = Connection::open(endpoint, &self.socket(endpoint), &endpoint.database, timeout);
        let mut connection = opened.map_err(|error| problem("the server does not answer", &error))?;
        execute(&mut connection, "SET NAMES utf8mb4", "choose UTF-8")?;
        apply::file(&mut connection, name, content, deadline)
    }

    fn doing(&self, endpoint: &Endpoint) -> String {
        let rows = open(endpoint, "").and_then(|mut connection| {
            execute(&mut connection, "SHOW FULL PROCESSLIST", "list what the server does")
        });
        // Id, user, host, database, command, seconds, state, statement.
        let line = |row: Vec<Option<String>>| {
            let value = |index: usize| row.get(index).cloned().flatten().unwrap_or_default();
            let busy =
                value(4) != "Sleep" && value(4) != "Daemon" && !value(7).starts_with("SHOW FULL PROCESS");
            let statement: String = value(7).chars().take(400).collect();
            busy.then(|| format!("{}, {}, for {} s:\n{statement}", value(4), value(6), value(5)))
        };
        rows.unwrap_or_default().into_iter().filter_map(line).collect::<Vec<_>>().join("\n")
    }

    fn after_freeze(&self, data: &Path) -> std::io::Result<()> {
        for leftover in config::LEFTOVERS {
            match fs::remove_file(data.join(leftover)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn login(&self, spec: &Spec, password: &str) -> (String, String, String) {
        (spec.config.user().to_owned(), password.to_owned(), spec.config.database().to_owned())
    }

    fn url(&self, endpoint: &Endpoint) -> String {
        let Endpoint { host, port, user, password, database, .. } = endpoint;
        let password = if password.is_empty() { String::new() } else { format!(":{}", url_part(password)) };
        format!("mysql://{}{password}@{host}:{port}/{}", url_part(user), url_part(database))
    }

    fn socket(&self, endpoint: &Endpoint) -> PathBuf {
        if endpoint.socket_dir.as_os_str().is_empty() {
            return PathBuf::new();
        }
        endpoint.socket_dir.join("mysql.sock")
    }

    fn connect_command(&self, build: &EngineBuild, endpoint: &Endpoint) -> String {
        let Endpoint { host, port, user, password, database, .. } = endpoint;
        let socket = self.socket(endpoint).display().to_string();
        // The host is named because the environment may name another.
        let place = if socket.is_empty() {
            format!("--protocol=tcp --host={} --port={port}", shell_word(host))
        } else {
            format!("--host=localhost --socket={}", shell_word(&socket))
        };
        // Newer clients of MariaDB demand TLS where there is a password.
        let client = if is_mariadb(build) { "mariadb --skip-ssl" } else { "mysql" };
        let (password, user, database) = (shell_word(password), shell_word(user), shell_word(database));
        format!("MYSQL_PWD={password} {client} {place} --user={user} {database}")
    }

    fn namespaces(&self) -> Option<&'static dyn Namespaces> {
        Some(&Mysql)
    }
}

fn is_mariadb(build: &EngineBuild) -> bool {
    build.engine.name == MARIADB
}

/// The version without what a distribution adds: `10.11.19-MariaDB` of `10.11.19-MariaDB-0+deb12u1`, `8.0.36` of
/// `8.0.36-0ubuntu0.22.04.1`.
fn short_version(version: &str) -> String {
    let mut parts = version.split('-');
    let number = parts.next().unwrap_or_default();
    if parts.any(|part| part == "MariaDB") { format!("{number}-MariaDB") } else { number.to_owned() }
}

/// Options for the directories that a server uses. A starting server removes every temporary table in the one for
/// such, so servers that shared it would crash.
fn directories(build: &EngineBuild, data: &Path) -> impl Iterator<Item = OsString> {
    let base = base_dir(build).map(|base| path_option("basedir", base));
    base.into_iter().chain([path_option("datadir", data), path_option("tmpdir", data)])
}

/// Where a build outside the usual places has the files that belong to it, which it has to be told.
fn base_dir(build: &EngineBuild) -> Option<&Path> {
    let base = build.bin_dir.parent()?;
    let messages = ["share/mysql", "share/mariadb", "share"];
    messages.iter().any(|dir| base.join(dir).join("english/errmsg.sys").is_file()).then_some(base)
}

fn path_option(name: &str, path: &Path) -> OsString {
    let mut option = OsString::from(format!("--{name}="));
    option.push(path);
    option
}

/// MariaDB's script that makes a new data directory: beside the server, or where its other programs are.
fn find_install_tool(build: &EngineBuild) -> Result<PathBuf> {
    const NAMES: [&str; 2] = ["mariadb-install-db", "mysql_install_db"];
    let base = build.bin_dir.parent().unwrap_or(&build.bin_dir);
    let dirs = [build.bin_dir.clone(), base.join("bin"), base.join("scripts"), "/usr/bin".into()];
    let places = dirs.iter().flat_map(|dir| NAMES.map(|name| dir.join(name)));
    places.into_iter().find(|place| place.is_file()).ok_or_else(|| {
        let dirs: Vec<_> = dirs.iter().map(|dir| dir.display().to_string()).collect();
        Problem::new(ProblemKind::EngineMissing, "no mariadb-install-db on this machine")
            .detail(format!("looked in {}", dirs.join(", ")))
            .hint("install it (Debian, Ubuntu: apt-get install mariadb-server-core)")
    })
}

/// A session of testenv's own.
fn open(endpoint: &Endpoint, database: &str) -> Result<Connection> {
    Connection::open(endpoint, &Mysql.socket(endpoint), database, STATEMENT_TIMEOUT)
        .map_err(|error| problem("the server does not answer", &error))
}

fn execute(connection: &mut Connection, sql: &str, doing: &str) -> Result<Rows> {
    connection
        .run(sql.as_bytes(), Instant::now() + STATEMENT_TIMEOUT)
        .map_err(|error| problem(&format!("failed to {doing}"), &error))
}

fn problem(title: &str, error: &ClientError) -> Problem {
    Problem::new(ProblemKind::PrepareFailed, title).detail(error.to_string())
}

fn quote_name(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

fn quote_text(text: &str) -> String {
    let escaped = |c| match c {
        '\'' | '\\' => format!("\\{c}"),
        '\n' => "\\n".into(),
        '\0' => "\\0".into(),
        '\x1a' => "\\Z".into(),
        c => c.to_string(),
    };
    format!("'{}'", text.chars().map(escaped).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_cannot_break_out_of_their_quotes() {
        assert_eq!(quote_name("a`b"), "`a``b`");
        assert_eq!(quote_text("a'b\\\n"), r"'a\'b\\\n'");
    }

    #[test]
    fn versions_are_told_without_what_distributions_add() {
        assert_eq!(short_version("10.11.19-MariaDB-0+deb12u1"), "10.11.19-MariaDB");
        assert_eq!(short_version("8.0.36-0ubuntu0.22.04.1"), "8.0.36");
        assert_eq!(short_version("9.7.4-2"), "9.7.4");
        assert_eq!(Mysql.engine_name("mysql", "10.11.19-MariaDB"), MARIADB);
        assert_eq!(Mysql.engine_name(MARIADB, "8.0.36"), "mysql");
    }

    #[test]
    fn logs_tell_a_taken_port_and_a_ready_server() {
        let mariadb =
            "[ERROR] Can't start server: Bind on TCP/IP port. Got error: 98: Address already in use";
        let mysql =
            "[ERROR] [MY-010262] [Server] Can't start server: Bind on TCP/IP port: Address already in use";
        assert!(Mysql.port_is_taken(mariadb) && Mysql.port_is_taken(mysql));
        assert!(!Mysql.port_is_taken("[ERROR] Can't start server: can't create PID file: Permission denied"));
        assert!(Mysql.is_ready("[Note] /usr/sbin/mariadbd: ready for connections."));
        assert!(!Mysql.is_ready("[Note] Server socket created on IP: '127.0.0.1', port: '20000'."));
    }

    #[test]
    fn urls_leave_out_what_is_not_there() {
        let mut endpoint = Endpoint {
            host: "127.0.0.1".into(),
            port: 3307,
            user: "ro ot".into(),
            database: "app".into(),
            ..Endpoint::default()
        };
        assert_eq!(Mysql.url(&endpoint), "mysql://ro%20ot@127.0.0.1:3307/app");
        endpoint.password = "p@ss".into();
        assert_eq!(Mysql.url(&endpoint), "mysql://ro%20ot:p%40ss@127.0.0.1:3307/app");
    }
}
