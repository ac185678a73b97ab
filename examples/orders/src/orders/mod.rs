//! Orders: placed, paid, shipped or cancelled.

mod list;
mod place;
mod progress;

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};

use crate::{ApiError, App};

pub use list::Page;
pub(crate) use list::list;
pub(crate) use place::place;
pub use place::{NewLine, NewOrder};
pub(crate) use progress::{cancel, pay, ship};

/// Where an order is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "order_status", rename_all = "lowercase")]
pub enum Status {
    /// Placed; the stock is reserved.
    Pending,
    /// Paid in full.
    Paid,
    /// On its way.
    Shipped,
    /// Given up before it was paid; the stock is back.
    Cancelled,
}

/// An order without its lines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::FromRow)]
pub struct Order {
    /// Number of the order.
    pub id: i64,
    /// Who placed it.
    pub customer_id: i64,
    /// Where it is on its way.
    pub status: Status,
    /// Sum of its lines, in cents.
    pub total_cents: i64,
    /// When it was placed, as RFC 3339.
    pub created_at: String,
}

/// So many of one product, at the price of the moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::FromRow)]
pub struct Line {
    /// Which product.
    pub product_id: i64,
    /// How many of it.
    pub quantity: i64,
    /// Price of one when the order was placed, in cents.
    pub unit_price_cents: i64,
}

/// An order with its lines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderDetails {
    /// The order itself.
    pub order: Order,
    /// Its lines, by product.
    pub lines: Vec<Line>,
}

pub(crate) async fn show(
    State(app): State<App>,
    Path(id): Path<i64>,
) -> Result<Json<OrderDetails>, ApiError> {
    load(&app, id).await.map(Json)
}

async fn load(app: &App, id: i64) -> Result<OrderDetails, ApiError> {
    let order = sqlx::query_as(
        "SELECT id, customer_id, status, total_cents, rfc3339(created_at) AS created_at FROM orders WHERE id = $1",
    )
    .bind(id)
    .fetch_optional(&app.db)
    .await?
    .ok_or_else(|| ApiError::not_found("order", id))?;
    let lines = sqlx::query_as(
        "SELECT product_id, quantity, unit_price_cents FROM order_lines WHERE order_id = $1 ORDER BY product_id",
    )
    .bind(id)
    .fetch_all(&app.db)
    .await?;
    Ok(OrderDetails { order, lines })
}
