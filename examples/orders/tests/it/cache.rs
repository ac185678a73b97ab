//! The product cache, seen from both sides: the service's answers and what is in Redis.

use orders::products::Product;
use redis::AsyncCommands as _;
use serde_json::{Value, json};

use crate::support::Shop;

/// Asks for a product and returns it with where it came from.
async fn ask(shop: &Shop, id: i64) -> (Product, String) {
    let answer = shop.get(&format!("/products/{id}")).await;
    (answer.ok(), answer.header("x-cache").to_owned())
}

#[testenv::test]
async fn the_second_look_is_a_hit(shop: Shop) -> anyhow::Result<()> {
    let tea = shop.product("TEA-GREEN").await?;
    assert_eq!(ask(&shop, tea.id).await, (tea.clone(), "miss".into()));
    assert_eq!(ask(&shop, tea.id).await, (tea, "hit".into()));
    Ok(())
}

#[testenv::test]
async fn a_hit_does_not_ask_the_database(shop: Shop) -> anyhow::Result<()> {
    let tea = shop.product("TEA-GREEN").await?;
    ask(&shop, tea.id).await;
    // Behind the service's back, so that nothing takes the cached copy away.
    sqlx::query("UPDATE products SET price_cents = 1 WHERE id = $1").bind(tea.id).execute(&shop.pool).await?;
    assert_eq!(ask(&shop, tea.id).await.0.price_cents, tea.price_cents);
    Ok(())
}

#[testenv::test]
async fn a_new_price_is_seen_at_once(shop: Shop) -> anyhow::Result<()> {
    let tea = shop.product("TEA-GREEN").await?;
    ask(&shop, tea.id).await;
    shop.put(&format!("/products/{}/price", tea.id), json!({ "price_cents": 750 })).await.ok::<Value>();
    assert_eq!(ask(&shop, tea.id).await, (Product { price_cents: 750, ..tea }, "miss".into()));
    Ok(())
}

#[testenv::test]
async fn stock_is_seen_at_once_whatever_moves_it(shop: Shop) -> anyhow::Result<()> {
    let pot = shop.product("POT-IRON").await?;
    ask(&shop, pot.id).await;
    let order = shop.order(shop.ada().await?, "k", &[(pot.id, 2)]).await.order;
    assert_eq!(ask(&shop, pot.id).await, (Product { stock: 3, ..pot.clone() }, "miss".into()));
    shop.post(&format!("/orders/{}/cancel", order.id), json!({})).await.ok::<Value>();
    assert_eq!(ask(&shop, pot.id).await, (Product { stock: 5, ..pot.clone() }, "miss".into()));
    shop.post(&format!("/products/{}/deliveries", pot.id), json!({ "quantity": 4 })).await.ok::<Value>();
    assert_eq!(ask(&shop, pot.id).await, (Product { stock: 9, ..pot }, "miss".into()));
    Ok(())
}

#[testenv::test]
async fn a_refused_order_leaves_the_cache_alone(shop: Shop) -> anyhow::Result<()> {
    let pot = shop.product("POT-IRON").await?;
    ask(&shop, pot.id).await;
    shop.place(shop.ada().await?, "k", &[(pot.id, 6)]).await.is_refused(409, "out_of_stock");
    assert_eq!(ask(&shop, pot.id).await, (pot, "hit".into()));
    Ok(())
}

#[testenv::test]
async fn an_entry_does_not_live_long(shop: Shop) -> anyhow::Result<()> {
    let tea = shop.product("TEA-GREEN").await?;
    ask(&shop, tea.id).await;
    let mut redis = shop.cache.connect().await?;
    let keys: Vec<String> = redis.keys("*").await?;
    assert_eq!(keys, [format!("product:{}", tea.id)]);
    let ttl_s: i64 = redis.ttl(&keys[0]).await?;
    assert!((1..=30).contains(&ttl_s), "{ttl_s} s");
    Ok(())
}

#[testenv::test]
async fn an_entry_of_another_version_is_a_miss(shop: Shop) -> anyhow::Result<()> {
    let tea = shop.product("TEA-GREEN").await?;
    let mut redis = shop.cache.connect().await?;
    let () = redis.set(format!("product:{}", tea.id), r#"{"id":1,"titel":"Tee"}"#).await?;
    assert_eq!(ask(&shop, tea.id).await, (tea, "miss".into()));
    Ok(())
}
