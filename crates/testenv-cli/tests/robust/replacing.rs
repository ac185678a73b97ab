use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use testenv_api::LeaseRequest;
use testkit::TestWorkspace;

use crate::{TESTENV, assert_says, workspace};

/// Makes the runtime directory that a broker would, so that something else can be there first.
fn make_runtime(workspace: &TestWorkspace) {
    fs::create_dir_all(workspace.runtime()).unwrap();
}

#[test]
fn a_stale_socket_is_replaced() {
    let workspace = workspace("");
    make_runtime(&workspace);
    drop(UnixListener::bind(workspace.socket()).unwrap());
    assert!(workspace.socket().exists());
    drop(workspace.lease("cache"));
    workspace.end();
}

#[test]
fn a_killed_broker_s_socket_directories_and_forks_are_gone_after_the_next_start() {
    let workspace = workspace("");
    let held = (workspace.lease("database"), workspace.lease("cache"));
    let pid = workspace.broker_pid().unwrap();
    kill(pid);
    assert!(held.0.lease().socket.starts_with(&*workspace.runtime().to_string_lossy()));
    let next = workspace.lease("database");
    assert_ne!(workspace.broker_pid().unwrap(), pid);
    assert!(
        !std::path::Path::new(&held.1.lease().socket).exists() || next.lease().port != held.1.lease().port
    );
    drop((held, next));
    workspace.end();
}

/// A server that answers every request as a broker of another protocol would.
fn older_broker(listener: UnixListener, health: &'static str) {
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).unwrap_or(0);
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            let (status, body) = if request.starts_with("GET /v1/health")
                && !request.contains("testenv-protocol")
            {
                ("200 OK", health.to_owned())
            } else {
                let body = "{\"type\":\"protocol-mismatch\",\"status\":426,\"title\":\"the broker speaks version 0 of the protocol, \
                            the client version 1\",\"hint\":\"run `testenv down`\"}";
                ("426 Upgrade Required", body.to_owned())
            };
            let answer = format!(
                "HTTP/1.1 {status}\r\ntestenv-protocol: 0\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
                 connection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes());
        }
    });
}

#[test]
fn an_older_broker_that_still_runs_is_named_with_what_to_do() {
    let workspace = workspace("");
    make_runtime(&workspace);
    let listener = UnixListener::bind(workspace.socket()).unwrap();
    older_broker(
        listener,
        "{\"version\":\"0.0.9\",\"protocol\":0,\"pid\":7,\"workspace\":\"/w\",\"leases\":2}",
    );
    // A client library of another version than the broker.
    let message = workspace.refusal("cache");
    assert_says(&message, &["speaks version 0 of the protocol, the client version 1", "testenv down"]);
    // The program itself.
    let ran = workspace.run(&["exec", "--role", "cache", "--", "true"]);
    assert_ne!(ran.code, Some(0));
    assert_says(&ran.stderr, &["another version", "0.0.9", "2 leases are held", "testenv down"]);
    fs::remove_file(workspace.socket()).unwrap();
    workspace.end();
}

#[test]
fn something_else_that_listens_there_is_no_reason_to_hang() {
    let workspace = workspace("");
    make_runtime(&workspace);
    let listener = UnixListener::bind(workspace.socket()).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut request = [0; 4096];
            let _ = (&stream).read(&mut request);
            let _ = (&stream).write_all(b"220 smtp ready\r\n\r\n");
        }
    });
    let message = workspace.refusal("cache");
    assert_says(&message, &["the broker did not answer", "not an answer that a broker gives"]);
    fs::remove_file(workspace.socket()).unwrap();
    workspace.end();
}

#[test]
fn a_broker_killed_while_it_prepares_leaves_nothing_that_is_in_the_way() {
    let workspace = workspace("").own_cache();
    let request = LeaseRequest { role: Some("database".into()), ..LeaseRequest::default() };
    for moment in 0..8 {
        workspace.start().unwrap();
        let asked = workspace.client().ask(&request, Duration::from_secs(30)).unwrap();
        thread::sleep(Duration::from_millis(60 * moment));
        kill(workspace.broker_pid().unwrap());
        drop(asked);
    }
    let held = workspace.lease("database");
    assert_eq!(
        testkit::Sql::connect(held.lease()).unwrap().one::<i64>("SELECT count(*) FROM items").unwrap(),
        3
    );
    drop(held);
    let snapshots = fs::read_dir(workspace.base().join("c/snapshots")).unwrap().flatten();
    let unfinished: Vec<_> =
        snapshots.map(|it| it.file_name()).filter(|it| it.to_string_lossy().starts_with('.')).collect();
    assert!(unfinished.is_empty(), "{unfinished:?}");
    workspace.end();
}

#[test]
fn two_brokers_that_prepare_the_same_at_once_do_not_disturb_each_other() {
    let one = workspace("").own_cache();
    let two = workspace("").cache(one.base().join("c"));
    let leases = thread::scope(|scope| {
        let leases = [scope.spawn(|| one.lease("database")), scope.spawn(|| two.lease("database"))];
        leases.map(|lease| lease.join().unwrap())
    });
    for held in &leases {
        let sql = testkit::Sql::connect_url(&held.lease().url).unwrap();
        assert_eq!(sql.one::<i64>("SELECT count(*) FROM items").unwrap(), 3);
    }
    drop(leases);
    two.end();
    one.end();
}

#[test]
fn a_broker_that_hangs_is_ended_by_down() {
    let workspace = workspace("");
    let held = workspace.lease("database");
    let pid = workspace.broker_pid().unwrap();
    let broker = Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(broker, Signal::STOP).unwrap();
    let patient = workspace.client().with_answer_limit(Duration::from_millis(300));
    let error = patient.get_text("/v1/status").unwrap_err().to_string();
    assert_says(&error, &["did not answer GET /v1/status in time", "testenv down"]);
    let request = LeaseRequest { role: Some("database".into()), ..LeaseRequest::default() };
    let error = patient.lease(&request).unwrap_err().to_string();
    assert_says(&error, &["did not answer POST /v1/leases in time", "testenv down"]);
    let ran = workspace.down().expect_success();
    assert_says(&ran.stdout, &["killed the broker"]);
    drop(held);
    drop(workspace.lease("database"));
    workspace.end();
}

#[test]
fn a_broker_s_descriptors_and_threads_do_not_grow_with_what_it_has_done() {
    let workspace = workspace("[pool]\nwarm = 2\n");
    let count = |what: &str| {
        let pid = workspace.broker_pid().unwrap();
        fs::read_dir(format!("/proc/{pid}/{what}")).unwrap().count()
    };
    let use_it = |times: usize| {
        for _ in 0..times {
            drop((workspace.lease("database"), workspace.lease("cache")));
        }
        testkit::until(Duration::from_secs(10), || {
            let pools = workspace.status().pools;
            let busy: usize = pools.iter().map(|pool| pool.leased + pool.starting).sum();
            if busy == 0 { Ok(()) } else { Err(format!("{pools:?}")) }
        });
    };
    use_it(5);
    let before = (count("fd"), count("task"));
    use_it(40);
    testkit::until(Duration::from_secs(15), || {
        let after = (count("fd"), count("task"));
        let few = after.0 <= before.0 + 10 && after.1 <= before.1 + 6;
        if few { Ok(()) } else { Err(format!("before {before:?}, after {after:?}")) }
    });
    workspace.end();
}

pub(crate) fn kill(pid: u32) {
    rustix::process::kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL).unwrap();
}

#[test]
fn two_workspaces_at_once_have_nothing_in_common() {
    let (one, two) = (workspace(""), workspace(""));
    let (first, second) = (one.lease("database"), two.lease("database"));
    assert_ne!(one.broker_pid().unwrap(), two.broker_pid().unwrap());
    assert_ne!(first.lease().port, second.lease().port);
    let _ = one.down().expect_success();
    let sql = testkit::Sql::connect(second.lease()).unwrap();
    assert_eq!(sql.one::<i64>("SELECT count(*) FROM items").unwrap(), 3);
    drop((first, second));
    one.assert_nothing_left();
    two.end();
}

#[test]
fn twenty_starts_at_once_make_one_broker() {
    let workspace = TestWorkspace::new(TESTENV).config("");
    let pids = thread::scope(|scope| {
        let start = || {
            workspace.start().unwrap();
            workspace.broker_pid().unwrap()
        };
        let started: Vec<_> = (0..20).map(|_| scope.spawn(start)).collect();
        started.into_iter().map(|it| it.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(pids.iter().all(|pid| *pid == pids[0]), "{pids:?}");
    let ran = workspace.run(&["broker"]);
    assert_ne!(ran.code, Some(0));
    assert_says(&ran.stderr, &["a broker serves this workspace already", "testenv down"]);
    workspace.end();
}
