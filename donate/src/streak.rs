//! Donations to one peer that follow one another: work that stays, and deserves a processor that stays.

use crate::policy::PAUSE;
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// How many donations to one peer have followed one another, without a [`PAUSE`]. Workers that count at the same moment may
/// lose one.
#[derive(Debug)]
pub struct Streak {
    donations: AtomicU32,
    /// When the last one ended: nanoseconds on the caller's clock.
    ended: AtomicU64,
}

impl Default for Streak {
    fn default() -> Self {
        Self::new()
    }
}

impl Streak {
    /// There were none yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            donations: AtomicU32::new(0),
            ended: AtomicU64::new(0),
        }
    }

    /// So many have followed one another.
    #[must_use]
    pub fn donations(&self) -> u32 {
        self.donations.load(Ordering::Relaxed)
    }

    /// One has ended `now`, in nanoseconds of some clock that never goes back, and had `begun` then.
    ///
    /// ```
    /// use urpc_donate::Streak;
    ///
    /// let streak = Streak::new();
    /// streak.add(1_000, 5_000);
    /// streak.add(6_000, 9_000);
    /// assert_eq!(streak.donations(), 2);
    /// streak.add(10_000_000, 10_004_000);
    /// assert_eq!(streak.donations(), 1, "the pause was long");
    /// ```
    pub fn add(&self, begun: u64, now: u64) {
        let last = self.ended.load(Ordering::Relaxed);
        let follows = begun.saturating_sub(last) <= PAUSE.as_nanos() as u64;
        let before = if follows { self.donations() } else { 0 };
        self.donations.store(before + 1, Ordering::Relaxed);
        self.ended.store(now, Ordering::Relaxed);
    }

    /// The peer was seen with a processor of its own awake. Nothing is written where there is nothing to forget.
    #[inline]
    pub fn end(&self) {
        if self.donations() != 0 {
            self.donations.store(0, Ordering::Relaxed);
        }
    }
}
