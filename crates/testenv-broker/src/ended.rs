//! The leases that have ended, as many as fit: what runners take set-up times from.

use std::collections::VecDeque;

use testenv_api::EndedLease;

/// Leases remembered at the most.
const LIMIT: usize = 50_000;

/// A bounded memory of ended leases, newest last.
#[derive(Debug, Default)]
pub(crate) struct Ended(VecDeque<EndedLease>);

impl Ended {
    pub(crate) fn push(&mut self, lease: EndedLease) {
        if self.0.len() == LIMIT {
            self.0.pop_front();
        }
        self.0.push_back(lease);
    }

    /// Those whose attempt begins with `prefix`.
    pub(crate) fn with_attempt_prefix(&self, prefix: &str) -> Vec<EndedLease> {
        let matches = |lease: &&EndedLease| lease.attempt.as_deref().unwrap_or_default().starts_with(prefix);
        self.0.iter().filter(matches).cloned().collect()
    }
}
