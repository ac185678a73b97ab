use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use testkit::TestWorkspace;

use crate::workspace;

/// Sends bytes to the broker and gives back what it answers until it closes the connection, or is silent.
fn send(workspace: &TestWorkspace, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(workspace.socket()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    let _ = stream.write_all(bytes); // it may close before it has read everything
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn post(path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

#[track_caller]
fn still_serves(workspace: &TestWorkspace, pid: u32) {
    drop(workspace.lease("cache"));
    assert_eq!(workspace.broker_pid().unwrap(), pid, "it is another broker");
}

#[test]
fn requests_that_are_none_are_refused_and_nobody_else_notices() {
    let workspace = workspace("");
    drop(workspace.lease("cache"));
    let pid = workspace.broker_pid().unwrap();
    let deep = "[".repeat(100_000);
    let unknown = "{\"role\":\"cache\",\"rol\":1}";
    for body in
        ["{", "nonsense", "[]", "{\"role\":7}", unknown, &deep, "{\"wait_ms\":-1}", "{\"role\":\"\u{0}\"}"]
    {
        let answer = send(&workspace, &post("/v1/leases", body));
        assert!(answer.starts_with("HTTP/1.1 4"), "{body:.40}: {answer}");
        assert!(answer.contains("application/problem+json"), "{body:.40}: {answer}");
    }
    let huge = "x".repeat(8 << 20);
    let answer = send(&workspace, &post("/v1/leases", &format!("{{\"test\":\"{huge}\"}}")));
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer:.200}");
    for garbage in
        [&b"\0\xff\xfe\r\n\r\n"[..], b"GET\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[b'A'; 200_000]]
    {
        let answer = send(&workspace, garbage);
        assert!(!answer.contains("200 OK"), "{answer}");
    }
    still_serves(&workspace, pid);
    workspace.end();
}

#[test]
fn paths_in_the_place_of_a_lease_lead_nowhere() {
    let workspace = workspace("");
    drop(workspace.lease("cache"));
    let pid = workspace.broker_pid().unwrap();
    for id in ["..", "../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%00", "x".repeat(4000).as_str()] {
        for action in ["outcome", "keep"] {
            let answer =
                send(&workspace, &post(&format!("/v1/leases/{id}/{action}"), "{\"outcome\":\"failed\"}"));
            assert!(answer.starts_with("HTTP/1.1 4"), "{id}: {answer}");
        }
        let answer = send(
            &workspace,
            format!("GET /v1/leases/{id}/logs HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes(),
        );
        assert!(answer.starts_with("HTTP/1.1 4"), "{id}: {answer}");
        assert!(!answer.contains("root:"), "{answer}");
    }
    still_serves(&workspace, pid);
    workspace.end();
}

#[test]
fn half_a_request_holds_nothing_up() {
    let workspace = workspace("");
    drop(workspace.lease("cache"));
    let pid = workspace.broker_pid().unwrap();
    let silent: Vec<_> = [
        &b""[..],
        b"POST /v1/leases HT",
        b"POST /v1/leases HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{\"role\"",
        b"POST /v1/leases HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{\"ro",
    ]
    .iter()
    .flat_map(|bytes| {
        (0..50).map(|_| {
            let mut stream = UnixStream::connect(workspace.socket()).unwrap();
            stream.write_all(bytes).unwrap();
            stream
        })
    })
    .collect();
    still_serves(&workspace, pid);
    let begun = std::time::Instant::now();
    let _ = workspace.down().expect_success();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    drop(silent);
    workspace.assert_nothing_left();
}

#[test]
fn a_client_that_reads_nothing_holds_nothing_but_its_lease() {
    let workspace = workspace("");
    drop(workspace.lease("cache"));
    let pid = workspace.broker_pid().unwrap();
    let mut deaf = UnixStream::connect(workspace.socket()).unwrap();
    let request = post("/v1/leases", "{\"role\":\"cache\"}");
    deaf.write_all(&request).unwrap();
    testkit::until(Duration::from_secs(5), || {
        if workspace.status().leases.len() == 1 { Ok(()) } else { Err("no lease yet".into()) }
    });
    still_serves(&workspace, pid);
    drop(deaf);
    testkit::until(Duration::from_secs(5), || {
        if workspace.status().leases.is_empty() { Ok(()) } else { Err("still leased".into()) }
    });
    workspace.end();
}
