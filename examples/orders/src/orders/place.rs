//! Placing an order: one transaction that reserves the stock, once per idempotency key.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::PgConnection;

use super::OrderDetails;
use crate::events::{self, Event};
use crate::{ApiError, App, products};

const MAX_LINES: usize = 100;

/// What it takes to place an order, beside the header `idempotency-key`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NewOrder {
    /// Who orders.
    pub customer_id: i64,
    /// What is ordered; lines of the same product are added up.
    pub lines: Vec<NewLine>,
}

/// So many of one product.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct NewLine {
    /// Which product.
    pub product_id: i64,
    /// How many of it.
    pub quantity: i64,
}

/// 201 for a new order, 200 when the same request has been answered before.
pub(crate) async fn place(
    State(app): State<App>,
    headers: HeaderMap,
    body: Result<Json<NewOrder>, JsonRejection>,
) -> Result<(StatusCode, Json<OrderDetails>), ApiError> {
    let Json(new) = body?;
    let key = idempotency_key(&headers)?;
    let wanted = add_up(&new.lines)?;
    app.limit.count(&app.cache, new.customer_id).await?;

    let mut tx = app.db.begin().await?;
    let Some(id) = insert(&mut tx, new.customer_id, key, &wanted).await? else {
        tx.rollback().await?;
        let id = find_earlier(&app, new.customer_id, key, &wanted).await?;
        return Ok((StatusCode::OK, Json(super::load(&app, id).await?)));
    };
    // By product, as BTreeMap has them: two orders that take the locks in one order never wait for each other.
    for (&product, &quantity) in &wanted {
        reserve(&mut tx, id, product, quantity).await?;
    }
    let payload = json!({ "customer_id": new.customer_id, "lines": wanted });
    events::record(&mut tx, Event::Placed, id, payload).await?;
    tx.commit().await?;

    let keys: Vec<String> = wanted.keys().copied().map(products::cache_key).collect();
    app.cache.forget(&keys).await;
    Ok((StatusCode::CREATED, Json(super::load(&app, id).await?)))
}

fn idempotency_key(headers: &HeaderMap) -> Result<&str, ApiError> {
    headers
        .get("idempotency-key")
        .and_then(|value| value.to_str().ok())
        .ok_or_else(|| ApiError::invalid("an order needs the header idempotency-key"))
}

fn add_up(lines: &[NewLine]) -> Result<BTreeMap<i64, i64>, ApiError> {
    if lines.is_empty() || lines.len() > MAX_LINES {
        return Err(ApiError::invalid(format!("an order has 1 to {MAX_LINES} lines")));
    }
    let mut wanted = BTreeMap::new();
    for line in lines {
        if !(1..=1_000_000).contains(&line.quantity) {
            return Err(ApiError::invalid("a quantity is between 1 and 1000000"));
        }
        *wanted.entry(line.product_id).or_insert(0) += line.quantity;
    }
    Ok(wanted)
}

/// The new order's id, or `None` when the key has been used. While another transaction is about to use it, this
/// waits for how that ends.
async fn insert(
    db: &mut PgConnection,
    customer: i64,
    key: &str,
    wanted: &BTreeMap<i64, i64>,
) -> Result<Option<i64>, ApiError> {
    let id = sqlx::query_scalar(
        "INSERT INTO orders (customer_id, idempotency_key, request) VALUES ($1, $2, $3)
         ON CONFLICT ON CONSTRAINT orders_idempotency_unique DO NOTHING
         RETURNING id",
    )
    .bind(customer)
    .bind(key)
    .bind(json!(wanted))
    .fetch_optional(db)
    .await?;
    Ok(id)
}

async fn find_earlier(
    app: &App,
    customer: i64,
    key: &str,
    wanted: &BTreeMap<i64, i64>,
) -> Result<i64, ApiError> {
    let (id, request): (i64, Value) =
        sqlx::query_as("SELECT id, request FROM orders WHERE customer_id = $1 AND idempotency_key = $2")
            .bind(customer)
            .bind(key)
            .fetch_one(&app.db)
            .await?;
    if request != json!(wanted) {
        let message = format!("the idempotency key was used for other lines, in order {id}");
        return Err(ApiError::refused(StatusCode::UNPROCESSABLE_ENTITY, "key_reused", message));
    }
    Ok(id)
}

async fn reserve(db: &mut PgConnection, order: i64, product: i64, quantity: i64) -> Result<(), ApiError> {
    let line = sqlx::query(
        "INSERT INTO order_lines (order_id, product_id, quantity, unit_price_cents)
         SELECT $1, id, $3, price_cents FROM products WHERE id = $2",
    )
    .bind(order)
    .bind(product)
    .bind(quantity)
    .execute(&mut *db)
    .await?;
    if line.rows_affected() == 0 {
        return Err(ApiError::not_found("product", product));
    }
    let taken = sqlx::query(
        "INSERT INTO stock_movements (product_id, order_id, delta, reason) VALUES ($1, $2, -$3::bigint, 'order')",
    )
    .bind(product)
    .bind(order)
    .bind(quantity)
    .execute(db)
    .await
    .map_err(ApiError::from);
    match taken {
        Err(error) if error.is("out_of_stock") => {
            let message = format!("there are not {quantity} of product {product} left");
            Err(ApiError::refused(StatusCode::CONFLICT, "out_of_stock", message))
        }
        other => other.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(product_id: i64, quantity: i64) -> NewLine {
        NewLine { product_id, quantity }
    }

    #[test]
    fn lines_of_one_product_are_added_up() {
        let wanted = add_up(&[line(2, 1), line(1, 4), line(2, 2)]).unwrap();
        assert_eq!(wanted, BTreeMap::from([(1, 4), (2, 3)]));
    }

    #[test]
    fn nonsense_is_refused_before_the_database_sees_it() {
        for lines in [&[][..], &[line(1, 0)], &[line(1, -5)], &[line(1, i64::MAX)], &[line(1, 1); 101]] {
            assert!(add_up(lines).unwrap_err().is("invalid"));
        }
    }
}
