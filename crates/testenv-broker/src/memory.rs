//! How much memory servers take, as the kernel counts it, and how many files are open.

use std::fs;

/// Proportional set size of a process and its children, in bytes: memory shared with others counts by its share.
pub(crate) fn of_server(pid: u32) -> u64 {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
    std::iter::once(pid).chain(children).map(of_process).sum()
}

/// How many files this process has open.
pub(crate) fn open_files() -> Option<u64> {
    fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as u64)
}

fn of_process(pid: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    pss(&rollup).unwrap_or(0)
}

fn pss(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find(|line| line.starts_with("Pss:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_read_from_the_kernel_s_summary() {
        assert_eq!(pss("0-f r\nRss:  10 kB\nPss:   7 kB\nPss_Dirty: 3 kB\n"), Some(7 << 10));
        assert!(of_server(std::process::id()) > 0);
        assert_eq!(of_server(u32::MAX), 0);
    }
}
