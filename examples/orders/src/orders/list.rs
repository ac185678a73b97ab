//! Lists of orders, newest first, a page at a time.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};

use super::{Order, Status};
use crate::{ApiError, App};

const MAX_LIMIT: i64 = 100;

/// Part of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// The orders, newest first.
    pub orders: Vec<Order>,
    /// What to give as `before` for the next page; absent on the last one.
    pub next: Option<i64>,
}

#[derive(Deserialize)]
pub(crate) struct Filter {
    customer: Option<i64>,
    status: Option<Status>,
    before: Option<i64>,
    limit: Option<i64>,
}

pub(crate) async fn list(
    State(app): State<App>,
    filter: Result<Query<Filter>, QueryRejection>,
) -> Result<Json<Page>, ApiError> {
    let Query(filter) = filter?;
    let limit = filter.limit.unwrap_or(20);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(ApiError::invalid(format!("a page has 1 to {MAX_LIMIT} orders")));
    }
    // Pages go by id and not by offset: an order that is placed in between moves no other to another page.
    let mut orders: Vec<Order> = sqlx::query_as(
        "SELECT id, customer_id, status, total_cents, rfc3339(created_at) AS created_at
         FROM orders
         WHERE ($1::bigint IS NULL OR customer_id = $1)
           AND ($2::order_status IS NULL OR status = $2)
           AND ($3::bigint IS NULL OR id < $3)
         ORDER BY id DESC
         LIMIT $4 + 1",
    )
    .bind(filter.customer)
    .bind(filter.status)
    .bind(filter.before)
    .bind(limit)
    .fetch_all(&app.db)
    .await?;
    let more = orders.len() as i64 > limit;
    orders.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let next = if more { orders.last().map(|order| order.id) } else { None };
    Ok(Json(Page { orders, next }))
}
