use std::process::Command;
use std::time::Duration;

use testenv_api::client::Held;
use testenv_api::{Isolation, LeaseRequest};
use testkit::{Amqp, TestWorkspace, User, have, needs_root, run, skip, until};

use crate::{TESTENV, assert_says};

/// As RabbitMQ exports them, with the user that all exports have.
const DEFINITIONS: &str = r##"{
    "rabbit_version": "3.10.8",
    "users": [
        { "name": "guest", "password_hash": "2ZQSgerDFMp0JZTsxQlJZGHeNvJWOEX6E0Kkl1QxSTYTYXoU",
          "hashing_algorithm": "rabbit_password_hashing_sha256", "tags": ["administrator"] },
        { "name": "auditor", "password_hash": "", "tags": [] }
    ],
    "vhosts": [{ "name": "/" }, { "name": "archive" }],
    "permissions": [{ "user": "guest", "vhost": "/", "configure": ".*", "write": ".*", "read": ".*" }],
    "policies": [{ "vhost": "/", "name": "short", "pattern": "^audit$", "apply-to": "queues",
                   "definition": { "max-length": 2 }, "priority": 0 }],
    "queues": [
        { "name": "audit", "vhost": "/", "durable": true, "auto_delete": false,
          "arguments": { "x-queue-type": "classic" } },
        { "name": "orders", "vhost": "/", "durable": true, "auto_delete": false,
          "arguments": { "x-queue-type": "quorum" } },
        { "name": "old", "vhost": "archive", "durable": true, "auto_delete": false, "arguments": {} }
    ],
    "exchanges": [{ "name": "events", "vhost": "/", "type": "topic", "durable": true, "auto_delete": false,
                    "internal": false, "arguments": {} }],
    "bindings": [
        { "source": "events", "vhost": "/", "destination": "orders", "destination_type": "queue",
          "routing_key": "order.*", "arguments": {} },
        { "source": "events", "vhost": "/", "destination": "audit", "destination_type": "queue",
          "routing_key": "#", "arguments": {} }
    ]
}"##;

/// A workspace with one role of RabbitMQ; `None` where there is none.
fn workspace(more: &str) -> Option<TestWorkspace> {
    if !have("rabbitmq-server") {
        skip("there is no rabbitmq-server");
        return None;
    }
    let config =
        format!("[services.queue]\nservice = \"rabbitmq\"\nseed = \"rabbit\"\n{more}\n[pool]\nwarm = 1\n");
    Some(TestWorkspace::new(TESTENV).config(&config).file("rabbit/1.json", DEFINITIONS))
}

fn request(isolation: Isolation) -> LeaseRequest {
    LeaseRequest { role: Some("queue".into()), isolation: Some(isolation), ..LeaseRequest::default() }
}

/// Checks that all is there that the seed brings, and no message; uses it.
#[track_caller]
fn use_pristine(held: &Held) {
    let mut amqp = Amqp::connect(held.lease()).unwrap();
    assert_eq!((amqp.count("orders"), amqp.count("audit")), (Ok(0), Ok(0)));
    for number in 1..=3 {
        amqp.publish("events", "order.new", &format!("order {number}")).unwrap();
    }
    until(Duration::from_secs(20), || match amqp.count("orders")? {
        3 => Ok(()),
        other => Err(format!("{other} messages")),
    });
    assert_eq!(amqp.get("orders").unwrap().as_deref(), Some("order 1"));
    // The policy keeps the last two.
    assert_eq!(amqp.count("audit"), Ok(2));
    amqp.declare("mine").unwrap();
    // What came with the snapshot can go.
    amqp.delete("orders").unwrap();
    amqp.count("orders").unwrap_err();
}

/// Whether the lease's RabbitMQ lets somebody in.
fn lets_in(held: &Held, user: &str, password: &str, vhost: &str) -> bool {
    Amqp::connect_as(held.lease(), user, password, vhost).is_ok()
}

#[test]
fn a_lease_is_a_server_of_its_own_with_its_definitions() {
    let Some(workspace) = workspace("") else { return };
    let (one, two) = (workspace.lease("queue"), workspace.lease("queue"));
    assert_ne!(one.lease().port, two.lease().port);
    use_pristine(&one);
    use_pristine(&two);
    // The definitions' password of this user is not the lease's.
    assert!(!lets_in(&one, "guest", "guest", "/"));
    let env = &one.lease().env;
    assert_eq!((&env["AMQP_URL"], &env["RABBITMQ_URL"]), (&one.lease().url, &one.lease().url));
    assert!(one.lease().url.ends_with("/%2F"), "{}", one.lease().url);
    assert_eq!((env["RABBITMQ_VHOST"].as_str(), &env["RABBITMQ_PASSWORD"]), ("/", &one.lease().password));
    drop((one, two));
    workspace.end();
}

#[test]
fn whoever_has_no_rights_has_it_too_and_so_has_who_cannot_mount() {
    let Some(workspace) = workspace("") else { return };
    if !needs_root("to become another user") {
        return;
    }
    let nobodys = TestWorkspace::of_user(TESTENV, User::Nobody)
        .config("[services.queue]\nservice = \"rabbitmq\"\nseed = \"rabbit\"\n[pool]\nwarm = 1\n")
        .file("rabbit/1.json", DEFINITIONS);
    let held = nobodys.lease("queue");
    use_pristine(&held);
    drop(held);
    nobodys.end();
    let config = "[services.queue]\nservice = \"rabbitmq\"\nseed = \"rabbit\"\n[pool]\nwarm = 1\n\
                  [cache]\nfork = \"copy\"\nstorage = \"disk\"\n";
    workspace.write("testenv.toml", config);
    let held = workspace.lease("queue");
    use_pristine(&held);
    drop(held);
    workspace.end();
}

#[test]
fn the_printed_command_shows_the_queues() {
    let Some(workspace) = workspace("") else { return };
    let held = workspace.lease("queue");
    Amqp::connect(held.lease()).unwrap().publish("", "audit", "one").unwrap();
    let shown = run(Command::new("sh").args(["-c", &held.lease().connect_command]), Duration::from_secs(60));
    assert_says(&shown.expect_success().stdout, &["audit\t1", "orders\t0"]);
    drop(held);
    workspace.end();
}

#[test]
fn namespaces_are_virtual_hosts_that_know_nothing_of_each_other() {
    let Some(workspace) = workspace("isolation = \"namespace\"") else { return };
    let (one, two) = (workspace.lease("queue"), workspace.lease("queue"));
    assert_eq!(one.lease().port, two.lease().port);
    assert!(one.lease().database.starts_with("t_") && one.lease().database != two.lease().database);
    use_pristine(&one);
    use_pristine(&two);
    let (mine, theirs) = (one.lease(), &two.lease().database);
    let refused = Amqp::connect_as(mine, &mine.user, &mine.password, theirs).unwrap_err();
    assert!(refused.contains("NOT_ALLOWED"), "{refused}");
    // What the first one held goes with its lease.
    let gone = one.lease().clone();
    drop(one);
    until(Duration::from_secs(20), || match Amqp::connect(&gone) {
        Ok(_) => Err("it still lets its user in".to_owned()),
        Err(_) => Ok(()),
    });
    drop(two);
    workspace.end();
}

#[test]
fn shared_leases_see_one_server() {
    let Some(workspace) = workspace("") else { return };
    let (one, two) =
        (workspace.lease_as(&request(Isolation::Shared)), workspace.lease_as(&request(Isolation::Shared)));
    assert_eq!(one.lease().url, two.lease().url);
    use_pristine(&one);
    assert_eq!(Amqp::connect(two.lease()).unwrap().count("mine"), Ok(0));
    drop((one, two));
    workspace.end();
}

#[test]
fn plugins_settings_and_names_are_as_configured() {
    let more = "plugins = [\"rabbitmq_management\", \"rabbitmq_mqtt\"]\n\
                settings = { channel_max = 7, \"mqtt.allow_anonymous\" = false }\n\
                user = \"joe\"\npassword = \"secret\"\ndatabase = \"the shop\"\n\
                env = { UI = \"http://{host}:{port.management}\", MQTT = \"{port.mqtt}\" }";
    let Some(workspace) = workspace(more) else { return };
    workspace.write(
        "rabbit/1.json",
        r#"{"queues":[{"name":"orders","durable":true,"auto_delete":false,"arguments":{}}]}"#,
    );
    let held = workspace.lease("queue");
    assert!(held.lease().url.contains("joe:secret@") && held.lease().url.ends_with("/the%20shop"));
    assert_eq!(Amqp::connect(held.lease()).unwrap().count("orders"), Ok(0));
    let ui = format!("{}/api/overview", held.lease().env["UI"]);
    let login = "joe:secret";
    let said = run(Command::new("curl").args(["-sf", "-u", login, &ui]), Duration::from_secs(20));
    assert_says(
        &said.expect_success().stdout,
        &["\"management_version\"", held.lease().engine.version.as_str()],
    );
    let mqtt = held.lease().env["MQTT"].parse().unwrap();
    std::net::TcpStream::connect(("127.0.0.1", mqtt)).unwrap();
    drop(held);
    workspace.end();
}

#[test]
fn a_seed_that_cannot_be_applied_is_named() {
    let Some(workspace) = workspace("") else { return };
    for (seed, says) in [
        ("{", "EOF while parsing"),
        ("{\"name\": \"orders\"}", "it has none of"),
        (r#"{"queues":[{"name":"q","vhost":"/"}]}"#, "lacks a key"),
        (
            r#"{"queues":[{"name":"q","vhost":"nowhere","durable":true,"auto_delete":false,"arguments":{}}]}"#,
            "no_such_vhost",
        ),
        (
            r#"{"queues":[{"name":"q","vhost":"/","durable":true,"auto_delete":false,
                "arguments":{"x-message-ttl":"soon"}}]}"#,
            "q",
        ),
    ] {
        workspace.write("rabbit/2_bad.json", seed);
        assert_says(&workspace.refusal("queue"), &["preparing queue", "rabbit/2_bad.json", says]);
    }
    workspace.end();
}

#[test]
fn what_cannot_be_configured_is_told() {
    for (more, says) in [
        (
            "settings = { \"listeners.tcp.default\" = 5672 }",
            "services.queue.settings.listeners.tcp.default cannot",
        ),
        ("settings = { no_such_setting = 1 }", "no_such_setting"),
        ("plugins = [\"rabbitmq_managment\"]", "there is no plugin rabbitmq_managment"),
        ("plugins = [\"a;b\"]", "not a name"),
        ("password = \"\"", "services.queue.password"),
    ] {
        let Some(workspace) = workspace(more) else { return };
        assert_says(&workspace.refusal("queue"), &[says]);
        workspace.end();
    }
}

#[test]
fn what_the_environment_says_of_other_nodes_is_not_heard() {
    let Some(workspace) = workspace("") else { return };
    let workspace = [
        ("RABBITMQ_NODENAME", "other@elsewhere"),
        ("RABBITMQ_FEATURE_FLAGS", ""),
        ("RABBITMQ_CONFIG_FILE", "/nonexistent"),
        ("RABBITMQ_USE_LONGNAME", "true"),
        ("RABBITMQ_MNESIA_DIR", "/nonexistent"),
        ("ERL_FLAGS", "-no_such_thing +S 64:64"),
        ("ERL_EPMD_PORT", "1"),
    ]
    .into_iter()
    .fold(workspace, |workspace, (name, value)| workspace.env(name, value));
    let held = workspace.lease("queue");
    use_pristine(&held);
    drop(held);
    workspace.end();
}

#[test]
fn virtual_hosts_of_a_declared_server_are_leased_and_removed() {
    let Some(provider) = workspace("plugins = [\"rabbitmq_management\"]") else { return };
    let server = provider.lease("queue");
    let config = "[services.queue]\nservice = \"rabbitmq\"\nruntime = \"external\"\nseed = \"rabbit\"\n";
    let workspace = TestWorkspace::new(TESTENV)
        .config(config)
        .file("rabbit/1.json", DEFINITIONS)
        .env("AMQP_URL", &server.lease().url)
        .env("RABBITMQ_MANAGEMENT_URL", &server.lease().env["RABBITMQ_MANAGEMENT_URL"]);
    let (one, two) = (workspace.lease("queue"), workspace.lease("queue"));
    assert_eq!((one.lease().runtime.as_str(), one.lease().port), ("external", server.lease().port));
    use_pristine(&one);
    use_pristine(&two);
    let names = [one.lease().database.clone(), two.lease().database.clone()];
    drop((one, two));
    workspace.end();
    for name in names {
        let lease = server.lease();
        let left = Amqp::connect_as(lease, &lease.user, &lease.password, &name).unwrap_err();
        assert!(left.contains("not found"), "{left}");
    }
    let wrong = TestWorkspace::new(TESTENV).config(config).file("rabbit/1.json", DEFINITIONS);
    let wrong = wrong.env("AMQP_URL", server.lease().url.replace(&server.lease().password, "wrong"));
    let wrong = wrong.env("RABBITMQ_MANAGEMENT_URL", &server.lease().env["RABBITMQ_MANAGEMENT_URL"]);
    let message = wrong.refusal("queue");
    assert_says(&message, &["the external server of services.queue cannot be used", "401"]);
    wrong.end();
    drop(server);
    provider.end();
}

#[test]
fn a_machine_without_rabbitmq_is_told_how_to_install_it() {
    let config = "[services.queue]\nservice = \"rabbitmq\"\nbin_dir = \"nothing-here\"\n";
    let workspace = TestWorkspace::new(TESTENV).config(config);
    let message = workspace.refusal("queue");
    assert_says(
        &message,
        &["no RabbitMQ on this machine", "nothing-here", "apt-get install rabbitmq-server"],
    );
    workspace.end();
}
