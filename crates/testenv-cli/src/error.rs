//! Errors as people see them: `error: …`, `  | what was seen`, `  hint: what to do`.

use std::fmt::Display;
use std::process::ExitCode;

use testenv_api::client::ClientError;
use testenv_api::{Problem, ProblemKind};
use testenv_config::ConfigError;
use testenv_runner::exec::ExecError;
use testenv_runner::run::RunError;
use testenv_runner::{LeaseError, exit_codes};

/// An error with its exit code.
#[derive(Debug)]
pub(crate) struct CliError {
    text: String,
    code: i32,
}

impl CliError {
    pub(crate) fn new(code: i32, text: impl Display) -> Self {
        Self { text: text.to_string(), code }
    }

    /// Prints it.
    pub(crate) fn report(&self) -> ExitCode {
        eprintln!("error: {}", self.text.trim_end());
        ExitCode::from(u8::try_from(self.code).unwrap_or(1))
    }
}

fn code_of_client(error: &ClientError) -> i32 {
    match error {
        ClientError::Problem(Problem { kind: ProblemKind::InvalidConfig, .. }) => exit_codes::BAD_CONFIG,
        ClientError::Problem(Problem { kind: ProblemKind::ProtocolMismatch, .. }) => exit_codes::NO_BROKER,
        ClientError::Problem(_) => exit_codes::NO_LEASE,
        ClientError::NotListening { .. } | ClientError::Lost { .. } | ClientError::Start { .. } => {
            exit_codes::NO_BROKER
        }
    }
}

fn code_of_lease(error: &LeaseError) -> i32 {
    match error {
        LeaseError::Refused { source, .. } => code_of_client(source),
        LeaseError::Clash { .. } => exit_codes::NO_LEASE,
    }
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> Self {
        Self::new(code_of_client(&error), error)
    }
}

impl From<ExecError> for CliError {
    fn from(error: ExecError) -> Self {
        let code = match &error {
            ExecError::Lease(error) => code_of_lease(error),
            ExecError::Spawn { .. } => error.spawn_code().unwrap_or(exit_codes::FAILED),
        };
        Self::new(code, error)
    }
}

impl From<RunError> for CliError {
    fn from(error: RunError) -> Self {
        let code = match &error {
            RunError::Lease(error) => code_of_lease(error),
            other => other.exit_code(),
        };
        Self::new(code, error)
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        let mut text = error.to_string();
        // TOML's own words span several lines and point into the file.
        if let Some((title, rest)) = text.clone().split_once('\n') {
            text = title.to_owned();
            rest.lines().for_each(|line| text.push_str(&format!("\n  | {line}")));
        }
        Self::new(exit_codes::BAD_CONFIG, text)
    }
}
