//! The formats on reports that cargo-nextest 0.9.151 really wrote (`data/`), and on hostile ones.

use std::collections::BTreeSet;

use testenv_model::{
    Attempt, Case, CaseId, CaseVerdict, LeaseUse, Outcome, Output, Phases, Plan, Run, case_verdict,
};
use testenv_report::{junit, record};

const ENDS: &str = include_str!("data/ends.xml");
const FLAKY_FAILS: &str = include_str!("data/flaky-fails.xml");

fn read(text: &str) -> Run {
    junit::read(text.as_bytes()).unwrap()
}

fn error(text: &str) -> String {
    junit::read(text.as_bytes()).unwrap_err().to_string()
}

fn case<'a>(run: &'a Run, name: &str) -> &'a Case {
    run.cases.iter().find(|case| case.id.name == name).unwrap()
}

fn outcomes(case: &Case) -> Vec<Outcome> {
    case.attempts.iter().map(|attempt| attempt.outcome).collect()
}

#[test]
fn every_way_to_end_is_told_apart() {
    use Outcome::{Aborted, Failed, Leaked, Passed, TimedOut};
    let run = read(ENDS);
    assert_eq!(run.cases.len(), 7);
    assert!(run.cases.iter().all(|case| case.id.suite == "suite::ends"));
    for (name, expected) in [
        ("passes", vec![Passed]),
        ("fails", vec![Failed; 3]),
        ("passes_at_the_second_attempt", vec![Failed, Passed]),
        ("aborts", vec![Aborted; 3]),
        ("takes_too_long", vec![TimedOut; 3]),
        ("leaks_a_process", vec![Leaked; 3]),
    ] {
        assert_eq!(outcomes(case(&run, name)), expected, "{name}");
    }
}

#[test]
fn each_attempt_has_its_own_time_message_and_output() {
    let run = read(ENDS);
    let started =
        |case: &Case| case.attempts.iter().map(|it| it.started_unix_ms.unwrap()).collect::<Vec<_>>();
    for case in &run.cases {
        assert!(started(case).is_sorted(), "{}: attempts out of order: {:?}", case.id, started(case));
    }
    for (at, attempt) in case(&run, "fails").attempts.iter().enumerate() {
        let message = attempt.message.as_ref().unwrap();
        assert!(message.contains(&format!("on purpose & <here>, attempt {}", at + 1)), "{message}");
        assert!(attempt.output.stdout.contains("the end ]]>"), "{}", attempt.output.stdout);
        assert!(attempt.output.stderr.contains("panicked"), "{}", attempt.output.stderr);
        assert!(attempt.phases.total_us() > 0);
    }
    let times: Vec<u64> = case(&run, "takes_too_long").attempts.iter().map(|it| it.phases.test_us).collect();
    assert!(times.iter().all(|time| (1_000_000..2_000_000).contains(time)), "{times:?}");
}

#[test]
fn a_flaky_test_fails_where_the_policy_says_so() {
    let run = read(FLAKY_FAILS);
    let flaky = case(&run, "passes_at_the_second_attempt");
    assert_eq!(outcomes(flaky), [Outcome::Failed, Outcome::Passed]);
    assert_eq!(case_verdict(flaky), CaseVerdict::Failed);
    assert_eq!(flaky.attempts[1].message, None, "the policy's words are not the test's");
    let lenient = read(ENDS);
    assert_eq!(case_verdict(case(&lenient, "passes_at_the_second_attempt")), CaseVerdict::Flaky);
}

#[test]
fn what_junit_writes_it_reads_again() {
    for text in [ENDS, FLAKY_FAILS] {
        let run = read(text);
        let mut xml = Vec::new();
        junit::write(&run, "x", &mut xml).unwrap();
        let again = junit::read(xml.as_slice()).unwrap();
        assert_eq!(again.cases.len(), run.cases.len());
        for (again, case) in again.cases.iter().zip(&run.cases) {
            assert_eq!(
                (outcomes(again), &again.id, again.flaky_fails),
                (outcomes(case), &case.id, case.flaky_fails)
            );
            for (again, attempt) in again.attempts.iter().zip(&case.attempts) {
                assert_eq!(again.phases, attempt.phases);
                assert_eq!(again.started_unix_ms, attempt.started_unix_ms);
                assert_eq!(again.message, attempt.message);
                // nextest lets through a character that XML cannot hold.
                let stdout = attempt.output.stdout.replace('\u{fffe}', "");
                assert_eq!(again.output, Output { stdout, stderr: attempt.output.stderr.clone() });
            }
        }
        assert_eq!(
            (again.id, again.wall_us, again.started_unix_ms),
            (run.id, run.wall_us, run.started_unix_ms)
        );
    }
}

/// A run with everything in it that the formats have to carry.
fn everything() -> Run {
    let lease = LeaseUse {
        id: "l1".into(),
        role: "database".into(),
        total_us: 250,
        prepare_us: 0,
        fork_us: 200,
        warm: true,
        kept: Some("psql \"x\"".into()),
    };
    let failed = Attempt {
        outcome: Outcome::Failed,
        started_unix_ms: Some(1_795_225_806_987),
        phases: Phases { setup_us: 250, test_us: 1000 },
        kind: Some("test failure with exit code 101".into()),
        message: Some("a \u{0}\u{b}\u{1b}[31mred\u{fffe}\u{ffff} ]]> & <b> \"q\"".into()),
        output: Output { stdout: "out\r\n\u{8}".into(), stderr: "\u{85}\u{1f980}".into() },
        leases: vec![lease.clone()],
    };
    let skipped = Attempt { outcome: Outcome::Skipped, ..Attempt::default() };
    let case = |name: &str, attempts| Case { id: CaseId::new("s", name), attempts, flaky_fails: false };
    let cases = vec![
        case("a", vec![failed]),
        case("b\n\"<\u{1}>", vec![Attempt::default()]),
        case("skipped", vec![skipped]),
        case("unplanned", vec![Attempt::default()]),
        case("b\n\"<\u{1}>", vec![Attempt::default()]),
    ];
    let planned = ["a", "b\n\"<\u{1}>", "lost"].map(|name| CaseId::new("s", name));
    Run {
        id: "id".into(),
        started_unix_ms: Some(1),
        wall_us: 99,
        shared_leases: vec![LeaseUse { warm: false, kept: None, ..lease }],
        plan: Plan::Known(BTreeSet::from(planned)),
        cases,
    }
}

#[test]
fn a_record_is_read_as_it_was() {
    let run = everything();
    let text = record::to_json(&run);
    assert!(text.starts_with("{\n  \"format\": \"testenv-run/1\""), "{text}");
    assert_eq!(record::from_json(&text).unwrap(), run);
    let unknown = Run { plan: Plan::Unknown("--rerun".into()), ..run };
    assert_eq!(record::from_json(&record::to_json(&unknown)).unwrap(), unknown);
}

/// The first record ever written must stay readable.
#[test]
fn version_1_is_readable() {
    let run = record::from_json(include_str!("data/run-1.json")).unwrap();
    assert_eq!(run, everything());
}

#[test]
fn a_record_of_another_version_is_refused_by_name() {
    let text = record::from_json(r#"{"format": "testenv-run/2", "cases": 7}"#).unwrap_err().to_string();
    assert!(text.contains("testenv-run/2") && text.contains("testenv-run/1"), "{text}");
    record::from_json("{}").unwrap_err();
    let strange = record::to_json(&everything()).replace("\"outcome\": \"skipped\"", "\"outcome\": \"odd\"");
    assert!(record::from_json(&strange).unwrap_err().to_string().contains("\"odd\" of s skipped"));
}

#[test]
fn characters_that_xml_cannot_hold_are_left_out() {
    let mut xml = Vec::new();
    junit::write(&everything(), "na\u{1}me", &mut xml).unwrap();
    let text = String::from_utf8(xml).unwrap();
    assert!(!text.contains(|c: char| c < ' ' && !matches!(c, '\t' | '\n' | '\r')), "{text}");
    assert!(!text.contains(['\u{fffe}', '\u{ffff}']), "{text}");
    let again = read(&text);
    assert_eq!(case(&again, "a").attempts[0].message.as_deref(), Some("a [31mred ]]> & <b> \"q\""));
    assert!(text.contains(r#"<property name="testenv.setup_seconds" value="0.000250"/>"#), "{text}");
}

#[test]
fn setup_scripts_are_no_tests() {
    let text = r#"<testsuites><testsuite name="@setup-script:db"><testcase name="db"/></testsuite>
        <testsuite name="s"><testcase name="t"/></testsuite></testsuites>"#;
    assert_eq!(read(text).cases.len(), 1);
}

#[test]
fn strange_reports_are_read_as_far_as_they_mean_something() {
    let text = "<?xml version='1.0'?><!DOCTYPE x [<!ENTITY big 'boom'>]>
        <testsuite name='outer'><testsuite name='in&amp;ner'>
        <testcase name='&big;'><properties><property name='a' value='b'/></properties>
        <failure><![CDATA[<raw> & ]]>&big;&#65;&lt;</failure></testcase></testsuite>
        <testcase name='later' time='x' timestamp='y'><skipped/></testcase></testsuite>";
    let run = read(text);
    assert_eq!(run.cases[0].id, CaseId::new("in&ner", "&big;"));
    assert_eq!(run.cases[0].attempts[0].message.as_deref(), Some("<raw> & &big;A<"));
    assert_eq!(run.cases[1].id, CaseId::new("outer", "later"));
    assert_eq!(outcomes(&run.cases[1]), [Outcome::Skipped]);
}

#[test]
fn what_is_no_report_is_refused() {
    assert!(error("").contains("no <testsuites>"));
    assert!(error("<html></html>").contains("no <testsuites>"));
    assert!(error("<testsuites><testsuite name='a'><testcase name='x'>").contains("middle of <testcase>"));
    assert!(error("<testsuites><testsuite name='a'>").contains("middle of <testsuite>"));
    assert!(error("<testsuites></testsuite>").contains("not well-formed XML at byte"));
    assert!(error("<testsuite name='a'><testcase/></testsuite>").contains("has no name"));
    junit::read(&b"<testsuites \xff\xfe></testsuites>"[..]).unwrap_err();
}

/// Cutting a report anywhere must give an error or a shorter report, and never a panic.
#[test]
fn a_report_cut_anywhere_does_no_harm() {
    let whole = read(FLAKY_FAILS).cases.len();
    for at in 0..FLAKY_FAILS.len() {
        if let Ok(run) = junit::read(&FLAKY_FAILS.as_bytes()[..at]) {
            assert!(run.cases.len() <= whole);
        }
    }
}

#[test]
fn megabytes_of_output_are_kept_in_part() {
    let text = format!(
        "<testsuites><testsuite name='s'><testcase name='t'><failure/><system-out>begin{}end</system-out></testcase></testsuite></testsuites>",
        "x&lt;".repeat(2_000_000),
    );
    let run = read(&text);
    let stdout = &run.cases[0].attempts[0].output.stdout;
    assert!(
        stdout.starts_with("begin") && stdout.ends_with("end") && stdout.len() < 200_000,
        "{}",
        stdout.len()
    );
}
