//! Patience: who is woken by a peer for nothing, again and again, looks away for a while.
//!
//! | a peer's wake-up | in a row, so far | the next one is heard |
//! | --- | --- | --- |
//! | for nothing | up to so many | at once |
//! | for nothing | n more | after 2ⁿ ms, but no more than half a second |
//! | for something; or after a second without any | none again | at once |
//!
//! Wake-ups for nothing are usual among honest peers, too: what it is for is often found before it is heard. But
//! something is found then, and that is what counts. A peer that floods us so costs a few wake-ups a second, and is
//! heard late itself.

use std::time::{Duration, Instant};

/// Wake-ups for nothing that are heard at once: more than honest peers have in a row, and as many as cost less than a
/// millisecond.
pub(crate) const FREE: u32 = 32;
const LONGEST: Duration = Duration::from_millis(512);
const SHORTEST: Duration = Duration::from_millis(1);
/// Longer than the longest pause, so that this does not end a row.
const QUIET: Duration = Duration::from_secs(1);

/// What is remembered of the wake-ups by one peer.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    free: u32,
    longest: Duration,
    in_a_row: u32,
    last: Option<Instant>,
}

impl Default for Patience {
    /// With wake-ups: 32 in a row are free, and no pause is longer than half a second.
    fn default() -> Self {
        Self::new(FREE, LONGEST)
    }
}

impl Patience {
    /// So many in a row are free; a pause lasts no longer than that, which is less than a second.
    pub fn new(free: u32, longest: Duration) -> Self {
        Self {
            free,
            longest,
            in_a_row: 0,
            last: None,
        }
    }

    /// It was for something.
    pub fn useful(&mut self) {
        self.in_a_row = 0;
    }

    /// It was for nothing. For how long to look away now, if at all.
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    ///
    /// let (mut patience, now) = (urpc_donate::Patience::default(), Instant::now());
    /// let pauses: Vec<_> = (0..34).filter_map(|_| patience.in_vain(now)).collect();
    /// assert_eq!(pauses, [1, 2].map(Duration::from_millis));
    /// patience.useful();
    /// assert_eq!(patience.in_vain(now), None);
    /// ```
    pub fn in_vain(&mut self, now: Instant) -> Option<Duration> {
        let last = self.last.replace(now);
        if last.is_none_or(|last| now.saturating_duration_since(last) >= QUIET) {
            self.in_a_row = 0;
        }
        self.in_a_row = self.in_a_row.saturating_add(1);
        let more = self.in_a_row.checked_sub(self.free + 1)?;
        Some((SHORTEST * (1 << more.min(10))).min(self.longest))
    }
}

#[cfg(all(test, not(urpc_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_heard_a_few_times_a_second_and_a_quiet_second_is_forgiven() {
        let mut patience = Patience::default();
        let begun = Instant::now();
        let (mut now, mut heard) = (begun, 0);
        while now - begun < Duration::from_secs(10) {
            heard += 1;
            now += patience.in_vain(now).unwrap_or(Duration::from_micros(1));
        }
        assert!(heard < FREE + 10 + 20, "{heard} in ten seconds");
        assert!(patience.in_vain(now).is_some());
        assert_eq!(patience.in_vain(now + QUIET), None);
    }
}
