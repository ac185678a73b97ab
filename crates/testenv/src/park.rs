//! An executor for code that needs none: one thread, which parks.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

/// Wakes a parked thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a test's future on this thread, which sleeps while there is nothing to do.
#[cfg_attr(
    feature = "tokio",
    expect(unreachable_pub, reason = "tokio runs the futures; only the test is left")
)]
pub fn block_on<F: Future>(future: F) -> F::Output {
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_future_that_another_thread_wakes_comes_to_its_end() {
        let (sender, receiver) = mpsc::channel::<Waker>();
        let waking = std::thread::spawn(move || {
            for waker in receiver {
                waker.wake();
            }
        });
        let mut polls = 0;
        let done = block_on(std::future::poll_fn(move |context| {
            polls += 1;
            if polls > 100 {
                return Poll::Ready(polls);
            }
            sender.send(context.waker().clone()).unwrap();
            Poll::Pending
        }));
        assert_eq!(done, 101);
        waking.join().unwrap();
    }
}
