//! Writing JUnit XML as nextest's is shaped, so that whatever reads the one reads the other.

use std::io::{self, Write};

use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesEnd, BytesStart, BytesText, Event};
use testenv_model::{Attempt, Case, CaseVerdict, Outcome, Run, case_verdict};

use super::FLAKY_FAILURE;
use crate::rfc3339;

/// Writes the run. Cases are grouped by suite; each says in a property how much of its time was set-up.
/// Characters that XML cannot hold are left out.
///
/// # Errors
/// Those of `out`.
pub fn write(run: &Run, name: &str, out: impl Write) -> io::Result<()> {
    let mut xml = Writer::new_with_indent(out, b' ', 2);
    xml.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    let mut suites: Vec<(&str, Vec<&Case>)> = Vec::new();
    for case in &run.cases {
        match suites.iter_mut().find(|(suite, _)| *suite == case.id.suite) {
            Some((_, cases)) => cases.push(case),
            None => suites.push((&case.id.suite, vec![case])),
        }
    }
    let mut root = element("testsuites", &[("name", name)]);
    push_counts(&mut root, &run.cases.iter().collect::<Vec<_>>());
    if !run.id.is_empty() {
        push(&mut root, "uuid", &run.id);
    }
    push_time(&mut root, run.started_unix_ms, run.wall_us);
    xml.write_event(Event::Start(root))?;
    for (suite, cases) in suites {
        let mut start = element("testsuite", &[("name", suite)]);
        push_counts(&mut start, &cases);
        xml.write_event(Event::Start(start))?;
        for case in cases {
            write_case(&mut xml, case)?;
        }
        xml.write_event(Event::End(BytesEnd::new("testsuite")))?;
    }
    xml.write_event(Event::End(BytesEnd::new("testsuites")))?;
    xml.get_mut().write_all(b"\n")
}

fn write_case(xml: &mut Writer<impl Write>, case: &Case) -> io::Result<()> {
    let verdict = case_verdict(case);
    let failed_first = case.attempts.last().is_some_and(|last| last.outcome.is_failure());
    // As nextest does: the first attempt stands for a failed case, the passing one for a flaky case.
    let (main, others) = match case.attempts.split_first() {
        Some((first, others)) if failed_first => (Some(first), others),
        _ => match case.attempts.split_last() {
            Some((last, others)) => (Some(last), others),
            None => (None, &[][..]),
        },
    };
    let mut start = element("testcase", &[("name", &case.id.name), ("classname", &case.id.suite)]);
    push_time(&mut start, main.and_then(|it| it.started_unix_ms), main.map_or(0, |it| it.phases.total_us()));
    xml.write_event(Event::Start(start))?;
    if let Some(main) = main.filter(|main| !main.leases.is_empty()) {
        let value = seconds(main.phases.setup_us);
        xml.write_event(Event::Start(BytesStart::new("properties")))?;
        let property = element("property", &[("name", "testenv.setup_seconds"), ("value", &value)]);
        xml.write_event(Event::Empty(property))?;
        xml.write_event(Event::End(BytesEnd::new("properties")))?;
    }
    let flaky = verdict == CaseVerdict::Flaky || case.flaky_fails;
    if flaky && verdict == CaseVerdict::Failed && !failed_first {
        let message = "passed, but only after it had failed";
        xml.write_event(Event::Empty(element("failure", &[("message", message), ("type", FLAKY_FAILURE)])))?;
    }
    if verdict == CaseVerdict::Skipped {
        let message = main.and_then(|main| main.message.as_deref()).unwrap_or_default();
        xml.write_event(Event::Empty(element("skipped", &[("message", message)])))?;
    }
    if let Some(main) = main.filter(|_| failed_first) {
        let name = element_of(main, "failure", "error");
        write_failure(xml, BytesStart::new(name), main, |_| Ok(()))?;
    }
    for other in others {
        let name = match failed_first {
            true => element_of(other, "rerunFailure", "rerunError"),
            false => element_of(other, "flakyFailure", "flakyError"),
        };
        let mut start = BytesStart::new(name);
        push_time(&mut start, other.started_unix_ms, other.phases.total_us());
        write_failure(xml, start, other, |xml| write_output(xml, other))?;
    }
    if let Some(main) = main {
        write_output(xml, main)?;
    }
    xml.write_event(Event::End(BytesEnd::new("testcase")))
}

fn element_of(attempt: &Attempt, failure: &'static str, error: &'static str) -> &'static str {
    if matches!(attempt.outcome, Outcome::Leaked | Outcome::NotStarted) { error } else { failure }
}

fn write_failure<W: Write>(
    xml: &mut Writer<W>,
    mut start: BytesStart<'_>,
    attempt: &Attempt,
    inner: impl FnOnce(&mut Writer<W>) -> io::Result<()>,
) -> io::Result<()> {
    let message = attempt.message.as_deref().unwrap_or_default();
    if let Some(line) = message.lines().next() {
        push(&mut start, "message", line);
    }
    push(&mut start, "type", attempt.kind.as_deref().unwrap_or(attempt.outcome.as_str()));
    let end = start.to_end().into_owned();
    xml.write_event(Event::Start(start))?;
    xml.write_event(Event::Text(BytesText::new(&printable(message))))?;
    inner(xml)?;
    xml.write_event(Event::End(end))
}

fn write_output(xml: &mut Writer<impl Write>, attempt: &Attempt) -> io::Result<()> {
    for (name, text) in [("system-out", &attempt.output.stdout), ("system-err", &attempt.output.stderr)] {
        if !text.is_empty() {
            xml.write_event(Event::Start(BytesStart::new(name)))?;
            xml.write_event(Event::Text(BytesText::new(&printable(text))))?;
            xml.write_event(Event::End(BytesEnd::new(name)))?;
        }
    }
    Ok(())
}

fn element(name: &'static str, attributes: &[(&str, &str)]) -> BytesStart<'static> {
    let mut element = BytesStart::new(name);
    attributes.iter().for_each(|(name, value)| push(&mut element, name, value));
    element
}

fn push(element: &mut BytesStart<'_>, name: &str, value: &str) {
    element.push_attribute((name, printable(value).as_str()));
}

fn push_counts(element: &mut BytesStart<'_>, cases: &[&Case]) {
    let count = |is: &dyn Fn(&Case) -> bool| cases.iter().filter(|case| is(case)).count().to_string();
    let is_error = |case: &Case| {
        let last = case.attempts.last();
        last.is_some_and(|last| element_of(last, "failure", "error") == "error" && last.outcome.is_failure())
    };
    let is_failure = |case: &Case| case_verdict(case) == CaseVerdict::Failed && !is_error(case);
    push(element, "tests", &cases.len().to_string());
    push(element, "failures", &count(&is_failure));
    push(element, "errors", &count(&is_error));
    push(element, "skipped", &count(&|case| case_verdict(case) == CaseVerdict::Skipped));
}

fn push_time(element: &mut BytesStart<'_>, started_unix_ms: Option<u64>, time_us: u64) {
    if let Some(started) = started_unix_ms {
        push(element, "timestamp", &rfc3339::format(started));
    }
    push(element, "time", &seconds(time_us));
}

fn seconds(micros: u64) -> String {
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

/// The text without the characters that XML 1.0 cannot hold, not even escaped.
fn printable(text: &str) -> String {
    let allowed = |c: char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..);
    text.chars().filter(|c| allowed(*c)).collect()
}
