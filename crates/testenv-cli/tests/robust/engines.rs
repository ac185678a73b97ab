use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use testkit::TestWorkspace;

use crate::{TESTENV, assert_says};

#[test]
fn a_version_that_is_not_there_is_told_with_those_that_are() {
    let workspace =
        TestWorkspace::new(TESTENV).config("[services.database]\nservice = \"postgres\"\nversion = \"99\"\n");
    let message = workspace.refusal("database");
    assert_says(
        &message,
        &["no PostgreSQL 99 on this machine", "found only", "apt-get install postgresql", "bin_dir"],
    );
    workspace.end();
}

#[test]
fn a_directory_without_an_engine_is_told() {
    let workspace = TestWorkspace::new(TESTENV)
        .config("[services.cache]\nservice = \"redis\"\nbin_dir = \"nothing-here\"\n");
    let message = workspace.refusal("cache");
    assert_says(
        &message,
        &["no Redis or Valkey on this machine", "nothing-here", "apt-get install redis-server"],
    );
    workspace.end();
}

/// A program in the place of an engine.
fn fake(workspace: &TestWorkspace, program: &str, script: &str) {
    workspace.write(&format!("bin/{program}"), script);
    let file = workspace.root().join("bin").join(program);
    fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn an_engine_that_does_not_say_its_version_in_time_holds_nobody_up() {
    let workspace = TestWorkspace::new(TESTENV).config(
        "[services.bad]\nservice = \"postgres\"\nbin_dir = \"bin\"\n[services.cache]\nservice = \"redis\"\n",
    );
    fake(&workspace, "postgres", "#!/bin/sh\nexec sleep 300\n");
    drop(workspace.lease("cache"));
    std::thread::scope(|scope| {
        let begun = Instant::now();
        let bad = scope.spawn(|| workspace.refusal("bad"));
        std::thread::sleep(Duration::from_millis(200));
        drop(workspace.lease("cache"));
        assert!(begun.elapsed() < Duration::from_secs(5), "others wait for it: {:?}", begun.elapsed());
        let message = bad.join().unwrap();
        assert_says(&message, &["version of", "bin/postgres", "did not say its version within 10 s"]);
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    });
    workspace.end();
}

#[test]
fn an_engine_that_does_not_start_is_told_with_its_log() {
    let workspace = TestWorkspace::new(TESTENV).config(
        "[services.database]\nservice = \"postgres\"\nsettings = { shared_preload_libraries = \"no_such_library\" }\n",
    );
    let message = workspace.refusal("database");
    assert_says(&message, &["did not start", "no_such_library"]);
    workspace.end();
}
