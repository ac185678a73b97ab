//! PostgreSQL and Redis from the system's packages.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::Result;

use super::{Missing, engines};
use crate::run;

/// A package manager: its program, how it installs, and what it calls the two servers.
struct Manager {
    program: &'static str,
    install: &'static str,
    postgres: &'static str,
    redis: &'static str,
}

const MANAGERS: [Manager; 6] = [
    Manager {
        program: "apt-get",
        install: "sudo apt-get install -y",
        postgres: "postgresql",
        redis: "redis-server",
    },
    Manager {
        program: "dnf",
        install: "sudo dnf install -y",
        postgres: "postgresql-server",
        redis: "valkey",
    },
    Manager {
        program: "pacman",
        install: "sudo pacman -S --needed",
        postgres: "postgresql",
        redis: "valkey",
    },
    Manager {
        program: "zypper",
        install: "sudo zypper install",
        postgres: "postgresql-server",
        redis: "redis",
    },
    Manager { program: "apk", install: "sudo apk add", postgres: "postgresql", redis: "valkey" },
    Manager { program: "brew", install: "brew install", postgres: "postgresql@18", redis: "redis" },
];

/// Runs apt so that it leaves nothing running and nothing changed besides the packages.
///
/// Debian's packages start what they install: a cluster of PostgreSQL and a Redis on their standard ports. Both
/// are for servers, not for a developer's machine, so both are held back while apt runs. A `policy-rc.d` of the
/// machine's own is left as it is.
const APT: &str = r#"
set -eu
policy=/usr/sbin/policy-rc.d
clusters=/etc/postgresql-common/createcluster.d
if [ -e "$policy" ]; then policy=; else printf '#!/bin/sh\nexit 101\n' > "$policy"; chmod 755 "$policy"; fi
mkdir -p "$clusters"
echo "create_main_cluster = false" > "$clusters/testenv-setup.conf"
restore() { rm -f "$clusters/testenv-setup.conf"; [ -z "$policy" ] || rm -f "$policy"; }
trap restore EXIT
trap 'exit 130' INT TERM HUP
export DEBIAN_FRONTEND=noninteractive
if [ "$1" = update ]; then apt-get -q update; fi
shift
apt-get -q install -y --no-install-recommends "$@"
if [ -d /run/systemd/system ]; then
    for service in "$@"; do systemctl disable -q "$service.service" 2>/dev/null || true; done
fi
"#;

pub(super) fn missing() -> Result<Option<Missing>> {
    let (postgres, redis) = (engines::postgres_dirs().is_empty(), !engines::has_redis());
    if !postgres && !redis {
        return Ok(None);
    }
    let what = match (postgres, redis) {
        (true, true) => "PostgreSQL and Redis",
        (true, false) => "PostgreSQL",
        (false, _) => "Redis",
    };
    let Some(manager) = MANAGERS.iter().find(|manager| run::which(manager.program).is_some()) else {
        let command =
            format!("# install {what} with this system's package manager, so that `initdb` is in PATH");
        return Ok(Some(Missing { what: what.into(), command, install: None }));
    };
    let packages: Vec<_> = [(postgres, manager.postgres), (redis, manager.redis)]
        .into_iter()
        .filter(|it| it.0)
        .map(|it| it.1)
        .collect();
    let command = format!("{} {}", manager.install, packages.join(" "));
    if manager.program != "apt-get" || !may_install() {
        return Ok(Some(Missing { what: what.into(), command, install: None }));
    }
    Ok(Some(Missing {
        what: format!("{what} (the programs only: no cluster is created, no service started)"),
        command: command.replace("sudo ", if run::is_root() { "" } else { "sudo " }),
        install: Some(Box::new(move || run_apt(&packages))),
    }))
}

/// A Docker engine, and mmdebstrap, which makes an image without pulling one.
pub(super) fn missing_containers() -> Option<Missing> {
    let wanted = [("dockerd", "docker.io"), ("docker", "docker.io"), ("mmdebstrap", "mmdebstrap")];
    missing_debian("a Docker engine and mmdebstrap (no service is started)", &wanted)
}

/// Servers of other kinds than PostgreSQL and Redis, whose tests are skipped where they cannot be had.
pub(super) fn missing_servers() -> Option<Missing> {
    // The programs, each with the package that brings it and starts no service.
    let wanted = [
        ("mariadb-install-db", "mariadb-server-core"),
        ("mariadb", "mariadb-client-core"),
        ("clickhouse-server", "clickhouse-server"),
        ("curl", "curl"),
        ("nats-server", "nats-server"),
        ("rabbitmq-server", "rabbitmq-server"),
    ];
    missing_debian("MariaDB, ClickHouse, NATS and RabbitMQ (the programs only, no service started)", &wanted)
        .filter(|missing| missing.install.is_some())
}

/// What makes a file system with shared blocks, for the tests of reflinks; they are skipped where it cannot be had.
pub(super) fn missing_file_systems() -> Option<Missing> {
    missing_debian("XFS tools, for the tests of reflinks", &[("mkfs.xfs", "xfsprogs")])
        .filter(|missing| missing.install.is_some())
}

/// Java and Maven, for Kafka; its tests are skipped where they cannot be had.
pub(super) fn missing_java() -> Option<Missing> {
    let wanted = [("java", "default-jre-headless"), ("mvn", "maven")];
    missing_debian("Java and Maven, for the tests of Kafka", &wanted)
        .filter(|missing| missing.install.is_some())
}

/// Debian packages, each with a program that it brings.
fn missing_debian(what: &str, wanted: &[(&str, &'static str)]) -> Option<Missing> {
    // What only administrators start is often not in the PATH of others.
    let is_there =
        |program: &str| run::which(program).is_some() || Path::new("/usr/sbin").join(program).exists();
    let lacking = wanted.iter().filter(|(program, _)| !is_there(program));
    let mut packages: Vec<_> = lacking.map(|(_, package)| *package).collect();
    packages.dedup();
    if packages.is_empty() {
        return None;
    }
    let install = || -> Box<dyn FnOnce() -> Result<()>> {
        let packages = packages.clone();
        Box::new(move || run_apt(&packages))
    };
    Some(Missing {
        what: what.into(),
        command: format!("sudo apt-get install -y {}", packages.join(" ")),
        install: (run::which("apt-get").is_some() && may_install()).then(install),
    })
}

/// Installs Debian packages through [`APT`].
fn run_apt(packages: &[&str]) -> Result<()> {
    let update = if lists_are_fresh() { "keep" } else { "update" };
    let mut command = if run::is_root() { Command::new("sh") } else { Command::new("sudo") };
    if !run::is_root() {
        command.args(["-n", "sh"]);
    }
    command.args(["-c", APT, "testenv-setup", update]).args(packages);
    println!("apt-get install -y --no-install-recommends {}", packages.join(" "));
    let status = command.status()?;
    anyhow::ensure!(status.success(), "apt-get ended with {status}; its own messages are above");
    Ok(())
}

/// Root, or sudo without a password.
fn may_install() -> bool {
    run::is_root()
        || run::which("sudo").is_some() && run::output(Command::new("sudo").args(["-n", "true"])).is_ok()
}

/// Whether apt's lists are there and no older than a day.
fn lists_are_fresh() -> bool {
    let entries = std::fs::read_dir("/var/lib/apt/lists").into_iter().flatten().flatten();
    let newest = entries
        .filter(|entry| entry.file_name().to_string_lossy().contains("Packages"))
        .filter_map(|entry| entry.metadata().ok()?.modified().ok())
        .max();
    newest.is_some_and(|at| {
        SystemTime::now().duration_since(at).is_ok_and(|age| age < Duration::from_secs(86_400))
    })
}
