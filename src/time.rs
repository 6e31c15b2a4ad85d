//! Time for tasks: sleeping, and limits on how long something may take.

use std::future::Future;
use std::time::{Duration, Instant};

pub use urpc_executor::{Elapsed, Sleep};

use crate::runtime;

/// Completes `after` this call, on the timers of the current runtime, or the default one.
///
/// # Cancellation
/// Nothing happens at that time.
pub fn sleep(after: Duration) -> Sleep {
    Sleep::new(&runtime::current_executor(), at(after))
}

/// Runs `future`, but no longer than `limit`.
///
/// # Errors
/// [`Elapsed`] if the time was over first; `future` is dropped then.
///
/// # Cancellation
/// `future` is dropped.
pub fn timeout<F: Future>(
    limit: Duration,
    future: F,
) -> impl Future<Output = Result<F::Output, Elapsed>> {
    urpc_executor::timeout_at(&runtime::current_executor(), at(limit), future)
}

/// A moment that can be counted on: one too far off for the clock is as good as never.
pub(crate) fn at(after: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(after)
        .unwrap_or_else(|| now + Duration::from_secs(100 * 365 * 24 * 3600))
}
