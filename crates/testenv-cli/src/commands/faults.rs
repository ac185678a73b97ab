//! `testenv faults`.

use std::time::Duration;

use testenv_api::client::Client;
use testenv_api::discovery::Workspace;
use testenv_api::{
    Effect, Fault, FaultsRequest, FaultsStatus, HeldLease, ServerAction, ServerRequest, ServerState,
    ServerStatus,
};
use testenv_config::Span;
use testenv_runner::exit_codes;

use crate::args::{AddArgs, EffectArgs, FaultsArgs, FaultsCommand};
use crate::error::CliError;
use crate::output::{colours, plural, say, size, table};

pub(crate) fn faults(workspace: &Workspace, args: &FaultsArgs) -> Result<i32, CliError> {
    let client = Client::of(workspace);
    let leases: Vec<HeldLease> = client.get("/v1/leases")?;
    let lease = find(&leases, &args.lease)?;
    let path = format!("/v1/leases/{}/faults", lease.id);
    let text = match args.command.as_ref().unwrap_or(&FaultsCommand::List { json: false }) {
        FaultsCommand::List { json: true } => client.get_text(&path)?,
        FaultsCommand::List { json: false } => render(lease, &client.get(&path)?),
        FaultsCommand::Add(args) => {
            let added: Vec<Fault> = client.post(&path, &FaultsRequest { add: vec![fault(args)] })?;
            added.iter().map(|fault| format!("added {}: {}\n", fault.name, describe(fault))).collect()
        }
        FaultsCommand::Remove { name } => {
            let left: FaultsStatus = client.delete(&format!("{path}/{name}"))?;
            format!("removed {name}; {} left\n", plural(left.faults.len(), "fault"))
        }
        FaultsCommand::Clear => client.delete::<FaultsStatus>(&path).map(|_| "no faults left\n".into())?,
        FaultsCommand::Pause => act(&client, lease, ServerAction::Pause)?,
        FaultsCommand::Resume => act(&client, lease, ServerAction::Resume)?,
        FaultsCommand::Kill => act(&client, lease, ServerAction::Kill)?,
        FaultsCommand::Restart => act(&client, lease, ServerAction::Restart)?,
    };
    say(text);
    Ok(exit_codes::OK)
}

/// The lease with that id, or the only one of that role.
fn find<'a>(leases: &'a [HeldLease], named: &str) -> Result<&'a HeldLease, CliError> {
    if let Some(lease) = leases.iter().find(|lease| lease.id == named) {
        return Ok(lease);
    }
    let of_role: Vec<_> = leases.iter().filter(|lease| lease.role == named).collect();
    let shown = |leases: &[&HeldLease]| -> String {
        let line = |lease: &&HeldLease| {
            let test = lease.test.as_deref().map_or(String::new(), |test| format!(" for {test}"));
            format!("\n  | {} {}{test}", lease.id, lease.role)
        };
        leases.iter().map(line).collect()
    };
    let refuse = |text| Err(CliError::new(exit_codes::USAGE, text));
    match of_role.as_slice() {
        [lease] => Ok(lease),
        [] if leases.is_empty() => refuse(format!("no lease {named:?}: none is held")),
        [] => {
            let held = shown(&leases.iter().collect::<Vec<_>>());
            refuse(format!("no lease {named:?}{held}\n  hint: name one of these by its id or role"))
        }
        several => {
            let count = several.len();
            refuse(format!(
                "{count} leases of {named} are held{}\n  hint: name one by its id",
                shown(several)
            ))
        }
    }
}

fn fault(args: &AddArgs) -> Fault {
    let millis = |span: Span| u64::try_from(span.as_duration().as_millis()).unwrap_or(u64::MAX);
    let effect = match args.effect {
        EffectArgs::Latency { latency, jitter } => {
            Effect::Latency { latency_ms: millis(latency), jitter_ms: millis(jitter) }
        }
        EffectArgs::Loss { percent, retransmit } => {
            Effect::Loss { percent, retransmit_ms: millis(retransmit) }
        }
        EffectArgs::Bandwidth { size } => Effect::Bandwidth { bytes_per_second: size.as_bytes() },
        EffectArgs::Stall => Effect::Stall,
        EffectArgs::Cut => Effect::Cut,
        EffectArgs::Reset => Effect::Reset,
        EffectArgs::SlowClose { delay } => Effect::SlowClose { delay_ms: millis(delay) },
        EffectArgs::LimitBytes { size } => Effect::LimitBytes { bytes: size.as_bytes() },
        EffectArgs::Refuse => Effect::Refuse,
    };
    Fault { name: args.name.clone(), direction: args.direction, connections: args.connections, effect }
}

fn act(client: &Client, lease: &HeldLease, action: ServerAction) -> Result<String, CliError> {
    let path = format!("/v1/leases/{}/server", lease.id);
    let status: ServerStatus = client.post(&path, &ServerRequest { action })?;
    let state = match status.state {
        ServerState::Running => "runs",
        ServerState::Paused => "is paused",
        ServerState::Ended => "has ended",
    };
    Ok(format!("the server of {} ({}) {state}\n", lease.id, lease.role))
}

fn render(lease: &HeldLease, faults: &FaultsStatus) -> String {
    let text = format!(
        "lease        {} ({})\nconnections  {} open, {} since the lease began\nseed         {}\n",
        lease.id, lease.role, faults.open_connections, faults.accepted_connections, faults.seed
    );
    if faults.faults.is_empty() {
        return text + "\nno faults; `testenv faults LEASE add --help` lists what there is\n";
    }
    let row = |fault: &Fault| {
        let place = [fault.name.clone(), fault.direction.to_string(), fault.connections.to_string()];
        place.into_iter().chain([effect(&fault.effect)]).collect()
    };
    let rows: Vec<Vec<String>> = faults.faults.iter().map(row).collect();
    let bold = if colours() { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
    text + &table("faults", &["name", "direction", "connections", "effect"], &rows, bold)
}

/// What a fault does and where.
fn describe(fault: &Fault) -> String {
    match fault.effect {
        Effect::Refuse => effect(&fault.effect),
        _ => format!(
            "{}, direction {}, connections {}",
            effect(&fault.effect),
            fault.direction,
            fault.connections
        ),
    }
}

fn effect(effect: &Effect) -> String {
    let time = |ms: &u64| format!("{:?}", Duration::from_millis(*ms));
    match effect {
        Effect::Latency { latency_ms, jitter_ms: 0 } => format!("latency {}", time(latency_ms)),
        Effect::Latency { latency_ms, jitter_ms } => {
            format!("latency {} to {}", time(latency_ms), time(&(latency_ms + jitter_ms)))
        }
        Effect::Loss { percent, retransmit_ms } => {
            format!("loss of {percent} %, sent again after {}", time(retransmit_ms))
        }
        Effect::Bandwidth { bytes_per_second } => format!("bandwidth {}/s", size(*bytes_per_second)),
        Effect::SlowClose { delay_ms } => format!("slow close, {} later", time(delay_ms)),
        Effect::LimitBytes { bytes } => format!("limit of {}", size(*bytes)),
        Effect::Stall | Effect::Cut | Effect::Reset | Effect::Refuse => effect.kind().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use testenv_api::{Connections, Direction, Isolation};

    use super::*;

    fn lease(id: &str, role: &str) -> HeldLease {
        HeldLease {
            id: id.into(),
            role: role.into(),
            test: Some("orders::are_stored".into()),
            pid: None,
            held_ms: 0,
            isolation: Isolation::Server,
        }
    }

    #[test]
    fn a_lease_is_named_by_its_id_or_by_a_role_that_only_one_has() {
        let leases = [lease("1-1", "database"), lease("1-2", "database"), lease("1-3", "cache")];
        assert_eq!(find(&leases, "1-2").unwrap().id, "1-2");
        assert_eq!(find(&leases, "cache").unwrap().id, "1-3");
        let refused = |leases: &[HeldLease], named| format!("{:?}", find(leases, named).unwrap_err());
        assert!(refused(&leases, "database").contains("2 leases of database are held"));
        assert!(refused(&leases, "queue").contains("1-3 cache for orders::are_stored"));
        assert!(refused(&[], "queue").contains("none is held"));
    }

    #[test]
    fn every_fault_is_described() {
        let effects = [
            Effect::Latency { latency_ms: 100, jitter_ms: 0 },
            Effect::Latency { latency_ms: 1500, jitter_ms: 500 },
            Effect::Loss { percent: 5, retransmit_ms: 200 },
            Effect::Bandwidth { bytes_per_second: 64 << 10 },
            Effect::SlowClose { delay_ms: 2000 },
            Effect::LimitBytes { bytes: 100 },
            Effect::Cut,
        ];
        let fault = |(at, effect): (usize, Effect)| Fault {
            name: format!("f{at}"),
            direction: Direction::Down,
            connections: Connections::New,
            effect,
        };
        let faults = effects.into_iter().enumerate().map(fault).collect();
        let faults = FaultsStatus { seed: 7, open_connections: 2, accepted_connections: 5, faults };
        let expected = "\
lease        1-3 (cache)
connections  2 open, 5 since the lease began
seed         7

faults
  name  direction  connections  effect
  f0    down       new          latency 100ms
  f1    down       new          latency 1.5s to 2s
  f2    down       new          loss of 5 %, sent again after 200ms
  f3    down       new          bandwidth 64.0 KiB/s
  f4    down       new          slow close, 2s later
  f5    down       new          limit of 100 B
  f6    down       new          cut
";
        assert_eq!(render(&lease("1-3", "cache"), &faults), expected);
        assert_eq!(describe(&faults.faults[6]), "cut, direction down, connections new");
        assert_eq!(describe(&Effect::Refuse.into()), "refuse");
    }
}
