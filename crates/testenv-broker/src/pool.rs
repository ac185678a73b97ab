//! One pool: what is warm, what is being started, who waits. Pure: no IO, no clock of its own.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// After how long without a request the pool wants one thing less to be warm.
const DECAY: Duration = Duration::from_secs(5);

/// A pool of things `T` that are made ahead of demand. Errors of making one are `E`.
#[derive(Debug)]
pub(crate) struct Pool<T, E> {
    warm: VecDeque<T>,
    starting: usize,
    leased: usize,
    waiting: VecDeque<Waiter<T, E>>,
    target: usize,
    last_change: Instant,
    failures: usize,
}

/// A request that waits, and since when.
#[derive(Debug)]
struct Waiter<T, E> {
    since: Instant,
    sender: oneshot::Sender<Result<T, E>>,
}

/// What a request gets at once.
#[derive(Debug)]
pub(crate) enum Acquired<T, E> {
    /// Something warm.
    Warm(T),
    /// A place in the queue.
    Wait(oneshot::Receiver<Result<T, E>>),
}

impl<T, E: Clone> Pool<T, E> {
    /// An empty pool.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            warm: VecDeque::new(),
            starting: 0,
            leased: 0,
            waiting: VecDeque::new(),
            target: 0,
            last_change: now,
            failures: 0,
        }
    }

    /// Takes something warm, or a place in the queue. Each time nothing is warm, the pool learns to hold twice
    /// as much, up to `max_warm`.
    pub(crate) fn acquire(&mut self, now: Instant, max_warm: usize) -> Acquired<T, E> {
        self.last_change = now;
        self.failures = 0;
        if let Some(item) = self.warm.pop_front() {
            self.leased += 1;
            self.target = self.target.max(1).min(max_warm);
            return Acquired::Warm(item);
        }
        self.target = (self.target * 2).max(2).min(max_warm);
        let (sender, receiver) = oneshot::channel();
        self.waiting.push_back(Waiter { since: now, sender });
        Acquired::Wait(receiver)
    }

    /// How many more should be started: for those who wait, and then up to the target.
    pub(crate) fn wanted(&mut self) -> Wanted {
        self.waiting.retain(|waiter| !waiter.sender.is_closed());
        let waiting = self.waiting.len().saturating_sub(self.starting);
        let idle = self.starting.saturating_sub(self.waiting.len()) + self.warm.len();
        // After a failure nothing is started unasked: the next request tries again and is told.
        let refill = if self.failures > 0 { 0 } else { self.target.saturating_sub(idle) };
        Wanted { waiting, refill }
    }

    /// Notes that one more is being started.
    pub(crate) fn start(&mut self) {
        self.starting += 1;
    }

    /// Takes in what was started: whoever waits longest gets it, or it is kept warm.
    pub(crate) fn started(&mut self, mut item: T) {
        self.starting -= 1;
        self.failures = 0;
        while let Some(waiter) = self.waiting.pop_front() {
            match waiter.sender.send(Ok(item)) {
                Ok(()) => {
                    self.leased += 1;
                    return;
                }
                Err(back) => match back {
                    Ok(back) => item = back,
                    Err(_) => return,
                },
            }
        }
        self.warm.push_back(item);
    }

    /// Notes that a start failed that was begun then: whoever waits longest is told. Those who came later are not:
    /// what was wrong may have been put right before they asked, and they get a start of their own.
    pub(crate) fn failed(&mut self, error: &E, begun: Instant) {
        self.starting -= 1;
        self.failures += 1;
        while self.waiting.front().is_some_and(|waiter| waiter.since <= begun) {
            let Some(waiter) = self.waiting.pop_front() else { return };
            if waiter.sender.send(Err(error.clone())).is_ok() {
                return;
            }
        }
    }

    /// Notes that a start was called off, to be tried again later.
    pub(crate) fn called_off(&mut self) {
        self.starting -= 1;
    }

    /// Notes that a lease has ended.
    pub(crate) fn returned(&mut self) {
        self.leased -= 1;
    }

    /// What is warm.
    pub(crate) fn warm_items(&self) -> impl Iterator<Item = &T> {
        self.warm.iter()
    }

    /// Removes what is warm and matches.
    pub(crate) fn take_warm(&mut self, mut matches: impl FnMut(&T) -> bool) -> Vec<T> {
        let (taken, kept) = std::mem::take(&mut self.warm).into_iter().partition(|item| matches(item));
        self.warm = kept;
        taken.into()
    }

    /// Wants less as time goes by without requests, and gives up what is then too much. One stays.
    pub(crate) fn decay(&mut self, now: Instant) -> Vec<T> {
        if self.target > 1 && now.duration_since(self.last_change) > DECAY {
            self.target -= 1;
            self.last_change = now;
        }
        let excess = self.warm.len().saturating_sub(self.target.max(1));
        self.warm.drain(..excess).collect()
    }

    /// Whether nobody uses it and nothing is in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.warm.is_empty() && self.starting == 0 && self.leased == 0 && self.waiting.is_empty()
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts {
            warm: self.warm.len(),
            starting: self.starting,
            leased: self.leased,
            waiting: self.waiting.iter().filter(|waiter| !waiter.sender.is_closed()).count(),
            target: self.target,
        }
    }
}

/// How many to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// For those who wait.
    pub(crate) waiting: usize,
    /// Ahead of demand.
    pub(crate) refill: usize,
}

/// How many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) warm: usize,
    pub(crate) starting: usize,
    pub(crate) leased: usize,
    pub(crate) waiting: usize,
    pub(crate) target: usize,
}

impl Counts {
    /// All that are there or about to be.
    pub(crate) fn made(self) -> usize {
        self.warm + self.starting + self.leased
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Numbers = Pool<u32, String>;

    fn pool() -> (Numbers, Instant) {
        let now = Instant::now();
        (Pool::new(now), now)
    }

    fn wait(pool: &mut Numbers, now: Instant) -> oneshot::Receiver<Result<u32, String>> {
        match pool.acquire(now, 8) {
            Acquired::Wait(receiver) => receiver,
            Acquired::Warm(item) => panic!("{item} was warm"),
        }
    }

    #[test]
    fn the_first_request_waits_and_makes_the_pool_hold_two() {
        let (mut pool, now) = pool();
        let mut receiver = wait(&mut pool, now);
        assert_eq!(pool.wanted(), Wanted { waiting: 1, refill: 2 });
        (0..3).for_each(|_| pool.start());
        (0..3).for_each(|number| pool.started(number));
        assert_eq!(receiver.try_recv().unwrap(), Ok(0));
        assert_eq!(pool.wanted(), Wanted { waiting: 0, refill: 0 });
        assert!(matches!(pool.acquire(now, 8), Acquired::Warm(1)));
        assert_eq!(pool.wanted(), Wanted { waiting: 0, refill: 1 });
    }

    #[test]
    fn those_who_gave_up_are_passed_over() {
        let (mut pool, now) = pool();
        drop(wait(&mut pool, now));
        let mut second = wait(&mut pool, now);
        pool.start();
        pool.started(7);
        assert_eq!(second.try_recv().unwrap(), Ok(7));
        assert_eq!(pool.counts().leased, 1);
    }

    #[test]
    fn a_failure_is_told_to_one_and_stops_refilling() {
        let (mut pool, now) = pool();
        let (mut first, mut second) = (wait(&mut pool, now), wait(&mut pool, now));
        (0..2).for_each(|_| pool.start());
        pool.failed(&"no".into(), now);
        assert_eq!(first.try_recv().unwrap(), Err("no".into()));
        second.try_recv().unwrap_err();
        assert_eq!(pool.wanted().refill, 0);
    }

    #[test]
    fn whoever_came_after_a_start_was_begun_is_not_told_of_its_failure() {
        let (mut pool, now) = pool();
        pool.start();
        let mut late = wait(&mut pool, now + DECAY);
        pool.failed(&"no".into(), now);
        late.try_recv().unwrap_err();
        assert_eq!(pool.wanted().waiting, 1);
        pool.start();
        pool.failed(&"no".into(), now + DECAY);
        assert_eq!(late.try_recv().unwrap(), Err("no".into()));
    }

    #[test]
    fn the_pool_shrinks_to_one_when_nobody_asks() {
        let (mut pool, now) = pool();
        drop(wait(&mut pool, now));
        (0..2).for_each(|_| pool.start());
        (0..2).for_each(|number| pool.started(number));
        assert!(pool.decay(now).is_empty());
        assert_eq!(pool.decay(now + DECAY * 2), [0]);
        assert!(pool.decay(now + DECAY * 9).is_empty());
        assert_eq!(pool.counts().warm, 1);
    }

    #[test]
    fn a_pool_without_warmth_starts_only_for_those_who_wait() {
        let (mut pool, now) = pool();
        let Acquired::Wait(_receiver) = pool.acquire(now, 0) else { panic!() };
        assert_eq!(pool.wanted(), Wanted { waiting: 1, refill: 0 });
    }
}
