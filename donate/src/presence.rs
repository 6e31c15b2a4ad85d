//! The presence page: how many processors a process has, and how many of them rest.
//!
//! One page per runtime, written by it alone and read by all its peers, so that resting is one store
//! however many channels there are. It is a hint to begin with (an idle peer looks without a fence),
//! and with the two fences of rest and ring it is exact when it matters: *either the one who rests sees
//! the message, or the one who sent it sees the rest.*

use crate::sync::{AtomicU32, Ordering, fence};

/// The words of one page.
#[derive(Clone, Copy, Debug)]
pub struct Presence<'a> {
    /// Own processors.
    pub processors: &'a AtomicU32,
    /// How many of them rest: their workers sleep, or have lent them.
    pub resting: &'a AtomicU32,
    /// How many more are held by no worker at all.
    pub unheld: &'a AtomicU32,
}

impl Presence<'_> {
    /// One more processor rests. The caller looks for work once more before it sleeps.
    pub fn announce_rest(&self) {
        self.resting.fetch_add(1, Ordering::Relaxed);
        // Pairs with the fence of a peer before `View::read` (its `must_ring`): either it sees us
        // resting, or our next look at its ring sees its message.
        // Loom: `no_message_is_forgotten_between_rest_and_ring`.
        fence(Ordering::SeqCst);
    }

    /// So many processors are held by nobody. The caller looks for work once more afterwards, as with
    /// [`announce_rest`](Self::announce_rest).
    pub fn announce_unheld(&self, unheld: u32) {
        self.unheld.store(unheld, Ordering::Relaxed);
        // Pairs as in `announce_rest`.
        fence(Ordering::SeqCst);
    }

    /// The same processor works again. Only who announced may call this: anybody else could do it
    /// late, and hide a processor that has gone to rest again.
    pub fn retract_rest(&self) {
        self.resting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a peer's presence page said at one moment. A claim: a peer that lies here delays its own calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The peer's own processors.
    pub processors: u32,
    /// How many of them rest, or are held by nobody.
    pub resting: u32,
}

impl View {
    /// Reads the words. Exact only after a `fence(SeqCst)` that follows the sending.
    #[must_use]
    pub fn read(page: &Presence<'_>) -> Self {
        let resting = page.resting.load(Ordering::Relaxed);
        let view = Self {
            processors: page.processors.load(Ordering::Relaxed),
            resting: resting.saturating_add(page.unheld.load(Ordering::Relaxed)),
        };
        // An Acquire of the loads; the pages are read-only here, which allows only Relaxed ones.
        fence(Ordering::Acquire);
        view
    }

    /// Has at least one processor that does not rest.
    #[must_use]
    pub fn awake(self) -> bool {
        self.processors > self.resting
    }

    /// A message may lie unread until somebody rings: some processor rests, or there is none.
    #[must_use]
    pub fn may_sleep(self) -> bool {
        self.resting > 0 || self.processors == 0
    }
}

#[cfg(all(test, not(urpc_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_process_without_processors_is_never_awake() {
        let view = View {
            processors: 0,
            resting: 0,
        };
        assert!(!view.awake() && view.may_sleep());
    }

    #[test]
    fn a_lie_about_resting_is_no_overflow() {
        let view = View {
            processors: 1,
            resting: u32::MAX,
        };
        assert!(!view.awake() && view.may_sleep());
    }

    #[test]
    fn rest_is_announced_and_retracted() {
        let [processors, resting, unheld] = [2, 0, 0].map(AtomicU32::new);
        let own = Presence {
            processors: &processors,
            resting: &resting,
            unheld: &unheld,
        };
        own.announce_rest();
        own.announce_unheld(1);
        assert!(!View::read(&own).awake());
        own.retract_rest();
        assert!(View::read(&own).awake() && View::read(&own).may_sleep());
    }
}
