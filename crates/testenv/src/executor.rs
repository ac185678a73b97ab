//! Runs the future of an async test.

#[cfg(feature = "tokio")]
use std::time::Duration;

/// How long blocking tasks that a test left behind may hold up its end.
#[cfg(feature = "tokio")]
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(10);

/// Runs a test's future on a tokio runtime of its own, on this thread.
#[cfg(feature = "tokio")]
pub fn block_on<F: Future>(future: F) -> F::Output {
    run(tokio::runtime::Builder::new_current_thread(), future)
}

/// Runs a test's future on a tokio runtime of its own with worker threads.
#[cfg(feature = "tokio")]
pub fn block_on_multi_thread<F: Future>(workers: Option<usize>, future: F) -> F::Output {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(workers) = workers {
        builder.worker_threads(workers);
    }
    run(builder, future)
}

#[cfg(feature = "tokio")]
fn run<F: Future>(mut builder: tokio::runtime::Builder, future: F) -> F::Output {
    /// Ends the runtime within a bound, after a panic too.
    struct Bounded(Option<tokio::runtime::Runtime>);

    impl Drop for Bounded {
        fn drop(&mut self) {
            if let Some(runtime) = self.0.take() {
                runtime.shutdown_timeout(SHUTDOWN_LIMIT);
            }
        }
    }

    let runtime = builder.enable_all().build().expect("the system has no room for another tokio runtime");
    let runtime = Bounded(Some(runtime));
    runtime.0.as_ref().expect("taken on drop only").block_on(future)
}

#[cfg(not(feature = "tokio"))]
pub use crate::park::block_on;
