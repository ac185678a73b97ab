//! Servers that somebody else runs, declared by an environment variable as CI systems do it.
//!
//! Leases have namespaces in them. Nothing here ends with the broker by itself, so every namespace's name tells
//! who made it and when: `t_<owner>_<time>_<number>`. Before a server is first used, what this workspace left
//! behind is removed, and what others left long ago; too much of others is refused.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use testenv_api::{Engine, Problem, ProblemKind};
use testenv_config::{ExternalConfig, KindConfig, ServiceConfig};
use url::Url;

use crate::Result;
use crate::drivers::{Driver, Namespaces};
use crate::engine::{self, EngineBuild};
use crate::inputs::KeyHash;
use crate::service::{Endpoint, Spec};

/// Owner of what is made once and cloned by many.
const TEMPLATE: &str = "tpl";
/// Names shown of those that are in the way.
const SHOWN: usize = 5;

/// A server that was declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// The variable.
    pub variable: String,
    /// What it says.
    pub endpoint: Endpoint,
}

/// The server that the environment declares for a role, if it does.
///
/// # Errors
/// [`ProblemKind::InvalidConfig`] for a value that cannot be used, without the value.
pub(crate) fn find(
    role: &str,
    config: &ServiceConfig,
    driver: &dyn Driver,
    environment: &BTreeMap<String, String>,
) -> Result<Option<Declared>> {
    let variable = config.url_env();
    let Some(value) = environment.get(variable).filter(|value| !value.is_empty()) else { return Ok(None) };
    let problem = |detail: String| {
        let title = format!("{variable} does not say where the server of services.{role} is");
        Problem::new(ProblemKind::InvalidConfig, title).detail(detail)
    };
    let namespaces = driver
        .namespaces()
        .ok_or_else(|| problem("this kind of service has no namespaces, so it cannot be external".into()))?;
    let mut endpoint = namespaces.declared(value, environment).map_err(problem)?;
    endpoint.name_first_port(config);
    if config.service == KindConfig::Custom {
        for name in config.port_names() {
            let variable = config.port_env(&name);
            let port = environment.get(&variable).and_then(|value| value.parse().ok());
            let port = port.ok_or_else(|| {
                problem(format!("{variable} is to have the number of its port {name}, and does not"))
            })?;
            endpoint.ports.insert(name, port);
        }
    }
    Ok(Some(Declared { variable: variable.to_owned(), endpoint }))
}

/// What serves a role in a declared server, once that has answered.
///
/// # Errors
/// [`ProblemKind::StartFailed`] when it does not, or lets nobody in with this login;
/// [`ProblemKind::EngineMissing`] when it is not the version that the role wants.
pub(crate) fn build(
    role: &str,
    config: &ServiceConfig,
    driver: &dyn Driver,
    declared: &Declared,
) -> Result<EngineBuild> {
    let Declared { variable, endpoint } = declared;
    let place = format!("{}:{}", endpoint.host, endpoint.port);
    let asked = driver.namespaces().map(|namespaces| namespaces.ask_version(endpoint)).transpose();
    let version = asked.map_err(|problem| {
        let title = format!("the external server of services.{role} cannot be used");
        let user = if endpoint.user.is_empty() { "nobody in particular" } else { &endpoint.user };
        Problem::new(ProblemKind::StartFailed, title)
            .detail(format!("{variable} names {place}, as {user}\n{}: {}", problem.title, problem.detail))
            .hint(format!(
                "check {variable}: host, port, user and password; `testenv down` forgets the old value"
            ))
    })?;
    let version = version.unwrap_or_default();
    if let Some(wanted) = config.version.as_ref().filter(|wanted| !engine::matches(&version, wanted)) {
        let title = format!("the external server of services.{role} is not version {wanted}");
        return Err(Problem::new(ProblemKind::EngineMissing, title)
            .detail(format!("{variable} names {place}, which is version {version}"))
            .hint("declare a server of the right version, or change `version` in testenv.toml"));
    }
    let search = driver.search(config);
    let name = search.programs.first().map_or(search.title, |(_, name)| driver.engine_name(name, &version));
    Ok(EngineBuild {
        engine: Engine { name: name.to_owned(), version, sha256: String::new() },
        program: PathBuf::new(),
        bin_dir: PathBuf::new(),
        interpreter: None,
    })
}

/// Reads `scheme://user:password@host:port/database`.
pub(crate) fn read_url(value: &str, schemes: &[&str], port: u16) -> Result<Endpoint, String> {
    let usual = format!("{}://user:password@host:{port}/name", schemes.first().unwrap_or(&"tcp"));
    let url = Url::parse(value).map_err(|error| format!("it is no URL ({error}); one is {usual}"))?;
    if !schemes.contains(&url.scheme()) {
        return Err(format!("its scheme is {:?}; a URL that can be used is {usual}", url.scheme()));
    }
    let host = url.host_str().filter(|host| !host.is_empty());
    let host = host.ok_or_else(|| format!("it names no host; a URL that does is {usual}"))?;
    let wants_tls = |(key, value): (Cow<'_, str>, Cow<'_, str>)| {
        matches!(&*key, "sslmode" | "ssl-mode")
            && !matches!(
                &*value.to_ascii_lowercase(),
                "disable" | "disabled" | "allow" | "prefer" | "preferred"
            )
    };
    if url.query_pairs().any(wants_tls) {
        return Err("it asks for TLS, which testenv does not speak to external servers".into());
    }
    let text = |part: &str| percent_decode(part);
    Ok(Endpoint {
        host: host.to_owned(),
        port: url.port().unwrap_or(port),
        user: text(url.username()),
        password: text(url.password().unwrap_or_default()),
        database: text(url.path().trim_start_matches('/')),
        ..Endpoint::default()
    })
}

fn percent_decode(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// Who makes namespaces here: this workspace, on this machine or in this container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner(String);

impl Owner {
    /// Works it out. Two containers that share a host name and a path are told apart by their processes' namespace.
    pub(crate) fn here(root: &Path) -> Self {
        let read = |file: &str| std::fs::read(file).unwrap_or_default();
        let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        let key = KeyHash::default()
            .with(read("/proc/sys/kernel/hostname"))
            .with(read("/proc/sys/kernel/random/boot_id"))
            .with(namespace.as_os_str().as_encoded_bytes())
            .with(root.as_os_str().as_encoded_bytes())
            .key();
        Self(key[..6].to_owned())
    }

    /// A name for a new namespace; `words` of a-z, 0-9 and `_` tell it from others made in the same second.
    pub(crate) fn name(&self, words: &str) -> String {
        format!("t_{}_{}_{words}", self.0, now())
    }
}

/// A name for a template that is recognised by `key`.
pub(crate) fn template_name(key: &str) -> String {
    format!("t_{TEMPLATE}_{}_{}", now(), &key[..key.len().min(16)])
}

/// The template that is recognised by `key`, among the names of namespaces.
pub(crate) fn find_template<'a>(names: &'a [String], key: &str) -> Option<&'a String> {
    let key = &key[..key.len().min(16)];
    names.iter().find(|name| parse(name).is_some_and(|made| made.owner == TEMPLATE && made.words == key))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// What a name tells.
#[derive(Debug, PartialEq, Eq)]
struct Made<'a> {
    owner: &'a str,
    at: u64,
    words: &'a str,
}

fn parse(name: &str) -> Option<Made<'_>> {
    let (owner, rest) = name.strip_prefix("t_")?.split_once('_')?;
    let (at, words) = rest.split_once('_')?;
    Some(Made { owner, at: at.parse().ok()?, words })
}

/// What is to become of the namespaces found in a server that is about to be used.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sorted {
    remove: Vec<String>,
    stay: Vec<String>,
}

fn sort(names: Vec<String>, owner: &Owner, max_age: Duration, now: u64) -> Sorted {
    let mut sorted = Sorted::default();
    for name in names {
        let is_old = |made: &Made<'_>| now.saturating_sub(made.at) > max_age.as_secs();
        match parse(&name) {
            Some(made) if made.owner == owner.0 || is_old(&made) => sorted.remove.push(name),
            Some(made) if made.owner == TEMPLATE => {}
            // A name that testenv did not make tells no age, so it is never removed.
            Some(_) | None => sorted.stay.push(name),
        }
    }
    sorted
}

/// Removes what is left behind in a server that is about to be used, and refuses one with too much of it.
///
/// # Errors
/// [`ProblemKind::Resources`] with the command that cleans.
pub(crate) fn sweep(
    spec: &Spec,
    namespaces: &dyn Namespaces,
    server: &Endpoint,
    owner: &Owner,
    limits: &ExternalConfig,
) -> Result<()> {
    let sorted = sort(namespaces.list(spec, server)?, owner, limits.max_age.as_duration(), now());
    for name in &sorted.remove {
        if let Err(problem) = namespaces.remove(spec, server, name) {
            tracing::warn!(%problem, name, "a namespace that was left behind could not be removed");
        }
    }
    if sorted.stay.len() <= limits.max_leftovers {
        return Ok(());
    }
    let shown = sorted.stay.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    let title = format!("the external server of services.{} is full of what others left behind", spec.role);
    Err(Problem::new(ProblemKind::Resources, title)
        .detail(format!(
            "{} names begin with t_, {} are allowed: {shown} …",
            sorted.stay.len(),
            limits.max_leftovers
        ))
        .hint(format!(
            "`testenv clean --external {}` removes them all; make sure that no other run uses the server",
            spec.role
        )))
}

/// Removes every namespace whose name begins with `t_`, whoever made it; how many there were.
///
/// # Errors
/// The first that could not be removed; the others are.
pub(crate) fn clean(spec: &Spec, namespaces: &dyn Namespaces, server: &Endpoint) -> Result<usize> {
    let names = namespaces.list(spec, server)?;
    let results: Vec<_> = names.iter().map(|name| namespaces.remove(spec, server, name)).collect();
    results.into_iter().collect::<Result<()>>().map(|()| names.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const POSTGRES: &[&str] = &["postgres", "postgresql"];

    #[test]
    fn a_url_says_where_and_as_whom() {
        let endpoint = read_url("postgresql://u%40x:p%2Fw@db.example/app?sslmode=disable", POSTGRES, 5432);
        let expected = Endpoint {
            host: "db.example".into(),
            port: 5432,
            user: "u@x".into(),
            password: "p/w".into(),
            database: "app".into(),
            ..Endpoint::default()
        };
        assert_eq!(endpoint.unwrap(), expected);
        assert_eq!(read_url("postgres://[::1]:1/", POSTGRES, 5432).unwrap().host, "[::1]");
    }

    #[test]
    fn what_cannot_be_used_is_told_without_the_password() {
        for (value, expected) in [
            ("secret", "it is no URL"),
            ("mysql://u:secret@h/d", "its scheme is \"mysql\""),
            ("postgres:///secret", "it names no host"),
            ("postgres://u:secret@h/d?sslmode=require", "asks for TLS"),
            ("postgres://u:secret@h/d?ssl-mode=REQUIRED", "asks for TLS"),
            ("postgres://u:secret@h:99999/d", "it is no URL"),
        ] {
            let said = read_url(value, POSTGRES, 5432).unwrap_err();
            assert!(said.contains(expected) && !said.contains("secret"), "{value}: {said}");
        }
    }

    #[test]
    fn own_and_old_namespaces_go_and_the_rest_stays() {
        let owner = Owner("abc123".into());
        let names =
            ["t_abc123_1000_1", "t_ffffff_1000_1", "t_ffffff_10_1", "t_tpl_1000_k", "t_tpl_10_k", "t_mine"];
        let sorted = sort(names.map(String::from).into(), &owner, Duration::from_secs(100), 1001);
        assert_eq!(sorted.remove, ["t_abc123_1000_1", "t_ffffff_10_1", "t_tpl_10_k"]);
        assert_eq!(sorted.stay, ["t_ffffff_1000_1", "t_mine"]);
    }

    #[test]
    fn names_are_recognised() {
        let owner = Owner::here(Path::new("/x"));
        let name = owner.name("7_1");
        assert!(name.len() <= 60, "{name}");
        assert_eq!(parse(&name).map(|made| made.owner), Some(owner.0.as_str()));
        let names = [template_name("0123456789abcdefffff")];
        assert_eq!(find_template(&names, "0123456789abcdefffff"), Some(&names[0]));
        assert_eq!(find_template(&names, "1123456789abcdefffff"), None);
    }
}
