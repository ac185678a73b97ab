//! Rate limit by customer: so many orders in a fixed window, counted in Redis for all instances together.

use redis::{ExistenceCheck, RedisResult, SetExpiry, SetOptions};

use crate::{ApiError, Cache};

const WINDOW_S: u64 = 60;

/// How many orders a customer may place in a minute.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    per_window: u32,
}

impl Limit {
    /// So many in a minute.
    pub fn per_minute(orders: u32) -> Self {
        Self { per_window: orders }
    }

    /// Counts one order of `customer`, and refuses it when it is one too many.
    ///
    /// Without Redis everything is let through: orders matter more than the limit.
    pub(crate) async fn count(self, cache: &Cache, customer: i64) -> Result<(), ApiError> {
        let key = format!("limit:orders:{customer}");
        let unless_there = SetOptions::default()
            .conditional_set(ExistenceCheck::NX)
            .with_expiration(SetExpiry::EX(WINDOW_S));
        // One transaction: a counter without an end would lock the customer out for good.
        let counted: RedisResult<(u32, i64)> = redis::pipe()
            .atomic()
            .set_options(&key, 0, unless_there)
            .ignore()
            .incr(&key, 1)
            .pttl(&key)
            .query_async(&mut cache.connection())
            .await;
        match counted {
            Ok((count, left_ms)) if count > self.per_window => {
                let retry_after_s = u64::try_from(left_ms).unwrap_or(0).div_ceil(1000).max(1);
                Err(ApiError::RateLimited { retry_after_s })
            }
            Ok(_) => Ok(()),
            Err(error) => {
                tracing::warn!(%error, customer, "cannot count orders; letting this one through");
                Ok(())
            }
        }
    }
}
