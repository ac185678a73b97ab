use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use testkit::{Loop, Sql, TestWorkspace, User, needs_root, skip};

use crate::{TESTENV, assert_says, prepared, workspace};

#[test]
fn a_full_disk_is_told_and_used_again_when_there_is_room() {
    if !needs_root("to mount a small file system") {
        return;
    }
    let workspace = workspace("");
    let cache = workspace.base().join("small");
    // Enough to be writable, not enough for a snapshot.
    let mounted = match Loop::tmpfs(&cache, 4 << 10) {
        Ok(mounted) => mounted,
        Err(why) => return skip(&why),
    };
    let workspace = workspace.cache(&cache).with_mount(mounted);
    let message = workspace.refusal("database");
    assert_says(
        &message,
        &["failed to store a snapshot", "No space left on device", "testenv clean", "cache.dir"],
    );
    let left: Vec<_> =
        fs::read_dir(cache.join("snapshots")).unwrap().flatten().map(|it| it.file_name()).collect();
    assert!(left.is_empty(), "what did not fit is gone: {left:?}");
    // Redis needs next to nothing.
    drop(workspace.lease("cache"));
    workspace.end();
}

#[test]
fn servers_data_that_does_not_fit_is_told_with_the_setting() {
    let workspace = workspace("[cache]\ntmpfs_size = \"20MiB\"\n");
    let message = workspace.refusal("database");
    assert_says(&message, &["cache.tmpfs_size"]);
    workspace.end();
}

#[test]
fn a_read_only_cache_is_told_with_the_setting() {
    if !needs_root("to mount something read-only") {
        return;
    }
    let workspace = workspace("");
    let cache = workspace.base().join("read-only");
    let workspace = workspace.cache(&cache);
    fs::create_dir(&cache).unwrap();
    let mounted = match Loop::read_only(&cache) {
        Ok(mounted) => mounted,
        Err(why) => return skip(&why),
    };
    let message = workspace.refusal("database");
    assert_says(
        &message,
        &[&cache.display().to_string(), "Read-only file system", "cache.dir", "TESTENV_CACHE_DIR"],
    );
    workspace.assert_nothing_left();
    drop(mounted);
    // Nothing was remembered: as soon as it can be written to, all is well.
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o711)).unwrap();
    drop(workspace.lease("cache"));
    workspace.end();
}

#[test]
fn a_cache_of_somebody_else_is_told_with_the_setting() {
    if !needs_root("to become another user") {
        return;
    }
    let workspace = prepared(TestWorkspace::of_user(TESTENV, User::Nobody), "");
    let cache = workspace.base().join("root's");
    fs::create_dir(&cache).unwrap();
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o755)).unwrap();
    let workspace = workspace.cache(&cache);
    let message = workspace.refusal("database");
    assert_says(&message, &["root's", "Permission denied", "cache.dir"]);
    workspace.assert_nothing_left();
}

#[test]
fn without_a_tmpfs_servers_live_on_disk() {
    let workspace = workspace("[cache]\nstorage = \"disk\"\n");
    let held = workspace.lease("database");
    assert_eq!(Sql::connect(held.lease()).unwrap().one::<i64>("SELECT count(*) FROM items").unwrap(), 3);
    let status = workspace.status();
    assert!(status.fork_storage.starts_with("disk ("), "{}", status.fork_storage);
    drop(held);
    workspace.end();
}

/// Root that may not mount, on a machine whose `/dev/shm` is a directory on disk.
fn without_any_tmpfs(more: &str) -> Option<TestWorkspace> {
    if !needs_root("to take /dev/shm away and to give up the right to mount") {
        return None;
    }
    let workspace = workspace(more);
    let disk = workspace.base().join("shm");
    fs::create_dir(&disk).unwrap();
    let script = format!(
        "mount --bind '{}' /dev/shm && exec setpriv --bounding-set -sys_admin -- \"$@\"",
        disk.display()
    );
    Some(workspace.through(&["unshare", "--mount", "sh", "-c", &script, "sh"]))
}

#[test]
fn a_machine_without_any_tmpfs_is_noticed() {
    let Some(workspace) = without_any_tmpfs("") else { return };
    let held = workspace.lease("database");
    assert_eq!(Sql::connect(held.lease()).unwrap().one::<i64>("SELECT count(*) FROM items").unwrap(), 3);
    let status = workspace.status();
    assert_says(&status.fork_storage, &["disk (", "no tmpfs: unshare: Operation not permitted"]);
    drop(held);
    workspace.end();
}

#[test]
fn a_tmpfs_that_is_demanded_but_not_there_is_told() {
    let Some(workspace) = without_any_tmpfs("[cache]\nstorage = \"tmpfs\"\n") else { return };
    let message = workspace.refusal("database");
    assert_says(
        &message,
        &["no tmpfs for servers' data", "Operation not permitted", "cache.storage = \"auto\""],
    );
    workspace.assert_nothing_left();
}

#[test]
fn a_snapshot_that_was_damaged_is_made_again() {
    let workspace = workspace("").own_cache();
    drop(workspace.lease("cache"));
    let _ = workspace.down().expect_success();
    let snapshots = workspace.base().join("c/snapshots");
    for snapshot in fs::read_dir(&snapshots).unwrap().flatten() {
        fs::write(snapshot.path().join("meta.json"), "{").unwrap();
    }
    drop(workspace.lease("cache"));
    workspace.end();
}
