//! What a lease promises.

use std::time::Duration;

use testenv_api::{Isolation, Kept, Outcome, OutcomeRequest};
use testkit::within;

use crate::place::{Place, Runtime};

type Result<T = (), E = String> = std::result::Result<T, E>;

/// One promise.
pub(crate) struct Check {
    /// Name of the test.
    pub(crate) name: &'static str,
    /// For the documentation.
    pub(crate) promise: &'static str,
    pub(crate) run: fn(&Place) -> Result,
}

/// All of them.
pub(crate) const CHECKS: [Check; 7] = [
    Check { name: "is_ready", promise: "is ready and prepared the moment it is there", run: is_ready },
    Check { name: "is_recorded", promise: "says where and on what it runs", run: is_recorded },
    Check {
        name: "is_apart",
        promise: "sees nothing of other leases, those before it included",
        run: is_apart,
    },
    Check {
        name: "is_stable",
        promise: "outlives a change of the files; the next has the change",
        run: is_stable,
    },
    Check { name: "tells_a_broken_seed", promise: "tells which file is wrong, and where", run: broken_seed },
    Check { name: "is_kept", promise: "stays with its data when the test failed", run: is_kept },
    Check {
        name: "survives_a_killed_broker",
        promise: "leaves nothing when the broker is killed",
        run: killed_broker,
    },
];

fn is_ready(place: &Place) -> Result {
    let site = place.site()?;
    for _ in 0..3 {
        let held = site.lease()?;
        place.subject.check_new(held.lease())?;
    }
    site.end();
    Ok(())
}

fn is_recorded(place: &Place) -> Result {
    let site = place.site()?;
    let held = site.lease()?;
    let lease = held.lease();
    let wrong = |what: &str| Err(format!("{what}: {lease:?}"));
    if lease.runtime != place.runtime.as_str() || lease.isolation != place.isolation {
        return wrong("it runs elsewhere");
    }
    if !lease.engine.version.starts_with(|c: char| c.is_ascii_digit()) {
        return wrong("it has no version");
    }
    if (lease.engine.sha256.len() == 64) != (place.runtime == Runtime::Native) {
        return wrong("its checksum is wrong");
    }
    // A prefix may be empty.
    if lease.env.values().all(String::is_empty) || lease.connect_command.is_empty() {
        return wrong("it does not say how to get there");
    }
    drop(held);
    site.end();
    Ok(())
}

fn is_apart(place: &Place) -> Result {
    let site = place.site()?;
    let subject = place.subject;
    let (one, two) = (site.lease()?, site.lease()?);
    subject.write(one.lease(), "of one")?;
    subject.write(two.lease(), "of two")?;
    let expected: [&[&str]; 2] = match place.isolation {
        Isolation::Shared => [&["of one", "of two"], &["of one", "of two"]],
        Isolation::Server | Isolation::Namespace => [&["of one"], &["of two"]],
    };
    for (held, expected) in [&one, &two].into_iter().zip(expected) {
        let read = subject.read(held.lease())?;
        if read != expected {
            return Err(format!("read {read:?} instead of {expected:?}"));
        }
    }
    drop((one, two));
    if place.isolation != Isolation::Shared {
        for _ in 0..4 {
            subject.check_new(site.lease()?.lease())?;
        }
    }
    site.end();
    Ok(())
}

fn is_stable(place: &Place) -> Result {
    let site = place.site()?;
    let subject = place.subject;
    let old = site.lease()?;
    let (path, content) = subject.files().last().ok_or("there are no files")?;
    site.workspace.write(path, "\n");
    let new = site.lease()?;
    if subject.check_new(new.lease()).is_ok() {
        return Err(format!("{path} was changed, and the next lease does not have the change"));
    }
    subject.check_new(old.lease())?;
    site.workspace.write(path, content);
    subject.check_new(site.lease()?.lease())?;
    drop((old, new));
    site.end();
    Ok(())
}

fn broken_seed(place: &Place) -> Result {
    let site = place.site()?;
    let (path, content, expected) = place.subject.broken();
    site.workspace.write(path, content);
    match site.lease() {
        Ok(_) => return Err(format!("{path} is wrong, and there is a lease")),
        Err(message) if !message.contains(expected) => {
            return Err(format!("it does not say {expected:?}:\n{message}"));
        }
        Err(_) => {}
    }
    site.end();
    Ok(())
}

fn is_kept(place: &Place) -> Result {
    if place.isolation == Isolation::Shared {
        return Ok(());
    }
    let site = place.site()?;
    let held = site.lease()?;
    let lease = held.lease().clone();
    place.subject.write(&lease, "evidence")?;
    let failed = OutcomeRequest { outcome: Outcome::Failed };
    let path = format!("/v1/leases/{}/outcome", lease.id);
    let kept: Kept = site.workspace.client().post(&path, &failed).map_err(|error| error.to_string())?;
    drop(held);
    if !kept.kept {
        return Err("it is not kept".into());
    }
    let listed = || {
        let kept = site.workspace.status().kept;
        if kept.len() == 1 { Ok(()) } else { Err(format!("kept are {kept:?}")) }
    };
    within(Duration::from_secs(5), listed)?;
    let read = place.subject.read(&lease)?;
    if read != ["evidence"] {
        return Err(format!("what is kept holds {read:?}"));
    }
    site.end();
    Ok(())
}

fn killed_broker(place: &Place) -> Result {
    let site = place.site()?;
    let held = site.lease()?;
    let pid = site.workspace.broker_pid().map_err(|error| error.to_string())?;
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).ok_or("it has no pid")?;
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).map_err(|error| error.to_string())?;
    drop(held);
    let next = site.lease()?;
    place.subject.check_new(next.lease())?;
    drop(next);
    site.end();
    Ok(())
}
