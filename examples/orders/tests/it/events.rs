//! The outbox: an order and its events are both there, or neither.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::postgres::PgListener;
use tokio::time::timeout;

use crate::support::Shop;

#[testenv::test]
async fn an_orders_life_is_told_in_order(shop: Shop) -> anyhow::Result<()> {
    let (ada, tea) = (shop.ada().await?, shop.product("TEA-BLACK").await?.id);
    let order = shop.order(ada, "k", &[(tea, 2)]).await.order;
    shop.pay(order.id, order.total_cents).await.ok::<Value>();
    shop.post(&format!("/orders/{}/ship", order.id), json!({})).await.ok::<Value>();

    let told: Vec<(String, String, Value)> =
        sqlx::query_as("SELECT topic, key, payload FROM outbox ORDER BY id").fetch_all(&shop.pool).await?;
    let key = order.id.to_string();
    assert_eq!(
        told,
        [
            (
                "order.placed".into(),
                key.clone(),
                json!({ "customer_id": ada, "lines": { tea.to_string(): 2 } })
            ),
            ("order.paid".into(), key.clone(), json!({ "amount_cents": 1180, "method": "card" })),
            ("order.shipped".into(), key, json!({})),
        ]
    );
    Ok(())
}

#[testenv::test]
async fn doing_it_again_tells_it_once(shop: Shop) -> anyhow::Result<()> {
    let tea = shop.product("TEA-BLACK").await?.id;
    let order = shop.order(shop.ada().await?, "k", &[(tea, 2)]).await.order;
    for _ in 0..3 {
        shop.order(shop.ada().await?, "k", &[(tea, 2)]).await;
        shop.post(&format!("/orders/{}/cancel", order.id), json!({})).await.ok::<Value>();
    }
    assert_eq!(shop.count("outbox").await?, 2);
    Ok(())
}

#[testenv::test]
async fn a_relay_is_woken_by_the_database(shop: Shop) -> anyhow::Result<()> {
    let mut relay = PgListener::connect_with(&shop.pool).await?;
    relay.listen("outbox").await?;
    let (ada, pot) = (shop.ada().await?, shop.product("POT-IRON").await?);
    // Rolled back, so nobody hears of it: the first thing to be heard is the order that went through.
    shop.place(ada, "too-many", &[(pot.id, pot.stock + 1)]).await.is_refused(409, "out_of_stock");
    let order = shop.order(ada, "one", &[(pot.id, 1)]).await.order;
    let heard = timeout(Duration::from_secs(5), relay.recv()).await??;
    assert_eq!(heard.payload(), format!("order.placed {}", order.id));
    Ok(())
}
