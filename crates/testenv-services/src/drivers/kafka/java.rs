//! The Java that runs Kafka: which one, and with what flags.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use testenv_api::{Problem, ProblemKind};

use crate::{Result, engine};

/// Where systems put their Javas: each a directory of homes, whose names begin with the second part.
const HOMES: [(&str, &str); 6] = [
    ("/usr/lib/jvm", ""),
    ("/usr/java", ""),
    ("/opt", "java"),
    ("/opt", "jdk"),
    ("/opt/homebrew/opt", "openjdk"),
    ("/usr/local/opt", "openjdk"),
];

/// For a server that lives seconds: the collector and the compiler that start fastest, and nothing that others
/// could look at. What is compiled for a diagnosis is not asked for; what a Java does not know is ignored.
const FLAGS: [&str; 14] = [
    "-XX:+IgnoreUnrecognizedVMOptions",
    "-Xms64m",
    "-Xmn16m",
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",
    "-XX:+ExitOnOutOfMemoryError",
    "-Xshare:auto",
    // Loaded where it was made, so that servers share the memory that it takes.
    "-XX:+UnlockDiagnosticVMOptions",
    "-XX:ArchiveRelocationMode=0",
    "-Xlog:disable",
    "-Xlog:all=error:stderr",
    "-Djava.awt.headless=true",
];

/// The flags that every Kafka is run with.
pub(super) fn flags() -> Vec<OsString> {
    FLAGS.iter().map(OsString::from).collect()
}

/// Finds a Java of at least this major version: the first in `path` that is, else the newest of the usual places.
///
/// # Errors
/// [`ProblemKind::EngineMissing`] with the Javas that were found, and how to install one.
pub(super) fn find(path: &str, least: u32, for_what: &str) -> Result<PathBuf> {
    let in_path: Vec<_> = std::env::split_paths(path).map(|dir| dir.join("java")).collect();
    choose(known(in_path), known(usual()), least).map_err(|found| {
        let saw = match found.as_slice() {
            [] => "found no `java` in PATH nor in the usual places".to_owned(),
            found => format!("found only {}", found.join(", ")),
        };
        Problem::new(ProblemKind::EngineMissing, format!("no Java {least} or newer on this machine"))
            .detail(format!("{for_what} needs it; {saw}"))
            .hint(format!(
                "install one (Debian, Ubuntu: apt-get install default-jre-headless), or put the directory of a \
                 Java {least} first in PATH"
            ))
    })
}

/// A Java and its major version.
type Java = (PathBuf, u32);

fn choose(in_path: Vec<Java>, mut usual: Vec<Java>, least: u32) -> Result<PathBuf, Vec<String>> {
    usual.sort_by_key(|(_, major)| std::cmp::Reverse(*major));
    let all: Vec<_> = in_path.into_iter().chain(usual).collect();
    match all.iter().find(|(_, major)| *major >= least) {
        Some((file, _)) => Ok(file.clone()),
        None => Err(all.iter().map(|(file, major)| format!("{major} in {}", file.display())).collect()),
    }
}

/// Those of these programs that are there and say their version, each once.
fn known(programs: Vec<PathBuf>) -> Vec<Java> {
    let mut found: Vec<Java> = Vec::new();
    for file in programs.into_iter().filter_map(|file| file.canonicalize().ok()) {
        if found.iter().any(|(known, _)| *known == file) {
            continue;
        }
        if let Some(major) = major(&file) {
            found.push((file, major));
        }
    }
    found
}

fn usual() -> Vec<PathBuf> {
    let homes = |(parent, name): (&str, &'static str)| {
        let children = fs::read_dir(parent).into_iter().flatten().flatten();
        children
            .filter(move |child| child.file_name().to_string_lossy().starts_with(name))
            .map(|child| child.path().join("bin/java"))
    };
    HOMES.into_iter().flat_map(homes).collect()
}

/// Major version of a Java: from the file beside it that says so, which costs nothing, else by asking.
fn major(java: &Path) -> Option<u32> {
    let release = java.ancestors().nth(2).map(|home| home.join("release"));
    let release = release.and_then(|file| fs::read_to_string(file).ok()).unwrap_or_default();
    let said = release.lines().find_map(|line| line.strip_prefix("JAVA_VERSION="));
    match said {
        Some(version) => major_of(version.trim_matches('"')),
        None => major_of(&engine::ask_version(java, &["--version"]).ok()?),
    }
}

/// `17.0.15` → 17, and `1.8.0_292` → 8.
fn major_of(version: &str) -> Option<u32> {
    let mut parts = version.split(|c: char| !c.is_ascii_digit());
    match parts.next()?.parse().ok()? {
        1 => parts.next()?.parse().ok(),
        major => Some(major),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_every_style_are_read() {
        assert_eq!(major_of("17.0.15"), Some(17));
        assert_eq!(major_of("25-ea"), Some(25));
        assert_eq!(major_of("1.8.0_292"), Some(8));
        assert_eq!(major_of("x"), None);
    }

    #[test]
    fn the_users_own_java_is_taken_if_it_is_new_enough() {
        let java = |name: &str, major| (PathBuf::from(name), major);
        let usual = || vec![java("/jvm/11", 11), java("/jvm/17", 17), java("/jvm/25", 25)];
        assert_eq!(choose(vec![java("/own", 17)], usual(), 17), Ok("/own".into()));
        assert_eq!(choose(vec![java("/own", 8)], usual(), 17), Ok("/jvm/25".into()));
        let none = choose(vec![java("/own", 8)], vec![java("/jvm/11", 11)], 17);
        assert_eq!(none, Err(vec!["8 in /own".into(), "11 in /jvm/11".into()]));
    }

    #[test]
    fn what_is_missing_is_told_with_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("jdk");
        fs::create_dir_all(home.join("bin")).unwrap();
        fs::write(home.join("bin/java"), "").unwrap();
        fs::write(home.join("release"), "IMPLEMENTOR=\"x\"\nJAVA_VERSION=\"1.8.0_292\"\n").unwrap();
        let path = home.join("bin").display().to_string();
        let problem = find(&path, 9999, "Kafka 4.0.0").unwrap_err();
        assert_eq!(problem.kind, ProblemKind::EngineMissing);
        assert!(problem.title.contains("no Java 9999 or newer"), "{problem}");
        assert!(problem.detail.contains("Kafka 4.0.0 needs it; found only 8 in "), "{problem}");
        assert!(problem.hint.contains("default-jre-headless"), "{problem}");
    }
}
