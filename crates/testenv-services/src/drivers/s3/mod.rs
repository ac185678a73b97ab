//! Stores of objects that speak the protocol of Amazon S3: MinIO, and the Versity S3 Gateway.
//!
//! What is different from one product to the other stands in a file of its own; all else is the protocol's.

mod client;
mod minio;
mod namespace;
mod sign;
mod versitygw;
mod zip;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use testenv_api::{Problem, ProblemKind};
use testenv_config::{KindConfig, PrepareStep, ServiceConfig, Setting};

use crate::drivers::{CONFIG_HEADER, Command, Dirs, Driver, Namespaces, shell_word};
use crate::engine::{self, EngineBuild, Search};
use crate::machine::Machine;
use crate::server::Session;
use crate::service::{Endpoint, Spec};
use crate::{Result, fork, io_problem};

use client::{Ask, Client, TIMEOUT};
use namespace::create_bucket;

/// The access key, if the configuration names none.
const USER: &str = "testenv";
/// Settings that testenv relies on, and those that open ports or write files.
const RESERVED: &[&str] = &[
    "MINIO_ACCESS_KEY",
    "MINIO_ADDRESS",
    "MINIO_BROWSER",
    "MINIO_CONFIG_ENV_FILE",
    "MINIO_CONSOLE_ADDRESS",
    "MINIO_OPTS",
    "MINIO_REGION",
    "MINIO_ROOT_PASSWORD",
    "MINIO_ROOT_PASSWORD_FILE",
    "MINIO_ROOT_USER",
    "MINIO_ROOT_USER_FILE",
    "MINIO_SECRET_KEY",
    "MINIO_SITE_REGION",
    "MINIO_VOLUMES",
    "VGW_ACCESS_LOG",
    "VGW_ADMIN_PORT",
    "VGW_CERT",
    "VGW_IAM_DIR",
    "VGW_KEY",
    "VGW_META_NONE",
    "VGW_META_SIDECAR",
    "VGW_PORT",
    "VGW_PPROF",
    "VGW_REGION",
    "VGW_WEBSITE_PORT",
    "VGW_WEBUI_PORT",
];

/// The driver of S3.
pub(crate) struct S3;

/// A product that serves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Engine {
    Minio,
    Versitygw,
}

impl Engine {
    fn of(spec: &Spec) -> Self {
        if spec.build.engine.name == "versitygw" { Self::Versitygw } else { Self::Minio }
    }

    /// Directories in the server's data.
    fn dirs(self) -> &'static [&'static str] {
        match self {
            Self::Minio => &[minio::DRIVE],
            Self::Versitygw => &versitygw::DIRS,
        }
    }
}

impl Driver for S3 {
    fn search(&self, config: &ServiceConfig) -> Search {
        const PROGRAMS: [(&str, &str); 2] = [("minio", "minio"), ("versitygw", "versitygw")];
        const MINIO: &str = "go install github.com/minio/minio@latest";
        const VERSITYGW: &str = "go install github.com/versity/versitygw/cmd/versitygw@latest";
        let (title, programs, install) = match config.service {
            KindConfig::Minio => ("MinIO", &PROGRAMS[..1], MINIO.to_owned()),
            KindConfig::Versitygw => ("versitygw", &PROGRAMS[1..], VERSITYGW.to_owned()),
            _ => ("MinIO or versitygw", &PROGRAMS[..], format!("{MINIO}, or {VERSITYGW}")),
        };
        Search { title, programs, install, dirs: Vec::new() }
    }

    fn version(&self, program: &Path) -> std::io::Result<String> {
        let said = engine::version_text(program, &["--version"])?;
        let numbered =
            || said.split_whitespace().map(|word| word.trim_start_matches('v')).find(|word| is_version(word));
        // A build of `go install` says none.
        Ok(minio::release(&said).or_else(|| numbered().map(str::to_owned)).unwrap_or_else(|| "0".to_owned()))
    }

    fn reserved_setting(&self, config: &ServiceConfig) -> Option<(String, &'static str)> {
        let foreign = |name: &&String| !name.starts_with("MINIO_") && !name.starts_with("VGW_");
        if let Some(name) = config.settings.keys().find(foreign) {
            let why = "settings of S3 are environment variables of its server: those that begin with MINIO_ or VGW_";
            return Some((name.clone(), why));
        }
        let name = config.settings.keys().find(|name| RESERVED.contains(&name.as_str()))?;
        Some((name.clone(), "testenv sets it itself, or it would open a port of its own"))
    }

    fn file_endings(&self) -> &'static [&'static str] {
        &[]
    }

    fn memory(&self) -> u64 {
        64 << 20
    }

    fn renames_directories(&self) -> bool {
        true
    }

    fn init(&self, machine: &Machine, spec: &Spec, data: &Path) -> Result<()> {
        for name in Engine::of(spec).dirs() {
            fork::make_dir(&data.join(name), 0o700, machine.user.as_ref())
                .map_err(|error| io_problem(format!("make the directory {name} of a server"), &error))?;
        }
        Ok(())
    }

    /// Its settings are environment variables: this is a record of them.
    fn config_files(&self, spec: &Spec, _password: &str) -> Vec<(&'static str, String)> {
        let settings = settings(&spec.config.settings).map(|(name, value)| format!("{name}={value}\n"));
        vec![("server.env", CONFIG_HEADER.chars().chain(settings.collect::<String>().chars()).collect())]
    }

    fn command(&self, spec: &Spec, data: &Path, endpoint: &Endpoint, _shared: bool) -> Command {
        let mut command = match Engine::of(spec) {
            Engine::Minio => minio::command(spec, data, endpoint),
            Engine::Versitygw => versitygw::command(spec, data, endpoint),
        };
        command.env.extend(settings(&spec.config.settings).map(|(name, value)| (name.into(), value.into())));
        command
    }

    /// MinIO says where it listens when all its parts have started. The other says so before it tries.
    fn is_ready(&self, line: &str) -> bool {
        line.contains("API: http")
    }

    fn ask_ready(&self, spec: &Spec, endpoint: &Endpoint) -> Option<Result<(), String>> {
        let ask = || {
            let mut client = Client::open(endpoint, Instant::now() + TIMEOUT)?;
            client.expect(Ask { method: "GET", path: "/", ..Ask::default() })
        };
        match Engine::of(spec) {
            Engine::Minio => None,
            Engine::Versitygw => {
                Some(ask().map(drop).map_err(|problem| format!("{}: {}", problem.title, problem.detail)))
            }
        }
    }

    fn port_is_taken(&self, log: &str) -> bool {
        log.contains("already in use")
    }

    fn warm_up(
        &self,
        _machine: &Machine,
        spec: &Spec,
        endpoint: &Endpoint,
        _dirs: Dirs<'_>,
        _session: bool,
    ) -> Result<Option<Session>> {
        let path = format!("/{}", spec.config.buckets()[0]);
        let mut client = Client::open(endpoint, Instant::now() + TIMEOUT)?;
        client.expect(Ask { method: "HEAD", path: &path, ..Ask::default() })?;
        Ok(None)
    }

    fn set_up(&self, spec: &Spec, endpoint: &Endpoint) -> Result<()> {
        let mut client = Client::open(endpoint, Instant::now() + TIMEOUT)?;
        // What a server that has just started says to this, it may not say to the next.
        client.expect(Ask { method: "GET", path: "/", ..Ask::default() })?;
        spec.config.buckets().into_iter().try_for_each(|bucket| create_bucket(&mut client, bucket).map(drop))
    }

    fn apply(
        &self,
        spec: &Spec,
        endpoint: &Endpoint,
        name: &str,
        content: &[u8],
        deadline: Instant,
    ) -> Result<()> {
        let key = key(&spec.config, name).ok_or_else(|| {
            let title = format!("{name} cannot be an object");
            Problem::new(ProblemKind::PrepareFailed, title).detail("its path is not text in UTF-8")
        })?;
        let path = format!("/{}/{key}", endpoint.database);
        let mut client = Client::open(endpoint, deadline)?;
        let put = client.expect(Ask { method: "PUT", path: &path, body: content, ..Ask::default() });
        put.map(drop).map_err(|problem| {
            let detail = format!("{}: {}", problem.title, problem.detail);
            Problem::new(problem.kind, format!("{name} was not stored")).detail(detail)
        })
    }

    /// What a server had not finished with when it was stopped.
    fn after_freeze(&self, data: &Path) -> std::io::Result<()> {
        for name in ["tmp", "tmp-old"] {
            match std::fs::remove_dir_all(data.join(minio::DRIVE).join(".minio.sys").join(name)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn login(&self, spec: &Spec, password: &str) -> (String, String, String) {
        let user = spec.config.user.as_deref().unwrap_or(USER);
        (user.to_owned(), password.to_owned(), spec.config.buckets()[0].to_owned())
    }

    fn url(&self, endpoint: &Endpoint) -> String {
        format!("http://{}:{}", endpoint.host, endpoint.port)
    }

    fn connect_command(&self, _: &EngineBuild, endpoint: &Endpoint) -> String {
        connect_command(endpoint)
    }

    fn namespaces(&self) -> Option<&'static dyn Namespaces> {
        Some(&namespace::Buckets)
    }
}

fn connect_command(endpoint: &Endpoint) -> String {
    let Endpoint { user, password, database, .. } = endpoint;
    let (user, password, url) = (shell_word(user), shell_word(password), S3.url(endpoint));
    format!(
        "AWS_ACCESS_KEY_ID={user} AWS_SECRET_ACCESS_KEY={password} AWS_DEFAULT_REGION=us-east-1 \
         aws --endpoint-url {url} s3 ls s3://{database}"
    )
}

fn settings(settings: &BTreeMap<String, Setting>) -> impl Iterator<Item = (&str, &str)> {
    settings.iter().map(|(name, Setting(value))| (name.as_str(), value.as_str()))
}

fn is_version(word: &str) -> bool {
    word.contains('.')
        && word.split('.').all(|part| !part.is_empty() && part.bytes().all(|it| it.is_ascii_digit()))
}

/// The key of the object that a file becomes: its path in the directory that the configuration names, or its name
/// alone where the configuration names the file itself. `None` for what is no text.
fn key(config: &ServiceConfig, name: &str) -> Option<String> {
    let path = Path::new(name);
    let steps = config.steps();
    let inside = steps.iter().filter_map(|step| match step {
        PrepareStep::Files(step) => path.strip_prefix(step.strip_prefix(".").unwrap_or(step)).ok(),
        PrepareStep::Command(_) => None,
    });
    // Of directories that are in each other, the inner one.
    let inner = inside.min_by_key(|inside| inside.components().count());
    let key = match inner.filter(|inside| inside.components().next().is_some()) {
        Some(inside) => inside.to_str()?,
        None => path.file_name()?.to_str()?,
    };
    (!key.contains(char::REPLACEMENT_CHARACTER)).then(|| key.to_owned())
}

#[cfg(test)]
mod tests {
    use testenv_config::StepsConfig;

    use super::*;

    #[test]
    fn keys_are_paths_in_the_directory_that_was_named() {
        let mut config = ServiceConfig::new(KindConfig::S3);
        config.migrations = Some(StepsConfig::Path("./assets/".into()));
        config.seed =
            Some(StepsConfig::Paths(vec!["seed".into(), "seed/inner".into(), "one/file.txt".into()]));
        let key = |name: &str| key(&config, name).unwrap();
        assert_eq!(key("assets/img/a b.png"), "img/a b.png");
        assert_eq!(key("seed/x.txt"), "x.txt");
        assert_eq!(key("seed/inner/x.txt"), "x.txt");
        assert_eq!(key("one/file.txt"), "file.txt");
        assert_eq!(super::key(&config, "seed/\u{fffd}.txt"), None);
    }

    #[test]
    fn settings_are_variables_of_the_server_and_some_are_testenv_s_own() {
        let reserved = |name: &str| {
            let mut config = ServiceConfig::new(KindConfig::S3);
            config.settings.insert(name.into(), Setting("x".into()));
            S3.reserved_setting(&config)
        };
        assert!(reserved("MINIO_API_REQUESTS_MAX").is_none());
        assert!(reserved("VGW_DISABLE_ACL").is_none());
        assert!(reserved("PATH").unwrap().1.contains("begin with MINIO_ or VGW_"));
        assert!(reserved("MINIO_CONSOLE_ADDRESS").unwrap().1.contains("port of its own"));
    }

    #[test]
    fn a_bucket_is_shown_by_the_usual_client() {
        let endpoint = Endpoint {
            host: "127.0.0.1".into(),
            port: 9000,
            user: "testenv".into(),
            password: "p'w".into(),
            database: "app".into(),
            ..Endpoint::default()
        };
        assert_eq!(
            connect_command(&endpoint),
            "AWS_ACCESS_KEY_ID=testenv AWS_SECRET_ACCESS_KEY='p'\\''w' AWS_DEFAULT_REGION=us-east-1 \
             aws --endpoint-url http://127.0.0.1:9000 s3 ls s3://app"
        );
    }
}
