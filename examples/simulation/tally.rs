//! What is measured in a run, after a tenth of its time.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::costs::Time;

#[derive(Clone, Debug)]
pub(crate) struct Tally {
    /// From when a caller is ready to call until it runs with the reply.
    pub(crate) latency: Histogram<u64>,
    /// Processors handed over, or woken, for another address space: a grant, a return, a ring that somebody hears.
    pub(crate) crossings: u64,
    pub(crate) donations: u64,
    pub(crate) reclaims: u64,
    pub(crate) rings: u64,
    /// CPUs that idle or spin beside an address space that has work and no CPU, times time.
    pub(crate) wasted: u128,
    /// What the CPUs have done: work, system, spin, idle.
    pub(crate) spent: [Time; 4],
    pub(crate) time: Time,
    pub(crate) cpus: usize,
}

impl Tally {
    pub(crate) fn new(cpus: usize) -> Self {
        Self {
            // 1 ns to a minute, to three digits: cannot fail.
            latency: Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("fixed bounds"),
            crossings: 0,
            donations: 0,
            reclaims: 0,
            rings: 0,
            wasted: 0,
            spent: [0; 4],
            time: 0,
            cpus,
        }
    }

    pub(crate) fn calls(&self) -> u64 {
        self.latency.len()
    }

    pub(crate) fn mean_us(&self) -> f64 {
        self.latency.mean() / 1e3
    }

    pub(crate) fn quantile_us(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1e3
    }

    /// A thousand calls per second.
    pub(crate) fn rate(&self) -> f64 {
        self.calls() as f64 * 1e6 / self.time as f64
    }

    pub(crate) fn per_call(&self, n: u64) -> f64 {
        n as f64 / self.calls().max(1) as f64
    }

    /// CPUs that idle or spin while work waits, of a hundred.
    pub(crate) fn wasted_share(&self) -> f64 {
        100.0 * self.wasted as f64 / (self.time as f64 * self.cpus as f64)
    }

    pub(crate) fn share(&self, what: crate::kernel::Use) -> f64 {
        100.0 * self.spent[what as usize] as f64 / (self.time as f64 * self.cpus as f64)
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "calls": self.calls(),
            "mean_us": self.mean_us(),
            "p50_us": self.quantile_us(0.5),
            "p99_us": self.quantile_us(0.99),
            "p999_us": self.quantile_us(0.999),
            "thousand_calls_per_s": self.rate(),
            "crossings_per_call": self.per_call(self.crossings),
            "donations_per_call": self.per_call(self.donations),
            "reclaims": self.reclaims,
            "rings_per_call": self.per_call(self.rings),
            "idle_while_work_waits_percent": self.wasted_share(),
            "cpu_ns": { "work": self.spent[0], "system": self.spent[1], "spin": self.spent[2], "idle": self.spent[3] },
        })
    }
}
