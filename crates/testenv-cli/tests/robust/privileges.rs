use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

use testenv_api::{Isolation, LeaseRequest};
use testkit::{Sql, TestWorkspace, User, needs_root, run, until};

use crate::{TESTENV, assert_says, prepared, workspace};

/// Root without the right to mount, as in most containers of CI systems.
const UNPRIVILEGED: &[&str] = &["setpriv", "--bounding-set", "-sys_admin", "--"];

/// Leases of every kind work, and are apart.
#[track_caller]
fn works(workspace: &TestWorkspace) {
    let (one, two) = (workspace.lease("database"), workspace.lease("database"));
    let sql = Sql::connect(one.lease()).unwrap();
    sql.run("DELETE FROM items").unwrap();
    assert_eq!(Sql::connect(two.lease()).unwrap().one::<i64>("SELECT count(*) FROM items").unwrap(), 3);
    let isolation = Some(Isolation::Namespace);
    let role = Some("database".into());
    let database = workspace.lease_as(&LeaseRequest { role, isolation, ..LeaseRequest::default() });
    assert_eq!(Sql::connect(database.lease()).unwrap().one::<i64>("SELECT count(*) FROM items").unwrap(), 3);
    let cache = workspace.lease("cache");
    let mut redis = testkit::redis(cache.lease()).unwrap();
    let pong: String = redis::cmd("PING").query(&mut redis).unwrap();
    assert_eq!(pong, "PONG");
    drop((one, two, database, cache));
}

#[test]
fn root_and_an_ordinary_user_at_once() {
    if !needs_root("to become another user") {
        return;
    }
    let roots = workspace("");
    let nobodys = prepared(TestWorkspace::of_user(TESTENV, User::Nobody), "");
    works(&roots);
    works(&nobodys);
    // The ordinary user has the same means, in a user namespace of its own, where the machine allows one.
    let status = nobodys.status();
    if fs::read_to_string("/proc/sys/user/max_user_namespaces").is_ok_and(|max| max.trim() != "0") {
        assert_eq!(
            (status.fork_strategy.as_str(), &status.fork_storage[..5]),
            ("overlay", "tmpfs"),
            "{status:?}"
        );
    }
    // And each has a lease through the program as well, and cannot get at the other's broker.
    let ran = nobodys.run(&["exec", "--role", "database", "--", "sh", "-c", "id -u; echo $PGPORT"]);
    assert_eq!(ran.clone().expect_success().stdout.lines().next(), Some("65534"));
    let mut foreign = nobodys.command(&["status"]);
    foreign.env("TESTENV_BROKER", roots.socket());
    let ran = run(&mut foreign, Duration::from_secs(20));
    assert_ne!(ran.code, Some(0));
    assert_says(&ran.stderr, &["Permission denied", "belongs to another user"]);
    roots.end();
    nobodys.end();
}

#[test]
fn another_user_of_the_machine_gets_at_no_data() {
    if !needs_root("to become another user") {
        return;
    }
    let workspace = workspace("");
    let (db, cache) = (workspace.lease("database"), workspace.lease("cache"));
    let nobody = |script: &str| {
        let mut command = Command::new("sh");
        User::Nobody.apply(command.args(["-c", script]));
        run(&mut command, Duration::from_secs(10))
    };
    for place in [db.lease().socket.as_str(), cache.lease().socket.as_str()] {
        let ran = nobody(&format!("ls {place}/. || cat {place}"));
        assert_says(&ran.stderr, &["Permission denied"]);
    }
    let data = format!("/proc/{}/root{}/f", workspace.broker_pid().unwrap(), workspace.runtime().display());
    assert_ne!(nobody(&format!("ls {data}/*/*")).code, Some(0));
    let url = &db.lease().url;
    assert!(url.contains(&db.lease().password) && db.lease().password.len() >= 16);
    for secret in [&db.lease().password, &cache.lease().password] {
        let ran = nobody(&format!(
            "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -c {secret} | grep -v grep"
        ));
        // The one that is found is the search itself.
        assert!(matches!(ran.stdout.trim(), "" | "0" | "1"), "{secret} is in a command line: {}", ran.stdout);
    }
    let open = redis::Client::open(format!("redis://127.0.0.1:{}/", cache.lease().port)).unwrap();
    let refused = open.get_connection().and_then(|mut open| redis::cmd("PING").query::<String>(&mut open));
    assert_says(&refused.unwrap_err().to_string(), &["NOAUTH"]);
    drop((db, cache));
    workspace.end();
}

#[test]
fn root_that_may_not_mount_copies_and_says_so() {
    if !needs_root("to give up the right to mount") {
        return;
    }
    let workspace = workspace("").through(UNPRIVILEGED);
    works(&workspace);
    let status = workspace.status();
    assert!(status.fork_strategy.contains("no overlay: unshare: Operation not permitted"), "{status:?}");
    workspace.end();
}

#[test]
fn an_overlay_that_is_demanded_but_not_allowed_is_told() {
    if !needs_root("to give up the right to mount") {
        return;
    }
    let workspace = workspace("[cache]\nfork = \"overlay\"\n").through(UNPRIVILEGED);
    let message = workspace.refusal("database");
    assert_says(
        &message,
        &["no way to fork", "overlay: unshare: Operation not permitted", "cache.fork = \"auto\""],
    );
    workspace.assert_nothing_left();
}

#[test]
fn an_ordinary_user_without_user_namespaces_copies() {
    if !needs_root("to change the root directory") {
        return;
    }
    // The kernel gives no user namespace to a process whose root directory is not that of its mounts.
    let workspace = prepared(TestWorkspace::of_user(TESTENV, User::Nobody), "");
    let root = workspace.base().join("root");
    fs::create_dir(&root).unwrap();
    let root = root.display();
    let script = format!("mount --rbind / {root} && exec chroot --userspec=65534:65534 {root} \"$@\"");
    let through = ["unshare", "--mount", "sh", "-c", &script, "sh"];
    let forbidden = ["unshare", "--user", "true"];
    let tried = run(Command::new(through[0]).args(&through[1..]).args(forbidden), Duration::from_secs(10));
    assert_says(&tried.stderr, &["unshare failed: Operation not permitted"]);
    let workspace = workspace.through_to_user(&through);
    works(&workspace);
    let status = workspace.status();
    assert!(status.fork_strategy.contains("no overlay: unshare: Operation not permitted"), "{status:?}");
    workspace.end();
}

#[test]
fn a_busy_backend_does_not_outlive_its_lease_where_there_are_no_pid_namespaces() {
    if !needs_root("to give up the right to make them") {
        return;
    }
    let workspace = workspace("[pool]\nwarm = 0\n").through(UNPRIVILEGED);
    let held = workspace.lease("database");
    let busy = Sql::connect(held.lease()).unwrap();
    let query = std::thread::spawn(move || {
        busy.run("SELECT count(*) FROM generate_series(1, 10000000000)").unwrap_err();
    });
    until(Duration::from_secs(10), || {
        let sql = Sql::connect(held.lease())?;
        let active: i64 = sql.one(
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%generate_series%' AND state = 'active'",
        )?;
        if active > 1 { Ok(()) } else { Err("it does not run yet".into()) }
    });
    drop(held);
    until(Duration::from_secs(5), || {
        let of_servers = |process: &testkit::ProcessInfo| process.command.contains("postgres");
        match testkit::processes_of(workspace.base()).into_iter().filter(of_servers).collect::<Vec<_>>() {
            left if left.is_empty() => Ok(()),
            left => Err(format!("{left:?}")),
        }
    });
    query.join().unwrap();
    workspace.end();
}

#[test]
fn a_command_that_outlives_a_killed_broker_does_not_keep_the_next_one_out() {
    for user in [User::Own, User::Nobody] {
        if user != User::Own && !needs_root("to become another user") {
            continue;
        }
        let workspace = TestWorkspace::of_user(TESTENV, user).config(
            "[services.database]\nservice = \"postgres\"\nmigrations = { command = \"sleep 300; true\", inputs = [] }\n\
             [services.cache]\nservice = \"redis\"\n",
        );
        workspace.start().unwrap();
        let request = LeaseRequest { role: Some("database".into()), ..LeaseRequest::default() };
        let asked = workspace.client().ask(&request, Duration::from_secs(60)).unwrap();
        until(Duration::from_secs(20), || {
            let sleeps = |process: &testkit::ProcessInfo| process.command == "sleep 300";
            let found = testkit::processes_of(workspace.base()).iter().any(sleeps);
            if found { Ok(()) } else { Err("the command does not run yet".into()) }
        });
        let broker = workspace.broker_pid().unwrap();
        let broker = rustix::process::Pid::from_raw(broker.cast_signed()).unwrap();
        rustix::process::kill_process(broker, rustix::process::Signal::KILL).unwrap();
        drop(asked);
        drop(workspace.lease("cache"));
        let sleeps = |process: &testkit::ProcessInfo| process.command == "sleep 300";
        assert!(!testkit::processes_of(workspace.base()).iter().any(sleeps), "{user:?}: it still sleeps");
        workspace.end();
    }
}

#[test]
fn a_cache_that_the_servers_user_cannot_reach_is_told_with_the_directory() {
    if !needs_root("whose servers run as another user") {
        return;
    }
    let workspace = workspace("[cache]\nstorage = \"disk\"\n");
    let closed = workspace.base().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    let workspace = workspace.cache(closed.join("cache"));
    let message = workspace.refusal("database");
    let closed = closed.display().to_string();
    assert_says(&message, &["cannot be reached by the user that servers run as", &closed, "chmod o+x"]);
    workspace.assert_nothing_left();
}
