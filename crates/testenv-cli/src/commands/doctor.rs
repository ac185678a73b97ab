//! `testenv doctor`.

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde::Serialize;
use testenv_api::client::Client;
use testenv_api::discovery::{Workspace, runtime_root};
use testenv_api::{BrokerStatus, Health, Isolation, PoolStatus, Problem, ProblemKind, VERSION};
use testenv_config::Config;
use testenv_runner::exit_codes;
use testenv_services::doctor::{self, Broker, Capacity, Finding, Group, Probe, Report, Severity, Subject};

use super::broker::{cache_dir, environment};
use crate::args::DoctorArgs;
use crate::error::CliError;
use crate::output::{colours, plural, say};

/// How long a broker may take to say how it is.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// How long trying may take: engines that hang are given up after 10 s each.
const PROBE_LIMIT: Duration = Duration::from_secs(60);
/// Columns that lines are broken at.
const WIDTH: usize = 100;

pub(crate) fn doctor(workspace: &Workspace, args: &DoctorArgs) -> Result<i32, CliError> {
    let subject = subject(workspace);
    if args.probe {
        say(json(&doctor::probe(&subject))?);
        return Ok(exit_codes::OK);
    }
    let mut report = look(workspace, &subject);
    let fixed = if args.fix { repair(&report) } else { Vec::new() };
    if !fixed.is_empty() {
        report = look(workspace, &subject);
    }
    if args.json {
        say(json(&Output::new(workspace, &report, &fixed))?);
    } else {
        let palette = Palette::new(colours());
        let fixes = if args.fix { fixes(&fixed) } else { String::new() };
        say(format_args!("{fixes}{}", render(workspace, &report, args.verbose, &palette)));
    }
    Ok(match report.worst() {
        _ if subject.config_problem.is_some() => exit_codes::BAD_CONFIG,
        Severity::Problem => exit_codes::UNFIT,
        Severity::Ok | Severity::Note | Severity::Warning => exit_codes::OK,
    })
}

/// What there is to know before looking.
fn subject(workspace: &Workspace) -> Subject {
    let (config, config_problem) = match Config::load(&workspace.config_file()) {
        Ok(config) => (config, None),
        Err(error) => {
            let text = error.to_string();
            let (title, detail) = text.split_once('\n').unwrap_or((&text, ""));
            (Config::default(), Some(Problem::new(ProblemKind::InvalidConfig, title).detail(detail)))
        }
    };
    let given = config.cache.dir.as_ref().map(|dir| workspace.root().join(dir));
    Subject {
        root: workspace.root().to_path_buf(),
        cache_dir: given.unwrap_or_else(cache_dir),
        config,
        config_problem,
        runtime_dir: workspace.runtime_dir(),
        runtime_root: runtime_root(),
        path: std::env::var("PATH").unwrap_or_default(),
        environment: environment(),
    }
}

fn look(workspace: &Workspace, subject: &Subject) -> Report {
    doctor::examine(subject, &probe(workspace), &broker(workspace))
}

/// How the workspace's broker is.
fn broker(workspace: &Workspace) -> Broker {
    let client = Client::of(workspace).of_any_version().with_answer_limit(ANSWER_LIMIT);
    match client.get::<Health>("/v1/health") {
        Ok(health) => {
            let status = client.get::<BrokerStatus>("/v1/status");
            Broker::Answers(health, status.map_or(0, |status| servers(&status)))
        }
        Err(error) if error.broker_is_gone() => Broker::None,
        Err(error) => Broker::Silent(error.to_string()),
    }
}

/// How many servers it has.
fn servers(status: &BrokerStatus) -> u64 {
    let of_pool = |pool: &PoolStatus| match pool.isolation {
        Isolation::Server => pool.warm + pool.starting + pool.leased,
        Isolation::Namespace | Isolation::Shared => 1,
    };
    (status.pools.iter().map(of_pool).sum::<usize>() + status.kept.len()) as u64
}

/// Has this program try what a broker does, in a process that may move into namespaces for it.
fn probe(workspace: &Workspace) -> Result<Probe, Problem> {
    let failed = |what: &str, detail: String| Problem::new(ProblemKind::Internal, what).detail(detail);
    let start = || {
        Command::new(std::env::current_exe()?)
            .args(["doctor", "--probe", "--workspace"])
            .arg(workspace.root())
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
    };
    let mut child =
        start().map_err(|error| failed("failed to start a process to try things in", error.to_string()))?;
    let (send, said) = mpsc::channel();
    let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
    thread::spawn(move || {
        let mut said = [String::new(), String::new()];
        let _ = stdout.as_mut().map(|stdout| stdout.read_to_string(&mut said[0]));
        let _ = stderr.as_mut().map(|stderr| stderr.read_to_string(&mut said[1]));
        let _ = send.send(said);
    });
    let said = said.recv_timeout(PROBE_LIMIT);
    // It has said all, or too little.
    let _ = child.kill();
    let _ = child.wait();
    let Ok([stdout, stderr]) = said else {
        let title = format!("trying what a broker does took longer than {} s", PROBE_LIMIT.as_secs());
        return Err(Problem::new(ProblemKind::TimedOut, title)
            .hint("see which engine hangs: run it with --version; or which file system: `ls` the cache"));
    };
    serde_json::from_str(&stdout).unwrap_or_else(|error| {
        Err(failed("trying what a broker does came to nothing", format!("{error}\n{stderr}")))
    })
}

/// What a repair came to.
type Fixed = Result<String, Problem>;

fn repair(report: &Report) -> Vec<Fixed> {
    report.findings.iter().filter_map(|finding| finding.repair.as_ref()).map(doctor::Repair::apply).collect()
}

fn fixes(fixed: &[Fixed]) -> String {
    let line = |fixed: &Fixed| match fixed {
        Ok(done) => format!("fixed: {done}\n"),
        Err(problem) => format!("not fixed: {problem}\n"),
    };
    let lines: String = fixed.iter().map(line).collect();
    if lines.is_empty() { "nothing of testenv's own is to be repaired\n\n".into() } else { lines + "\n" }
}

/// What `--json` prints.
#[derive(Serialize)]
struct Output<'a> {
    version: &'a str,
    workspace: String,
    /// How much the worst finding hinders.
    worst: Severity,
    /// What the servers are that are counted.
    unit: &'a str,
    /// How many the machine bears at once.
    capacity: Option<Capacity>,
    /// How many testenv starts at the most.
    max_servers: u64,
    /// What `--fix` did.
    fixed: Vec<&'a str>,
    /// What `--fix` failed to do.
    not_fixed: Vec<&'a Problem>,
    findings: &'a [Finding],
}

impl<'a> Output<'a> {
    fn new(workspace: &Workspace, report: &'a Report, fixed: &'a [Fixed]) -> Self {
        Self {
            version: VERSION,
            workspace: workspace.root().display().to_string(),
            worst: report.worst(),
            unit: report.unit,
            capacity: report.servers,
            max_servers: report.max_servers,
            fixed: fixed.iter().filter_map(|fixed| fixed.as_deref().ok()).collect(),
            not_fixed: fixed.iter().filter_map(|fixed| fixed.as_ref().err()).collect(),
            findings: &report.findings,
        }
    }
}

fn json(value: &impl Serialize) -> Result<String, CliError> {
    let text = serde_json::to_string_pretty(value);
    text.map(|text| text + "\n").map_err(|error| CliError::new(exit_codes::FAILED, error))
}

/// Escape sequences, or none.
struct Palette {
    bold: &'static str,
    problem: &'static str,
    warning: &'static str,
    note: &'static str,
    ok: &'static str,
    end: &'static str,
}

impl Palette {
    const fn new(colours: bool) -> Self {
        if colours {
            Self {
                bold: "\x1b[1m",
                problem: "\x1b[1;31m",
                warning: "\x1b[1;33m",
                note: "\x1b[1;36m",
                ok: "\x1b[1;32m",
                end: "\x1b[0m",
            }
        } else {
            Self { bold: "", problem: "", warning: "", note: "", ok: "", end: "" }
        }
    }

    const fn of(&self, severity: Severity) -> &'static str {
        match severity {
            Severity::Problem => self.problem,
            Severity::Warning => self.warning,
            Severity::Note => self.note,
            Severity::Ok => self.ok,
        }
    }
}

fn render(workspace: &Workspace, report: &Report, verbose: bool, palette: &Palette) -> String {
    let mut text = format!("{}\n{}\n", machine(workspace), verdict(report, palette));
    let mut bad: Vec<_> = report.findings.iter().filter(|it| it.severity > Severity::Ok).collect();
    bad.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    for finding in bad {
        text += &in_full(finding, palette);
    }
    text.push('\n');
    if verbose {
        report.findings.iter().filter(|it| it.severity == Severity::Ok).for_each(|it| text += &in_a_line(it));
    } else {
        text += &in_groups(&report.findings);
    }
    text
}

/// What is examined.
fn machine(workspace: &Workspace) -> String {
    let system = rustix::system::uname();
    let user = rustix::process::geteuid();
    let user = if user.is_root() { "root".to_owned() } else { format!("user {}", user.as_raw()) };
    let processors = thread::available_parallelism().map_or(1, usize::from);
    format!(
        "testenv {VERSION}, {} {}, {}, {user}, {}",
        system.sysname().to_string_lossy(),
        system.release().to_string_lossy(),
        plural(processors, "processor"),
        workspace.root().display()
    )
}

/// All of it in a line.
fn verdict(report: &Report, palette: &Palette) -> String {
    let count = |severity| report.findings.iter().filter(|finding| finding.severity == severity).count();
    let counts: Vec<_> = [Severity::Problem, Severity::Warning, Severity::Note]
        .into_iter()
        .filter(|severity| count(*severity) > 0)
        .map(|severity| {
            format!("{}{}{}", palette.of(severity), plural(count(severity), severity.as_str()), palette.end)
        })
        .collect();
    let fit = match report.worst() {
        Severity::Problem => format!("{}not fit for this workspace{}", palette.problem, palette.end),
        _ => format!("{}fit for this workspace{}", palette.ok, palette.end),
    };
    let room = report.servers.map(|Capacity { servers, limited_by }| {
        let allowed = report.max_servers;
        let unit = report.unit;
        if servers >= allowed {
            format!("room for the {allowed} servers that `pool.max_servers` allows")
        } else {
            format!("room for {servers} {unit} at once ({limited_by})")
        }
    });
    [Some(fit), room].into_iter().flatten().chain(counts).collect::<Vec<_>>().join(", ")
}

/// A finding that is to be read: what was seen, what it means, what to do.
fn in_full(finding: &Finding, palette: &Palette) -> String {
    let Finding { check, severity, seen, means, advice, commands, .. } = finding;
    let (colour, word) = (palette.of(*severity), severity.as_str());
    let mut text = format!("\n{colour}{word}[{}]{}: {seen}\n", check.name, palette.end);
    means.lines().for_each(|line| text += &wrapped("  | ", "  | ", line.split(' '), ""));
    if !advice.is_empty() {
        text += &wrapped("  hint: ", "        ", advice.split(' '), "");
    }
    let fix = "testenv doctor --fix";
    let own = finding.repair.is_some() && !commands.iter().any(|command| command == fix);
    let fix = own.then(|| format!("{fix}    # does that"));
    for command in commands.iter().chain(&fix) {
        text += &format!("    {}{command}{}\n", palette.bold, palette.end);
    }
    text
}

/// A finding that is as it should be, with what it means.
fn in_a_line(finding: &Finding) -> String {
    let Finding { check, seen, means, .. } = finding;
    let means = if means.is_empty() { String::new() } else { format!(": {}", means.replace('\n', "; ")) };
    format!("ok  {:<16}  {seen}{means}\n", check.name)
}

/// All that is as it should be, a group to a line.
fn in_groups(findings: &[Finding]) -> String {
    let mut text = String::new();
    for group in Group::ALL {
        let of_group = |it: &&Finding| it.check.group == group && it.severity == Severity::Ok;
        let seen: Vec<_> = findings.iter().filter(of_group).map(|it| it.seen.as_str()).collect();
        if !seen.is_empty() {
            let label = format!("ok  {:<10}  ", group.as_str());
            text += &wrapped(&label, &" ".repeat(label.len()), seen, ";");
        }
    }
    text
}

/// Parts, with a space and what goes before it between them, in lines of a bounded length.
fn wrapped<'a>(first: &str, other: &str, parts: impl IntoIterator<Item = &'a str>, between: &str) -> String {
    let (mut text, mut line, mut is_new) = (String::new(), first.to_owned(), true);
    for part in parts {
        if !is_new {
            line += between;
            if line.chars().count() + 1 + part.chars().count() + between.len() > WIDTH {
                text += &format!("{line}\n");
                line = other.to_owned();
            } else {
                line.push(' ');
            }
        }
        line += part;
        is_new = false;
    }
    text + &line + "\n"
}

#[cfg(test)]
mod tests {
    use testenv_services::doctor::{Check, Repair};

    use super::*;

    fn finding(name: &'static str, group: Group, severity: Severity, seen: &str) -> Finding {
        Finding {
            check: Check { name, group },
            subject: String::new(),
            severity,
            seen: seen.into(),
            means: String::new(),
            advice: String::new(),
            commands: Vec::new(),
            servers: None,
            repair: None,
        }
    }

    fn report(findings: Vec<Finding>) -> Report {
        let servers = Some(Capacity { servers: 17, limited_by: "open-files" });
        Report { unit: "PostgreSQL servers", servers, max_servers: 256, findings }
    }

    #[test]
    fn what_hinders_comes_with_its_commands_on_lines_of_their_own() {
        let cache = Finding {
            means: "no snapshot can be stored\nno role works".into(),
            advice: "make it writable, or choose another directory: `cache.dir` in testenv.toml, or TESTENV_CACHE_DIR".into(),
            commands: vec!["chmod u+rwx /c".into()],
            repair: Some(Repair::SetMode { path: "/c".into(), mode: 0o700 }),
            ..finding("cache", Group::Disk, Severity::Problem, "/c cannot be used")
        };
        let expected = "
problem[cache]: /c cannot be used
  | no snapshot can be stored
  | no role works
  hint: make it writable, or choose another directory: `cache.dir` in testenv.toml, or
        TESTENV_CACHE_DIR
    chmod u+rwx /c
    testenv doctor --fix    # does that
";
        assert_eq!(in_full(&cache, &Palette::new(false)), expected);
        let coloured = in_full(&cache, &Palette::new(true));
        assert!(coloured.starts_with("\n\x1b[1;31mproblem[cache]\x1b[0m: /c"), "{coloured}");
    }

    #[test]
    fn what_is_well_is_a_line_for_each_group() {
        let well = |name, group, seen| finding(name, group, Severity::Ok, seen);
        let findings = [
            well("memory", Group::Memory, "9.0 GiB available"),
            finding("cache", Group::Disk, Severity::Warning, "not here"),
            well("open-files", Group::Limits, "ulimit -n 20000"),
            well("processes", Group::Limits, "a text that is rather long, longer than others"),
            well("process-ids", Group::Limits, "and one more for the next line"),
        ];
        let expected = "\
ok  memory      9.0 GiB available
ok  limits      ulimit -n 20000; a text that is rather long, longer than others;
                and one more for the next line
";
        assert_eq!(in_groups(&findings), expected);
        let line = in_a_line(&Finding { means: "a\nb".into(), ..findings[2].clone() });
        assert_eq!(line, "ok  open-files        ulimit -n 20000: a; b\n");
    }

    #[test]
    fn the_verdict_is_one_line() {
        let plain = Palette::new(false);
        let with = |severity| verdict(&report(vec![finding("x", Group::Disk, severity, "")]), &plain);
        let room = "room for 17 PostgreSQL servers at once (open-files)";
        assert_eq!(with(Severity::Warning), format!("fit for this workspace, {room}, 1 warning"));
        assert_eq!(with(Severity::Problem), format!("not fit for this workspace, {room}, 1 problem"));
        let plenty = Report { max_servers: 10, ..report(Vec::new()) };
        let room = "room for the 10 servers that `pool.max_servers` allows";
        assert_eq!(verdict(&plenty, &plain), format!("fit for this workspace, {room}"));
    }

    #[test]
    fn what_was_repaired_is_told() {
        let failed = Err(Problem::new(ProblemKind::Resources, "failed to remove /x").detail("busy"));
        let told = fixes(&[Ok("removed /y".into()), failed]);
        assert_eq!(told, "fixed: removed /y\nnot fixed: failed to remove /x\n  | busy\n\n");
        assert!(fixes(&[]).starts_with("nothing "));
    }
}
