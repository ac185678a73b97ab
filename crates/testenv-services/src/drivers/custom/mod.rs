//! A service that the workspace describes itself, in `testenv.toml` alone.

mod namespace;
mod program;
mod ready;
mod shell;
mod values;

use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use testenv_api::{Problem, ProblemKind};
use testenv_config::{CommandConfig, FileConfig, ServiceConfig, SignalConfig};

use crate::drivers::{Command, Dirs, Driver, Namespaces, shell_word};
use crate::engine::{EngineBuild, Search};
use crate::machine::{self, Machine};
use crate::process::User;
use crate::server::Session;
use crate::service::{Endpoint, Spec};
use crate::snapshot::{Plan, perform};
use crate::{Result, fork, io_problem};

use values::Values;

/// How long a reset may take.
const RESET_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest template of a file, in bytes.
const MAX_TEMPLATE: u64 = 1 << 20;

/// The driver of custom services.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Custom;

impl Driver for Custom {
    fn search(&self, _config: &ServiceConfig) -> Search {
        Search { title: "custom", programs: &[], install: String::new(), dirs: Vec::new() }
    }

    fn find(
        &self,
        config: &ServiceConfig,
        root: &Path,
        path: &str,
        user: Option<&User>,
    ) -> Result<Option<EngineBuild>> {
        program::find(config, root, path, user).map(Some)
    }

    fn version(&self, _program: &Path) -> std::io::Result<String> {
        // Whatever is run to ask it may start a server instead.
        Ok("0".into())
    }

    fn reserved_setting(&self, config: &ServiceConfig) -> Option<(String, &'static str)> {
        let name = config.settings.keys().next()?;
        Some((name.clone(), "a custom service is set up by `command`, `environment` and `files`"))
    }

    fn file_endings(&self) -> &'static [&'static str] {
        &[]
    }

    fn memory(&self) -> u64 {
        64 << 20
    }

    fn signal_of(&self, spec: &Spec) -> Signal {
        match spec.config.stop_signal.unwrap_or(SignalConfig::Sigterm) {
            SignalConfig::Sigterm => Signal::TERM,
            SignalConfig::Sigint => Signal::INT,
            SignalConfig::Sigquit => Signal::QUIT,
            SignalConfig::Sighup => Signal::HUP,
            SignalConfig::Sigusr1 => Signal::USR1,
            SignalConfig::Sigusr2 => Signal::USR2,
            SignalConfig::Sigkill => Signal::KILL,
        }
    }

    fn describe(&self, spec: &Spec) -> String {
        let ServiceConfig { command, ports, environment, files, ready, in_memory, .. } = &spec.config;
        format!("{command:?} {ports:?} {environment:?} {files:?} {ready:?} {in_memory}")
    }

    fn parts(&self, spec: &Spec) -> Vec<PathBuf> {
        let words = words(&spec.config);
        let named = words.iter().filter_map(|word| in_workspace(spec, word)).filter(|path| path.is_file());
        let templates = spec.config.files.values().filter_map(|file| match file {
            FileConfig::From(table) => Some(spec.root.join(&table.from)),
            FileConfig::Text(_) => None,
        });
        let inputs = spec.config.inputs.iter().map(|path| spec.root.join(path));
        named.chain(templates).chain(inputs).collect()
    }

    fn init(&self, _machine: &Machine, _spec: &Spec, _data: &Path) -> Result<()> {
        Ok(())
    }

    fn config_files(&self, _spec: &Spec, _password: &str) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    fn before_start(&self, machine: &Machine, spec: &Spec, data: &Path, endpoint: &Endpoint) -> Result<()> {
        let user = machine.user.as_ref();
        for path in words(&spec.config).iter().filter_map(|word| in_workspace(spec, word)) {
            machine::check_reachable(&path, user, "command")?;
        }
        // Where commands find the data of the server that they are given.
        let link = Values::data_link(endpoint);
        let _ = fs::remove_file(&link);
        symlink(data, &link).map_err(|error| io_problem("note where the data is", &error))?;
        let values = Values::of_server(spec, endpoint);
        for (name, file) in &spec.config.files {
            let content = content(spec, file, &values)?;
            write(data, name, &content, user).map_err(|error| {
                let title = format!("services.{}.files: {name} cannot be written", spec.role);
                Problem::new(ProblemKind::StartFailed, title).detail(error.to_string())
            })?;
        }
        Ok(())
    }

    fn command(&self, spec: &Spec, data: &Path, endpoint: &Endpoint, _shared: bool) -> Command {
        let values = Values::of_server(spec, endpoint);
        let word = |word: &String| -> OsString {
            let path = in_workspace(spec, word);
            path.map_or_else(|| values.fill(word).into(), PathBuf::into_os_string)
        };
        let home = ("HOME".into(), data.into());
        let own = spec.config.environment.iter();
        let own = own.map(|(name, value)| (name.into(), values.fill(value).into()));
        Command {
            program: spec.build.program.clone(),
            args: words(&spec.config).iter().skip(1).map(word).collect(),
            env: std::iter::once(home).chain(own).collect(),
        }
    }

    fn is_ready(&self, _line: &str) -> bool {
        false
    }

    fn says_ready(&self, spec: &Spec, line: &str) -> bool {
        ready::says(spec, line)
    }

    fn ask_ready(&self, spec: &Spec, endpoint: &Endpoint) -> Option<Result<(), String>> {
        ready::ask(spec, endpoint)
    }

    fn port_is_taken(&self, log: &str) -> bool {
        let log = log.to_ascii_lowercase();
        ["already in use", "eaddrinuse", "address in use"].iter().any(|words| log.contains(words))
    }

    fn warm_up(
        &self,
        machine: &Machine,
        spec: &Spec,
        endpoint: &Endpoint,
        _dirs: Dirs<'_>,
        _session: bool,
    ) -> Result<Option<Session>> {
        if spec.config.in_memory {
            fill(machine, spec, endpoint)?;
        }
        Ok(None)
    }

    fn set_up(&self, _spec: &Spec, _endpoint: &Endpoint) -> Result<()> {
        Ok(())
    }

    fn apply(&self, _: &Spec, _: &Endpoint, name: &str, _: &[u8], _: Instant) -> Result<()> {
        Err(Problem::new(ProblemKind::InvalidConfig, format!("{name} is no command")))
    }

    fn command_line(&self, spec: &Spec, endpoint: &Endpoint, command: &str) -> String {
        Values::of_commands(spec, endpoint).fill_command(command)
    }

    fn reset(&self, machine: &Machine, spec: &Spec, endpoint: &Endpoint) -> Result<()> {
        let Some(reset) = &spec.config.reset else { return Ok(()) };
        let values = Values::of_commands(spec, endpoint);
        shell::run(spec, &values.fill_command(reset), Instant::now() + RESET_TIMEOUT)?;
        if spec.config.in_memory { fill(machine, spec, endpoint) } else { Ok(()) }
    }

    fn login(&self, spec: &Spec, password: &str) -> (String, String, String) {
        (spec.config.user().to_owned(), password.to_owned(), spec.config.database().to_owned())
    }

    fn url(&self, endpoint: &Endpoint) -> String {
        format!("http://{}:{}", endpoint.host, endpoint.port)
    }

    fn url_of(&self, spec: &Spec, endpoint: &Endpoint) -> String {
        match &spec.config.url {
            Some(template) => Values::of_clients(spec, endpoint, "").fill(template),
            None => self.url(endpoint),
        }
    }

    fn socket(&self, endpoint: &Endpoint) -> PathBuf {
        endpoint.socket_dir.clone()
    }

    fn connect_command(&self, _build: &EngineBuild, endpoint: &Endpoint) -> String {
        format!("nc {} {}", shell_word(&endpoint.host), endpoint.port)
    }

    fn connect_command_of(&self, spec: &Spec, endpoint: &Endpoint) -> String {
        let url = self.url_of(spec, endpoint);
        match &spec.config.connect {
            Some(template) => Values::of_clients(spec, endpoint, &url).fill_command(template),
            None if url.starts_with("http") => format!("curl -i {}", shell_word(&url)),
            None => self.connect_command(&spec.build, endpoint),
        }
    }

    fn namespaces(&self) -> Option<&'static dyn Namespaces> {
        Some(&Self)
    }
}

/// Applies migrations and seed to a server that keeps nothing.
fn fill(machine: &Machine, spec: &Spec, endpoint: &Endpoint) -> Result<()> {
    let deadline = Instant::now() + spec.config.prepare_timeout();
    for stage in Plan::read(spec, machine)?.steps() {
        perform(machine, spec, endpoint, stage, deadline, &|_| {})?;
    }
    Ok(())
}

/// The words of the server's command line, which was found to be well when `testenv.toml` was read.
fn words(config: &ServiceConfig) -> Vec<String> {
    config.command.as_ref().map(CommandConfig::words).and_then(Result::ok).unwrap_or_default()
}

/// The file or directory of the workspace that a word names.
fn in_workspace(spec: &Spec, word: &str) -> Option<PathBuf> {
    let may_be_path = !word.is_empty() && !word.starts_with('-') && Path::new(word).is_relative();
    may_be_path.then(|| spec.root.join(word)).filter(|path| path.exists())
}

/// Content of a file for the server, filled in.
fn content(spec: &Spec, file: &FileConfig, values: &Values) -> Result<String> {
    let from = match file {
        FileConfig::Text(text) => return Ok(values.fill(text)),
        FileConfig::From(table) => &table.from,
    };
    let problem = |detail: String| {
        let title = format!("services.{}.files: {} cannot be used", spec.role, from.display());
        Problem::new(ProblemKind::InvalidConfig, title).detail(detail)
    };
    let path = spec.root.join(from);
    let meta = fs::metadata(&path).map_err(|error| problem(error.to_string()))?;
    if !meta.is_file() || meta.len() > MAX_TEMPLATE {
        return Err(problem(format!("it is not a file of {} MiB at most", MAX_TEMPLATE >> 20)));
    }
    let text = fs::read_to_string(&path).map_err(|error| problem(error.to_string()))?;
    values.try_fill(&text).map_err(problem)
}

/// Writes a file into the data directory, where the server may have been before: nothing of it is followed.
fn write(data: &Path, name: &str, content: &str, user: Option<&User>) -> std::io::Result<()> {
    let data = data.canonicalize()?;
    let mut dir = data.clone();
    let path = data.join(name);
    for part in Path::new(name).parent().into_iter().flat_map(Path::components) {
        dir.push(part);
        match fork::make_dir(&dir, 0o755, user) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            made => made?,
        }
        if dir.canonicalize()? != dir {
            return Err(std::io::Error::other(format!("{} is a link", dir.display())));
        }
    }
    match fs::remove_file(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        removed => removed?,
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).open(&path)?;
    file.write_all(content.as_bytes())?;
    fork::chown(&path, user)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_stay_in_the_data_directory_whatever_the_server_left_there() {
        let dir = tempfile::tempdir().unwrap();
        let (data, outside) = (dir.path().join("data"), dir.path().join("outside"));
        fs::create_dir_all(&data).unwrap();
        fs::create_dir_all(&outside).unwrap();
        write(&data, "conf/app.toml", "port = 1", None).unwrap();
        write(&data, "conf/app.toml", "port = 2", None).unwrap();
        assert_eq!(fs::read_to_string(data.join("conf/app.toml")).unwrap(), "port = 2");
        // A link in the place of the file is replaced, and one in the place of a directory refused.
        fs::write(outside.join("passwd"), "root").unwrap();
        symlink(outside.join("passwd"), data.join("app.toml")).unwrap();
        write(&data, "app.toml", "port = 3", None).unwrap();
        assert_eq!(fs::read_to_string(outside.join("passwd")).unwrap(), "root");
        symlink(&outside, data.join("linked")).unwrap();
        let error = write(&data, "linked/passwd", "x", None).unwrap_err().to_string();
        assert!(error.contains("is a link"), "{error}");
    }

    #[test]
    fn a_port_that_is_taken_is_told_in_many_words() {
        for log in [
            "bind: Address already in use",
            "Error: listen EADDRINUSE: :::80",
            "OSError: [Errno 98]  address already in use",
        ] {
            assert!(Custom.port_is_taken(log), "{log}");
        }
        assert!(!Custom.port_is_taken("no such file"));
    }
}
