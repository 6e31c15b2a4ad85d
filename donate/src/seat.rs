//! Where a thread of this process sleeps, and how it is woken.
//!
//! | place | sleeps on | woken by |
//! | --- | --- | --- |
//! | `RUNNING` | nothing | the changed ticket, which it reads before it sleeps |
//! | `WORD` | its own word | a futex wake |
//! | `BELL` | the bell, an epoll of the process | the caller of `wake`, who must ring the bell |
//! | `BESIDE` | a word that a peer changes, too, or its own and up to two of those | a futex wake, and the caller of `wake`, who must [nudge](crate::Signal::nudge) it |
//!
//! The ticket changes with every wake, before anything else. Whoever sleeps names the ticket it saw
//! *before* its last look for work; a wake after that look therefore ends the sleep, or prevents it.

use std::time::Instant;

use crate::sync::{
    AtomicU32, AtomicU64, Ordering, fence, sleep, sleep_on_all, sleep_on_shared, wake_private,
};

/// Awake, or about to look once more before it sleeps.
const RUNNING: u64 = 0;
/// Asleep on its own word.
const WORD: u64 = 1;
/// Asleep on the bell.
const BELL: u64 = 2;
/// Asleep until a peer says something: a donor, or a landing. The bits above are the name of what it sleeps beside.
const BESIDE: u64 = 3;

const PLACE_BITS: u32 = 2;
const PLACE_MASK: u64 = (1 << PLACE_BITS) - 1;

/// What the caller of [`Seat::wake`] still has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Wake {
    /// Nothing.
    Done,
    /// Ring the bell: the thread sleeps there, or is on its way to.
    RingBell,
    /// Nudge what the thread sleeps beside, or is about to: the [words](crate::Words) of this name.
    Nudge(u64),
}

/// The private word of one thread.
#[derive(Debug)]
#[repr(align(128))]
pub struct Seat {
    ticket: AtomicU32,
    place: AtomicU64,
}

impl Default for Seat {
    fn default() -> Self {
        Self::new()
    }
}

impl Seat {
    /// A seat whose thread runs.
    #[must_use]
    pub fn new() -> Self {
        Self {
            ticket: AtomicU32::new(0),
            place: AtomicU64::new(RUNNING),
        }
    }

    /// The ticket to name when going to sleep. Take it before the last look for work.
    #[must_use]
    pub fn ticket(&self) -> u32 {
        // Pairs with the Release in `wake`: what the waker did before is seen by whoever sees the
        // changed ticket.
        self.ticket.load(Ordering::Acquire)
    }

    /// Ends the sleep of this seat's thread, or the one it is about to begin with an older ticket.
    pub fn wake(&self) -> Wake {
        self.ticket.fetch_add(1, Ordering::AcqRel);
        // Pairs with the fence in `sit`: either we see where it went, or it sees the changed ticket. Loom:
        // `a_wake_reaches_a_thread_on_its_way_to_the_bell`, `a_wake_from_within_ends_every_sleep`.
        fence(Ordering::SeqCst);
        let place = self.place.load(Ordering::Relaxed);
        match place & PLACE_MASK {
            RUNNING => Wake::Done,
            BELL => Wake::RingBell,
            WORD => {
                wake_private(&self.ticket);
                Wake::Done
            }
            _ => {
                wake_private(&self.ticket); // it may sleep on both
                Wake::Nudge(place >> PLACE_BITS)
            }
        }
    }

    /// Sleeps on the seat's own word until it is woken after `ticket` was taken, or until `until`.
    /// True if it was woken.
    pub fn sleep(&self, ticket: u32, until: Option<Instant>) -> bool {
        self.sit(WORD);
        while self.ticket() == ticket && until.is_none_or(|until| Instant::now() < until) {
            sleep(&self.ticket, ticket, until);
        }
        self.stand_up();
        self.ticket() != ticket
    }

    /// Declares that this thread goes to sleep on the bell. False if it was woken since `ticket` was
    /// taken: then it must not sleep. Call [`stand_up`](Self::stand_up) afterwards in either case.
    #[must_use]
    pub fn sit_at_bell(&self, ticket: u32) -> bool {
        self.sit(BELL);
        self.ticket() == ticket
    }

    /// The thread runs again.
    pub fn stand_up(&self) {
        self.place.store(RUNNING, Ordering::Relaxed);
    }

    /// Declares that this thread goes to sleep beside the words of this name (62 bits).
    pub(crate) fn sit_beside(&self, name: u64) {
        self.sit(name << PLACE_BITS | BESIDE);
    }

    /// One sleep on up to two words that peers change, while they are what was seen there and nobody has woken this
    /// seat since `ticket` was taken. May end at any time.
    ///
    /// With one word and a time this is all that is slept on: who wakes the seat changes it, too, and a peer that
    /// changes it back has this thread sleep until then.
    pub(crate) fn sleep_beside(
        &self,
        ticket: u32,
        shared: &[(&AtomicU32, u32)],
        until: Option<Instant>,
    ) {
        match (shared, until) {
            (&[shared], Some(until)) => sleep_on_shared(shared, until),
            _ => sleep_on_all(&self.ticket, ticket, shared, until),
        }
    }

    fn sit(&self, place: u64) {
        self.place.store(place, Ordering::Relaxed);
        // Pairs with the fence in `wake`.
        fence(Ordering::SeqCst);
    }
}

#[cfg(all(test, not(urpc_loom)))]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_wake_before_the_sleep_prevents_it() {
        let seat = Seat::new();
        let ticket = seat.ticket();
        assert_eq!(seat.wake(), Wake::Done);
        assert!(seat.sleep(ticket, None));
    }

    #[test]
    fn a_wake_ends_a_sleep() {
        let seat = Seat::new();
        let ticket = seat.ticket();
        std::thread::scope(|s| {
            s.spawn(|| assert!(seat.sleep(ticket, None)));
            let _ = seat.wake();
        });
    }

    #[test]
    fn a_sleep_ends_at_its_time() {
        let seat = Seat::new();
        let until = Instant::now() + Duration::from_millis(1);
        assert!(!seat.sleep(seat.ticket(), Some(until)));
        assert!(Instant::now() >= until);
    }

    #[test]
    fn a_thread_at_the_bell_is_woken_there() {
        let seat = Seat::new();
        let ticket = seat.ticket();
        assert!(seat.sit_at_bell(ticket));
        assert_eq!(seat.wake(), Wake::RingBell);
        seat.stand_up();
        assert!(!seat.sit_at_bell(ticket), "it was woken meanwhile");
    }
}
