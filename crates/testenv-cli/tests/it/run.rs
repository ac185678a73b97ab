//! `testenv run` on a suite that knows nothing of testenv.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use testenv_model::{Case, CaseVerdict, Outcome, Run, RunVerdict, case_verdict, run_verdict};
use testenv_report::{junit, record};

use crate::support::{Called, Place, eventually, sh, signal};

/// Calls `testenv run --service postgres` with these arguments for testenv and these for nextest.
fn run(place: &Place, testenv: &[&str], nextest: &[&str]) -> Called {
    place.call(&[&["run", "--service", "postgres"], testenv, &["--"], nextest].concat())
}

fn record_of(place: &Place) -> Run {
    let text = fs::read_to_string(place.dir().join("target/testenv/run.json")).unwrap();
    record::from_json(&text).unwrap()
}

fn case<'a>(run: &'a Run, name: &str) -> &'a Case {
    run.cases.iter().find(|case| case.id.name == name).unwrap()
}

#[test]
fn each_test_has_a_database_of_its_own() {
    let place = Place::with_suite();
    let called = run(&place, &[], &["-E", "binary(own)"]).expect(0);
    assert!(called.stdout.contains("testenv: PASSED  5 passed"), "{}", called.stdout);
    assert!(called.stdout.contains("5 leases, p50 "), "{}", called.stdout);
    let run = record_of(&place);
    assert_eq!(run_verdict(&run), RunVerdict::Passed);
    for case in &run.cases {
        assert_eq!(case.attempts.len(), 1);
        assert_eq!(case.attempts[0].leases.len(), 1, "{}", case.id);
        assert!(case.attempts[0].phases.setup_us > 0, "{}", case.id);
    }
    let xml = fs::read(place.dir().join("target/testenv/junit.xml")).unwrap();
    assert_eq!(junit::read(xml.as_slice()).unwrap().cases.len(), 5);
    let left: Vec<_> = fs::read_dir(place.dir().join("target/testenv")).unwrap().flatten().collect();
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(place.status().leases.is_empty());
}

#[test]
fn every_way_to_end_is_recorded_and_failures_lead_back_to_their_data() {
    let place = Place::with_suite();
    let nextest = ["--run-ignored", "all", "-E", "binary(ends)"];
    let called = run(&place, &["--profile", "ends"], &nextest).expect(100);
    let recorded = record_of(&place);
    for (name, outcomes) in [
        ("passes", &[Outcome::Passed][..]),
        ("fails", &[Outcome::Failed; 3]),
        ("fails_with_data", &[Outcome::Failed; 3]),
        ("passes_at_the_second_attempt", &[Outcome::Failed, Outcome::Passed]),
        ("aborts", &[Outcome::Aborted; 3]),
        ("takes_too_long", &[Outcome::TimedOut; 3]),
        ("leaks_a_process", &[Outcome::Leaked; 3]),
    ] {
        let attempts = &case(&recorded, name).attempts;
        assert_eq!(attempts.iter().map(|attempt| attempt.outcome).collect::<Vec<_>>(), outcomes, "{name}");
        assert!(attempts.iter().all(|attempt| attempt.leases.len() == 1), "{name}: a lease for each attempt");
    }
    assert_eq!(case_verdict(case(&recorded, "passes_at_the_second_attempt")), CaseVerdict::Flaky);
    let words = "testenv: FAILED  5 failed · 1 flaky · 1 passed";
    assert!(called.stdout.contains(words), "{}", called.stdout);
    // Straight after the failure, in nextest's own report of it.
    assert!(called.stderr.contains("testenv: kept the server of postgres"), "{}", called.stderr);
    let shown = called.stdout.lines().skip_while(|line| !line.contains("fails_with_data failed at all"));
    let connect =
        shown.take(5).find_map(|line| line.split_once("postgres is kept: ")).map(|(_, command)| command);
    if let Some(connect) = connect {
        assert_eq!(sh(&format!("{connect} -Atc 'SELECT answer FROM left_behind'")), "42");
    }
}

#[test]
fn a_single_failure_can_be_looked_at() {
    let place = Place::with_suite();
    run(&place, &[], &["--run-ignored", "all", "-E", "test(fails_with_data)"]).expect(100);
    let recorded = record_of(&place);
    let connect = case(&recorded, "fails_with_data").attempts[0].leases[0].kept.clone().unwrap();
    assert_eq!(sh(&format!("{connect} -Atc 'SELECT answer FROM left_behind'")), "42");
}

#[test]
fn nothing_is_kept_where_nothing_is_to_be() {
    let place = Place::with_suite();
    let nextest = ["--run-ignored", "all", "-E", "test(fails_with_data)"];
    run(&place, &["--keep", "never"], &nextest).expect(100);
    assert!(place.status().kept.is_empty());
    assert_eq!(case(&record_of(&place), "fails_with_data").attempts[0].leases.len(), 1);
}

#[test]
fn tests_can_share_one_database() {
    let place = Place::with_suite();
    let called = run(&place, &["--per", "run"], &["-E", "test(creates_a)"]).expect(0);
    assert!(called.stdout.contains("shared by all tests; 1 lease,"), "{}", called.stdout);
    assert_eq!(record_of(&place).shared_leases.len(), 1);
    // They really share it: the second to create the table fails, and the server is kept.
    let called =
        run(&place, &["--per", "run"], &["--no-fail-fast", "-E", "test(/one|two|three/)"]).expect(100);
    assert!(called.stdout.contains("2 failed · 1 passed"), "{}", called.stdout);
    let (_, connect) = called.stdout.split_once("postgres for 60 min: ").unwrap();
    let connect = connect.lines().next().unwrap();
    assert_eq!(sh(&format!("{connect} -Atc 'SELECT count(*) FROM same_name'")), "1");
}

#[test]
fn a_suite_without_dependencies_gets_none() {
    let place = Place::with_suite();
    let called = run(&place, &["--per", "none"], &["-E", "test(=passes)"]).expect(0);
    assert!(
        called.stdout.contains("PASSED  1 passed") && !called.stdout.contains("leases"),
        "{}",
        called.stdout
    );
    let called = place.call(&["run", "--", "-E", "test(=passes)"]).expect(0);
    assert!(!called.stderr.contains("target runner"), "{}", called.stderr);
}

#[test]
fn the_projects_own_report_stays_where_it_is() {
    let place = Place::with_suite();
    run(&place, &["-P", "ci"], &["-E", "test(=passes)"]).expect(0);
    assert!(place.dir().join("target/nextest/ci/of-the-project.xml").exists());
    assert_eq!(record_of(&place).cases.len(), 1);
    run(&place, &[], &["-E", "test(=passes)", "--profile=ci"]).expect(0);
}

#[test]
fn nextests_own_codes_come_through() {
    let place = Place::with_suite();
    let none = run(&place, &[], &["-E", "none()"]).expect(4);
    assert!(none.stdout.contains("NO TESTS"), "{}", none.stdout);
    run(&place, &[], &["-E", "no such ("]).expect(94).complains(&["nextest list ended with exit code 94"]);
    run(&place, &[], &["--no-run"]).expect(0);
    place.write("tests/broken.rs", "fn (");
    run(&place, &[], &[]).expect(101).complains(&["nextest list ended with exit code 101"]);
}

#[test]
fn stopping_at_the_first_failure_is_no_lost_test() {
    let place = Place::with_suite();
    let nextest = ["--run-ignored", "all", "-j1", "-E", "test(=fails) or test(=passes) or test(=one)"];
    let called = run(&place, &[], &nextest).expect(100);
    assert!(called.stdout.contains("1 failed") && called.stdout.contains(" not run"), "{}", called.stdout);
}

/// A program in cargo's place that does something else to `nextest run`.
fn cargo_that(place: &Place, run: &str) -> std::path::PathBuf {
    let path = place.dir().join("cargo-that");
    let script =
        format!("#!/bin/sh\nif [ \"$1 $2\" = 'nextest run' ]; then shift 2; {run}; fi\nexec cargo \"$@\"\n");
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn a_test_that_gets_lost_fails_the_run() {
    let place = Place::with_suite();
    // As a shard does that is given the wrong filter.
    let cargo = cargo_that(&place, "exec cargo nextest run \"$@\" -E 'test(=one)'");
    let args = ["run", "--service", "postgres", "--", "one", "two"];
    let called = place.call_with(&args, |command| command.env("CARGO", cargo)).expect(120);
    for part in ["testenv: INCOMPLETE  1 passed", "missing   1 planned, but not reported", "suite::own two"] {
        assert!(called.stdout.contains(part), "no {part:?} in\n{}", called.stdout);
    }
}

#[test]
fn a_run_without_a_report_is_no_success() {
    let place = Place::with_suite();
    let cargo = cargo_that(&place, "exit 0");
    let called =
        place.call_with(&["run", "--per", "none"], |command| command.env("CARGO", cargo)).expect(121);
    called.complains(&["error: cargo nextest wrote no JUnit report", "  | looked for "]);
}

#[test]
fn a_missing_nextest_is_named() {
    let place = Place::with_suite();
    let path = place.dir().join("cargo-without");
    fs::write(&path, "#!/bin/sh\necho 'error: no such command: `nextest`' >&2\nexit 101\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let called = place.call_with(&["run", "--per", "none"], |command| command.env("CARGO", path)).expect(127);
    called.complains(&["error: cargo has no nextest", "hint: `cargo install --locked cargo-nextest`"]);
}

#[test]
fn a_target_runner_that_is_there_already_goes_on_running() {
    let place = Place::with_suite();
    let log = place.dir().join("runner.log");
    let runner = place.dir().join("runner");
    fs::write(&runner, format!("#!/bin/sh\necho \"$DATABASE_URL\" >> {}\nexec \"$@\"\n", log.display()))
        .unwrap();
    fs::set_permissions(&runner, fs::Permissions::from_mode(0o755)).unwrap();
    let triple = sh("rustc -vV | sed -n 's/host: //p'");
    place.write(".cargo/config.toml", &format!("[target.{triple}]\nrunner = '{}'\n", runner.display()));
    run(&place, &[], &["-E", "test(=one)"]).expect(0);
    assert!(fs::read_to_string(&log).unwrap().contains("postgres://"));
    fs::remove_file(&log).unwrap();
    place.write(".cargo/config.toml", "");
    let name = format!("CARGO_TARGET_{}_RUNNER", triple.to_uppercase().replace('-', "_"));
    let args = ["run", "--service", "postgres", "--", "-E", "test(=one)"];
    place.call_with(&args, |command| command.env(name, &runner)).expect(0);
    assert!(fs::read_to_string(&log).unwrap().contains("postgres://"));
}

#[test]
fn a_migration_that_fails_is_said_once_and_before_any_test() {
    let place = Place::with_suite();
    place.write("testenv.toml", "[services.db]\nservice = \"postgres\"\nmigrations = \"bad\"\n");
    place.write("bad/1.sql", "CREATE TABLE broken (;");
    let called = place.call(&["run", "--", "-E", "test(=one)"]).expect(123);
    assert_eq!(called.stderr.matches("no lease of db: ").count(), 1, "{}", called.stderr);
    called.complains(&["1.sql"]);
}

#[test]
fn a_broker_that_goes_away_meanwhile_fails_the_test_and_not_the_next_run() {
    let place = Place::with_suite();
    let cargo = cargo_that(
        &place,
        "TESTENV_BIN=/nonexistent TESTENV_RUNTIME_DIR=/nonexistent exec cargo nextest run \"$@\"",
    );
    let args = ["run", "--service", "postgres", "--", "-E", "test(=one)"];
    let called = place.call_with(&args, |command| command.env("CARGO", cargo)).expect(100);
    called.complains(&["error: no lease of postgres: no broker runs"]);
    assert_eq!(case(&record_of(&place), "one").attempts[0].outcome, Outcome::Failed);
    run(&place, &[], &["-E", "test(=one)"]).expect(0);
}

#[test]
fn an_interrupted_run_ends_soon_with_its_record_and_keeps_nothing() {
    let place = Place::with_suite();
    let args = ["run", "--service", "postgres", "--", "--run-ignored", "all", "-E", "test(takes_too_long)"];
    let mut child = place.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    lines.by_ref().find(|line| line.as_ref().unwrap().contains("Starting 1 test")).unwrap().unwrap();
    eventually("the test runs", || place.status().leases.iter().any(|lease| lease.test.is_some()));
    std::thread::sleep(std::time::Duration::from_millis(300));
    signal(&child, "INT");
    let rest = std::thread::spawn(move || lines.map_while(Result::ok).collect::<Vec<_>>());
    let output = child.wait_with_output().unwrap();
    let stderr = rest.join().unwrap().join("\n");
    assert_eq!(output.status.code(), Some(100), "{stderr}");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.contains("testenv: FAILED  1 failed"), "{stdout}");
    assert_eq!(case(&record_of(&place), "takes_too_long").attempts.len(), 1);
    assert!(place.status().kept.is_empty());
}
