//! Which engines the machine has.

use std::path::{Path, PathBuf};

use crate::run;

/// Directories that hold a PostgreSQL server's programs: in `PATH`, and where Debian, Fedora and Homebrew put
/// every major version.
pub(super) fn postgres_dirs() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<_> = std::env::split_paths(&path).collect();
    for parent in ["/usr/lib/postgresql", "/opt/homebrew/opt", "/usr/local/opt", "/usr"] {
        let children = std::fs::read_dir(parent).into_iter().flatten().flatten();
        let named = |name: &str| {
            parent == "/usr/lib/postgresql" || name.starts_with("postgresql@") || name.starts_with("pgsql-")
        };
        let versions = children.filter(|entry| entry.file_name().to_str().is_some_and(named));
        dirs.extend(versions.map(|entry| entry.path().join("bin")));
    }
    dirs.retain(|dir| dir.join("initdb").is_file() && dir.join("postgres").is_file());
    dirs.dedup();
    dirs
}

/// Major version that the `postgres` in this directory says it has.
pub(super) fn postgres_major(dir: &Path) -> Option<u32> {
    let program = dir.join("postgres");
    let text = run::output(run::command(program.to_str()?).arg("--version")).ok()?;
    major_of(&text)
}

/// `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)` → 15.
fn major_of(version: &str) -> Option<u32> {
    let number = version.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// Whether a Redis server, or Valkey, is there.
pub(super) fn has_redis() -> bool {
    ["redis-server", "valkey-server"].iter().any(|program| run::which(program).is_some())
}

#[cfg(test)]
mod tests {
    use super::major_of;

    #[test]
    fn reads_the_major_version_of_every_style_of_build() {
        assert_eq!(major_of("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(major_of("postgres (PostgreSQL) 19beta2"), Some(19));
        assert_eq!(major_of("postgres"), None);
    }
}
