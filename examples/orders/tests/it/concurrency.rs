//! Many requests at once: races are tested on a real database, with real locks.

use std::collections::BTreeSet;
use std::future::Future;

use orders::orders::{OrderDetails, Status};
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::{Answer, Shop, eventually};

/// Runs all requests at the same time and returns the answers as they come.
async fn at_once<F>(requests: impl IntoIterator<Item = F>) -> Vec<Answer>
where
    F: Future<Output = Answer> + Send + 'static,
{
    requests.into_iter().collect::<JoinSet<_>>().join_all().await
}

fn statuses(answers: &[Answer]) -> Vec<u16> {
    let mut statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
    statuses.sort_unstable();
    statuses
}

/// Waits until so many sessions wait for a lock.
async fn wait_for_waiters(shop: &Shop, count: i64) -> anyhow::Result<()> {
    eventually(&format!("{count} sessions wait for a lock"), async || {
        let waiting: i64 = sqlx::query_scalar("SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted")
            .fetch_one(&shop.pool)
            .await?;
        Ok(waiting == count)
    })
    .await
}

#[testenv::test(flavor = "multi_thread")]
async fn twenty_customers_compete_for_five_pots(shop: Shop) -> anyhow::Result<()> {
    let (ada, pot) = (shop.ada().await?, shop.product("POT-IRON").await?);
    assert_eq!(pot.stock, 5);
    let answers = at_once((0..20).map(|index| {
        let shop = shop.clone();
        async move { shop.place(ada, &format!("race-{index}"), &[(pot.id, 1)]).await }
    }))
    .await;
    assert_eq!(statuses(&answers), [[201; 5].as_slice(), &[409; 15]].concat());
    assert_eq!(shop.product("POT-IRON").await?.stock, 0);
    assert_eq!((shop.count("orders").await?, shop.count("outbox").await?), (5, 5));
    Ok(())
}

#[testenv::test(flavor = "multi_thread")]
async fn ten_impatient_clicks_are_one_order(shop: Shop) -> anyhow::Result<()> {
    let (ada, pot) = (shop.ada().await?, shop.product("POT-GLASS").await?);
    let answers = at_once((0..10).map(|_| {
        let shop = shop.clone();
        async move { shop.place(ada, "click", &[(pot.id, 2)]).await }
    }))
    .await;
    assert_eq!(statuses(&answers), [[200; 9].as_slice(), &[201]].concat());
    let ids: BTreeSet<_> = answers.iter().map(|answer| answer.ok::<OrderDetails>().order.id).collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(shop.product("POT-GLASS").await?.stock, pot.stock - 2);
    Ok(())
}

/// The loser of an idempotency race has to wait for the winner's transaction, and take over when it fails.
#[testenv::test]
async fn a_repeated_request_waits_for_the_first_and_takes_over(shop: Shop) -> anyhow::Result<()> {
    let (ada, tea) = (shop.ada().await?, shop.product("TEA-MINT").await?);
    let mut first = shop.pool.begin().await?;
    sqlx::query("INSERT INTO orders (customer_id, idempotency_key, request) VALUES ($1, 'slow', '{}')")
        .bind(ada)
        .execute(&mut *first)
        .await?;

    let second = tokio::spawn({
        let shop = shop.clone();
        async move { shop.place(ada, "slow", &[(tea.id, 1)]).await }
    });
    wait_for_waiters(&shop, 1).await?;
    assert!(!second.is_finished());

    first.rollback().await?;
    assert_eq!(second.await?.status, 201);
    Ok(())
}

#[testenv::test(flavor = "multi_thread")]
async fn orders_of_the_same_products_do_not_deadlock(shop: Shop) -> anyhow::Result<()> {
    let (ada, tea, cup) =
        (shop.ada().await?, shop.product("TEA-GREEN").await?, shop.product("CUP-LARGE").await?);
    let answers = at_once((0..16).map(|index| {
        let shop = shop.clone();
        // Half of them name the products the other way round.
        let lines = if index % 2 == 0 { [(tea.id, 1), (cup.id, 1)] } else { [(cup.id, 1), (tea.id, 1)] };
        async move { shop.place(ada, &format!("both-{index}"), &lines).await }
    }))
    .await;
    assert_eq!(statuses(&answers), [201; 16]);
    assert_eq!(shop.product("TEA-GREEN").await?.stock, tea.stock - 16);
    Ok(())
}

#[testenv::test]
async fn two_payments_at_once_pay_once(shop: Shop) -> anyhow::Result<()> {
    let tea = shop.product("TEA-GREEN").await?;
    let order = shop.order(shop.ada().await?, "k", &[(tea.id, 1)]).await.order;
    let answers = at_once((0..4).map(|_| {
        let shop = shop.clone();
        async move { shop.pay(order.id, order.total_cents).await }
    }))
    .await;
    assert_eq!(statuses(&answers), [200, 409, 409, 409]);
    assert_eq!(shop.count("payments").await?, 1);
    Ok(())
}

/// Not left to luck: the test holds the order until both requests wait for it.
#[testenv::test]
async fn cancelling_twice_at_once_cancels_once(shop: Shop) -> anyhow::Result<()> {
    let pot = shop.product("POT-GLASS").await?;
    let order = shop.order(shop.ada().await?, "k", &[(pot.id, 4)]).await.order;
    let mut holder = shop.pool.begin().await?;
    sqlx::query("SELECT FROM orders WHERE id = $1 FOR UPDATE").bind(order.id).execute(&mut *holder).await?;
    let requests = (0..2).map(|_| {
        let shop = shop.clone();
        async move { shop.post(&format!("/orders/{}/cancel", order.id), json!({})).await }
    });
    let answers = tokio::spawn(at_once(requests.collect::<Vec<_>>()));
    wait_for_waiters(&shop, 2).await?;
    holder.rollback().await?;

    assert_eq!(statuses(&answers.await?), [200, 200]);
    assert_eq!(shop.product("POT-GLASS").await?.stock, pot.stock);
    // One event for the order, one for its end.
    assert_eq!(shop.count("outbox").await?, 2);
    Ok(())
}

/// Whoever comes first wins; which one that is, nobody knows, so the test accepts both and checks what follows.
#[testenv::test(flavor = "multi_thread")]
async fn paying_and_cancelling_at_once_ends_in_one_of_them(shop: Shop) -> anyhow::Result<()> {
    let pot = shop.product("POT-GLASS").await?;
    let order = shop.order(shop.ada().await?, "k", &[(pot.id, 3)]).await.order;
    let pay = tokio::spawn({
        let shop = shop.clone();
        async move { shop.pay(order.id, order.total_cents).await }
    });
    let cancel = tokio::spawn({
        let shop = shop.clone();
        async move { shop.post(&format!("/orders/{}/cancel", order.id), json!({})).await }
    });
    assert_eq!(statuses(&[pay.await?, cancel.await?]), [200, 409]);

    let now: OrderDetails = shop.get(&format!("/orders/{}", order.id)).await.ok();
    let (stock, payments) = (shop.product("POT-GLASS").await?.stock, shop.count("payments").await?);
    match now.order.status {
        Status::Paid => assert_eq!((stock, payments), (pot.stock - 3, 1)),
        Status::Cancelled => assert_eq!((stock, payments), (pot.stock, 0)),
        other => panic!("neither paid nor cancelled but {other:?}"),
    }
    Ok(())
}
