//! Events, written to an outbox in the transaction that causes them.
//!
//! A relay that reads the outbox and publishes to Kafka, or renders invoices to S3, can be added without touching
//! the code that writes: either an order and its event are both there, or neither.

use serde_json::Value;
use sqlx::PgConnection;

/// Something that happened to an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Placed,
    Paid,
    Shipped,
    Cancelled,
}

impl Event {
    const fn topic(self) -> &'static str {
        match self {
            Self::Placed => "order.placed",
            Self::Paid => "order.paid",
            Self::Shipped => "order.shipped",
            Self::Cancelled => "order.cancelled",
        }
    }
}

/// Writes `event` of `order` in the transaction that `db` is in.
pub(crate) async fn record(
    db: &mut PgConnection,
    event: Event,
    order: i64,
    payload: Value,
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO outbox (topic, key, payload) VALUES ($1, $2, $3)")
        .bind(event.topic())
        .bind(order.to_string())
        .bind(payload)
        .execute(db)
        .await?;
    Ok(())
}
