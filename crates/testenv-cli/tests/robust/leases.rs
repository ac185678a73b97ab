use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use testenv_api::{Event, HeldLease, Isolation, LeaseRequest};
use testkit::torture::ClientSpec;
use testkit::{Sql, TestWorkspace, processes_of, run, until};

use crate::{TESTENV, assert_says, client_program, workspace};

fn request(wait: Duration) -> LeaseRequest {
    LeaseRequest {
        role: Some("database".into()),
        wait_ms: Some(u64::try_from(wait.as_millis()).unwrap()),
        ..LeaseRequest::default()
    }
}

fn held(workspace: &TestWorkspace) -> Vec<HeldLease> {
    workspace.client().get("/v1/leases").unwrap()
}

/// Starts a client of the torture in the workspace.
fn client(workspace: &TestWorkspace, spec: &ClientSpec) -> Child {
    let program = client_program();
    let mut command = workspace.command_of(&program.program, &program.arguments);
    spec.apply(&mut command).spawn().unwrap()
}

fn spec(name: &str, isolation: Isolation) -> ClientSpec {
    ClientSpec {
        name: name.into(),
        roles: vec![("database".into(), isolation)],
        seeded_rows: 3,
        limit_ms: 60_000,
        grandchild: false,
    }
}

#[test]
fn two_hundred_test_processes_at_once_all_get_their_own() {
    let workspace = workspace("[pool]\nmax_servers = 24\n");
    drop(workspace.lease("database"));
    let begun = Instant::now();
    let children: Vec<_> = (0..200)
        .map(|_| {
            let command = ["exec", "--role", "database", "--", "sh", "-c", "echo $PGPORT; sleep 0.1"];
            workspace
                .command(&command)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
        })
        .collect::<Result<_, _>>()
        .unwrap();
    let mut most = 0;
    let watched = thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            children.into_iter().map(Child::wait_with_output).collect::<Result<Vec<_>, _>>().unwrap()
        });
        while !waiting.is_finished() {
            let pools = workspace.status().pools;
            most = most.max(pools.iter().map(|pool| pool.leased + pool.warm + pool.starting).sum());
            thread::sleep(Duration::from_millis(50));
        }
        waiting.join().unwrap()
    });
    for output in &watched {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(String::from_utf8_lossy(&output.stdout).trim().parse::<u16>().is_ok());
    }
    assert!(most <= 24, "{most} servers at once");
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    until(Duration::from_secs(5), || match held(&workspace) {
        leases if leases.is_empty() => Ok(()),
        leases => Err(format!("{leases:?}")),
    });
    workspace.end();
}

#[test]
fn who_waits_for_a_server_gets_one_in_turn_and_is_told_when_there_is_none() {
    let workspace = workspace("[pool]\nmax_servers = 2\nwarm = 2\n");
    let (one, two) = (workspace.lease("database"), workspace.lease("database"));
    let message = workspace.try_lease(&request(Duration::from_millis(300))).unwrap_err();
    assert_says(&message, &["no database within 300 ms", "2 leased", "pool.max_servers"]);
    assert_says(&message, &["2 servers are there, and `pool.max_servers` allows no more"]);
    let turns = thread::scope(|scope| {
        let workspace = &workspace;
        let (done, turns) = std::sync::mpsc::channel();
        for turn in 0..4 {
            let done = done.clone();
            scope.spawn(move || {
                let held = workspace.lease_as(&request(Duration::from_secs(30)));
                done.send(turn).unwrap();
                thread::sleep(Duration::from_millis(20));
                drop(held);
            });
            until(Duration::from_secs(5), || {
                let waiting: usize = workspace.status().pools.iter().map(|pool| pool.waiting).sum();
                if waiting == turn + 1 { Ok(()) } else { Err(format!("{waiting} wait")) }
            });
        }
        drop((one, done));
        turns.into_iter().collect::<Vec<_>>()
    });
    assert_eq!(turns, [0, 1, 2, 3]);
    drop(two);
    workspace.end();
}

#[test]
fn a_server_that_is_killed_while_leased_is_told_to_its_test_and_to_nobody_else() {
    let workspace = workspace("");
    let (mut victim, mut other) = (workspace.lease("database"), workspace.lease("database"));
    let sql = Sql::connect(victim.lease()).unwrap();
    sql.run("DO $$ BEGIN RAISE LOG 'the last words'; END $$").unwrap();
    let port = format!("-p {}", victim.lease().port);
    let server = processes_of(workspace.base())
        .into_iter()
        .find(|process| process.command.contains(&port))
        .expect("its server runs");
    rustix::process::kill_process(Pid::from_raw(server.pid.cast_signed()).unwrap(), Signal::KILL).unwrap();
    match victim.next_event(Duration::from_secs(5)).unwrap() {
        Some(Event::ServerExited { log_tail, .. }) => assert_says(&log_tail, &["the last words"]),
        event => panic!("{event:?}"),
    }
    // Told once, also when other servers of the pool end afterwards.
    drop(workspace.lease("database"));
    assert_eq!(victim.next_event(Duration::from_millis(500)).unwrap(), None);
    assert_eq!(other.next_event(Duration::from_millis(100)).unwrap(), None);
    assert_eq!(Sql::connect(other.lease()).unwrap().one::<i64>("SELECT count(*) FROM items").unwrap(), 3);
    drop((sql, victim, other));
    workspace.end();
}

#[test]
fn the_end_of_the_broker_is_told_to_those_who_hold_leases() {
    let workspace = workspace("");
    let mut held = workspace.lease("database");
    let _ = workspace.down().expect_success();
    assert_eq!(held.next_event(Duration::from_secs(5)).unwrap(), Some(Event::BrokerStopping));
    held.next_event(Duration::from_secs(5)).unwrap_err();
    workspace.assert_nothing_left();
}

#[test]
fn a_killed_test_s_lease_ends_though_a_process_that_it_started_lives() {
    let workspace = workspace("");
    workspace.start().unwrap();
    let mut test = client(&workspace, &ClientSpec { grandchild: true, ..spec("parent", Isolation::Server) });
    let sleeping =
        || processes_of(workspace.base()).into_iter().find(|process| process.command == "sleep 30");
    let grandchild = until(Duration::from_secs(20), || sleeping().ok_or_else(|| "no grandchild yet".into()));
    assert_eq!(held(&workspace).len(), 1);
    test.kill().unwrap();
    test.wait().unwrap();
    until(Duration::from_secs(5), || match held(&workspace) {
        leases if leases.is_empty() => Ok(()),
        leases => Err(format!("{leases:?}")),
    });
    assert!(testkit::alive(&grandchild));
    rustix::process::kill_process(Pid::from_raw(grandchild.pid.cast_signed()).unwrap(), Signal::KILL)
        .unwrap();
    until(Duration::from_secs(5), || if testkit::alive(&grandchild) { Err("lives".into()) } else { Ok(()) });
    workspace.end();
}

#[test]
fn a_lease_ends_with_its_process_though_a_child_has_inherited_the_connection() {
    // A shell opens the lease with curl's means: the connection is inherited by everything it starts.
    if !testkit::have("python3") {
        return testkit::skip("there is no python3, which opens the connection here");
    }
    let workspace = workspace("");
    workspace.start().unwrap();
    let script = "import os,socket,subprocess,sys\n\
        s=socket.socket(socket.AF_UNIX);s.connect(sys.argv[1]);s.set_inheritable(True)\n\
        b=b'{\"role\":\"database\"}'\n\
        s.sendall(b'POST /v1/leases HTTP/1.1\\r\\nhost: x\\r\\ncontent-length: %d\\r\\n\\r\\n'%len(b)+b)\n\
        s.recv(65536)\n\
        p=subprocess.Popen(['sleep','60'],close_fds=False,stdout=subprocess.DEVNULL)\n\
        print(p.pid,flush=True)\n\
        sys.stdin.read()\n";
    let mut command = Command::new("python3");
    command.args(["-c", script]).arg(workspace.socket()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut test = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(test.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let heir = Pid::from_raw(line.trim().parse().unwrap()).unwrap();
    assert_eq!(held(&workspace).len(), 1);
    test.kill().unwrap();
    test.wait().unwrap();
    until(Duration::from_secs(5), || match held(&workspace) {
        leases if leases.is_empty() => Ok(()),
        leases => Err(format!("{leases:?}")),
    });
    rustix::process::kill_process(heir, Signal::KILL).unwrap();
    workspace.end();
}

#[test]
fn the_broker_leaves_when_nobody_needs_it_and_comes_back() {
    let workspace = workspace("[broker]\nidle_exit = \"1s\"\n");
    let held = workspace.lease("database");
    let pid = workspace.broker_pid().unwrap();
    thread::sleep(Duration::from_millis(2500));
    assert_eq!(workspace.broker_pid().unwrap(), pid, "a lease is held");
    drop(held);
    until(Duration::from_secs(10), || match workspace.broker_pid() {
        Err(_) => Ok(()),
        Ok(pid) => Err(format!("broker {pid} still runs")),
    });
    workspace.assert_nothing_left();
    drop(workspace.lease("database"));
    assert_ne!(workspace.broker_pid().unwrap(), pid);
    workspace.end();
}

#[test]
fn an_authenticated_session_is_handed_over() {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;
    let workspace = workspace("");
    for isolation in [Isolation::Server, Isolation::Namespace] {
        let role = Some("database".into());
        let asked =
            LeaseRequest { role, isolation: Some(isolation), handover: true, ..LeaseRequest::default() };
        // Who waits for a server gets it before anybody has a session with it.
        let held = until(Duration::from_secs(10), || {
            let held = workspace.lease_as(&asked);
            if held.lease().handover.is_some() { Ok(held) } else { Err("no session is offered".into()) }
        });
        let offered = held.lease().handover.as_ref().expect("looked for above");
        let (greeting, mut session): (Vec<u8>, UnixStream) = testkit::take_session(offered).unwrap();
        assert_eq!(greeting.first(), Some(&b'R'), "AuthenticationOk");
        assert_eq!(greeting.last(), Some(&b'I'), "ReadyForQuery, idle");
        session.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        session.write_all(b"Q\0\0\0\x24SELECT current_database()::text\0").unwrap();
        let mut answer = vec![0; 4096];
        let length = session.read(&mut answer).unwrap();
        let text = String::from_utf8_lossy(&answer[..length]).into_owned();
        assert!(text.contains(&held.lease().database), "{text:?}");
        // It is gone after it was taken, and nobody but this user can get to it.
        assert!(UnixStream::connect(offered).is_err() || testkit::take_session(offered).is_err());
    }
    workspace.end();
}

#[test]
fn a_busy_query_ends_with_its_lease() {
    let workspace = workspace("[pool]\nwarm = 0\n");
    let held = workspace.lease("database");
    let busy = Sql::connect(held.lease()).unwrap();
    let query =
        thread::spawn(move || busy.run("SELECT count(*) FROM generate_series(1, 10000000000)").unwrap_err());
    let servers = || {
        let of_port = |process: &testkit::ProcessInfo| process.command.contains("postgres");
        processes_of(workspace.base()).into_iter().filter(of_port).collect::<Vec<_>>()
    };
    until(Duration::from_secs(10), || {
        let looking = Sql::connect(held.lease())?;
        let active: i64 = looking.one(
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%generate_series%' AND state = 'active'",
        )?;
        if active > 1 { Ok(()) } else { Err("it does not run yet".into()) }
    });
    assert!(!servers().is_empty());
    drop(held);
    until(Duration::from_secs(5), || match servers() {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    });
    query.join().unwrap();
    workspace.end();
}

#[test]
fn starting_a_broker_holds_no_pipe_of_its_caller() {
    let workspace = workspace("");
    let script = format!("'{TESTENV}' broker --detach | cat; echo done");
    let mut command = workspace.command_of("sh".as_ref(), &["-c", &script]);
    let ran = run(&mut command, Duration::from_secs(20)).expect_success();
    assert_says(&ran.stdout, &["ready ", "done"]);
    workspace.end();
}
