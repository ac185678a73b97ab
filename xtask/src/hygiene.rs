//! What our crates may depend on: licences, crates that must not come in, and the edges between our own.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::run;

/// Licences that dependencies may have. An expression with `OR` needs one of them, with `AND` all.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Crates that must not come in, each with the reason.
const REFUSED: &[(&str, &str)] = &[
    ("openssl-sys", "needs OpenSSL's headers, which a machine with only Rust does not have; use rustls"),
    ("native-tls", "brings openssl-sys; use rustls"),
    ("async-std", "no longer maintained"),
    ("bindgen", "needs libclang, which a machine with only Rust does not have"),
];

/// Crates of which two versions at once are a mistake: slow to build, or their types would not match.
const ONCE: &[&str] =
    &["axum", "hyper", "rustix", "serde", "serde_json", "sqlx-core", "tokio", "tokio-postgres"];

/// The harness compiles into every test binary: it has fewer crates than this …
const HARNESS_CRATES: usize = 15;
/// … and none of these.
const HARNESS_REFUSED: &[&str] = &["tokio", "async-io", "async-executor", "mio", "hyper", "openssl-sys"];

/// Which of our crates each of our crates may use, outside of its own tests; `*` is all.
const EDGES: &[(&str, &[&str])] = &[
    ("testenv-api", &[]),
    ("testenv-config", &[]),
    ("testenv-macros", &[]),
    ("testenv-model", &[]),
    ("testenv-pins", &[]),
    ("testenv", &["testenv-api", "testenv-macros"]),
    ("testenv-report", &["testenv-api", "testenv-model"]),
    ("testenv-evidence", &["testenv-api", "testenv-model"]),
    ("testenv-store", &["testenv-api", "testenv-model"]),
    ("testenv-services", &["testenv-api", "testenv-config", "testenv-pins"]),
    ("testenv-broker", &["testenv-api", "testenv-config", "testenv-services"]),
    (
        "testenv-runner",
        &["testenv-api", "testenv-config", "testenv-evidence", "testenv-model", "testenv-report"],
    ),
    (
        "testenv-server",
        &["testenv-api", "testenv-evidence", "testenv-model", "testenv-report", "testenv-store"],
    ),
    ("testenv-cli", &["*"]),
    ("testkit", &["*"]),
    ("orders", &["testenv"]),
    ("xtask", &["testenv-api", "testenv-broker", "testenv-config", "testenv-pins"]),
];

/// Only in tests: no crate of ours may use these otherwise.
const DEV_ONLY: &[&str] = &["testkit", "xtask", "orders"];

/// Checks everything, and reports every violation at once.
///
/// # Errors
/// When something is not as it should be, or cargo cannot tell.
pub(crate) fn hygiene() -> Result<()> {
    let metadata = metadata()?;
    let mut violations = licences(&metadata);
    violations.extend(refused(&metadata));
    violations.extend(edges(&metadata));
    violations.extend(harness()?);
    if !violations.is_empty() {
        bail!("dependencies are not as they should be:\n  {}", violations.join("\n  "));
    }
    println!("\n=== hygiene: {} packages, licences and edges in order", packages(&metadata).len());
    Ok(())
}

fn metadata() -> Result<Value> {
    let platforms = ["--filter-platform=x86_64-unknown-linux-gnu", "--filter-platform=aarch64-apple-darwin"];
    let text = run::output(run::cargo(&["metadata", "--format-version=1"]).args(platforms))?;
    serde_json::from_str(&text).context("cargo metadata printed something that is not JSON")
}

fn packages(metadata: &Value) -> &[Value] {
    metadata["packages"].as_array().map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn licences(metadata: &Value) -> Vec<String> {
    let refused = packages(metadata).iter().filter(|package| !is_allowed(text(package, "license")));
    refused
        .map(|package| {
            let licence = package["license"].as_str().unwrap_or("without a licence");
            format!(
                "{} {}: {licence} is not in the list of licences",
                text(package, "name"),
                text(package, "version")
            )
        })
        .collect()
}

/// Whether an SPDX expression can be met: `OR` of `AND`s, with parentheses, and the old `MIT/Apache-2.0`.
fn is_allowed(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    let allowed = any_of(&mut words);
    allowed && words.peek().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any_of(words: &mut Words<'_>) -> bool {
    let mut allowed = all_of(words);
    while words.next_if_eq(&"OR").is_some() {
        allowed |= all_of(words);
    }
    allowed
}

fn all_of(words: &mut Words<'_>) -> bool {
    let mut allowed = one(words);
    while words.next_if_eq(&"AND").is_some() {
        allowed &= one(words);
    }
    allowed
}

fn one(words: &mut Words<'_>) -> bool {
    match words.next() {
        Some("(") => any_of(words) && words.next_if_eq(&")").is_some(),
        Some(name) => match words.next_if_eq(&"WITH").and_then(|_| words.next()) {
            Some(exception) => LICENCES.contains(&format!("{name} WITH {exception}").as_str()),
            None => LICENCES.contains(&name),
        },
        None => false,
    }
}

fn refused(metadata: &Value) -> Vec<String> {
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in packages(metadata) {
        versions.entry(text(package, "name")).or_default().insert(text(package, "version"));
    }
    let banned = REFUSED.iter().filter(|(name, _)| versions.contains_key(name));
    let twice =
        ONCE.iter().filter_map(|name| versions.get_key_value(name)).filter(|(_, found)| found.len() > 1);
    banned
        .map(|(name, why)| format!("{name} came in: {why}"))
        .chain(twice.map(|(name, found)| format!("{name} came in more than once: {found:?}")))
        .collect()
}

fn edges(metadata: &Value) -> Vec<String> {
    let ours = packages(metadata).iter().filter(|package| package["source"].is_null());
    let mut violations = Vec::new();
    for package in ours {
        let name = text(package, "name");
        let Some((_, allowed)) = EDGES.iter().find(|(known, _)| *known == name) else {
            violations.push(format!("{name} has no line in the table of edges in xtask/src/hygiene.rs"));
            continue;
        };
        let dependencies = package["dependencies"].as_array().into_iter().flatten();
        let own = dependencies.filter(|it| it["path"].is_string() && text(it, "kind") != "dev");
        for to in own.map(|dependency| text(dependency, "name")) {
            let any = allowed.contains(&"*") && !DEV_ONLY.contains(&to);
            if !any && !allowed.contains(&to) {
                violations.push(format!("{name} → {to} is not an allowed edge (ARCHITECTURE.md)"));
            }
        }
    }
    violations
}

fn harness() -> Result<Vec<String>> {
    let arguments =
        ["tree", "--package", "testenv", "--edges", "normal,build", "--prefix", "none", "--format", "{p}"];
    let tree = run::output(&mut run::cargo(&arguments))?;
    let names: BTreeSet<&str> = tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let mut violations: Vec<_> = HARNESS_REFUSED
        .iter()
        .filter(|name| names.contains(*name))
        .map(|name| format!("the harness reaches {name}; it compiles into every test binary"))
        .collect();
    if names.len() >= HARNESS_CRATES {
        violations.push(format!(
            "the harness has {} crates, more than {}: {names:?}",
            names.len(),
            HARNESS_CRATES - 1
        ));
    }
    Ok(violations)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn expressions_of_licences() {
        for good in ["MIT", "MIT OR GPL-3.0", "MIT/Apache-2.0", "(MIT OR GPL-3.0) AND Unicode-3.0"] {
            assert!(is_allowed(good), "{good}");
        }
        assert!(is_allowed("Apache-2.0 WITH LLVM-exception OR GPL-2.0-only"));
        for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT", "MIT MIT", "Apache-2.0 WITH Other-exception"] {
            assert!(!is_allowed(bad), "{bad}");
        }
    }

    fn with_edge(from: &str, to: &str, kind: Value) -> Value {
        json!({ "packages": [
            { "name": from, "source": null, "dependencies": [{ "name": to, "path": "/x", "kind": kind }] },
        ]})
    }

    #[test]
    fn edges_outside_the_table_are_refused() {
        assert_eq!(edges(&with_edge("testenv-broker", "testenv-services", Value::Null)), [""; 0]);
        assert_eq!(edges(&with_edge("testenv", "testkit", json!("dev"))), [""; 0]);
        assert_eq!(edges(&with_edge("testenv", "testenv-broker", Value::Null)).len(), 1);
        assert_eq!(edges(&with_edge("testenv-cli", "testkit", Value::Null)).len(), 1);
        assert_eq!(edges(&with_edge("testenv-new", "testenv-api", Value::Null)).len(), 1);
    }

    #[test]
    fn refused_and_doubled_crates_are_named() {
        let package = |name, version| json!({ "name": name, "version": version });
        let found = json!({ "packages": [
            package("native-tls", "1.0.0"), package("tokio", "1.0.0"), package("tokio", "2.0.0"), package("syn", "1.0.0"),
        ]});
        let violations = refused(&found);
        assert_eq!(violations.len(), 2, "{violations:?}");
    }

    #[test]
    fn this_workspace_is_in_order() {
        hygiene().unwrap();
    }
}
