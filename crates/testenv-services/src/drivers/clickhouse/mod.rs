//! ClickHouse.

mod client;
mod config;
mod namespace;
mod script;

use std::ffi::OsString;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use testenv_api::{Problem, ProblemKind};
use testenv_config::ServiceConfig;

use crate::drivers::{Command, Dirs, Driver, Namespaces, shell_word, url_part};
use crate::engine::{self, EngineBuild, Search};
use crate::machine::Machine;
use crate::server::Session;
use crate::service::{Endpoint, Spec};
use crate::snapshot::random_password;
use crate::{Result, io_problem};

use client::{Client, ClientError};
use script::{Script, Statement};

/// How long a statement of testenv's own may take.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a program that are searched for its version.
const MAX_SEARCHED: u64 = 64 << 20;
/// Files that a fork has no use for: `uuid` is a server's identity, of which each has its own.
const LEFTOVERS: [&str; 3] = ["preprocessed_configs", "status", "uuid"];

/// The driver of ClickHouse.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clickhouse;

impl Driver for Clickhouse {
    fn search(&self, _: &ServiceConfig) -> Search {
        Search {
            title: "ClickHouse",
            programs: &[("clickhouse-server", "clickhouse"), ("clickhouse", "clickhouse")],
            install: "https://clickhouse.com/docs/install; Debian 12 has an old one: apt-get install clickhouse-server"
                .into(),
            dirs: Vec::new(),
        }
    }

    fn version(&self, program: &Path) -> std::io::Result<String> {
        let mut args = subcommand(program, "server");
        args.push("--version");
        // Old ones do not know the option, and have the version among their texts.
        engine::ask_version(program, &args).or_else(|error| find_version(program)?.ok_or(error))
    }

    fn reserved_setting(&self, config: &ServiceConfig) -> Option<(String, &'static str)> {
        config.settings.keys().find_map(|name| Some((name.clone(), config::reserved(name)?)))
    }

    fn file_endings(&self) -> &'static [&'static str] {
        &[".sql"]
    }

    fn memory(&self) -> u64 {
        128 << 20
    }

    fn renames_directories(&self) -> bool {
        true
    }

    fn start_timeout(&self, _spec: &Spec) -> Duration {
        Duration::from_secs(60)
    }

    fn init(&self, _: &Machine, _: &Spec, _: &Path) -> Result<()> {
        Ok(())
    }

    fn config_files(&self, spec: &Spec, password: &str) -> Vec<(&'static str, String)> {
        let (version, settings) = (spec.build.major(), &spec.config.settings);
        vec![
            (config::FILE, config::server(version, settings)),
            (config::USERS, config::users(version, spec.config.user(), password, settings)),
        ]
    }

    fn command(&self, spec: &Spec, data: &Path, endpoint: &Endpoint, _shared: bool) -> Command {
        let program = spec.build.program.clone();
        let mut args: Vec<OsString> = subcommand(&program, "server").into_iter().map(Into::into).collect();
        let mut file = OsString::from("--config-file=");
        file.push(data.join(config::FILE));
        args.extend([file, "--".into(), format!("--http_port={}", endpoint.port).into()]);
        args.push(format!("--tcp_port={}", native_port(endpoint)).into());
        // Else it would put a process between itself and the broker.
        Command { program, args, env: vec![("CLICKHOUSE_WATCHDOG_ENABLE".into(), "0".into())] }
    }

    fn is_ready(&self, line: &str) -> bool {
        line.contains("Ready for connections")
    }

    fn noise(&self) -> fn(&str) -> bool {
        is_frame
    }

    fn port_is_taken(&self, log: &str) -> bool {
        log.contains("Address already in use")
    }

    fn warm_up(
        &self,
        _machine: &Machine,
        _spec: &Spec,
        endpoint: &Endpoint,
        _dirs: Dirs<'_>,
        _session: bool,
    ) -> Result<Option<Session>> {
        execute(endpoint, "SELECT 1", "ask the new server")?;
        Ok(None)
    }

    fn login(&self, spec: &Spec, password: &str) -> (String, String, String) {
        (spec.config.user().to_owned(), password.to_owned(), spec.config.database().to_owned())
    }

    fn set_up(&self, _spec: &Spec, endpoint: &Endpoint) -> Result<()> {
        let sql = format!("CREATE DATABASE IF NOT EXISTS {}", quote_name(&endpoint.database));
        execute(endpoint, &sql, "create the database").map(drop)
    }

    fn apply(
        &self,
        spec: &Spec,
        endpoint: &Endpoint,
        name: &str,
        content: &[u8],
        deadline: Instant,
    ) -> Result<()> {
        let session = random_password().map_err(|error| io_problem("make up a session's name", &error))?;
        let client = Client::new(endpoint, &endpoint.database, deadline);
        let mut client = client.in_session(&session, spec.build.major());
        let mut script = Script::new(content);
        let unreadable = |error: script::Unclosed| {
            Problem::new(ProblemKind::PrepareFailed, format!("{name}:{} cannot be read", error.line))
                .detail(error.what)
        };
        while let Some(statement) = script.next().map_err(unreadable)? {
            client.run(statement.sql).map_err(|error| failure(name, statement, &error))?;
        }
        Ok(())
    }

    fn doing(&self, endpoint: &Endpoint) -> String {
        let sql = "SELECT concat('for ', toString(elapsed), ' s:\\n', substring(query, 1, 400)) FROM system.processes \
                   WHERE query NOT LIKE '%system.processes%' FORMAT TabSeparatedRaw";
        execute(endpoint, sql, "list what the server does").unwrap_or_default().trim().to_owned()
    }

    fn after_freeze(&self, data: &Path) -> std::io::Result<()> {
        for leftover in LEFTOVERS.map(|name| data.join(name)) {
            let removed =
                if leftover.is_dir() { fs::remove_dir_all(leftover) } else { fs::remove_file(leftover) };
            match removed {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn url(&self, endpoint: &Endpoint) -> String {
        let Endpoint { host, port, user, password, database, .. } = endpoint;
        let password = if password.is_empty() { String::new() } else { format!(":{}", url_part(password)) };
        format!("http://{}{password}@{host}:{port}/{}", url_part(user), url_part(database))
    }

    fn connect_command(&self, build: &EngineBuild, endpoint: &Endpoint) -> String {
        let Endpoint { host, port, user, password, database, .. } = endpoint;
        let (user, password) = (shell_word(user), shell_word(password));
        match find_client(build) {
            Some(client) => format!(
                "{client} --host={} --port={} --user={user} --password={password} --database={}",
                shell_word(host),
                native_port(endpoint),
                shell_word(database)
            ),
            None => {
                let url = shell_word(&format!("http://{host}:{port}/?database={}", url_part(database)));
                format!("curl --user {user}:{password} --data-binary @- {url}")
            }
        }
    }

    fn namespaces(&self) -> Option<&'static dyn Namespaces> {
        Some(&Clickhouse)
    }
}

/// What one program that is all of ClickHouse is told first: which part of it is meant.
fn subcommand(program: &Path, part: &'static str) -> Vec<&'static str> {
    if program.file_name().is_some_and(|name| name == "clickhouse") { vec![part] } else { Vec::new() }
}

/// The version among the texts of a program: `ClickHouse 18.16.1`.
fn find_version(program: &Path) -> std::io::Result<Option<String>> {
    const NAME: &[u8] = b"ClickHouse ";
    let mut bytes = Vec::new();
    fs::File::open(program)?.take(MAX_SEARCHED).read_to_end(&mut bytes)?;
    let version = |at: usize| {
        let rest = &bytes[at + NAME.len()..];
        let end = rest.iter().position(|byte| !byte.is_ascii_digit() && *byte != b'.')?;
        let text = std::str::from_utf8(&rest[..end]).ok()?;
        (text.split('.').count() >= 3 && !text.contains("..")).then(|| text.trim_matches('.').to_owned())
    };
    Ok(bytes.windows(NAME.len()).enumerate().filter(|(_, it)| *it == NAME).find_map(|(at, _)| version(at)))
}

/// Whether a line of the log is part of a stack trace, of which every error has one: `3. /lib/x.so(name+0x16)
/// [0x7fe54b9798a6]`, or in newer versions `3. name @ 0x000000000c61ff37`.
fn is_frame(line: &str) -> bool {
    let number = line.split_once(". ").is_some_and(|(number, _)| number.parse::<u16>().is_ok());
    line.is_empty() || number && (line.ends_with(']') || line.contains(" @ 0x") || line.contains(") [0x"))
}

/// The command-line client, if it is on this machine.
fn find_client(build: &EngineBuild) -> Option<String> {
    let shown = |path: PathBuf| shell_word(&path.display().to_string());
    if build.program.file_name().is_some_and(|name| name == "clickhouse") {
        return Some(format!("{} client", shown(build.program.clone())));
    }
    let dirs = [build.bin_dir.clone(), "/usr/bin".into(), "/usr/local/bin".into()];
    dirs.into_iter().map(|dir| dir.join("clickhouse-client")).find(|file| file.is_file()).map(shown)
}

fn native_port(endpoint: &Endpoint) -> u16 {
    endpoint.ports.get("native").copied().unwrap_or_default()
}

fn deadline() -> Instant {
    Instant::now() + STATEMENT_TIMEOUT
}

/// Runs a statement of testenv's own.
fn execute(endpoint: &Endpoint, sql: &str, doing: &str) -> Result<String> {
    let ran = Client::new(endpoint, "", deadline()).run(sql.as_bytes());
    ran.map_err(|error| problem(&format!("failed to {doing}"), &error))
}

fn problem(title: &str, error: &ClientError) -> Problem {
    Problem::new(ProblemKind::PrepareFailed, title).detail(error.to_string())
}

/// What to say of a statement that failed, with the line of the file that it is about.
fn failure(name: &str, statement: Statement<'_>, error: &ClientError) -> Problem {
    let failed = |title: String| Problem::new(ProblemKind::PrepareFailed, title).detail(error.to_string());
    match error {
        ClientError::Server(said) => {
            let line = statement.line + lines_before(statement.sql, position(said));
            failed(format!("{name}:{line} failed"))
        }
        _ if error.timed_out() => failed(format!("{name}:{} did not finish in time", statement.line)),
        ClientError::Io(_) => failed(format!("{name}:{} failed", statement.line)),
    }
}

/// Where in a statement an error of its syntax is, counted from 1; 1 for other errors.
fn position(said: &str) -> usize {
    let rest = said.split_once("failed at position ").map_or("", |(_, rest)| rest);
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    digits.parse().unwrap_or(1)
}

fn lines_before(sql: &[u8], position: usize) -> usize {
    sql.iter().take(position.saturating_sub(1)).filter(|byte| **byte == b'\n').count()
}

fn quote_name(name: &str) -> String {
    format!("`{}`", name.replace('\\', r"\\").replace('`', r"\`"))
}

fn quote_text(text: &str) -> String {
    format!("'{}'", text.replace('\\', r"\\").replace('\'', r"\'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_cannot_break_out_of_their_quotes() {
        assert_eq!(quote_name(r"a`b\"), r"`a\`b\\`");
        assert_eq!(quote_text(r"a'b\"), r"'a\'b\\'");
    }

    #[test]
    fn errors_name_the_line_of_the_file() {
        let line = |said: &str| {
            let statement = Script::new(b"\n\nSELECT\n1,\nFROM").next().unwrap().unwrap();
            failure("m/1.sql", statement, &ClientError::Server(said.into())).title
        };
        assert_eq!(
            line("Code: 62, Syntax error: failed at position 11 (line 3, col 1): FROM"),
            "m/1.sql:5 failed"
        );
        assert_eq!(line("Code: 62, Syntax error: failed at position 1: SELECT"), "m/1.sql:3 failed");
        assert_eq!(line("Code: 60, Table app.x doesn't exist."), "m/1.sql:3 failed");
        assert_eq!(line("failed at position 99999999999999999999999"), "m/1.sql:3 failed");
    }

    #[test]
    fn versions_are_found_among_the_texts_of_a_program() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("clickhouse-server");
        fs::write(&file, b"\0ClickHouse server\0ClickHouse \0ClickHouse 1.2\0ClickHouse 18.16.1\0ClickHouse")
            .unwrap();
        assert_eq!(find_version(&file).unwrap().as_deref(), Some("18.16.1"));
        fs::write(&file, b"ClickHouse 18.16.1").unwrap();
        assert_eq!(find_version(&file).unwrap(), None, "it may go on");
    }

    #[test]
    fn stack_traces_are_told_from_what_happened() {
        for line in [
            "",
            "12. /lib/libc.so.6(+0x891f5) [0x7fe5474a71f5]",
            "0. DB::Exception::Exception(int) @ 0x0c61ff37",
        ] {
            assert!(is_frame(line), "{line}");
        }
        for line in
            ["2026.11.21 14:54:55 [ 1 ] {} <Error> x: Code: 47. y [0x1]", "3. of May", "Logging to console"]
        {
            assert!(!is_frame(line), "{line}");
        }
    }

    #[test]
    fn one_program_is_told_which_part_of_it_is_meant() {
        assert_eq!(subcommand(Path::new("/opt/clickhouse"), "server"), ["server"]);
        assert!(subcommand(Path::new("/usr/bin/clickhouse-server"), "server").is_empty());
    }

    #[test]
    fn urls_lead_to_the_http_interface() {
        let endpoint = Endpoint {
            host: "127.0.0.1".into(),
            port: 8124,
            user: "default".into(),
            password: "p@".into(),
            database: "app".into(),
            ..Endpoint::default()
        };
        assert_eq!(Clickhouse.url(&endpoint), "http://default:p%40@127.0.0.1:8124/app");
    }
}
