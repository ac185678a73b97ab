//! The table that the documentation shows.

use std::fmt::Write as _;

use testkit::subject::SUBJECTS;

use crate::checks::CHECKS;
use crate::place::Place;

/// Runs everything, and says of each combination on which engine it ran and what it keeps.
pub(crate) fn markdown() -> String {
    let mut text =
        String::from("| service | runtime | isolation | engine | promises kept |\n|---|---|---|---|---|\n");
    let subjects = SUBJECTS.iter().filter(|subject| subject.lacking().is_none());
    for place in subjects.flat_map(|subject| Place::all(*subject)) {
        let broken: Vec<_> = CHECKS
            .iter()
            .filter_map(|check| (check.run)(&place).err().map(|error| (check.name, error)))
            .collect();
        let kept = match broken.as_slice() {
            [] => format!("all {}", CHECKS.len()),
            broken => {
                let names: Vec<_> = broken.iter().map(|(name, _)| *name).collect();
                format!("not {}", names.join(", "))
            }
        };
        let engine = engine(place).unwrap_or_else(|why| why.lines().next().unwrap_or_default().to_owned());
        let (service, runtime) = (place.subject.service(), place.runtime.as_str());
        let _ = writeln!(text, "| {service} | {runtime} | {} | {engine} | {kept} |", place.isolation);
    }
    text.push_str("\nWhat is promised of a lease, and checked in each:\n\n");
    for check in &CHECKS {
        let _ = writeln!(text, "- it {}", check.promise);
    }
    text
}

fn engine(place: Place) -> Result<String, String> {
    let site = place.site()?;
    let held = site.lease()?;
    let engine = format!("{} {}", held.lease().engine.name, held.lease().engine.version);
    drop(held);
    site.end();
    Ok(engine)
}
