//! Without arguments: plain functions that work in any test, and tests that are not async.

use redis::Commands as _;
use testenv::{Postgres, Redis};

/// The standard `#[test]` with plain functions: nothing of testenv's around it.
#[test]
fn a_redis_from_a_plain_function() -> anyhow::Result<()> {
    let cache = testenv::redis()?;
    let mut redis = cache.connection()?;
    let () = redis.set("greeting", "hello")?;
    assert_eq!(redis.get::<_, String>("greeting")?, "hello");
    Ok(())
}

/// Works with any test attribute, such as tokio's.
#[tokio::test]
async fn a_postgres_in_another_frameworks_test() -> anyhow::Result<()> {
    let db = testenv::postgres()?;
    let client = db.connect().await?;
    let products: i64 = client.query_one("SELECT count(*) FROM products", &[]).await?.get(0);
    assert_eq!(products, 8);
    Ok(())
}

/// Not async: all that is needed here is where the servers are.
#[testenv::test]
fn both_servers_have_addresses_of_their_own(db: Postgres, cache: Redis) {
    assert!(db.url().starts_with("postgres://"), "{}", db.url());
    assert!(cache.url().starts_with("redis://"), "{}", cache.url());
}

#[testenv::test]
fn a_fresh_redis_is_empty(cache: Redis) -> anyhow::Result<()> {
    let mut redis = cache.connection()?;
    assert_eq!(redis::cmd("DBSIZE").query::<i64>(&mut redis)?, 0);
    // No other test minds.
    redis::cmd("FLUSHALL").exec(&mut redis)?;
    Ok(())
}

/// Two databases in one test: what is written to one is not in the other.
#[testenv::test]
async fn a_test_may_have_two_databases(first: Postgres, second: Postgres) -> anyhow::Result<()> {
    let (first, second) = (first.connect().await?, second.connect().await?);
    first.batch_execute("DROP TABLE payments").await?;
    second.batch_execute("SELECT FROM payments").await?;
    Ok(())
}

/// Two servers at once from a plain function: both are on their way before the first is waited for.
#[test]
fn both_servers_from_a_plain_function() -> anyhow::Result<()> {
    let (db, cache) = testenv::acquire((Postgres::builder(), Redis::builder().role("cache")))?;
    assert_eq!((db.lease().role.as_str(), cache.lease().role.as_str()), ("database", "cache"));
    Ok(())
}

/// An argument may name its role, where several are of one kind.
#[testenv::test]
fn an_argument_may_name_its_role(#[testenv(role = "database")] db: Postgres) {
    assert_eq!(db.lease().role, "database");
}

/// A database of its own in a server that others share: lighter than a server, and prepared all the same.
#[testenv::test(isolation = "namespace")]
async fn a_test_may_do_with_a_database(db: Postgres) -> anyhow::Result<()> {
    let client = db.connect().await?;
    let row = client.query_one("SELECT current_database(), count(*) FROM products", &[]).await?;
    assert_eq!((row.get::<_, &str>(0), row.get::<_, i64>(1)), (db.database(), 8));
    assert_ne!(db.database(), "app");
    Ok(())
}
