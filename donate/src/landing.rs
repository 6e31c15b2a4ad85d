//! The receiver's side of a lent processor: wait for a grant, hold it, give it back.
//!
//! A landing answers *every* sequence it sees, live or void, by writing it as its `returned` word, and
//! sleeps only while the word's sequence is the one it answered. (A landing that merely slept on seeing
//! "void" would strand the next live grant.) What the donor writes is a claim: the worst it can do is
//! make this thread look and go back to sleep.

use crate::grant::{GrantWords, Held, OPENING};
use crate::seat::{Place, Seat};
use crate::sync::{AtomicU32, Ordering, fence, wake_shared};

/// One landing: the thread that runs when its donor grants a processor.
#[derive(Debug)]
pub struct Landing {
    answered: u32,
}

/// What ended a landing's sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// A sequence that was not answered yet. `live` says whether the processor is still lent.
    Granted {
        /// Which grant: to be named in [`Landing::holds`] and [`Landing::give_back`].
        sequence: u32,
        /// False if it was already reclaimed; it has to be answered all the same.
        live: bool,
        /// The CPU named in the grant.
        cpu: u32,
        /// How long the donor means to wait, in microseconds.
        limit_us: u32,
    },
    /// Somebody of this process woke the landing.
    Woken,
}

impl Landing {
    /// Opens the landing: from now on the peer may grant.
    pub fn open(returned: &AtomicU32) -> Self {
        returned.store(OPENING, Ordering::Release);
        Self { answered: OPENING }
    }

    /// Sleeps until there is a sequence to answer, or `seat` is woken after `ticket` was taken.
    pub fn wait(&self, words: GrantWords<'_>, seat: &Seat, ticket: u32) -> Arrival {
        seat.sit(Place::Word);
        let arrival = loop {
            let word = words.grant.load(Ordering::Relaxed);
            // Pairs with the Release in `Lender::lend`.
            fence(Ordering::Acquire);
            let sequence = word >> 1;
            // A fresh page holds 0, before the first grant.
            if sequence != self.answered && word != 0 {
                break Arrival::Granted {
                    sequence,
                    live: word & 1 == 1,
                    cpu: words.cpu.load(Ordering::Relaxed),
                    limit_us: words.limit_us.load(Ordering::Relaxed),
                };
            }
            if seat.ticket() != ticket {
                break Arrival::Woken;
            }
            seat.sleep_beside(ticket, &[(words.grant, word)], None);
        };
        seat.stand_up();
        arrival
    }

    /// True while the grant is live: the donor has neither reclaimed it nor gone on to another.
    #[must_use]
    pub fn holds(words: GrantWords<'_>, sequence: u32) -> bool {
        let grant = words.grant;
        Held { grant, sequence }.is_live()
    }

    /// Answers `sequence`: returns the processor, and wakes the donor.
    pub fn give_back(&mut self, returned: &AtomicU32, sequence: u32) {
        self.answered = sequence;
        // Pairs with the fence in `Lender::wait`: who sees the return sees the replies.
        returned.store(sequence, Ordering::Release);
        wake_shared(returned);
    }
}

#[cfg(all(test, not(urpc_loom)))]
mod tests {
    use super::*;
    use crate::{Lender, Outcome};
    use std::time::{Duration, Instant};

    #[test]
    fn a_void_grant_is_answered_so_that_the_next_one_finds_its_landing() {
        let words: [AtomicU32; 3] = Default::default();
        let words = GrantWords {
            grant: &words[0],
            cpu: &words[1],
            limit_us: &words[2],
        };
        let returned = AtomicU32::new(0);
        let mut landing = Landing::open(&returned);
        let (lender, donor, seat) = (Lender::new(), Seat::new(), Seat::new());
        let ticket = seat.ticket();

        let grant = lender.lend(words, &returned, 0, Duration::ZERO).unwrap();
        let now = Instant::now();
        let outcome = lender.wait(grant, words, &returned, &donor, donor.ticket(), now);
        assert_eq!(outcome, Outcome::Limit);

        let Arrival::Granted { sequence, live, .. } = landing.wait(words, &seat, ticket) else {
            panic!("a sequence waits for its answer");
        };
        assert!(!live && !Landing::holds(words, sequence));
        assert!(!lender.is_free(&returned));
        landing.give_back(&returned, sequence);
        assert!(lender.is_free(&returned));

        let _grant = lender.lend(words, &returned, 0, Duration::ZERO).unwrap();
        let arrival = landing.wait(words, &seat, ticket);
        assert!(matches!(arrival, Arrival::Granted { live: true, .. }));
    }

    #[test]
    fn a_landing_is_woken_by_its_own_process() {
        let words: [AtomicU32; 3] = Default::default();
        let words = GrantWords {
            grant: &words[0],
            cpu: &words[1],
            limit_us: &words[2],
        };
        let returned = AtomicU32::new(0);
        let landing = Landing::open(&returned);
        let seat = Seat::new();
        let ticket = seat.ticket();
        std::thread::scope(|s| {
            s.spawn(|| assert_eq!(landing.wait(words, &seat, ticket), Arrival::Woken));
            let _ = seat.wake();
        });
    }
}
