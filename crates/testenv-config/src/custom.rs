//! `service = "custom"`: what only a service has that the workspace describes itself.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use crate::service::{KindConfig, PrepareStep, ServiceConfig};
use crate::template;
use crate::words::split;

/// Placeholders of the server itself; those of its ports come on top.
const OF_SERVER: [&str; 9] =
    ["host", "port", "user", "password", "database", "role", "root", "data", "socket_dir"];
/// Placeholders for whoever uses it: the data directory is closed to them.
const OF_CLIENTS: [&str; 10] =
    ["url", "host", "port", "user", "password", "database", "role", "root", "socket", "socket_dir"];
/// Placeholders of the namespace at hand, in commands that make, remove and list namespaces.
const OF_NAMESPACES: [&str; 5] = ["name", "random", "server.user", "server.password", "server.database"];

/// The server's command line: one text, or its words.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged, expecting = "a command line, or a list of its words")]
pub enum CommandConfig {
    /// A command line. It is split into words at spaces that no quotes keep together; there is no shell.
    Line(String),
    /// Its words.
    Words(Vec<String>),
}

impl CommandConfig {
    /// Its words, placeholders and all.
    ///
    /// # Errors
    /// What is wrong with the line.
    pub fn words(&self) -> Result<Vec<String>, String> {
        match self {
            Self::Line(line) => split(line),
            Self::Words(words) => Ok(words.clone()),
        }
    }
}

/// How it is known that a custom server is ready: one of `log`, `http`, `tcp` and `command`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ReadyConfig {
    /// A text that a line of its log has.
    pub log: Option<String>,
    /// A path at which it answers a GET with `status`.
    pub http: Option<String>,
    /// Status of that answer; any from 200 to 299 when absent.
    pub status: Option<u16>,
    /// `true`: it accepts connections. That is all that is known of a server for which nothing is said.
    pub tcp: Option<bool>,
    /// A command that succeeds as soon as the server is ready; given to `sh -c`.
    pub command: Option<String>,
    /// Name of the port that `http` and `tcp` are about; the first when absent.
    pub port: Option<String>,
}

/// The one way that a [`ReadyConfig`] names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready<'a> {
    /// A text in the log.
    Log(&'a str),
    /// An answer to a GET of this path: with this status, else with any of success.
    Http(&'a str, Option<u16>),
    /// A connection.
    Tcp,
    /// The success of a command.
    Command(&'a str),
}

/// How namespaces come and go in a custom server. The commands are given to `sh -c` in the workspace's root.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NamespaceConfig {
    /// Makes the namespace `{name}`, with a login of its own where the server has such.
    pub create: String,
    /// Removes it, with all that is in it; one that is not there is no failure.
    pub remove: String,
    /// Prints the names of those there are, one in a line: for servers that others run, in which killed brokers
    /// leave some behind.
    #[serde(default)]
    pub list: Option<String>,
    /// User of the namespace; the server's when absent.
    #[serde(default)]
    pub user: Option<String>,
    /// Password of the namespace; the server's when absent. `{random}` is one that nobody can guess.
    #[serde(default)]
    pub password: Option<String>,
    /// What `{database}` is in the namespace; `{name}` when absent.
    #[serde(default)]
    pub database: Option<String>,
}

/// Content of a file that a custom server finds in its data directory.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged, expecting = "a text, or a table with `from`")]
pub enum FileConfig {
    /// The content, with placeholders.
    Text(String),
    /// A file of the workspace that has it.
    From(FromTable),
}

/// Where a file's content is from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct FromTable {
    /// A file of the workspace, with placeholders.
    pub from: PathBuf,
}

/// A signal that asks a server to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "they are what they are called")]
pub enum SignalConfig {
    Sigterm,
    Sigint,
    Sigquit,
    Sighup,
    Sigusr1,
    Sigusr2,
    Sigkill,
}

impl ReadyConfig {
    /// The one way that is named; connections where none is.
    ///
    /// # Errors
    /// When several are named.
    pub fn way(&self) -> Result<Ready<'_>, String> {
        let mut ways = Vec::new();
        ways.extend(self.log.as_deref().map(Ready::Log));
        ways.extend(self.http.as_deref().map(|path| Ready::Http(path, self.status)));
        ways.extend(self.tcp.filter(|tcp| *tcp).map(|_| Ready::Tcp));
        ways.extend(self.command.as_deref().map(Ready::Command));
        match ways.as_slice() {
            [] => Ok(Ready::Tcp),
            [way] => Ok(*way),
            _ => Err("it names several ways; give one of `log`, `http`, `tcp` and `command`".into()),
        }
    }
}

impl ServiceConfig {
    /// Name of the first port of a custom service, which is `{port}` too.
    pub fn first_port(&self) -> Option<&str> {
        self.ports.first().map(String::as_str)
    }

    /// Name of the variable that has a further port of a custom service, for its clients, and for testenv where
    /// others run the server.
    pub fn port_env(&self, port: &str) -> String {
        format!("{}_PORT_{}", variable(&self.role), variable(port))
    }

    /// Names of the variables that a custom service fills when its table names none.
    pub(crate) fn custom_env(&self) -> BTreeMap<String, String> {
        let of_role = variable(&self.role);
        let mut env: BTreeMap<_, _> = [("URL", "{url}"), ("HOST", "{host}"), ("PORT", "{port}")]
            .map(|(name, template)| (format!("{of_role}_{name}"), template.to_owned()))
            .into();
        for port in self.ports.iter().skip(1) {
            env.insert(self.port_env(port), format!("{{port.{port}}}"));
        }
        let login = [("user", &self.user), ("password", &self.password), ("database", &self.database)];
        for (name, given) in login {
            if given.is_some() || self.namespace.is_some() || self.mentions(name) {
                env.insert(format!("{of_role}_{}", name.to_uppercase()), format!("{{{name}}}"));
            }
        }
        env
    }

    /// Whether the server is told this.
    fn mentions(&self, name: &str) -> bool {
        let placeholder = format!("{{{name}}}");
        let words = self.command.as_ref().and_then(|command| command.words().ok()).unwrap_or_default();
        let files = self.files.values().filter_map(|file| match file {
            FileConfig::Text(text) => Some(text),
            FileConfig::From(_) => None,
        });
        let mut texts = words.iter().chain(self.environment.values()).chain(files).chain(&self.url);
        texts.any(|text| text.contains(&placeholder))
    }

    /// Placeholders that stand for ports.
    pub(crate) fn port_placeholders(&self) -> Vec<String> {
        let first = self.first_port().map(str::to_owned);
        self.port_names().into_iter().chain(first).map(|name| format!("port.{name}")).collect()
    }

    /// Checks what only a custom service has.
    pub(crate) fn check_custom(&self) -> Result<(), (String, String)> {
        let wrong = |key: &str, what: &str| Err((key.to_owned(), what.to_owned()));
        let Some(command) = &self.command else {
            return wrong("command", "a custom service needs the command line of its server");
        };
        let words = command.words().map_err(|what| ("command".to_owned(), what))?;
        if words.first().is_none_or(String::is_empty) {
            return wrong("command", "it is empty; its first word is the server's program");
        }
        self.check_ports()?;
        let ready = self.ready.clone().unwrap_or_default();
        self.check_ready(&ready)?;
        if self.namespace.is_none() && self.isolation == Some(crate::IsolationConfig::Namespace) {
            return wrong(
                "namespace",
                "a custom service has namespaces only where a table says how they are made",
            );
        }
        if self.steps().iter().any(|step| matches!(step, PrepareStep::Files(_))) {
            let what =
                "testenv does not know how this service takes files; give { command = …, inputs = […] }";
            return wrong(if self.migrations.is_some() { "migrations" } else { "seed" }, what);
        }
        for name in self.files.keys() {
            let mut parts = Path::new(name).components();
            if name.is_empty() || !parts.all(|part| matches!(part, Component::Normal(_))) {
                return wrong("files", &format!("{name:?} is not a path inside the data directory"));
            }
        }
        if let Some(name) = self.environment.keys().find(|name| name.is_empty() || name.contains(['=', '\0']))
        {
            return wrong("environment", &format!("{name:?} cannot be the name of a variable"));
        }
        self.check_placeholders(&words, &ready)
    }

    fn check_ports(&self) -> Result<(), (String, String)> {
        let wrong = |what: String| Err(("ports".to_owned(), what));
        if self.ports.is_empty() {
            return wrong(
                "a custom service needs at least one, such as [\"http\"]; the first is `{port}`".into(),
            );
        }
        let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
        for (index, name) in self.ports.iter().enumerate() {
            if name.is_empty() || !name.chars().all(word) {
                return wrong(format!("{name:?} is not a name of a-z, 0-9, `_` and `-`"));
            }
            if self.ports[..index].contains(name) {
                return wrong(format!("{name:?} is there twice"));
            }
        }
        Ok(())
    }

    fn check_ready(&self, ready: &ReadyConfig) -> Result<(), (String, String)> {
        let wrong = |what: String| Err(("ready".to_owned(), what));
        let way = ready.way().map_err(|what| ("ready".to_owned(), what))?;
        if let Some(port) = ready.port.as_ref().filter(|port| !self.ports.contains(port)) {
            return wrong(format!("there is no port {port:?} among `ports`"));
        }
        match way {
            Ready::Http(path, _) if !path.starts_with('/') || path.contains(|c: char| c <= ' ') => {
                wrong(format!("{path:?} is not a path such as \"/health\""))
            }
            Ready::Http(_, Some(status)) if !(100..600).contains(&status) => {
                wrong(format!("{status} is not a status of HTTP"))
            }
            Ready::Log("") => wrong("every line has an empty text".into()),
            _ if ready.status.is_some() && ready.http.is_none() => wrong("`status` goes with `http`".into()),
            _ => Ok(()),
        }
    }

    fn check_placeholders(&self, words: &[String], ready: &ReadyConfig) -> Result<(), (String, String)> {
        let ports = self.port_placeholders();
        let known = |own: &[&'static str]| -> Vec<(String, String)> {
            let own = own.iter().map(|name| (*name).to_owned());
            own.chain(ports.iter().cloned()).map(|name| (name, String::new())).collect()
        };
        let check = |key: &str, known: &[(String, String)], texts: &mut dyn Iterator<Item = &String>| {
            let known: Vec<_> = known.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            for text in texts {
                template::fill(text, &known, str::to_owned)
                    .map_err(|error| (key.to_owned(), error.to_string()))?;
            }
            Ok::<_, (String, String)>(())
        };
        let (server, clients) = (known(&OF_SERVER), known(&OF_CLIENTS));
        let commands: Vec<_> = server.iter().chain(&known(&["url"])).cloned().collect();
        check("command", &server, &mut words.iter())?;
        check("environment", &server, &mut self.environment.values())?;
        let texts = self.files.values().filter_map(|file| match file {
            FileConfig::Text(text) => Some(text),
            FileConfig::From(_) => None,
        });
        check("files", &server, &mut texts.into_iter())?;
        check("ready", &commands, &mut ready.command.iter())?;
        check("reset", &commands, &mut self.reset.iter())?;
        let steps = self.steps().into_iter().filter_map(|step| match step {
            PrepareStep::Command(table) => Some(&table.command),
            PrepareStep::Files(_) => None,
        });
        check("migrations or seed", &commands, &mut steps.into_iter())?;
        let without_url: Vec<_> = clients.iter().filter(|(name, _)| name != "url").cloned().collect();
        check("url", &without_url, &mut self.url.iter())?;
        check("connect", &clients, &mut self.connect.iter())?;
        if let Some(recipe) = &self.namespace {
            let of_name: Vec<_> = known(&OF_NAMESPACES);
            let NamespaceConfig { create, remove, list, user, password, database } = recipe;
            let mut names = user.iter().chain(password).chain(database);
            check("namespace", &of_name, &mut names)?;
            let all: Vec<_> = commands.iter().chain(&of_name).cloned().collect();
            check("namespace", &all, &mut [create, remove].into_iter().chain(list))?;
        }
        Ok(())
    }
}

/// A name as part of the name of an environment variable.
fn variable(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

/// Keys that only a custom service has, and whether they are given.
pub(crate) fn only_custom(config: &ServiceConfig) -> [(&'static str, bool, &'static [KindConfig]); 12] {
    const CUSTOM: &[KindConfig] = &[KindConfig::Custom];
    [
        ("command", config.command.is_some(), CUSTOM),
        ("ports", !config.ports.is_empty(), CUSTOM),
        ("environment", !config.environment.is_empty(), CUSTOM),
        ("files", !config.files.is_empty(), CUSTOM),
        ("inputs", !config.inputs.is_empty(), CUSTOM),
        ("ready", config.ready.is_some(), CUSTOM),
        ("url", config.url.is_some(), CUSTOM),
        ("connect", config.connect.is_some(), CUSTOM),
        ("in_memory", config.in_memory, CUSTOM),
        ("namespace", config.namespace.is_some(), CUSTOM),
        ("reset", config.reset.is_some(), CUSTOM),
        ("stop_signal", config.stop_signal.is_some(), CUSTOM),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    const SERVER: &str = "[services.my-mail]\nservice = \"custom\"\ncommand = \"server --port={port}\"\nports = [\"smtp\", \"http\"]\n";

    fn parse(more: &str) -> Result<ServiceConfig, String> {
        let parsed = Config::parse(&format!("{SERVER}{more}"), Path::new("testenv.toml"));
        parsed.map(|mut config| config.services.remove("my-mail").unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_role_fills_variables_of_its_own_name() {
        let env = parse("").unwrap().env_templates();
        let names: Vec<_> = env.iter().map(|(name, template)| format!("{name}={template}")).collect();
        assert_eq!(
            names,
            [
                "MY_MAIL_HOST={host}",
                "MY_MAIL_PORT={port}",
                "MY_MAIL_PORT_HTTP={port.http}",
                "MY_MAIL_URL={url}"
            ]
        );
        let env = parse("environment = { TOKEN = \"{password}\" }").unwrap().env_templates();
        assert_eq!(env["MY_MAIL_PASSWORD"], "{password}");
    }

    #[test]
    fn what_is_known_of_readiness_is_one_thing() {
        let way = |more: &str| {
            let ready = parse(&format!("ready = {{ {more} }}")).unwrap().ready.unwrap();
            format!("{:?}", ready.way().unwrap())
        };
        assert_eq!(way(""), "Tcp");
        assert_eq!(way("log = \"up\""), "Log(\"up\")");
        assert_eq!(way("http = \"/health\", status = 204, port = \"http\""), "Http(\"/health\", Some(204))");
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_a_way_out() {
        for (more, says) in [
            ("ready = { tcp = true, log = \"x\" }", "ready: it names several ways"),
            ("ready = { http = \"health\" }", "is not a path such as"),
            ("ready = { http = \"/\", status = 7 }", "7 is not a status"),
            ("ready = { tcp = true, port = \"admin\" }", "no port \"admin\" among `ports`"),
            ("ready = { log = \"x\", status = 200 }", "`status` goes with `http`"),
            ("ready = { pid = 7 }", "unknown field `pid`"),
            ("isolation = \"namespace\"", "namespace: a custom service has namespaces only where"),
            ("seed = \"seed.sql\"", "seed: testenv does not know how"),
            ("files = { \"../x\" = \"\" }", "files: \"../x\" is not a path inside"),
            ("files = { \"/etc/x\" = \"\" }", "is not a path inside"),
            ("files = { \"x\" = \"{prot}\" }", "files: unknown placeholder {prot}; known are {host}, {port}"),
            ("environment = { A = \"{port.admin}\" }", "environment: unknown placeholder {port.admin}"),
            ("url = \"http://{host}:{port}/{data}\"", "url: unknown placeholder {data}"),
            ("reset = \"curl {ulr}/reset\"", "reset: unknown placeholder {ulr}"),
            (
                "namespace = { create = \"x {nmae}\", remove = \"y\" }",
                "namespace: unknown placeholder {nmae}",
            ),
            ("namespace = { create = \"x\" }", "missing field `remove`"),
            ("stop_signal = \"SIGWHAT\"", "unknown variant `SIGWHAT`"),
            ("locale = \"C\"", "locale: only postgres has this"),
        ] {
            let error = parse(more).unwrap_err();
            assert!(error.contains(says), "{more}: {error}");
        }
        for (config, says) in [
            ("service = \"custom\"", "command: a custom service needs the command line"),
            ("service = \"custom\"\ncommand = \"a\"", "ports: a custom service needs at least one"),
            ("service = \"custom\"\ncommand = \"\"\nports = [\"a\"]", "command: it is empty"),
            ("service = \"custom\"\ncommand = \"a\"\nports = [\"a\", \"a\"]", "\"a\" is there twice"),
            ("service = \"custom\"\ncommand = \"a\"\nports = [\"A b\"]", "is not a name of a-z"),
            ("service = \"custom\"\ncommand = \"a > b\"\nports = [\"a\"]", "no shell runs it"),
            ("service = \"redis\"\ncommand = \"a\"", "command: only custom has this"),
            ("service = \"redis\"\nreset = \"a\"", "reset: only custom has this"),
        ] {
            let error = Config::parse(&format!("[services.x]\n{config}\n"), Path::new("t")).unwrap_err();
            assert!(error.to_string().contains(says), "{config}: {error}");
        }
    }
}
