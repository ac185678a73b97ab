//! Why there is no lease, or no connection: what happened, what testenv saw, what to do.

use std::error::Error as StdError;
use std::fmt;

use testenv_api::client::ClientError;

/// Any error that can be boxed, as a [`Fixture`](crate::Fixture) returns it.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// Why a fixture could not be had.
///
/// `Display` tells the whole story: one line of what happened, then what testenv saw behind `|`, then a
/// `hint:` of what to do. `Debug` prints the same, because that is what a test shows of an error.
#[non_exhaustive]
pub enum Error {
    /// There is no broker, it does not answer, or it refused and says why.
    Broker(ClientError),
    /// The test asks for something that makes no sense, or an environment variable says so.
    Misused(Story),
    /// A driver could not connect or failed.
    Driver {
        /// What was tried.
        doing: String,
        /// What the driver says.
        source: BoxError,
    },
    /// The set-up of a test's own fixture failed.
    Fixture {
        /// The fixture's type.
        name: &'static str,
        /// What the fixture says.
        source: BoxError,
    },
}

/// An error in three parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Story {
    /// What happened, in one line.
    pub title: String,
    /// What testenv saw. May have many lines, may be empty.
    pub detail: String,
    /// What to do about it. May be empty.
    pub hint: String,
}

impl Story {
    pub(crate) fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), ..Self::default() }
    }

    pub(crate) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.title)?;
        for line in self.detail.lines() {
            write!(f, "\n  | {line}")?;
        }
        if !self.hint.is_empty() {
            write!(f, "\n  hint: {}", self.hint)?;
        }
        Ok(())
    }
}

impl Error {
    pub(crate) fn fixture(name: &'static str, source: BoxError) -> Self {
        // An error of ours keeps its own story instead of being wrapped in another.
        match source.downcast::<Self>() {
            Ok(ours) => *ours,
            Err(source) => Self::Fixture { name, source },
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broker(error) => error.fmt(f),
            Self::Misused(story) => story.fmt(f),
            Self::Driver { doing, source } => {
                write!(f, "{doing} failed")?;
                causes(f, source.as_ref())
            }
            Self::Fixture { name, source } => {
                write!(f, "the set-up of the fixture {name} failed")?;
                causes(f, source.as_ref())
            }
        }
    }
}

/// The error and everything beneath it, a line each.
fn causes(f: &mut fmt::Formatter<'_>, error: &(dyn StdError + 'static)) -> fmt::Result {
    let mut next = Some(error);
    while let Some(error) = next {
        for line in error.to_string().lines() {
            write!(f, "\n  | {line}")?;
        }
        next = error.source();
    }
    Ok(())
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Driver { source, .. } | Self::Fixture { source, .. } => Some(source.as_ref()),
            // Its text is the whole of ours already.
            Self::Broker(_) | Self::Misused(_) => None,
        }
    }
}

impl From<ClientError> for Error {
    fn from(error: ClientError) -> Self {
        Self::Broker(error)
    }
}

#[cfg(feature = "tokio-postgres")]
impl From<tokio_postgres::Error> for Error {
    fn from(source: tokio_postgres::Error) -> Self {
        Self::Driver { doing: "a query over tokio-postgres".to_owned(), source: source.into() }
    }
}

#[cfg(feature = "sqlx")]
impl From<sqlx::Error> for Error {
    fn from(source: sqlx::Error) -> Self {
        Self::Driver { doing: "a query over sqlx".to_owned(), source: source.into() }
    }
}

#[cfg(feature = "redis")]
impl From<redis::RedisError> for Error {
    fn from(source: redis::RedisError) -> Self {
        Self::Driver { doing: "a command to Redis".to_owned(), source: source.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_tells_the_same_story_as_display() {
        let story = Story::new("no broker").detail("looked at /a\nlooked at /b").hint("start one");
        let error = Error::Misused(story);
        assert_eq!(error.to_string(), "no broker\n  | looked at /a\n  | looked at /b\n  hint: start one");
        assert_eq!(format!("{error:?}"), error.to_string());
    }

    #[test]
    fn a_driver_error_shows_its_causes() {
        let source: BoxError = std::io::Error::other("refused").into();
        let error = Error::Driver { doing: "connecting to PostgreSQL".to_owned(), source };
        assert_eq!(error.to_string(), "connecting to PostgreSQL failed\n  | refused");
    }

    #[test]
    fn an_error_of_ours_is_not_wrapped_again() {
        let ours: BoxError = Error::Misused(Story::new("no")).into();
        assert_eq!(Error::fixture("App", ours).to_string(), "no");
        let other: BoxError = "port taken".into();
        assert_eq!(
            Error::fixture("App", other).to_string(),
            "the set-up of the fixture App failed\n  | port taken"
        );
    }
}
