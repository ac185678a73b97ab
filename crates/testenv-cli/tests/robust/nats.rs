use testenv_api::{Isolation, LeaseRequest};
use testkit::{Nats, TestWorkspace, have, skip, until};

use crate::{TESTENV, assert_says};

const STREAMS: &str = r#"[
    { "name": "ORDERS", "subjects": ["orders.>"], "storage": "file", "num_replicas": 1, "max_bytes": 10737418240 },
    { "stream_name": "ORDERS", "config": { "durable_name": "billing", "ack_policy": "explicit" } },
    { "bucket": "config", "values": { "tax": "19" } },
    { "subject": "orders.first", "data": { "id": 1 } }
]"#;

/// A workspace with one role of NATS; `None` where there is no NATS.
fn workspace(more: &str) -> Option<TestWorkspace> {
    if !have("nats-server") {
        skip("there is no nats-server");
        return None;
    }
    let config = format!("[services.bus]\nservice = \"nats\"\nseed = \"streams\"\n{more}");
    Some(TestWorkspace::new(TESTENV).config(&config).file("streams/1.json", STREAMS))
}

fn request(isolation: Isolation) -> LeaseRequest {
    LeaseRequest { role: Some("bus".into()), isolation: Some(isolation), ..LeaseRequest::default() }
}

/// Checks that all is there that the seed brings, and no more.
#[track_caller]
fn assert_pristine(nats: &mut Nats) {
    assert_eq!(nats.streams().unwrap(), ["KV_config", "ORDERS"]);
    let info = nats.ask("$JS.API.STREAM.INFO.ORDERS", "").unwrap();
    assert_eq!(info["state"]["messages"], 1);
    assert_eq!(info["state"]["consumer_count"], 1);
    let entry = nats.ask("$JS.API.STREAM.MSG.GET.KV_config", r#"{"last_by_subj":"$KV.config.tax"}"#).unwrap();
    assert_eq!(entry["message"]["data"], "MTk=");
}

fn spoil(nats: &mut Nats) {
    nats.ask("orders.second", "{}").unwrap();
    nats.ask("$JS.API.STREAM.DELETE.KV_config", "").unwrap();
    nats.ask("$JS.API.STREAM.CREATE.MINE", r#"{"name":"MINE","subjects":["mine"]}"#).unwrap();
}

#[test]
fn a_lease_is_a_server_of_its_own_with_its_streams() {
    let Some(workspace) = workspace("") else { return };
    let (one, two) = (workspace.lease("bus"), workspace.lease("bus"));
    assert_ne!(one.lease().port, two.lease().port);
    let (mut first, mut second) = (Nats::connect(one.lease()).unwrap(), Nats::connect(two.lease()).unwrap());
    assert_pristine(&mut first);
    spoil(&mut first);
    assert_pristine(&mut second);
    let refused = Nats::connect_as(one.lease(), "app", "wrong").unwrap_err();
    assert!(refused.contains("Authorization Violation"), "{refused}");
    let env = &one.lease().env;
    assert_eq!(env["NATS_URL"], one.lease().url);
    assert_eq!((env["NATS_USER"].as_str(), &env["NATS_PASSWORD"]), ("app", &one.lease().password));
    drop((one, two));
    workspace.end();
}

#[test]
fn namespaces_are_accounts_that_know_nothing_of_each_other() {
    let Some(workspace) = workspace("isolation = \"namespace\"\n") else { return };
    let (one, two) = (workspace.lease("bus"), workspace.lease("bus"));
    assert_eq!(one.lease().port, two.lease().port);
    assert!(one.lease().user.starts_with("t_") && one.lease().user != two.lease().user);
    let (mut first, mut second) = (Nats::connect(one.lease()).unwrap(), Nats::connect(two.lease()).unwrap());
    second.subscribe(">").unwrap();
    spoil(&mut first);
    first.publish("news", "from the first").unwrap();
    second.publish("news", "from the second").unwrap();
    assert_eq!(second.message().unwrap(), "from the second");
    assert_pristine(&mut Nats::connect(two.lease()).unwrap());
    Nats::connect_as(one.lease(), &two.lease().user, &one.lease().password).unwrap_err();
    // What the first one held goes with its lease.
    let gone = one.lease().clone();
    drop(one);
    until(std::time::Duration::from_secs(10), || {
        let streams = Nats::connect(&gone)?.streams()?;
        if streams.is_empty() { Ok(()) } else { Err(format!("it still has {streams:?}")) }
    });
    drop(two);
    workspace.end();
}

#[test]
fn a_shared_server_that_is_used_up_gives_way_to_another() {
    let Some(workspace) = workspace("isolation = \"namespace\"\n") else { return };
    let first = workspace.lease("bus");
    let mut ports = std::collections::BTreeSet::new();
    for _ in 0..10 {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10 {
                        let held = workspace.lease("bus");
                        let mut nats = Nats::connect(held.lease()).unwrap();
                        assert_pristine(&mut nats);
                        spoil(&mut nats);
                    }
                });
            }
        });
        ports.insert(workspace.lease("bus").lease().port);
    }
    // Four hundred namespaces, and a server has accounts for fewer. The first lease was disturbed by none.
    assert!(ports.iter().any(|port| *port != first.lease().port), "all were in one server");
    assert_pristine(&mut Nats::connect(first.lease()).unwrap());
    drop(first);
    workspace.end();
}

#[test]
fn shared_leases_see_one_account() {
    let Some(workspace) = workspace("") else { return };
    let (one, two) =
        (workspace.lease_as(&request(Isolation::Shared)), workspace.lease_as(&request(Isolation::Shared)));
    assert_eq!(one.lease().url, two.lease().url);
    assert_pristine(&mut Nats::connect(one.lease()).unwrap());
    Nats::connect(one.lease()).unwrap().ask("orders.second", "{}").unwrap();
    let info = Nats::connect(two.lease()).unwrap().ask("$JS.API.STREAM.INFO.ORDERS", "").unwrap();
    assert_eq!(info["state"]["messages"], 2);
    drop((one, two));
    workspace.end();
}

#[test]
fn a_seed_that_cannot_be_applied_is_named() {
    let Some(workspace) = workspace("") else { return };
    for (seed, says) in [
        ("{", "EOF while parsing"),
        ("[{}]", "entry 1: it has none of `name`"),
        (r#"{"name":"A","subjects":["a","orders.*"]}"#, "subjects overlap with an existing stream"),
        (r#"{"subject":"nowhere","data":1}"#, "nothing listens on the subject"),
        (r#"{"stream_name":"NONE","config":{"durable_name":"d"}}"#, "stream not found"),
    ] {
        workspace.write("streams/2_bad.json", seed);
        assert_says(&workspace.refusal("bus"), &["preparing bus", "streams/2_bad.json", says]);
    }
    // A file may give a stream of an earlier one another configuration.
    workspace
        .write("streams/2_bad.json", r#"{"name":"ORDERS","subjects":["orders.>","more"],"storage":"file"}"#);
    let held = workspace.lease("bus");
    Nats::connect(held.lease()).unwrap().ask("more", "").unwrap();
    drop(held);
    workspace.end();
}

#[test]
fn settings_reach_the_server_and_a_bad_one_is_told_with_its_log() {
    let Some(workspace) = workspace("settings = { max_payload = 2048 }\n") else { return };
    let held = workspace.lease("bus");
    let mut nats = Nats::connect(held.lease()).unwrap();
    let refused = nats.publish("a", &"x".repeat(4096)).unwrap_err();
    assert!(refused.contains("Maximum Payload Violation"), "{refused}");
    drop(held);
    for (setting, says) in [
        ("no_such_thing = 1", "unknown field \"no_such_thing\""),
        ("http_port = 8222", "services.bus.settings.http_port cannot be set"),
    ] {
        let config = format!("[services.bus]\nservice = \"nats\"\nsettings = {{ {setting} }}\n");
        workspace.write("testenv.toml", &config);
        let _ = workspace.down();
        assert_says(&workspace.refusal("bus"), &[says]);
    }
    workspace.end();
}

#[test]
fn a_machine_without_nats_is_told_how_to_install_it() {
    let config = "[services.bus]\nservice = \"nats\"\nbin_dir = \"nothing-here\"\n";
    let workspace = TestWorkspace::new(TESTENV).config(config);
    let message = workspace.refusal("bus");
    assert_says(&message, &["no NATS on this machine", "nothing-here", "apt-get install nats-server"]);
    workspace.end();
}

#[test]
fn a_nats_that_others_run_is_refused_with_the_reason() {
    let Some(provider) = workspace("") else { return };
    let held = provider.lease("bus");
    let workspace = TestWorkspace::new(TESTENV)
        .config("[services.bus]\nservice = \"nats\"\nruntime = \"external\"\n")
        .env("NATS_URL", &held.lease().url);
    let message = workspace.refusal("bus");
    assert_says(
        &message,
        &["the NATS at 127.0.0.1", "accounts are in the server's own", "runtime = \"native\""],
    );
    workspace.end();
    drop(held);
    provider.end();
}
