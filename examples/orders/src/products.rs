//! Products: read often, so cached; every change of price or stock takes the cached copy away.

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::{ApiError, App};

/// A product.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::FromRow)]
pub struct Product {
    /// Number of the product.
    pub id: i64,
    /// Its name for people in the warehouse: capital letters, digits and dashes.
    pub sku: String,
    /// Its name for customers.
    pub name: String,
    /// Price in cents.
    pub price_cents: i64,
    /// How many there are.
    pub stock: i64,
}

/// What it takes to create a product.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NewProduct {
    /// Unique sku.
    pub sku: String,
    /// Name for customers.
    pub name: String,
    /// Price in cents.
    pub price_cents: i64,
}

#[derive(Deserialize)]
pub(crate) struct Price {
    price_cents: i64,
}

#[derive(Deserialize)]
pub(crate) struct Delivery {
    quantity: i64,
}

#[derive(Deserialize)]
pub(crate) struct Search {
    #[serde(default)]
    search: String,
}

pub(crate) fn cache_key(id: i64) -> String {
    format!("product:{id}")
}

pub(crate) async fn create(
    State(app): State<App>,
    body: Result<Json<NewProduct>, JsonRejection>,
) -> Result<(StatusCode, Json<Product>), ApiError> {
    let Json(new) = body?;
    let product = sqlx::query_as(
        "INSERT INTO products (sku, name, price_cents) VALUES ($1, $2, $3)
         RETURNING id, sku, name, price_cents, stock",
    )
    .bind(new.sku)
    .bind(new.name)
    .bind(new.price_cents)
    .fetch_one(&app.db)
    .await?;
    Ok((StatusCode::CREATED, Json(product)))
}

/// Says in the header `x-cache` whether the answer came from the cache.
pub(crate) async fn show(
    State(app): State<App>,
    Path(id): Path<i64>,
) -> Result<([(&'static str, &'static str); 1], Json<Product>), ApiError> {
    let key = cache_key(id);
    if let Some(product) = app.cache.get(&key).await {
        return Ok(([("x-cache", "hit")], Json(product)));
    }
    let product = load(&app, id).await?;
    app.cache.put(&key, &product).await;
    Ok(([("x-cache", "miss")], Json(product)))
}

pub(crate) async fn search(
    State(app): State<App>,
    query: Result<Query<Search>, QueryRejection>,
) -> Result<Json<Vec<Product>>, ApiError> {
    let Query(Search { search }) = query?;
    // What the user typed is text, not a pattern.
    let escaped = search.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
    let found = sqlx::query_as(
        "SELECT id, sku, name, price_cents, stock FROM products WHERE name ILIKE '%' || $1 || '%' ORDER BY name LIMIT 50",
    )
    .bind(escaped)
    .fetch_all(&app.db)
    .await?;
    Ok(Json(found))
}

pub(crate) async fn set_price(
    State(app): State<App>,
    Path(id): Path<i64>,
    body: Result<Json<Price>, JsonRejection>,
) -> Result<Json<Product>, ApiError> {
    let Json(Price { price_cents }) = body?;
    sqlx::query("UPDATE products SET price_cents = $2 WHERE id = $1")
        .bind(id)
        .bind(price_cents)
        .execute(&app.db)
        .await?;
    app.cache.forget(&[cache_key(id)]).await;
    load(&app, id).await.map(Json)
}

pub(crate) async fn deliver(
    State(app): State<App>,
    Path(id): Path<i64>,
    body: Result<Json<Delivery>, JsonRejection>,
) -> Result<Json<Product>, ApiError> {
    let Json(Delivery { quantity }) = body?;
    if quantity < 1 {
        return Err(ApiError::invalid("a delivery brings at least one"));
    }
    load(&app, id).await?;
    sqlx::query("INSERT INTO stock_movements (product_id, delta, reason) VALUES ($1, $2, 'delivery')")
        .bind(id)
        .bind(quantity)
        .execute(&app.db)
        .await?;
    app.cache.forget(&[cache_key(id)]).await;
    load(&app, id).await.map(Json)
}

async fn load(app: &App, id: i64) -> Result<Product, ApiError> {
    sqlx::query_as("SELECT id, sku, name, price_cents, stock FROM products WHERE id = $1")
        .bind(id)
        .fetch_optional(&app.db)
        .await?
        .ok_or_else(|| ApiError::not_found("product", id))
}
