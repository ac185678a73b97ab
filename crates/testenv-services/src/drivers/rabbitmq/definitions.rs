//! Definitions: what a RabbitMQ consists of, but for messages, as its management interface and
//! `rabbitmqctl export_definitions` write it to a file.
//!
//! A whole server takes a file as it is. A virtual host of its own takes what the file has for the role's virtual
//! host, piece by piece, since only administrators may give a whole file.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use testenv_api::{Problem, ProblemKind};

use super::management::Management;
use crate::Result;
use crate::drivers::url_part;

/// Lists of things that are in a virtual host, in the order in which they are made.
const IN_VHOST: [&str; 5] = ["parameters", "policies", "exchanges", "queues", "bindings"];
/// The other lists.
const GLOBAL: [&str; 5] = ["vhosts", "users", "permissions", "topic_permissions", "global_parameters"];

/// The content of a file.
#[derive(Debug, PartialEq)]
pub(super) struct Definitions(Map<String, Value>);

impl Definitions {
    /// Reads a file, called `name` in messages. An empty one brings nothing.
    pub(super) fn parse(name: &str, content: &[u8]) -> Result<Self> {
        if content.trim_ascii().is_empty() {
            return Ok(Self(Map::new()));
        }
        let problem = |detail: String| {
            let title = format!("{name} holds no definitions of RabbitMQ");
            Problem::new(ProblemKind::PrepareFailed, title).detail(detail).hint(
                "write it with `rabbitmqctl export_definitions`, or with \"Export definitions\" of the management \
                 interface",
            )
        };
        let Value::Object(lists) =
            serde_json::from_slice(content).map_err(|error| problem(error.to_string()))?
        else {
            return Err(problem("it is JSON, but no object".into()));
        };
        let known = || IN_VHOST.into_iter().chain(GLOBAL);
        if !known().any(|key| lists.contains_key(key)) {
            let known: Vec<_> = known().collect();
            return Err(problem(format!("it has none of {}", known.join(", "))));
        }
        for key in known() {
            let items = lists.get(key).into_iter().flat_map(|list| list.as_array());
            let is_list = lists.get(key).is_none_or(Value::is_array);
            if !is_list || !items.flatten().all(Value::is_object) {
                return Err(problem(format!("{key} is not a list of objects")));
            }
        }
        Ok(Self(lists))
    }

    /// Gives all of it to a server; `user` and `vhost` are those that its leases use.
    pub(super) fn import(mut self, management: &mut Management, user: &str, vhost: &str) -> Result<()> {
        // The password that leases have would be replaced.
        if let Some(Value::Array(users)) = self.0.get_mut("users") {
            users.retain(|it| it["name"] != *user);
        }
        let path = match self.names_vhosts() {
            true => "/api/definitions".to_owned(),
            false => format!("/api/definitions/{}", url_part(vhost)),
        };
        let queues = self.queues(vhost);
        management.tell("POST", &path, &Value::Object(self.0))?;
        check_queues(management, &queues)
    }

    /// Names of the queues, by virtual host.
    fn queues(&self, usual: &str) -> BTreeMap<String, Vec<String>> {
        let mut queues = BTreeMap::<_, Vec<_>>::new();
        for item in self.items("queues") {
            let text = |key: &str| item.get(key).and_then(Value::as_str).map(str::to_owned);
            let vhost = text("vhost").unwrap_or_else(|| usual.to_owned());
            queues.entry(vhost).or_default().extend(text("name"));
        }
        queues
    }

    /// Gives what it has for the virtual host `of` to another one, and nothing else.
    pub(super) fn import_into(&self, management: &mut Management, vhost: &str, of: &str) -> Result<()> {
        for (method, path, body) in self.requests(vhost, of)? {
            management.tell(method, &path, &body)?;
        }
        Ok(())
    }

    /// Whether things say which virtual host they are in, as those of a whole server do.
    fn names_vhosts(&self) -> bool {
        let all = GLOBAL.into_iter().any(|key| self.items(key).next().is_some());
        all || IN_VHOST.into_iter().flat_map(|key| self.items(key)).any(|item| item.contains_key("vhost"))
    }

    fn items(&self, key: &str) -> impl Iterator<Item = &Map<String, Value>> {
        self.0.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_object)
    }

    /// The requests that make what it has for the virtual host `of` in another one.
    fn requests(&self, vhost: &str, of: &str) -> Result<Vec<(&'static str, String, Value)>> {
        let mut requests = Vec::new();
        for key in IN_VHOST {
            let items = self.items(key).filter(|item| item.get("vhost").is_none_or(|vhost| vhost == of));
            for item in items {
                requests.push(request(key, item, &url_part(vhost))?);
            }
        }
        Ok(requests)
    }
}

/// Checks that queues were made: of one that it cannot make, a server says nothing.
fn check_queues(management: &mut Management, queues: &BTreeMap<String, Vec<String>>) -> Result<()> {
    for (vhost, names) in queues {
        let made = management.get(&format!("/api/queues/{}?columns=name", url_part(vhost)))?;
        let made: BTreeSet<_> =
            made.as_array().into_iter().flatten().filter_map(|queue| queue["name"].as_str()).collect();
        if let Some(missing) = names.iter().find(|name| !made.contains(name.as_str())) {
            let title = format!("RabbitMQ did not make the queue {missing} of the definitions");
            return Err(Problem::new(ProblemKind::PrepareFailed, title)
                .detail(format!("the virtual host {vhost} has {} of {}", made.len(), names.len()))
                .hint("check its arguments, and whether a plugin has to be enabled for it"));
        }
    }
    Ok(())
}

/// The request that makes one thing of a list.
fn request(key: &str, item: &Map<String, Value>, vhost: &str) -> Result<(&'static str, String, Value)> {
    let part = |name: &str| {
        item.get(name).and_then(Value::as_str).map(url_part).ok_or_else(|| {
            let title = format!("one of {key} in the definitions has no {name}");
            Problem::new(ProblemKind::PrepareFailed, title).detail(Value::from(item.clone()).to_string())
        })
    };
    let mut body = item.clone();
    body.remove("vhost");
    Ok(match key {
        "bindings" => {
            let kind = if part("destination_type")? == "queue" { "q" } else { "e" };
            let path = format!("/api/bindings/{vhost}/e/{}/{kind}/{}", part("source")?, part("destination")?);
            let kept = ["routing_key", "arguments"].map(|name| (name, item.get(name)));
            let body: Map<_, _> = kept
                .into_iter()
                .filter_map(|(name, value)| Some((name.to_owned(), value?.clone())))
                .collect();
            ("POST", path, body.into())
        }
        "parameters" => {
            let path = format!("/api/parameters/{}/{vhost}/{}", part("component")?, part("name")?);
            ("PUT", path, json!({ "value": item.get("value") }))
        }
        _ => ("PUT", format!("/api/{key}/{vhost}/{}", part("name")?), body.into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"{
        "rabbit_version": "3.10.8",
        "users": [{ "name": "guest", "password_hash": "x" }, { "name": "other", "password_hash": "y" }],
        "vhosts": [{ "name": "/" }, { "name": "b" }],
        "queues": [
            { "name": "a/b", "vhost": "/", "durable": true, "arguments": {} },
            { "name": "c", "vhost": "b", "durable": true }
        ],
        "exchanges": [{ "name": "e", "vhost": "/", "type": "topic" }],
        "bindings": [{ "source": "e", "vhost": "/", "destination": "a/b", "destination_type": "queue",
                       "routing_key": "k.*", "arguments": {} }],
        "parameters": [{ "component": "shovel", "name": "s", "vhost": "/", "value": { "x": 1 } }],
        "policies": [{ "name": "p", "vhost": "/", "pattern": ".*", "definition": {}, "apply-to": "all" }]
    }"#;

    fn parse(text: &str) -> Result<Definitions> {
        Definitions::parse("defs/a.json", text.as_bytes())
    }

    #[test]
    fn a_virtual_host_gets_what_the_file_has_for_the_roles() {
        let requests = parse(FILE).unwrap().requests("t_x", "/").unwrap();
        let lines: Vec<_> =
            requests.iter().map(|(method, path, body)| format!("{method} {path} {body}")).collect();
        assert_eq!(
            lines,
            [
                r#"PUT /api/parameters/shovel/t_x/s {"value":{"x":1}}"#,
                r#"PUT /api/policies/t_x/p {"apply-to":"all","definition":{},"name":"p","pattern":".*"}"#,
                r#"PUT /api/exchanges/t_x/e {"name":"e","type":"topic"}"#,
                r#"PUT /api/queues/t_x/a%2Fb {"arguments":{},"durable":true,"name":"a/b"}"#,
                r#"POST /api/bindings/t_x/e/e/q/a%2Fb {"arguments":{},"routing_key":"k.*"}"#,
            ]
        );
        assert_eq!(parse(FILE).unwrap().requests("t_x", "b").unwrap().len(), 1);
    }

    #[test]
    fn an_export_of_one_virtual_host_names_none() {
        assert!(parse(FILE).unwrap().names_vhosts());
        let one = parse(r#"{ "queues": [{ "name": "q" }] }"#).unwrap();
        assert!(!one.names_vhosts());
        assert_eq!(one.requests("t_x", "/").unwrap().len(), 1);
    }

    #[test]
    fn a_file_that_is_something_else_is_refused_by_its_name() {
        for (text, says) in [
            ("{", "EOF while parsing"),
            ("[]", "no object"),
            ("{}", "it has none of parameters"),
            (r#"{"queues": {}}"#, "queues is not a list of objects"),
            (r#"{"queues": [1]}"#, "queues is not a list of objects"),
        ] {
            let problem = parse(text).unwrap_err();
            assert!(
                problem.title.contains("defs/a.json") && problem.detail.contains(says),
                "{text}: {problem}"
            );
        }
        let nameless = parse(r#"{"queues": [{"durable": true}]}"#).unwrap().requests("t_x", "/");
        assert!(nameless.unwrap_err().title.contains("one of queues in the definitions has no name"));
    }
}
