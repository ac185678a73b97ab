//! Customers.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::{ApiError, App};

/// A customer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::FromRow)]
pub struct Customer {
    /// Number of the customer.
    pub id: i64,
    /// Email address, unique whatever its case.
    pub email: String,
    /// Name.
    pub name: String,
    /// When the customer was created, as RFC 3339.
    pub created_at: String,
}

/// What it takes to create a customer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NewCustomer {
    /// Email address.
    pub email: String,
    /// Name.
    pub name: String,
}

pub(crate) async fn create(
    State(app): State<App>,
    body: Result<Json<NewCustomer>, JsonRejection>,
) -> Result<(StatusCode, Json<Customer>), ApiError> {
    let Json(new) = body?;
    let customer = sqlx::query_as(
        "INSERT INTO customers (email, name) VALUES ($1::text, $2)
         RETURNING id, email::text, name, rfc3339(created_at) AS created_at",
    )
    .bind(new.email)
    .bind(new.name)
    .fetch_one(&app.db)
    .await?;
    Ok((StatusCode::CREATED, Json(customer)))
}

pub(crate) async fn show(State(app): State<App>, Path(id): Path<i64>) -> Result<Json<Customer>, ApiError> {
    sqlx::query_as(
        "SELECT id, email::text, name, rfc3339(created_at) AS created_at FROM customers WHERE id = $1",
    )
    .bind(id)
    .fetch_optional(&app.db)
    .await?
    .map(Json)
    .ok_or_else(|| ApiError::not_found("customer", id))
}
