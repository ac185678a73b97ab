//! Virtual hosts of a shared server, each with a user that can do nothing outside of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::json;
use url::Url;

use super::RabbitMq;
use super::management::{self, Management};
use crate::Result;
use crate::drivers::{Namespaces, url_part};
use crate::service::{Endpoint, Spec};
use crate::snapshot::random_password;
use crate::{external, io_problem};

/// How long making or removing a virtual host may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Where the management interface is in a server that does not say.
const USUAL_PORT: u16 = 15672;
/// The variable that says it.
const MANAGEMENT_URL: &str = "RABBITMQ_MANAGEMENT_URL";
/// What a namespace's user may do beside using it: see it, and set its policies.
const TAGS: &str = "policymaker";

impl Namespaces for RabbitMq {
    fn schemes(&self) -> (&'static [&'static str], u16) {
        (&["amqp"], 5672)
    }

    fn declared(&self, value: &str, environment: &BTreeMap<String, String>) -> Result<Endpoint, String> {
        let (schemes, port) = self.schemes();
        let mut endpoint = external::read_url(value, schemes, port)?;
        if endpoint.user.is_empty() {
            (endpoint.user, endpoint.password) = ("guest".into(), "guest".into());
        }
        if endpoint.database.is_empty() {
            endpoint.database = "/".into();
        }
        let management = match environment.get(MANAGEMENT_URL).filter(|value| !value.is_empty()) {
            Some(value) => management_port(value)?,
            None => USUAL_PORT,
        };
        endpoint.ports.insert(management::PORT.into(), management);
        Ok(endpoint)
    }

    fn ask_version(&self, server: &Endpoint) -> Result<String> {
        let overview = connect(server)?.get("/api/overview?columns=rabbitmq_version")?;
        Ok(overview["rabbitmq_version"].as_str().unwrap_or_default().to_owned())
    }

    fn create(&self, spec: &Spec, server: &Endpoint, name: &str) -> Result<Endpoint> {
        let password = random_password().map_err(|error| io_problem("make up a password", &error))?;
        let mut management = connect(server)?;
        let part = url_part(name);
        let user = json!({ "password": password, "tags": TAGS });
        let all = json!({ "configure": ".*", "write": ".*", "read": ".*" });
        let made = management
            .tell("PUT", &format!("/api/vhosts/{part}"), &json!({}))
            .and_then(|()| management.tell("PUT", &format!("/api/users/{part}"), &user))
            .and_then(|()| management.tell("PUT", &format!("/api/permissions/{part}/{part}"), &all));
        if let Err(problem) = made {
            let _ = self.remove(spec, server, name);
            return Err(problem);
        }
        Ok(Endpoint { user: name.into(), password, database: name.into(), ..server.clone() })
    }

    fn remove(&self, _spec: &Spec, server: &Endpoint, name: &str) -> Result<()> {
        let mut management = connect(server)?;
        let part = url_part(name);
        management.delete(&format!("/api/vhosts/{part}"))?;
        management.delete(&format!("/api/users/{part}"))
    }

    fn list(&self, _spec: &Spec, server: &Endpoint) -> Result<Vec<String>> {
        let mut management = connect(server)?;
        let mut names = BTreeSet::new();
        for path in ["/api/vhosts?columns=name", "/api/users?columns=name"] {
            let all = management.get(path)?;
            let all = all.as_array().into_iter().flatten().filter_map(|it| it["name"].as_str());
            names.extend(all.filter(|name| name.starts_with("t_")).map(str::to_owned));
        }
        Ok(names.into_iter().collect())
    }
}

fn connect(server: &Endpoint) -> Result<Management> {
    Management::connect(server, Instant::now() + TIMEOUT)
}

/// The port of `http://host:15672/`.
fn management_port(value: &str) -> Result<u16, String> {
    let url = Url::parse(value).map_err(|error| format!("{MANAGEMENT_URL} is no URL ({error})"))?;
    match url.scheme() {
        "http" => Ok(url.port().unwrap_or(USUAL_PORT)),
        scheme => Err(format!("the scheme of {MANAGEMENT_URL} is {scheme:?}, and only http can be used")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_declared_server_has_its_management_interface_where_servers_usually_do() {
        let declared = |value: &str, management: &str| {
            let environment = BTreeMap::from([(MANAGEMENT_URL.to_owned(), management.to_owned())]);
            RabbitMq.declared(value, &environment)
        };
        let endpoint = declared("amqp://u:p@mq/%2Fa", "").unwrap();
        assert_eq!(
            (endpoint.database.as_str(), endpoint.port, endpoint.ports["management"]),
            ("/a", 5672, 15672)
        );
        let endpoint = declared("amqp://mq:1", "http://mq:2/").unwrap();
        assert_eq!((endpoint.user.as_str(), endpoint.database.as_str()), ("guest", "/"));
        assert_eq!(endpoint.ports["management"], 2);
        assert!(declared("amqps://u:p@mq/", "").unwrap_err().contains("its scheme is \"amqps\""));
        assert!(declared("amqp://mq", "https://mq").unwrap_err().contains("only http"));
    }
}
