use std::process::Command;
use std::time::Duration;

use testkit::{Loop, Sql, TestWorkspace, have, is_root, needs_root, run, skip};

use crate::workspace;

/// The workspace's servers are forked this way, and apart from each other.
#[track_caller]
fn forks_by(workspace: TestWorkspace, strategy: &str) {
    let (one, two) = (workspace.lease("database"), workspace.lease("database"));
    let sql = Sql::connect(one.lease()).unwrap();
    sql.run("DELETE FROM items; VACUUM FULL items; CHECKPOINT").unwrap_err(); // not in one transaction
    for statement in ["DELETE FROM items", "VACUUM FULL items", "CHECKPOINT"] {
        sql.run(statement).unwrap();
    }
    assert_eq!(Sql::connect(two.lease()).unwrap().one::<i64>("SELECT count(*) FROM items").unwrap(), 3);
    let status = workspace.status();
    assert!(status.fork_strategy.starts_with(strategy), "{}", status.fork_strategy);
    drop((one, two));
    workspace.end();
}

/// Whether the machine lets this user mount; says so when not.
fn may_mount() -> bool {
    let tried = run(Command::new("unshare").args(["--user", "--mount", "true"]), Duration::from_secs(10));
    let may = is_root() || tried.code == Some(0);
    if !may {
        skip(&format!("an ordinary user may not mount here: {}", tried.stderr.trim()));
    }
    may
}

#[test]
fn by_overlay() {
    if may_mount() {
        forks_by(workspace("[cache]\nfork = \"overlay\"\n"), "overlay");
    }
}

#[test]
fn by_copy() {
    forks_by(workspace("[cache]\nfork = \"copy\"\n"), "copy");
}

#[test]
fn by_overlay_on_disk() {
    if may_mount() {
        forks_by(workspace("[cache]\nfork = \"overlay\"\nstorage = \"disk\"\n"), "overlay");
    }
}

fn by_reflink_on(mkfs: &[&str]) {
    if !needs_root("to mount a file system that can share blocks") {
        return;
    }
    if !have(mkfs[0]) {
        return skip(&format!("there is no {}", mkfs[0]));
    }
    let workspace = workspace("[cache]\nfork = \"reflink\"\nstorage = \"disk\"\n");
    let mounted = match Loop::mount(&workspace.base().join("fs"), mkfs, 512) {
        Ok(mounted) => mounted,
        Err(why) => return skip(&why),
    };
    let cache = mounted.dir().join("cache");
    forks_by(workspace.cache(cache).with_mount(mounted), "reflink");
}

#[test]
fn by_reflink_on_xfs() {
    by_reflink_on(&["mkfs.xfs", "-q", "-m", "reflink=1"]);
}

#[test]
fn by_reflink_on_btrfs() {
    by_reflink_on(&["mkfs.btrfs", "-q"]);
}
