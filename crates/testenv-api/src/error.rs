//! RFC 9457 problem documents: what happened, what the broker saw, what to do.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What kind of problem it is; the last part of the document's `type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ProblemKind {
    /// The request itself is wrong. Status 400.
    BadRequest,
    /// No such role, lease or path. Status 404.
    NotFound,
    /// Client and broker speak different versions of the protocol. Status 426.
    ProtocolMismatch,
    /// `testenv.toml` cannot be used. Status 422.
    InvalidConfig,
    /// No usable build of the engine on this machine. Status 424.
    EngineMissing,
    /// A migration or seed failed or ran out of time. Status 424.
    PrepareFailed,
    /// A server did not start. Status 503.
    StartFailed,
    /// The machine lacks something: disk, memory, permission. Status 507.
    Resources,
    /// The wait for a free place ran out. Status 503.
    TimedOut,
    /// The broker is going away. Status 503.
    ShuttingDown,
    /// A defect in testenv. Status 500.
    Internal,
    /// This version of testenv cannot do it. Status 501.
    Unsupported,
}

impl ProblemKind {
    /// HTTP status of the problem.
    pub const fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::NotFound => 404,
            Self::InvalidConfig => 422,
            Self::EngineMissing | Self::PrepareFailed => 424,
            Self::ProtocolMismatch => 426,
            Self::Internal => 500,
            Self::Unsupported => 501,
            Self::StartFailed | Self::TimedOut | Self::ShuttingDown => 503,
            Self::Resources => 507,
        }
    }
}

/// Body of every answer that is not a success (`application/problem+json`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// The kind of problem.
    #[serde(rename = "type")]
    pub kind: ProblemKind,
    /// HTTP status, repeated here as RFC 9457 asks.
    pub status: u16,
    /// What happened, in one line.
    pub title: String,
    /// What testenv saw: the error beneath, the last lines of a log. May have many lines, may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// What to do about it. May be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hint: String,
}

impl Problem {
    /// A problem with a title only.
    pub fn new(kind: ProblemKind, title: impl Into<String>) -> Self {
        Self { kind, status: kind.status(), title: title.into(), detail: String::new(), hint: String::new() }
    }

    /// Adds what testenv saw.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }
}

impl fmt::Display for Problem {
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

impl std::error::Error for Problem {}
