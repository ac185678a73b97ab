//! What servers take of a machine, and how many a workspace asks for.

use testenv_config::{ByteSize, Config, IsolationConfig, KindConfig};

use super::finding::Severity;
use crate::drivers;
use crate::service;

/// Files that the broker has open without any server, and for those being started.
const BROKER_FILES: u64 = 40;

/// What one server takes while a test uses it. Measured, and rounded up: `docs/doctor.md`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cost {
    /// Memory, in bytes.
    pub(super) memory: u64,
    /// What it writes on a fork that shares the rest with its snapshot, in bytes.
    pub(super) data: u64,
    /// What it has where a fork is a copy, in bytes.
    pub(super) copy: u64,
    /// Files that the broker has open for it.
    pub(super) files: u64,
    /// Processes and threads, its own and the broker's for it.
    pub(super) tasks: u64,
}

impl Cost {
    fn of(kind: KindConfig) -> Self {
        use KindConfig as Kind;
        let (memory, data, copy, tasks) = match kind {
            Kind::Postgres => (8, 3, 40, 8),
            Kind::Redis | Kind::Valkey => (3, 1, 1, 6),
            Kind::Mariadb => (46, 18, 100, 40),
            Kind::Mysql => (150, 88, 200, 60),
            Kind::Clickhouse => (70, 10, 20, 150),
            Kind::Kafka => (131, 8, 20, 80),
            Kind::Rabbitmq => (72, 2, 2, 30),
            Kind::S3 | Kind::Minio => (64, 2, 2, 30),
            Kind::Versitygw => (16, 1, 1, 20),
            Kind::Nats => (16, 1, 1, 20),
            Kind::Custom => (100, 16, 40, 40),
        };
        // What was measured here, else what the driver says of it, if there is one.
        let memory = match kind {
            Kind::Postgres | Kind::Redis | Kind::Valkey => memory << 20,
            _ => drivers::of(service::kind(kind)).memory(),
        };
        Self { memory, data: data << 20, copy: copy << 20, files: 5, tasks }
    }

    /// The mean of so many servers each, rounded up.
    fn mean(servers: &[(KindConfig, u64)]) -> Self {
        let count: u64 = servers.iter().map(|(_, count)| count).sum::<u64>().max(1);
        let mean = |of: fn(Self) -> u64| {
            servers.iter().map(|(kind, count)| of(Self::of(*kind)) * count).sum::<u64>().div_ceil(count)
        };
        Self {
            memory: mean(|cost| cost.memory),
            data: mean(|cost| cost.data),
            copy: mean(|cost| cost.copy),
            files: mean(|cost| cost.files),
            tasks: mean(|cost| cost.tasks),
        }
    }
}

/// What people call a kind of service.
const fn title(kind: KindConfig) -> &'static str {
    match kind {
        KindConfig::Postgres => "PostgreSQL servers",
        KindConfig::Redis => "Redis servers",
        KindConfig::Valkey => "Valkey servers",
        KindConfig::Mysql => "MySQL servers",
        KindConfig::Mariadb => "MariaDB servers",
        KindConfig::Clickhouse => "ClickHouse servers",
        KindConfig::S3 => "S3 servers",
        KindConfig::Minio => "MinIO servers",
        KindConfig::Versitygw => "versitygw servers",
        KindConfig::Kafka => "Kafka servers",
        KindConfig::Rabbitmq => "RabbitMQ servers",
        KindConfig::Nats => "NATS servers",
        KindConfig::Custom => "servers",
    }
}

/// What a workspace asks of its machine.
#[derive(Clone, Debug)]
pub(super) struct Load {
    /// What people call its servers.
    pub(super) unit: &'static str,
    /// What one takes: the mean of those that are asked for at once.
    pub(super) cost: Cost,
    /// Servers without which a role cannot work: one for each.
    pub(super) least: u64,
    /// Servers when as many tests run as there are processors, and the pools are full.
    pub(super) at_once: u64,
    /// `pool.max_servers`.
    pub(super) max_servers: u64,
    /// Servers that the workspace's broker has already, which what is free is free without.
    pub(super) running: u64,
}

impl Load {
    /// `external` are roles whose servers somebody else runs, `running` how many servers there are already.
    pub(super) fn of(config: &Config, processors: usize, external: &[&str], running: u64) -> Self {
        let whole = processors.saturating_add(config.pool.warm) as u64;
        let mut servers: Vec<_> = config
            .services
            .iter()
            .filter(|(role, _)| !external.contains(&role.as_str()))
            .map(|(_, service)| match service.isolation {
                Some(IsolationConfig::Namespace) => (service.service, 1),
                _ => (service.service, whole),
            })
            .collect();
        if config.services.is_empty() {
            servers.push((KindConfig::Postgres, whole));
        }
        let max_servers = config.pool.max_servers as u64;
        let unit = match servers.as_slice() {
            [(kind, _), more @ ..] if more.iter().all(|(other, _)| other == kind) => title(*kind),
            _ => "servers",
        };
        Self {
            unit,
            cost: Cost::mean(&servers),
            least: servers.len() as u64,
            at_once: servers.iter().map(|(_, count)| count).sum::<u64>().min(max_servers),
            max_servers,
            running,
        }
    }

    /// How many servers there can be with so much more memory.
    pub(super) fn by_memory(&self, bytes: u64) -> u64 {
        share(bytes, self.cost.memory + self.cost.data) + self.running
    }

    /// How many servers the broker can have with so many open files.
    pub(super) fn by_files(&self, files: u64) -> u64 {
        share(files.saturating_sub(BROKER_FILES), self.cost.files)
    }

    /// How many servers there can be with room for so many more processes and threads.
    pub(super) fn by_tasks(&self, tasks: u64) -> u64 {
        share(tasks, self.cost.tasks) + self.running
    }

    /// How much it hinders when there can be no more than so many servers.
    pub(super) fn severity(&self, servers: u64) -> Severity {
        match servers {
            few if few < self.least => Severity::Problem,
            few if few < self.at_once => Severity::Warning,
            few if few < self.max_servers && self.at_once > 0 => Severity::Note,
            _ => Severity::Ok,
        }
    }

    /// `room for about 190 PostgreSQL servers at once`, and what that is to be held against.
    pub(super) fn about(&self, servers: u64) -> String {
        let count = format!("room for about {} {} at once", about(servers), self.unit);
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

/// How often `each` fits; where nothing is needed, as often as one likes.
pub(super) fn share(all: u64, each: u64) -> u64 {
    all.checked_div(each).unwrap_or(u64::from(u32::MAX))
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
        Load::of(&Config::parse(toml, Path::new("testenv.toml")).unwrap(), 4, &[], 0)
    }

    /// Two roles, each with a server of its own for every test.
    pub(crate) const TWO_ROLES: &str =
        "[services.db]\nservice = \"postgres\"\n[services.db2]\nservice = \"postgres\"\n";

    #[test]
    fn what_a_workspace_asks_for() {
        let two = load(TWO_ROLES);
        assert_eq!((two.unit, two.least, two.at_once, two.max_servers), ("PostgreSQL servers", 2, 24, 256));
        let shared = load("[services.db]\nservice = \"postgres\"\nisolation = \"namespace\"\n");
        assert_eq!((shared.least, shared.at_once), (1, 1));
        let few = load(&format!("{TWO_ROLES}[pool]\nmax_servers = 5\n"));
        assert_eq!((few.at_once, few.max_servers), (5, 5));
        assert_eq!((load("").least, load("").at_once), (1, 12));
    }

    #[test]
    fn servers_of_several_kinds_are_counted_by_their_mean() {
        let mixed = "[services.db]\nservice = \"postgres\"\n[services.cache]\nservice = \"redis\"\n";
        let load = load(mixed);
        assert_eq!((load.unit, load.cost.memory, load.cost.tasks), ("servers", 11 << 19, 7));
    }

    #[test]
    fn servers_that_somebody_else_runs_take_nothing() {
        let config = Config::parse(TWO_ROLES, Path::new("testenv.toml")).unwrap();
        let one = Load::of(&config, 4, &["db"], 0);
        assert_eq!((one.least, one.at_once), (1, 12));
        let none = Load::of(&config, 4, &["db", "db2"], 0);
        assert_eq!(
            (none.at_once, none.severity(none.by_memory(0)), none.severity(0)),
            (0, Severity::Ok, Severity::Ok)
        );
    }

    #[test]
    fn servers_that_run_already_are_not_missed() {
        let busy = Load { running: 20, ..load(TWO_ROLES) };
        assert_eq!((busy.by_memory(110 << 20), busy.by_tasks(80)), (30, 30));
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
