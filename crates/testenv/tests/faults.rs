//! Faults, as real clients of real servers meet them. No upper bound of a time is looked at; what must not take for
//! ever has a limit that only a defect reaches.

use std::error::Error as _;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use testenv::{Effect, Isolation, Postgres, Redis, Transaction};
use tokio::time::timeout;
use tokio_postgres::{Client, NoTls};

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(60);
/// How long an answer is waited for that does not come.
const PATIENCE: Duration = Duration::from_millis(300);
const MS: Duration = Duration::from_millis(1);

/// A session past the proxy.
async fn direct(db: &Postgres) -> Result<Client, testenv::Error> {
    let (client, connection) = tokio_postgres::connect(db.direct_url(), NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// A session, and what will have become of its connection.
async fn watched(db: &Postgres) -> Result<(Client, Ended), testenv::Error> {
    let (client, connection) = db.config().connect(NoTls).await?;
    Ok((client, tokio::spawn(connection)))
}

type Ended = tokio::task::JoinHandle<Result<(), tokio_postgres::Error>>;

async fn one(client: &Client, query: &str) -> Result<i64, tokio_postgres::Error> {
    Ok(within(client.query_one(query, &[])).await?.get(0))
}

async fn within<T>(doing: impl Future<Output = T>) -> T {
    timeout(LIMIT, doing).await.expect("it does not take for ever")
}

/// Waits until a count is what it has to be.
async fn until(client: &Client, query: &str, expected: i64) {
    let reached = async {
        while one(client, query).await.unwrap() != expected {
            tokio::time::sleep(5 * MS).await;
        }
    };
    within(reached).await;
}

/// The kind of the IO error beneath an error of a driver.
fn io_kind(error: &(dyn std::error::Error + 'static)) -> Option<ErrorKind> {
    let is_io = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    is_io.or_else(|| error.source().and_then(io_kind))
}

const ADD: &str = "INSERT INTO orders (total) VALUES (1)";
const ORDERS: &str = "SELECT count(*) FROM orders";
/// Whether the session under test computes, or sleeps.
const BUSY: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'";

#[testenv::test]
async fn a_lease_with_faults_leads_through_a_proxy_and_past_it(
    #[testenv(faults)] db: Postgres,
    plain: Postgres,
) -> Result<(), testenv::Error> {
    let lease = db.lease();
    let direct_port = lease.direct_port.expect("there is a proxy");
    assert_ne!(db.port(), direct_port);
    assert!(db.url().contains(&format!(":{}/", db.port())));
    assert_eq!(db.direct_url(), db.url().replace(&db.port().to_string(), &direct_port.to_string()));
    assert_eq!(db.env()["DATABASE_URL"], db.url());
    assert_eq!(db.env()["PGPORT"], db.port().to_string());
    assert!(db.connect_command().contains(&direct_port.to_string()), "{}", db.connect_command());
    assert!(lease.handover.is_none(), "a session that is handed over would know no faults");
    // What the handle connects goes by TCP, which is how the proxy is reached.
    let by_tcp = "SELECT count(inet_client_addr())";
    assert_eq!(one(&db.connect().await?, by_tcp).await?, 1);
    let pool = db.pool().await?;
    assert_eq!(sqlx::query_scalar::<_, i64>(by_tcp).fetch_one(&pool).await?, 1);
    assert_eq!(db.faults().list()?.accepted_connections, 2);

    assert_eq!(plain.lease().direct_port, None);
    assert_eq!(plain.direct_url(), plain.url());
    let error = plain.faults().cut().unwrap_err().to_string();
    for said in ["has no proxy", "#[testenv(faults)]", "testenv exec --faults", "[services.database]"] {
        assert!(error.contains(said), "{error}");
    }
    Ok(())
}

#[testenv::test]
async fn latency_makes_queries_wait_both_ways(#[testenv(faults)] db: Postgres) -> Result<(), testenv::Error> {
    let client = db.connect().await?;
    let slow = db.faults().latency(60 * MS)?;
    let slower = db.faults().downstream().latency(40 * MS)?;
    let begun = Instant::now();
    one(&client, ORDERS).await?;
    assert!(begun.elapsed() >= 160 * MS, "{:?}", begun.elapsed());
    let kinds: Vec<_> = db.faults().list()?.faults.into_iter().map(|fault| fault.effect.kind()).collect();
    assert_eq!(kinds, ["latency", "latency"]);
    slow.remove()?;
    drop(slower);
    assert_eq!(db.faults().list()?.faults, []);
    one(&client, ORDERS).await?;
    Ok(())
}

#[testenv::test]
fn loss_and_jitter_are_late_and_nothing_is_missing(#[testenv(faults)] cache: Redis) -> anyhow::Result<()> {
    let mut connection = cache.connection()?;
    let lossy = cache.faults().upstream().add(Effect::Loss { percent: 100, retransmit_ms: 2 })?;
    let begun = Instant::now();
    redis::cmd("SET").arg("a").arg("1").query::<()>(&mut connection)?;
    assert!(begun.elapsed() >= 2 * 63 * MS, "six retransmissions, each twice as late as the one before");
    drop(lossy);
    let jitter = cache.faults().jitter(20 * MS)?;
    for n in 0..10 {
        redis::cmd("SET").arg("n").arg(n).query::<()>(&mut connection)?;
        assert_eq!(redis::cmd("GET").arg("n").query::<i64>(&mut connection)?, n);
    }
    assert_eq!(cache.faults().list()?.seed, 0);
    drop(jitter);
    Ok(())
}

#[testenv::test]
async fn bandwidth_makes_a_large_answer_wait(#[testenv(faults)] db: Postgres) -> Result<(), testenv::Error> {
    let client = db.connect().await?;
    let _narrow = db.faults().downstream().bandwidth(500_000)?;
    let begun = Instant::now();
    let text: String = within(client.query_one("SELECT repeat('x', 100000)", &[])).await?.get(0);
    assert_eq!(text.len(), 100_000);
    assert!(begun.elapsed() >= 200 * MS, "{:?}", begun.elapsed());
    Ok(())
}

#[testenv::test]
async fn a_reset_ends_a_query_and_the_next_connection_works(
    #[testenv(faults)] db: Postgres,
) -> Result<(), testenv::Error> {
    let (client, ended) = watched(&db).await?;
    let query = tokio::spawn(async move { client.batch_execute("SELECT pg_sleep(600)").await });
    until(&direct(&db).await?, BUSY, 1).await;
    db.faults().reset()?;
    within(query).await.unwrap().unwrap_err();
    let error = within(ended).await.unwrap().unwrap_err();
    assert_eq!(io_kind(&error), Some(ErrorKind::ConnectionReset), "{error:?}");
    one(&db.connect().await?, ORDERS).await?;

    let _every_time = db.faults().on_new().add(Effect::Reset)?;
    let error = db.connect().await.unwrap_err();
    assert_eq!(error.source().and_then(io_kind), Some(ErrorKind::ConnectionReset), "{error:?}");
    Ok(())
}

#[testenv::test]
async fn a_cut_answer_leaves_the_write_done(#[testenv(faults)] db: Postgres) -> Result<(), testenv::Error> {
    let client = db.connect().await?;
    let cut = db.faults().cut_downstream()?;
    // One message. What a statement is prepared with would be answered before it is executed.
    timeout(PATIENCE, client.batch_execute(ADD)).await.expect_err("the answer does not arrive");
    let looking = direct(&db).await?;
    until(&looking, ORDERS, 1).await;
    // The server has answered before it shows the row to others; give its answer time to be swallowed.
    until(
        &looking,
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'INSERT%' AND state = 'active'",
        0,
    )
    .await;
    assert!(!client.is_closed(), "nobody was told");
    drop(cut);
    Ok(())
}

#[testenv::test]
async fn a_cut_question_is_never_asked(#[testenv(faults)] db: Postgres) -> Result<(), testenv::Error> {
    let (client, ended) = watched(&db).await?;
    let looking = direct(&db).await?;
    let cut = db.faults().cut_upstream()?;
    let mut asking = Box::pin(client.execute(ADD, &[]));
    timeout(PATIENCE, &mut asking).await.expect_err("the question does not arrive");
    drop(cut);
    within(asking).await.unwrap_err();
    let error = within(ended).await.unwrap().unwrap_err();
    assert_eq!(io_kind(&error), Some(ErrorKind::ConnectionReset), "nothing follows a gap: {error:?}");
    assert_eq!(one(&looking, ORDERS).await?, 0);
    Ok(())
}

#[testenv::test]
async fn a_stall_passes_and_nothing_was_lost(#[testenv(faults)] db: Postgres) -> Result<(), testenv::Error> {
    let client = db.connect().await?;
    let stall = db.faults().stall()?;
    let mut asking = Box::pin(client.execute(ADD, &[]));
    timeout(PATIENCE, &mut asking).await.expect_err("the question does not arrive");
    drop(stall);
    assert_eq!(within(asking).await?, 1);
    assert_eq!(one(&client, ORDERS).await?, 1);
    Ok(())
}

#[testenv::test]
async fn limited_bytes_truncate_an_answer(
    #[testenv(faults)] db: Postgres,
    #[testenv(faults)] cache: Redis,
) -> anyhow::Result<()> {
    let client = db.connect().await?;
    let limit = db.faults().downstream().limit_bytes(5000)?;
    let error = within(client.query_one("SELECT repeat('x', 100000)", &[])).await.unwrap_err();
    assert!(error.is_closed() || io_kind(&error).is_some(), "{error:?}");
    drop(limit);
    one(&db.connect().await?, ORDERS).await?;

    let mut connection = raw(&cache)?;
    connection.write_all(b"SET a 0123456789\r\n")?;
    assert_eq!(line(&mut connection)?, "+OK");
    let _limit = cache.faults().downstream().limit_bytes(9)?;
    connection.write_all(b"GET a\r\n")?;
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer)?;
    assert_eq!(answer, b"$10\r\n0123", "nine bytes, and an orderly end");
    Ok(())
}

/// A connection to Redis without a driver.
fn raw(cache: &Redis) -> anyhow::Result<TcpStream> {
    let mut connection = TcpStream::connect((cache.host(), cache.port()))?;
    connection.set_read_timeout(Some(LIMIT))?;
    connection.write_all(format!("AUTH {}\r\n", cache.password()).as_bytes())?;
    assert_eq!(line(&mut connection)?, "+OK");
    Ok(connection)
}

fn line(connection: &mut TcpStream) -> anyhow::Result<String> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        let mut byte = [0];
        connection.read_exact(&mut byte)?;
        line.extend(byte);
    }
    Ok(String::from_utf8(line)?.trim_end().to_owned())
}

#[testenv::test]
fn a_slow_close_keeps_the_end_back(#[testenv(faults)] cache: Redis) -> anyhow::Result<()> {
    let mut connection = raw(&cache)?;
    let _slow = cache.faults().slow_close(150 * MS)?;
    let begun = Instant::now();
    connection.write_all(b"QUIT\r\n")?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    assert_eq!(answer, "+OK\r\n");
    assert!(begun.elapsed() >= 150 * MS, "{:?}", begun.elapsed());
    Ok(())
}

#[testenv::test]
async fn refused_is_refused_and_open_connections_go_on(
    #[testenv(faults)] db: Postgres,
) -> Result<(), testenv::Error> {
    let client = db.connect().await?;
    let refused = db.faults().refuse()?;
    let error = db.connect().await.unwrap_err();
    assert_eq!(error.source().and_then(io_kind), Some(ErrorKind::ConnectionRefused), "{error:?}");
    one(&client, ORDERS).await?;
    one(&direct(&db).await?, ORDERS).await?;
    drop(refused);
    one(&db.connect().await?, ORDERS).await?;
    Ok(())
}

#[testenv::test]
fn a_fault_may_be_left_and_cleared(#[testenv(faults)] cache: Redis) -> anyhow::Result<()> {
    cache.faults().refuse()?.leave();
    let guard = cache.faults().latency(MS)?;
    let error = cache.connection().map(drop).unwrap_err();
    let error =
        error.source().and_then(|it| it.downcast_ref::<redis::RedisError>()).expect("it is the driver's");
    assert!(error.is_connection_refusal(), "{error:?}");
    cache.faults().clear()?;
    cache.connection()?;
    guard.remove()?; // which is no error though it is gone already
    Ok(())
}

#[testenv::test]
async fn a_paused_server_answers_when_it_goes_on(db: Postgres, cache: Redis) -> anyhow::Result<()> {
    // PostgreSQL is several processes; without a proxy too.
    let client = db.connect().await?;
    let paused = db.faults().pause()?;
    let mut asking = Box::pin(client.execute(ADD, &[]));
    timeout(PATIENCE, &mut asking).await.expect_err("nobody answers");
    timeout(PATIENCE, db.connect()).await.expect_err("the kernel takes the connection, and nobody serves it");
    drop(paused);
    assert_eq!(within(asking).await?, 1);

    let mut connection = cache.connection()?;
    cache.faults().pause()?.leave();
    connection.set_read_timeout(Some(PATIENCE))?;
    assert!(redis::cmd("PING").query::<()>(&mut connection).unwrap_err().is_timeout());
    cache.faults().resume()?;
    redis::cmd("PING").query::<()>(&mut cache.connection()?)?;
    Ok(())
}

#[testenv::test]
async fn a_killed_server_is_gone(#[testenv(faults)] db: Postgres) -> Result<(), testenv::Error> {
    let client = db.connect().await?;
    let query = tokio::spawn(async move { client.batch_execute("SELECT pg_sleep(600)").await });
    until(&direct(&db).await?, BUSY, 1).await;
    let paused = db.faults().pause()?;
    db.faults().kill()?;
    let error = within(query).await.unwrap().unwrap_err();
    assert!(error.is_closed() || io_kind(&error).is_some(), "{error:?}");
    let error = db.connect().await.unwrap_err();
    assert_eq!(error.source().and_then(io_kind), Some(ErrorKind::ConnectionRefused), "{error:?}");
    assert!(direct(&db).await.is_err());
    db.faults().kill()?;
    db.faults().resume()?;
    drop(paused);
    let error = db.faults().pause().unwrap_err().to_string();
    assert!(error.contains("has ended, so it cannot be paused"), "{error}");
    Ok(())
}

#[testenv::test]
async fn a_database_in_a_shared_server_has_faults_of_its_own(
    #[testenv(faults, isolation = "namespace")] db: Postgres,
    #[testenv(isolation = "namespace")] other: Postgres,
    #[testenv(faults)] tx: Transaction,
) -> Result<(), testenv::Error> {
    assert_eq!(db.lease().isolation, Isolation::Namespace);
    let client = db.connect().await?;
    let _cut = db.faults().cut()?;
    timeout(PATIENCE, client.execute(ADD, &[])).await.expect_err("it is cut");
    assert_eq!(one(&other.connect().await?, ORDERS).await?, 0);
    let error = db.faults().pause().unwrap_err().to_string();
    assert!(error.contains("serves other leases too") && error.contains("isolation `server`"), "{error}");

    let _slow = tx.postgres().faults().downstream().latency(50 * MS)?;
    let begun = Instant::now();
    assert_eq!(one(&tx, ORDERS).await?, 0);
    assert!(begun.elapsed() >= 50 * MS);
    Ok(())
}

#[testenv::test]
fn what_cannot_be_done_is_said(#[testenv(faults)] cache: Redis) {
    let error = cache.faults().restart().unwrap_err().to_string();
    assert!(error.contains("cannot restart a server"), "{error}");
    let error = cache.faults().bandwidth(0).unwrap_err().to_string();
    assert!(error.contains("`bytes_per_second` is 0"), "{error}");
    redis::cmd("PING").query::<()>(&mut cache.connection().unwrap()).unwrap();
}
