//! Engine builds: the server programs found on this machine.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use testenv_api::{Engine, Problem, ProblemKind};
use testenv_config::ServiceConfig;

use crate::drivers::Driver;
use crate::{Result, inputs, io_problem, machine, process, process::User};

/// How long a program may take to say its version.
const VERSION_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of that read at the most.
const MAX_VERSION_TEXT: usize = 64 << 10;

/// How the builds of an engine are found on a machine.
#[derive(Debug)]
pub(crate) struct Search {
    /// What people call it.
    pub(crate) title: &'static str,
    /// Executables that make one, and the engine's name for each. The first engine that is found anywhere is the
    /// one.
    pub(crate) programs: &'static [(&'static str, &'static str)],
    /// How it is installed.
    pub(crate) install: String,
    /// Directories to look in before those of `PATH`.
    pub(crate) dirs: Vec<PathBuf>,
}

/// A build of an engine: which program, and exactly which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineBuild {
    /// Name, version and checksum.
    pub engine: Engine,
    /// The server's program.
    pub program: PathBuf,
    /// Its directory, where those that belong to it are.
    pub bin_dir: PathBuf,
    /// What runs the program where that is no program by itself: a Java.
    pub interpreter: Option<PathBuf>,
}

impl EngineBuild {
    /// The leading number of the version.
    pub fn major(&self) -> u32 {
        self.engine.version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0)
    }
}

/// Finds the build that a role asks for: the newest that matches.
///
/// `path` is the value of `PATH`; `root` the workspace, against which `bin_dir` is resolved.
///
/// # Errors
/// [`ProblemKind::EngineMissing`], with the builds that were found and how to install one.
pub(crate) fn find(
    driver: &dyn Driver,
    config: &ServiceConfig,
    root: &Path,
    path: &str,
    user: Option<&User>,
) -> Result<EngineBuild> {
    if let Some(build) = driver.find(config, root, path, user)? {
        return Ok(build);
    }
    let search = driver.search(config);
    let dirs = match &config.bin_dir {
        Some(dir) => vec![root.join(dir)],
        None => {
            let usual = ["/usr/local/bin", "/usr/bin", "/usr/sbin", "/opt/homebrew/bin"].map(PathBuf::from);
            search.dirs.iter().cloned().chain(std::env::split_paths(path)).chain(usual).collect()
        }
    };
    let mut found: Vec<EngineBuild> = Vec::new();
    for (program, name) in search.programs {
        for dir in &dirs {
            let Ok(file) = dir.join(program).canonicalize() else { continue };
            let bin_dir = file.parent().unwrap_or(dir).to_path_buf();
            // Some programs are several by the names they are called by: redis-server is one of redis-check-rdb's.
            let file = Some(bin_dir.join(program)).filter(|named| named.exists()).unwrap_or(file);
            if found.iter().any(|build| build.bin_dir == bin_dir) {
                continue;
            }
            machine::check_reachable(&file, user, "bin_dir")?;
            let engine = inspect(driver, &file, name)?;
            found.push(EngineBuild { engine, program: file, bin_dir, interpreter: None });
        }
        if found.iter().any(|build| build.engine.name == *name) {
            break;
        }
    }
    let names = search.programs.iter().map(|(_, name)| *name);
    let name = names.into_iter().find(|name| found.iter().any(|build| build.engine.name == *name));
    let matching = found
        .iter()
        .filter(|build| name.is_some_and(|name| build.engine.name == name))
        .filter(|build| config.version.as_ref().is_none_or(|it| matches(&build.engine.version, it)));
    let newest = matching.max_by_key(|build| version_key(&build.engine.version));
    let build = newest.cloned().ok_or_else(|| missing(&search, config, &dirs, &found))?;
    let interpreter = driver.interpreter(&build.engine.version, path)?;
    if let Some(file) = &interpreter {
        machine::check_reachable(file, user, "PATH")?;
    }
    Ok(EngineBuild { interpreter, ..build })
}

/// Whether `version` begins with the parts of `wanted`.
pub(crate) fn matches(version: &str, wanted: &str) -> bool {
    let ends = |rest: &str| rest.is_empty() || rest.starts_with(['.', '-', 'b', 'r', 'd']);
    version.strip_prefix(wanted).is_some_and(ends)
}

fn version_key(version: &str) -> Vec<u32> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

/// What was found out about a program, and what its file looked like then. Locked while it is being found out.
type Known = Arc<Mutex<Option<(inputs::Fingerprint, Engine)>>>;

/// Asks a program for its version and takes its checksum, once for each state of the file.
pub(crate) fn inspect(driver: &dyn Driver, program: &Path, name: &'static str) -> Result<Engine> {
    static KNOWN: Mutex<BTreeMap<PathBuf, Known>> = Mutex::new(BTreeMap::new());
    let file = driver.identity(program);
    let known = {
        let mut known = KNOWN.lock().expect("no panic while locked");
        Arc::clone(known.entry(file.clone()).or_default())
    };
    let mut known = known.lock().expect("no panic while locked");
    let fingerprint = inputs::Fingerprint::take([file.as_path()]);
    if let Some((_, engine)) = known.as_ref().filter(|(seen, _)| *seen == fingerprint) {
        return Ok(engine.clone());
    }
    let failed = |error: &std::io::Error| Problem {
        kind: ProblemKind::EngineMissing,
        ..io_problem(format!("find out the version of {}", program.display()), error)
    };
    let version = driver.version(program).map_err(|error| failed(&error))?;
    let sha256 = checksum(&file).map_err(|error| failed(&error))?;
    let name = driver.engine_name(name, &version).to_owned();
    let engine = Engine { name, version, sha256 };
    *known = Some((fingerprint, engine.clone()));
    Ok(engine)
}

/// The checksum of a file, read in pieces: some engines are one program of half a gigabyte.
fn checksum(file: &Path) -> std::io::Result<String> {
    let (mut file, mut hash, mut chunk) = (fs::File::open(file)?, Sha256::new(), vec![0; 256 << 10]);
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(inputs::hex(&hash.finalize())),
            count => hash.update(&chunk[..count]),
        }
    }
}

/// The version that a program prints when it is run with `args`.
///
/// # Errors
/// When it cannot be run, does not answer in time, or prints no version.
pub(crate) fn ask_version(program: &Path, args: &[&str]) -> std::io::Result<String> {
    let text = version_text(program, args)?;
    let version = parse_version(&text).map(str::to_owned);
    version.ok_or_else(|| std::io::Error::other(format!("no version in its answer: {text:?}")))
}

/// What a program prints when asked for its version, if it does so in time.
pub(crate) fn version_text(program: &Path, args: &[&str]) -> std::io::Result<String> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let (deadline, mut text) = (Instant::now() + VERSION_TIMEOUT, Vec::new());
    let read = child.stdout.take().map_or(Ok(()), |mut stdout| {
        let mut chunk = [0; 4096];
        while text.len() < MAX_VERSION_TEXT {
            if !process::readable(stdout.as_fd(), deadline.saturating_duration_since(Instant::now()))? {
                let limit = VERSION_TIMEOUT.as_secs();
                return Err(std::io::Error::other(format!("it did not say its version within {limit} s")));
            }
            match stdout.read(&mut chunk)? {
                0 => break,
                count => text.extend_from_slice(&chunk[..count]),
            }
        }
        Ok(())
    });
    // It has said all there is to say; a program that does not end after that is ended.
    let _ = child.kill();
    let _ = child.wait();
    read.map(|()| String::from_utf8_lossy(&text).into_owned())
}

/// The version in `postgres (PostgreSQL) 15.18 (Debian …)`, `Redis server v=7.0.15 sha=…` or `nats-server: v2.9.10`.
fn parse_version(text: &str) -> Option<&str> {
    text.split_whitespace()
        .map(|word| word.trim_start_matches('v').trim_start_matches('=').trim_end_matches(['.', ',']))
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))
}

fn missing(search: &Search, config: &ServiceConfig, dirs: &[PathBuf], found: &[EngineBuild]) -> Problem {
    let Search { title, install, .. } = search;
    let wanted = config.version.as_ref().map_or_else(String::new, |version| format!(" {version}"));
    let detail = if found.is_empty() {
        let dirs: Vec<_> = dirs.iter().map(|dir| dir.display().to_string()).collect();
        format!("looked in {}", dirs.join(", "))
    } else {
        let builds: Vec<_> =
            found.iter().map(|it| format!("{} in {}", it.engine.version, it.bin_dir.display())).collect();
        format!("found only {}", builds.join(", "))
    };
    Problem::new(ProblemKind::EngineMissing, format!("no {title}{wanted} on this machine"))
        .detail(detail)
        .hint(format!("install it ({install}), or name its directory with `bin_dir`"))
}

#[cfg(test)]
mod tests {
    use testenv_config::KindConfig;

    use super::*;
    use crate::drivers::postgres::Postgres;

    #[test]
    fn versions_match_by_whole_parts() {
        assert!(matches("15.18", "15"));
        assert!(matches("7.0.15", "7.0"));
        assert!(matches("19beta1", "19"));
        assert!(matches("10.11.19-MariaDB", "10.11.19"));
        assert!(!matches("15.18", "1"));
        assert!(!matches("15.18", "15.1"));
    }

    #[test]
    fn versions_are_read_from_what_the_programs_say() {
        assert_eq!(parse_version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some("15.18"));
        assert_eq!(
            parse_version("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0"),
            Some("7.0.15")
        );
        assert_eq!(parse_version("nats-server: v2.9.10\n"), Some("2.9.10"));
        assert_eq!(parse_version("ClickHouse server version 18.16.1.\n"), Some("18.16.1"));
        assert_eq!(parse_version("no such thing"), None);
    }

    #[test]
    fn the_newest_is_compared_by_number() {
        assert!(version_key("15.9") < version_key("15.18"));
    }

    #[test]
    fn a_missing_engine_says_what_was_found_and_how_to_install() {
        let mut config = ServiceConfig::new(KindConfig::Postgres);
        config.version = Some("99".into());
        let problem = find(&Postgres, &config, Path::new("/"), "", None).unwrap_err();
        assert_eq!(problem.kind, ProblemKind::EngineMissing);
        assert!(problem.title.contains("no PostgreSQL 99"), "{problem}");
        assert!(problem.hint.contains("apt-get install postgresql"), "{problem}");
    }
}
