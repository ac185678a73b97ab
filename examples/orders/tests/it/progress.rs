//! Orders on their way: paid, shipped, cancelled, and what is not allowed.

use orders::orders::{OrderDetails, Status};
use serde_json::json;

use crate::support::{Answer, Shop};

async fn step(shop: &Shop, order: i64, step: &str) -> Answer {
    shop.post(&format!("/orders/{order}/{step}"), json!({})).await
}

#[testenv::test]
async fn an_order_is_paid_and_shipped(shop: Shop) -> anyhow::Result<()> {
    let tea = shop.product("TEA-BLACK").await?.id;
    let order = shop.order(shop.ada().await?, "k", &[(tea, 2)]).await.order;
    let paid: OrderDetails = shop.pay(order.id, order.total_cents).await.ok();
    assert_eq!(paid.order.status, Status::Paid);
    let shipped: OrderDetails = step(&shop, order.id, "ship").await.ok();
    assert_eq!(shipped.order.status, Status::Shipped);
    assert_eq!(shop.count("payments").await?, 1);
    Ok(())
}

#[testenv::test]
async fn an_order_is_paid_to_the_cent(shop: Shop) -> anyhow::Result<()> {
    let tea = shop.product("TEA-BLACK").await?.id;
    let order = shop.order(shop.ada().await?, "k", &[(tea, 2)]).await.order;
    for amount in [order.total_cents - 1, order.total_cents + 1, 0] {
        shop.pay(order.id, amount).await.is_refused(422, "wrong_amount");
    }
    let by_barter = json!({ "amount_cents": order.total_cents, "method": "goats" });
    shop.post(&format!("/orders/{}/pay", order.id), by_barter).await.is_refused(422, "invalid");
    assert_eq!(shop.count("payments").await?, 0);
    Ok(())
}

#[testenv::test]
async fn nobody_pays_twice(shop: Shop) -> anyhow::Result<()> {
    let tea = shop.product("TEA-BLACK").await?.id;
    let order = shop.order(shop.ada().await?, "k", &[(tea, 1)]).await.order;
    shop.pay(order.id, order.total_cents).await.ok::<OrderDetails>();
    shop.pay(order.id, order.total_cents).await.is_refused(409, "already_paid");
    Ok(())
}

#[testenv::test]
async fn a_cancelled_order_gives_its_stock_back_once(shop: Shop) -> anyhow::Result<()> {
    let pot = shop.product("POT-GLASS").await?;
    let order = shop.order(shop.ada().await?, "k", &[(pot.id, 5)]).await.order;
    for _ in 0..2 {
        let cancelled: OrderDetails = step(&shop, order.id, "cancel").await.ok();
        assert_eq!(cancelled.order.status, Status::Cancelled);
        assert_eq!(shop.product("POT-GLASS").await?.stock, pot.stock);
    }
    Ok(())
}

#[testenv::test]
async fn steps_out_of_order_are_refused_and_leave_no_trace(shop: Shop) -> anyhow::Result<()> {
    let tea = shop.product("TEA-BLACK").await?.id;
    let unpaid = shop.order(shop.ada().await?, "unpaid", &[(tea, 1)]).await.order;
    step(&shop, unpaid.id, "ship").await.is_refused(409, "wrong_status");

    let paid = shop.order(shop.ada().await?, "paid", &[(tea, 1)]).await.order;
    shop.pay(paid.id, paid.total_cents).await.ok::<OrderDetails>();
    step(&shop, paid.id, "cancel").await.is_refused(409, "wrong_status");

    step(&shop, unpaid.id, "cancel").await.ok::<OrderDetails>();
    shop.pay(unpaid.id, unpaid.total_cents).await.is_refused(409, "wrong_status");
    // The payment was written before the status was found to be wrong; it has to be gone with it.
    assert_eq!(shop.count("payments").await?, 1);
    Ok(())
}

#[testenv::test]
async fn what_is_not_there_cannot_go_on(shop: Shop) {
    for name in ["ship", "cancel"] {
        step(&shop, 4711, name).await.is_refused(404, "not_found");
    }
    shop.pay(4711, 1).await.is_refused(404, "not_found");
}
