//! Processes that have to do with a directory: servers, brokers, and whatever they started.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// A process, told apart from a later one of the same number by when it started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessInfo {
    /// Process id.
    pub pid: u32,
    /// When it started, in clock ticks since boot.
    pub started: u64,
    /// Its command line.
    pub command: String,
    /// Its mount namespace.
    pub mount_namespace: String,
}

/// Processes, except this one, that have to do with `place`: its path is in their command line, in their
/// environment, is where they work, or is that of a file that they have open. Zombies are gone already.
pub fn of_place(place: &Path) -> Vec<ProcessInfo> {
    let own = std::process::id();
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != own && belongs(*pid, place))
        .filter_map(look)
        .collect()
}

/// Whether this very process still runs.
pub fn alive(process: &ProcessInfo) -> bool {
    started(process.pid) == Some(process.started)
}

fn belongs(pid: u32, place: &Path) -> bool {
    let place = place.as_os_str().as_bytes();
    let mentions = |bytes: &[u8]| bytes.windows(place.len()).any(|window| window == place);
    let file = |name: &str| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let link = |path: &Path| fs::read_link(path).is_ok_and(|to| mentions(to.as_os_str().as_bytes()));
    mentions(&file("cmdline"))
        || mentions(&file("environ"))
        || link(Path::new(&format!("/proc/{pid}/cwd")))
        || fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten().any(|fd| link(&fd.path()))
}

fn look(pid: u32) -> Option<ProcessInfo> {
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let command = String::from_utf8_lossy(&command).replace('\0', " ").trim().to_owned();
    let namespace = fs::read_link(format!("/proc/{pid}/ns/mnt")).unwrap_or_default();
    let mount_namespace = namespace.display().to_string();
    Some(ProcessInfo { pid, started: started(pid)?, command, mount_namespace })
}

/// When a process started; `None` when it is gone, or a zombie.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything; what follows it is regular.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_by_where_it_works_and_gone_when_it_has_ended() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").current_dir(&dir).spawn().unwrap();
        let found = of_place(dir.path());
        assert_eq!(found.iter().map(|process| process.pid).collect::<Vec<_>>(), [child.id()]);
        assert!(found[0].command.starts_with("sleep"), "{found:?}");
        assert!(alive(&found[0]));
        child.kill().unwrap();
        crate::until(std::time::Duration::from_secs(5), || {
            if alive(&found[0]) { Err("it still runs".into()) } else { Ok(()) }
        });
        child.wait().unwrap();
    }
}
