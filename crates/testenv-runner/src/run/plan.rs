//! The planned set: what `cargo nextest list` says about the same arguments.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use testenv_model::CaseId;

/// What the list says, as far as it is of use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Listed {
    /// Tests that will run.
    pub(super) planned: BTreeSet<CaseId>,
    /// How many there are besides: ignored, filtered out, in another partition.
    pub(super) skipped: usize,
    /// Target triples that test binaries are built for.
    pub(super) triples: BTreeSet<String>,
}

/// Reads the JSON of `cargo nextest list --message-format json`.
pub(super) fn parse(json: &[u8]) -> Result<Listed, serde_json::Error> {
    let list: List = serde_json::from_slice(json)?;
    let mut listed = Listed::default();
    for (suite, tests) in &list.suites {
        for (name, test) in &tests.testcases {
            if test.filter_match.status == "matches" {
                listed.planned.insert(CaseId::new(suite, name));
            } else {
                listed.skipped += 1;
            }
        }
    }
    let meta = list.meta;
    let host = meta.platforms.and_then(|platforms| platforms.host).map(|host| host.platform.triple);
    listed.triples.extend(host);
    listed.triples.extend(meta.target_platforms.into_iter().map(|platform| platform.triple));
    Ok(listed)
}

#[derive(Deserialize)]
struct List {
    #[serde(rename = "rust-build-meta")]
    meta: Meta,
    #[serde(rename = "rust-suites", default)]
    suites: BTreeMap<String, Suite>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Meta {
    platforms: Option<Platforms>,
    #[serde(default)]
    target_platforms: Vec<Platform>,
}

#[derive(Deserialize)]
struct Platforms {
    host: Option<Host>,
}

#[derive(Deserialize)]
struct Host {
    platform: Platform,
}

#[derive(Deserialize)]
struct Platform {
    triple: String,
}

#[derive(Deserialize)]
struct Suite {
    #[serde(default)]
    testcases: BTreeMap<String, Test>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Test {
    filter_match: FilterMatch,
}

#[derive(Deserialize)]
struct FilterMatch {
    status: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_by_nextest() {
        let listed = parse(
            br#"{"rust-build-meta": {"target-directory": "/t", "platforms": {"host": {"platform":
                {"triple": "x86_64-unknown-linux-gnu", "target-features": "unknown"}}, "targets": []},
                "target-platforms": [{"triple": "x86_64-unknown-linux-gnu"}]},
            "test-count": 2, "rust-suites": {
                "a": {"status": "listed", "testcases": {
                    "t::one": {"kind": "test", "ignored": false, "filter-match": {"status": "matches"}},
                    "t::two": {"ignored": true, "filter-match": {"status": "mismatch", "reason": "ignored"}}}},
                "b": {"status": "skipped", "testcases": {}}}}"#,
        )
        .unwrap();
        assert_eq!(listed.planned, BTreeSet::from([CaseId::new("a", "t::one")]));
        assert_eq!((listed.skipped, listed.triples.len()), (1, 1));
    }
}
