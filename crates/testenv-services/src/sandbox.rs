//! The namespaces that the broker moves into, so that mounts and memory segments cannot outlive it.
//!
//! Everything mounted for a server is mounted in the broker's own mount namespace. When the broker and its
//! servers are gone, the kernel drops the namespace and every mount with it, whether or not anybody cleaned up.

use std::fs;
use std::path::Path;

use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::thread::UnshareFlags;

use crate::process::{self, User};

/// What the machine lets the broker do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// Whether it may mount: it has a mount namespace of its own and the right to use it.
    pub may_mount: bool,
    /// Whether mounts are made inside a user namespace, where overlay needs `userxattr`.
    pub in_user_namespace: bool,
    /// Whether servers can have PID namespaces of their own.
    pub pid_namespaces: bool,
    /// Whether System V memory is the broker's own, so that the kernel frees what is left of it.
    pub own_ipc: bool,
    /// Why it may not mount, in the kernel's words; empty when it may.
    pub refusal: String,
}

impl Sandbox {
    /// No namespaces: what is left where a machine allows none.
    pub fn none(refusal: impl Into<String>) -> Self {
        Self {
            may_mount: false,
            in_user_namespace: false,
            pid_namespaces: false,
            own_ipc: false,
            refusal: refusal.into(),
        }
    }

    /// Moves the calling process into namespaces of its own, as far as the machine allows.
    ///
    /// Call it first thing in `main`: a process with several threads cannot enter a user namespace.
    pub fn enter() -> Self {
        let is_root = rustix::process::geteuid().is_root();
        let namespaces = UnshareFlags::NEWNS | UnshareFlags::NEWIPC;
        let entered =
            if is_root { process::unshare_process(namespaces) } else { enter_user_namespace(namespaces) };
        if let Err(error) = entered {
            return Self::none(format!("unshare: {error}"));
        }
        // Mounts made outside still arrive here; those made here stay here.
        let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        if let Err(error) = rustix::mount::mount_change("/", flags) {
            return Self { own_ipc: true, ..Self::none(format!("make mounts private: {error}")) };
        }
        Self {
            may_mount: true,
            in_user_namespace: !is_root,
            pid_namespaces: true,
            own_ipc: true,
            refusal: String::new(),
        }
    }

    /// Mounts a tmpfs of at most `size` bytes that only the broker and its servers see.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn mount_tmpfs(&self, target: &Path, size: u64) -> std::io::Result<()> {
        let options = std::ffi::CString::new(format!("size={size},mode=0711"))?;
        Ok(rustix::mount::mount(
            "testenv",
            target,
            "tmpfs",
            MountFlags::NODEV | MountFlags::NOSUID,
            &*options,
        )?)
    }
}

/// Enters a user namespace, in which this user is the same user and may mount.
fn enter_user_namespace(namespaces: UnshareFlags) -> std::io::Result<()> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    process::unshare_process(namespaces | UnshareFlags::NEWUSER)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))
}

/// The user that servers run as: none but the broker's own, unless that is root.
///
/// Servers refuse to run as root. `postgres` comes with Debian's package; `nobody` is everywhere.
pub fn server_user() -> Option<User> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let found = ["postgres", "nobody"].iter().find_map(|name| find_user(&passwd, name));
    Some(found.unwrap_or_else(|| User { name: "65534".into(), uid: 65534, gid: 65534 }))
}

fn find_user(passwd: &str, name: &str) -> Option<User> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let user = fields.next().filter(|it| *it == name)?;
        let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        (uid != 0).then(|| User { name: user.to_owned(), uid, gid })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_their_whole_name_and_never_root() {
        let passwd = "root:x:0:0::/:/bin/sh\npostgresql:x:7:7::/:/x\npostgres:x:101:104:,,,:/var:/bin/bash\nnobody:x:0:0::/:/x\n";
        assert_eq!(find_user(passwd, "postgres"), Some(User { name: "postgres".into(), uid: 101, gid: 104 }));
        assert_eq!(find_user(passwd, "nobody"), None);
    }
}
