//! Connections, pools and transactions of the drivers, against real servers.

use testenv::{Postgres, Redis, SqlxTransaction, Transaction};

/// Since when the session of a client exists, in seconds since the Unix epoch.
async fn began(client: &tokio_postgres::Client) -> Result<f64, testenv::Error> {
    let query =
        "SELECT extract(epoch FROM backend_start)::float8 FROM pg_stat_activity WHERE pid = pg_backend_pid()";
    Ok(client.query_one(query, &[]).await?.get(0))
}

#[testenv::test]
async fn tokio_postgres_takes_over_a_session_that_was_there(db: Postgres) -> Result<(), testenv::Error> {
    let offered = db.lease().handover.is_some();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    let first = db.connect().await?;
    let second = db.connect().await?;
    for client in [&first, &second] {
        let row = client.query_one("SELECT current_user::text, current_database()::text", &[]).await?;
        assert_eq!(row.get::<_, &str>(0), db.user());
        assert_eq!(row.get::<_, &str>(1), db.database());
        let encoding: String = client.query_one("SHOW client_encoding", &[]).await?.get(0);
        assert_eq!(encoding, "UTF8");
    }
    assert!(began(&second).await? >= now, "the second is new");
    assert!(offered, "a server of one's own comes with a session");
    assert!(began(&first).await? < now, "the first was there before it was asked for");
    Ok(())
}

#[testenv::test(isolation = "namespace")]
async fn tokio_postgres_connects_to_a_database_in_a_shared_server(
    db: Postgres,
) -> Result<(), testenv::Error> {
    let client = db.connect().await?;
    let name: String = client.query_one("SELECT current_database()::text", &[]).await?.get(0);
    assert_eq!(name, db.database());
    client.execute("INSERT INTO orders (total) VALUES (1)", &[]).await?;
    Ok(())
}

#[testenv::test]
async fn a_session_that_was_handed_over_reports_errors_and_goes_on(
    db: Postgres,
) -> Result<(), testenv::Error> {
    let client = db.connect().await?;
    let error = client.execute("INSERT INTO orders (total) VALUES (-1)", &[]).await.unwrap_err();
    assert_eq!(error.code(), Some(&tokio_postgres::error::SqlState::CHECK_VIOLATION));
    let big: String = client.query_one("SELECT repeat('x', 1000000)", &[]).await?.get(0);
    assert_eq!(big.len(), 1_000_000);
    Ok(())
}

/// Leaves an order behind unless it is rolled back, and sees none of the other's.
async fn one_order(client: &tokio_postgres::Client) -> Result<(), testenv::Error> {
    let count = "SELECT count(*) FROM orders";
    assert_eq!(client.query_one(count, &[]).await?.get::<_, i64>(0), 0);
    client.execute("INSERT INTO orders (total) VALUES (7)", &[]).await?;
    assert_eq!(client.query_one(count, &[]).await?.get::<_, i64>(0), 1);
    Ok(())
}

#[testenv::test]
async fn a_transaction_is_rolled_back_1(tx: Transaction) -> Result<(), testenv::Error> {
    one_order(&tx).await
}

#[testenv::test]
async fn a_transaction_is_rolled_back_2(tx: Transaction) -> Result<(), testenv::Error> {
    one_order(&tx).await
}

#[testenv::test]
async fn a_transaction_is_rolled_back_within_one_test(
    first: Transaction,
    second: Transaction,
) -> Result<(), testenv::Error> {
    assert_eq!(first.postgres().url(), second.postgres().url(), "one database for both");
    one_order(&first).await?;
    one_order(&second).await?;
    drop(first);
    let count: i64 = second.query_one("SELECT count(*) FROM orders", &[]).await?.get(0);
    assert_eq!(count, 1, "the second sees its own order only");
    Ok(())
}

#[testenv::test]
async fn sqlx_has_a_pool_and_a_transaction(db: Postgres, mut tx: SqlxTransaction) -> Result<(), sqlx::Error> {
    let pool = db.pool().await.unwrap();
    sqlx::query("INSERT INTO orders (total) VALUES (3)").execute(&pool).await?;
    sqlx::query("INSERT INTO orders (total) VALUES (4)").execute(&mut *tx).await?;
    let sum = "SELECT coalesce(sum(total), 0)::bigint FROM orders";
    assert_eq!(sqlx::query_scalar::<_, i64>(sum).fetch_one(&pool).await?, 3);
    assert_eq!(sqlx::query_scalar::<_, i64>(sum).fetch_one(&mut *tx).await?, 4);
    assert_ne!(db.url(), tx.postgres().url());
    Ok(())
}

#[testenv::test]
async fn redis_connects_async_and_sync(cache: Redis, other: Redis) -> Result<(), testenv::Error> {
    let mut connection = cache.connect().await?;
    let size = redis::cmd("DBSIZE");
    assert_eq!(size.query_async::<i64>(&mut connection).await?, 0);
    redis::cmd("SET").arg("a").arg("1").query_async::<()>(&mut connection).await?;

    let mut same = cache.connection()?;
    assert_eq!(redis::cmd("GET").arg("a").query::<String>(&mut same)?, "1");
    let mut elsewhere = other.connection()?;
    assert_eq!(size.query::<i64>(&mut elsewhere)?, 0);
    Ok(())
}

#[testenv::test]
fn the_url_works_with_a_password_over_tcp(cache: Redis) -> redis::RedisResult<()> {
    let mut connection = redis::Client::open(cache.url())?.get_connection()?;
    redis::cmd("PING").query::<()>(&mut connection)
}

#[testenv::test]
async fn the_url_of_postgres_works_over_tcp(db: Postgres) -> Result<(), sqlx::Error> {
    let pool = sqlx::PgPool::connect(db.url()).await?;
    sqlx::query("SELECT 1").execute(&pool).await.map(drop)
}
