//! Taking samples, and what is said about them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Map, Value, json};

/// How long each measurement may take.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// A quick run only shows that everything works; its numbers are not written to `docs/`.
    pub quick: bool,
}

impl Plan {
    /// Samples of one latency at the most.
    pub fn samples(self) -> usize {
        if self.quick { 10 } else { 200 }
    }

    /// Time for the samples of one latency; fewer are taken of what is slow.
    pub fn latency_budget(self) -> Duration {
        Duration::from_secs(if self.quick { 2 } else { 6 })
    }

    /// Time over which a sustained rate is counted.
    pub fn rate_window(self) -> Duration {
        Duration::from_secs(if self.quick { 2 } else { 5 })
    }
}

/// Time between two samples where a test would do its work: pools refill, and a process that sleeps finds its
/// processor idle and its caches cold.
pub const PACE: Duration = Duration::from_millis(40);

/// Concurrent workers of every sustained rate.
pub const WORKERS: usize = 4;

/// Something that gives a test a private, migrated database.
pub trait Subject: Sync {
    /// Gets one, runs a query on a new connection, and takes the time to its answer; then gives it back, which
    /// is not part of that time.
    fn once(&self) -> Result<Duration>;
}

impl<F: Fn() -> Result<Duration> + Sync> Subject for F {
    fn once(&self) -> Result<Duration> {
        self()
    }
}

/// Samples of one quantity, sorted.
#[derive(Debug)]
pub struct Samples(Vec<Duration>);

impl Samples {
    /// Takes them one after the other, within the plan, after one that does not count. `pause` lets whatever
    /// works ahead of demand do so.
    pub fn take(plan: Plan, pause: Duration, mut once: impl FnMut() -> Result<Duration>) -> Result<Self> {
        once()?;
        let until = Instant::now() + plan.latency_budget() + pause * u32::try_from(plan.samples())?;
        let mut samples = Vec::new();
        while samples.len() < plan.samples() && (samples.len() < 3 || Instant::now() < until) {
            std::thread::sleep(pause);
            samples.push(once()?);
        }
        Ok(Self::of(samples))
    }

    /// Samples taken elsewhere.
    pub fn of(mut samples: Vec<Duration>) -> Self {
        samples.sort_unstable();
        Self(samples)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The smallest sample that `percent` of all do not exceed, in milliseconds.
    pub fn percentile_ms(&self, percent: usize) -> f64 {
        let rank = (self.0.len() * percent).div_ceil(100).clamp(1, self.0.len());
        self.0[rank - 1].as_secs_f64() * 1000.0
    }
}

/// How often a second [`WORKERS`] together get through it, none starting anew after the window.
pub fn rate_per_second(window: Duration, subject: &dyn Subject) -> Result<f64> {
    let done = AtomicUsize::new(0);
    let started = Instant::now();
    std::thread::scope(|scope| {
        let work = || -> Result<()> {
            while started.elapsed() < window {
                subject.once()?;
                done.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        };
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a worker does not panic"))
    })?;
    Ok(done.into_inner() as f64 / started.elapsed().as_secs_f64())
}

/// One line of one table of results.
#[derive(Clone, Debug)]
pub struct Row {
    /// Table it belongs to.
    pub table: String,
    /// What was measured.
    pub who: String,
    /// Columns, in order.
    pub cells: Map<String, Value>,
}

impl Row {
    /// A row without cells.
    pub fn new(table: &str, who: impl Into<String>) -> Self {
        Self { table: table.into(), who: who.into(), cells: Map::new() }
    }

    /// Adds a number, rounded to three digits that mean something.
    pub fn cell(mut self, column: &str, value: f64) -> Self {
        let digits = if value == 0.0 { 0 } else { (2 - value.abs().log10().floor() as i32).clamp(0, 4) };
        let scale = 10_f64.powi(digits);
        self.cells.insert(column.into(), json!((value * scale).round() / scale));
        self
    }

    /// Adds what is said of every latency.
    pub fn latency(self, samples: &Samples) -> Self {
        self.cell("p50 ms", samples.percentile_ms(50))
            .cell("p99 ms", samples.percentile_ms(99))
            .cell("samples", samples.len() as f64)
    }

    /// As JSON.
    pub fn to_json(&self) -> Value {
        json!({ "table": self.table, "who": self.who, "cells": self.cells })
    }

    /// From JSON.
    pub fn from_json(value: &Value) -> Option<Self> {
        let cells = value["cells"].as_object()?.clone();
        Some(Self { table: value["table"].as_str()?.into(), who: value["who"].as_str()?.into(), cells })
    }
}

/// Latency and sustained rate of a way to a private, migrated database.
pub fn measure(plan: Plan, who: &str, pause: Duration, subject: &dyn Subject) -> Result<Row> {
    eprintln!("  {who}");
    let samples = Samples::take(plan, pause, || subject.once())?;
    let rate = rate_per_second(plan.rate_window(), subject)?;
    Ok(Row::new("private", who).latency(&samples).cell("a second", rate))
}
