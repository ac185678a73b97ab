//! How Kafka is set up, and how its files word it.

use std::path::Path;

use testenv_config::ServiceConfig;

use crate::drivers::CONFIG_HEADER;
use crate::service::Endpoint;

/// The user where there is a password.
pub(super) const USER: &str = "testenv";
/// Name of the controller's port.
pub(super) const CONTROLLER: &str = "controller";

/// What testenv sets, for a server of its own that nobody else's servers take part in: no delays that wait for
/// others, one thread where there are many, no buffers for a load that no test brings. 128 MB of an untuned
/// server's memory are the log cleaner's buffer alone.
const OWN_SETTINGS: &str = "\
process.roles=broker,controller
node.id=1
controller.listener.names=CONTROLLER
inter.broker.listener.name=CLIENTS
default.replication.factor=1
min.insync.replicas=1
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.coordinator.threads=1
num.network.threads=1
num.io.threads=2
num.recovery.threads.per.data.dir=1
background.threads=1
log.cleaner.dedupe.buffer.size=2097152
log.cleaner.io.buffer.size=131072
offsets.load.buffer.size=1048576
transaction.state.log.load.buffer.size=1048576
log.index.size.max.bytes=1048576
log.segment.delete.delay.ms=1000
controller.quorum.election.timeout.ms=200
controller.quorum.append.linger.ms=0
metadata.max.idle.interval.ms=0
metric.reporters=
metrics.jmx.exclude=.*
auto.include.jmx.reporter=false
metrics.num.samples=1
server.max.startup.time.ms=120000
";

/// Settings that testenv relies on, and beginnings of such.
const RESERVED: &[&str] = &["process.roles", "node.id", "broker.id", "cluster.id", "port", "host.name"];
const RESERVED_BEGINNINGS: &[&str] = &[
    "listener",
    "advertised.",
    "controller.",
    "inter.broker.",
    "security.inter.broker.",
    "log.dir",
    "metadata.log.dir",
    "sasl.",
    "ssl.",
    "zookeeper.",
];

/// What the log says: that something is wrong, and that the server has started. The first file is read by Kafka 4,
/// the second by Kafka 3.
pub(super) const LOG4J2: &str = "\
status=error
rootLogger.level=warn
rootLogger.appenderRef.stdout.ref=STDOUT
appender.stdout.type=Console
appender.stdout.name=STDOUT
appender.stdout.layout.type=PatternLayout
appender.stdout.layout.pattern=%d %p %m (%c)%n
logger.ready.name=kafka.server.KafkaRaftServer
logger.ready.level=info
";
pub(super) const LOG4J: &str = "\
log4j.rootLogger=WARN, stdout
log4j.appender.stdout=org.apache.log4j.ConsoleAppender
log4j.appender.stdout.layout=org.apache.log4j.PatternLayout
log4j.appender.stdout.layout.ConversionPattern=%d %p %m (%c)%n
log4j.logger.kafka.server.KafkaRaftServer=INFO
";

/// Whether testenv sets this itself.
pub(super) fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name) || RESERVED_BEGINNINGS.iter().any(|it| name.starts_with(it))
}

/// `server.properties`.
pub(super) fn server(config: &ServiceConfig) -> String {
    let mut text = format!("{CONFIG_HEADER}{}", own_settings(config.password.as_deref().unwrap_or("")));
    for (name, setting) in &config.settings {
        // Kafka's booleans are spelt in one way alone.
        let value = match setting.0.as_str() {
            "on" => "true",
            "off" => "false",
            other => other,
        };
        text.push_str(&format!("{name}={}\n", escaped(value)));
    }
    text
}

/// What is about one server: where it listens, and where its data is.
pub(super) fn places_of(endpoint: &Endpoint, data: &Path) -> [(&'static str, String); 4] {
    let (host, port) = (&endpoint.host, endpoint.port);
    let controller = endpoint.ports.get(CONTROLLER).copied().unwrap_or(2);
    [
        ("listeners", format!("CLIENTS://{host}:{port},CONTROLLER://{host}:{controller}")),
        ("advertised.listeners", format!("CLIENTS://{host}:{port}")),
        ("controller.quorum.voters", format!("1@{host}:{controller}")),
        ("log.dirs", data.join("logs").display().to_string()),
    ]
}

/// The settings of every server; with a password, those that make both of its ports ask for it.
pub(super) fn own_settings(password: &str) -> String {
    if password.is_empty() {
        let open = "listener.security.protocol.map=CLIENTS:PLAINTEXT,CONTROLLER:PLAINTEXT\n";
        return format!("{OWN_SETTINGS}{open}");
    }
    let login = escaped(&login_module(USER, password, &format!(" user_{USER}={}", quoted(password))));
    format!(
        "{OWN_SETTINGS}listener.security.protocol.map=CLIENTS:SASL_PLAINTEXT,CONTROLLER:SASL_PLAINTEXT\n\
         sasl.enabled.mechanisms=PLAIN\n\
         sasl.mechanism.inter.broker.protocol=PLAIN\n\
         sasl.mechanism.controller.protocol=PLAIN\n\
         listener.name.clients.plain.sasl.jaas.config={login}\n\
         listener.name.controller.plain.sasl.jaas.config={login}\n"
    )
}

/// A login as Java's clients and servers word it.
pub(super) fn login_module(user: &str, password: &str, more: &str) -> String {
    let (user, password) = (quoted(user), quoted(password));
    let module = "org.apache.kafka.common.security.plain.PlainLoginModule";
    format!("{module} required username={user} password={password}{more};")
}

/// Quotes a value in the wording of a login.
fn quoted(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', r"\\").replace('"', "\\\""))
}

/// Escapes a value for a file of properties.
pub(super) fn escaped(value: &str) -> String {
    let mut units = [0; 2];
    let mut text = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '\\' => text.push_str(r"\\"),
            ' '..='~' if !text.is_empty() || c != ' ' => text.push(c),
            _ => c.encode_utf16(&mut units).iter().for_each(|unit| text.push_str(&format!("\\u{unit:04x}"))),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use testenv_config::{KindConfig, Setting};

    use super::*;

    #[test]
    fn settings_that_testenv_controls_are_refused() {
        for name in ["listeners", "log.dirs", "controller.quorum.voters", "sasl.enabled.mechanisms"] {
            assert!(is_reserved(name), "{name}");
        }
        for name in ["log.retention.ms", "num.partitions", "auto.create.topics.enable"] {
            assert!(!is_reserved(name), "{name}");
        }
    }

    #[test]
    fn the_files_own_settings_come_last() {
        let settings = [("num.partitions", "3"), ("delete.topic.enable", "off")];
        let settings = settings.map(|(name, value)| (name.to_owned(), Setting(value.to_owned()))).into();
        let config = ServiceConfig { settings, ..ServiceConfig::new(KindConfig::Kafka) };
        let text = server(&config);
        assert!(text.ends_with("\ndelete.topic.enable=false\nnum.partitions=3\n"), "{text}");
        assert!(text.contains("CLIENTS:PLAINTEXT,CONTROLLER:PLAINTEXT"), "{text}");
    }

    #[test]
    fn a_password_closes_both_ports() {
        let config = ServiceConfig { password: Some("a\"b".into()), ..ServiceConfig::new(KindConfig::Kafka) };
        let text = server(&config);
        assert!(text.contains("CLIENTS:SASL_PLAINTEXT,CONTROLLER:SASL_PLAINTEXT"), "{text}");
        let login = r#"password="a\\"b" user_testenv="a\\"b";"#;
        assert_eq!(text.matches(login).count(), 2, "{text}");
    }

    #[test]
    fn values_cannot_break_out_of_their_line() {
        assert_eq!(escaped("a=b c"), "a=b c");
        assert_eq!(escaped("a\nb=c\\d"), r"a\u000ab=c\\d");
        assert_eq!(escaped(" ö😀"), r"\u0020\u00f6\ud83d\ude00");
        assert_eq!(quoted(r#"a"b\"#), r#""a\"b\\""#);
    }
}
