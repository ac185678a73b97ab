//! cargo-nextest, built from source by cargo.

use anyhow::Result;

use super::Missing;
use crate::run;

/// The version that is installed where there is none; any from [`OLDEST`] on is taken as it is.
const VERSION: &str = "0.9.151";
const OLDEST: (u32, u32, u32) = (0, 9, 100);

pub(super) fn missing() -> Option<Missing> {
    let found = run::output(&mut run::cargo(&["nextest", "--version"])).ok();
    if found.as_deref().and_then(version_of).is_some_and(|version| version >= OLDEST) {
        return None;
    }
    let arguments =
        ["install", "cargo-nextest", "--locked", "--no-default-features", "--features", "default-no-update"];
    let command = format!("cargo {} --version {VERSION}", arguments.join(" "));
    let install = move || -> Result<()> {
        run::step("nextest", run::cargo(&arguments).args(["--version", VERSION, "--quiet"]))
    };
    Some(Missing {
        what: format!("cargo-nextest {VERSION} (built from source: about four minutes on two cores)"),
        command,
        install: Some(Box::new(install)),
    })
}

/// `cargo-nextest 0.9.151 (abc 2026-01-01)` → (0, 9, 151).
fn version_of(text: &str) -> Option<(u32, u32, u32)> {
    let word = text.lines().next()?.split_whitespace().nth(1)?;
    let mut numbers = word.split(['.', '-']).map(|part| part.parse().ok());
    Some((numbers.next()??, numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    use super::version_of;

    #[test]
    fn reads_nextests_version() {
        assert_eq!(version_of("cargo-nextest 0.9.151 (1a2b 2026-01-01)\nrelease: x"), Some((0, 9, 151)));
        assert_eq!(version_of("cargo-nextest 0.9.99-rc.1"), Some((0, 9, 99)));
        assert_eq!(version_of("error: no such command"), None);
    }
}
