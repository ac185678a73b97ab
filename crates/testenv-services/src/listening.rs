//! Who listens on a port: an answer from it proves nothing if it is somebody else's.

use std::collections::BTreeSet;
use std::fs;

/// Processes of a server that are looked at, at the most.
const MAX_PROCESSES: usize = 1024;
/// What the kernel writes for a socket that listens.
const LISTENS: &str = "0A";

/// Whether somebody listens on `port`, and it is no process that `pid` started, nor itself.
///
/// Where the kernel does not say, it is taken to be the server's own.
pub(crate) fn is_taken_by_others(pid: u32, port: u16) -> bool {
    let tables =
        ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
    let sockets: BTreeSet<_> = tables.iter().flat_map(|table| listening(table, port)).collect();
    let own = processes(pid);
    !sockets.is_empty() && own.iter().all(|pid| holds(*pid, &sockets) == Some(false))
}

/// Inodes of the sockets that listen on a port, of a table in `/proc/net`.
fn listening(table: &str, port: u16) -> impl Iterator<Item = &str> {
    let ending = format!(":{port:04X}");
    table.lines().skip(1).filter_map(move |line| {
        let mut fields = line.split_whitespace();
        let (local, state) = (fields.nth(1)?, fields.nth(1)?);
        (state == LISTENS && local.ends_with(&ending)).then(|| fields.nth(5)).flatten()
    })
}

/// Whether a process has one of these sockets open; `None` where that cannot be seen.
fn holds(pid: u32, sockets: &BTreeSet<&str>) -> Option<bool> {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    Some(open.flatten().any(|descriptor| {
        let target = fs::read_link(descriptor.path()).unwrap_or_default();
        let inode = target.to_str().and_then(|name| name.strip_prefix("socket:[")?.strip_suffix(']'));
        inode.is_some_and(|inode| sockets.contains(inode))
    }))
}

/// A process and all that it started.
fn processes(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut next = 0;
    while next < found.len() && found.len() < MAX_PROCESSES {
        let pid = found[next];
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        for thread in threads {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
        next += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_port_of_ours_is_ours_and_not_a_childs() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(!is_taken_by_others(std::process::id(), port));
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        assert!(is_taken_by_others(child.id(), port));
        drop(listener);
        assert!(!is_taken_by_others(child.id(), port));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn only_sockets_that_listen_on_the_port_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 77 1 x\n\
            1: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000  1000        0 78 1 x\n\
            2: 00000000:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 79 1 x\n";
        assert_eq!(listening(table, 8080).collect::<Vec<_>>(), ["77"]);
        assert_eq!(listening(table, 8081).collect::<Vec<_>>(), ["79"]);
    }
}
