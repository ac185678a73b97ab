//! The schema's rules, tested where they are: in SQL. A `Transaction` is rolled back when the test ends, and many
//! of them share one server; so tests that only need to see what the database says pay next to nothing.
//!
//! They add rows of their own rather than change the seed's: two transactions that change one row would wait for
//! each other.

use testenv::{SqlxTransaction, Transaction};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

/// Adds a product with so many in stock.
async fn add_product(db: &Client, sku: &str, stock: i64) -> anyhow::Result<i64> {
    let id: i64 = db
        .query_one("INSERT INTO products (sku, name, price_cents) VALUES ($1, $1, 250) RETURNING id", &[&sku])
        .await?
        .get(0);
    if stock != 0 {
        move_stock(db, id, stock).await?;
    }
    Ok(id)
}

async fn move_stock(db: &Client, product: i64, delta: i64) -> Result<u64, tokio_postgres::Error> {
    db.execute(
        "INSERT INTO stock_movements (product_id, delta, reason) VALUES ($1, $2, 'correction')",
        &[&product, &delta],
    )
    .await
}

/// Adds an order of the first customer.
async fn add_order(db: &Client, key: &str) -> anyhow::Result<i64> {
    let sql = "INSERT INTO orders (customer_id, idempotency_key, request)
               SELECT min(id), $1, '{}' FROM customers RETURNING id";
    Ok(db.query_one(sql, &[&key]).await?.get(0))
}

/// Runs a statement that must violate this constraint.
async fn violates(db: &Client, constraint: &str, sql: &str) {
    let error = db.batch_execute(sql).await.expect_err("the database should have refused that");
    let seen = error.as_db_error().and_then(|error| error.constraint()).unwrap_or("none");
    assert_eq!(seen, constraint, "{error:?}");
}

async fn number(db: &Client, sql: &str) -> anyhow::Result<i64> {
    Ok(db.query_one(sql, &[]).await?.get(0))
}

#[testenv::test]
async fn a_product_has_a_price(tx: Transaction) {
    violates(
        &tx,
        "products_price_positive",
        "INSERT INTO products (sku, name, price_cents) VALUES ('FREE', 'Free', 0)",
    )
    .await;
}

#[testenv::test]
async fn a_customer_has_an_email_address(tx: Transaction) {
    violates(&tx, "customers_email_shape", "INSERT INTO customers (email, name) VALUES ('x', 'X')").await;
}

#[testenv::test]
async fn email_addresses_are_compared_without_case(tx: Transaction) -> anyhow::Result<()> {
    tx.execute("INSERT INTO customers (email, name) VALUES ('Case@Example.com', 'C')", &[]).await?;
    let found = number(&tx, "SELECT count(*) FROM customers WHERE email = 'cASE@eXAMPLE.COM'").await?;
    assert_eq!(found, 1);
    Ok(())
}

#[testenv::test]
async fn stock_is_the_sum_of_its_movements(tx: Transaction) -> anyhow::Result<()> {
    let product = add_product(&tx, "SUM", 10).await?;
    move_stock(&tx, product, -4).await?;
    move_stock(&tx, product, 1).await?;
    assert_eq!(number(&tx, "SELECT stock FROM products WHERE sku = 'SUM'").await?, 7);
    Ok(())
}

#[testenv::test]
async fn stock_never_gets_below_zero(tx: Transaction) -> anyhow::Result<()> {
    let product = add_product(&tx, "FEW", 3).await?;
    let error = move_stock(&tx, product, -4).await.expect_err("there are only 3");
    let error = error.as_db_error().expect("the database said so");
    assert_eq!(error.code(), &SqlState::CHECK_VIOLATION);
    assert_eq!(error.constraint(), Some("products_stock_not_negative"));
    Ok(())
}

#[testenv::test]
async fn the_ledger_is_append_only(tx: Transaction) -> anyhow::Result<()> {
    add_product(&tx, "LEDGER", 3).await?;
    for sql in ["UPDATE stock_movements SET delta = 4", "DELETE FROM stock_movements"] {
        tx.batch_execute("SAVEPOINT before").await?;
        let error = tx.execute(sql, &[]).await.expect_err("the ledger is append-only");
        assert_eq!(error.code(), Some(&SqlState::RESTRICT_VIOLATION), "{sql}");
        // An error ends a transaction's usefulness, except back to a savepoint.
        tx.batch_execute("ROLLBACK TO before").await?;
    }
    Ok(())
}

#[testenv::test]
async fn an_orders_total_follows_its_lines(tx: Transaction) -> anyhow::Result<()> {
    let (order, product) = (add_order(&tx, "total").await?, add_product(&tx, "LINE", 0).await?);
    let total = "SELECT total_cents FROM orders WHERE idempotency_key = 'total'";
    tx.execute("INSERT INTO order_lines VALUES ($1, $2, 3, 250)", &[&order, &product]).await?;
    assert_eq!(number(&tx, total).await?, 750);
    tx.execute("UPDATE order_lines SET quantity = 5 WHERE order_id = $1", &[&order]).await?;
    assert_eq!(number(&tx, total).await?, 1250);
    tx.execute("DELETE FROM order_lines WHERE order_id = $1", &[&order]).await?;
    assert_eq!(number(&tx, total).await?, 0);
    Ok(())
}

#[testenv::test]
async fn a_shipped_order_stays_shipped(tx: Transaction) -> anyhow::Result<()> {
    let order = add_order(&tx, "shipped").await?;
    for status in ["paid", "shipped"] {
        tx.execute("UPDATE orders SET status = $2::text::order_status WHERE id = $1", &[&order, &status])
            .await?;
    }
    let back = format!("UPDATE orders SET status = 'pending' WHERE id = {order}");
    violates(&tx, "orders_status_change", &back).await;
    Ok(())
}

#[testenv::test]
async fn every_status_is_recorded_with_where_it_came_from(tx: Transaction) -> anyhow::Result<()> {
    let order = add_order(&tx, "history").await?;
    for status in ["pending", "paid", "shipped"] {
        tx.execute("UPDATE orders SET status = $2::text::order_status WHERE id = $1", &[&order, &status])
            .await?;
    }
    let sql = "SELECT concat(from_status, '>', to_status) FROM order_history WHERE order_id = $1 ORDER BY changed_at";
    let history: Vec<String> = tx.query(sql, &[&order]).await?.iter().map(|row| row.get(0)).collect();
    assert_eq!(history, [">pending", "pending>paid", "paid>shipped"]);
    Ok(())
}

#[testenv::test]
async fn a_payment_is_in_full(tx: Transaction) -> anyhow::Result<()> {
    let (order, product) = (add_order(&tx, "pay").await?, add_product(&tx, "PAY", 0).await?);
    tx.execute("INSERT INTO order_lines VALUES ($1, $2, 2, 250)", &[&order, &product]).await?;
    let payment =
        format!("INSERT INTO payments (order_id, amount_cents, method) VALUES ({order}, 499, 'card')");
    violates(&tx, "payments_in_full", &payment).await;
    Ok(())
}

#[testenv::test]
async fn an_event_is_an_object(tx: Transaction) {
    violates(
        &tx,
        "outbox_payload_object",
        "INSERT INTO outbox (topic, key, payload) VALUES ('order.placed', '1', '[]')",
    )
    .await;
}

/// The same with sqlx: the transaction stands in for a connection wherever one is wanted.
#[testenv::test]
async fn a_change_is_dated(mut tx: SqlxTransaction) -> anyhow::Result<()> {
    let id: i64 = sqlx::query_scalar(
        "INSERT INTO products (sku, name, price_cents, updated_at) VALUES ('DATED', 'Dated', 1, '2020-01-01')
         RETURNING id",
    )
    .fetch_one(&mut *tx)
    .await?;
    let dated: String =
        sqlx::query_scalar("UPDATE products SET price_cents = 2 WHERE id = $1 RETURNING rfc3339(updated_at)")
            .bind(id)
            .fetch_one(&mut *tx)
            .await?;
    assert!(!dated.starts_with("2020"), "{dated}");
    Ok(())
}
