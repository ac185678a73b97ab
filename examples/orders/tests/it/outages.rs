//! What happens when PostgreSQL or Redis does not behave. Only servers of one's own can be treated like this.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testenv::{Postgres, Redis};

use crate::support::{Rules, Shop, eventually};

#[testenv::test]
async fn all_is_well(shop: Shop) {
    let health: Value = shop.get("/health").await.ok();
    assert_eq!(health, json!({ "database": true, "cache": true }));
}

#[testenv::test]
async fn without_redis_orders_go_on(shop: Shop) -> anyhow::Result<()> {
    let (ada, tea) = (shop.ada().await?, shop.product("TEA-GREEN").await?.id);
    shop.get(&format!("/products/{tea}")).await.ok::<Value>();
    let mut redis = shop.cache.connect().await?;
    // It answers by closing the connection.
    let _: redis::RedisResult<()> = redis::cmd("SHUTDOWN").arg("NOSAVE").query_async(&mut redis).await;

    shop.order(ada, "k", &[(tea, 1)]).await;
    assert_eq!(shop.get(&format!("/products/{tea}")).await.header("x-cache"), "miss");
    let health: Value = shop.get("/health").await.ok();
    assert_eq!(health, json!({ "database": true, "cache": false }));
    Ok(())
}

#[testenv::test]
async fn a_redis_that_hangs_costs_little(db: Postgres, cache: Redis) -> anyhow::Result<()> {
    let rules = Rules { cache_patience: Duration::from_millis(50), ..Rules::default() };
    let shop = Shop::open(db, cache, rules).await?;
    let tea = shop.product("TEA-GREEN").await?.id;
    shop.get(&format!("/products/{tea}")).await.ok::<Value>();
    let mut redis = shop.cache.connect().await?;
    let () = redis::cmd("CLIENT").arg("PAUSE").arg(20_000).query_async(&mut redis).await?;
    let start = Instant::now();
    let answer = shop.get(&format!("/products/{tea}")).await;
    assert_eq!((answer.status, answer.header("x-cache")), (200, "miss"));
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    Ok(())
}

#[testenv::test]
async fn the_service_survives_the_loss_of_its_connections(shop: Shop) -> anyhow::Result<()> {
    let tea = shop.product("TEA-GREEN").await?.id;
    shop.get("/orders").await.ok::<Value>();
    let admin = shop.db.connect().await?;
    let ended = admin
        .query(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
             WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
            &[],
        )
        .await?;
    assert!(!ended.is_empty());
    shop.order(shop.ada().await?, "k", &[(tea, 1)]).await;
    Ok(())
}

/// Changes a setting of the whole server, which no other test notices.
#[testenv::test]
async fn a_read_only_database_is_an_error_but_not_a_crash(shop: Shop) -> anyhow::Result<()> {
    let admin = shop.db.connect().await?;
    admin.batch_execute("ALTER SYSTEM SET default_transaction_read_only = on").await?;
    admin.batch_execute("SELECT pg_reload_conf()").await?;
    let mut attempts = 0..;
    eventually("the setting is in force for the service's sessions", async || {
        let email = format!("customer-{}@example.com", attempts.next().unwrap_or(0));
        let answer = shop.post("/customers", json!({ "email": email, "name": "Late" })).await;
        if answer.status == 201 {
            return Ok(false);
        }
        answer.is_refused(500, "internal");
        Ok(true)
    })
    .await?;
    shop.get("/products").await.ok::<Value>();
    Ok(())
}
