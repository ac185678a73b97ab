//! The end of a run, for a person with ten seconds.

use std::fmt::Write as _;
use std::path::Path;

use testenv_model::{
    Attempt, Case, CaseId, CaseVerdict, Plan, RunVerdict, case_verdict, counts, lease_statistics, run_verdict,
};

use super::Finished;
use crate::exit_codes;

/// How many failures are shown in full; the rest is in the record.
const FAILURES_SHOWN: usize = 20;
/// How many of the slowest tests are shown.
const SLOWEST_SHOWN: usize = 5;
/// How many names of a list are shown.
const NAMES_SHOWN: usize = 10;
/// How many lines of a failure's message are shown.
const MESSAGE_LINES: usize = 6;

/// A line of every Rust panic that says nothing about it.
const BACKTRACE_NOTE: &str = "note: run with `RUST_BACKTRACE=1`";

/// Escape sequences for colours; empty where there are none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Palette {
    good: &'static str,
    bad: &'static str,
    odd: &'static str,
    faint: &'static str,
    bold: &'static str,
    end: &'static str,
}

impl Palette {
    /// Colours for a terminal, or none for a file.
    pub fn new(colours: bool) -> Self {
        if !colours {
            return Self::default();
        }
        Self {
            good: "\x1b[32m",
            bad: "\x1b[31m",
            odd: "\x1b[33m",
            faint: "\x1b[2m",
            bold: "\x1b[1m",
            end: "\x1b[0m",
        }
    }
}

/// The summary: the verdict first, then what it rests on, then where to look next. `base` is the directory
/// that paths are shown from.
pub fn summary(finished: &Finished, palette: Palette, base: &Path) -> String {
    let mut text = String::new();
    head(&mut text, finished, palette);
    set_up(&mut text, finished);
    slowest(&mut text, finished, palette);
    flaky(&mut text, finished, palette);
    failures(&mut text, finished, palette);
    differences(&mut text, finished);
    for way_back in &finished.kept {
        let minutes = way_back.kept.keep_seconds.div_ceil(60);
        row(
            &mut text,
            "kept",
            &format!("{} for {minutes} min: {}", way_back.role, way_back.kept.connect_command),
        );
    }
    let shown = |path: &Path| path.strip_prefix(base).unwrap_or(path).display().to_string();
    let files = finished.files.each_ref().map(|path| shown(path)).join(" · ");
    row(&mut text, "record", &files);
    text
}

fn row(text: &mut String, label: &str, value: &str) {
    let _ = writeln!(text, "  {label:<9} {value}");
}

fn head(text: &mut String, finished: &Finished, palette: Palette) {
    let (colour, word) = match (run_verdict(&finished.run), finished.exit_code) {
        (RunVerdict::Passed, exit_codes::OK) => (palette.good, "PASSED"),
        (RunVerdict::NoTests, _) => (palette.odd, "NO TESTS"),
        (RunVerdict::Unreconciled(_), _) => (palette.bad, "INCOMPLETE"),
        _ => (palette.bad, "FAILED"),
    };
    let counts = counts(&finished.run);
    let not_run = match run_verdict(&finished.run) {
        RunVerdict::Failed { not_run, .. } => not_run.len(),
        _ => 0,
    };
    let parts = [
        (counts.failed, "failed"),
        (counts.flaky, "flaky"),
        (counts.passed, "passed"),
        (not_run, "not run"),
        (counts.skipped + finished.skipped, "skipped"),
    ];
    let parts: Vec<String> = parts
        .into_iter()
        .filter(|(count, name)| *count > 0 || *name == "passed")
        .map(|(count, name)| format!("{count} {name}"))
        .collect();
    let Palette { bold, end, .. } = palette;
    let (parts, wall) = (parts.join(" · "), time(finished.run.wall_us));
    let _ = writeln!(text, "\n{bold}{colour}testenv: {word}{end}  {parts}  in {wall}");
}

fn set_up(text: &mut String, finished: &Finished) {
    let leases = lease_statistics(&finished.run);
    if leases.count == 0 {
        return;
    }
    let (p50, p99) = (time(leases.p50_us), time(leases.p99_us));
    let warm = format!("{} % warm", leases.warm * 100 / leases.count);
    let plural = if leases.count == 1 { "" } else { "s" };
    let each = format!("{} lease{plural}, p50 {p50}, p99 {p99}, {warm}", leases.count);
    let value = if finished.run.shared_leases.is_empty() {
        let share = leases.setup_us as f64 * 100.0 / (leases.total_us.max(1)) as f64;
        let (setup, testing) = (time(leases.setup_us), time(leases.total_us.saturating_sub(leases.setup_us)));
        format!("{share:.1} % of the tests' time: {setup} of set-up, {testing} of testing; {each}")
    } else {
        format!("shared by all tests; {each}")
    };
    row(text, "set-up", &value);
}

fn slowest(text: &mut String, finished: &Finished, palette: Palette) {
    let ran = finished.run.cases.iter().filter(|case| case_verdict(case) != CaseVerdict::Skipped);
    let slowest = ran.filter_map(|case| {
        Some((case.attempts.iter().max_by_key(|attempt| attempt.phases.total_us())?, &case.id))
    });
    let mut attempts: Vec<(&Attempt, &CaseId)> = slowest.collect();
    attempts.sort_by_key(|(attempt, _)| std::cmp::Reverse(attempt.phases.total_us()));
    for (at, (attempt, id)) in attempts.iter().take(SLOWEST_SHOWN).enumerate() {
        let label = if at == 0 { "slowest" } else { "" };
        let setup = match attempt.phases.setup_us {
            0 => String::new(),
            setup_us => format!("  {}({} of set-up){}", palette.faint, time(setup_us), palette.end),
        };
        row(text, label, &format!("{:>8}  {id}{setup}", time(attempt.phases.total_us())));
    }
}

fn of_verdict(finished: &Finished, verdict: CaseVerdict) -> Vec<&Case> {
    finished.run.cases.iter().filter(|case| case_verdict(case) == verdict).collect()
}

fn flaky(text: &mut String, finished: &Finished, palette: Palette) {
    let cases = of_verdict(finished, CaseVerdict::Flaky);
    for (at, case) in cases.iter().take(NAMES_SHOWN).enumerate() {
        let label = if at == 0 { "flaky" } else { "" };
        let Palette { odd, end, .. } = palette;
        row(text, label, &format!("{odd}{}{end} passed at attempt {}", case.id, case.attempts.len()));
    }
    more(text, cases.len(), NAMES_SHOWN);
}

fn failures(text: &mut String, finished: &Finished, palette: Palette) {
    let cases = of_verdict(finished, CaseVerdict::Failed);
    for (at, case) in cases.iter().take(FAILURES_SHOWN).enumerate() {
        let label = if at == 0 { "failed" } else { "" };
        let last = case.attempts.last();
        let how = match case.attempts.len() {
            _ if case.flaky_fails => "flaky, which counts as failed here".to_owned(),
            1 => last.map_or(String::new(), |last| last.outcome.to_string()),
            attempts => {
                last.map_or(String::new(), |last| format!("{} at all {attempts} attempts", last.outcome))
            }
        };
        let Palette { bad, faint, end, .. } = palette;
        row(text, label, &format!("{bad}{}{end} {how}", case.id));
        let message = case.attempts.iter().rev().find_map(|attempt| attempt.message.as_deref());
        let says_something = |line: &&str| !line.trim().is_empty() && !line.starts_with(BACKTRACE_NOTE);
        let lines = message.unwrap_or_default().lines().filter(says_something);
        for line in lines.take(MESSAGE_LINES) {
            row(text, "", &format!("  {faint}|{end} {}", printable(line)));
        }
        let leases = case.attempts.iter().flat_map(|attempt| &attempt.leases);
        for (role, command) in leases.filter_map(|lease| lease.kept.as_ref().map(|kept| (&lease.role, kept)))
        {
            row(text, "", &format!("  {role} is kept: {command}"));
        }
    }
    more(text, cases.len(), FAILURES_SHOWN);
}

fn differences(text: &mut String, finished: &Finished) {
    match (&finished.run.plan, run_verdict(&finished.run)) {
        (_, RunVerdict::Unreconciled(found)) => {
            names(text, "missing", "planned, but not reported", &found.missing);
            names(text, "doubled", "reported more than once", &found.doubled);
            names(text, "unplanned", "reported, but not planned", &found.unplanned);
        }
        (Plan::Unknown(why), _) => row(text, "plan", &format!("not reconciled: {why}")),
        _ => {}
    }
}

fn names(text: &mut String, label: &str, what: &str, ids: &[CaseId]) {
    if ids.is_empty() {
        return;
    }
    row(text, label, &format!("{} {what}", ids.len()));
    for id in ids.iter().take(NAMES_SHOWN) {
        row(text, "", &format!("  {id}"));
    }
    more(text, ids.len(), NAMES_SHOWN);
}

fn more(text: &mut String, all: usize, shown: usize) {
    if all > shown {
        row(text, "", &format!("… and {} more in the record", all - shown));
    }
}

/// A line of a test's message without what would move the cursor or change colours.
fn printable(line: &str) -> String {
    line.chars().filter(|c| !c.is_control()).collect()
}

/// A length of time in the unit that suits it.
fn time(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..10_000 => format!("{:.1} ms", micros as f64 / 1e3),
        10_000..1_000_000 => format!("{} ms", micros / 1_000),
        1_000_000..100_000_000 => format!("{:.1} s", micros as f64 / 1e6),
        _ => format!("{} min {:02} s", micros / 60_000_000, micros / 1_000_000 % 60),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::PathBuf;

    use testenv_model::{LeaseUse, Outcome, Phases, Run};

    use super::*;

    fn attempt(outcome: Outcome, setup_us: u64, test_us: u64) -> Attempt {
        let lease =
            LeaseUse { role: "database".into(), total_us: setup_us, warm: true, ..LeaseUse::default() };
        Attempt { outcome, phases: Phases { setup_us, test_us }, leases: vec![lease], ..Attempt::default() }
    }

    fn case(name: &str, attempts: Vec<Attempt>) -> Case {
        Case { id: CaseId::new("shop::orders", name), attempts, flaky_fails: false }
    }

    fn check(planned: &[&str], cases: Vec<Case>, exit_code: i32, expected: &str) {
        let plan = planned.iter().map(|name| CaseId::new("shop::orders", *name)).collect::<BTreeSet<_>>();
        let run = Run { wall_us: 12_345_678, plan: Plan::Known(plan), cases, ..Run::default() };
        let files = ["/w/target/testenv/run.json", "/w/target/testenv/junit.xml"].map(PathBuf::from);
        let finished = Finished { run, skipped: 2, kept: Vec::new(), files, exit_code };
        assert_eq!(summary(&finished, Palette::default(), Path::new("/w")), expected);
    }

    #[test]
    fn a_green_run_is_short() {
        let cases = vec![
            case("pays", vec![attempt(Outcome::Passed, 210, 99_790)]),
            case("ships", vec![attempt(Outcome::Failed, 180, 4_820), attempt(Outcome::Passed, 190, 1_810)]),
        ];
        let expected = "
testenv: PASSED  1 flaky · 1 passed · 2 skipped  in 12.3 s
  set-up    0.5 % of the tests' time: 580 µs of set-up, 106 ms of testing; 3 leases, p50 190 µs, p99 210 µs, 100 % warm
  slowest     100 ms  shop::orders pays  (210 µs of set-up)
              5.0 ms  shop::orders ships  (180 µs of set-up)
  flaky     shop::orders ships passed at attempt 2
  record    target/testenv/run.json · target/testenv/junit.xml
";
        check(&["pays", "ships"], cases, 0, expected);
    }

    #[test]
    fn a_failure_shows_its_words_and_the_way_back() {
        let mut failed = attempt(Outcome::Failed, 200, 9_800);
        failed.message = Some("\nthread 'pays' panicked\nleft:\x1b[31m 1\nright: 2\n3\n4\n5\n6\n7".into());
        failed.leases[0].kept = Some("psql -h /run/x".into());
        let expected = "
testenv: FAILED  1 failed · 0 passed · 1 not run · 2 skipped  in 12.3 s
  set-up    2.0 % of the tests' time: 200 µs of set-up, 9.8 ms of testing; 1 lease, p50 200 µs, p99 200 µs, 100 % warm
  slowest      10 ms  shop::orders pays  (200 µs of set-up)
  failed    shop::orders pays failed
              | thread 'pays' panicked
              | left:[31m 1
              | right: 2
              | 3
              | 4
              | 5
              database is kept: psql -h /run/x
  record    target/testenv/run.json · target/testenv/junit.xml
";
        check(&["pays", "ships"], vec![case("pays", vec![failed])], 100, expected);
    }

    #[test]
    fn a_lost_test_is_named() {
        let cases = vec![case("pays", vec![Attempt::default()])];
        let expected = "
testenv: INCOMPLETE  1 passed · 2 skipped  in 12.3 s
  slowest       0 µs  shop::orders pays
  missing   1 planned, but not reported
              shop::orders ships
  record    target/testenv/run.json · target/testenv/junit.xml
";
        check(&["pays", "ships"], cases, exit_codes::UNRECONCILED, expected);
    }
}
