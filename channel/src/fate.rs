//! Whether a channel is open, and if not, whether the peer is to blame.
//!
//! | state | `closed` | `violation` |
//! | --- | --- | --- |
//! | open | false | none |
//! | closed by us | true | none |
//! | condemned | true | what the peer did, the first thing only |
//!
//! A channel never opens again.

use std::sync::OnceLock;

use crate::sync::{AtomicBool, Ordering};
use crate::violation::Violation;

/// The channel is closed: nothing can be sent any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the channel is closed")]
pub struct Closed;

#[derive(Debug)]
pub(crate) struct Fate {
    closed: AtomicBool,
    violation: OnceLock<Violation>,
    /// Whether a `receive` has returned the violation.
    reported: AtomicBool,
}

impl Fate {
    pub(crate) fn new() -> Fate {
        let (closed, reported) = (AtomicBool::new(false), AtomicBool::new(false));
        Fate {
            closed,
            violation: OnceLock::new(),
            reported,
        }
    }

    #[inline(always)]
    pub(crate) fn is_closed(&self) -> bool {
        // SeqCst, after the exchange in `End::try_take`: pairs with `close` and `End::pass`. A plain load on x86.
        self.closed.load(Ordering::SeqCst)
    }

    /// Open → closed.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    /// Open → condemned.
    #[cold]
    pub(crate) fn condemn(&self, violation: Violation) {
        let _ = self.violation.set(violation); // only the first counts
        self.close();
    }

    /// Condemns the peer for an error.
    pub(crate) fn judge<T>(&self, result: Result<T, Violation>) -> Result<T, Closed> {
        result.map_err(|violation| {
            self.condemn(violation);
            Closed
        })
    }

    #[inline(always)]
    pub(crate) fn is_condemned(&self) -> bool {
        self.violation.get().is_some()
    }

    pub(crate) fn violation(&self) -> Option<Violation> {
        self.violation.get().copied()
    }

    /// Whether the next `receive` has a violation to tell that none told before.
    pub(crate) fn has_news(&self) -> bool {
        !self.reported.load(Ordering::Relaxed)
    }

    pub(crate) fn report(&self) {
        self.reported.store(true, Ordering::Relaxed);
    }
}
