//! Where a thread of this process sleeps, and how it is woken.
//!
//! | place | sleeps on | woken by |
//! | --- | --- | --- |
//! | `Running` | nothing | the changed ticket, which it reads before it sleeps |
//! | `Word` | its own word | a futex wake |
//! | `Bell` | the bell, an epoll of the process | the caller of `wake`, who must ring the bell |
//! | `Lent` | its own word and one that a peer changes, or two | a futex wake |
//!
//! The ticket changes with every wake, before anything else. Whoever sleeps names the ticket it saw
//! *before* its last look for work; a wake after that look therefore ends the sleep, or prevents it.

use std::time::Instant;

use crate::sync::{AtomicU32, Ordering, fence, sleep, sleep_on_all, wake_private};

/// Where a thread sleeps, if it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Place {
    /// Awake, or about to look once more before it sleeps.
    Running = 0,
    /// Asleep on its own word.
    Word = 1,
    /// Asleep on the bell.
    Bell = 2,
    /// Asleep because its processor is lent to a peer.
    Lent = 3,
}

/// What the caller of [`Seat::wake`] still has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Wake {
    /// Nothing.
    Done,
    /// Ring the bell: the thread sleeps there, or is on its way to.
    RingBell,
}

/// The private word of one thread.
#[derive(Debug)]
#[repr(align(128))]
pub struct Seat {
    ticket: AtomicU32,
    place: AtomicU32,
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
            place: AtomicU32::new(Place::Running as u32),
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
        // Pairs with the fence in `sit_at_bell`: either we see that it went to the bell, or it sees
        // the changed ticket. Loom: `a_wake_reaches_a_thread_on_its_way_to_the_bell`.
        fence(Ordering::SeqCst);
        match self.place.load(Ordering::Relaxed) {
            place if place == Place::Running as u32 => Wake::Done,
            place if place == Place::Bell as u32 => Wake::RingBell,
            _ => {
                wake_private(&self.ticket);
                Wake::Done
            }
        }
    }

    /// Sleeps on the seat's own word until it is woken after `ticket` was taken, or until `until`.
    /// True if it was woken.
    pub fn sleep(&self, ticket: u32, until: Option<Instant>) -> bool {
        self.sit(Place::Word);
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
        self.sit(Place::Bell);
        self.ticket() == ticket
    }

    /// The thread runs again.
    pub fn stand_up(&self) {
        self.place.store(Place::Running as u32, Ordering::Relaxed);
    }

    /// One sleep on the own word and on up to two that peers change, while they are `ticket` and what was seen
    /// there. May end at any time.
    pub(crate) fn sleep_beside(
        &self,
        ticket: u32,
        shared: &[(&AtomicU32, u32)],
        until: Option<Instant>,
    ) {
        sleep_on_all(&self.ticket, ticket, shared, until);
    }

    pub(crate) fn sit(&self, place: Place) {
        self.place.store(place as u32, Ordering::Relaxed);
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
