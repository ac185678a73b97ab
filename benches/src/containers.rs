//! testcontainers-rs, with an image built from Debian's packages, so that nothing is pulled.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use testcontainers_modules::postgres::Postgres;
use testcontainers_modules::testcontainers::runners::SyncRunner as _;
use testcontainers_modules::testcontainers::{Container, ContainerRequest, ImageExt as _};

use crate::machine;
use crate::peers::{memory_row, migrated};
use crate::stats::{Plan, Row, measure};

const IMAGE: &str = "testenv-bench-postgres";
const IDLE_CONTAINERS: usize = 4;

const DOCKERFILE: &str = "\
FROM scratch
ADD rootfs.tar /
COPY entrypoint.sh /entrypoint.sh
EXPOSE 5432
ENTRYPOINT [\"/entrypoint.sh\"]
";

/// Does what the entry point of the official image does, and prints what that prints: the server of the
/// initialisation logs to stdout, the real one to stderr, and testcontainers waits for both.
const ENTRYPOINT: &str = r#"#!/bin/sh
set -e
bin=$(echo /usr/lib/postgresql/*/bin)
data=/var/lib/postgresql/data
if [ "$(id -u)" = 0 ]; then
    install -d -o postgres -m 700 "$data" /run/postgresql
    exec setpriv --reuid=postgres --regid=postgres --clear-groups "$0" "$@"
fi
if [ ! -s "$data/PG_VERSION" ]; then
    echo "$POSTGRES_PASSWORD" > /tmp/password
    "$bin/initdb" -D "$data" -U "$POSTGRES_USER" --pwfile=/tmp/password
    echo "host all all all scram-sha-256" >> "$data/pg_hba.conf"
    "$bin/pg_ctl" -D "$data" -o "-c listen_addresses=" -w start
    [ "$POSTGRES_DB" = postgres ] || "$bin/createdb" -U "$POSTGRES_USER" "$POSTGRES_DB"
    "$bin/pg_ctl" -D "$data" -m fast -w stop
fi
[ "$1" != postgres ] || shift
exec "$bin/postgres" -D "$data" -c "listen_addresses=*" "$@"
"#;

/// A Docker engine: the one that is there, or one of our own that ends with this value.
struct Engine {
    socket: Option<(PathBuf, Child)>,
}

impl Engine {
    fn find(start: bool) -> Result<Option<Self>> {
        if machine::output(Command::new("docker").arg("info")).is_ok() {
            return Ok(Some(Self { socket: None }));
        }
        if !start {
            return Ok(None);
        }
        let dir = machine::disk_dir()?.join("docker");
        fs::create_dir_all(&dir)?;
        let socket = dir.join("docker.sock");
        // Own directories throughout, and no firewall rules: published ports go through Docker's own proxy.
        let child = Command::new("dockerd")
            .args(["--iptables=false", "--ip6tables=false"])
            .arg("--data-root")
            .arg(dir.join("data"))
            .arg("--exec-root")
            .arg(dir.join("exec"))
            .arg("--pidfile")
            .arg(dir.join("pid"))
            .arg(format!("--host=unix://{}", socket.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(dir.join("log"))?)
            .spawn()
            .context("failed to start dockerd")?;
        let engine = Self { socket: Some((socket, child)) };
        let until = Instant::now() + Duration::from_secs(30);
        while machine::output(engine.docker().arg("info")).is_err() {
            if Instant::now() > until {
                bail!(
                    "dockerd did not get ready:\n{}",
                    fs::read_to_string(dir.join("log")).unwrap_or_default()
                );
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(Some(engine))
    }

    fn docker(&self) -> Command {
        self.with_host(Command::new("docker"))
    }

    fn with_host(&self, mut command: Command) -> Command {
        if let Some((socket, _)) = &self.socket {
            command.env("DOCKER_HOST", format!("unix://{}", socket.display()));
        }
        command
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some((_, child)) = &mut self.socket {
            // SIGTERM, so that it ends its containers and its containerd too.
            let _ = Command::new("kill").arg(child.id().to_string()).status();
            let _ = child.wait();
        }
    }
}

/// Measures in a process of its own, as testcontainers reads `DOCKER_HOST` from the environment.
pub fn containers(plan: Plan, start_engine: bool) -> Result<Vec<Row>> {
    let Some(engine) = Engine::find(start_engine)? else {
        eprintln!(
            "  left out: no Docker engine runs here; `cargo xtask bench --docker` installs and starts one"
        );
        return Ok(Vec::new());
    };
    build_image(&engine)?;
    let mut again = engine.with_host(Command::new(std::env::current_exe()?));
    again.arg("--inside-docker").stderr(Stdio::inherit());
    if plan.quick {
        again.arg("--quick");
    }
    let rows = machine::output(&mut again)?;
    rows.lines().map(|line| Row::from_json(&serde_json::from_str(line)?).context("a row")).collect()
}

fn build_image(engine: &Engine) -> Result<()> {
    if machine::output(engine.docker().args(["image", "inspect", IMAGE])).is_ok() {
        return Ok(());
    }
    eprintln!("  building {IMAGE} from Debian's packages");
    let context = machine::disk_dir()?.join("image");
    fs::create_dir_all(&context)?;
    let suite =
        machine::output(Command::new("sh").args(["-c", ". /etc/os-release && echo $VERSION_CODENAME"]))?;
    let mut mmdebstrap = Command::new("mmdebstrap");
    mmdebstrap
        .args(["--quiet", "--variant=minbase", "--include=postgresql", &suite])
        .arg(context.join("rootfs.tar"));
    machine::output(&mut mmdebstrap).context("an image needs mmdebstrap, on Debian or Ubuntu")?;
    fs::write(context.join("Dockerfile"), DOCKERFILE)?;
    write_executable(&context.join("entrypoint.sh"), ENTRYPOINT)?;
    machine::output(engine.docker().args(["build", "--quiet", "--tag", IMAGE]).arg(&context))?;
    Ok(())
}

fn write_executable(path: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::write(path, text)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

/// The inside of that process.
pub fn inside(plan: Plan) -> Result<Vec<Row>> {
    let image = || ContainerRequest::from(Postgres::default()).with_name(IMAGE).with_tag("latest");
    let url = |container: &Container<Postgres>| -> Result<String> {
        let port = container.get_host_port_ipv4(5432)?;
        Ok(format!("postgres://postgres:postgres@{}:{port}/postgres", container.get_host()?))
    };
    let once = || {
        let started = Instant::now();
        let container = image().start()?;
        let took = migrated(&url(&container)?, started)?;
        container.rm()?;
        Ok(took)
    };
    let mut rows = vec![measure(
        plan,
        "testcontainers, a container per test (Debian's PostgreSQL)",
        Duration::ZERO,
        &once,
    )?];
    let idle = (0..IDLE_CONTAINERS).map(|_| Ok(image().start()?)).collect::<Result<Vec<_>>>()?;
    std::thread::sleep(Duration::from_secs(2));
    let memory = idle.iter().map(|container| {
        let pid = machine::output(Command::new("docker").args([
            "inspect",
            "--format={{.State.Pid}}",
            container.id(),
        ]))?;
        machine::tree_memory(pid.parse()?)
    });
    match memory.sum::<Result<u64>>() {
        Ok(bytes) => rows.push(memory_row("testcontainers (Debian's PostgreSQL)", bytes, idle.len())),
        Err(error) => eprintln!("  memory left out: {error:#}"),
    }
    idle.into_iter().try_for_each(|container| container.rm())?;
    Ok(rows)
}
