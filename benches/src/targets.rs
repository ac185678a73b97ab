//! What testenv promises, beside what was measured, and beside what the machine charges for the same in any case.

use crate::floor;
use crate::stats::Row;

/// One promise.
struct Target {
    what: &'static str,
    bound: Bound,
    unit: &'static str,
    /// Rows that it is about: their table, and how their names begin.
    table: &'static str,
    who: &'static str,
    cell: &'static str,
    /// The row of [`floor`] that cannot be undercut, as its name begins.
    floor: Option<&'static str>,
}

#[derive(Clone, Copy)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

const TARGETS: [Target; 11] = [
    Target {
        what: "lease of a PostgreSQL server, warm, p50",
        bound: Bound::AtMost(0.2),
        unit: "ms",
        table: "lease",
        who: "testenv, a server of its own, warm",
        cell: "lease p50 ms",
        floor: Some(floor::WAKE),
    },
    Target {
        what: "the same, p99",
        bound: Bound::AtMost(2.0),
        unit: "ms",
        table: "lease",
        who: "testenv, a server of its own, warm",
        cell: "lease p99 ms",
        floor: None,
    },
    Target {
        what: "first query on it, new connection, p50",
        bound: Bound::AtMost(2.0),
        unit: "ms",
        table: "lease",
        who: "testenv, a server of its own, warm",
        cell: "first query, new connection, p50 ms",
        floor: Some(floor::SESSION),
    },
    Target {
        what: "lease and first query, pool empty, p50",
        bound: Bound::AtMost(16.0),
        unit: "ms",
        table: "private",
        who: "testenv, a server of its own, pool empty",
        cell: "p50 ms",
        floor: Some(floor::START),
    },
    Target {
        what: "servers a second, sustained",
        bound: Bound::AtLeast(80.0),
        unit: "",
        table: "private",
        who: "testenv, a server of its own, warm",
        cell: "a second",
        floor: None,
    },
    Target {
        what: "databases a second, sustained",
        bound: Bound::AtLeast(200.0),
        unit: "",
        table: "private",
        who: "testenv, a database of its own, warm",
        cell: "a second",
        floor: None,
    },
    Target {
        what: "memory of an idle server",
        bound: Bound::AtMost(8.0),
        unit: "MB",
        table: "memory",
        who: "testenv, ",
        cell: "MB a server",
        floor: None,
    },
    Target {
        what: "lease of a Redis server, warm, p50",
        bound: Bound::AtMost(0.2),
        unit: "ms",
        table: "lease",
        who: "testenv, Redis, warm",
        cell: "lease p50 ms",
        floor: Some(floor::WAKE),
    },
    Target {
        what: "the same, pool empty",
        bound: Bound::AtMost(8.0),
        unit: "ms",
        table: "lease",
        who: "testenv, Redis, pool empty",
        cell: "lease p50 ms",
        floor: None,
    },
    Target {
        what: "crates of the harness",
        bound: Bound::AtMost(14.0),
        unit: "",
        table: "build",
        who: "testenv",
        cell: "crates",
        floor: None,
    },
    Target {
        what: "clean build of the harness",
        bound: Bound::AtMost(5.0),
        unit: "s",
        table: "build",
        who: "testenv",
        cell: "clean build s",
        floor: None,
    },
];

/// A table: each target, what was measured, and by how much it was missed.
pub fn table(rows: &[Row]) -> String {
    let mut text =
        String::from("| | target | measured | | the machine's floor |\n|---|---:|---:|---|---:|\n");
    for target in &TARGETS {
        let about = rows.iter().filter(|row| row.table == target.table && is_about(&row.who, target.who));
        for row in about {
            let Some(measured) = row.cells.get(target.cell).and_then(|cell| cell.as_f64()) else { continue };
            let version = row.who.find('(').map_or("", |at| &row.who[at..]).trim_matches(['(', ')']);
            let floor = target.floor.and_then(|floor| floor_of(rows, floor, version));
            let in_unit = |number: f64| format!("{number} {}", target.unit).trim_end().to_owned();
            let floor = floor.map(in_unit).unwrap_or_default();
            let (sign, bound, missed_by) = match target.bound {
                Bound::AtMost(bound) => ("≤", bound, measured / bound),
                Bound::AtLeast(bound) => ("≥", bound, bound / measured),
            };
            let verdict = match missed_by {
                ..=1.0 => "met".to_owned(),
                ..2.0 => format!("missed by {:.0} %", (missed_by - 1.0) * 100.0),
                _ => format!("missed {missed_by:.1} times"),
            };
            let of = if version.is_empty() { String::new() } else { format!(" ({version})") };
            let (what, bound, measured) = (target.what, in_unit(bound), in_unit(measured));
            text.push_str(&format!("| {what}{of} | {sign} {bound} | {measured} | {verdict} | {floor} |\n"));
        }
    }
    text
}

/// Whether a row's name is `who`, a version aside, or begins with it where that is left open.
fn is_about(name: &str, who: &str) -> bool {
    name == who || name.strip_prefix(who).is_some_and(|rest| rest.starts_with(" (") || who.ends_with(", "))
}

fn floor_of(rows: &[Row], who: &str, version: &str) -> Option<f64> {
    let found = rows.iter().find(|row| {
        row.table == "floor"
            && row
                .who
                .strip_prefix(who)
                .is_some_and(|rest| rest.is_empty() || rest.contains(&format!("{version},")))
    });
    found?.cells.get("p50 ms")?.as_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_miss_is_said_with_its_size_and_the_floor() {
        let rows = [
            Row::new("lease", "testenv, a server of its own, warm (PostgreSQL 15)")
                .cell("first query, new connection, p50 ms", 3.0),
            Row::new("lease", "testenv, a server of its own, warm (PostgreSQL 18)")
                .cell("first query, new connection, p50 ms", 1.0),
            Row::new("floor", format!("{} (PostgreSQL 15, no fsync, tmpfs)", floor::SESSION))
                .cell("p50 ms", 2.5),
            Row::new("build", "testenv").cell("crates", 14.0),
            Row::new("build", "testenv, feature sqlx").cell("crates", 125.0),
        ];
        let expected = "\
| | target | measured | | the machine's floor |
|---|---:|---:|---|---:|
| first query on it, new connection, p50 (PostgreSQL 15) | ≤ 2 ms | 3 ms | missed by 50 % | 2.5 ms |
| first query on it, new connection, p50 (PostgreSQL 18) | ≤ 2 ms | 1 ms | met |  |
| crates of the harness | ≤ 14 | 14 | met |  |
";
        assert_eq!(table(&rows), expected);
    }
}
