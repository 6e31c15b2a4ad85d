//! Back-off: a peer on which processors are wasted is lent none for a while. It is rung instead, never
//! forgotten.
//!
//! | donation | strikes | no donations for |
//! | --- | --- | --- |
//! | wasted | one more, s in all | 2ˢ times what it cost, s no more than [`MOST_STRIKES`] |
//! | useful | one fewer | as before |
//!
//! A stopped or stuck peer so costs its donor a falling share of its time, and one that got over it is
//! soon trusted again. Workers that record at the same moment may lose one another's strikes: nothing but
//! the length of a pause depends on these two words.

use std::time::Duration;

use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// More strikes do not make the pause longer: at the default grant limit of 5 ms it is 1.3 s.
pub const MOST_STRIKES: u32 = 8;

/// What is remembered of the donations to one peer.
#[derive(Debug)]
pub struct Backoff {
    strikes: AtomicU32,
    /// Nanoseconds on the caller's clock.
    barred_until: AtomicU64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new()
    }
}

impl Backoff {
    /// Nothing was wasted yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            strikes: AtomicU32::new(0),
            barred_until: AtomicU64::new(0),
        }
    }

    /// A donation that ended `now`, in nanoseconds of some clock that never goes back, was in vain, and took
    /// the donor so long.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let backoff = urpc_donate::Backoff::new();
    /// backoff.wasted(1_000, Duration::from_nanos(500));
    /// assert_eq!(backoff.bars(1_500), Duration::from_nanos(500));
    /// assert!(backoff.bars(2_000).is_zero());
    /// ```
    pub fn wasted(&self, now: u64, cost: Duration) {
        let strikes = (self.strikes.load(Ordering::Relaxed) + 1).min(MOST_STRIKES);
        self.strikes.store(strikes, Ordering::Relaxed);
        let pause = cost
            .saturating_mul(1 << strikes)
            .as_nanos()
            .try_into()
            .unwrap_or(u64::MAX);
        self.barred_until
            .store(now.saturating_add(pause), Ordering::Relaxed);
    }

    /// A donation was of use.
    pub fn useful(&self) {
        let strikes = self.strikes.load(Ordering::Relaxed);
        if strikes > 0 {
            self.strikes.store(strikes - 1, Ordering::Relaxed);
        }
    }

    /// For how long from `now` on the peer should be lent nothing.
    #[must_use]
    pub fn bars(&self, now: u64) -> Duration {
        let until = self.barred_until.load(Ordering::Relaxed);
        Duration::from_nanos(until.saturating_sub(now))
    }
}

#[cfg(all(test, not(urpc_loom)))]
mod tests {
    use super::*;

    const COST: Duration = Duration::from_nanos(100);

    /// For how long a donation that is wasted `now` bars the next ones.
    fn pause(backoff: &Backoff, now: u64) -> u64 {
        backoff.wasted(now, COST);
        (0..u64::MAX)
            .step_by(100)
            .find(|&later| backoff.bars(now + later).is_zero())
            .unwrap()
    }

    #[test]
    fn each_wasted_donation_doubles_the_pause_up_to_a_bound() {
        let backoff = Backoff::new();
        assert!(backoff.bars(0).is_zero());
        let pauses: Vec<u64> = (0..12).map(|i| pause(&backoff, i * 1_000_000)).collect();
        let doubled = (1..=MOST_STRIKES).map(|s| 100 << s);
        let bounded = std::iter::repeat(100 << MOST_STRIKES);
        assert_eq!(pauses, doubled.chain(bounded).take(12).collect::<Vec<_>>());
    }

    #[test]
    fn a_useful_donation_takes_one_strike_away() {
        let backoff = Backoff::new();
        for now in 0..3 {
            backoff.wasted(now, COST);
        }
        backoff.useful();
        assert_eq!(pause(&backoff, 1_000_000), 800, "the third strike again");
        for _ in 0..9 {
            backoff.useful();
        }
        assert_eq!(pause(&backoff, 2_000_000), 200, "as if it were the first");
    }

    #[test]
    fn a_pause_beyond_the_clock_is_for_ever_and_no_overflow() {
        let backoff = Backoff::new();
        backoff.wasted(u64::MAX - 1, Duration::MAX);
        assert!(!backoff.bars(u64::MAX - 1).is_zero());
    }
}
