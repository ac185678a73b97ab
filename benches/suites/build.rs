//! Writes the tests: for each suite, a file with [`TESTS`] functions that differ in their names only.

use std::fmt::Write as _;
use std::path::PathBuf;

const TESTS: usize = 1000;

/// Suite, attribute, signature, body.
const SUITES: [(&str, &str, &str, &str); 5] = [
    ("naive", "#[test]", "fn NAME()", "three_queries(stringify!(NAME))"),
    (
        "sqlx",
        "#[sqlx::test(migrator = \"MIGRATOR\")]",
        "async fn NAME(pool: PgPool)",
        "three_queries(&pool).await",
    ),
    ("ours_sqlx", "#[testenv::test]", "async fn NAME(db: Postgres)", "on_a_pool(&db).await"),
    ("ours", "#[testenv::test]", "async fn NAME(db: Postgres)", "on_a_session(&db).await"),
    (
        "ours_database",
        "#[testenv::test(isolation = \"namespace\")]",
        "async fn NAME(db: Postgres)",
        "on_a_session(&db).await",
    ),
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    for (suite, attribute, signature, body) in SUITES {
        let mut tests = String::new();
        for number in 0..TESTS {
            let name = format!("t{number:04}");
            let test = format!("{attribute}\n{signature} {{\n    {body}\n}}\n").replace("NAME", &name);
            writeln!(tests, "{test}").expect("a String takes everything");
        }
        std::fs::write(out.join(format!("{suite}.rs")), tests).expect("OUT_DIR is writable");
    }
}
