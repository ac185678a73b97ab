use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::Duration;

use testenv_api::client::{ClientError, Held};
use testenv_api::{
    Effect, EndedLease, Fault, FaultsRequest, FaultsStatus, Isolation, KeepPolicy, Lease, LeaseRequest,
    ServerAction, ServerRequest, ServerState, ServerStatus,
};
use testkit::{
    Amqp, Clickhouse, Mysql, Nats, Sql, TestWorkspace, have, kafka_dir, needs_root, processes_of, skip, until,
};

use crate::{TESTENV, assert_says, workspace};

fn with_faults(role: &str) -> LeaseRequest {
    LeaseRequest { role: Some(role.into()), faults: true, ..LeaseRequest::default() }
}

fn path(held: &Held, what: &str) -> String {
    format!("/v1/leases/{}/{what}", held.lease().id)
}

fn add(held: &Held, effect: Effect) {
    let request = FaultsRequest { add: vec![effect.into()] };
    held.client().post::<Vec<Fault>>(&path(held, "faults"), &request).unwrap();
}

fn act(held: &Held, action: ServerAction) -> Result<ServerState, ClientError> {
    let done: ServerStatus = held.client().post(&path(held, "server"), &ServerRequest { action })?;
    Ok(done.state)
}

fn refused(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

fn has_ended(workspace: &TestWorkspace, id: &str) -> Result<(), String> {
    let ended: Vec<EndedLease> = workspace.client().get("/v1/leases/ended").unwrap();
    if ended.iter().any(|ended| ended.id == id) { Ok(()) } else { Err(format!("{id} has not ended")) }
}

#[test]
fn the_command_line_sets_lists_and_clears_faults() {
    let workspace = workspace("");
    let held = workspace.lease_as(&LeaseRequest { seed: Some(42), ..with_faults("database") });
    let sql = Sql::connect_url(&held.lease().url).unwrap();
    let call = |arguments: &str| {
        let words: Vec<&str> =
            ["faults", "database"].into_iter().chain(arguments.split_whitespace()).collect();
        workspace.run(&words)
    };
    let said = |arguments: &str| call(arguments).expect_success().stdout;
    assert_says(&said(""), &["1 open, 1 since the lease began", "seed         42", "no faults"]);
    let added = said("add latency 100ms --jitter 1s --direction down --connections new --name slow");
    assert_eq!(added, "added slow: latency 100ms to 1.1s, direction down, connections new\n");
    assert_eq!(said("add refuse"), "added refuse-2: refuse\n");
    assert_says(&said("list"), &["slow      down", "refuse-2  both"]);
    let listed: FaultsStatus = serde_json::from_str(&said("list --json")).unwrap();
    assert_eq!(listed.faults.len(), 2);
    assert!(refused(held.lease().port));
    assert_eq!(sql.one::<i64>("SELECT count(*) FROM items").unwrap(), 3, "it is an open connection");
    assert_eq!(said("remove slow"), "removed slow; 1 fault left\n");
    assert_eq!(said("clear"), "no faults left\n");
    assert!(!refused(held.lease().port));

    let id = &held.lease().id;
    assert_eq!(said("pause"), format!("the server of {id} (database) is paused\n"));
    assert_eq!(said("resume"), format!("the server of {id} (database) runs\n"));
    sql.run("SELECT 1").unwrap();
    assert_eq!(said("kill"), format!("the server of {id} (database) has ended\n"));
    sql.run("SELECT 1").unwrap_err();
    drop((sql, held));
    workspace.end();
}

#[test]
fn a_wrong_command_line_is_told_what_would_be_right() {
    let workspace = workspace("");
    let held = workspace.lease("database");
    let complaint = |arguments: &[&str]| {
        let ran = workspace.run(arguments);
        assert_ne!(ran.code, Some(0), "{}", ran.stdout);
        ran.stderr
    };
    assert_says(
        &complaint(&["faults", "queue"]),
        &["no lease \"queue\"", &held.lease().id, "by its id or role"],
    );
    let said = complaint(&["faults", "database", "add", "cut"]);
    assert_says(&said, &["has no proxy", "testenv exec --faults", "[services.database]"]);
    let said = complaint(&["faults", "database", "add", "latency", "100"]);
    assert_says(&said, &["expected a time such as"]);
    assert_says(&complaint(&["faults", "database", "restart"]), &["cannot restart a server", "hint:"]);
    let second = workspace.lease("database");
    let said = complaint(&["faults", "database", "pause"]);
    assert_says(&said, &["2 leases of database", &second.lease().id]);
    drop((held, second));
    workspace.end();
}

#[test]
fn a_command_and_a_role_may_ask_for_faults() {
    let config = "[services.queue]\nservice = \"redis\"\nfaults = true\nenv = { QUEUE_URL = \"{url}\" }\n";
    let workspace = workspace(config);
    let queue = workspace.lease("queue");
    let lease = queue.lease();
    assert!(lease.direct_port.is_some());
    assert!(lease.env["QUEUE_URL"].contains(&format!(":{}/", lease.port)));
    let script = "\"$TESTENV_BIN\" faults database add refuse >/dev/null; psql -c 'SELECT 1' 2>&1; \
                  \"$TESTENV_BIN\" faults database clear >/dev/null; psql -Atc 'SELECT 6 * 7'";
    let ran = workspace.run(&["exec", "--role", "database", "--faults", "--", "sh", "-c", script]);
    assert_says(&ran.expect_success().stdout, &["Connection refused", "42"]);
    drop(queue);
    workspace.end();
}

#[test]
fn every_kind_of_service_can_be_behind_a_proxy_and_paused() {
    type Use = fn(&Lease) -> Result<(), String>;
    let services: [(&str, &[&str], Use); 4] = [
        ("mysql", &["mariadbd", "mysqld"], |lease| Mysql::new(lease).run("SELECT 1").map(drop)),
        ("rabbitmq", &["rabbitmq-server"], |lease| Amqp::connect(lease)?.declare("orders")),
        ("clickhouse", &["clickhouse-server", "clickhouse"], |lease| {
            TcpStream::connect((lease.host.as_str(), lease.ports["native"]))
                .map_err(|error| error.to_string())?;
            Clickhouse::new(lease).run("SELECT 1").map(drop)
        }),
        ("nats", &["nats-server"], |lease| Nats::connect(lease)?.streams().map(drop)),
    ];
    for (service, programs, use_it) in services {
        if !programs.iter().any(|program| have(program)) {
            skip(&format!("there is no {service}"));
            continue;
        }
        let workspace = TestWorkspace::new(TESTENV)
            .config(&format!("[services.it]\nservice = \"{service}\"\n[pool]\nwarm = 0\n"));
        let held = workspace.lease_as(&with_faults("it"));
        use_it(held.lease()).unwrap();
        let connections = || -> u64 {
            held.client().get::<FaultsStatus>(&path(&held, "faults")).unwrap().accepted_connections
        };
        assert!(connections() > 0, "{service} was reached past the proxy");
        add(&held, Effect::Refuse);
        use_it(held.lease()).unwrap_err();
        held.client().delete::<FaultsStatus>(&path(&held, "faults")).unwrap();
        act(&held, ServerAction::Pause).unwrap();
        let (lease, begun) = (held.lease().clone(), connections());
        let waiting = std::thread::spawn(move || use_it(&lease));
        until(Duration::from_secs(10), || {
            if connections() > begun { Ok(()) } else { Err("not asked yet".into()) }
        });
        std::thread::sleep(Duration::from_millis(200));
        assert!(!waiting.is_finished(), "{service} answered though it is paused");
        act(&held, ServerAction::Resume).unwrap();
        waiting.join().unwrap().unwrap();
        assert_eq!(act(&held, ServerAction::Kill).unwrap(), ServerState::Ended);
        use_it(held.lease()).unwrap_err();
        drop(held);
        workspace.end();
    }
}

#[test]
fn a_service_whose_clients_would_go_past_the_proxy_is_refused() {
    let Some(dir) = kafka_dir() else { return skip("there is no Kafka with a Java") };
    let config = format!("[services.queue]\nservice = \"kafka\"\nbin_dir = {dir:?}\n");
    let workspace = TestWorkspace::new(TESTENV).config(&config);
    let message = workspace.try_lease(&with_faults("queue")).unwrap_err();
    assert_says(
        &message,
        &["on the way to Kafka", "would go past the proxy", "paused and killed all the same"],
    );
    workspace.end();
}

#[test]
fn a_proxy_is_no_way_around_the_password() {
    let workspace = workspace("");
    let (db, cache) =
        (workspace.lease_as(&with_faults("database")), workspace.lease_as(&with_faults("cache")));
    let lease = db.lease();
    let url = format!("postgres://{}:guess@127.0.0.1:{}/{}", lease.user, lease.port, lease.database);
    assert_says(&Sql::connect_url(&url).unwrap_err(), &["28P01"]);
    let open = redis::Client::open(format!("redis://127.0.0.1:{}/", cache.lease().port)).unwrap();
    let answer = open.get_connection().and_then(|mut open| redis::cmd("PING").query::<String>(&mut open));
    assert_says(&answer.unwrap_err().to_string(), &["NOAUTH"]);
    drop((db, cache));
    workspace.end();
}

#[test]
fn a_proxy_ends_with_its_lease_whatever_is_open() {
    let workspace = workspace("");
    let open_files = |workspace: &TestWorkspace| {
        let dir = format!("/proc/{}/fd", workspace.broker_pid().unwrap());
        std::fs::read_dir(dir).unwrap().count()
    };
    let round = |workspace: &TestWorkspace| {
        let held = workspace
            .lease_as(&LeaseRequest { isolation: Some(Isolation::Namespace), ..with_faults("database") });
        let open: Vec<_> = (0..5).map(|_| Sql::connect_url(&held.lease().url).unwrap()).collect();
        add(&held, Effect::Stall);
        let (port, id) = (held.lease().port, held.lease().id.clone());
        drop(held);
        until(Duration::from_secs(10), || has_ended(workspace, &id));
        until(
            Duration::from_secs(10),
            || if refused(port) { Ok(()) } else { Err(format!("{port} is open")) },
        );
        open.iter().for_each(|sql| drop(sql.run("SELECT 1").unwrap_err()));
    };
    (0..3).for_each(|_| round(&workspace));
    let before = open_files(&workspace);
    (0..20).for_each(|_| round(&workspace));
    until(Duration::from_secs(10), || match open_files(&workspace) {
        // The pool may hold some databases more or less.
        files if files <= before + 20 => Ok(()),
        files => Err(format!("{files} files are open, {before} before")),
    });
    workspace.end();
}

#[test]
fn faults_end_with_the_broker_however_it_ends() {
    let workspace = workspace("");
    let held = workspace.lease_as(&with_faults("database"));
    let sql = Sql::connect_url(&held.lease().url).unwrap();
    add(&held, Effect::Cut);
    act(&held, ServerAction::Pause).unwrap();
    let broker = rustix::process::Pid::from_raw(workspace.broker_pid().unwrap().cast_signed()).unwrap();
    rustix::process::kill_process(broker, rustix::process::Signal::KILL).unwrap();
    until(Duration::from_secs(10), || match processes_of(workspace.base()) {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    });
    assert!(refused(held.lease().port));
    drop((sql, held));
    drop(workspace.lease("cache"));
    workspace.end();
}

#[test]
fn a_paused_server_that_is_kept_goes_on() {
    let workspace = workspace("");
    let keep = Some(KeepPolicy::Always);
    let held = workspace.lease_as(&LeaseRequest { keep, ..with_faults("database") });
    assert_eq!(act(&held, ServerAction::Pause).unwrap(), ServerState::Paused);
    let lease = held.lease().clone();
    assert!(lease.connect_command.contains(&format!("-p {}", lease.direct_port.unwrap())));
    drop(held);
    until(Duration::from_secs(10), || has_ended(&workspace, &lease.id));
    assert_eq!(Sql::connect(&lease).unwrap().one::<i64>("SELECT count(*) FROM items").unwrap(), 3);
    assert!(refused(lease.port), "its proxy is gone");
    workspace.end();
}

#[test]
fn servers_without_namespaces_of_their_own_are_paused_and_killed_whole() {
    if !needs_root("to give up the right to namespaces") {
        return;
    }
    let workspace = workspace("").through(&["setpriv", "--bounding-set", "-sys_admin", "--"]);
    let held = workspace.lease("database");
    let sql = Sql::connect(held.lease()).unwrap();
    let port = format!("-p {}", held.lease().port);
    assert_eq!(act(&held, ServerAction::Pause).unwrap(), ServerState::Paused);
    assert_eq!(act(&held, ServerAction::Resume).unwrap(), ServerState::Running);
    sql.run("SELECT 1").unwrap();
    assert_eq!(act(&held, ServerAction::Kill).unwrap(), ServerState::Ended);
    let is_its = |process: &testkit::ProcessInfo| process.command.contains(&port);
    until(Duration::from_secs(5), || match processes_of(workspace.base()).into_iter().find(is_its) {
        None => Ok(()),
        Some(left) => Err(format!("{left:?}")),
    });
    drop((sql, held));
    workspace.end();
}
