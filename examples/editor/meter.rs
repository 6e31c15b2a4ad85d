//! How long calls take, as their callers see it.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use urpc::{Call, CallError};

/// Times calls.
pub(crate) struct Meter(Mutex<Histogram<u64>>);

impl Meter {
    pub(crate) fn new() -> Self {
        // Three digits are within 0.1 %; what takes longer than a minute counts as a minute.
        let nanoseconds = Histogram::new_with_max(60_000_000_000, 3).expect("valid bounds");
        Self(Mutex::new(nanoseconds))
    }

    /// Awaits `call`, and notes how long that took.
    pub(crate) async fn time<R>(&self, call: Call<R>) -> Result<R, CallError>
    where
        R: serde::de::DeserializeOwned,
    {
        let begin = Instant::now();
        let result = call.await;
        let took = begin.elapsed().as_nanos().try_into().unwrap_or(u64::MAX);
        self.histogram().saturating_record(took);
        result
    }

    pub(crate) fn calls(&self) -> u64 {
        self.histogram().len()
    }

    /// The time within which `part` of all calls (0 to 1) were done.
    pub(crate) fn quantile(&self, part: f64) -> Duration {
        Duration::from_nanos(self.histogram().value_at_quantile(part))
    }

    fn histogram(&self) -> std::sync::MutexGuard<'_, Histogram<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
