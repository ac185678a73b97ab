//! Driving cargo-nextest.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::BufReader;
use std::process::{Command, Stdio};
use std::time::SystemTime;

use testenv_api::discovery::{Workspace, env};
use testenv_model::Run;
use testenv_report::junit;

use super::args::NextestArgs;
use super::files::Files;
use super::plan::{self, Listed};
use super::{LeasePlan, Options, RunError, report_path, runners};
use crate::child::run_forwarding;
use crate::{Leases, exit_code_of, exit_codes, wrap};

/// Exit code of cargo for an unknown command, and of nextest for a failed build.
const CARGO_WITHOUT_NEXTEST: i32 = 101;

/// Cargo-nextest with the arguments of one run.
#[derive(Debug)]
pub(super) struct Nextest<'a> {
    workspace: &'a Workspace,
    options: &'a Options,
    pub(super) args: NextestArgs,
}

impl<'a> Nextest<'a> {
    pub(super) fn new(workspace: &'a Workspace, options: &'a Options) -> Self {
        Self { workspace, options, args: NextestArgs::new(&options.nextest_args) }
    }

    /// Builds the tests and lists them. What cargo says about the build goes to the terminal.
    pub(super) fn list(&self) -> Result<Listed, RunError> {
        let mut command = self.command("list");
        command.args(["--message-format", "json"]).args(self.args.for_list()).stdout(Stdio::piped());
        let child = command.spawn().map_err(RunError::Spawn)?;
        let output = child.wait_with_output().map_err(RunError::Spawn)?;
        match exit_code_of(output.status) {
            exit_codes::OK => plan::parse(&output.stdout).map_err(RunError::List),
            CARGO_WITHOUT_NEXTEST if !self.is_installed() => Err(RunError::NoNextest),
            code => Err(RunError::Nextest { step: "list", code }),
        }
    }

    /// Runs the tests, with the terminal for itself. Answers with its exit code and when it started.
    pub(super) fn run(
        &self,
        files: &Files,
        triples: &BTreeSet<String>,
        shared: Option<&Leases>,
    ) -> Result<(i32, SystemTime), RunError> {
        let mut command = self.command("run");
        command.arg("--tool-config-file").arg(format!("testenv:{}", files.tool_config.display()));
        if let LeasePlan::PerTest(requests) = &self.options.leases {
            let json = serde_json::to_string(requests).map_err(RunError::List)?;
            command.env(wrap::LEASES_VAR, json);
            for triple in triples {
                runners::set(&mut command, triple, &self.options.wrapper, self.inner_runner(triple));
            }
        }
        command
            .args(self.args.for_run())
            .env(env::WORKSPACE, self.workspace.root())
            .env(env::BIN, &self.options.testenv)
            .envs(shared.iter().flat_map(|leases| leases.env()));
        let started = SystemTime::now();
        let end = run_forwarding(&mut command).map_err(RunError::Spawn)?;
        Ok((exit_code_of(end.status), started))
    }

    /// Reads the report that nextest has written since `started`.
    pub(super) fn read_report(&self, files: &Files, started: SystemTime, code: i32) -> Result<Run, RunError> {
        let fresh = |path: &std::path::Path| {
            let modified = path.metadata().and_then(|meta| meta.modified());
            // File systems may keep coarser times than the clock.
            modified.is_ok_and(|time| time + std::time::Duration::from_secs(2) >= started)
        };
        let mut path = files.nextest_report.clone();
        if !fresh(&path) {
            let profile = self.args.value_of(&["-P", "--profile"]).or(self.options.profile.as_deref());
            let of_project =
                report_path::of_project(&self.options.cargo, &self.args, profile.unwrap_or("default"));
            match of_project {
                Ok(Some(of_project)) if fresh(&of_project) => path = of_project,
                // Whatever went wrong went wrong before the first test, and nextest has said what.
                _ if code != exit_codes::OK => return Err(RunError::Nextest { step: "run", code }),
                Ok(of_project) => {
                    let both = [Some(path), of_project].into_iter().flatten();
                    let both: Vec<_> = both.map(|path| path.display().to_string()).collect();
                    return Err(RunError::NoReport { looked_for: both.join(" and ") });
                }
                Err(source) => {
                    let path = self.workspace.root().join(".config/nextest.toml");
                    return Err(RunError::File { action: "read", path, source });
                }
            }
        }
        let file = File::open(&path).map(BufReader::new);
        let file = file.map_err(|source| RunError::File { action: "read", path: path.clone(), source })?;
        junit::read(file).map_err(|source| RunError::BadReport { path, source })
    }

    fn command(&self, step: &str) -> Command {
        let mut command = Command::new(&self.options.cargo);
        command.args(["nextest", step]);
        if let (Some(profile), None) = (&self.options.profile, self.args.value_of(&["-P", "--profile"])) {
            command.args(["--profile", profile]);
        }
        command
    }

    /// What runs the binaries for `triple` without testenv.
    fn inner_runner(&self, triple: &str) -> Vec<String> {
        match (self.options.environment)(&runners::variable(triple)) {
            Some(line) => line.to_string_lossy().split_whitespace().map(str::to_owned).collect(),
            None => runners::of_cargo_config(self.workspace.root(), triple),
        }
    }

    fn is_installed(&self) -> bool {
        let mut command = Command::new(&self.options.cargo);
        let output = command.args([OsStr::new("nextest"), OsStr::new("--version")]).output();
        output.is_ok_and(|output| output.status.success())
    }
}
