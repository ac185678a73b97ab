//! What servers take of a machine, and how many a workspace asks for.

use testenv_config::{ByteSize, Config, IsolationConfig, KindConfig};

use super::finding::Severity;
use crate::drivers::{self, Driver};
use crate::service;

/// Files that the broker has open without any server, and for those being started.
const BROKER_FILES: u64 = 40;

/// What one server takes while a test uses it. Measured, and rounded up: `docs/doctor.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cost {
    /// Memory, in bytes.
    pub(super) memory: u64,
    /// What it writes, in bytes.
    pub(super) data: u64,
    /// Files that the broker has open for it.
    pub(super) files: u64,
    /// Processes and threads, its own and the broker's for it.
    pub(super) tasks: u64,
}

impl Cost {
    fn of(kind: KindConfig) -> Self {
        match kind {
            KindConfig::Postgres => Self { memory: 8 << 20, data: 3 << 20, files: 5, tasks: 8 },
            KindConfig::Redis | KindConfig::Valkey => {
                Self { memory: 3 << 20, data: 1 << 20, files: 5, tasks: 6 }
            }
            other => {
                // Its driver's own estimate; most others have many threads.
                let memory = drivers::of(service::kind(other)).map_or(64 << 20, Driver::memory);
                Self { memory, data: 24 << 20, files: 8, tasks: 64 }
            }
        }
    }
}

/// What people call a kind of service.
pub(super) fn title(kind: KindConfig) -> &'static str {
    match kind {
        KindConfig::Postgres => "PostgreSQL",
        KindConfig::Redis => "Redis",
        KindConfig::Valkey => "Valkey",
        KindConfig::Mysql => "MySQL",
        KindConfig::Mariadb => "MariaDB",
        KindConfig::Clickhouse => "ClickHouse",
        KindConfig::S3 => "S3",
        KindConfig::Kafka => "Kafka",
        KindConfig::Rabbitmq => "RabbitMQ",
        KindConfig::Nats => "NATS",
        KindConfig::Custom => "custom",
    }
}

/// What a workspace asks of its machine. All its servers are counted as the heaviest kind among them.
#[derive(Clone, Debug)]
pub(super) struct Load {
    /// What people call that kind.
    pub(super) unit: &'static str,
    /// What one takes.
    pub(super) cost: Cost,
    /// Servers without which a role cannot work: one for each.
    pub(super) least: u64,
    /// Servers when as many tests run as there are processors, and the pools are full.
    pub(super) at_once: u64,
    /// `pool.max_servers`.
    pub(super) max_servers: u64,
}

impl Load {
    pub(super) fn of(config: &Config, processors: usize) -> Self {
        let kinds = config.services.values().map(|service| service.service);
        let kind = kinds.max_by_key(|kind| Cost::of(*kind).memory).unwrap_or(KindConfig::Postgres);
        let servers = |isolation| match isolation {
            Some(IsolationConfig::Namespace) => 1,
            _ => processors.saturating_add(config.pool.warm) as u64,
        };
        let asked: u64 = config.services.values().map(|service| servers(service.isolation)).sum();
        let max_servers = config.pool.max_servers as u64;
        let least = config.services.len().max(1) as u64;
        let at_once = if config.services.is_empty() { servers(None) } else { asked };
        Self {
            unit: title(kind),
            cost: Cost::of(kind),
            least,
            at_once: at_once.min(max_servers),
            max_servers,
        }
    }

    /// How many servers the broker can have with so many open files.
    pub(super) fn by_files(&self, files: u64) -> u64 {
        files.saturating_sub(BROKER_FILES) / self.cost.files
    }

    /// How many servers there can be with room for so many more processes and threads.
    pub(super) fn by_tasks(&self, tasks: u64) -> u64 {
        tasks / self.cost.tasks
    }

    /// How much it hinders when there can be no more than so many servers.
    pub(super) fn severity(&self, servers: u64) -> Severity {
        match servers {
            few if few < self.least => Severity::Problem,
            few if few < self.at_once => Severity::Warning,
            few if few < self.max_servers => Severity::Note,
            _ => Severity::Ok,
        }
    }

    /// `about 190 PostgreSQL servers at once`, and what that is to be held against.
    pub(super) fn about(&self, servers: u64) -> String {
        let count = format!("room for about {} {} servers at once", about(servers), self.unit);
        match self.severity(servers) {
            Severity::Ok => count,
            Severity::Note => {
                format!("{count}, fewer than `pool.max_servers` ({}) lets start", self.max_servers)
            }
            Severity::Warning => {
                format!("{count}; this workspace's tests ask for up to {}", counted(self.at_once))
            }
            Severity::Problem => format!("{count}; this workspace needs at least {}", self.least),
        }
    }

    /// The line of `testenv.toml` with which requests wait where they would fail.
    pub(super) fn max_servers_line(&self, servers: u64) -> String {
        format!(
            "max_servers = {}    # testenv.toml, [pool]: further requests wait instead of failing",
            servers.max(1)
        )
    }
}

/// A number with commas.
pub(super) fn counted(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of which only the first two digits are meant.
pub(super) fn about(number: u64) -> String {
    let unit = 10_u64.pow(number.max(1).ilog10().saturating_sub(1));
    counted(number / unit * unit)
}

/// Bytes for people.
pub(super) fn size(bytes: u64) -> String {
    ByteSize::bytes(bytes).to_string()
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::Path;

    use super::*;

    /// The load of a workspace on a machine with four processors.
    pub(crate) fn load(toml: &str) -> Load {
        Load::of(&Config::parse(toml, Path::new("testenv.toml")).unwrap(), 4)
    }

    /// Two roles, each with a server for every test.
    pub(crate) const TWO_ROLES: &str =
        "[services.db]\nservice = \"postgres\"\n[services.cache]\nservice = \"redis\"\n";

    #[test]
    fn what_a_workspace_asks_for() {
        let two = load(TWO_ROLES);
        assert_eq!((two.unit, two.least, two.at_once, two.max_servers), ("PostgreSQL", 2, 24, 256));
        let shared = load("[services.db]\nservice = \"postgres\"\nisolation = \"namespace\"\n");
        assert_eq!((shared.least, shared.at_once), (1, 1));
        let few = load(&format!("{TWO_ROLES}[pool]\nmax_servers = 5\n"));
        assert_eq!((few.at_once, few.max_servers), (5, 5));
        assert_eq!((load("").least, load("").at_once), (1, 12));
    }

    #[test]
    fn too_few_servers_hinder_by_how_few_they_are() {
        let load = load(TWO_ROLES);
        let severities = [1, 2, 23, 24, 255, 256].map(|servers| load.severity(servers));
        use Severity::{Note, Ok, Problem, Warning};
        assert_eq!(severities, [Problem, Warning, Warning, Note, Note, Ok]);
        assert_eq!(load.about(1984), "room for about 1,900 PostgreSQL servers at once");
        assert!(load.about(20).ends_with("this workspace's tests ask for up to 24"), "{}", load.about(20));
    }

    #[test]
    fn numbers_are_rounded_down_and_have_commas() {
        assert_eq!(
            [0, 7, 99, 198, 1987, 1_234_567].map(about),
            ["0", "7", "99", "190", "1,900", "1,200,000"]
        );
        assert_eq!([1, 999, 1000, 1_234_567].map(counted), ["1", "999", "1,000", "1,234,567"]);
    }
}
