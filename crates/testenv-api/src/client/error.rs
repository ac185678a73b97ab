//! What can go wrong between a client and its broker.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::discovery::env;
use crate::{Problem, ProblemKind};

/// Why the broker could not be asked, or did not do what it was asked for.
///
/// Its text has the shape of every message of testenv: what happened, then lines that start with `|` and show
/// what was seen, then a hint.
#[derive(Debug)]
pub enum ClientError {
    /// Nothing listens on the socket.
    NotListening {
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The connection broke, ran out of time, or carried something that is not an answer.
    Lost {
        /// What was asked, such as `GET /v1/status`.
        operation: String,
        /// The broker's socket.
        socket: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// The broker refused, and says why.
    Problem(Problem),
    /// No broker ran and none could be started.
    Start {
        /// What happened.
        title: String,
        /// What the program said, if it ran.
        detail: String,
        /// What to do.
        hint: String,
    },
}

impl ClientError {
    /// Whether the broker went away, so that asking a new one is worth it.
    pub fn broker_is_gone(&self) -> bool {
        use io::ErrorKind as Kind;
        match self {
            Self::NotListening { source, .. } => {
                matches!(source.kind(), Kind::NotFound | Kind::ConnectionRefused)
            }
            Self::Lost { source, .. } => {
                matches!(source.kind(), Kind::UnexpectedEof | Kind::ConnectionReset | Kind::BrokenPipe)
            }
            Self::Problem(problem) => problem.kind == ProblemKind::ShuttingDown,
            Self::Start { .. } => false,
        }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotListening { socket, source } => {
                let title = format!("no broker listens on {}", socket.display());
                let hint = match source.kind() {
                    io::ErrorKind::PermissionDenied => {
                        format!(
                            "it belongs to another user; set {} to a directory of your own",
                            env::RUNTIME_DIR
                        )
                    }
                    io::ErrorKind::InvalidInput => {
                        format!("its path is too long for a socket; set {} to a short one", env::RUNTIME_DIR)
                    }
                    _ => String::new(),
                };
                Problem::new(ProblemKind::Internal, title).detail(source.to_string()).hint(hint).fmt(f)
            }
            Self::Lost { operation, socket, source } => {
                let title = match source.kind() {
                    io::ErrorKind::TimedOut => format!("the broker did not answer {operation} in time"),
                    _ => format!("the broker did not answer {operation}"),
                };
                Problem::new(ProblemKind::Internal, title)
                    .detail(format!("{source} (socket {})", socket.display()))
                    .hint("`testenv status` shows whether it still runs; `testenv down` ends one that hangs")
                    .fmt(f)
            }
            Self::Problem(problem) => problem.fmt(f),
            Self::Start { title, detail, hint } => {
                Problem::new(ProblemKind::Internal, title).detail(detail).hint(hint).fmt(f)
            }
        }
    }
}

impl std::error::Error for ClientError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NotListening { source, .. } | Self::Lost { source, .. } => Some(source),
            Self::Problem(_) | Self::Start { .. } => None,
        }
    }
}
