//! `testenv status`.

use std::time::{SystemTime, UNIX_EPOCH};

use testenv_api::client::Client;
use testenv_api::discovery::Workspace;
use testenv_api::{BrokerStatus, VERSION};
use testenv_runner::exit_codes;

use crate::args::StatusArgs;
use crate::error::CliError;
use crate::output::{colours, say, seconds, size, table};

/// How many snapshots are shown, the latest used first.
const SNAPSHOTS_SHOWN: usize = 8;
/// How many characters of a snapshot's key are shown.
const KEY_SHOWN: usize = 12;

pub(crate) fn status(workspace: &Workspace, args: &StatusArgs) -> Result<i32, CliError> {
    let client = Client::of(workspace);
    if args.json {
        say(client.get_text("/v1/status")?);
        return Ok(exit_codes::OK);
    }
    match client.get::<BrokerStatus>("/v1/status") {
        Ok(status) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
            let bold = if colours() { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
            say(render(&status, now, bold));
            Ok(exit_codes::OK)
        }
        Err(error) if error.broker_is_gone() => {
            say(format_args!(
                "no broker runs for {}; the first test, `testenv exec` or `testenv run` starts one\n",
                workspace.root().display()
            ));
            Ok(exit_codes::OK)
        }
        Err(error) => Err(error.into()),
    }
}

fn render(status: &BrokerStatus, now: u64, bold: (&str, &str)) -> String {
    let health = &status.health;
    let other =
        if health.version == VERSION { String::new() } else { format!(" (this program is {VERSION})") };
    let mut text = format!(
        "broker     testenv {}{other}, process {}, up {}\nworkspace  {}\nforks      {} on {}, {} written\nmemory     {} in servers\n",
        health.version,
        health.pid,
        seconds(status.uptime_seconds),
        health.workspace,
        status.fork_strategy,
        status.fork_storage,
        size(status.fork_bytes),
        size(status.server_memory_bytes),
    );
    text += &pools(status, bold);
    text += &leases(status, bold);
    text += &kept(status, bold);
    text += &snapshots(status, now, bold);
    if status.pools.is_empty() && status.snapshots.is_empty() {
        text += "\nnothing has been leased yet\n";
    }
    text
}

fn pools(status: &BrokerStatus, bold: (&str, &str)) -> String {
    let rows: Vec<Vec<String>> = status
        .pools
        .iter()
        .map(|pool| {
            let counts = [pool.warm, pool.target, pool.starting, pool.leased, pool.waiting];
            let names = [
                pool.role.clone(),
                format!("{} {}", pool.engine.name, pool.engine.version),
                pool.isolation.to_string(),
            ];
            names.into_iter().chain(counts.map(|count| count.to_string())).collect()
        })
        .collect();
    let columns = ["role", "engine", "isolation", "warm", "target", "starting", "leased", "waiting"];
    let waits = status.pools.iter().filter(|pool| pool.waiting > 0 && !pool.waits_for.is_empty());
    let waits = waits.map(|pool| format!("  {} waits: {}\n", pool.role, pool.waits_for)).collect::<String>();
    table("pools", &columns, &rows, bold) + &waits
}

fn leases(status: &BrokerStatus, bold: (&str, &str)) -> String {
    let rows: Vec<Vec<String>> = status
        .leases
        .iter()
        .map(|lease| {
            vec![
                lease.id.clone(),
                lease.role.clone(),
                lease.isolation.to_string(),
                lease.pid.map_or_else(|| "-".into(), |pid| pid.to_string()),
                seconds(lease.held_ms / 1000),
                lease.test.clone().unwrap_or_else(|| "-".into()),
            ]
        })
        .collect();
    table("leases", &["id", "role", "isolation", "process", "held", "test"], &rows, bold)
}

fn kept(status: &BrokerStatus, bold: (&str, &str)) -> String {
    let rows: Vec<Vec<String>> = status
        .kept
        .iter()
        .map(|kept| {
            vec![
                kept.role.clone(),
                kept.test.clone().unwrap_or_else(|| "-".into()),
                seconds(kept.expires_seconds),
                kept.connect_command.clone(),
            ]
        })
        .collect();
    table("kept for debugging", &["role", "test", "goes in", "connect with"], &rows, bold)
}

fn snapshots(status: &BrokerStatus, now: u64, bold: (&str, &str)) -> String {
    let mut snapshots: Vec<_> = status.snapshots.iter().collect();
    snapshots.sort_by_key(|snapshot| std::cmp::Reverse(snapshot.used_unix_seconds));
    let rows: Vec<Vec<String>> = snapshots
        .iter()
        .take(SNAPSHOTS_SHOWN)
        .map(|snapshot| {
            vec![
                snapshot.key.chars().take(KEY_SHOWN).collect(),
                size(snapshot.bytes),
                format!("{} ago", seconds(now.saturating_sub(snapshot.used_unix_seconds))),
                snapshot.description.clone(),
            ]
        })
        .collect();
    let mut text = table("snapshots", &["key", "size", "used", "content"], &rows, bold);
    if snapshots.len() > SNAPSHOTS_SHOWN {
        let all = snapshots.iter().map(|snapshot| snapshot.bytes).fold(0, u64::saturating_add);
        text += &format!(
            "  … {} in all, {}; `testenv clean` removes those not in use\n",
            snapshots.len(),
            size(all)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use testenv_api::{Engine, Health, Isolation, KeptServer, PoolStatus, ServiceKind, SnapshotStatus};

    use super::*;

    #[test]
    fn everything_lines_up() {
        let engine = Engine { name: "postgres".into(), version: "15.18".into(), sha256: "00".into() };
        let status = BrokerStatus {
            health: Health {
                version: VERSION.into(),
                protocol: 1,
                pid: 42,
                workspace: "/home/me/shop".into(),
                leases: 0,
            },
            uptime_seconds: 754,
            fork_strategy: "overlay".into(),
            fork_storage: "tmpfs".into(),
            server_memory_bytes: 6 << 20,
            fork_bytes: 12 << 20,
            pools: vec![PoolStatus {
                role: "database".into(),
                service: ServiceKind::Postgres,
                isolation: Isolation::Server,
                engine,
                snapshot: "abc".into(),
                warm: 8,
                starting: 0,
                leased: 2,
                waiting: 0,
                waits_for: String::new(),
                target: 8,
            }],
            leases: Vec::new(),
            kept: vec![KeptServer {
                id: "7".into(),
                role: "database".into(),
                test: None,
                expires_seconds: 3600,
                connect_command: "psql postgres://x".into(),
            }],
            snapshots: vec![SnapshotStatus {
                key: "0123456789abcdef".into(),
                description: "postgres 15.18, 60 migrations".into(),
                bytes: 17 << 20,
                used_unix_seconds: 1000,
            }],
        };
        let expected = "\
broker     testenv VERSION, process 42, up 12 min
workspace  /home/me/shop
forks      overlay on tmpfs, 12.0 MiB written
memory     6.0 MiB in servers

pools
  role      engine          isolation  warm  target  starting  leased  waiting
  database  postgres 15.18  server     8     8       0         2       0

kept for debugging
  role      test  goes in  connect with
  database  -     60 min   psql postgres://x

snapshots
  key           size      used    content
  0123456789ab  17.0 MiB  30 s ago  postgres 15.18, 60 migrations
";
        let expected = expected.replace("VERSION", VERSION).replace("used    content", "used      content");
        assert_eq!(render(&status, 1030, ("", "")), expected);

        let many = vec![status.snapshots[0].clone(); 10];
        let text = render(&BrokerStatus { snapshots: many, ..status }, 1030, ("", ""));
        assert_eq!(text.matches("0123456789ab").count(), SNAPSHOTS_SHOWN);
        assert!(
            text.ends_with("  … 10 in all, 170.0 MiB; `testenv clean` removes those not in use\n"),
            "{text}"
        );
    }
}
