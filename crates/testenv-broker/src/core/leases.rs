//! Leases that are held, and what is kept of those that were.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use testenv_api::{
    EndedLease, Event, Isolation, KeepPolicy, Kept, LeaseRequest, Outcome, Problem, ProblemKind, Timings,
};
use testenv_config::KeepConfig;
use testenv_services::log::Log;
use testenv_services::server::Server;
use tokio::sync::mpsc;

use super::{Core, PoolKey};
use crate::faults::Proxy;
use crate::loan::{Item, Loan, What};
use crate::metrics::{LeaseLabels, RoleLabel};

/// Lines of a server's log told after a failure.
const LOG_LINES: usize = 30;

/// A lease held now.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) key: PoolKey,
    pub(super) request: LeaseRequest,
    pub(super) pid: Option<u32>,
    pub(super) since: Instant,
    pub(super) timings: Timings,
    pub(super) outcome: Option<Outcome>,
    pub(super) keep: KeepPolicy,
    pub(super) log: Log,
    pub(super) log_position: u64,
    pub(super) server_pid: Option<u32>,
    pub(super) exited: Arc<AtomicBool>,
    pub(super) told: bool,
    pub(super) connect_command: String,
    pub(super) events: mpsc::Sender<Event>,
    /// In front of the server, if the lease asked for faults.
    pub(super) proxy: Option<Arc<Proxy>>,
    /// Whether the test has had its server stopped, and not let go on.
    pub(super) is_paused: bool,
    /// Whether the test has had its server killed.
    pub(super) is_killed: bool,
}

impl Active {
    /// Tells the test, once, that its server has ended, if it has.
    pub(super) fn tell_if_exited(&mut self) {
        if !self.told && self.exited.load(Ordering::Acquire) {
            self.told = true;
            if let Some(proxy) = &self.proxy {
                drop(proxy.server_ended());
            }
            let reason = if self.is_killed {
                "it was killed, as the test asked"
            } else {
                "the server ended while it was leased"
            };
            let _ = self.events.try_send(Event::ServerExited {
                reason: reason.into(),
                log_tail: self.log.tail_since(self.log_position, LOG_LINES),
            });
        }
    }
}

#[derive(Debug)]
pub(super) struct KeptItem {
    pub(super) id: String,
    pub(super) test: Option<String>,
    pub(super) until: Instant,
    pub(super) connect_command: String,
    pub(super) item: Item,
}

impl Core {
    /// When the data of this lease outlives it.
    pub(crate) fn keep_policy(&self, request: &LeaseRequest) -> KeepPolicy {
        request.keep.unwrap_or(match self.roles.config().broker.keep {
            KeepConfig::Failed => KeepPolicy::Failed,
            KeepConfig::UnlessPassed => KeepPolicy::UnlessPassed,
            KeepConfig::Always => KeepPolicy::Always,
            KeepConfig::Never => KeepPolicy::Never,
        })
    }

    /// Registers a lease that is about to be told to its test.
    #[expect(clippy::too_many_arguments, reason = "a lease is what all of these say together")]
    pub(crate) fn hold(
        &self,
        id: &str,
        request: &LeaseRequest,
        loan: &mut Loan,
        pid: Option<u32>,
        arrived: Instant,
        timings: Timings,
        connect_command: &str,
        events: mpsc::Sender<Event>,
        proxy: Option<Arc<Proxy>>,
    ) {
        let keep = self.keep_policy(request);
        let key = loan.key.clone();
        let labels = LeaseLabels {
            role: key.role.clone(),
            isolation: key.isolation.to_string(),
            warm: timings.warm.to_string(),
        };
        self.metrics.lease_wait.get_or_create(&labels).observe(arrived.elapsed().as_secs_f64());
        let item = loan.item();
        let (log, exited) = (item.log(), item.exited());
        let (log_position, server_pid) = (log.position(), item.server().map(Server::pid));
        let mut active = Active {
            key,
            request: request.clone(),
            pid,
            since: Instant::now(),
            timings,
            outcome: None,
            keep,
            log,
            log_position,
            server_pid,
            exited,
            told: false,
            connect_command: connect_command.to_owned(),
            events,
            proxy,
            is_paused: false,
            is_killed: false,
        };
        let mut state = self.lock();
        // It may have ended on its way here, when nobody knew yet whom to tell.
        active.tell_if_exited();
        state.leases.insert(id.to_owned(), active);
    }

    /// The end of a lease: its server is kept or goes.
    pub(crate) fn end(&self, id: &str, loan: Loan) {
        let mut state = self.lock();
        state.last_use = Instant::now();
        let Some(active) = state.leases.remove(id) else { return };
        let keep = match active.keep {
            KeepPolicy::Always => true,
            KeepPolicy::Never => false,
            KeepPolicy::Failed => active.outcome == Some(Outcome::Failed),
            KeepPolicy::UnlessPassed => active.outcome != Some(Outcome::Passed),
        };
        let held = active.since.elapsed();
        let label = RoleLabel { role: active.key.role.clone() };
        self.metrics.lease_held.get_or_create(&label).observe(held.as_secs_f64());
        let kept = keep
            && !state.stopping
            && !matches!(loan.item.as_ref().map(|item| &item.what), Some(What::Shared(_)));
        state.ended.push(EndedLease {
            id: id.to_owned(),
            role: active.key.role.clone(),
            attempt: active.request.attempt.clone(),
            timings: active.timings,
            held_us: u64::try_from(held.as_micros()).unwrap_or(u64::MAX),
            outcome: active.outcome,
            kept: kept.then(|| active.connect_command.clone()),
        });
        if kept {
            let config = self.roles.config();
            if let Some(entry) = state.pools.get_mut(&active.key) {
                entry.pool.returned();
            }
            state.kept.push_back(KeptItem {
                id: id.to_owned(),
                test: active.request.test,
                until: Instant::now() + config.broker.keep_for.as_duration(),
                connect_command: active.connect_command,
                item: loan.into_item(),
            });
            while state.kept.len() > config.broker.keep_max {
                if let Some(oldest) = state.kept.pop_front() {
                    self.jobs.stop(oldest.item);
                }
            }
            self.pump(&mut state);
        }
        // Otherwise the loan is dropped here, which gives it back.
    }

    /// Notes how a test ended, or that its data is wanted.
    ///
    /// # Errors
    /// [`ProblemKind::NotFound`] when nobody holds the lease.
    pub(crate) fn set_outcome(&self, id: &str, outcome: Option<Outcome>) -> Result<Kept, Problem> {
        let config = self.roles.config();
        let mut state = self.lock();
        let active = state.leases.get_mut(id).ok_or_else(|| no_lease(id))?;
        match outcome {
            Some(outcome) => active.outcome = Some(outcome),
            None => active.keep = KeepPolicy::Always,
        }
        let kept = match active.keep {
            KeepPolicy::Always => true,
            KeepPolicy::Never => false,
            KeepPolicy::Failed | KeepPolicy::UnlessPassed => active.outcome == Some(Outcome::Failed),
        };
        Ok(Kept {
            kept: kept && active.key.isolation != Isolation::Shared,
            keep_seconds: config.broker.keep_for.as_duration().as_secs(),
            connect_command: active.connect_command.clone(),
            log_tail: active.log.tail_since(active.log_position, LOG_LINES),
        })
    }

    /// The last lines of the log of a lease's server, or of a kept one's.
    ///
    /// # Errors
    /// [`ProblemKind::NotFound`].
    pub(crate) fn logs(&self, id: &str, lines: usize) -> Result<String, Problem> {
        let state = self.lock();
        let held = state.leases.get(id).map(|active| active.log.tail_since(active.log_position, lines));
        let kept = || state.kept.iter().find(|kept| kept.id == id).map(|kept| kept.item.log().tail(lines));
        held.or_else(kept).ok_or_else(|| no_lease(id))
    }
}

pub(super) fn no_lease(id: &str) -> Problem {
    Problem::new(ProblemKind::NotFound, format!("nobody holds a lease {id:?}"))
        .hint("leases end with the connection that asked for them; `testenv status` lists those held")
}
