//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{Args, Parser, Subcommand};
use testenv_api::discovery::Workspace;
use testenv_api::{Connections, Direction, Isolation, KeepPolicy, ServiceKind};
use testenv_config::{ByteSize, PerConfig, Span};
use testenv_runner::exit_codes;

use crate::error::CliError;

/// Reads the command line; help and mistakes end the program here, as clap has it.
pub(crate) fn parse() -> Cli {
    Cli::parse()
}

/// Every test gets a PostgreSQL and a Redis of its own in milliseconds.
#[derive(Debug, Parser)]
#[command(name = "testenv", version, max_term_width = 100)]
pub(crate) struct Cli {
    /// Directory of the workspace [default: the nearest one above that holds testenv.toml or .git]
    #[arg(long, global = true, value_name = "DIR")]
    workspace: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    pub(crate) fn workspace(&self) -> Result<Workspace, CliError> {
        let (found, start) = match &self.workspace {
            Some(dir) => (Workspace::at(dir), dir.clone()),
            None => (Workspace::find(std::path::Path::new(".")), PathBuf::from(".")),
        };
        found.map_err(|error| {
            let text = format!("failed to find the workspace at {}\n  | {error}", start.display());
            CliError::new(exit_codes::USAGE, text)
        })
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a command with dependencies of its own
    ///
    /// The roles of testenv.toml are leased, their environment variables set, and the command run. Its exit
    /// code is passed on. Without testenv.toml: `testenv exec --service postgres -- CMD`.
    Exec(ExecArgs),
    /// Run a test suite under cargo-nextest, each test with dependencies of its own
    Run(RunArgs),
    /// Show the broker: leases, warm servers, kept servers, snapshots, memory
    Status(StatusArgs),
    /// Set faults on a lease: latency, cuts, resets; pause, resume or kill its server
    ///
    /// The lease has to be asked for with faults (`testenv exec --faults`, `faults = true` in testenv.toml,
    /// #[testenv(faults)]): then its URL and port lead through a proxy. Pausing and killing work for every lease with
    /// a server of its own.
    #[command(after_help = FAULTS_EXAMPLES)]
    Faults(FaultsArgs),
    /// End the broker, with all its servers
    Down(DownArgs),
    /// Remove snapshots that are not in use
    Clean(CleanArgs),
    /// Check whether this machine is fit for the workspace, and say what to change
    Doctor(DoctorArgs),
    /// Run the broker, which starts by itself when it is needed
    Broker(BrokerArgs),
}

#[derive(Debug, Args)]
pub(crate) struct BrokerArgs {
    /// Start it in the background and return when it accepts connections
    #[arg(long)]
    pub(crate) detach: bool,
    /// The background process itself
    #[arg(long, hide = true, conflicts_with = "detach")]
    pub(crate) session: bool,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Print JSON, as the broker gives it
    #[arg(long)]
    pub(crate) json: bool,
}

/// Shown below the help of `testenv faults`.
const FAULTS_EXAMPLES: &str = "\
Examples:
  testenv faults database                                    what holds now
  testenv faults database add latency 100ms --jitter 20ms    both ways, on all connections
  testenv faults database add bandwidth 64KiB --direction down
  testenv faults database add cut --direction down           the server does what it is told, nobody hears of it
  testenv faults database add reset --connections open --name gone
  testenv faults database remove gone
  testenv faults database clear
  testenv faults database pause";

#[derive(Debug, Args)]
pub(crate) struct FaultsArgs {
    /// The lease: its id in `testenv status`, or its role, if only one lease of that role is held
    #[arg(value_name = "LEASE")]
    pub(crate) lease: String,
    #[command(subcommand)]
    pub(crate) command: Option<FaultsCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum FaultsCommand {
    /// Show the faults that hold, and how many connections there are (as without a command)
    List {
        /// Print JSON, as the broker gives it
        #[arg(long)]
        json: bool,
    },
    /// Add a fault, which holds until it is removed or the lease ends
    Add(AddArgs),
    /// Take a fault away
    Remove {
        /// Its name, as `testenv faults LEASE` lists it
        name: String,
    },
    /// Take all faults away
    Clear,
    /// Stop all processes of the server where they are (SIGSTOP): nobody answers
    Pause,
    /// Let a paused server go on
    Resume,
    /// Kill all processes of the server (SIGKILL)
    Kill,
    /// Kill the server and start it again on its data
    Restart,
}

#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// up: from client to server; down: from server to client
    #[arg(long, global = true, value_name = "WAY", default_value = "both", value_parser = direction_parser())]
    pub(crate) direction: Direction,
    /// all; open: those that are open now; new: those opened from now on
    #[arg(long, global = true, value_name = "WHICH", default_value = "all", value_parser = connections_parser())]
    pub(crate) connections: Connections,
    /// Name by which it is removed; a fault of that name is replaced [default: one such as latency-1]
    #[arg(long, global = true, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub(crate) name: String,
    #[command(subcommand)]
    pub(crate) effect: EffectArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EffectArgs {
    /// Bytes come later, in their order
    Latency {
        /// So much later, such as 100ms
        latency: Span,
        /// And up to so much later still, at random
        #[arg(long, value_name = "TIME", default_value = "0ms")]
        jitter: Span,
    },
    /// Pieces are lost and sent again: nothing is missing, but what follows waits
    Loss {
        /// How likely a piece is lost, 1 to 100
        percent: u8,
        /// When it is sent again for the first time
        #[arg(long, value_name = "TIME", default_value = "200ms")]
        retransmit: Span,
    },
    /// No more than so much a second passes
    Bandwidth {
        /// Bytes a second, such as 64KiB
        size: ByteSize,
    },
    /// Bytes wait until the fault is removed, and come then
    Stall,
    /// Bytes are swallowed, and the connection stays
    Cut,
    /// Connections are reset (RST)
    Reset,
    /// The end of a connection is passed on later
    SlowClose {
        /// So much later, such as 2s
        delay: Span,
    },
    /// Connections are closed after so many bytes, counted from now
    LimitBytes {
        /// Bytes that still pass, such as 4KiB
        size: ByteSize,
    },
    /// New connections are refused
    Refuse,
}

#[derive(Debug, Args)]
pub(crate) struct DownArgs {
    /// End the brokers of all workspaces of this user
    #[arg(long)]
    pub(crate) all: bool,
    /// Only if no lease is held
    #[arg(long)]
    pub(crate) if_idle: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CleanArgs {
    /// Remove every namespace from the external server of this role instead, whoever made it
    #[arg(long, value_name = "ROLE")]
    pub(crate) external: Option<String>,
    /// Do not start a broker for it: fail if none runs
    #[arg(long)]
    pub(crate) no_start: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Repair what is testenv's own: permissions of its directories, what dead brokers left
    #[arg(long)]
    pub(crate) fix: bool,
    /// Show what is well in full too
    #[arg(long, short, conflicts_with = "json")]
    pub(crate) verbose: bool,
    /// The process that tries what a broker does
    #[arg(long, hide = true, conflicts_with_all = ["json", "fix", "verbose"])]
    pub(crate) probe: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LeaseArgs {
    /// Lease this role of testenv.toml; may be given several times [default: `run.roles`, or all roles]
    #[arg(long = "role", value_name = "ROLE")]
    pub(crate) roles: Vec<String>,
    /// Lease a service of this kind, which works without testenv.toml too; may be given several times
    #[arg(long = "service", value_name = "KIND", value_parser = service_parser())]
    pub(crate) services: Vec<ServiceKind>,
    /// Whether each lease is a whole server, or a database in a shared one
    #[arg(long, value_name = "ISOLATION", value_parser = isolation_parser())]
    pub(crate) isolation: Option<Isolation>,
    /// Put a proxy in front of each server, on which `testenv faults` can set faults
    #[arg(long)]
    pub(crate) faults: bool,
    /// When to keep the servers afterwards [default: $TESTENV_KEEP, or `broker.keep` of testenv.toml]
    #[arg(long, value_name = "WHEN", value_parser = keep_parser())]
    pub(crate) keep: Option<KeepPolicy>,
}

#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    #[command(flatten)]
    pub(crate) leases: LeaseArgs,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) leases: LeaseArgs,
    /// Whose the leases are: each test's own, the whole run's, or none for suites that use the harness
    /// [default: `run.per` of testenv.toml, or test]
    #[arg(long, value_name = "WHOSE", value_parser = per_parser())]
    pub(crate) per: Option<PerConfig>,
    /// Nextest's profile
    #[arg(long, short = 'P', value_name = "PROFILE")]
    pub(crate) profile: Option<String>,
    /// Arguments for `cargo nextest run`
    #[arg(last = true, value_name = "NEXTEST ARGS")]
    pub(crate) nextest_args: Vec<OsString>,
}

/// A parser for words that stand for values.
fn words<T: Clone + Send + Sync + 'static>(
    values: impl Into<Vec<(&'static str, T)>>,
) -> impl clap::builder::TypedValueParser<Value = T> {
    let values = values.into();
    PossibleValuesParser::new(values.iter().map(|(word, _)| *word)).map(move |given| {
        let found = values.iter().find(|(word, _)| *word == given);
        // The parser before this one lets no other word through.
        found.unwrap_or(&values[0]).1.clone()
    })
}

fn service_parser() -> impl clap::builder::TypedValueParser<Value = ServiceKind> {
    words(ServiceKind::ALL.map(|kind| (kind.as_str(), kind)))
}

fn isolation_parser() -> impl clap::builder::TypedValueParser<Value = Isolation> {
    words(&[
        ("server", Isolation::Server),
        ("namespace", Isolation::Namespace),
        ("shared", Isolation::Shared),
    ])
}

fn direction_parser() -> impl clap::builder::TypedValueParser<Value = Direction> {
    words(&[("up", Direction::Up), ("down", Direction::Down), ("both", Direction::Both)])
}

fn connections_parser() -> impl clap::builder::TypedValueParser<Value = Connections> {
    words(&[("all", Connections::All), ("open", Connections::Open), ("new", Connections::New)])
}

fn keep_parser() -> impl clap::builder::TypedValueParser<Value = KeepPolicy> {
    words(&crate::leasing::KEEP_WORDS)
}

fn per_parser() -> impl clap::builder::TypedValueParser<Value = PerConfig> {
    words(&[("test", PerConfig::Test), ("run", PerConfig::Run), ("none", PerConfig::None)])
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
