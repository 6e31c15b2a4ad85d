//! How far away the peer's processor is: large messages go to a near one through the caches, to a far one past them.
//!
//! A line that one processor has written reaches another from a cache that they share, in some nanoseconds. Where they
//! share none, it comes sooner from memory, if it was written past the caches. Nobody says reliably which it is, and
//! both may change their processors at any time. So now and then the copying of a piece through the caches is timed:
//! each of its lines comes from where the peer has read it last.

use std::time::{Duration, Instant};

use crate::layout::LINE;

/// Nanoseconds that a line takes from a processor which is near, at most. Measured: 3 to 5, and 10 where memory was as
/// fast.
const NEAR: usize = 8;
/// Pieces from one that is timed to the next: with a near peer, and with a far one, of which each costs more.
const TURNS: [u32; 2] = [15, 255];

#[derive(Debug, Default)]
pub(super) struct Distance {
    is_far: bool,
    /// The last piece that was timed took long. One may have been interrupted, two in a row are believed.
    was_slow: bool,
    /// Pieces until one is timed.
    turns: u32,
}

impl Distance {
    /// Has a piece of `len` bytes copied, past the caches or not.
    pub(super) fn copy(&mut self, len: usize, copy: impl FnOnce(bool)) {
        if self.turns > 0 {
            self.turns -= 1;
            return copy(self.is_far);
        }
        let begin = Instant::now();
        copy(false);
        self.learn(len, begin.elapsed());
    }

    fn learn(&mut self, len: usize, took: Duration) {
        let is_slow = took.as_nanos() > (NEAR * len.div_ceil(LINE)) as u128;
        let is_sure = is_slow == self.was_slow;
        self.was_slow = is_slow;
        if is_sure {
            self.is_far = is_slow;
        }
        let turns = TURNS[usize::from(self.is_far)];
        self.turns = if is_sure { turns } else { 0 };
    }
}

#[cfg(all(test, not(urpc_loom)))]
mod tests {
    use super::*;

    #[test]
    fn two_pieces_in_a_row_decide_and_each_decision_is_looked_at_again() {
        let mut distance = Distance::default();
        // Each timed piece, and in how many others it results and whether these go past the caches.
        let mut after = |slow: bool| {
            let line = Duration::from_nanos(if slow { 20 } else { 2 });
            distance.learn(64 * LINE, 64 * line);
            let mut others = Vec::new();
            while distance.turns > 0 {
                distance.copy(LINE, |past| others.push(past));
            }
            (others.len(), others.contains(&true))
        };
        assert_eq!(after(false), (15, false));
        assert_eq!(after(true), (0, false), "perhaps it was interrupted");
        assert_eq!(after(false), (0, false));
        assert_eq!(after(false), (15, false));
        assert_eq!(after(true), (0, false));
        assert_eq!(after(true), (255, true));
        assert_eq!(after(true), (255, true));
        assert_eq!(after(false), (0, false));
        assert_eq!(after(false), (15, false));
    }
}
