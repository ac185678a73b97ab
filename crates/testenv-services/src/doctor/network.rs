//! Ports for servers, and queues of connections.

use super::files::{Files, set_sysctl};
use super::finding::{Check, Finding, Group, Severity};
use super::load::{Load, counted};

const BACKLOG: Check = Check::new("somaxconn", Group::Network);
const PORTS: Check = Check::new("ports", Group::Network);

/// How long the broker lets its queue be.
const BACKLOG_WANTED: u64 = 4096;
/// Ports below this are for root's services, as far as people expect.
const FIRST_PORT: u16 = 1024;

pub(super) fn read_backlog(files: &Files) -> Option<u64> {
    files.sysctl("net.core.somaxconn")
}

pub(super) fn judge_backlog(seen: Option<u64>, load: &Load) -> Finding {
    let Some(length) = seen else { return Finding::ok(BACKLOG, "net.core.somaxconn as the kernel has it") };
    // A suite's processes may all ask for all roles in the same instant.
    let severity = match length {
        few if few < load.at_once => Severity::Warning,
        few if few < load.max_servers => Severity::Note,
        _ => Severity::Ok,
    };
    Finding::new(BACKLOG, severity, format!("net.core.somaxconn {length}"))
        .means(format!(
            "{} connections can wait to be accepted; this workspace's tests open up to {} at once, and who finds \
             the queue full waits or is refused",
            counted(length),
            counted(load.at_once),
        ))
        .advice("raise it; the broker takes it over when it starts, so `testenv down` after that")
        .command(set_sysctl(&format!("net.core.somaxconn={BACKLOG_WANTED}")))
}

/// Ranges of ports, first and last.
#[derive(Clone, Debug)]
pub(super) struct Ports {
    /// `pool.ports`.
    pub(super) pool: (u16, u16),
    /// Those that the kernel gives to outgoing connections.
    pub(super) outgoing: Option<(u16, u16)>,
    /// Those that it leaves out of these.
    pub(super) reserved: Vec<(u16, u16)>,
}

pub(super) fn read_ports(files: &Files, pool: (u16, u16)) -> Ports {
    let range = files.text("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut range = range.split_whitespace().map(str::parse);
    let outgoing = match (range.next(), range.next()) {
        (Some(Ok(first)), Some(Ok(last))) => Some((first, last)),
        _ => None,
    };
    let reserved = files.text("/proc/sys/net/ipv4/ip_local_reserved_ports").unwrap_or_default();
    Ports { pool, outgoing, reserved: parse_ranges(&reserved) }
}

/// Ranges such as `8080,20000-32000`.
fn parse_ranges(text: &str) -> Vec<(u16, u16)> {
    let range = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
    };
    text.split(',').filter_map(range).collect()
}

pub(super) fn judge_ports(seen: &Ports, load: &Load) -> Finding {
    let (first, last) = seen.pool;
    let count = u64::from(last - first) + 1;
    let text = format!("ports {first}-{last}");
    let fewest = load.severity(count);
    if fewest > Severity::Ok {
        return Finding::new(PORTS, fewest, format!("pool.ports has {count}"))
            .means(load.about(count))
            .servers(count)
            .advice("give it more")
            .command(ports_line(seen));
    }
    let within = |port: u16, (first, last): (u16, u16)| (first..=last).contains(&port);
    let taken = |port: &u16| {
        seen.outgoing.is_some_and(|range| within(*port, range))
            && !seen.reserved.iter().any(|range| within(*port, *range))
    };
    let shared = (first..=last).filter(taken).count() as u64;
    if shared == 0 {
        return Finding::ok(PORTS, text).servers(count);
    }
    let severity = if shared * 2 > count { Severity::Warning } else { Severity::Note };
    let (low, high) = seen.outgoing.unwrap_or_default();
    Finding::new(PORTS, severity, format!("{text}, outgoing connections {low}-{high}"))
        .means(format!(
            "{} of the {} ports for servers may be taken by a connection at any moment: a server that finds its \
             port taken is started again, which its lease waits for",
            counted(shared),
            counted(count)
        ))
        .servers(count)
        .advice("choose others, or keep connections from these")
        .command(ports_line(seen))
        .command(set_sysctl(&format!("net.ipv4.ip_local_reserved_ports={}", reserved(seen))))
}

/// What to reserve: what is, and the pool's.
fn reserved(seen: &Ports) -> String {
    let all = seen.reserved.iter().chain([&seen.pool]);
    all.map(|(first, last)| format!("{first}-{last}")).collect::<Vec<_>>().join(",")
}

/// The larger of the ranges that are left of and right of those for connections.
fn ports_line(seen: &Ports) -> String {
    let (low, high) = seen.outgoing.unwrap_or((32_768, 60_999));
    let left = (FIRST_PORT.max(10_000), low.saturating_sub(1));
    let right = (high.saturating_add(1), u16::MAX);
    let size = |(first, last): (u16, u16)| last.saturating_sub(first);
    let (first, last) = if size(left) >= size(right) { left } else { right };
    format!("ports = [{first}, {last}]    # testenv.toml, [pool]")
}

#[cfg(test)]
mod tests {
    use super::super::load::tests::{TWO_ROLES, load};
    use super::*;

    fn ports(pool: (u16, u16), outgoing: (u16, u16), reserved: &str) -> Finding {
        let seen = Ports { pool, outgoing: Some(outgoing), reserved: parse_ranges(reserved) };
        judge_ports(&seen, &load(TWO_ROLES))
    }

    #[test]
    fn ports_apart_from_those_of_connections_are_well() {
        assert_eq!(ports((20_000, 32_000), (32_768, 60_999), "").severity, Severity::Ok);
    }

    #[test]
    fn ports_that_connections_take_too_are_told_with_a_range_that_is_free() {
        let all = ports((20_000, 32_000), (1024, 65_000), "8080");
        assert_eq!(all.severity, Severity::Warning);
        assert!(all.means.starts_with("12,001 of the 12,001 ports"), "{all:?}");
        assert!(all.commands[1].ends_with("ip_local_reserved_ports=8080-8080,20000-32000"), "{all:?}");
        let some = ports((20_000, 32_000), (30_000, 60_999), "");
        assert_eq!(some.severity, Severity::Note);
        assert!(some.commands[0].starts_with("ports = [10000, 29999] "), "{some:?}");
        let right = ports((20_000, 32_000), (10_000, 50_000), "");
        assert!(right.commands[0].starts_with("ports = [50001, 65535] "), "{right:?}");
        assert_eq!(ports((20_000, 32_000), (1024, 65_000), "1-2,20000-32000").severity, Severity::Ok);
    }

    #[test]
    fn too_few_ports_are_told() {
        let finding = ports((20_000, 20_009), (32_768, 60_999), "");
        assert_eq!((finding.severity, finding.servers), (Severity::Warning, Some(10)));
        assert!(finding.commands[0].starts_with("ports = [10000, 32767]"), "{finding:?}");
    }

    #[test]
    fn a_short_queue_is_told() {
        assert_eq!(judge_backlog(Some(4096), &load(TWO_ROLES)).severity, Severity::Ok);
        assert_eq!(judge_backlog(Some(128), &load(TWO_ROLES)).severity, Severity::Note);
        let finding = judge_backlog(Some(16), &load(TWO_ROLES));
        assert_eq!(finding.severity, Severity::Warning);
        assert!(finding.commands[0].ends_with("sysctl -w net.core.somaxconn=4096"), "{finding:?}");
    }
}
