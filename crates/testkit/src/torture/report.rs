//! What the torture found.

use std::fmt;
use std::time::Duration;

/// Counts, and everything that was not as it has to be.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Clients killed.
    pub client_kills: usize,
    /// Brokers killed.
    pub broker_kills: usize,
    /// Clients that came to a good end.
    pub finished: usize,
    /// Clients that lost their leases because their broker was killed, as they have to.
    pub lost_with_broker: usize,
    /// Times from the kill of a broker until the next one answered.
    pub restarts: Vec<Duration>,
    /// How long all of it took.
    pub took: Duration,
    /// Clients that found their data changed, though nobody killed their broker.
    pub disturbed: Vec<String>,
    /// What was found on the machine that should be gone.
    pub left_behind: Vec<String>,
    /// Everything else that went wrong.
    pub failures: Vec<String>,
}

impl Report {
    /// Kills of both kinds.
    pub fn kills(&self) -> usize {
        self.client_kills + self.broker_kills
    }

    /// Whether everything was as it has to be.
    pub fn is_clean(&self) -> bool {
        self.disturbed.is_empty() && self.left_behind.is_empty() && self.failures.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut restarts = self.restarts.clone();
        restarts.sort();
        let millis =
            |at: Option<&Duration>| at.map_or_else(|| "-".into(), |it| format!("{} ms", it.as_millis()));
        let rows = [
            ("kills", self.kills().to_string()),
            ("  of tests", self.client_kills.to_string()),
            ("  of brokers", self.broker_kills.to_string()),
            ("tests that came to a good end", self.finished.to_string()),
            ("tests that lost a killed broker", self.lost_with_broker.to_string()),
            ("next broker after a kill, median", millis(restarts.get(restarts.len() / 2))),
            ("next broker after a kill, longest", millis(restarts.last())),
            ("tests disturbed", self.disturbed.len().to_string()),
            ("left behind", self.left_behind.len().to_string()),
            ("other failures", self.failures.len().to_string()),
            ("time", format!("{:.1} s", self.took.as_secs_f64())),
        ];
        for (name, value) in rows {
            writeln!(f, "{name:<34} {value:>10}")?;
        }
        for (kind, lines) in
            [("disturbed", &self.disturbed), ("left behind", &self.left_behind), ("failed", &self.failures)]
        {
            for line in lines {
                writeln!(f, "{kind}: {}", line.trim_end())?;
            }
        }
        Ok(())
    }
}
