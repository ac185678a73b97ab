//! The way from nothing to a prepared server, as stages, each with the key of the state after it.

use std::fs;
use std::path::{Path, PathBuf};

use testenv_api::{Problem, ProblemKind};
use testenv_config::{PrepareStep, PrepareTable};

use super::FORMAT;
use crate::engine::EngineBuild;
use crate::inputs::{self, KeyHash};
use crate::machine::Machine;
use crate::service::Spec;
use crate::{Result, io_problem};

/// Largest file of a migration or seed read into memory, in bytes.
const MAX_FILE: u64 = 512 << 20;

/// What happens in a stage.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// Create users, databases, extensions.
    SetUp,
    /// Apply a file.
    File {
        /// Path as people know it, relative to the workspace.
        name: String,
        /// What it held when the key was made: it may hold something else by now.
        content: Vec<u8>,
    },
    /// Run a command.
    Command(PrepareTable),
}

/// One stage.
#[derive(Clone, Debug)]
pub(crate) struct Stage {
    pub(crate) action: Action,
    /// Key of the state after it.
    pub(crate) key: String,
}

/// All stages of a role, in order, after `init`.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Key of the state after `init`, before the first stage.
    pub(crate) base_key: String,
    pub(crate) stages: Vec<Stage>,
}

impl Plan {
    /// Reads everything that makes the role's snapshot.
    ///
    /// # Errors
    /// When a file or directory that the configuration names cannot be read.
    pub fn read(spec: &Spec, machine: &Machine) -> Result<Self> {
        let config = &spec.config;
        let uid = machine.user.as_ref().map_or_else(|| rustix::process::geteuid().as_raw(), |user| user.uid);
        let optional = |value: &Option<String>| {
            value.clone().map_or_else(|| "-".to_owned(), |value| format!("={value}"))
        };
        let hash = KeyHash::default()
            .with(FORMAT.to_le_bytes())
            .with(spec.kind.as_str())
            .with(&spec.build.engine.sha256)
            .with(interpreter_key(&spec.build))
            .with(uid.to_le_bytes())
            .with(optional(&config.encoding))
            .with(optional(&config.locale));
        let base_key = hash.key();
        let mut hash = hash.with(config.database()).with(config.user()).with(optional(&config.password));
        for bucket in config.buckets() {
            hash = hash.with("bucket").with(bucket);
        }
        for extension in &config.extensions {
            hash = hash.with("extension").with(extension);
        }
        for (name, text) in spec.driver.config_files(spec, "") {
            hash = hash.with(name).with(text);
        }
        hash = hash.with(spec.driver.describe(spec));
        for part in spec.driver.parts(spec) {
            for path in inputs::list(&part, &[])? {
                hash = hash.with(relative(&spec.root, &path)).with(read(&path)?);
            }
        }
        let mut stages = vec![Stage { action: Action::SetUp, key: hash.key() }];
        for step in config.steps() {
            match step {
                PrepareStep::Files(path) => {
                    let full = spec.root.join(path);
                    let files = inputs::list(&full, spec.driver.file_endings())?;
                    if files.is_empty() {
                        return Err(no_files(spec, path));
                    }
                    for path in files {
                        let name = relative(&spec.root, &path);
                        let content = read(&path)?;
                        hash = hash.with("file").with(&name).with(&content);
                        stages.push(Stage { action: Action::File { name, content }, key: hash.key() });
                    }
                }
                PrepareStep::Command(table) => {
                    hash = hash.with("command").with(&table.command);
                    for input in &table.inputs {
                        for path in inputs::list(&spec.root.join(input), &[])? {
                            hash = hash.with(relative(&spec.root, &path)).with(read(&path)?);
                        }
                    }
                    stages.push(Stage { action: Action::Command(table.clone()), key: hash.key() });
                }
            }
        }
        Ok(Self { base_key, stages })
    }

    /// The stages that migrate and seed, after users and databases are there.
    pub(crate) fn steps(&self) -> &[Stage] {
        &self.stages[1..]
    }

    /// Whether a step reads files by itself, so that what it reads may be newer than the key.
    pub(crate) fn has_commands(&self) -> bool {
        self.stages.iter().any(|stage| matches!(stage.action, Action::Command(_)))
    }

    /// Key of the state after the last stage.
    pub fn key(&self) -> &str {
        self.stages.last().map_or(&self.base_key, |stage| &stage.key)
    }
}

/// Files and directories on which the role's snapshot depends.
pub fn watched_paths(spec: &Spec) -> Vec<PathBuf> {
    let steps = spec.config.steps();
    let paths = steps.iter().flat_map(|step| match step {
        PrepareStep::Files(path) => vec![*path],
        PrepareStep::Command(table) => table.inputs.iter().collect(),
    });
    paths.map(|path| spec.root.join(path)).chain(spec.driver.parts(spec)).collect()
}

/// Changes with what runs the engine's program: a snapshot may hold what was compiled for it.
fn interpreter_key(build: &EngineBuild) -> String {
    build.interpreter.as_ref().map_or_else(String::new, |file| {
        let modified = fs::metadata(file).and_then(|meta| meta.modified()).ok();
        format!("{} {modified:?}", file.display())
    })
}

fn relative(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).display().to_string()
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let problem = |error: std::io::Error| io_problem(format!("read {}", path.display()), &error);
    let meta = fs::metadata(path).map_err(problem)?;
    if !meta.is_file() {
        // A pipe would be waited for, and a device read for ever.
        return Err(problem(std::io::Error::other("not a regular file")));
    }
    if meta.len() > MAX_FILE {
        return Err(problem(std::io::Error::other(format!("larger than {} MiB", MAX_FILE >> 20))));
    }
    fs::read(path).map_err(problem)
}

fn no_files(spec: &Spec, path: &Path) -> Problem {
    let endings = spec.driver.file_endings().join(", ");
    Problem::new(ProblemKind::InvalidConfig, format!("{} holds no {endings} files", path.display()))
        .detail(format!("named by services.{} in testenv.toml", spec.role))
        .hint("name the directory of the migrations, or take the key out")
}
