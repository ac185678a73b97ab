//! The broker as a process: start, status, end, other versions.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use testenv_api::VERSION;

use crate::support::{Place, eventually, signal, signal_pid};

#[test]
fn it_starts_once_and_says_where_it_listens() {
    let place = Place::new();
    let first = place.call(&["broker", "--detach"]).expect(0).stdout;
    let second = place.call(&["broker", "--detach"]).expect(0).stdout;
    assert_eq!(first, second);
    assert_eq!(first, format!("ready {}\n", place.socket().display()));
    let called = place.call(&["broker"]).expect(122);
    called.complains(&["a broker serves this workspace already", "  hint: "]);
}

#[test]
fn many_at_once_start_one() {
    let place = Place::new();
    let children: Vec<_> = (0..8)
        .map(|_| place.command(&["broker", "--detach"]).stdout(Stdio::piped()).spawn().unwrap())
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("ready {}\n", place.socket().display()));
    }
}

#[test]
fn status_shows_what_is_there() {
    let place = Place::new();
    let nothing = place.call(&["status"]).expect(0);
    assert!(nothing.stdout.starts_with("no broker runs for "), "{}", nothing.stdout);
    place.call(&["status", "--json"]).expect(122).complains(&["error: no broker listens on"]);
    place.call(&["exec", "--service", "redis", "--keep", "always", "--", "true"]).expect(0);
    let status = place.call(&["status"]).expect(0).stdout;
    for part in [
        "broker     testenv",
        "\npools\n  role",
        "redis",
        "\nkept for debugging\n",
        "redis-cli",
        "\nsnapshots\n",
    ] {
        assert!(status.contains(part), "no {part:?} in\n{status}");
    }
    assert!(!status.contains('\x1b'), "colours where no terminal is");
    assert_eq!(place.status().health.version, VERSION);
    let head = format!("{} status | head -c 1", env!("CARGO_BIN_EXE_testenv"));
    let mut shell = place.prepare(std::process::Command::new("bash"), &["-o", "pipefail", "-c", &head]);
    assert!(shell.status().unwrap().success(), "a reader that leaves is no error");
}

#[test]
fn down_ends_it_with_its_leases_and_says_so() {
    let place = Place::new();
    let args = ["exec", "--service", "redis", "--", "sh", "-c", "echo ready; sleep 5; exit 1"];
    let mut child = place.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 1]).unwrap();
    place.call(&["down", "--if-idle"]).expect(123).complains(&["1 leases are held"]);
    let down = place.call(&["down"]).expect(0).stdout;
    assert!(down.starts_with("ended the broker of /tmp/te") && down.contains("1 lease with it"), "{down}");
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("the broker stopped meanwhile"), "{stderr}");
    assert_eq!(output.status.code(), Some(1));
    let again = place.call(&["down"]).expect(0).stdout;
    assert!(again.starts_with("no broker runs"), "{again}");
}

#[test]
fn a_killed_broker_leaves_a_socket_that_hinders_nobody() {
    let place = Place::new();
    place.call(&["broker", "--detach"]).expect(0);
    let pid = place.status().health.pid;
    signal_pid(pid, "KILL");
    eventually("nobody listens", || UnixStream::connect(place.socket()).is_err());
    assert!(place.socket().exists());
    assert!(place.call(&["status"]).expect(0).stdout.starts_with("no broker runs"));
    let down = place.call(&["down"]).expect(0).stdout;
    assert!(down.contains("removed a stale socket"), "{down}");
    fs::write(place.socket(), "").unwrap();
    place.call(&["exec", "--service", "redis", "--", "true"]).expect(0);
}

#[test]
fn a_broker_that_hangs_is_killed_in_the_end() {
    let place = Place::new();
    place.call(&["broker", "--detach"]).expect(0);
    signal_pid(place.status().health.pid, "STOP");
    let down = place.call(&["down"]).expect(0).stdout;
    assert!(down.starts_with("killed the broker"), "{down}");
    place.call(&["exec", "--service", "redis", "--", "true"]).expect(0);
}

#[test]
fn down_all_ends_the_brokers_of_all_workspaces() {
    let place = Place::new();
    place.call(&["broker", "--detach"]).expect(0);
    let other = place.dir().join("other");
    fs::create_dir(&other).unwrap();
    place.call(&["broker", "--detach", "--workspace", other.to_str().unwrap()]).expect(0);
    let down = place.call(&["down", "--all"]).expect(0).stdout;
    assert_eq!(down.matches("ended the broker of ").count(), 2, "{down}");
    assert_eq!(place.call(&["down", "--all"]).expect(0).stdout, "no broker runs\n");
}

#[test]
fn clean_says_how_much_it_freed() {
    let place = Place::new();
    let change = |command: &mut std::process::Command| {
        command.env("TESTENV_CACHE_DIR", place.dir().join("../c"));
    };
    let call = |args: &[&str]| {
        place.call_with(args, |command| {
            change(command);
            command
        })
    };
    call(&["clean", "--no-start"]).expect(122);
    call(&["exec", "--service", "redis", "--", "true"]).expect(0);
    call(&["down"]).expect(0);
    let cleaned = call(&["clean"]).expect(0).stdout;
    assert!(cleaned.starts_with("freed ") && !cleaned.starts_with("freed 0 B"), "{cleaned}");
    let again = call(&["clean"]).expect(0).stdout;
    assert!(again.starts_with("freed 0 B"), "{again}");
}

/// A copy of the program that says it is another version, as an older installation would.
pub(crate) fn other_version(place: &Place) -> std::path::PathBuf {
    let mut program = fs::read(env!("CARGO_BIN_EXE_testenv")).unwrap();
    let other: Vec<u8> = VERSION.bytes().map(|byte| if byte == b'0' { b'9' } else { byte }).collect();
    let mut at = 0;
    while let Some(found) = program[at..].windows(other.len()).position(|window| window == VERSION.as_bytes())
    {
        at += found;
        program[at..at + other.len()].copy_from_slice(&other);
    }
    let path = place.dir().join("testenv-other");
    fs::write(&path, program).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn a_broker_of_another_version_is_replaced_when_idle_and_named_when_not() {
    let mut place = Place::new();
    let other = other_version(&place);
    place.set_program(other);
    let args = ["exec", "--service", "redis", "--", "sh", "-c", "echo ready; exec sleep 60"];
    let mut child = place.command(&args).stdout(Stdio::piped()).spawn().unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 1]).unwrap();
    assert_ne!(place.status().health.version, VERSION);

    place.set_program(env!("CARGO_BIN_EXE_testenv").into());
    let refused = place.call(&["exec", "--service", "redis", "--", "true"]).expect(122);
    refused.complains(&[
        "a broker of another version serves this workspace, and 1 lease is held",
        "testenv down",
    ]);
    signal(&child, "TERM");
    child.wait().unwrap();
    eventually("the lease is gone", || place.status().leases.is_empty());
    let replaced = place.call(&["exec", "--service", "redis", "--", "true"]).expect(0);
    replaced.complains(&["replaced the broker of this workspace"]);
    assert_eq!(place.status().health.version, VERSION);
}
