//! Waits that have a bound and say, when they give up, what they saw last.

use std::thread;
use std::time::{Duration, Instant};

/// Looks until there is a result, for `limit` at the most.
///
/// # Errors
/// What `look` saw last.
pub fn within<T>(limit: Duration, mut look: impl FnMut() -> Result<T, String>) -> Result<T, String> {
    let deadline = Instant::now() + limit;
    loop {
        match look() {
            Ok(found) => return Ok(found),
            Err(saw) if Instant::now() >= deadline => {
                return Err(format!("{saw} (after {} ms)", limit.as_millis()));
            }
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// The same for tests, which fail when the time is up.
///
/// # Panics
/// With what `look` saw last.
#[track_caller]
pub fn until<T>(limit: Duration, look: impl FnMut() -> Result<T, String>) -> T {
    match within(limit, look) {
        Ok(found) => found,
        Err(saw) => panic!("{saw}"),
    }
}
