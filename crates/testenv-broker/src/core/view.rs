//! What can be seen of the state: for `testenv status`, for metrics, for limits.

use std::time::Instant;

use testenv_api::{EndedLease, HeldLease, KeptServer, PoolStatus};

use super::leases::{Active, KeptItem};
use super::{Core, PoolEntry, PoolKey, State};
use crate::loan::Item;
use crate::memory;
use crate::metrics::PoolLabels;

impl Core {
    /// Leases held now.
    pub(crate) fn held(&self) -> Vec<HeldLease> {
        let state = self.lock();
        let held = |(id, active): (&String, &Active)| HeldLease {
            id: id.clone(),
            role: active.key.role.clone(),
            test: active.request.test.clone(),
            pid: active.pid,
            held_ms: u64::try_from(active.since.elapsed().as_millis()).unwrap_or(u64::MAX),
            isolation: active.key.isolation,
        };
        let mut leases: Vec<_> = state.leases.iter().map(held).collect();
        leases.sort_by_key(|lease| std::cmp::Reverse(lease.held_ms));
        leases
    }

    /// Leases that have ended.
    pub(crate) fn ended(&self, attempt_prefix: &str) -> Vec<EndedLease> {
        self.lock().ended.with_attempt_prefix(attempt_prefix)
    }

    /// Servers kept for debugging.
    pub(crate) fn kept(&self) -> Vec<KeptServer> {
        let now = Instant::now();
        let kept = |kept: &KeptItem| KeptServer {
            id: kept.id.clone(),
            role: kept.item.spec.role.clone(),
            test: kept.test.clone(),
            expires_seconds: kept.until.saturating_duration_since(now).as_secs(),
            connect_command: kept.connect_command.clone(),
        };
        self.lock().kept.iter().map(kept).collect()
    }

    /// How many leases are held.
    pub(crate) fn lease_count(&self) -> usize {
        self.lock().leases.len()
    }

    /// The state of every pool, for people.
    pub(crate) fn pools(&self) -> Vec<PoolStatus> {
        let state = self.lock();
        let status = |(key, entry): (&PoolKey, &PoolEntry)| {
            let counts = entry.pool.counts();
            PoolStatus {
                role: key.role.clone(),
                service: entry.spec.kind,
                isolation: key.isolation,
                engine: entry.spec.build.engine.clone(),
                snapshot: key.snapshot.clone(),
                warm: counts.warm,
                starting: counts.starting,
                leased: counts.leased,
                waiting: counts.waiting,
                waits_for: entry.waits_for.clone(),
                target: counts.target,
            }
        };
        let mut pools: Vec<_> = state.pools.iter().map(status).collect();
        pools.sort_by(|a, b| a.role.cmp(&b.role).then(a.isolation.as_str().cmp(b.isolation.as_str())));
        pools
    }

    pub(super) fn update_metrics(&self, state: &State) {
        self.metrics.pool.clear();
        for (key, entry) in &state.pools {
            let counts = entry.pool.counts();
            for (name, value) in [
                ("warm", counts.warm),
                ("starting", counts.starting),
                ("leased", counts.leased),
                ("waiting", counts.waiting),
            ] {
                let labels = PoolLabels {
                    role: key.role.clone(),
                    isolation: key.isolation.to_string(),
                    state: name.to_owned(),
                };
                self.metrics.pool.get_or_create(&labels).inc_by(i64::try_from(value).unwrap_or(i64::MAX));
            }
        }
        self.metrics.kept.set(i64::try_from(state.kept.len()).unwrap_or(i64::MAX));
    }

    /// Measures servers, up to `sample` of each role, and notes the mean. The memory of all, in bytes.
    pub(crate) fn measure_memory(&self, sample: usize) -> u64 {
        let mut pids: Vec<(String, u32)> = {
            let state = self.lock();
            let of_item = |item: &Item| Some((item.spec.role.clone(), item.server()?.pid()));
            let of_lease = |active: &Active| Some((active.key.role.clone(), active.server_pid?));
            let warm = state.pools.values().flat_map(|entry| entry.pool.warm_items());
            let mut pids: Vec<_> = warm.filter_map(|loan| loan.item.as_ref()).filter_map(of_item).collect();
            pids.extend(state.kept.iter().filter_map(|kept| of_item(&kept.item)));
            pids.extend(state.leases.values().filter_map(of_lease));
            pids
        };
        pids.sort_unstable();
        pids.dedup();
        let (mut total, mut means) = (0, Vec::new());
        for servers in pids.chunk_by(|(a, _), (b, _)| a == b) {
            let measured = servers.len().min(sample);
            let sum: u64 = servers[..measured].iter().map(|(_, pid)| memory::of_server(*pid)).sum();
            let mean = sum / measured.max(1) as u64;
            total += mean * servers.len() as u64;
            means.push((servers[0].0.clone(), mean));
        }
        self.lock().memory.extend(means);
        self.metrics.memory.set(i64::try_from(total).unwrap_or(i64::MAX));
        total
    }
}
