//! Prefixes of topics and groups in a shared server.
//!
//! Kafka has no rooms of its own, so a namespace is a prefix: its name and a `-`, which no name has in it. Nothing
//! has to be made for one, and nothing keeps others out but their own prefixes.

use std::collections::{BTreeMap, BTreeSet};

use testenv_api::{Problem, ProblemKind};

use super::Kafka;
use super::client::{Client, Cluster, Code};
use crate::drivers::Namespaces;
use crate::service::{Endpoint, Spec};
use crate::{Result, external};

/// What ends a namespace's name in the names of its topics and groups.
const END: char = '-';
/// Where a server listens that is declared without a port.
const PORT: u16 = 9092;
/// Names in one request.
const BATCH: usize = 500;

impl Namespaces for Kafka {
    fn schemes(&self) -> (&'static [&'static str], u16) {
        (&["kafka"], PORT)
    }

    /// A list of servers, as clients take it, of which one is enough; or a URL, for one with a password.
    fn declared(&self, value: &str, environment: &BTreeMap<String, String>) -> Result<Endpoint, String> {
        let given = |name: &str| environment.get(name).map(String::as_str).unwrap_or_default();
        if given("KAFKA_SECURITY_PROTOCOL").ends_with("SSL") {
            return Err("KAFKA_SECURITY_PROTOCOL asks for TLS, which testenv does not speak".into());
        }
        let first = value.split(',').next().unwrap_or_default().trim();
        let url = if first.contains("://") { first.to_owned() } else { format!("kafka://{first}") };
        let mut endpoint = external::read_url(&url, &["kafka", "plaintext", "sasl_plaintext"], PORT)?;
        if endpoint.password.is_empty() {
            endpoint.user = given("KAFKA_SASL_USERNAME").to_owned();
            endpoint.password = given("KAFKA_SASL_PASSWORD").to_owned();
        }
        Ok(Endpoint { database: String::new(), ..endpoint })
    }

    fn ask_version(&self, server: &Endpoint) -> Result<String> {
        Ok(Client::open(server)?.generation().to_owned())
    }

    fn create(&self, _spec: &Spec, server: &Endpoint, name: &str) -> Result<Endpoint> {
        Client::open(server)?;
        Ok(Endpoint { database: prefix(name), ..server.clone() })
    }

    fn remove(&self, _spec: &Spec, server: &Endpoint, name: &str) -> Result<()> {
        let prefix = prefix(name);
        let (mut client, cluster) = controller(server)?;
        let own = |names: Vec<String>| -> Vec<String> {
            names.into_iter().filter(|name| name.starts_with(&prefix)).collect()
        };
        let topics = own(cluster.topics.iter().map(|(name, _)| name.clone()).collect());
        for some in topics.chunks(BATCH) {
            let left = client.delete_topics(some)?.into_iter();
            let left = left.filter(|(_, code)| !code.is_done() && *code != Code::UNKNOWN_TOPIC);
            refuse_leftovers("topic", left.collect())?;
        }
        each_server(server, &cluster, client, |client| {
            let groups = own(client.groups()?);
            remove_groups(client, &groups)
        })
    }

    fn list(&self, _spec: &Spec, server: &Endpoint) -> Result<Vec<String>> {
        let mut client = Client::open(server)?;
        let cluster = client.cluster()?;
        let mut names: Vec<_> = cluster.topics.iter().map(|(name, _)| name.clone()).collect();
        each_server(server, &cluster, client, |client| {
            names.extend(client.groups()?);
            Ok(())
        })?;
        let found: BTreeSet<_> =
            names.iter().filter_map(|name| namespace_of(name)).map(str::to_owned).collect();
        Ok(found.into_iter().collect())
    }
}

fn prefix(name: &str) -> String {
    format!("{name}{END}")
}

/// The namespace that a topic or group is in.
fn namespace_of(name: &str) -> Option<&str> {
    let (namespace, _) = name.split_once(END)?;
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    (namespace.starts_with("t_") && namespace.chars().all(word)).then_some(namespace)
}

/// A client of the server that topics are created and deleted by, where that is a certain one.
pub(super) fn controller(server: &Endpoint) -> Result<(Client, Cluster)> {
    let mut client = Client::open(server)?;
    let cluster = client.cluster()?;
    let controller = cluster.brokers.iter().find(|broker| broker.id == cluster.controller);
    match controller.filter(|_| cluster.brokers.len() > 1) {
        Some(broker) => Ok((Client::open_at(server, &broker.host, broker.port)?, cluster)),
        None => Ok((client, cluster)),
    }
}

/// Does something with every server of the cluster, since each knows only the groups it coordinates.
fn each_server(
    server: &Endpoint,
    cluster: &Cluster,
    mut first: Client,
    mut action: impl FnMut(&mut Client) -> Result<()>,
) -> Result<()> {
    if cluster.brokers.len() < 2 {
        return action(&mut first);
    }
    for broker in &cluster.brokers {
        action(&mut Client::open_at(server, &broker.host, broker.port)?)?;
    }
    Ok(())
}

/// Deletes groups. Members that are still in one, of tests that were killed, are taken out of it first.
fn remove_groups(client: &mut Client, groups: &[String]) -> Result<()> {
    let mut left = BTreeMap::new();
    for some in groups.chunks(BATCH) {
        left.extend(client.delete_groups(some)?.into_iter().filter(|(_, code)| !is_gone(*code)));
    }
    for (group, code) in &mut left {
        if *code != Code::NON_EMPTY_GROUP {
            continue;
        }
        for member in client.members(group)? {
            client.leave_group(group, &member)?;
        }
        let again = client.delete_groups(std::slice::from_ref(group))?;
        *code = again.first().map_or(*code, |(_, code)| *code);
    }
    refuse_leftovers("group", left.into_iter().filter(|(_, code)| !is_gone(*code)).collect())
}

fn is_gone(code: Code) -> bool {
    code.is_done() || code == Code::NO_SUCH_GROUP
}

fn refuse_leftovers(what: &str, left: Vec<(String, Code)>) -> Result<()> {
    let Some((name, code)) = left.first() else { return Ok(()) };
    let title = match left.len() {
        1 => format!("the {what} {name} was not deleted"),
        more => format!("{more} {what}s were not deleted, such as {name}"),
    };
    Err(Problem::new(ProblemKind::PrepareFailed, title).detail(format!("the server said: {code}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_what_stands_before_the_first_dash() {
        assert_eq!(namespace_of("t_ab_7-orders-v2"), Some("t_ab_7"));
        assert_eq!(namespace_of(&format!("{}x", prefix("t_ab"))), Some("t_ab"));
        for other in ["t_ab_7", "orders-v2", "t_ab.c-orders", "T_AB-orders", "__consumer_offsets", "-"] {
            assert_eq!(namespace_of(other), None, "{other}");
        }
    }

    #[test]
    fn servers_are_declared_as_clients_take_them() {
        let none = BTreeMap::new();
        let place = |value: &str| {
            let endpoint = Kafka.declared(value, &none).unwrap();
            format!("{}:{} {}/{}", endpoint.host, endpoint.port, endpoint.user, endpoint.password)
        };
        assert_eq!(place("kafka-1:19092, kafka-2:19092"), "kafka-1:19092 /");
        assert_eq!(place("localhost"), "localhost:9092 /");
        assert_eq!(place("kafka://me:p%2Fw@kafka:1"), "kafka:1 me/p/w");
        assert_eq!(place("PLAINTEXT://10.0.0.7:9093"), "10.0.0.7:9093 /");
        let login = [("KAFKA_SASL_USERNAME", "me"), ("KAFKA_SASL_PASSWORD", "secret")];
        let login = login.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let endpoint = Kafka.declared("kafka:1", &login).unwrap();
        assert_eq!((endpoint.user.as_str(), endpoint.password.as_str()), ("me", "secret"));
    }

    #[test]
    fn what_cannot_be_used_is_told_without_the_password() {
        let none = BTreeMap::new();
        for value in ["", "http://secret@h", "kafka:secret", "kafka://u:secret@"] {
            let said = Kafka.declared(value, &none).unwrap_err();
            assert!(!said.contains("secret"), "{value}: {said}");
        }
        let tls = BTreeMap::from([("KAFKA_SECURITY_PROTOCOL".to_owned(), "SASL_SSL".to_owned())]);
        assert!(Kafka.declared("kafka:1", &tls).unwrap_err().contains("TLS"));
    }

    #[test]
    fn one_namespace_is_not_the_beginning_of_another() {
        assert!(!prefix("t_ab_c").starts_with(&prefix("t_ab")));
    }
}
