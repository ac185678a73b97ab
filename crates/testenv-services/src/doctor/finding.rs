//! What a check says, and what `--fix` may do about it.

use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

use super::repair::Repair;

/// How much a finding hinders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Worth knowing; nothing is slower or refused because of it at the workspace's present size.
    Note,
    /// Something is slower than it could be, or refused when the whole suite asks at once.
    Warning,
    /// A role of the workspace cannot work.
    Problem,
}

impl Severity {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// What a check is about, in the order in which people read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Group {
    /// The configuration and the engines of its roles.
    Services,
    /// Memory, of the machine and of a container.
    Memory,
    /// The cache, and where servers' data goes.
    Disk,
    /// Limits of files and processes.
    Limits,
    /// What the kernel allows.
    Kernel,
    /// Ports and queues.
    Network,
    /// Docker and its like.
    Containers,
    /// The workspace's broker, and what dead ones left.
    Broker,
}

impl Group {
    /// All of them, in order.
    pub const ALL: [Self; 8] = [
        Self::Services,
        Self::Memory,
        Self::Disk,
        Self::Limits,
        Self::Kernel,
        Self::Network,
        Self::Containers,
        Self::Broker,
    ];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Services => "services",
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Limits => "limits",
            Self::Kernel => "kernel",
            Self::Network => "network",
            Self::Containers => "containers",
            Self::Broker => "broker",
        }
    }
}

/// One of the things that are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Check {
    /// Its name, which stays the same from version to version: `open-files`.
    pub name: &'static str,
    /// What it is about.
    pub group: Group,
}

impl Check {
    pub(super) const fn new(name: &'static str, group: Group) -> Self {
        Self { name, group }
    }
}

/// What one check says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which check.
    pub check: Check,
    /// Which of several: a role, a socket. Empty where there is but one.
    pub subject: String,
    /// How much it hinders.
    pub severity: Severity,
    /// What was seen, in a few words.
    pub seen: String,
    /// What follows from it for tests, in numbers where there are any. May have several lines.
    pub means: String,
    /// What to do about it, as a sentence. Empty when there is nothing to do.
    pub advice: String,
    /// Commands or lines of `testenv.toml` that do it.
    pub commands: Vec<String>,
    /// How many servers at once this allows, where it is about that.
    pub servers: Option<u64>,
    /// What `testenv doctor --fix` does about it.
    pub repair: Option<Repair>,
}

impl Finding {
    pub(super) fn new(check: Check, severity: Severity, seen: impl Into<String>) -> Self {
        Self {
            check,
            subject: String::new(),
            severity,
            seen: seen.into(),
            means: String::new(),
            advice: String::new(),
            commands: Vec::new(),
            servers: None,
            repair: None,
        }
    }

    pub(super) fn ok(check: Check, seen: impl Into<String>) -> Self {
        Self::new(check, Severity::Ok, seen)
    }

    pub(super) fn of(mut self, subject: impl Into<String>) -> Self {
        self.subject = subject.into();
        self
    }

    pub(super) fn means(mut self, means: impl Into<String>) -> Self {
        self.means = means.into();
        self
    }

    pub(super) fn servers(mut self, servers: u64) -> Self {
        self.servers = Some(servers);
        self
    }

    /// What to do, which is only said of what is not as it should be.
    pub(super) fn advice(mut self, advice: impl Into<String>) -> Self {
        if self.severity > Severity::Ok {
            self.advice = advice.into();
        }
        self
    }

    pub(super) fn command(mut self, command: impl Into<String>) -> Self {
        if self.severity > Severity::Ok {
            self.commands.push(command.into());
        }
        self
    }

    pub(super) fn repair(mut self, repair: Repair) -> Self {
        self.repair = Some(repair);
        self
    }
}

impl Serialize for Finding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("Finding", 10)?;
        out.serialize_field("check", self.check.name)?;
        out.serialize_field("group", &self.check.group)?;
        out.serialize_field("subject", &self.subject)?;
        out.serialize_field("severity", &self.severity)?;
        out.serialize_field("seen", &self.seen)?;
        out.serialize_field("means", &self.means)?;
        out.serialize_field("advice", &self.advice)?;
        out.serialize_field("commands", &self.commands)?;
        out.serialize_field("servers", &self.servers)?;
        out.serialize_field("fixable", &self.repair.is_some())?;
        out.end()
    }
}
