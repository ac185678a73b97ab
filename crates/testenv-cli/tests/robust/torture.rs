use std::path::Path;
use std::time::Duration;

use testkit::torture::{Options, Report, run};
use testkit::{User, needs_root};

use crate::{TESTENV, client_program};

/// Sixty kills, which is enough to meet most defects now and then; `cargo xtask torture` does a thousand.
fn options(seed: u64) -> Options {
    let mut options = Options::new(Path::new(TESTENV), client_program(), 60, seed);
    options.limit = Duration::from_secs(120);
    options
}

#[track_caller]
fn check(options: &Options) -> Report {
    let report = run(options, |_| {});
    assert!(report.is_clean(), "seed {}:\n{report}", options.seed);
    assert!(report.client_kills > 0 && report.broker_kills > 0 && report.finished > 0, "{report}");
    report
}

#[test]
fn kills_leave_nothing_behind_and_disturb_nobody() {
    check(&options(11));
}

#[test]
fn the_same_for_an_ordinary_user() {
    if needs_root("to become another user") {
        check(&Options { user: User::Nobody, ..options(12) });
    }
}

#[test]
fn the_same_where_nothing_may_be_mounted() {
    if needs_root("to give up the right to mount") {
        let through = ["setpriv", "--bounding-set", "-sys_admin", "--"].map(String::from).into();
        check(&Options { through, kills: 40, ..options(13) });
    }
}
