//! The engine of each role, and the clients that connect commands name.

use std::path::PathBuf;

use testenv_api::Problem;

use super::files::sudo;
use super::finding::{Check, Finding, Group, Severity};
use super::probe::RoleEngine;

const ENGINE: Check = Check::new("engine", Group::Services);
const CLIENT: Check = Check::new("client", Group::Services);

/// Debian's packages of clients.
const PACKAGES: [(&str, &str); 6] = [
    ("psql", "postgresql-client"),
    ("redis-cli", "redis-tools"),
    ("valkey-cli", "valkey-tools"),
    ("mariadb", "mariadb-client"),
    ("mysql", "default-mysql-client"),
    ("clickhouse-client", "clickhouse-client"),
];

/// `has_apt` is whether Debian's package manager is here.
pub(super) fn judge_engine(seen: &RoleEngine, has_apt: bool) -> Finding {
    let problem = match &seen.found {
        Ok(engine) => {
            let text = format!("{}: {} {}", seen.role, engine.name, engine.version);
            let (text, place) = match &engine.declared_by {
                Some(variable) => {
                    (format!("{text} that {variable} names"), "somebody else runs it".to_owned())
                }
                None => (text, format!("in {}", engine.dir.display())),
            };
            return Finding::ok(ENGINE, text).of(&seen.role).means(place);
        }
        Err(problem) => problem,
    };
    let (severity, means) = if seen.wanted {
        (Severity::Problem, format!("whoever asks for {} is refused", seen.role))
    } else {
        (Severity::Note, format!("`--service {}` is refused; testenv.toml asks for nothing", seen.role))
    };
    let finding = Finding::new(ENGINE, severity, format!("{}: {}", seen.role, problem.title))
        .of(&seen.role)
        .means(format!("{means}\n{}", problem.detail).trim_end());
    // What the distribution has is here already, but is not the version that is asked for.
    if problem.detail.starts_with("found only") {
        return finding.advice(format!("{}; or ask for a version that is there", problem.hint));
    }
    let finding = finding.advice(problem.hint.clone());
    match install_command(problem).filter(|_| has_apt) {
        Some(command) => finding.command(format!("{}{command}", sudo())),
        None => finding,
    }
}

/// The command in a hint such as `install it (Debian, Ubuntu: apt-get install redis-server), or …`.
fn install_command(problem: &Problem) -> Option<&str> {
    let command = &problem.hint[problem.hint.find("apt-get install ")?..];
    Some(command.split([')', ',', ';', '\n']).next().unwrap_or(command).trim())
}

/// Clients of the engines that were found; `has` tells whether there is such a program.
pub(super) fn judge_clients(engines: &[RoleEngine], has: impl Fn(&str) -> bool) -> Vec<Finding> {
    let found = engines.iter().filter_map(|engine| engine.found.as_ref().ok());
    let mut clients: Vec<_> = found.map(|found| found.client.as_str()).filter(|it| !it.is_empty()).collect();
    clients.sort_unstable();
    clients.dedup();
    clients.into_iter().map(|client| judge_client(client, &has)).collect()
}

fn judge_client(client: &str, has: &impl Fn(&str) -> bool) -> Finding {
    if has(client) {
        return Finding::ok(CLIENT, client).of(client);
    }
    let finding = Finding::new(CLIENT, Severity::Note, format!("no {client} in PATH"))
        .of(client)
        .means("the command that a failed test prints to look into its server cannot be run here");
    match PACKAGES.iter().find(|(program, _)| *program == client) {
        Some((_, package)) if has("apt-get") => {
            finding.advice("install it").command(format!("{}apt-get install {package}", sudo()))
        }
        Some((_, package)) => {
            finding.advice(format!("install it (Debian, Ubuntu: apt-get install {package})"))
        }
        None => finding.advice("install it"),
    }
}

/// Whether a program is in a directory of `path`, the value of `PATH`; or, given by its own path, there.
pub(super) fn in_path(path: &str, program: &str) -> bool {
    // An absolute path takes the directory's place.
    std::env::split_paths(path).chain([PathBuf::new()]).any(|dir| dir.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use testenv_api::ProblemKind;

    use super::super::probe::FoundEngine;
    use super::*;

    fn engine(found: Result<FoundEngine, Problem>) -> RoleEngine {
        RoleEngine { role: "database".into(), wanted: true, found }
    }

    fn postgres() -> RoleEngine {
        engine(Ok(FoundEngine {
            name: "postgres".into(),
            version: "15.18".into(),
            dir: "/usr/bin".into(),
            declared_by: None,
            client: "psql".into(),
        }))
    }

    fn missing(detail: &str) -> RoleEngine {
        let problem = Problem::new(ProblemKind::EngineMissing, "no PostgreSQL 99 on this machine")
            .detail(detail)
            .hint("install it (Debian, Ubuntu: apt-get install postgresql), or name its directory with `bin_dir`");
        engine(Err(problem))
    }

    #[test]
    fn an_engine_is_told_with_its_version() {
        let finding = judge_engine(&postgres(), true);
        assert_eq!((finding.severity, finding.seen.as_str()), (Severity::Ok, "database: postgres 15.18"));
    }

    #[test]
    fn a_server_that_somebody_else_runs_is_told_with_its_variable() {
        let mut seen = postgres();
        seen.found.as_mut().unwrap().declared_by = Some("DATABASE_URL".into());
        assert!(seen.is_external());
        assert_eq!(judge_engine(&seen, true).seen, "database: postgres 15.18 that DATABASE_URL names");
    }

    #[test]
    fn programs_are_looked_for_in_path_and_by_their_own_path() {
        assert!(in_path("/nowhere:/bin", "sh") && in_path("", "/bin/sh"));
        assert!(!in_path("/nowhere", "sh") && !in_path("/bin", "/nowhere/sh"));
    }

    #[test]
    fn a_missing_engine_is_a_problem_with_its_package() {
        let none = || missing("looked in /usr/bin");
        let finding = judge_engine(&none(), true);
        assert_eq!((finding.severity, finding.subject.as_str()), (Severity::Problem, "database"));
        assert!(finding.means.ends_with("looked in /usr/bin"), "{finding:?}");
        assert!(finding.commands[0].ends_with("apt-get install postgresql"), "{finding:?}");
        assert!(judge_engine(&none(), false).commands.is_empty(), "no apt here");
        let other = judge_engine(&missing("found only 15.18 in /usr/bin"), true);
        assert!(other.commands.is_empty() && other.advice.ends_with("a version that is there"), "{other:?}");
        let unasked = RoleEngine { wanted: false, ..none() };
        assert_eq!(judge_engine(&unasked, true).severity, Severity::Note);
    }

    #[test]
    fn clients_are_looked_for_where_their_engine_is_used() {
        let findings = judge_clients(&[postgres(), postgres()], |program| program == "apt-get");
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].severity, Severity::Note);
        assert!(findings[0].commands[0].ends_with("apt-get install postgresql-client"), "{findings:?}");
        assert_eq!(judge_clients(&[postgres()], |_| true)[0].severity, Severity::Ok);
        assert!(judge_clients(&[missing("")], |_| false).is_empty());
    }
}
