//! Runs the future of an async test.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
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

/// Runs a test's future on this thread, which sleeps while there is nothing to do.
#[cfg(not(feature = "tokio"))]
pub fn block_on<F: Future>(future: F) -> F::Output {
    park_on(future)
}

/// Wakes a parked thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[cfg_attr(
    feature = "tokio",
    expect(dead_code, reason = "tokio runs the futures; only the test below does too")
)]
fn park_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}
