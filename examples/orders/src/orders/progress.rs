//! What happens to an order after it was placed. Which steps are allowed is the database's business: the trigger
//! `orders_status_change` refuses the others.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};
use sqlx::PgConnection;

use super::{OrderDetails, Status};
use crate::events::{self, Event};
use crate::{ApiError, App, products};

#[derive(Deserialize)]
pub(crate) struct Payment {
    amount_cents: i64,
    method: String,
}

pub(crate) async fn pay(
    State(app): State<App>,
    Path(id): Path<i64>,
    body: Result<Json<Payment>, JsonRejection>,
) -> Result<Json<OrderDetails>, ApiError> {
    let Json(payment) = body?;
    let mut tx = app.db.begin().await?;
    lock(&mut tx, id).await?;
    sqlx::query("INSERT INTO payments (order_id, amount_cents, method) VALUES ($1, $2, $3)")
        .bind(id)
        .bind(payment.amount_cents)
        .bind(&payment.method)
        .execute(&mut *tx)
        .await?;
    let payload = json!({ "amount_cents": payment.amount_cents, "method": payment.method });
    advance(&mut tx, id, Status::Paid, Event::Paid, payload).await?;
    tx.commit().await?;
    super::load(&app, id).await.map(Json)
}

pub(crate) async fn ship(
    State(app): State<App>,
    Path(id): Path<i64>,
) -> Result<Json<OrderDetails>, ApiError> {
    let mut tx = app.db.begin().await?;
    let from = lock(&mut tx, id).await?;
    advance_from(&mut tx, from, id, Status::Shipped, Event::Shipped).await?;
    tx.commit().await?;
    super::load(&app, id).await.map(Json)
}

pub(crate) async fn cancel(
    State(app): State<App>,
    Path(id): Path<i64>,
) -> Result<Json<OrderDetails>, ApiError> {
    let mut tx = app.db.begin().await?;
    let from = lock(&mut tx, id).await?;
    advance_from(&mut tx, from, id, Status::Cancelled, Event::Cancelled).await?;
    tx.commit().await?;

    let details = super::load(&app, id).await?;
    let keys: Vec<String> = details.lines.iter().map(|line| products::cache_key(line.product_id)).collect();
    app.cache.forget(&keys).await;
    Ok(Json(details))
}

/// Locks the order until the transaction ends, so that of two requests one sees what the other did.
async fn lock(db: &mut PgConnection, id: i64) -> Result<Status, ApiError> {
    sqlx::query_scalar("SELECT status FROM orders WHERE id = $1 FOR UPDATE")
        .bind(id)
        .fetch_optional(db)
        .await?
        .ok_or_else(|| ApiError::not_found("order", id))
}

/// As [`advance`], and nothing at all when the order is there already: shipping twice is shipping once.
async fn advance_from(
    db: &mut PgConnection,
    from: Status,
    id: i64,
    to: Status,
    event: Event,
) -> Result<(), ApiError> {
    if from == to { Ok(()) } else { advance(db, id, to, event, json!({})).await }
}

async fn advance(
    db: &mut PgConnection,
    id: i64,
    to: Status,
    event: Event,
    payload: Value,
) -> Result<(), ApiError> {
    sqlx::query("UPDATE orders SET status = $2 WHERE id = $1").bind(id).bind(to).execute(&mut *db).await?;
    events::record(db, event, id, payload).await?;
    Ok(())
}
