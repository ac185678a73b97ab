//! The state of pools and leases, and every change of it.

pub(crate) mod admission;
mod faults;
mod leases;
mod view;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Instant;

use rustix::process::Resource;
use testenv_api::{Event, Isolation, Problem, ProblemKind, Timings};
use testenv_services::doctor;
use testenv_services::machine::Machine;
use testenv_services::namespace::{Host, Namespace};
use testenv_services::server::{Server, StartOptions};
use testenv_services::service::Spec;
use testenv_services::snapshot::{Prepared, Snapshot, Variant};
use tokio::sync::Notify;

use crate::BrokerOptions;
use crate::ended::Ended;
use crate::loan::{Item, Loan, Shared, What};
use crate::memory;
use crate::metrics::{Metrics, RoleLabel};
use crate::pool::{Acquired, Pool};
use crate::roles::{Role, Roles};
use crate::workers::Jobs;
use admission::{Free, Load};
use leases::{Active, KeptItem};

/// Everything the broker knows.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) options: BrokerOptions,
    pub(crate) machine: Arc<Machine>,
    pub(crate) roles: Roles,
    pub(crate) jobs: Jobs,
    pub(crate) metrics: Metrics,
    pub(crate) started: Instant,
    /// Told when the broker is to stop.
    pub(crate) stop: Notify,
    state: Mutex<State>,
    next_lease: AtomicU64,
    /// Files that this process may have open.
    max_files: u64,
    /// Requests that have no answer yet.
    arrived: AtomicUsize,
    own: Weak<Self>,
}

#[derive(Debug)]
struct State {
    pools: HashMap<PoolKey, PoolEntry>,
    leases: HashMap<String, Active>,
    kept: VecDeque<KeptItem>,
    ended: Ended,
    last_use: Instant,
    stopping: bool,
    /// Mean memory of a server, in bytes, by role.
    memory: HashMap<String, u64>,
    /// What the machine had left a moment ago.
    free: Free,
}

/// What one pool holds things of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PoolKey {
    pub(crate) role: String,
    pub(crate) isolation: Isolation,
    pub(crate) snapshot: String,
}

#[derive(Debug)]
struct PoolEntry {
    spec: Arc<Spec>,
    /// What its servers are forked from; `None` where others run the server.
    snapshot: Option<Arc<Snapshot>>,
    pool: Pool<Loan, Problem>,
    /// What is in the way of starting one more; empty when nothing was.
    waits_for: String,
    common: Arc<Common>,
}

/// The server that the leases of a pool share, where they do. Locked while it is started.
#[derive(Debug, Default)]
struct Common {
    host: Mutex<Option<Arc<Host>>>,
    shared: Mutex<Option<Shared>>,
}

impl Core {
    pub(crate) fn new(options: BrokerOptions, machine: Arc<Machine>) -> Arc<Self> {
        let now = Instant::now();
        Arc::new_cyclic(|own| Self {
            roles: Roles::new(options.clone(), Arc::clone(&machine)),
            options,
            machine,
            jobs: Jobs::default(),
            metrics: Metrics::new(),
            started: now,
            stop: Notify::new(),
            state: Mutex::new(State {
                pools: HashMap::new(),
                leases: HashMap::new(),
                kept: VecDeque::new(),
                ended: Ended::default(),
                last_use: now,
                stopping: false,
                memory: HashMap::new(),
                free: Free::default(),
            }),
            next_lease: AtomicU64::new(1),
            max_files: rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
            arrived: AtomicUsize::new(0),
            own: own.clone(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while locked")
    }

    /// A new lease's id.
    pub(crate) fn next_id(&self) -> String {
        format!("{:x}-{}", std::process::id(), self.next_lease.fetch_add(1, Ordering::Relaxed))
    }

    /// Notes that a request has come: the broker stays until it has its answer, however long that takes.
    pub(crate) fn arrive(&self) -> Arrived<'_> {
        self.arrived.fetch_add(1, Ordering::Relaxed);
        self.lock().last_use = Instant::now();
        Arrived(&self.arrived)
    }

    /// Gets something for a request: out of the pool, or started for it.
    ///
    /// # Errors
    /// Why there is none. Waits without a bound of its own; the caller gives it one.
    pub(crate) async fn acquire(
        &self,
        role: &Arc<Role>,
        isolation: Isolation,
        arrived: Instant,
    ) -> Result<(Loan, Timings), Problem> {
        let variant = if isolation == Isolation::Namespace { Variant::Template } else { Variant::Server };
        let Prepared { key, snapshot } = role.prepared(&self.machine, variant, arrived).await?;
        let prepared = Instant::now();
        let key = PoolKey { role: role.spec.role.clone(), isolation, snapshot: key };
        let max_warm = if isolation == Isolation::Shared { 0 } else { self.roles.config().pool.warm };
        let acquired = {
            let mut state = self.lock();
            if state.stopping {
                return Err(Problem::new(ProblemKind::ShuttingDown, "the broker is going away"));
            }
            self.retire_older(&mut state, &key);
            let entry = state.pools.entry(key.clone()).or_insert_with(|| PoolEntry {
                spec: Arc::clone(&role.spec),
                snapshot,
                pool: Pool::new(arrived),
                waits_for: String::new(),
                common: Arc::default(),
            });
            let acquired = entry.pool.acquire(arrived, max_warm);
            self.pump(&mut state);
            acquired
        };
        let timings = |warm| Timings {
            total_us: micros(arrived),
            prepare_us: u64::try_from((prepared - arrived).as_micros()).unwrap_or(u64::MAX),
            fork_us: if warm { 0 } else { micros(prepared) },
            warm,
        };
        match acquired {
            Acquired::Warm(loan) => Ok((loan, timings(true))),
            Acquired::Wait(receiver) => match receiver.await {
                Ok(given) => given.map(|loan| (loan, timings(false))),
                Err(_) => Err(Problem::new(ProblemKind::ShuttingDown, "the broker is going away")),
            },
        }
    }

    /// Clears away what is warm in pools of the same role whose snapshot is no longer right.
    fn retire_older(&self, state: &mut State, current: &PoolKey) {
        if state.pools.contains_key(current) {
            return;
        }
        for (key, entry) in &mut state.pools {
            if (&key.role, key.isolation) == (&current.role, current.isolation) {
                for loan in entry.pool.take_warm(|_| true) {
                    self.jobs.stop(loan.into_item());
                }
            }
        }
        state.pools.retain(|_, entry| !entry.pool.is_empty());
    }

    /// Starts what is wanted and fits.
    fn pump(&self, state: &mut State) {
        let config = self.roles.config();
        let mut wanted: Vec<_> =
            state.pools.iter_mut().map(|(key, entry)| (key.clone(), entry.pool.wanted())).collect();
        wanted.sort_by_key(|(_, wanted)| std::cmp::Reverse(wanted.waiting));
        for (key, wanted) in &wanted {
            for _ in 0..wanted.waiting {
                if let Err(why) = state.admit(key, &config, &self.jobs)
                    && !self.make_room(state, key)
                {
                    state.waits_for(key, why);
                    break;
                }
                state.start(key);
                self.jobs.start_now(key.clone());
            }
        }
        for (key, wanted) in &wanted {
            for _ in 0..wanted.refill {
                if state.admit(key, &config, &self.jobs).is_err() {
                    break;
                }
                state.start(key);
                self.jobs.start_ahead(key.clone());
            }
        }
    }

    /// Ends something warm of another pool, or the oldest kept server, to make room. Whether there was one.
    fn make_room(&self, state: &mut State, needed_by: &PoolKey) -> bool {
        if needed_by.isolation != Isolation::Server {
            return false;
        }
        let warm = state
            .pools
            .iter_mut()
            .filter(|(key, _)| *key != needed_by && key.isolation == Isolation::Server)
            .find_map(|(_, entry)| {
                let mut taken = 0;
                entry.pool.take_warm(|_| std::mem::replace(&mut taken, 1) == 0).pop()
            });
        match (warm.map(Loan::into_item), state.kept.len()) {
            (Some(item), _) => self.jobs.stop(item),
            (None, 0) => return false,
            (None, _) => {
                if let Some(kept) = state.kept.pop_front() {
                    self.jobs.stop(kept.item);
                }
            }
        }
        true
    }

    /// Worker: starts one for a pool.
    pub(crate) fn start(&self, key: &PoolKey, ahead: bool) {
        let Some(recipe) = self.lock().pools.get(key).map(PoolEntry::recipe) else { return };
        let begun = Instant::now();
        let made = self.make(key, &recipe, ahead);
        let spec = recipe.spec;
        let label = RoleLabel { role: key.role.clone() };
        if made.is_ok() {
            self.metrics.start.get_or_create(&label).observe(begun.elapsed().as_secs_f64());
        }
        let mut state = self.lock();
        let stopping = state.stopping;
        let Some(entry) = state.pools.get_mut(key) else { return };
        match made {
            Ok(what) => {
                let item = Item { spec, snapshot: key.snapshot.clone(), what };
                if stopping {
                    entry.pool.called_off();
                    drop(state);
                    drop(item);
                    return;
                }
                entry.pool.started(Loan { item: Some(item), key: key.clone(), core: self.own.clone() });
            }
            Err(problem) => {
                tracing::warn!(role = key.role, %problem, "a start failed");
                entry.pool.failed(&problem, begun);
            }
        }
        self.pump(&mut state);
    }

    fn make(&self, key: &PoolKey, recipe: &Recipe, ahead: bool) -> Result<What, Problem> {
        match key.isolation {
            Isolation::Server => Ok(What::Server(Box::new(self.start_server(key, recipe, ahead)?))),
            Isolation::Namespace => {
                let namespace = self.make_namespace(key, recipe, ahead)?;
                let session = if ahead { namespace.open_session()? } else { None };
                Ok(What::Namespace(Box::new(namespace), session))
            }
            Isolation::Shared => {
                let mut shared = recipe.common.shared.lock().expect("no panic while locked");
                if let Some(shared) = shared.as_ref().filter(|shared| !shared.has_exited()) {
                    match recipe.spec.reset(&self.machine, shared.endpoint()) {
                        Ok(()) => return Ok(What::Shared(shared.clone())),
                        // A new one is as good as one that was reset.
                        Err(problem) => tracing::warn!(role = key.role, %problem, "a reset failed"),
                    }
                }
                let new = if recipe.snapshot.is_some() {
                    let mut server = self.start_server(key, recipe, ahead)?;
                    server.session = None;
                    Shared::Server(Arc::new(server))
                } else {
                    Shared::Namespace(Arc::new(self.make_namespace(key, recipe, ahead)?))
                };
                Ok(What::Shared(shared.insert(new).clone()))
            }
        }
    }

    fn start_server(&self, key: &PoolKey, recipe: &Recipe, ahead: bool) -> Result<Server, Problem> {
        let snapshot = recipe.snapshot.as_ref().ok_or_else(|| {
            Problem::new(ProblemKind::Internal, "a server that others run was to be started")
        })?;
        let options = StartOptions { shared: key.isolation != Isolation::Server, ahead };
        let (core, key) = (self.own.clone(), key.clone());
        Server::start(&self.machine, &recipe.spec, snapshot, options, move || {
            if let Some(core) = core.upgrade() {
                core.clear_exited(&key);
            }
        })
    }

    /// Makes a namespace in the pool's host, which is started first if it is not there.
    fn make_namespace(&self, key: &PoolKey, recipe: &Recipe, ahead: bool) -> Result<Namespace, Problem> {
        let host = self.host(key, recipe, ahead)?;
        match host.create(&key.role, &self.next_id()) {
            // Others were faster to take the last one, or the server ended.
            Err(_) if !host.is_usable() => self.host(key, recipe, ahead)?.create(&key.role, &self.next_id()),
            made => made,
        }
    }

    /// The server that gives out namespaces now: another one when it has ended, or is used up.
    fn host(&self, key: &PoolKey, recipe: &Recipe, ahead: bool) -> Result<Arc<Host>, Problem> {
        let mut host = recipe.common.host.lock().expect("no panic while locked");
        Ok(match (host.as_ref().filter(|host| host.is_usable()), &recipe.snapshot) {
            (Some(host), _) => Arc::clone(host),
            (None, Some(snapshot)) => {
                let server = self.start_server(key, recipe, ahead)?;
                Arc::clone(host.insert(Host::new(&self.machine, &recipe.spec, snapshot, server)?))
            }
            (None, None) => {
                let limits = &self.roles.config().external;
                let new = Host::external(&self.machine, &recipe.spec, &key.snapshot, limits)?;
                Arc::clone(host.insert(new))
            }
        })
    }

    /// A server has ended: takes it out of the pool, tells whoever holds it.
    fn clear_exited(&self, key: &PoolKey) {
        let mut state = self.lock();
        for active in state.leases.values_mut().filter(|active| active.key == *key) {
            active.tell_if_exited();
        }
        let Some(entry) = state.pools.get_mut(key) else { return };
        for loan in entry.pool.take_warm(|loan| loan.item.as_ref().is_some_and(Item::has_exited)) {
            self.jobs.stop(loan.into_item());
        }
        self.pump(&mut state);
    }

    /// Worker: takes back what a lease had.
    pub(crate) fn returned(&self, key: &PoolKey, item: Item) {
        drop(item);
        let mut state = self.lock();
        if let Some(entry) = state.pools.get_mut(key) {
            entry.pool.returned();
        }
        self.pump(&mut state);
    }

    /// Worker: clears away what no pool has.
    pub(crate) fn stopped(&self, item: Item) {
        drop(item);
        self.pump(&mut self.lock());
    }

    /// What happens without anybody asking, once a second. Whether the broker has been idle long enough to go.
    pub(crate) fn tick(&self) -> bool {
        let config = self.roles.config();
        let (now, free) = (Instant::now(), self.look_around());
        let mut state = self.lock();
        state.free = free;
        for entry in state.pools.values_mut() {
            for loan in entry.pool.decay(now) {
                self.jobs.stop(loan.into_item());
            }
        }
        while state.kept.front().is_some_and(|kept| kept.until <= now) {
            if let Some(kept) = state.kept.pop_front() {
                self.jobs.stop(kept.item);
            }
        }
        self.pump(&mut state);
        self.update_metrics(&state);
        let unused = state.leases.is_empty() && state.kept.is_empty();
        let waited_for = self.arrived.load(Ordering::Relaxed) > 0;
        unused && !waited_for && now.duration_since(state.last_use) > config.broker.idle_exit.as_duration()
    }

    /// What the machine has left.
    fn look_around(&self) -> Free {
        Free {
            memory: doctor::available_memory(),
            storage: self.machine.free_storage(),
            files: memory::open_files().map(|open| self.max_files.saturating_sub(open)),
        }
    }

    /// Ends everything: nobody gets a lease any more, and every server goes.
    pub(crate) fn shut_down(&self) {
        let (pools, kept, leases) = {
            let mut state = self.lock();
            state.stopping = true;
            (
                std::mem::take(&mut state.pools),
                std::mem::take(&mut state.kept),
                std::mem::take(&mut state.leases),
            )
        };
        for active in leases.into_values() {
            let _ = active.events.try_send(Event::BrokerStopping);
        }
        for mut entry in pools.into_values() {
            for loan in entry.pool.take_warm(|_| true) {
                self.jobs.stop(loan.into_item());
            }
        }
        for kept in kept {
            self.jobs.stop(kept.item);
        }
    }
}

/// A request between its arrival and its answer.
pub(crate) struct Arrived<'a>(&'a AtomicUsize);

impl Drop for Arrived<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What it takes to make one more for a pool.
struct Recipe {
    spec: Arc<Spec>,
    snapshot: Option<Arc<Snapshot>>,
    common: Arc<Common>,
}

impl PoolEntry {
    fn recipe(&self) -> Recipe {
        Recipe {
            spec: Arc::clone(&self.spec),
            snapshot: self.snapshot.clone(),
            common: Arc::clone(&self.common),
        }
    }
}

impl State {
    fn start(&mut self, key: &PoolKey) {
        if let Some(entry) = self.pools.get_mut(key) {
            entry.pool.start();
            entry.waits_for.clear();
        }
    }

    /// Notes why those who wait for a pool have to.
    fn waits_for(&mut self, key: &PoolKey, why: String) {
        if let Some(entry) = self.pools.get_mut(key) {
            entry.waits_for = why;
        }
    }

    /// Whether one more of `key` fits; if not, what is in the way.
    fn admit(&self, key: &PoolKey, config: &testenv_config::Config, jobs: &Jobs) -> Result<(), String> {
        let Some(entry) = self.pools.get(key) else { return Ok(()) };
        match key.isolation {
            Isolation::Server => {}
            Isolation::Namespace => {
                let (made, most) = (entry.pool.counts().made(), config.pool.max_servers);
                let full = || format!("{made} namespaces are there, and `pool.max_servers` allows no more");
                return if made < most { Ok(()) } else { Err(full()) };
            }
            Isolation::Shared => {
                let counts = entry.pool.counts();
                let has_turn = !entry.spec.takes_turns() || counts.starting + counts.leased == 0;
                let why = "another lease has the server, which is reset in between";
                return if has_turn { Ok(()) } else { Err(why.to_owned()) };
            }
        }
        let of_one = |spec: &Spec| self.memory.get(&spec.role).copied().unwrap_or_else(|| spec.memory());
        let mut load = Load {
            servers: self.kept.len() + jobs.ended(),
            memory: self.kept.iter().map(|kept| of_one(&kept.item.spec)).sum(),
            ..Load::default()
        };
        for (key, entry) in &self.pools {
            let (counts, of_one) = (entry.pool.counts(), of_one(&entry.spec));
            let (servers, starting) = match key.isolation {
                Isolation::Server => (counts.made(), counts.starting),
                Isolation::Namespace | Isolation::Shared => (1, 0),
            };
            load.servers += servers;
            load.memory += servers as u64 * of_one;
            load.starting += starting;
            load.starting_memory += starting as u64 * of_one;
        }
        admission::admit(of_one(&entry.spec), load, &config.pool, self.free)
    }
}

/// Microseconds since `then`.
pub(crate) fn micros(then: Instant) -> u64 {
    u64::try_from(then.elapsed().as_micros()).unwrap_or(u64::MAX)
}
