use std::process::Command;
use std::time::Duration;

use testenv_api::{Isolation, Lease, LeaseRequest};
use testkit::{Kafka, TestWorkspace, User, kafka_dir, needs_root, run, skip, until};

use crate::{TESTENV, assert_says};

const TOPICS: &str = "orders partitions=3 cleanup.policy=compact  # the orders\naudit\n";

/// The role's first lines; `None` where there is no Kafka.
fn role() -> Option<String> {
    let Some(dir) = kafka_dir() else {
        skip("there is no Kafka with a Java");
        return None;
    };
    Some(format!("[services.queue]\nservice = \"kafka\"\nseed = \"shop.topics\"\nbin_dir = {dir:?}\n"))
}

/// A workspace with one role of Kafka.
fn workspace(more: &str) -> Option<TestWorkspace> {
    let role = role()?;
    Some(TestWorkspace::new(TESTENV).config(&format!("{role}{more}")).file("shop.topics", TOPICS))
}

fn in_a_namespace() -> LeaseRequest {
    let isolation = Some(Isolation::Namespace);
    LeaseRequest { role: Some("queue".into()), isolation, ..LeaseRequest::default() }
}

#[track_caller]
fn assert_pristine(kafka: &Kafka) {
    assert_eq!(kafka.topics().unwrap(), [("audit".to_owned(), 1), ("orders".to_owned(), 3)].into());
    assert_eq!(kafka.read("audit").unwrap(), [""; 0]);
}

/// Deletes and creates topics of the snapshot and of its own, and uses them.
#[track_caller]
fn spoil(kafka: &Kafka) {
    kafka.write("audit", "1").unwrap();
    kafka.delete("audit").unwrap();
    kafka.delete("orders").unwrap();
    kafka.create("mine").unwrap();
    kafka.write("mine", "2").unwrap();
    assert_eq!(kafka.read("mine").unwrap(), ["2"]);
    let mine = [("mine".to_owned(), 1)].into();
    until(Duration::from_secs(10), || match kafka.topics()? {
        topics if topics == mine => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

/// Leases are apart, whatever is done with the topics that came with them.
#[track_caller]
fn works(workspace: &TestWorkspace) {
    let (one, two) = (workspace.lease("queue"), workspace.lease("queue"));
    assert_ne!(one.lease().port, two.lease().port);
    let (first, second) = (Kafka::connect(one.lease()).unwrap(), Kafka::connect(two.lease()).unwrap());
    assert_pristine(&first);
    spoil(&first);
    assert_pristine(&second);
    assert_pristine(&Kafka::connect(workspace.lease("queue").lease()).unwrap());
    // What was deleted is renamed first and removed a second later; a server that cannot ends.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(first.read("mine").unwrap(), ["2"]);
}

#[test]
fn a_lease_is_a_server_of_its_own_with_its_topics() {
    let Some(workspace) = workspace("") else { return };
    works(&workspace);
    let held = workspace.lease("queue");
    let lease = held.lease();
    assert_eq!(lease.url, format!("127.0.0.1:{}", lease.port));
    assert_eq!(
        (&lease.env["KAFKA_BROKERS"], &lease.env["KAFKA_BOOTSTRAP_SERVERS"]),
        (&lease.url, &lease.url)
    );
    assert_eq!((lease.env["KAFKA_TOPIC_PREFIX"].as_str(), lease.database.as_str()), ("", ""));
    drop(held);
    workspace.end();
}

#[test]
fn forks_by_copy() {
    let Some(workspace) = workspace("[cache]\nfork = \"copy\"\n") else { return };
    works(&workspace);
    workspace.end();
}

#[test]
fn an_ordinary_user_has_it_too() {
    if !needs_root("to become another user") {
        return;
    }
    let Some(role) = role() else { return };
    let workspace = TestWorkspace::of_user(TESTENV, User::Nobody).config(&role).file("shop.topics", TOPICS);
    works(&workspace);
    workspace.end();
}

/// Runs one of Kafka's own clients on a lease, fed with `input`.
#[track_caller]
fn kafkas_own(program: &str, lease: &Lease, arguments: &str, input: &str) -> String {
    let file = kafka_dir().unwrap().join(program);
    let script =
        format!("printf '{input}' | {} --bootstrap-server {} {arguments}", file.display(), lease.url);
    run(Command::new("sh").args(["-c", &script]), Duration::from_secs(120)).expect_success().stdout
}

#[test]
fn a_namespace_is_a_prefix_and_goes_with_its_topics_and_groups() {
    let Some(workspace) = workspace("") else { return };
    let (one, two) = (workspace.lease_as(&in_a_namespace()), workspace.lease_as(&in_a_namespace()));
    assert_eq!(one.lease().port, two.lease().port);
    let prefix = one.lease().database.clone();
    assert!(prefix.starts_with("t_") && prefix.ends_with('-') && prefix != two.lease().database, "{prefix}");
    assert_eq!(one.lease().env["KAFKA_TOPIC_PREFIX"], prefix);
    let (first, second) = (Kafka::connect(one.lease()).unwrap(), Kafka::connect(two.lease()).unwrap());
    assert_pristine(&first);
    kafkas_own("kafka-console-producer.sh", one.lease(), &format!("--topic {prefix}audit"), "one\\ntwo\\n");
    let group = format!("--topic {prefix}audit --group {prefix}g --from-beginning --max-messages 2");
    let seen = kafkas_own("kafka-console-consumer.sh", one.lease(), &group, "");
    assert_eq!(seen, "one\ntwo\n");
    let groups = || kafkas_own("kafka-consumer-groups.sh", two.lease(), "--list", "");
    assert!(groups().contains(&format!("{prefix}g")));
    spoil(&first);
    assert_pristine(&second);
    drop(one);
    until(Duration::from_secs(20), || {
        let left: Vec<_> =
            second.all_topics()?.into_iter().filter(|name| name.starts_with(&prefix)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    assert!(!groups().contains(&prefix));
    drop(two);
    workspace.end();
}

#[test]
fn a_password_is_asked_for_when_there_is_one() {
    let password = r#"p"a\s #=;'ö"#;
    let Some(workspace) = workspace(&format!("password = '''{password}'''\n")) else { return };
    let held = workspace.lease("queue");
    let lease = held.lease();
    assert_pristine(&Kafka::connect(lease).unwrap());
    assert_eq!((lease.user.as_str(), lease.password.as_str()), ("testenv", password));
    assert_eq!(lease.env["KAFKA_SASL_PASSWORD"], password);
    assert_eq!(lease.env["KAFKA_SECURITY_PROTOCOL"], "SASL_PLAINTEXT");
    Kafka::connect_as(lease, "testenv", "another").unwrap_err();
    assert_says(&lease.connect_command, &["kafka-console-consumer.sh", "PlainLoginModule"]);
    drop(held);
    workspace.end();
}

#[test]
fn settings_are_those_of_the_file_and_not_of_testenv() {
    let settings = "settings = { \"num.partitions\" = 5, \"auto.create.topics.enable\" = false }\n";
    let Some(workspace) = workspace(settings) else { return };
    let held = workspace.lease("queue");
    let kafka = Kafka::connect(held.lease()).unwrap();
    assert_eq!(kafka.topics().unwrap()["audit"], 5);
    drop((kafka, held));
    workspace.write("testenv.toml", &format!("{}settings = {{ \"log.dirs\" = \"/x\" }}\n", role().unwrap()));
    assert_says(
        &workspace.refusal("queue"),
        &["services.queue.settings.log.dirs cannot be set", "testenv sets it"],
    );
    workspace
        .write("testenv.toml", &format!("{}settings = {{ \"num.partitions\" = \"x\" }}\n", role().unwrap()));
    assert_says(&workspace.refusal("queue"), &["kafka", "did not start", "num.partitions"]);
    workspace.end();
}

#[test]
fn a_topic_that_cannot_be_is_told_with_its_line() {
    let Some(workspace) = workspace("") else { return };
    for (topics, says) in [
        ("audit\nan/order\n", &["shop.topics:2 failed", "is no name of a topic"][..]),
        ("\n\naudit cleanup.policy=never", &["shop.topics:3 failed", "cleanup.policy"]),
        ("audit nonsense=1", &["shop.topics:1 failed", "nonsense"]),
        ("audit partitions=many", &["shop.topics:1 failed", "not a number from 1 to 1000"]),
        ("audit replication-factor=3", &["shop.topics:1 failed", "not as many servers as replicas"]),
    ] {
        workspace.write("shop.topics", topics);
        assert_says(&workspace.refusal("queue"), says);
    }
    workspace.end();
}

#[test]
fn an_engine_that_is_not_whole_is_told() {
    let workspace = TestWorkspace::new(TESTENV)
        .config("[services.queue]\nservice = \"kafka\"\nbin_dir = \"kafka/bin\"\n");
    assert_says(
        &workspace.refusal("queue"),
        &["no Apache Kafka on this machine", "kafka/bin", "kafka.apache.org", "bin_dir"],
    );
    workspace.write("kafka/bin/kafka-server-start.sh", "");
    assert_says(&workspace.refusal("queue"), &["kafka-server-start.sh", "no libs/kafka_2.13-VERSION.jar"]);
    workspace.write("kafka/libs/kafka_2.13-2.8.2.jar", "");
    assert_says(
        &workspace.refusal("queue"),
        &["Kafka 2.8.2 is older than testenv can run", "3.5 is the oldest"],
    );
    workspace.end();
}

#[test]
fn another_version_than_the_installed_one_is_told() {
    let Some(workspace) = workspace("version = \"9.9\"\n") else { return };
    assert_says(&workspace.refusal("queue"), &["no Apache Kafka 9.9 on this machine", "found only"]);
    workspace.end();
}
