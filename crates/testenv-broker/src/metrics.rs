//! What `/metrics` shows, in Prometheus' text format.

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// Labels of a lease.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct LeaseLabels {
    pub(crate) role: String,
    pub(crate) isolation: String,
    pub(crate) warm: String,
}

/// Label of anything that belongs to a role.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RoleLabel {
    pub(crate) role: String,
}

/// Labels of a pool's state.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct PoolLabels {
    pub(crate) role: String,
    pub(crate) isolation: String,
    pub(crate) state: String,
}

/// Label of a refused request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RefusalLabel {
    pub(crate) kind: String,
}

/// All metrics.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    /// Time from request to lease.
    pub(crate) lease_wait: Family<LeaseLabels, Histogram>,
    /// Time that leases were held.
    pub(crate) lease_held: Family<RoleLabel, Histogram>,
    /// Time from fork to a server that answers.
    pub(crate) start: Family<RoleLabel, Histogram>,
    /// Requests that got a problem instead of a lease.
    pub(crate) refusals: Family<RefusalLabel, Counter>,
    /// Servers or databases by state.
    pub(crate) pool: Family<PoolLabels, Gauge>,
    /// Servers kept for debugging.
    pub(crate) kept: Gauge,
    /// Memory of all servers.
    pub(crate) memory: Gauge,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        // 50 µs to 100 s.
        let times = || Histogram::new(exponential_buckets(0.000_05, 2.0, 22));
        let mut metrics = Self {
            registry: Registry::with_prefix("testenv"),
            lease_wait: Family::new_with_constructor(times),
            lease_held: Family::new_with_constructor(times),
            start: Family::new_with_constructor(times),
            refusals: Family::default(),
            pool: Family::default(),
            kept: Gauge::default(),
            memory: Gauge::default(),
        };
        let registry = &mut metrics.registry;
        let seconds = || Unit::Seconds;
        registry.register_with_unit(
            "lease_wait",
            "Time from request to lease",
            seconds(),
            metrics.lease_wait.clone(),
        );
        registry.register_with_unit(
            "lease_held",
            "Time that leases were held",
            seconds(),
            metrics.lease_held.clone(),
        );
        registry.register_with_unit(
            "start",
            "Time from fork to a server that answers",
            seconds(),
            metrics.start.clone(),
        );
        registry.register(
            "refusals",
            "Requests that got a problem instead of a lease",
            metrics.refusals.clone(),
        );
        registry.register("pool_items", "Servers or databases by state", metrics.pool.clone());
        registry.register("kept_servers", "Servers kept for debugging", metrics.kept.clone());
        registry.register_with_unit(
            "server_memory",
            "Memory of all servers",
            Unit::Bytes,
            metrics.memory.clone(),
        );
        metrics
    }

    /// The text that Prometheus reads.
    pub(crate) fn render(&self) -> String {
        let mut page = String::new();
        text::encode(&mut page, &self.registry).expect("writing to a string does not fail");
        page
    }
}
