//! What the tests share: the service on a real port, and a client that says what it was told.

use std::time::{Duration, Instant};

use orders::customers::Customer;
use orders::orders::OrderDetails;
use orders::products::Product;
use orders::{App, Cache, Limit, serve};
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sqlx::PgPool;
use testenv::{AsyncFixture, BoxError, Postgres, Redis};
use tokio::net::TcpListener;

/// The service, open for business on a port of its own, with the PostgreSQL and Redis behind it.
///
/// A test that takes a `Shop` as its argument gets one without a noticeable rate limit. Clones are the same shop.
#[derive(Clone)]
pub(crate) struct Shop {
    pub(crate) url: String,
    /// A pool of its own, so that tests can look behind the service's back.
    pub(crate) pool: PgPool,
    pub(crate) db: Postgres,
    pub(crate) cache: Redis,
    http: reqwest::Client,
}

impl Shop {
    /// Opens a shop on these servers.
    pub(crate) async fn open(db: Postgres, cache: Redis, rules: Rules) -> anyhow::Result<Self> {
        let redis = Cache::new(cache.url(), rules.cache_patience)?;
        let app = App::new(db.pool().await?, redis, Limit::per_minute(rules.orders_per_minute));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        // It ends with the test's runtime.
        tokio::spawn(serve(listener, app, std::future::pending()));
        let pool = db.pool().await?;
        Ok(Self { url, pool, db, cache, http: reqwest::Client::new() })
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, &[], None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.ask(Method::POST, path, &[], Some(body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Answer {
        self.ask(Method::PUT, path, &[], Some(body)).await
    }

    /// Places an order of so many of each product.
    pub(crate) async fn place(&self, customer: i64, key: &str, lines: &[(i64, i64)]) -> Answer {
        let lines: Vec<_> = lines.iter().map(|(id, n)| json!({ "product_id": id, "quantity": n })).collect();
        let body = json!({ "customer_id": customer, "lines": lines });
        self.ask(Method::POST, "/orders", &[("idempotency-key", key)], Some(body)).await
    }

    /// Places an order that must succeed.
    pub(crate) async fn order(&self, customer: i64, key: &str, lines: &[(i64, i64)]) -> OrderDetails {
        self.place(customer, key, lines).await.ok()
    }

    pub(crate) async fn pay(&self, order: i64, amount_cents: i64) -> Answer {
        self.post(&format!("/orders/{order}/pay"), json!({ "amount_cents": amount_cents, "method": "card" }))
            .await
    }

    /// A customer of the seed.
    pub(crate) async fn customer(&self, email: &str) -> anyhow::Result<i64> {
        Ok(sqlx::query_scalar("SELECT id FROM customers WHERE email = $1::text")
            .bind(email)
            .fetch_one(&self.pool)
            .await?)
    }

    pub(crate) async fn ada(&self) -> anyhow::Result<i64> {
        self.customer("ada@example.com").await
    }

    /// A product of the seed, as the database has it now.
    pub(crate) async fn product(&self, sku: &str) -> anyhow::Result<Product> {
        Ok(sqlx::query_as("SELECT id, sku, name, price_cents, stock FROM products WHERE sku = $1")
            .bind(sku)
            .fetch_one(&self.pool)
            .await?)
    }

    /// Number of rows of a table.
    pub(crate) async fn count(&self, table: &'static str) -> anyhow::Result<i64> {
        let query = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
        Ok(sqlx::query_scalar(query).fetch_one(&self.pool).await?)
    }

    pub(crate) async fn sign_up(&self, email: &str) -> Customer {
        self.post("/customers", json!({ "email": email, "name": "Someone" })).await.ok()
    }

    async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Option<Value>) -> Answer {
        let asked = format!("{method} {path}");
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap_or_else(|error| panic!("{asked}: no answer: {error:?}"));
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.text().await.unwrap_or_else(|error| panic!("{asked}: broken answer: {error:?}"));
        Answer { asked, status, headers, body }
    }
}

/// Makes a `Shop` an argument that tests can have.
impl AsyncFixture for Shop {
    type Needs = (Postgres, Redis);

    async fn set_up((db, cache): (Postgres, Redis)) -> Result<Self, BoxError> {
        Ok(Self::open(db, cache, Rules::default()).await?)
    }
}

/// What a shop can do differently.
pub(crate) struct Rules {
    pub(crate) orders_per_minute: u32,
    /// How long the service waits for Redis. Generous, so that on a busy machine a hit is still a hit.
    pub(crate) cache_patience: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self { orders_per_minute: 1000, cache_patience: Duration::from_secs(10) }
    }
}

/// What the service answered.
#[derive(Debug)]
pub(crate) struct Answer {
    asked: String,
    pub(crate) status: u16,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    /// The body of a success; a refusal fails the test with what the service said.
    #[track_caller]
    pub(crate) fn ok<T: DeserializeOwned>(&self) -> T {
        assert!(self.status < 300, "{} was refused: {} {}", self.asked, self.status, self.body);
        serde_json::from_str(&self.body)
            .unwrap_or_else(|error| panic!("{}: {error}: {}", self.asked, self.body))
    }

    /// Fails the test unless the service refused with this status and error code.
    #[track_caller]
    pub(crate) fn is_refused(&self, status: u16, code: &str) {
        let said: Value = serde_json::from_str(&self.body).unwrap_or_default();
        assert_eq!(
            (self.status, said["error"].as_str()),
            (status, Some(code)),
            "{} answered {}",
            self.asked,
            self.body
        );
    }

    /// A header, empty when it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// Asks again and again until the answer is yes, and fails the test after five seconds.
pub(crate) async fn eventually(
    what: &str,
    mut ask: impl AsyncFnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let start = Instant::now();
    while !ask().await? {
        anyhow::ensure!(start.elapsed() < Duration::from_secs(5), "still not after 5 s: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}
