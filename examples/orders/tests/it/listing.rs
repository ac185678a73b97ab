//! Lists of orders: pages, filters, and that PostgreSQL reads them from an index.

use anyhow::Context as _;
use orders::orders::Page;
use serde_json::json;

use crate::support::Shop;

/// Places so many orders of one tea each and returns their ids, oldest first.
async fn place_many(shop: &Shop, customer: i64, count: usize) -> anyhow::Result<Vec<i64>> {
    let tea = shop.product("TEA-GREEN").await?.id;
    let mut ids = Vec::new();
    for index in 0..count {
        ids.push(shop.order(customer, &format!("{customer}-{index}"), &[(tea, 1)]).await.order.id);
    }
    Ok(ids)
}

fn ids(page: &Page) -> Vec<i64> {
    page.orders.iter().map(|order| order.id).collect()
}

#[testenv::test]
async fn pages_are_newest_first_and_come_to_an_end(shop: Shop) -> anyhow::Result<()> {
    let mut expected = place_many(&shop, shop.ada().await?, 7).await?;
    expected.reverse();
    let mut seen = Vec::new();
    let mut path = "/orders?limit=3".to_owned();
    let mut pages = 0;
    loop {
        let page: Page = shop.get(&path).await.ok();
        seen.extend(ids(&page));
        pages += 1;
        let Some(next) = page.next else { break };
        path = format!("/orders?limit=3&before={next}");
    }
    assert_eq!((pages, seen), (3, expected));
    Ok(())
}

#[testenv::test]
async fn a_full_last_page_has_no_next(shop: Shop) -> anyhow::Result<()> {
    place_many(&shop, shop.ada().await?, 4).await?;
    let page: Page = shop.get("/orders?limit=4").await.ok();
    assert_eq!((page.orders.len(), page.next), (4, None));
    Ok(())
}

#[testenv::test]
async fn an_order_placed_in_between_moves_no_other(shop: Shop) -> anyhow::Result<()> {
    let placed = place_many(&shop, shop.ada().await?, 4).await?;
    let first: Page = shop.get("/orders?limit=2").await.ok();
    place_many(&shop, shop.customer("grace@example.com").await?, 3).await?;
    let before = first.next.context("there are two more")?;
    let second: Page = shop.get(&format!("/orders?limit=2&before={before}")).await.ok();
    assert_eq!(ids(&second), [placed[1], placed[0]]);
    Ok(())
}

#[testenv::test]
async fn orders_are_filtered_by_customer_and_status(shop: Shop) -> anyhow::Result<()> {
    let (ada, grace) = (shop.ada().await?, shop.customer("grace@example.com").await?);
    let of_ada = place_many(&shop, ada, 3).await?;
    let of_grace = place_many(&shop, grace, 2).await?;
    shop.post(&format!("/orders/{}/cancel", of_ada[1]), json!({})).await.ok::<serde_json::Value>();

    let page: Page = shop.get(&format!("/orders?customer={grace}")).await.ok();
    assert_eq!(ids(&page), [of_grace[1], of_grace[0]]);
    let page: Page = shop.get(&format!("/orders?customer={ada}&status=pending")).await.ok();
    assert_eq!(ids(&page), [of_ada[2], of_ada[0]]);
    let page: Page = shop.get("/orders?status=cancelled").await.ok();
    assert_eq!(ids(&page), [of_ada[1]]);
    Ok(())
}

#[testenv::test]
async fn filters_that_make_no_sense_are_refused(shop: Shop) {
    shop.get("/orders?status=lost").await.is_refused(400, "invalid");
    shop.get("/orders?limit=0").await.is_refused(422, "invalid");
    shop.get("/orders?limit=101").await.is_refused(422, "invalid");
}

/// Ten thousand orders, statistics and a plan: affordable, because the server is this test's alone.
#[testenv::test]
async fn a_customers_page_is_read_from_an_index(db: testenv::Postgres) -> anyhow::Result<()> {
    let client = db.connect().await?;
    client
        .batch_execute(
            "INSERT INTO customers (email, name) SELECT 'c' || n || '@example.com', 'C' FROM generate_series(1, 100) n;
             INSERT INTO orders (customer_id, idempotency_key, request)
             SELECT id, 'k' || n, '{}' FROM customers, generate_series(1, 100) n;
             ANALYZE orders",
        )
        .await?;
    let plan = client
        .query(
            "EXPLAIN SELECT * FROM orders WHERE customer_id = 50 AND id < 9000 ORDER BY id DESC LIMIT 21",
            &[],
        )
        .await?;
    let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
    let plan = plan.join("\n");
    assert!(plan.contains("orders_by_customer"), "{plan}");
    assert!(!plan.contains("Sort"), "{plan}");
    Ok(())
}
