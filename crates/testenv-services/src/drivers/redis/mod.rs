//! Redis and Valkey.

mod client;
mod namespace;

use std::path::{Path, PathBuf};
use std::time::Instant;

use testenv_api::{Problem, ProblemKind};
use testenv_config::{KindConfig, ServiceConfig};

use crate::Result;
use client::Client;

use crate::drivers::{CONFIG_HEADER, Command, Dirs, Driver, Namespaces, shell_word, url_part};
use crate::engine::{EngineBuild, Search};
use crate::machine::Machine;
use crate::server::Session;
use crate::service::{Endpoint, Spec};

/// Settings that testenv relies on.
const RESERVED: &[&str] = &[
    "port",
    "bind",
    "unixsocket",
    "dir",
    "daemonize",
    "logfile",
    "requirepass",
    "dbfilename",
    "pidfile",
    "supervised",
    "protected-mode",
];
/// Databases of a server that many leases share, unless the configuration says otherwise.
const DATABASES: u32 = 1024;

/// The driver of Redis.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Redis;

impl Redis {
    fn client(self, endpoint: &Endpoint) -> Result<Client> {
        Client::open(endpoint, &self.socket(endpoint))
    }
}

impl Driver for Redis {
    fn search(&self, config: &ServiceConfig) -> Search {
        const PROGRAMS: [(&str, &str); 2] = [("redis-server", "redis"), ("valkey-server", "valkey")];
        let (title, programs, package) = match config.service {
            KindConfig::Valkey => ("Valkey", &PROGRAMS[1..], "valkey-server"),
            _ => ("Redis or Valkey", &PROGRAMS[..], "redis-server"),
        };
        Search {
            title,
            programs,
            install: format!("Debian, Ubuntu: apt-get install {package}"),
            dirs: Vec::new(),
        }
    }

    fn reserved_setting(&self, config: &ServiceConfig) -> Option<(String, &'static str)> {
        let name =
            config.settings.keys().find(|name| RESERVED.iter().any(|it| name.eq_ignore_ascii_case(it)))?;
        Some((name.clone(), "testenv sets it itself; a password is given with `password`"))
    }

    fn file_endings(&self) -> &'static [&'static str] {
        &[".redis", ".txt"]
    }

    fn init(&self, _: &Machine, _: &Spec, _: &Path) -> Result<()> {
        Ok(())
    }

    fn config_files(&self, spec: &Spec, password: &str) -> Vec<(&'static str, String)> {
        let mut conf = String::from(CONFIG_HEADER);
        conf.push_str(
            "save \"\"\nappendonly no\ndaemonize no\nprotected-mode no\nbind 127.0.0.1\nunixsocketperm 700\n",
        );
        if !password.is_empty() {
            conf.push_str(&format!("requirepass {}\n", quote(password)));
        }
        for (name, value) in &spec.config.settings {
            conf.push_str(&format!("{name} {}\n", quote(&value.0)));
        }
        vec![("redis.conf", conf)]
    }

    fn command(&self, spec: &Spec, data: &Path, endpoint: &Endpoint, shared: bool) -> Command {
        let mut args = vec![
            data.join("redis.conf").into(),
            "--port".into(),
            endpoint.port.to_string().into(),
            "--unixsocket".into(),
            self.socket(endpoint).into(),
            "--dir".into(),
            data.into(),
        ];
        if shared && !spec.config.settings.contains_key("databases") {
            args.extend(["--databases".into(), DATABASES.to_string().into()]);
        }
        Command { program: spec.build.program.clone(), args, env: Vec::new() }
    }

    fn is_ready(&self, line: &str) -> bool {
        // Said in both spellings, and once for TCP before once for the socket.
        line.contains("eady to accept connections") && line.contains("unix")
            || line.contains("connections at /")
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
        self.client(endpoint)?.call(&["PING"])?;
        Ok(None)
    }

    fn login(&self, _: &Spec, password: &str) -> (String, String, String) {
        (String::new(), password.to_owned(), "0".into())
    }

    fn set_up(&self, _: &Spec, _: &Endpoint) -> Result<()> {
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
        let mut client = self.client(endpoint)?;
        client.call(&["SELECT", &endpoint.database])?;
        let text = String::from_utf8_lossy(content);
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let failed = |detail: String| {
                Problem::new(ProblemKind::PrepareFailed, format!("{name}:{} failed", number + 1))
                    .detail(detail)
            };
            if Instant::now() > deadline {
                return Err(failed("the time for preparing was up".into()));
            }
            let words = split(line).ok_or_else(|| failed(format!("a quote is not closed: {line}")))?;
            let words: Vec<_> = words.iter().map(String::as_str).collect();
            client.call(&words).map_err(|problem| failed(problem.detail))?;
        }
        Ok(())
    }

    fn before_freeze(&self, _spec: &Spec, endpoint: &Endpoint) -> Result<()> {
        self.client(endpoint)?.call(&["SAVE"]).map(drop)
    }

    fn url(&self, endpoint: &Endpoint) -> String {
        let Endpoint { host, port, user, password, database, .. } = endpoint;
        // With the name of the default user, because redis-cli does not take a password alone.
        let user = if user.is_empty() { "default" } else { user };
        let login = if password.is_empty() {
            String::new()
        } else {
            format!("{}:{}@", url_part(user), url_part(password))
        };
        format!("redis://{login}{host}:{port}/{database}")
    }

    fn socket(&self, endpoint: &Endpoint) -> PathBuf {
        endpoint.socket_dir.join("redis.sock")
    }

    fn connect_command(&self, build: &EngineBuild, endpoint: &Endpoint) -> String {
        let Endpoint { host, port, database, .. } = endpoint;
        if endpoint.is_remote() {
            return format!("redis-cli -h {} -p {port} -n {}", shell_word(host), shell_word(database));
        }
        let socket = self.socket(endpoint).display().to_string();
        let login = match endpoint.password.as_str() {
            "" => String::new(),
            password => format!("REDISCLI_AUTH={} ", shell_word(password)),
        };
        let number = if database == "0" { String::new() } else { format!(" -n {}", shell_word(database)) };
        format!("{login}{}-cli -s {}{number}", build.engine.name, shell_word(&socket))
    }

    fn namespaces(&self) -> Option<&'static dyn Namespaces> {
        Some(&Redis)
    }
}

/// Quotes a value for `redis.conf`.
fn quote(value: &str) -> String {
    let escaped: String = value
        .bytes()
        .map(|byte| match byte {
            b'"' | b'\\' => format!("\\{}", char::from(byte)),
            0x20..=0x7e => char::from(byte).to_string(),
            _ => format!("\\x{byte:02x}"),
        })
        .collect();
    format!("\"{escaped}\"")
}

/// Splits a line into words; single and double quotes keep spaces. `None` when a quote is not closed.
fn split(line: &str) -> Option<Vec<String>> {
    let (mut words, mut word, mut in_word) = (Vec::new(), String::new(), false);
    let mut quote = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some('"'), '\\') => word.push(match chars.next()? {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                other => other,
            }),
            (None, '"' | '\'') => (quote, in_word) = (Some(c), true),
            (None, c) if c.is_whitespace() => {
                if std::mem::take(&mut in_word) {
                    words.push(std::mem::take(&mut word));
                }
            }
            (_, c) => {
                word.push(c);
                in_word = true;
            }
        }
    }
    if in_word {
        words.push(word);
    }
    quote.is_none().then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_split_as_redis_cli_splits_them() {
        assert_eq!(split(r#"SET "a b" 'c d' e"#).unwrap(), ["SET", "a b", "c d", "e"]);
        assert_eq!(split(r#"SET k """#).unwrap(), ["SET", "k", ""]);
        assert_eq!(split(r#"SET k "a\"b""#).unwrap(), ["SET", "k", "a\"b"]);
        assert_eq!(split("SET 'k"), None);
    }

    #[test]
    fn values_cannot_break_out_of_their_quotes() {
        assert_eq!(quote("a\"b\n"), r#""a\"b\x0a""#);
    }
}
