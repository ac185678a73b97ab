//! Redis and Valkey.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use testenv_api::{Problem, ProblemKind};
use testenv_config::{KindConfig, ServiceConfig};

use crate::Result;
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
/// How long a command of testenv's own may take.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest reply read.
const MAX_REPLY: u64 = 1 << 20;

/// The driver of Redis.
pub(crate) struct Redis;

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

    fn command(&self, spec: &Spec, data: &Path, endpoint: &Endpoint, _shared: bool) -> Command {
        let args = vec![
            data.join("redis.conf").into(),
            "--port".into(),
            endpoint.port.to_string().into(),
            "--unixsocket".into(),
            self.socket(endpoint).into(),
            "--dir".into(),
            data.into(),
        ];
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
        Client::open(endpoint)?.run(&["PING"])?;
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
        let mut client = Client::open(endpoint)?;
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
            client.run(&words).map_err(|problem| failed(problem.detail))?;
        }
        Ok(())
    }

    fn before_freeze(&self, _spec: &Spec, endpoint: &Endpoint) -> Result<()> {
        Client::open(endpoint)?.run(&["SAVE"])
    }

    fn url(&self, endpoint: &Endpoint) -> String {
        let Endpoint { host, port, password, database, .. } = endpoint;
        // With the name of the default user, because redis-cli does not take a password alone.
        let login =
            if password.is_empty() { String::new() } else { format!("default:{}@", url_part(password)) };
        format!("redis://{login}{host}:{port}/{database}")
    }

    fn socket(&self, endpoint: &Endpoint) -> PathBuf {
        endpoint.socket_dir.join("redis.sock")
    }

    fn connect_command(&self, build: &EngineBuild, endpoint: &Endpoint) -> String {
        let socket = self.socket(endpoint).display().to_string();
        let login = match endpoint.password.as_str() {
            "" => String::new(),
            password => format!("REDISCLI_AUTH={} ", shell_word(password)),
        };
        format!("{login}{}-cli -s {}", build.engine.name, shell_word(&socket))
    }

    fn namespaces(&self) -> Option<&'static dyn Namespaces> {
        None
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

/// As much of a client as preparing a server takes.
struct Client(BufReader<UnixStream>);

impl Client {
    fn open(endpoint: &Endpoint) -> Result<Self> {
        let stream =
            UnixStream::connect(Redis.socket(endpoint)).map_err(|error| failed(&error.to_string()))?;
        stream.set_read_timeout(Some(COMMAND_TIMEOUT)).map_err(|error| failed(&error.to_string()))?;
        let mut client = Self(BufReader::new(stream));
        if !endpoint.password.is_empty() {
            client.run(&["AUTH", &endpoint.password])?;
        }
        Ok(client)
    }

    /// Runs a command and reads the first line of its reply; an error reply is an error.
    fn run(&mut self, words: &[&str]) -> Result<()> {
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        let exchange = |this: &mut Self| {
            this.0.get_mut().write_all(request.as_bytes())?;
            this.reply()
        };
        match exchange(self) {
            Ok(reply) if reply.starts_with('-') => Err(failed(&format!("{}: {}", words[0], &reply[1..]))),
            Ok(_) => Ok(()),
            Err(error) => Err(failed(&format!("{}: {error}", words[0]))),
        }
    }

    /// Reads a whole reply and gives back its first line.
    fn reply(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        if self.0.by_ref().take(MAX_REPLY).read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let count: i64 = line.get(1..).and_then(|rest| rest.trim().parse().ok()).unwrap_or(0);
        match line.as_bytes().first() {
            Some(b'$') if count >= 0 => {
                let mut body = vec![0; usize::try_from(count).unwrap_or(0).min(MAX_REPLY as usize) + 2];
                self.0.read_exact(&mut body)?;
            }
            Some(b'*') => {
                for _ in 0..count.max(0) {
                    self.reply()?;
                }
            }
            _ => {}
        }
        Ok(line.trim_end().to_owned())
    }
}

fn failed(detail: &str) -> Problem {
    Problem::new(ProblemKind::PrepareFailed, "the Redis server refused a command").detail(detail)
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
