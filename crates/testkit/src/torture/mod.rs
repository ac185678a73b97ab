//! The torture: tests and brokers killed at random moments, under load.
//!
//! Two workspaces, each with its broker, serve clients that are processes of their own. Each client leases,
//! works, and checks that its data is there and nobody else's. Meanwhile clients and brokers are killed with
//! SIGKILL. Afterwards nothing may be left on the machine, and no client may have been disturbed by the end of
//! another.

mod client;
mod plan;
mod report;
mod site;

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

pub use client::{CLIENT_ENV, ClientProgram, ClientSpec, DISTURBED, LOST, REFUSED, main};
pub use report::Report;

use crate::user::User;
use plan::{Action, Random};
use site::Site;

/// Workspaces, each with a broker of its own.
const SITES: usize = 2;

/// How much, and of what.
#[derive(Clone, Debug)]
pub struct Options {
    /// The `testenv` to torture.
    pub program: PathBuf,
    /// The program that clients are.
    pub client: ClientProgram,
    /// How many kills.
    pub kills: usize,
    /// What the plan of kills is worked out from.
    pub seed: u64,
    /// Clients at the same time, in all workspaces together.
    pub clients: usize,
    /// Time at the most: the torture ends early, and says so, when it is up.
    pub limit: Duration,
    /// Whose brokers and clients.
    pub user: User,
    /// Program through which `testenv` is run.
    pub through: Vec<String>,
    /// Further lines of `testenv.toml`.
    pub config: String,
}

impl Options {
    /// So many kills of everything as it usually is.
    pub fn new(program: &Path, client: ClientProgram, kills: usize, seed: u64) -> Self {
        Self {
            program: program.to_path_buf(),
            client,
            kills,
            seed,
            clients: 8,
            limit: Duration::from_secs(600),
            user: User::Own,
            through: Vec::new(),
            config: String::new(),
        }
    }
}

/// Runs it to its end. `progress` is told now and then how many kills there were.
pub fn run(options: &Options, mut progress: impl FnMut(&Report)) -> Report {
    let begun = Instant::now();
    let mut random = Random::new(options.seed);
    let mut report = Report::default();
    let mut sites: Vec<_> = (0..SITES).map(|number| Site::new(&options.program, number, options)).collect();
    for site in &sites {
        // Snapshots are made first: the torture is about leases, not about `initdb`.
        if let Err(message) = site.prepare() {
            report.failures.push(message);
            return report;
        }
    }
    let mut told = 0;
    while report.kills() < options.kills {
        if begun.elapsed() > options.limit {
            report.failures.push(format!("not done within {} s", options.limit.as_secs()));
            break;
        }
        for site in &mut sites {
            site.reap(&mut report);
            while site.client_count() < options.clients / SITES {
                site.start_client(options);
            }
        }
        let step = plan::step(&mut random);
        thread::sleep(step.wait);
        let site = |choice: u64| usize::try_from(choice % SITES as u64).unwrap_or_default();
        match step.action {
            Action::KillClient(choice) => sites[site(choice)].kill_client(choice / 2, &mut report),
            Action::KillBroker(choice) => sites[site(choice)].kill_broker(&mut report),
            Action::Finish(choice) => sites[site(choice)].finish(choice / 2, &mut report),
        }
        if report.kills() / 100 > told {
            told = report.kills() / 100;
            progress(&report);
        }
    }
    for site in &mut sites {
        site.finish_all(&mut report);
    }
    for site in sites {
        site.end(&mut report);
    }
    report.took = begun.elapsed();
    report
}
