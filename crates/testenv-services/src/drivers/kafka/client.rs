//! As much of a Kafka client as preparing a server and its namespaces takes.

use std::fmt;
use std::io::{self, Read, Write as _};
use std::time::Duration;

use testenv_api::{Problem, ProblemKind};

use super::topics::Topic;
use super::wire::{Reader, Writer};
use crate::Result;
use crate::service::Endpoint;
use crate::stream::Stream;

/// How long one request of testenv's own may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the server itself may take over one, in milliseconds: less, so that it can still say so.
const SERVER_TIMEOUT_MS: i32 = 15_000;
/// Longest answer read, in bytes.
const MAX_ANSWER: usize = 16 << 20;

/// A kind of request, with the version of it that is used.
#[derive(Clone, Copy, Debug)]
struct Api {
    name: &'static str,
    key: i16,
    version: i16,
}

const fn api(name: &'static str, key: i16, version: i16) -> Api {
    Api { name, key, version }
}

const METADATA: Api = api("Metadata", 3, 4);
const FIND_COORDINATOR: Api = api("FindCoordinator", 10, 1);
const LEAVE_GROUP: Api = api("LeaveGroup", 13, 1);
const DESCRIBE_GROUPS: Api = api("DescribeGroups", 15, 0);
const LIST_GROUPS: Api = api("ListGroups", 16, 1);
const SASL_HANDSHAKE: Api = api("SaslHandshake", 17, 1);
const API_VERSIONS: Api = api("ApiVersions", 18, 0);
const CREATE_TOPICS: Api = api("CreateTopics", 19, 4);
const DELETE_TOPICS: Api = api("DeleteTopics", 20, 1);
const SASL_AUTHENTICATE: Api = api("SaslAuthenticate", 36, 0);
const DELETE_GROUPS: Api = api("DeleteGroups", 42, 0);

/// A server's word on whether something was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Code(i16);

impl Code {
    const DONE: Self = Self(0);
    pub(super) const UNKNOWN_TOPIC: Self = Self(3);
    pub(super) const NON_EMPTY_GROUP: Self = Self(68);
    pub(super) const NO_SUCH_GROUP: Self = Self(69);

    pub(super) fn is_done(self) -> bool {
        self == Self::DONE
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = match self.0 {
            3 => "there is no such topic",
            5 => "a partition has no leader yet",
            7 => "it took too long",
            14 | 15 => "the coordinator is not there yet",
            16 => "another server coordinates this group",
            17 => "this is no name for a topic, or too much like another one's",
            29..=31 => "this login may not do that",
            33 => "it does not know PLAIN logins",
            35 => "it does not know this version of the request",
            36 => "there is such a topic already",
            37 => "this is no number of partitions",
            38 => "there are not as many servers as replicas",
            40 => "this is no setting, or no value for it",
            41 => "it is not the controller",
            42 => "the request makes no sense",
            44 => "a policy of the server forbids it",
            58 => "the user or the password is wrong",
            68 => "the group still has members",
            69 => "there is no such group",
            73 => "the server lets nobody delete topics",
            89 => "it was asked too often",
            _ => return write!(f, "error {}", self.0),
        };
        write!(f, "{said} (error {})", self.0)
    }
}

/// A server of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Broker {
    pub(super) id: i32,
    pub(super) host: String,
    pub(super) port: u16,
}

/// What a cluster says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cluster {
    pub(super) id: String,
    pub(super) brokers: Vec<Broker>,
    pub(super) controller: i32,
    /// Topics, and whether each can be used now.
    pub(super) topics: Vec<(String, bool)>,
}

/// What coordinators look after.
#[derive(Clone, Copy, Debug)]
pub(super) enum Coordinated {
    Group = 0,
    Transaction = 1,
}

/// A connection that is logged in.
#[derive(Debug)]
pub(super) struct Client {
    stream: Stream,
    /// Requests sent so far.
    sent: i32,
    /// What the server understands: keys, with the oldest and the newest version of each.
    versions: Vec<(i16, i16, i16)>,
}

impl Client {
    /// Connects, asks what the server understands, and logs in where there is a password.
    pub(super) fn open(endpoint: &Endpoint) -> Result<Self> {
        Self::open_at(endpoint, &endpoint.host, endpoint.port)
    }

    /// The same with another server of the endpoint's cluster.
    pub(super) fn open_at(endpoint: &Endpoint, host: &str, port: u16) -> Result<Self> {
        let connected = Stream::connect_tcp(host, port).and_then(|stream| {
            stream.set_timeout(Some(REQUEST_TIMEOUT))?;
            Ok(Self { stream, sent: 0, versions: Vec::new() })
        });
        let mut client = connected.map_err(|error| {
            Problem::new(
                ProblemKind::PrepareFailed,
                format!("the Kafka server {host}:{port} does not answer"),
            )
            .detail(error.to_string())
        })?;
        client.versions = client.call(API_VERSIONS, Writer::default(), |answer| {
            let code = Code(answer.i16()?);
            let versions = answer.list(|it| Ok((it.i16()?, it.i16()?, it.i16()?)))?;
            Ok((code, versions))
        })?;
        if !endpoint.password.is_empty() {
            client.log_in(&endpoint.user, &endpoint.password)?;
        }
        Ok(client)
    }

    fn log_in(&mut self, user: &str, password: &str) -> Result<()> {
        self.call(SASL_HANDSHAKE, Writer::default().text("PLAIN"), |answer| {
            let code = Code(answer.i16()?);
            answer.list(Reader::text).map(|_mechanisms| (code, ()))
        })?;
        let login = format!("\0{user}\0{password}");
        self.call(SASL_AUTHENTICATE, Writer::default().bytes(login.as_bytes()), |answer| {
            Ok((Code(answer.i16()?), ()))
        })
    }

    /// The leading number of the server's version, as far as what it understands tells it: a server does not say.
    pub(super) fn generation(&self) -> &'static str {
        let kafka_4 = |(key, oldest, _): &(i16, i16, i16)| *key == CREATE_TOPICS.key && *oldest >= 2;
        if self.versions.iter().any(kafka_4) { "4" } else { "3" }
    }

    /// The cluster with all of its topics.
    pub(super) fn cluster(&mut self) -> Result<Cluster> {
        const ALL: i32 = -1;
        self.call(METADATA, Writer::default().i32(ALL).bool(false), |answer| {
            answer.i32()?;
            let brokers = answer.list(|broker| {
                let (id, host, port) = (broker.i32()?, broker.text()?, broker.i32()?);
                broker.text()?;
                Ok(Broker { id, host, port: u16::try_from(port).unwrap_or(0) })
            })?;
            let (id, controller) = (answer.text()?, answer.i32()?);
            let topics = answer.list(|topic| {
                let (code, name, _internal) = (Code(topic.i16()?), topic.text()?, topic.bool()?);
                let partitions = topic.list(|partition| {
                    let code = Code(partition.i16()?);
                    let (_index, leader) = (partition.i32()?, partition.i32()?);
                    partition.list(Reader::i32)?;
                    partition.list(Reader::i32)?;
                    Ok(code.is_done() && leader >= 0)
                })?;
                let usable = code.is_done() && partitions.iter().all(|usable| *usable);
                Ok((name, usable))
            })?;
            Ok((Code::DONE, Cluster { id, brokers, controller, topics }))
        })
    }

    /// Creates topics; what became of each, in the order of the server's answer, with what it says about it.
    pub(super) fn create_topics(&mut self, topics: &[Topic]) -> Result<Vec<(String, Code, String)>> {
        let body = Writer::default()
            .list(topics, |body, topic| {
                body.text(&topic.name)
                    .i32(topic.partitions.unwrap_or(-1))
                    .i16(topic.replicas.unwrap_or(-1))
                    .list(&[] as &[i32], |body, _| body)
                    .list(&topic.settings, |body, (name, value)| body.text(name).text(value))
            })
            .i32(SERVER_TIMEOUT_MS)
            .bool(false);
        self.call(CREATE_TOPICS, body, |answer| {
            answer.i32()?;
            let topics = answer.list(|it| Ok((it.text()?, Code(it.i16()?), it.text()?)))?;
            Ok((Code::DONE, topics))
        })
    }

    /// Deletes topics; what became of each.
    pub(super) fn delete_topics(&mut self, names: &[String]) -> Result<Vec<(String, Code)>> {
        let body = Writer::default().list(names, |body, name| body.text(name)).i32(SERVER_TIMEOUT_MS);
        self.call(DELETE_TOPICS, body, outcomes)
    }

    /// Asks who coordinates a group or transaction; the server makes its own topic for that if it has none yet.
    pub(super) fn find_coordinator(&mut self, of: Coordinated, name: &str) -> Result<Code> {
        self.call(FIND_COORDINATOR, Writer::default().text(name).i8(of as i8), |answer| {
            answer.i32()?;
            Ok((Code::DONE, Code(answer.i16()?)))
        })
    }

    /// Groups that this server coordinates.
    pub(super) fn groups(&mut self) -> Result<Vec<String>> {
        self.call(LIST_GROUPS, Writer::default(), |answer| {
            answer.i32()?;
            let code = Code(answer.i16()?);
            let groups = answer.list(|group| {
                let name = group.text()?;
                group.text()?;
                Ok(name)
            })?;
            Ok((code, groups))
        })
    }

    /// Members of a group.
    pub(super) fn members(&mut self, group: &str) -> Result<Vec<String>> {
        let body = Writer::default().list(&[group], |body, group| body.text(group));
        let groups = self.call(DESCRIBE_GROUPS, body, |answer| {
            let groups = answer.list(|group| {
                group.i16()?;
                for _ in ["group", "state", "protocol type", "protocol"] {
                    group.text()?;
                }
                group.list(|member| {
                    let id = member.text()?;
                    for _ in ["client", "host"] {
                        member.text()?;
                    }
                    member.bytes()?;
                    member.bytes()?;
                    Ok(id)
                })
            })?;
            Ok((Code::DONE, groups))
        })?;
        Ok(groups.into_iter().flatten().collect())
    }

    /// Takes a member out of its group.
    pub(super) fn leave_group(&mut self, group: &str, member: &str) -> Result<Code> {
        self.call(LEAVE_GROUP, Writer::default().text(group).text(member), |answer| {
            answer.i32()?;
            Ok((Code::DONE, Code(answer.i16()?)))
        })
    }

    /// Deletes groups; what became of each.
    pub(super) fn delete_groups(&mut self, groups: &[String]) -> Result<Vec<(String, Code)>> {
        let body = Writer::default().list(groups, |body, group| body.text(group));
        self.call(DELETE_GROUPS, body, outcomes)
    }

    /// Sends a request and reads its answer with `read`, which also says whether it was done as a whole.
    fn call<T>(
        &mut self,
        api: Api,
        body: Writer,
        read: impl FnOnce(&mut Reader<'_>) -> io::Result<(Code, T)>,
    ) -> Result<T> {
        let refused = |detail: String| {
            Problem::new(ProblemKind::PrepareFailed, "the Kafka server refused a request")
                .detail(format!("{}: {detail}", api.name))
        };
        self.check_version(api).map_err(refused)?;
        let answer = self.exchange(api, body);
        let read = answer.and_then(|answer| read(&mut Reader::new(&answer)));
        match read.map_err(|error| refused(explained(&error)))? {
            (code, value) if code.is_done() => Ok(value),
            (code, _) => Err(refused(code.to_string())),
        }
    }

    fn check_version(&self, api: Api) -> Result<(), String> {
        if api.key == API_VERSIONS.key {
            return Ok(());
        }
        let known = self.versions.iter().find(|(key, _, _)| *key == api.key);
        match known {
            Some((_, oldest, newest)) if (*oldest..=*newest).contains(&api.version) => Ok(()),
            Some((_, oldest, newest)) => Err(format!(
                "it takes versions {oldest} to {newest} of this request, and testenv sends {}; Kafka 2.4 to 4 do",
                api.version
            )),
            None => Err("it does not know this request".to_owned()),
        }
    }

    fn exchange(&mut self, api: Api, body: Writer) -> io::Result<Vec<u8>> {
        self.sent = self.sent.wrapping_add(1);
        let message = Writer::default()
            .i16(api.key)
            .i16(api.version)
            .i32(self.sent)
            .text("testenv")
            .raw(&body.into_bytes())
            .into_bytes();
        self.stream.write_all(&Writer::default().bytes(&message).into_bytes())?;
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let length = usize::try_from(i32::from_be_bytes(length)).unwrap_or(0);
        if !(4..=MAX_ANSWER).contains(&length) {
            return Err(bad("this is not the protocol of Kafka, or more of it than testenv reads"));
        }
        let mut answer = Vec::new();
        Read::take(&mut self.stream, length as u64).read_to_end(&mut answer)?;
        if answer.len() < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let answered = answer.split_off(4);
        if answer != self.sent.to_be_bytes() {
            return Err(bad("this is the answer to another request"));
        }
        Ok(answered)
    }
}

/// Names and what became of each, after the time that the server held the answer back.
fn outcomes(answer: &mut Reader<'_>) -> io::Result<(Code, Vec<(String, Code)>)> {
    answer.i32()?;
    let outcomes = answer.list(|it| Ok((it.text()?, Code(it.i16()?))))?;
    Ok((Code::DONE, outcomes))
}

/// An error of the connection, in words that say what it mostly means.
fn explained(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            format!("no answer within {} s", REQUEST_TIMEOUT.as_secs())
        }
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
            "it closed the connection; does it want a password, or TLS?".to_owned()
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Shutdown, TcpListener};

    use super::*;

    /// A server that gives each request the next of these answers, whatever was asked.
    fn answered_with(answers: Vec<Vec<u8>>) -> Result<Cluster> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = Endpoint {
            host: "127.0.0.1".into(),
            port: listener.local_addr().unwrap().port(),
            ..Endpoint::default()
        };
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            for answer in answers {
                let mut length = [0; 4];
                stream.read_exact(&mut length).unwrap();
                let mut request = vec![0; u32::from_be_bytes(length) as usize];
                stream.read_exact(&mut request).unwrap();
                stream.write_all(&answer).unwrap();
            }
            let _ = stream.shutdown(Shutdown::Write);
        });
        let cluster = Client::open(&endpoint).and_then(|mut client| client.cluster());
        server.join().unwrap();
        cluster
    }

    fn framed(correlation: i32, body: Writer) -> Vec<u8> {
        let message = Writer::default().i32(correlation).raw(&body.into_bytes()).into_bytes();
        Writer::default().bytes(&message).into_bytes()
    }

    fn versions(known: &[(i16, i16, i16)]) -> Vec<u8> {
        let list = Writer::default()
            .i16(0)
            .list(known, |body, (key, oldest, newest)| body.i16(*key).i16(*oldest).i16(*newest));
        framed(1, list)
    }

    fn metadata() -> Writer {
        Writer::default()
            .i32(0)
            .list(&[20_001], |body, port| body.i32(1).text("127.0.0.1").i32(*port).i16(-1))
            .text("the-cluster")
            .i32(1)
            .list(&[("ready", 1), ("waiting", -1)], |body, (name, leader)| {
                body.i16(0).text(name).bool(false).list(&[leader], |body, leader| {
                    body.i16(0).i32(0).i32(**leader).list(&[1], |body, it| body.i32(*it)).i32(0)
                })
            })
    }

    #[test]
    fn a_cluster_tells_who_it_is_and_which_topics_can_be_used() {
        let cluster = answered_with(vec![versions(&[(3, 0, 13)]), framed(2, metadata())]).unwrap();
        assert_eq!(cluster.id, "the-cluster");
        assert_eq!(cluster.brokers, [Broker { id: 1, host: "127.0.0.1".into(), port: 20_001 }]);
        assert_eq!(cluster.topics, [("ready".into(), true), ("waiting".into(), false)]);
    }

    #[test]
    fn a_server_of_another_age_is_told_from_one_that_fails() {
        let problem = answered_with(vec![versions(&[(3, 9, 13)])]).unwrap_err();
        assert!(problem.detail.contains("versions 9 to 13"), "{problem}");
        let problem = answered_with(vec![versions(&[])]).unwrap_err();
        assert!(problem.detail.contains("does not know this request"), "{problem}");
    }

    #[test]
    fn hostile_answers_are_refused() {
        for (answer, says) in [
            (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), "not the protocol of Kafka"),
            (vec![0, 0, 0, 3, 0, 0, 0], "not the protocol of Kafka"),
            (vec![0, 0, 0, 9, 0, 0], "closed the connection"),
            (framed(9, Writer::default()), "another request"),
            (framed(1, Writer::default()), "shorter than it says"),
            (framed(1, Writer::default().i16(0).i32(i32::MAX)), "shorter than it says"),
            (framed(1, Writer::default().i16(35).i32(0)), "this version of the request"),
        ] {
            let problem = answered_with(vec![answer.clone()]).unwrap_err();
            assert!(problem.detail.contains(says), "{answer:?}: {problem}");
        }
    }

    #[test]
    fn a_server_that_is_not_there_is_told_with_its_address() {
        let endpoint = Endpoint { host: "127.0.0.1".into(), port: 1, ..Endpoint::default() };
        let problem = Client::open(&endpoint).unwrap_err();
        assert!(problem.title.contains("127.0.0.1:1 does not answer"), "{problem}");
    }
}
