//! What every request shares, the routes, and the server.

use std::time::Duration;

use anyhow::Context as _;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde::Serialize;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::net::TcpListener;

use crate::{Cache, Config, Limit, customers, orders, products};

/// What every request shares. Cheap to clone.
#[derive(Clone, Debug)]
pub struct App {
    pub(crate) db: PgPool,
    pub(crate) cache: Cache,
    pub(crate) limit: Limit,
}

impl App {
    /// An app on connections that the caller made.
    pub fn new(db: PgPool, cache: Cache, limit: Limit) -> Self {
        Self { db, cache, limit }
    }

    /// An app that connects as `config` says. PostgreSQL has to answer; Redis may come later.
    ///
    /// # Errors
    /// When PostgreSQL cannot be reached or the Redis URL is malformed.
    pub async fn connect(config: &Config) -> anyhow::Result<Self> {
        let db = PgPoolOptions::new()
            .max_connections(16)
            .acquire_timeout(Duration::from_secs(10))
            .connect(&config.database_url)
            .await
            .context("cannot connect to PostgreSQL")?;
        let cache =
            Cache::new(&config.redis_url, Duration::from_millis(500)).context("REDIS_URL is not usable")?;
        Ok(Self::new(db, cache, Limit::per_minute(config.orders_per_minute)))
    }

    /// All routes, ready to be served.
    pub fn router(self) -> Router {
        Router::new()
            .route("/health", get(health))
            .route("/customers", post(customers::create))
            .route("/customers/{id}", get(customers::show))
            .route("/products", get(products::search).post(products::create))
            .route("/products/{id}", get(products::show))
            .route("/products/{id}/price", put(products::set_price))
            .route("/products/{id}/deliveries", post(products::deliver))
            .route("/orders", get(orders::list).post(orders::place))
            .route("/orders/{id}", get(orders::show))
            .route("/orders/{id}/pay", post(orders::pay))
            .route("/orders/{id}/ship", post(orders::ship))
            .route("/orders/{id}/cancel", post(orders::cancel))
            .with_state(self)
    }
}

/// Serves `app` on `listener` until `stop` is done, then lets open requests finish.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    app: App,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    axum::serve(listener, app.router()).with_graceful_shutdown(stop).await
}

#[derive(Serialize)]
struct Health {
    database: bool,
    cache: bool,
}

/// 200 as long as orders can be taken, which needs the database but not the cache.
async fn health(State(app): State<App>) -> (StatusCode, Json<Health>) {
    let database = sqlx::query("SELECT 1").execute(&app.db).await.is_ok();
    let status = if database { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Health { database, cache: app.cache.ping().await }))
}
