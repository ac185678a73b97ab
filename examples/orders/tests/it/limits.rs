//! The rate limit. These tests open a shop with a limit of their own instead of taking one as an argument.

use redis::AsyncCommands as _;
use testenv::{Postgres, Redis};
use tokio::task::JoinSet;

use crate::support::{Rules, Shop};

fn only(orders_per_minute: u32) -> Rules {
    Rules { orders_per_minute, ..Rules::default() }
}

#[testenv::test]
async fn the_third_order_of_two_is_refused(db: Postgres, cache: Redis) -> anyhow::Result<()> {
    let shop = Shop::open(db, cache, only(2)).await?;
    let (ada, tea) = (shop.ada().await?, shop.product("TEA-GREEN").await?.id);
    shop.order(ada, "1", &[(tea, 1)]).await;
    shop.order(ada, "2", &[(tea, 1)]).await;
    let refused = shop.place(ada, "3", &[(tea, 1)]).await;
    refused.is_refused(429, "rate_limited");
    let retry_after_s: u64 = refused.header("retry-after").parse()?;
    assert!((1..=60).contains(&retry_after_s), "{retry_after_s} s");
    assert_eq!(shop.count("orders").await?, 2);
    Ok(())
}

#[testenv::test]
async fn each_customer_has_a_limit_of_their_own(db: Postgres, cache: Redis) -> anyhow::Result<()> {
    let shop = Shop::open(db, cache, only(1)).await?;
    let (ada, grace) = (shop.ada().await?, shop.customer("grace@example.com").await?);
    let tea = shop.product("TEA-GREEN").await?.id;
    shop.order(ada, "1", &[(tea, 1)]).await;
    shop.place(ada, "2", &[(tea, 1)]).await.is_refused(429, "rate_limited");
    shop.order(grace, "1", &[(tea, 1)]).await;
    Ok(())
}

#[testenv::test]
async fn the_limit_ends_with_its_minute(db: Postgres, cache: Redis) -> anyhow::Result<()> {
    let shop = Shop::open(db, cache, only(1)).await?;
    let (ada, tea) = (shop.ada().await?, shop.product("TEA-GREEN").await?.id);
    shop.order(ada, "1", &[(tea, 1)]).await;
    shop.place(ada, "2", &[(tea, 1)]).await.is_refused(429, "rate_limited");

    // No test waits for a minute: Redis is told that it is over.
    let mut redis = shop.cache.connect().await?;
    let key = format!("limit:orders:{ada}");
    let ttl_ms: i64 = redis.pttl(&key).await?;
    assert!((1..=60_000).contains(&ttl_ms), "{ttl_ms} ms");
    let () = redis.pexpire(&key, 0).await?;
    shop.order(ada, "2", &[(tea, 1)]).await;
    Ok(())
}

#[testenv::test(flavor = "multi_thread")]
async fn a_burst_gets_exactly_the_limit_through(db: Postgres, cache: Redis) -> anyhow::Result<()> {
    let shop = Shop::open(db, cache, only(7)).await?;
    let (ada, tea) = (shop.ada().await?, shop.product("TEA-GREEN").await?.id);
    let requests = (0..20).map(|index| {
        let shop = shop.clone();
        async move { shop.place(ada, &format!("burst-{index}"), &[(tea, 1)]).await.status }
    });
    let mut statuses = requests.collect::<JoinSet<_>>().join_all().await;
    statuses.sort_unstable();
    assert_eq!(statuses, [[201; 7].as_slice(), &[429; 13]].concat());
    Ok(())
}
