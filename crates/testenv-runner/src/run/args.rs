//! Arguments of `cargo nextest run`, as far as testenv has to understand them.

use std::ffi::{OsStr, OsString};

/// Options of `nextest run` that `nextest list` does not have, and that take a value.
const RUN_ONLY_WITH_VALUE: [&str; 19] = [
    "--debugger",
    "--failure-output",
    "--final-status-level",
    "--flaky-result",
    "--jobs",
    "--max-fail",
    "--max-progress-running",
    "--message-format",
    "--message-format-version",
    "--no-tests",
    "--rerun",
    "--retries",
    "--run-id",
    "--show-progress",
    "--status-level",
    "--stress-count",
    "--stress-duration",
    "--success-output",
    "--test-threads",
];

/// The same, with a single letter.
const RUN_ONLY_SHORT_WITH_VALUE: [char; 2] = ['j', 'R'];

/// Options of `nextest run` that `nextest list` does not have, without a value.
const RUN_ONLY_FLAGS: [&str; 10] = [
    "--fail-fast",
    "--ff",
    "--hide-progress-bar",
    "--nff",
    "--no-capture",
    "--no-fail-fast",
    "--no-input-handler",
    "--no-output-indent",
    "--no-run",
    "--nocapture",
];

/// What the user wrote after `testenv run --`.
#[derive(Clone, Debug, Default)]
pub(super) struct NextestArgs(Vec<OsString>);

impl NextestArgs {
    pub(super) fn new(args: &[OsString]) -> Self {
        Self(args.to_vec())
    }

    /// All of them, for `nextest run`.
    pub(super) fn for_run(&self) -> &[OsString] {
        &self.0
    }

    /// Those that select tests, for `nextest list`.
    pub(super) fn for_list(&self) -> Vec<&OsStr> {
        let mut kept = Vec::new();
        let mut args = self.0.iter().map(OsString::as_os_str);
        while let Some(arg) = args.next() {
            let text = arg.to_string_lossy();
            if text == "--" {
                kept.push(arg);
                kept.extend(args);
                break;
            }
            let name = text.split_once('=').map_or(&*text, |(name, _)| name);
            let short = text
                .strip_prefix('-')
                .filter(|rest| !rest.starts_with('-'))
                .and_then(|rest| rest.chars().next());
            if RUN_ONLY_WITH_VALUE.contains(&name) {
                if name == text {
                    args.next();
                }
            } else if short.is_some_and(|letter| RUN_ONLY_SHORT_WITH_VALUE.contains(&letter)) {
                if text.len() == 2 {
                    args.next();
                }
            } else if !RUN_ONLY_FLAGS.contains(&&*text) {
                kept.push(arg);
            }
        }
        kept
    }

    /// Whether one of these options is there, such as `--no-run` or `--rerun`.
    pub(super) fn option(&self, names: &[&str]) -> Option<&str> {
        let given = self.before_dashes().find(|arg| {
            names.iter().any(|name| {
                arg.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
            })
        })?;
        Some(given.split_once('=').map_or(given, |(name, _)| name))
    }

    /// The value of an option: `--name value` or `--name=value`; the last one counts.
    pub(super) fn value_of(&self, names: &[&str]) -> Option<&str> {
        let mut value = None;
        let mut args = self.before_dashes().peekable();
        while let Some(arg) = args.next() {
            for name in names {
                match arg.strip_prefix(name) {
                    Some("") => value = args.peek().copied().or(value),
                    Some(rest) if rest.starts_with('=') => value = Some(&rest[1..]),
                    Some(rest) if name.len() == 2 => value = Some(rest),
                    _ => {}
                }
            }
        }
        value
    }

    fn before_dashes(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|arg| arg.to_str()).take_while(|arg| *arg != "--")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(text: &str) -> NextestArgs {
        NextestArgs(text.split_whitespace().map(OsString::from).collect())
    }

    fn check_list(given: &str, expected: &str) {
        let args = args(given);
        let kept = args.for_list();
        assert_eq!(kept.join(OsStr::new(" ")), OsString::from(expected), "{given}");
    }

    #[test]
    fn list_gets_what_selects_and_nothing_else() {
        check_list("", "");
        check_list("-p a --retries 2 -E test(x) name", "-p a -E test(x) name");
        check_list("-j4 -j 4 --test-threads=4 --nff -P ci --release", "-P ci --release");
        check_list("--status-level fail --no-capture --workspace", "--workspace");
        check_list("-- --skip x --no-capture -j", "-- --skip x --no-capture -j");
        check_list("--no-run -Rlatest -R latest --run-ignored all", "--run-ignored all");
        check_list("--jobsx --retriesy 3", "--jobsx --retriesy 3");
    }

    #[test]
    fn options_are_seen_up_to_the_dashes() {
        let given = args("-Pci --config-file=a --profile b --stress-count=3 -- --no-run");
        assert_eq!(given.value_of(&["-P", "--profile"]), Some("b"));
        assert_eq!(given.value_of(&["--config-file"]), Some("a"));
        assert_eq!(given.option(&["--no-run"]), None);
        assert_eq!(given.option(&["--stress-count"]), Some("--stress-count"));
        assert_eq!(args("-Pci").value_of(&["-P", "--profile"]), Some("ci"));
        assert_eq!(args("").value_of(&["-P"]), None);
    }
}
