//! Memory, of the machine and of the container around it.

use super::cgroup::{self, Limit};
use super::files::Files;
use super::finding::{Check, Finding, Group, Severity};
use super::load::{Load, size};

const MEMORY: Check = Check::new("memory", Group::Memory);

/// Memory that programs can still have, in bytes, the limit of a container considered; `None` where the kernel does
/// not say.
pub fn available() -> Option<u64> {
    let seen = read(&Files::of_machine());
    let group = seen.group.as_ref().map(Limit::left);
    seen.available.into_iter().chain(group).min()
}

/// What was read.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// What the kernel says programs can still have, in bytes.
    pub(super) available: Option<u64>,
    /// All of it.
    pub(super) total: u64,
    /// The limit of a control group.
    pub(super) group: Option<Limit>,
}

pub(super) fn read(files: &Files) -> Seen {
    let text = files.text("/proc/meminfo").unwrap_or_default();
    let line = |name: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
        rest.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib << 10)
    };
    Seen {
        available: line("MemAvailable:"),
        total: line("MemTotal:").unwrap_or(0),
        group: cgroup::memory(files),
    }
}

pub(super) fn judge(seen: &Seen, load: &Load) -> Finding {
    let limited = seen.group.as_ref().filter(|group| seen.available.is_none_or(|it| group.left() < it));
    let Some(free) = limited.map(Limit::left).or(seen.available) else {
        return Finding::new(
            MEMORY,
            Severity::Note,
            "how much is available cannot be read from /proc/meminfo",
        );
    };
    let (text, advice) = match limited {
        Some(group) => (
            format!(
                "{} of {} left in this container ({})",
                size(free),
                size(group.limit),
                group.file.display()
            ),
            "give the container more: docker run --memory, resources.limits.memory",
        ),
        None => (format!("{} of {} available", size(free), size(seen.total)), "end what else takes memory"),
    };
    let servers = load.by_memory(free);
    let each = size(load.cost.memory + load.cost.data);
    Finding::new(MEMORY, load.severity(servers), text)
        .means(format!("{each} each: {}", load.about(servers)))
        .servers(servers)
        .advice(advice)
}

#[cfg(test)]
mod tests {
    use super::super::load::tests::{TWO_ROLES, load};
    use super::*;

    fn seen(available: u64, limit: Option<(u64, u64)>) -> Seen {
        let group =
            limit.map(|(limit, used)| Limit { file: "/sys/fs/cgroup/memory.max".into(), limit, used });
        Seen { available: Some(available), total: 16 << 30, group }
    }

    #[test]
    fn a_machine_with_enough_is_well() {
        let finding = judge(&seen(12 << 30, None), &load(TWO_ROLES));
        assert_eq!(
            (finding.severity, finding.seen.as_str()),
            (Severity::Ok, "12.0 GiB of 16.0 GiB available")
        );
        assert_eq!(finding.means, "11.0 MiB each: room for about 1,100 PostgreSQL servers at once");
        assert!(finding.advice.is_empty() && finding.commands.is_empty());
    }

    #[test]
    fn the_tiny_limit_of_a_container_counts_not_the_machine() {
        let finding = judge(&seen(12 << 30, Some((256 << 20, 100 << 20))), &load(TWO_ROLES));
        assert_eq!(finding.severity, Severity::Warning);
        assert!(
            finding.seen.starts_with("156.0 MiB of 256.0 MiB left in this container"),
            "{}",
            finding.seen
        );
        assert!(finding.means.contains("about 14 PostgreSQL servers"), "{}", finding.means);
        assert!(finding.advice.contains("docker run --memory"), "{}", finding.advice);
    }

    #[test]
    fn a_limit_that_is_not_reached_first_is_not_named() {
        let finding = judge(&seen(1 << 30, Some((8 << 30, 0))), &load(TWO_ROLES));
        assert_eq!(finding.seen, "1.0 GiB of 16.0 GiB available");
        assert_eq!(finding.severity, Severity::Note, "93 servers are fewer than 256");
    }

    #[test]
    fn without_memory_for_one_server_of_each_role_nothing_works() {
        assert_eq!(judge(&seen(20 << 20, None), &load(TWO_ROLES)).severity, Severity::Problem);
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let unread = Seen { available: None, total: 0, group: None };
        assert_eq!(judge(&unread, &load(TWO_ROLES)).severity, Severity::Note);
    }
}
