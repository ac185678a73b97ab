use std::net::{Ipv4Addr, TcpListener};

use testenv_api::LeaseRequest;
use testkit::Sql;

use crate::{assert_says, workspace};

/// Listeners on the first `count` ports of a range of `length` that nothing else uses.
fn taken(length: u16, count: u16) -> (u16, Vec<TcpListener>) {
    for first in (33_000..60_000).step_by(64) {
        let first = first + u16::try_from(std::process::id() % 40).unwrap();
        let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok();
        if (first..first + length).all(|port| bind(port).is_some()) {
            return (first, (first..first + count).filter_map(bind).collect());
        }
    }
    panic!("no {length} ports in a row are free");
}

#[test]
fn ports_in_use_are_skipped() {
    let (first, listeners) = taken(8, 6);
    let workspace = workspace(&format!("[pool]\nports = [{first}, {}]\nwarm = 0\n", first + 7));
    let (one, two) = (workspace.lease("database"), workspace.lease("cache"));
    let mut ports = [one.lease().port, two.lease().port];
    ports.sort_unstable();
    assert_eq!(ports, [first + 6, first + 7]);
    Sql::connect_url(&one.lease().url).unwrap();
    drop((one, two, listeners));
    workspace.end();
}

#[test]
fn no_port_left_is_told_with_the_range() {
    let (first, listeners) = taken(4, 4);
    let last = first + 3;
    let workspace = workspace(&format!("[pool]\nports = [{first}, {last}]\nwarm = 0\n"));
    let role = Some("cache".into());
    let message = workspace.try_lease(&LeaseRequest { role, ..LeaseRequest::default() }).unwrap_err();
    assert_says(&message, &[&format!("no TCP port free between {first} and {last}"), "pool.ports"]);
    drop(listeners);
    drop(workspace.lease("cache"));
    workspace.end();
}
