//! Reading what cargo-nextest writes.

use std::io::BufRead;

use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, XmlVersion};
use testenv_model::{Attempt, Case, CaseId, Outcome, Output, Phases, Run};

use super::{FLAKY_FAILURE, SETUP_SCRIPT_PREFIX};
use crate::excerpt::Excerpt;
use crate::rfc3339;

/// Size of a report at the most, in bytes.
const INPUT_LIMIT_BYTES: u64 = 1 << 30;

/// Why a report cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum JunitError {
    /// It is not XML, or ends in the middle.
    #[error("it is not well-formed XML at byte {at}")]
    Malformed {
        /// How far it could be read.
        at: u64,
        /// What is wrong there.
        source: quick_xml::Error,
    },
    /// It is XML, but of another kind.
    #[error("it holds no <testsuites> and no <testsuite>")]
    NoSuites,
    /// It ends before its elements do.
    #[error("it ends in the middle of <{element}>")]
    Truncated {
        /// The element that has no end.
        element: &'static str,
    },
    /// A test has no name.
    #[error("a <testcase> of suite {suite:?} has no name")]
    Unnamed {
        /// The suite.
        suite: String,
    },
}

/// Reads a report of cargo-nextest. Set-up scripts, which it reports like tests, are left out, and the plan is
/// unknown: a report holds only what ran.
///
/// The time of a failed case is that of its *first* attempt, and that of a flaky one the time of the attempt
/// that passed; the other attempts carry their own. So here every attempt has its own time.
///
/// # Errors
/// [`JunitError`].
pub fn read(input: impl BufRead) -> Result<Run, JunitError> {
    let mut xml = Reader::from_reader(input.take(INPUT_LIMIT_BYTES));
    let mut reading = Reading::default();
    let mut buffer = Vec::new();
    loop {
        buffer.clear();
        let event = xml.read_event_into(&mut buffer);
        let event = event.map_err(|source| JunitError::Malformed { at: xml.error_position(), source })?;
        match event {
            Event::Start(element) => reading.start(&element)?,
            Event::Empty(element) => {
                reading.start(&element)?;
                reading.end(element.name().as_ref());
            }
            Event::End(element) => reading.end(element.name().as_ref()),
            Event::Text(text) => reading.text(&text.xml10_content()),
            Event::CData(text) => reading.text(&text.xml10_content()),
            Event::GeneralRef(reference) => match reference.resolve_char_ref() {
                Ok(Some(character)) => reading.text(character.encode_utf8(&mut [0; 4])),
                _ => {
                    let name = reference.xml10_content();
                    match quick_xml::escape::resolve_predefined_entity(&name) {
                        Some(text) => reading.text(text),
                        // Entities of a DTD are never expanded.
                        None => reading.text(&format!("&{name};")),
                    }
                }
            },
            Event::Eof => return reading.finish(),
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
        }
    }
}

/// Where the text goes that comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Target {
    #[default]
    Nowhere,
    Message,
    Stdout,
    Stderr,
}

/// An attempt as far as it has been read.
#[derive(Debug, Default)]
struct Draft {
    attempt: Attempt,
    short_message: Option<String>,
    message: Excerpt,
    stdout: Excerpt,
    stderr: Excerpt,
}

impl Draft {
    fn new(element: &BytesStart<'_>) -> Self {
        let time_us = attribute(element, "time").map_or(0, |text| parse_seconds(&text));
        let attempt = Attempt {
            started_unix_ms: attribute(element, "timestamp").and_then(|text| rfc3339::parse(&text)),
            phases: Phases::split(time_us, 0),
            ..Attempt::default()
        };
        Self { attempt, ..Self::default() }
    }

    fn failed(&mut self, element: &BytesStart<'_>) {
        self.short_message = attribute(element, "message");
        self.attempt.kind = attribute(element, "type");
        self.attempt.outcome = outcome_of(self.attempt.kind.as_deref().unwrap_or_default());
    }

    fn finish(self) -> Attempt {
        let message = Some(self.message.finish().trim().to_owned()).filter(|text| !text.is_empty());
        Attempt {
            message: message.or(self.short_message),
            output: Output { stdout: self.stdout.finish(), stderr: self.stderr.finish() },
            ..self.attempt
        }
    }
}

/// How nextest's words for the end of a test translate.
fn outcome_of(kind: &str) -> Outcome {
    if kind.ends_with("timeout") {
        Outcome::TimedOut
    } else if kind.contains(" abort") {
        Outcome::Aborted
    } else if kind.ends_with("leaked handles so was marked failed") {
        Outcome::Leaked
    } else if kind == "execution failure" {
        Outcome::NotStarted
    } else {
        Outcome::Failed
    }
}

#[derive(Debug)]
struct CaseDraft {
    name: String,
    main: Draft,
    /// The attempts other than the main one, in order.
    others: Vec<Draft>,
    /// Whether the last of `others` is still open.
    in_other: bool,
    /// Whether the others came before the main attempt.
    flaky: bool,
}

impl CaseDraft {
    fn open(&mut self) -> &mut Draft {
        match self.others.last_mut() {
            Some(other) if self.in_other => other,
            _ => &mut self.main,
        }
    }

    fn finish(mut self, suite: &str) -> Case {
        let flaky_fails = self.flaky && self.main.attempt.kind.as_deref() == Some(FLAKY_FAILURE);
        if flaky_fails {
            // That "failure" is the policy's; the attempt itself passed.
            self.main.attempt = Attempt { outcome: Outcome::Passed, kind: None, ..self.main.attempt };
            (self.main.message, self.main.short_message) = (Excerpt::default(), None);
        }
        let main = self.main.finish();
        let mut attempts: Vec<Attempt> = self.others.into_iter().map(Draft::finish).collect();
        let at = if main.outcome.is_failure() { 0 } else { attempts.len() };
        attempts.insert(at, main);
        Case { id: CaseId::new(suite, self.name), attempts, flaky_fails }
    }
}

#[derive(Debug, Default)]
struct Reading {
    run: Run,
    seen_suites: bool,
    /// Names of the suites that are open, innermost last.
    suites: Vec<String>,
    case: Option<CaseDraft>,
    target: Target,
}

impl Reading {
    fn start(&mut self, element: &BytesStart<'_>) -> Result<(), JunitError> {
        let name = element.name();
        match (name.as_ref(), &mut self.case) {
            ("testsuites", _) => {
                self.seen_suites = true;
                self.run.id = attribute(element, "uuid").unwrap_or_default();
                self.run.wall_us = attribute(element, "time").map_or(0, |text| parse_seconds(&text));
                self.run.started_unix_ms =
                    attribute(element, "timestamp").and_then(|text| rfc3339::parse(&text));
            }
            ("testsuite", _) => {
                self.seen_suites = true;
                self.suites.push(attribute(element, "name").unwrap_or_default());
            }
            ("testcase", _) => {
                let suite = self.suites.last().cloned().unwrap_or_default();
                let name = attribute(element, "name").ok_or(JunitError::Unnamed { suite })?;
                let main = Draft::new(element);
                self.case = Some(CaseDraft { name, main, others: Vec::new(), in_other: false, flaky: false });
            }
            ("failure" | "error", Some(case)) => {
                case.main.failed(element);
                self.target = Target::Message;
            }
            ("skipped", Some(case)) => {
                case.main.attempt.outcome = Outcome::Skipped;
                case.main.short_message = attribute(element, "message");
                self.target = Target::Message;
            }
            (kind @ ("flakyFailure" | "flakyError" | "rerunFailure" | "rerunError"), Some(case)) => {
                case.flaky |= kind.starts_with("flaky");
                let mut other = Draft::new(element);
                other.failed(element);
                case.others.push(other);
                case.in_other = true;
                self.target = Target::Message;
            }
            ("system-out", Some(_)) => self.target = Target::Stdout,
            ("system-err", Some(_)) => self.target = Target::Stderr,
            _ => {}
        }
        Ok(())
    }

    fn text(&mut self, text: &str) {
        let Some(case) = &mut self.case else { return };
        match self.target {
            Target::Nowhere => {}
            Target::Message => case.open().message.push(text),
            Target::Stdout => case.open().stdout.push(text),
            Target::Stderr => case.open().stderr.push(text),
        }
    }

    fn end(&mut self, name: &str) {
        match name {
            "testsuite" => drop(self.suites.pop()),
            "testcase" => {
                let suite = self.suites.last().map_or("", String::as_str);
                if let Some(case) = self.case.take().filter(|_| !suite.starts_with(SETUP_SCRIPT_PREFIX)) {
                    self.run.cases.push(case.finish(suite));
                }
            }
            "flakyFailure" | "flakyError" | "rerunFailure" | "rerunError" => {
                if let Some(case) = &mut self.case {
                    case.in_other = false;
                }
            }
            _ => {}
        }
        self.target = Target::Nowhere;
    }

    fn finish(self) -> Result<Run, JunitError> {
        if self.case.is_some() {
            return Err(JunitError::Truncated { element: "testcase" });
        }
        if !self.suites.is_empty() {
            return Err(JunitError::Truncated { element: "testsuite" });
        }
        if self.seen_suites { Ok(self.run) } else { Err(JunitError::NoSuites) }
    }
}

/// The value of an attribute; unknown entities in it stay as they are.
fn attribute(element: &BytesStart<'_>, name: &str) -> Option<String> {
    let found = element.html_attributes().flatten().find(|attribute| attribute.key.as_ref() == name)?;
    let value = found.normalized_value(XmlVersion::Implicit1_0);
    Some(value.map_or_else(|_| found.value.to_string(), |text| text.into_owned()))
}

/// Microseconds of a time in seconds as the producers of JUnit XML write it: `0.004`, `2,120.532`, `0,532`.
fn parse_seconds(text: &str) -> u64 {
    let text = text.trim();
    let plain = if text.contains('.') { text.replace(',', "") } else { text.replace(',', ".") };
    // A float cannot overflow the cast: it saturates, and what is not a number becomes 0.
    plain.parse::<f64>().map_or(0, |seconds| (seconds * 1e6).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_of_every_producer() {
        for (text, micros) in [
            ("0.004", 4000),
            ("1.002", 1_002_000),
            ("2,120.532", 2_120_532_000),
            ("0,532", 532_000),
            (" 3 ", 3_000_000),
            ("-1", 0),
            ("NaN", 0),
            ("", 0),
            ("1e300", u64::MAX),
        ] {
            assert_eq!(parse_seconds(text), micros, "{text}");
        }
    }
}
