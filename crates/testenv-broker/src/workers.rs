//! The threads that fork, start and end servers. They live as long as the broker, because servers die with the
//! thread that started them.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::core::{Core, PoolKey};
use crate::loan::Item;

/// How many ended servers may wait to be cleared away before that goes before all else.
const MAX_BACKLOG: usize = 8;

/// How long a start ahead of demand waits. It is a lease that asks for it, and the test with that lease is about to
/// open its first session: what is started now would take the processors from it.
const AHEAD_DELAY: Duration = Duration::from_millis(8);

/// Something for a worker to do.
pub(crate) enum Job {
    /// Start one for a pool; `ahead` when nobody waits for it.
    Start { key: PoolKey, ahead: bool },
    /// A lease has ended without its item being kept.
    Return(PoolKey, Item),
    /// Clear an item away that is in no pool.
    Stop(Item),
}

/// What is to be done, most urgent first.
#[derive(Default)]
pub(crate) struct Jobs {
    queues: Mutex<Queues>,
    added: Condvar,
}

#[derive(Default)]
struct Queues {
    /// Starts that somebody waits for.
    urgent: VecDeque<PoolKey>,
    /// Items to clear away; `Some` key when a lease of that pool has ended with it.
    ended: VecDeque<(Option<PoolKey>, Item)>,
    /// Starts ahead of demand, and when they may begin.
    refill: VecDeque<(Instant, PoolKey)>,
    /// Workers that are at something.
    busy: usize,
}

impl std::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let queues = self.queues.lock().expect("no panic while locked");
        write!(
            f,
            "Jobs({} urgent, {} ended, {} refill)",
            queues.urgent.len(),
            queues.ended.len(),
            queues.refill.len()
        )
    }
}

impl Jobs {
    /// Starts one that somebody waits for.
    pub(crate) fn start_now(&self, key: PoolKey) {
        self.add(|queues| queues.urgent.push_back(key));
    }

    /// Starts one when there is nothing more urgent.
    pub(crate) fn start_ahead(&self, key: PoolKey) {
        self.add(|queues| queues.refill.push_back((Instant::now() + AHEAD_DELAY, key)));
    }

    /// Takes back an item whose lease has ended.
    pub(crate) fn give_back(&self, key: PoolKey, item: Item) {
        self.add(|queues| queues.ended.push_back((Some(key), item)));
    }

    /// Clears away an item that is in no pool any more.
    pub(crate) fn stop(&self, item: Item) {
        self.add(|queues| queues.ended.push_back((None, item)));
    }

    /// How many items wait to be cleared away.
    pub(crate) fn ended(&self) -> usize {
        self.queues.lock().expect("no panic while locked").ended.len()
    }

    /// Whether there is nothing to do and nobody at it.
    pub(crate) fn is_idle(&self) -> bool {
        let queues = self.queues.lock().expect("no panic while locked");
        queues.busy == 0 && queues.urgent.is_empty() && queues.ended.is_empty() && queues.refill.is_empty()
    }

    /// Counts the worker as busy until [`done`](Self::done).
    fn next(&self) -> Job {
        let mut queues = self.queues.lock().expect("no panic while locked");
        loop {
            if let Some(job) = queues.pop() {
                queues.busy += 1;
                return job;
            }
            queues = match queues.refill.front() {
                Some((due, _)) => {
                    let wait = due.saturating_duration_since(Instant::now());
                    self.added.wait_timeout(queues, wait).expect("no panic while locked").0
                }
                None => self.added.wait(queues).expect("no panic while locked"),
            };
        }
    }

    fn done(&self) {
        self.queues.lock().expect("no panic while locked").busy -= 1;
    }

    fn add(&self, push: impl FnOnce(&mut Queues)) {
        push(&mut self.queues.lock().expect("no panic while locked"));
        self.added.notify_one();
    }
}

impl Queues {
    fn pop(&mut self) -> Option<Job> {
        let backlog = self.ended.len() >= MAX_BACKLOG;
        if !backlog && let Some(key) = self.urgent.pop_front() {
            return Some(Job::Start { key, ahead: false });
        }
        match self.ended.pop_front() {
            Some((Some(key), item)) => Some(Job::Return(key, item)),
            Some((None, item)) => Some(Job::Stop(item)),
            None if self.refill.front().is_some_and(|(due, _)| *due <= Instant::now()) => {
                self.refill.pop_front().map(|(_, key)| Job::Start { key, ahead: true })
            }
            None => None,
        }
    }
}

/// Starts the workers: twice as many as processors, since half the time of a start is waiting.
pub(crate) fn spawn(core: &Arc<Core>) -> std::io::Result<()> {
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    for number in 0..(2 * processors).clamp(4, 32) {
        let core = Arc::clone(core);
        std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
            loop {
                match core.jobs.next() {
                    Job::Start { key, ahead } => core.start(&key, ahead),
                    Job::Return(key, item) => core.returned(&key, item),
                    Job::Stop(item) => core.stopped(item),
                }
                core.jobs.done();
            }
        })?;
    }
    Ok(())
}
