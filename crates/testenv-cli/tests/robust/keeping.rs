use std::time::Duration;

use testenv_api::client::Held;
use testenv_api::{EndedLease, KeepPolicy, KeepRequest, Kept, LeaseRequest, Outcome, OutcomeRequest};
use testkit::{Sql, TestWorkspace, until};

use crate::workspace;

fn lease(workspace: &TestWorkspace, keep: Option<KeepPolicy>) -> Held {
    workspace.lease_as(&LeaseRequest { role: Some("database".into()), keep, ..LeaseRequest::default() })
}

fn say(held: &Held, outcome: Outcome) -> Kept {
    let path = format!("/v1/leases/{}/outcome", held.lease().id);
    held.client().post(&path, &OutcomeRequest { outcome }).unwrap()
}

/// Ids of the kept servers, when the broker has dealt with the end of `lease`.
#[track_caller]
fn kept_after(workspace: &TestWorkspace, lease: Held) -> Vec<String> {
    let id = lease.lease().id.clone();
    drop(lease);
    until(Duration::from_secs(5), || {
        let ended: Vec<EndedLease> = workspace.client().get("/v1/leases/ended").unwrap();
        if ended.iter().any(|ended| ended.id == id) { Ok(()) } else { Err(format!("{id} has not ended")) }
    });
    workspace.status().kept.into_iter().map(|kept| kept.id).collect()
}

#[test]
fn what_is_kept_is_what_the_policy_says() {
    use KeepPolicy::{Always, Failed, Never, UnlessPassed};
    let workspace = workspace("");
    for (policy, outcome, kept) in [
        (None, None, false),
        (None, Some(Outcome::Failed), true),
        (None, Some(Outcome::Passed), false),
        (Some(Failed), Some(Outcome::Failed), true),
        (Some(UnlessPassed), None, true),
        (Some(UnlessPassed), Some(Outcome::Passed), false),
        (Some(Always), Some(Outcome::Passed), true),
        (Some(Never), Some(Outcome::Failed), false),
    ] {
        let held = lease(&workspace, policy);
        let id = held.lease().id.clone();
        if let Some(outcome) = outcome {
            assert_eq!(say(&held, outcome).kept, kept, "{policy:?} {outcome:?}");
        }
        assert_eq!(kept_after(&workspace, held).contains(&id), kept, "{policy:?} {outcome:?}");
    }
    workspace.end();
}

#[test]
fn a_kept_server_has_its_data_and_can_be_reached() {
    let workspace = workspace("");
    let held = lease(&workspace, None);
    Sql::connect(held.lease()).unwrap().run("INSERT INTO items (name) VALUES ('evidence')").unwrap();
    let path = format!("/v1/leases/{}/keep", held.lease().id);
    let kept: Kept = held.client().post(&path, &KeepRequest { reason: Some("to look".into()) }).unwrap();
    assert!(kept.kept && kept.connect_command.starts_with("psql"), "{kept:?}");
    let lease = held.lease().clone();
    assert_eq!(kept_after(&workspace, held), std::slice::from_ref(&lease.id));
    let names: Vec<String> = Sql::connect(&lease).unwrap().column("SELECT name FROM items").unwrap();
    assert!(names.contains(&"evidence".to_owned()));
    assert!(workspace.client().get_text(&format!("/v1/leases/{}/logs", lease.id)).is_ok());
    workspace.end();
}

#[test]
fn the_oldest_goes_when_too_many_are_kept_and_all_go_in_time() {
    let workspace = workspace("[broker]\nkeep = \"always\"\nkeep_max = 2\nkeep_for = \"3s\"\n");
    let mut ids = Vec::new();
    for _ in 0..3 {
        let held = lease(&workspace, None);
        ids.push(held.lease().id.clone());
        let kept = kept_after(&workspace, held);
        assert_eq!(kept, ids[ids.len().saturating_sub(2)..]);
    }
    until(Duration::from_secs(8), || match workspace.status().kept {
        kept if kept.is_empty() => Ok(()),
        kept => Err(format!("{kept:?}")),
    });
    workspace.end();
}

#[test]
fn a_kept_server_makes_room_for_one_that_is_waited_for() {
    let workspace = workspace("[pool]\nmax_servers = 2\nwarm = 0\n[broker]\nkeep = \"always\"\n");
    for _ in 0..4 {
        drop(lease(&workspace, None));
    }
    let (one, two) = (lease(&workspace, None), lease(&workspace, None));
    assert_ne!(one.lease().port, two.lease().port);
    drop((one, two));
    workspace.end();
}
