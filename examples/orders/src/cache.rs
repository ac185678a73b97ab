//! Redis as a cache: short-lived JSON. Every failure is a miss, so the service goes on without it.

use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{AsyncCommands as _, Client, RedisResult};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How long an entry lives. A reader that is slower than a writer's invalidation can put an old value back;
/// this bounds how long anyone sees it.
const TTL_S: u64 = 30;

/// A connection to Redis that is made when first used, and made again when lost.
#[derive(Clone)]
pub struct Cache {
    connection: ConnectionManager,
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").finish_non_exhaustive()
    }
}

impl Cache {
    /// A cache on the Redis at `url`, which gets no more than `patience` to answer; a cache that makes requests
    /// wait is worse than none. Has to be called within a tokio runtime.
    ///
    /// # Errors
    /// When the URL is malformed. Whether anybody answers there shows later.
    pub fn new(url: &str, patience: Duration) -> RedisResult<Self> {
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(patience))
            .set_response_timeout(Some(patience))
            .set_number_of_retries(1);
        let connection = ConnectionManager::new_lazy_with_config(Client::open(url)?, config)?;
        Ok(Self { connection })
    }

    /// Whether Redis answers.
    pub async fn ping(&self) -> bool {
        let answer: RedisResult<String> = redis::cmd("PING").query_async(&mut self.connection()).await;
        answer.is_ok()
    }

    pub(crate) fn connection(&self) -> ConnectionManager {
        self.connection.clone()
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        let found: RedisResult<Option<String>> = self.connection().get(key).await;
        let text = found.inspect_err(|error| tracing::warn!(%error, key, "cannot read the cache")).ok()??;
        // An entry of another version of the service is a miss, not an error.
        serde_json::from_str(&text).ok()
    }

    pub(crate) async fn put(&self, key: &str, value: &impl Serialize) {
        let Ok(text) = serde_json::to_string(value) else { return };
        let done: RedisResult<()> = self.connection().set_ex(key, text, TTL_S).await;
        let _ = done.inspect_err(|error| tracing::warn!(%error, key, "cannot write the cache"));
    }

    pub(crate) async fn forget(&self, keys: &[String]) {
        if keys.is_empty() {
            return;
        }
        let done: RedisResult<()> = self.connection().del(keys).await;
        let _ = done.inspect_err(|error| tracing::warn!(%error, ?keys, "cannot invalidate the cache"));
    }
}
