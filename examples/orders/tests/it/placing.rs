//! Placing orders.

use orders::orders::{Line, OrderDetails, Status};
use serde_json::json;

use crate::support::Shop;

#[testenv::test]
async fn an_order_takes_its_stock_and_adds_up(shop: Shop) -> anyhow::Result<()> {
    let ada = shop.ada().await?;
    let (tea, pot) = (shop.product("TEA-GREEN").await?, shop.product("POT-IRON").await?);
    let placed = shop.place(ada, "first", &[(pot.id, 2), (tea.id, 3)]).await;
    assert_eq!(placed.status, 201);
    let OrderDetails { order, lines } = placed.ok();
    assert_eq!((order.customer_id, order.status), (ada, Status::Pending));
    assert_eq!(order.total_cents, 2 * 4900 + 3 * 690);
    let line = |product_id, quantity, unit_price_cents| Line { product_id, quantity, unit_price_cents };
    assert_eq!(lines, [line(tea.id, 3, 690), line(pot.id, 2, 4900)]);
    assert_eq!(shop.product("POT-IRON").await?.stock, pot.stock - 2);
    assert_eq!(shop.product("TEA-GREEN").await?.stock, tea.stock - 3);

    let shown: OrderDetails = shop.get(&format!("/orders/{}", order.id)).await.ok();
    assert_eq!(shown, OrderDetails { order, lines });
    Ok(())
}

#[testenv::test]
async fn lines_of_one_product_become_one(shop: Shop) -> anyhow::Result<()> {
    let tea = shop.product("TEA-MINT").await?;
    let placed = shop.order(shop.ada().await?, "k", &[(tea.id, 1), (tea.id, 4)]).await;
    assert_eq!(placed.lines.iter().map(|line| line.quantity).collect::<Vec<_>>(), [5]);
    Ok(())
}

#[testenv::test]
async fn an_order_keeps_its_price_when_the_product_does_not(shop: Shop) -> anyhow::Result<()> {
    let cup = shop.product("CUP-SMALL").await?;
    let placed = shop.order(shop.ada().await?, "k", &[(cup.id, 2)]).await;
    shop.put(&format!("/products/{}/price", cup.id), json!({ "price_cents": 9999 }))
        .await
        .ok::<serde_json::Value>();
    let shown: OrderDetails = shop.get(&format!("/orders/{}", placed.order.id)).await.ok();
    assert_eq!(shown, placed);
    Ok(())
}

#[testenv::test]
async fn one_line_too_many_undoes_the_whole_order(shop: Shop) -> anyhow::Result<()> {
    let (tea, pot) = (shop.product("TEA-GREEN").await?, shop.product("POT-IRON").await?);
    let refused = shop.place(shop.ada().await?, "k", &[(tea.id, 1), (pot.id, pot.stock + 1)]).await;
    refused.is_refused(409, "out_of_stock");
    assert_eq!(shop.product("TEA-GREEN").await?.stock, tea.stock);
    for table in ["orders", "order_lines", "order_history", "outbox"] {
        assert_eq!(shop.count(table).await?, 0, "{table}");
    }
    Ok(())
}

#[testenv::test]
async fn the_last_one_can_be_bought(shop: Shop) -> anyhow::Result<()> {
    let pot = shop.product("POT-IRON").await?;
    shop.order(shop.ada().await?, "all", &[(pot.id, pot.stock)]).await;
    assert_eq!(shop.product("POT-IRON").await?.stock, 0);
    shop.place(shop.ada().await?, "more", &[(pot.id, 1)]).await.is_refused(409, "out_of_stock");
    Ok(())
}

#[testenv::test]
async fn unknown_customers_and_products_are_named(shop: Shop) -> anyhow::Result<()> {
    let tea = shop.product("TEA-GREEN").await?;
    shop.place(4711, "k", &[(tea.id, 1)]).await.is_refused(404, "not_found");
    shop.place(shop.ada().await?, "k", &[(tea.id, 1), (4711, 1)]).await.is_refused(404, "not_found");
    shop.get("/orders/4711").await.is_refused(404, "not_found");
    Ok(())
}

#[testenv::test]
async fn an_order_without_sense_is_refused(shop: Shop) -> anyhow::Result<()> {
    let (ada, tea) = (shop.ada().await?, shop.product("TEA-GREEN").await?.id);
    shop.place(ada, "k", &[]).await.is_refused(422, "invalid");
    shop.place(ada, "k", &[(tea, 0)]).await.is_refused(422, "invalid");
    shop.place(ada, &"k".repeat(65), &[(tea, 1)]).await.is_refused(422, "invalid");
    let without_key = json!({ "customer_id": ada, "lines": [{ "product_id": tea, "quantity": 1 }] });
    shop.post("/orders", without_key).await.is_refused(422, "invalid");
    Ok(())
}

#[testenv::test]
async fn the_same_request_again_gets_the_same_order(shop: Shop) -> anyhow::Result<()> {
    let (ada, tea) = (shop.ada().await?, shop.product("TEA-GREEN").await?);
    let first = shop.order(ada, "once", &[(tea.id, 2)]).await;
    let again = shop.place(ada, "once", &[(tea.id, 1), (tea.id, 1)]).await;
    assert_eq!(again.status, 200);
    assert_eq!(again.ok::<OrderDetails>(), first);
    assert_eq!(shop.product("TEA-GREEN").await?.stock, tea.stock - 2);
    Ok(())
}

#[testenv::test]
async fn the_same_key_for_something_else_is_a_mistake(shop: Shop) -> anyhow::Result<()> {
    let tea = shop.product("TEA-GREEN").await?.id;
    shop.order(shop.ada().await?, "once", &[(tea, 2)]).await;
    shop.place(shop.ada().await?, "once", &[(tea, 3)]).await.is_refused(422, "key_reused");
    // Another customer has other keys.
    shop.order(shop.customer("grace@example.com").await?, "once", &[(tea, 3)]).await;
    Ok(())
}
