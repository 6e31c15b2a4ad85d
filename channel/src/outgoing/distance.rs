//! How far away the peer's processor is: large messages go to a near one through the caches, to a far one past them.
//!
//! A line that one processor has written reaches another from a cache that they share, in some nanoseconds. Where they
//! share none, it comes sooner from memory, if it was written past the caches. Nobody says reliably which it is, and
//! both may change their processors at any time. So now and then a look at the peer's index is timed, a line that the
//! peer has just written. (Copying says nothing of it: what went past the caches comes from memory when it is written
//! again, for a near peer, too.)

use std::time::Duration;

/// What a line of a near peer takes at most, with reading the clock. Measured: 20 to 60 ns; a far one 190 to 400.
const NEAR: Duration = Duration::from_nanos(130);
/// Large messages from one for which a look is timed to the next.
const TURNS: u8 = 16;

#[derive(Debug, Default)]
pub(super) struct Distance {
    is_far: bool,
    /// The last look took long. One may have been interrupted, two in a row are believed.
    was_slow: bool,
    /// Messages for which no look is timed.
    turns: u8,
}

impl Distance {
    pub(super) fn is_far(&self) -> bool {
        self.is_far
    }

    /// A large message begins. Whether a look is to be timed.
    pub(super) fn is_due(&mut self) -> bool {
        let left = self.turns.checked_sub(1);
        self.turns = left.unwrap_or(0);
        left.is_none()
    }

    /// So much time took a look at what the peer had just written.
    pub(super) fn learn(&mut self, took: Duration) {
        let is_slow = took > NEAR;
        if is_slow == self.was_slow {
            self.is_far = is_slow;
            self.turns = TURNS;
        }
        self.was_slow = is_slow;
    }
}

#[cfg(all(test, not(urpc_loom)))]
mod tests {
    use super::*;

    #[test]
    fn two_looks_in_a_row_decide_and_each_decision_is_looked_at_again() {
        let mut distance = Distance::default();
        // How many messages there are until a look is timed, and whether they go past the caches.
        let mut after = |nanoseconds| {
            distance.learn(Duration::from_nanos(nanoseconds));
            let untimed = (0..).take_while(|_| !distance.is_due()).count();
            (untimed, distance.is_far())
        };
        assert_eq!(after(50), (16, false));
        assert_eq!(after(300), (0, false), "perhaps it was interrupted");
        assert_eq!(after(50), (0, false));
        assert_eq!(after(50), (16, false));
        assert_eq!(after(300), (0, false));
        assert_eq!(after(300), (16, true));
        assert_eq!(after(50), (0, true));
        assert_eq!(after(50), (16, false));
    }
}
