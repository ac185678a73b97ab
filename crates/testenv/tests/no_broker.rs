//! What a test says when its broker cannot be had.

mod common;

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::{CHILD, Place};
use testenv::Postgres;
use testenv_api::discovery::Workspace;

#[testenv::test]
#[ignore = "run by the tests below"]
fn child(db: Postgres) {
    assert!(db.port() > 0 && std::env::var_os(CHILD).is_some());
}

#[test]
fn a_program_that_is_not_there_is_looked_for_and_said_how_to_install() {
    let place = Place::new();
    place.run("child", &[("TESTENV_BIN", "/nonexistent/testenv")]).assert_failed_with(&[
        "Error: no broker runs, and the program `testenv` that starts one is not there",
        "/nonexistent/testenv",
        "hint: `cargo install --path crates/testenv-cli` in a clone of testenv, or set TESTENV_BIN",
    ]);
    let nowhere = [("TESTENV_BIN", ""), ("PATH", "/a:/b"), ("HOME", "/c")];
    place.run("child", &nowhere).assert_failed_with(&["/a/testenv", "/b/testenv", "/c/.cargo/bin/testenv"]);
}

#[test]
fn a_program_that_fails_is_quoted() {
    let place = Place::new();
    let program = place.path().join("testenv");
    std::fs::write(&program, "#!/bin/sh\necho 'no room for a broker' >&2\nexit 3\n").unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    place.run("child", &[("TESTENV_BIN", program.to_str().unwrap())]).assert_failed_with(&[
        "the broker did not start",
        "| no room for a broker",
        "broker` runs it in the foreground",
    ]);
}

#[test]
fn a_named_broker_that_is_not_there_is_not_started() {
    let place = Place::new();
    let socket = place.path().join("named.sock");
    let ended = place.run("child", &[("TESTENV_BROKER", socket.to_str().unwrap())]);
    ended.assert_failed_with(&["no broker listens on", "named.sock", "TESTENV_BROKER names this socket"]);
    assert!(place.client().is_none(), "a broker was started all the same");
}

#[test]
fn settings_that_mean_nothing_are_refused() {
    let place = Place::new();
    place
        .run("child", &[("TESTENV_KEEP", "sometimes")])
        .assert_failed_with(&["TESTENV_KEEP is \"sometimes\""]);
    place.run("child", &[("TESTENV_WAIT_MS", "1s")]).assert_failed_with(&["TESTENV_WAIT_MS is \"1s\""]);
    let gone = [("TESTENV_WORKSPACE", "/nonexistent")];
    place.run("child", &gone).assert_failed_with(&["which workspace", "hint: set TESTENV_WORKSPACE"]);
}

/// Where the broker of this crate's workspace listens, in another runtime directory.
fn socket_in(place: &Place) -> PathBuf {
    let workspace = Workspace::find(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
    let dir = place.path().join(workspace.runtime_dir().file_name().unwrap());
    std::fs::create_dir(&dir).unwrap();
    dir.join("broker.sock")
}

#[test]
fn a_stale_socket_is_replaced_by_a_broker() {
    let place = Place::new();
    let stale = socket_in(&place);
    drop(UnixListener::bind(&stale).unwrap());
    assert!(stale.exists(), "a socket that nobody listens on any more");
    let ended = place.run("child", &[]);
    assert!(ended.passed, "{}", ended.output);
}

#[test]
fn a_broker_that_leaves_while_a_test_waits_is_replaced() {
    let place = Place::new();
    let listener = UnixListener::bind(socket_in(&place)).unwrap();
    let leaving = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read(&mut [0; 4096]).unwrap()
    });
    let ended = place.run("child", &[]);
    assert!(ended.passed, "{}", ended.output);
    assert!(leaving.join().unwrap() > 0, "the first broker had the request");
}

#[test]
fn a_broker_that_says_that_it_leaves_is_replaced() {
    let place = Place::new();
    let listener = UnixListener::bind(socket_in(&place)).unwrap();
    let leaving = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _request = stream.read(&mut [0; 4096]).unwrap();
        let problem = r#"{"type":"shutting-down","status":503,"title":"the broker is going away"}"#;
        let head = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: ";
        write!(stream, "{head}{}\r\n\r\n{problem}", problem.len()).unwrap();
    });
    let ended = place.run("child", &[]);
    assert!(ended.passed, "{}", ended.output);
    leaving.join().unwrap();
}

#[test]
fn whoever_else_listens_there_is_no_broker() {
    let place = Place::new();
    let socket = place.path().join("other.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let talker = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _request = stream.read(&mut [0; 4096]).unwrap();
        stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n\r\n").unwrap();
    });
    let ended = place.run("child", &[("TESTENV_BROKER", socket.to_str().unwrap())]);
    ended.assert_failed_with(&["the broker did not answer POST /v1/leases", "does not start with HTTP/1.1"]);
    talker.join().unwrap();
}

#[test]
fn a_broker_that_says_nothing_is_given_up() {
    let place = Place::new();
    let socket = place.path().join("silent.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    let began = Instant::now();
    let silent = [("TESTENV_BROKER", socket.to_str().unwrap()), ("TESTENV_WAIT_MS", "1")];
    place
        .run("child", &silent)
        .assert_failed_with(&["did not answer POST /v1/leases in time", "silent.sock"]);
    let took = began.elapsed();
    assert!(took > Duration::from_secs(9) && took < Duration::from_secs(30), "{took:?}");
}

#[test]
fn a_broker_of_another_protocol_says_so() {
    let place = Place::new();
    let socket = place.path().join("newer.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let newer = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 4096];
        let read = stream.read(&mut request).unwrap();
        let asked = String::from_utf8_lossy(&request[..read]).contains("testenv-protocol: 1\r\n");
        let problem = r#"{"type":"protocol-mismatch","status":426,"title":"the broker speaks protocol 2, the client 1","hint":"run `testenv down`"}"#;
        let head = "HTTP/1.1 426 Upgrade Required\r\ncontent-type: application/problem+json\r\n";
        write!(stream, "{head}content-length: {}\r\n\r\n{problem}", problem.len()).unwrap();
        asked
    });
    let ended = place.run("child", &[("TESTENV_BROKER", socket.to_str().unwrap())]);
    ended.assert_failed_with(&["the broker speaks protocol 2, the client 1", "hint: run `testenv down`"]);
    assert!(newer.join().unwrap(), "the request says which protocol it speaks");
}

/// Where the children's broker would be is worked out by the same code; this is what they rely on.
#[test]
fn this_crate_is_a_workspace_of_its_own() {
    let workspace = Workspace::find(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
    assert!(workspace.root().ends_with("crates/testenv"), "{workspace:?}");
}
