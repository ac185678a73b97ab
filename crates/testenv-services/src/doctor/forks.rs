//! How forks are made, and how many have room.

use testenv_api::Problem;
use testenv_config::{CacheConfig, ForkConfig, StorageConfig};

use super::finding::{Check, Finding, Group, Severity};
use super::load::{Load, share, size};
use super::probe::Forks;

const STRATEGY: Check = Check::new("forks", Group::Disk);
const ROOM: Check = Check::new("fork-room", Group::Disk);

/// Free space without which testenv starts no further server.
const RESERVE: u64 = 24 << 20;

/// How forks are made.
pub(super) fn judge_strategy(seen: &Result<Forks, Problem>, load: &Load, config: &CacheConfig) -> Finding {
    let forks = match seen {
        Ok(forks) => forks,
        Err(problem) => {
            return Finding::new(STRATEGY, Severity::Problem, problem.title.clone())
                .means(format!("{}\nno server can be started", problem.detail).trim_start().to_owned())
                .advice(problem.hint.clone());
        }
    };
    let (name, why) = forks.strategy.split_once(' ').unwrap_or((&forks.strategy, ""));
    let text = format!("forks by {}", forks.strategy);
    match name {
        "overlay" => Finding::ok(STRATEGY, "forks by overlay"),
        _ if config.fork != ForkConfig::Auto => Finding::ok(STRATEGY, format!("forks by {name}, as configured")),
        "reflink" => Finding::new(STRATEGY, Severity::Note, text)
            .means("a fork makes a file for each of the snapshot's, which share their blocks: a few ms"),
        _ => Finding::new(STRATEGY, Severity::Warning, text)
            .means(format!(
                "a fork copies the whole snapshot: about 80 ms more for 17 MB, and {} or more for each server \
                 instead of {}",
                size(load.cost.copy),
                size(load.cost.data)
            ))
            .advice(advice(why)),
    }
}

/// What takes the faster strategies away.
fn advice(why: &str) -> &'static str {
    if why.contains("no overlay: unshare") || why.contains("make mounts private") {
        "allow namespaces (see user-namespaces), or put the cache on a file system with reflinks (btrfs, XFS) and \
         set `cache.storage = \"disk\"`"
    } else {
        "put the cache on a file system that overlays can be made of (ext4, XFS, btrfs; not overlay itself, NFS or \
         a directory shared with a virtual machine's host): `cache.dir`"
    }
}

/// How many forks have room where they are made.
pub(super) fn judge_room(seen: &Forks, load: &Load, config: &CacheConfig) -> Finding {
    let copies = !seen.strategy.starts_with("overlay") && !seen.strategy.starts_with("reflink");
    let each = if copies { load.cost.copy } else { load.cost.data };
    let servers = share(seen.free.saturating_sub(RESERVE), each);
    let text = format!("servers' data in {}, {} free", seen.storage, size(seen.free));
    let means = format!("{} or more each: {}", size(each), load.about(servers));
    let by_room = load.severity(servers);
    let private = seen.storage.starts_with("tmpfs (private");
    if seen.storage.starts_with("disk") && config.storage == StorageConfig::Auto {
        return Finding::new(ROOM, by_room.max(Severity::Warning), text)
            .means(format!("{means}\nwhat a server writes goes to a disk, which takes longer than memory"))
            .servers(servers)
            .advice("allow namespaces (see user-namespaces), or enlarge /dev/shm: docker run --shm-size=1g");
    }
    let finding = Finding::new(ROOM, by_room, text).means(means).servers(servers);
    if private {
        finding
            .advice("give the tmpfs more: it takes memory only for what is written")
            .command("tmpfs_size = \"8GiB\"    # testenv.toml, [cache]")
    } else {
        finding.advice("enlarge it: docker run --shm-size=1g, or mount -o remount,size=4g /dev/shm")
    }
}

#[cfg(test)]
mod tests {
    use testenv_api::ProblemKind;

    use super::super::load::tests::{TWO_ROLES, load};
    use super::*;

    fn forks(strategy: &str, storage: &str, free: u64) -> Forks {
        Forks { strategy: strategy.into(), storage: storage.into(), free }
    }

    fn strategy(strategy: &str, config: ForkConfig) -> Finding {
        let config = CacheConfig { fork: config, ..CacheConfig::default() };
        let forks = forks(strategy, "tmpfs (private, at most 4.0 GiB)", 4 << 30);
        judge_strategy(&Ok(forks), &load(TWO_ROLES), &config)
    }

    #[test]
    fn the_strategy_is_told_with_why_no_faster_one_works() {
        assert_eq!(strategy("overlay", ForkConfig::Auto).severity, Severity::Ok);
        let no_mounts = "copy (no overlay: unshare: Operation not permitted; no reflink: Not supported)";
        let finding = strategy(no_mounts, ForkConfig::Auto);
        assert_eq!(finding.severity, Severity::Warning);
        assert!(finding.seen.contains(no_mounts) && finding.means.contains("80 ms"), "{finding:?}");
        assert!(finding.advice.contains("user-namespaces"), "{finding:?}");
        let finding = strategy("copy (no overlay: Invalid argument (os error 22))", ForkConfig::Auto);
        assert!(finding.advice.contains("`cache.dir`"), "{finding:?}");
        assert_eq!(strategy("reflink (no overlay: x)", ForkConfig::Auto).severity, Severity::Note);
        assert_eq!(strategy("copy", ForkConfig::Copy).severity, Severity::Ok, "it was asked for");
    }

    #[test]
    fn a_machine_on_which_nothing_works_is_told_in_the_brokers_words() {
        let problem =
            Problem::new(ProblemKind::Resources, "no tmpfs for servers' data").detail("why").hint("do");
        let finding = judge_strategy(&Err(problem), &load(TWO_ROLES), &CacheConfig::default());
        assert_eq!((finding.severity, finding.advice.as_str()), (Severity::Problem, "do"));
        assert_eq!(finding.means, "why\nno server can be started");
    }

    #[test]
    fn room_is_counted_in_servers() {
        let judge = |strategy: &str, storage: &str, mib: u64| {
            judge_room(&forks(strategy, storage, mib << 20), &load(TWO_ROLES), &CacheConfig::default())
        };
        let well = judge("overlay", "tmpfs (private, at most 4.0 GiB)", 4096);
        assert_eq!((well.severity, well.servers), (Severity::Ok, Some(1357)));
        let small = judge("overlay", "tmpfs (private, at most 64.0 MiB)", 64);
        assert_eq!((small.severity, small.servers), (Severity::Warning, Some(13)));
        assert!(small.commands[0].starts_with("tmpfs_size"), "{small:?}");
        let copies = judge("copy (no overlay: x)", "tmpfs (/dev/shm; no private one: x)", 2048);
        assert_eq!((copies.severity, copies.servers), (Severity::Note, Some(50)));
        let disk = judge("overlay", "disk (/var/cache; no tmpfs: x)", 50_000);
        assert_eq!(disk.severity, Severity::Warning);
        assert!(disk.advice.contains("--shm-size"), "{disk:?}");
    }
}
