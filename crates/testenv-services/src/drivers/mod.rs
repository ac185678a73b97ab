//! What is different from one kind of service to the next: a folder for each, and the traits they implement.
//!
//! A new kind is a folder here, a variant of [`ServiceKind`] and of the configuration's `KindConfig`, and a line
//! in [`of`].

mod clickhouse;
mod custom;
mod http;
mod kafka;
mod mysql;
mod nats;
pub(crate) mod postgres;
mod rabbitmq;
mod redis;
mod s3;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use testenv_api::ServiceKind;
use testenv_config::ServiceConfig;

use crate::engine::{EngineBuild, Search};
use crate::machine::Machine;
use crate::namespace::{Clones, Origin, Replay};
use crate::process::User;
use crate::server::{Server, Session};
use crate::service::{Endpoint, Spec};
use crate::snapshot::Template;
use crate::{Result, engine, external};

/// The driver of a kind.
pub(crate) fn of(kind: ServiceKind) -> &'static dyn Driver {
    match kind {
        ServiceKind::Postgres => &postgres::Postgres,
        ServiceKind::Redis => &redis::Redis,
        ServiceKind::Nats => &nats::Nats,
        ServiceKind::Mysql => &mysql::Mysql,
        ServiceKind::Kafka => &kafka::Kafka,
        ServiceKind::Rabbitmq => &rabbitmq::RabbitMq,
        ServiceKind::Clickhouse => &clickhouse::Clickhouse,
        ServiceKind::S3 => &s3::S3,
        ServiceKind::Custom => &custom::Custom,
    }
}

/// First line of every configuration file.
pub(crate) const CONFIG_HEADER: &str =
    "# Written by testenv: its own settings first, then those of testenv.toml.\n";

/// A program to start.
#[derive(Debug, Default)]
pub(crate) struct Command {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    /// Added to the little that a server's environment has: `PATH`, `HOME`, `LANG`.
    pub(crate) env: Vec<(OsString, OsString)>,
}

/// The directories of a fork.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dirs<'a> {
    /// The snapshot's data, never to be written to.
    pub(crate) frozen: &'a Path,
    /// The server's own data.
    pub(crate) data: &'a Path,
}

/// Finishes a template in the data of the server that it was made in, once that has stopped.
pub(crate) type Finish = Box<dyn FnOnce(&Path) -> std::io::Result<()>>;

/// One kind of service, as a server that testenv prepares, forks and starts.
pub(crate) trait Driver: Sync {
    /// How its builds are found on a machine.
    fn search(&self, config: &ServiceConfig) -> Search;

    /// Finds the build in a way of its own, where its programs are not known beforehand.
    ///
    /// # Errors
    /// [`ProblemKind::EngineMissing`].
    fn find(
        &self,
        _config: &ServiceConfig,
        _root: &Path,
        _path: &str,
        _user: Option<&User>,
    ) -> Result<Option<EngineBuild>> {
        Ok(None)
    }

    /// Version of a program that was found.
    ///
    /// # Errors
    /// When it cannot be run, or says nothing that looks like a version.
    fn version(&self, program: &Path) -> std::io::Result<String> {
        engine::ask_version(program, &["--version"])
    }

    /// What an engine of this version is called, where its program's name does not tell.
    fn engine_name(&self, name: &'static str, _version: &str) -> &'static str {
        name
    }

    /// The file whose checksum tells this build from others.
    fn identity(&self, program: &Path) -> PathBuf {
        program.to_path_buf()
    }

    /// What runs the program of a build with this version, found with the help of `path`, the value of `PATH`;
    /// `None` for programs that run by themselves.
    ///
    /// # Errors
    /// [`ProblemKind::EngineMissing`] when there is none, or testenv cannot run this version.
    fn interpreter(&self, _version: &str, _path: &str) -> Result<Option<PathBuf>> {
        Ok(None)
    }

    /// A setting in the configuration that testenv itself has to control, and why.
    fn reserved_setting(&self, config: &ServiceConfig) -> Option<(String, &'static str)>;

    /// Files that a step given as a directory consists of, by their endings; all files when empty.
    fn file_endings(&self) -> &'static [&'static str];

    /// Names of the ports that a server needs beside its main one.
    fn further_ports(&self, spec: &Spec) -> Vec<String> {
        spec.config.port_names()
    }

    /// What a server is taken to need before one was measured, in bytes.
    fn memory(&self) -> u64 {
        12 << 20
    }

    /// Whether its servers rename directories that were there when they were frozen, which not every way of
    /// forking allows.
    fn renames_directories(&self) -> bool {
        false
    }

    /// How long a server may take to accept connections.
    fn start_timeout(&self, _spec: &Spec) -> Duration {
        Duration::from_secs(30)
    }

    /// How long a server may take to stop cleanly.
    fn stop_timeout(&self) -> Duration {
        Duration::from_secs(30)
    }

    /// What makes a server stop cleanly.
    fn stop_signal(&self) -> Signal {
        Signal::TERM
    }

    /// The same where the configuration decides it.
    fn signal_of(&self, _spec: &Spec) -> Signal {
        self.stop_signal()
    }

    /// What decides, beside all else that is known, what a server is: part of the key of its snapshot.
    fn describe(&self, _spec: &Spec) -> String {
        String::new()
    }

    /// Files and directories of the workspace that a server is made of: part of that key too.
    fn parts(&self, _spec: &Spec) -> Vec<PathBuf> {
        Vec::new()
    }

    /// Turns an empty directory into the data of a new server.
    fn init(&self, machine: &Machine, spec: &Spec, data: &Path) -> Result<()>;

    /// The configuration files of a server, by their names in its data directory. They are frozen with it, so
    /// nothing in them may be about one server, as its port is.
    fn config_files(&self, spec: &Spec, password: &str) -> Vec<(&'static str, String)>;

    /// Last thing before a server is started on its data: what in there is about this one server.
    fn before_start(
        &self,
        _machine: &Machine,
        _spec: &Spec,
        _data: &Path,
        _endpoint: &Endpoint,
    ) -> Result<()> {
        Ok(())
    }

    /// The server's program; `shared` when many leases will use it at once.
    fn command(&self, spec: &Spec, data: &Path, endpoint: &Endpoint, shared: bool) -> Command;

    /// The program of a server that is only there to be prepared and frozen.
    fn command_to_prepare(&self, spec: &Spec, data: &Path, endpoint: &Endpoint) -> Command {
        self.command(spec, data, endpoint, false)
    }

    /// Whether a line of the log says that the server accepts connections.
    fn is_ready(&self, line: &str) -> bool;

    /// The same where the configuration decides it.
    fn says_ready(&self, _spec: &Spec, line: &str) -> bool {
        self.is_ready(line)
    }

    /// For servers whose log does not say it: asks the server itself whether it is ready, every few
    /// milliseconds. `None` where the log is the one to go by; an error says what was seen instead.
    fn ask_ready(&self, _spec: &Spec, _endpoint: &Endpoint) -> Option<Result<(), String>> {
        None
    }

    /// The part of a log that says why a server did not start, where that is not its end.
    fn reason<'a>(&self, log: &'a str) -> &'a str {
        log
    }

    /// Lines of a log that tell people nothing, as those of a stack trace.
    fn noise(&self) -> fn(&str) -> bool {
        |_| false
    }

    /// Whether a log says that the server's port was taken.
    fn port_is_taken(&self, log: &str) -> bool;

    /// Makes a server that is ready a fast one, and has it answer a question that only this server can answer.
    /// With `session`, also opens a session on it, to be handed over.
    fn warm_up(
        &self,
        machine: &Machine,
        spec: &Spec,
        endpoint: &Endpoint,
        dirs: Dirs<'_>,
        session: bool,
    ) -> Result<Option<Session>>;

    /// Creates users, databases, extensions in a new server.
    fn set_up(&self, spec: &Spec, endpoint: &Endpoint) -> Result<()>;

    /// Applies one file of migrations or seed. `name` is its path as people know it.
    fn apply(
        &self,
        spec: &Spec,
        endpoint: &Endpoint,
        name: &str,
        content: &[u8],
        deadline: Instant,
    ) -> Result<()>;

    /// A command of migrations or seed as it is given to the shell.
    fn command_line(&self, _spec: &Spec, _endpoint: &Endpoint, command: &str) -> String {
        command.to_owned()
    }

    /// Brings a shared server back to where it began, before somebody else has it.
    fn reset(&self, _machine: &Machine, _spec: &Spec, _endpoint: &Endpoint) -> Result<()> {
        Ok(())
    }

    /// What a server is doing now, for the message about a step that took too long.
    fn doing(&self, _endpoint: &Endpoint) -> String {
        String::new()
    }

    /// Last thing before a prepared server is stopped to be frozen.
    fn before_freeze(&self, _spec: &Spec, _endpoint: &Endpoint) -> Result<()> {
        Ok(())
    }

    /// Last thing after it was stopped: removes what a fork has no use for.
    fn after_freeze(&self, _data: &Path) -> std::io::Result<()> {
        Ok(())
    }

    /// User, password and database that a new server is used with.
    fn login(&self, spec: &Spec, password: &str) -> (String, String, String);

    /// URL over TCP.
    fn url(&self, endpoint: &Endpoint) -> String;

    /// The same where the configuration decides it.
    fn url_of(&self, _spec: &Spec, endpoint: &Endpoint) -> String {
        self.url(endpoint)
    }

    /// Where the unix socket is, in the form that the service's clients take; empty where there is none.
    fn socket(&self, _endpoint: &Endpoint) -> PathBuf {
        PathBuf::new()
    }

    /// Shell command that connects a client.
    fn connect_command(&self, build: &EngineBuild, endpoint: &Endpoint) -> String;

    /// The same where the configuration decides it.
    fn connect_command_of(&self, spec: &Spec, endpoint: &Endpoint) -> String {
        self.connect_command(&spec.build, endpoint)
    }

    /// Namespaces in a shared server, where the kind has them.
    fn namespaces(&self) -> Option<&'static dyn Namespaces>;

    /// Whether namespaces are cloned from something that has to be made first.
    fn has_template(&self) -> bool {
        false
    }

    /// What namespaces are cloned from, made in a server of the prepared snapshot: recorded with the snapshot
    /// that it is then frozen as. `None` where the prepared snapshot is all it takes.
    fn make_template(&self, _spec: &Spec, _server: &Server) -> Result<Option<(Template, Finish)>> {
        Ok(None)
    }

    /// How prepared namespaces come into being in a shared server: by applying the role's steps to an empty one,
    /// unless the kind knows a quicker way.
    fn clones(
        &self,
        machine: &Arc<Machine>,
        spec: &Arc<Spec>,
        origin: Origin<'_>,
    ) -> Result<Box<dyn Clones>> {
        Ok(Box::new(Replay::new(machine, spec, origin)?))
    }
}

/// Namespaces in a server that many share, whoever runs it: it is reached by its endpoint alone.
///
/// A namespace is known by its name: `t_`, then a-z, 0-9 and `_`, 60 characters at the most. A kind of service
/// that allows no such names puts them into a form that it does.
pub(crate) trait Namespaces: std::fmt::Debug + Sync {
    /// Schemes of the URLs that declare a server, and the port where one names none.
    fn schemes(&self) -> (&'static [&'static str], u16);

    /// Reads how a server is reached from the variable that declares it, and from others where it takes more.
    ///
    /// # Errors
    /// What is wrong with the value, without the value itself: there may be a password in it.
    fn declared(&self, value: &str, _environment: &BTreeMap<String, String>) -> Result<Endpoint, String> {
        let (schemes, port) = self.schemes();
        external::read_url(value, schemes, port)
    }

    /// The version that a server says it has, asked with the login it is declared with.
    fn ask_version(&self, server: &Endpoint) -> Result<String>;

    /// Creates an empty namespace, with a login that reaches no other where the service has such; says how to
    /// use it.
    fn create(&self, spec: &Spec, server: &Endpoint, name: &str) -> Result<Endpoint>;

    /// Removes a namespace and all that is in it. It is no error if there is none.
    fn remove(&self, spec: &Spec, server: &Endpoint, name: &str) -> Result<()>;

    /// Names of the namespaces there are that begin with `t_`, whoever made them.
    fn list(&self, spec: &Spec, server: &Endpoint) -> Result<Vec<String>>;
}

/// Quotes a word for a shell.
pub(crate) fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@%+=,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Encodes what has a meaning in URLs.
pub(crate) fn url_part(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_a_shell_cannot_break_out() {
        assert_eq!(shell_word("plain-1.0"), "plain-1.0");
        assert_eq!(shell_word("a'b; rm"), r"'a'\''b; rm'");
        assert_eq!(shell_word(""), "''");
    }

    #[test]
    fn parts_of_a_url_are_encoded() {
        assert_eq!(url_part("p@ss/wörd"), "p%40ss%2Fw%C3%B6rd");
    }
}
