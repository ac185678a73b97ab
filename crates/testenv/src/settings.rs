//! The environment variables that the harness reads, apart from those that lead to the broker.
//!
//! All of them belong to testenv or to cargo-nextest; nothing else of the environment changes what a test gets.

use std::env::VarError;
use std::time::Duration;

use testenv_api::KeepPolicy;
use testenv_api::discovery::env;

use crate::error::{Error, Story};

/// Which attempt of which test this process is, by cargo-nextest.
const NEXTEST_ATTEMPT_ID: &str = "NEXTEST_ATTEMPT_ID";
/// Name of the test that this process runs, by cargo-nextest.
const NEXTEST_TEST_NAME: &str = "NEXTEST_TEST_NAME";

/// `TESTENV_KEEP`: when the data behind a lease outlives it.
pub(crate) fn keep() -> Result<Option<KeepPolicy>, Error> {
    text(env::KEEP)?.map(|value| parse_keep(&value)).transpose()
}

/// `TESTENV_WAIT_MS`: how long to wait for a lease.
pub(crate) fn wait() -> Result<Option<Duration>, Error> {
    text(env::WAIT_MS)?.map(|value| parse_wait(&value)).transpose()
}

/// `TESTENV_SEED`: what is random in faults.
pub(crate) fn seed() -> Result<Option<u64>, Error> {
    text(env::SEED)?.map(|value| parse_seed(&value)).transpose()
}

/// The attempt's name, for the record.
pub(crate) fn attempt() -> Option<String> {
    std::env::var(NEXTEST_ATTEMPT_ID).ok()
}

/// The test's name where the macro has not said it: libtest names a test's thread after the test.
pub(crate) fn test_name() -> Option<String> {
    std::env::var(NEXTEST_TEST_NAME)
        .ok()
        .or_else(|| std::thread::current().name().filter(|name| *name != "main").map(str::to_owned))
}

fn text(name: &str) -> Result<Option<String>, Error> {
    match std::env::var(name) {
        Ok(value) => Ok(Some(value).filter(|value| !value.is_empty())),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(value)) => {
            Err(Error::Misused(Story::new(format!("{name} is not text")).detail(format!("{value:?}"))))
        }
    }
}

fn parse_keep(value: &str) -> Result<KeepPolicy, Error> {
    Ok(match value {
        "failed" => KeepPolicy::Failed,
        "unless-passed" => KeepPolicy::UnlessPassed,
        "always" => KeepPolicy::Always,
        "never" => KeepPolicy::Never,
        other => {
            return Err(Error::Misused(
                Story::new(format!("{} is {other:?}, which is no policy", env::KEEP))
                    .hint("set it to `failed`, `unless-passed`, `always` or `never`, or unset it"),
            ));
        }
    })
}

fn parse_wait(value: &str) -> Result<Duration, Error> {
    match value.parse() {
        Ok(millis @ 1..) => Ok(Duration::from_millis(millis)),
        _ => Err(Error::Misused(
            Story::new(format!("{} is {value:?}, which is no number of milliseconds", env::WAIT_MS))
                .hint("set it to a whole number from 1, such as `30000`, or unset it"),
        )),
    }
}

fn parse_seed(value: &str) -> Result<u64, Error> {
    value.parse().map_err(|_| {
        Error::Misused(
            Story::new(format!("{} is {value:?}, which is no seed", env::SEED))
                .hint("set it to a whole number, such as `42`, or unset it"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_have_their_names() {
        for policy in [KeepPolicy::Failed, KeepPolicy::UnlessPassed, KeepPolicy::Always, KeepPolicy::Never] {
            let name = format!("{policy:?}").replace("UnlessPassed", "unless-passed").to_lowercase();
            assert_eq!(parse_keep(&name).unwrap(), policy);
        }
        assert!(parse_keep("sometimes").unwrap_err().to_string().contains("hint: set it to `failed`"));
    }

    #[test]
    fn a_seed_is_a_whole_number() {
        assert_eq!(parse_seed("18446744073709551615").unwrap(), u64::MAX);
        for value in ["-1", "1e3", "today"] {
            assert!(parse_seed(value).unwrap_err().to_string().contains("is no seed"), "{value}");
        }
    }

    #[test]
    fn a_wait_is_a_whole_number_of_milliseconds() {
        assert_eq!(parse_wait("250").unwrap(), Duration::from_millis(250));
        for value in ["0", "-1", "1s", "", "1.5"] {
            assert!(
                parse_wait(value).unwrap_err().to_string().contains("no number of milliseconds"),
                "{value}"
            );
        }
    }
}
