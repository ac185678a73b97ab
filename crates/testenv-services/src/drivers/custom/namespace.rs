//! Namespaces of a custom server, made and removed by commands.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use testenv_api::{Problem, ProblemKind};
use testenv_config::NamespaceConfig;
use url::Url;

use super::values::Values;
use super::{Custom, shell};
use crate::drivers::Namespaces;
use crate::service::{Endpoint, Spec};
use crate::snapshot::random_password;
use crate::{Result, io_problem};

/// How long removing or listing may take.
const TIMEOUT: Duration = Duration::from_secs(30);

impl Namespaces for Custom {
    fn schemes(&self) -> (&'static [&'static str], u16) {
        (&[], 0)
    }

    fn declared(&self, value: &str, _environment: &BTreeMap<String, String>) -> Result<Endpoint, String> {
        let url = Url::parse(value).map_err(|error| format!("it is no URL ({error})"))?;
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or("it names no host")?;
        let port = url.port_or_known_default().ok_or("it names no port")?;
        let text = |part: &str| percent_encoding::percent_decode_str(part).decode_utf8_lossy().into_owned();
        Ok(Endpoint {
            host: host.to_owned(),
            port,
            user: text(url.username()),
            password: text(url.password().unwrap_or_default()),
            database: text(url.path().trim_start_matches('/')),
            ..Endpoint::default()
        })
    }

    fn ask_version(&self, _server: &Endpoint) -> Result<String> {
        Ok("0+unknown".into())
    }

    fn create(&self, spec: &Spec, server: &Endpoint, name: &str) -> Result<Endpoint> {
        let recipe = recipe(spec)?;
        let random = random_password().map_err(|error| io_problem("make up a password", &error))?;
        let endpoint = named(recipe, server, name, &random);
        let deadline = Instant::now() + spec.config.prepare_timeout();
        run(spec, server, &endpoint, name, &recipe.create, deadline)
            .inspect_err(|_| drop(self.remove(spec, server, name)))?;
        Ok(endpoint)
    }

    fn remove(&self, spec: &Spec, server: &Endpoint, name: &str) -> Result<()> {
        let recipe = recipe(spec)?;
        let endpoint = named(recipe, server, name, "");
        run(spec, server, &endpoint, name, &recipe.remove, Instant::now() + TIMEOUT).map(drop)
    }

    fn list(&self, spec: &Spec, server: &Endpoint) -> Result<Vec<String>> {
        let Some(list) = &recipe(spec)?.list else { return Ok(Vec::new()) };
        let printed = run(spec, server, server, "", list, Instant::now() + TIMEOUT)?;
        Ok(printed.lines().map(str::trim).filter(|name| name.starts_with("t_")).map(str::to_owned).collect())
    }
}

fn recipe(spec: &Spec) -> Result<&NamespaceConfig> {
    spec.config.namespace.as_ref().ok_or_else(|| {
        Problem::new(ProblemKind::BadRequest, format!("services.{} has no namespaces", spec.role))
            .hint("say how they are made with `namespace = { create = …, remove = … }`, or ask for `server`")
    })
}

/// How a namespace is used.
fn named(recipe: &NamespaceConfig, server: &Endpoint, name: &str, random: &str) -> Endpoint {
    let values = Values::of_name(server, name, random);
    let text = |template: &Option<String>, usual: &str| match template {
        Some(template) => values.fill(template),
        None => usual.to_owned(),
    };
    Endpoint {
        user: text(&recipe.user, &server.user),
        password: text(&recipe.password, &server.password),
        database: text(&recipe.database, name),
        ..server.clone()
    }
}

fn run(
    spec: &Spec,
    server: &Endpoint,
    namespace: &Endpoint,
    name: &str,
    command: &str,
    deadline: Instant,
) -> Result<String> {
    let values = Values::of_commands(spec, namespace).and(Values::of_name(server, name, &namespace.password));
    shell::run(spec, &values.fill_command(command), deadline)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server() -> Endpoint {
        Endpoint {
            user: "root".into(),
            password: "secret".into(),
            database: "app".into(),
            ..Endpoint::default()
        }
    }

    fn recipe(user: Option<&str>, password: Option<&str>, database: Option<&str>) -> NamespaceConfig {
        NamespaceConfig {
            create: String::new(),
            remove: String::new(),
            list: None,
            user: user.map(str::to_owned),
            password: password.map(str::to_owned),
            database: database.map(str::to_owned),
        }
    }

    #[test]
    fn a_namespace_has_the_login_that_its_recipe_says() {
        let endpoint = named(&recipe(None, None, None), &server(), "t_a", "r");
        assert_eq!((endpoint.user.as_str(), endpoint.password.as_str()), ("root", "secret"));
        assert_eq!(endpoint.database, "t_a");
        let own = recipe(Some("{name}"), Some("{random}"), Some("{server.database}/{name}"));
        let endpoint = named(&own, &server(), "t_a", "r");
        assert_eq!((endpoint.user.as_str(), endpoint.password.as_str()), ("t_a", "r"));
        assert_eq!(endpoint.database, "app/t_a");
    }

    #[test]
    fn a_declared_server_is_any_url_with_a_port() {
        let declared = |value: &str| Custom.declared(value, &BTreeMap::new());
        let endpoint = declared("smtp://u:p%40@mail:2525/x").unwrap();
        assert_eq!((endpoint.host.as_str(), endpoint.port, endpoint.password.as_str()), ("mail", 2525, "p@"));
        assert_eq!(declared("http://mail").unwrap().port, 80);
        assert!(declared("smtp://mail").unwrap_err().contains("no port"));
        assert!(declared("mail").unwrap_err().contains("no URL"));
    }
}
