//! A client of the torture: a process that leases, and works on what it leased until it is told to end or is
//! killed. It checks all the time that its data is there, and nobody else's.

use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use ::redis::Commands as _;
use serde::{Deserialize, Serialize};
use testenv_api::client::{Client, ClientError, Held};
use testenv_api::discovery::Workspace;
use testenv_api::{Event, Isolation, LeaseRequest, ServiceKind};

use crate::sql::{self, Sql};

/// Environment variable with which a program that can be a client is told to be one.
pub const CLIENT_ENV: &str = "TESTKIT_CLIENT";

/// Exit code of a client that lost its leases with their broker.
pub const LOST: u8 = 10;
/// Exit code of a client that found other data than its own, or lost a server while its broker lived.
pub const DISTURBED: u8 = 11;
/// Exit code of a client that was refused a lease.
pub const REFUSED: u8 = 12;

/// Between two looks at the data.
const PAUSE: Duration = Duration::from_millis(4);
/// How long the end of a broker may take to be noticed after its servers are gone.
const NOTICE: Duration = Duration::from_secs(5);

/// What a client does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientSpec {
    /// Its name, which marks its data.
    pub name: String,
    /// Roles, each with its isolation.
    pub roles: Vec<(String, Isolation)>,
    /// How many rows each table of a prepared database holds at first.
    pub seeded_rows: i64,
    /// Ends by itself after this long, in milliseconds.
    pub limit_ms: u64,
    /// Starts a process that outlives it and inherits what a careless test lets it inherit.
    pub grandchild: bool,
}

impl ClientSpec {
    /// Has a command be this client: its program calls [`main`], which finds [`CLIENT_ENV`].
    pub fn apply<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .env(CLIENT_ENV, serde_json::to_string(self).expect("plain data"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
    }
}

/// A program that can be a client.
#[derive(Clone, Debug)]
pub struct ClientProgram {
    /// The program.
    pub program: std::path::PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
}

/// Why a client ended before it was told to.
#[derive(Debug)]
enum Trouble {
    Refused(String),
    /// What went wrong with the data of the lease with this index.
    Data(String),
}

/// Is a client, if the environment says so. Prints one line that says how it went; the exit code that this
/// program then has to have.
pub fn main() -> Option<u8> {
    let spec = std::env::var(CLIENT_ENV).ok()?;
    let spec: ClientSpec = serde_json::from_str(&spec).expect("a client's specification");
    let (code, line) = live(&spec);
    #[expect(clippy::print_stdout, reason = "whoever started the client reads this")]
    {
        println!("{}", line.replace('\n', " / "));
    }
    Some(code)
}

fn live(spec: &ClientSpec) -> (u8, String) {
    let mut held = match lease(spec) {
        Ok(held) => held,
        Err(error) => return (REFUSED, error.to_string()),
    };
    let trouble = match work(spec, &held) {
        Ok(rounds) => return (0, format!("done after {rounds} rounds")),
        Err(Trouble::Refused(what)) => return (REFUSED, what),
        Err(Trouble::Data(what)) => what,
    };
    let ids: Vec<_> = held.iter().map(|held| held.lease().id.clone()).collect();
    let deadline = Instant::now() + NOTICE;
    loop {
        for one in &mut held {
            match one.next_event(Duration::from_millis(10)) {
                Err(_) | Ok(Some(Event::BrokerStopping)) => return (LOST, format!("{ids:?}: {trouble}")),
                Ok(Some(Event::ServerExited { reason, log_tail })) => {
                    // Servers die a moment before their broker's sockets close.
                    if one.next_event(NOTICE).is_err() {
                        return (LOST, format!("{ids:?}: {trouble}"));
                    }
                    return (DISTURBED, format!("{ids:?}: {trouble}: {reason}: {log_tail}"));
                }
                Ok(None) => {}
            }
        }
        if Instant::now() > deadline {
            return (DISTURBED, format!("{ids:?}: {trouble}"));
        }
    }
}

fn lease(spec: &ClientSpec) -> Result<Vec<Held>, ClientError> {
    let here = std::path::Path::new(".");
    let workspace = Workspace::find(here).expect("a client is started in a workspace");
    let client = Client::of(&workspace);
    let held = spec.roles.iter().map(|(role, isolation)| {
        let request = LeaseRequest {
            role: Some(role.clone()),
            isolation: Some(*isolation),
            test: Some(spec.name.clone()),
            wait_ms: Some(30_000),
            ..LeaseRequest::default()
        };
        client.lease_or_start(&workspace, &request)
    });
    held.collect()
}

/// What a client does with one lease.
enum Worker {
    Table(Box<Sql>),
    Keys(Box<::redis::Connection>),
}

/// Works until standard input closes or the time is up; how many rounds that were.
fn work(spec: &ClientSpec, held: &[Held]) -> Result<u64, Trouble> {
    let mut workers = Vec::new();
    for held in held {
        let lease = held.lease();
        let worker = match lease.service {
            ServiceKind::Postgres => Sql::connect(lease).map(|sql| Worker::Table(Box::new(sql))),
            ServiceKind::Redis => sql::redis(lease)
                .map(|connection| Worker::Keys(Box::new(connection)))
                .map_err(|error| error.to_string()),
            other => Err(format!("there is no work for a {other}")),
        };
        let mut worker = worker.map_err(Trouble::Data)?;
        worker.check_new(spec).map_err(Trouble::Data)?;
        workers.push(worker);
    }
    if spec.grandchild {
        let sleeping = Command::new("sleep").arg("30").stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        sleeping.map_err(|error| Trouble::Refused(format!("failed to start a process: {error}")))?;
    }
    let told = until_stdin_closes();
    let deadline = Instant::now() + Duration::from_millis(spec.limit_ms);
    let mut rounds = 0;
    while told.try_recv() == Err(mpsc::TryRecvError::Empty) && Instant::now() < deadline {
        for worker in &mut workers {
            worker.round(spec, rounds).map_err(Trouble::Data)?;
        }
        rounds += 1;
        thread::sleep(PAUSE);
    }
    Ok(rounds)
}

/// A channel that closes with standard input. What comes is ignored.
fn until_stdin_closes() -> mpsc::Receiver<()> {
    let (open, told) = mpsc::channel();
    thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        drop(open);
    });
    told
}

impl Worker {
    /// The state must be the prepared one, and nothing else.
    fn check_new(&mut self, spec: &ClientSpec) -> Result<(), String> {
        match self {
            Self::Table(sql) => {
                let rows: i64 = sql.one("SELECT count(*) FROM items")?;
                let tables: i64 =
                    sql.one("SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace")?;
                if (rows, tables) != (spec.seeded_rows, 1) {
                    return Err(format!("a new database has {rows} rows and {tables} tables"));
                }
                sql.run("CREATE TABLE own (number bigint PRIMARY KEY, owner text NOT NULL)")
            }
            Self::Keys(redis) => {
                let keys: i64 = ::redis::cmd("DBSIZE").query(redis).map_err(|error| error.to_string())?;
                if keys == 0 { Ok(()) } else { Err(format!("a new Redis has {keys} keys")) }
            }
        }
    }

    /// Writes one more row or key, and checks that all of its own are there, and no others.
    fn round(&mut self, spec: &ClientSpec, number: u64) -> Result<(), String> {
        let expected = i64::try_from(number + 1).unwrap_or(i64::MAX);
        let (own, all) = match self {
            Self::Table(sql) => {
                let name = &spec.name;
                sql.run(&format!(
                    "INSERT INTO own VALUES ({number}, '{name}'); INSERT INTO items (name) VALUES ('{name}')"
                ))?;
                let own = sql.one(&format!("SELECT count(*) FROM own WHERE owner = '{name}'"))?;
                let items: i64 = sql.one("SELECT count(*) FROM items")?;
                (own, items - spec.seeded_rows)
            }
            Self::Keys(redis) => {
                let failed = |error: ::redis::RedisError| error.to_string();
                let (): () = redis.set(format!("{}:{number}", spec.name), number).map_err(failed)?;
                let own: Vec<String> = redis.keys(format!("{}:*", spec.name)).map_err(failed)?;
                let all: i64 = ::redis::cmd("DBSIZE").query(redis).map_err(failed)?;
                (i64::try_from(own.len()).unwrap_or(i64::MAX), all)
            }
        };
        if (own, all) == (expected, expected) {
            Ok(())
        } else {
            Err(format!("after {expected} rounds there are {own} of its own and {all} in all"))
        }
    }
}
