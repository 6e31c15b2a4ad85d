//! The receiver's side of a lent processor: wait for a grant, hold it, give it back.
//!
//! A landing answers *every* sequence it sees, live or void, by writing it as its `returned` word, and
//! sleeps only after it saw the one it answered. (A landing that merely slept on seeing
//! "void" would strand the next live grant.) What the donor writes is a claim: the worst it can do is
//! make this thread look and go back to sleep; and if it does so all the time, this thread sleeps on nothing of the
//! donor's for a while (`patience.rs`).

use std::time::{Duration, Instant};

use crate::grant::{Held, OPENING, Words};
use crate::patience::Patience;
use crate::seat::Seat;
use crate::sync::Ordering;

/// So long after it was last woken, a landing sleeps as safely as it can: until then, in the way that ends soonest.
const ALERT: Duration = Duration::from_secs(1);

/// One landing: the thread that runs when its donor grants a processor.
#[derive(Debug)]
pub struct Landing {
    answered: u32,
    patience: Patience,
    /// Until then the donor is not listened to.
    deaf_until: Option<Instant>,
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
    pub fn open(words: Words<'_>) -> Self {
        words.returned.say_quietly(OPENING);
        Self {
            answered: OPENING,
            patience: Patience::default(),
            deaf_until: None,
        }
    }

    /// Sleeps until there is a sequence to answer, or `seat` is woken after `ticket` was taken.
    pub fn wait(&mut self, words: Words<'_>, seat: &Seat, ticket: u32) -> Arrival {
        let (mut alert, mut slept) = (Some(Instant::now() + ALERT), false);
        seat.sit_beside(words.name);
        let arrival = loop {
            if let Some(until) = self.deaf_until.take() {
                seat.sleep(ticket, Some(until));
                seat.sit_beside(words.name);
            }
            let granted = words.grant.watch();
            let word = words.grant.hear();
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
            if slept {
                self.in_vain();
                slept = false;
                continue;
            }
            seat.sleep_beside(ticket, &[granted], alert);
            slept = alert.is_none_or(|alert| Instant::now() < alert);
            if !slept {
                alert = None;
            }
        };
        seat.stand_up();
        arrival
    }

    /// True while the grant is live: the donor has neither reclaimed it nor gone on to another.
    #[must_use]
    pub fn holds(words: Words<'_>, sequence: u32) -> bool {
        let grant = words.grant;
        Held { grant, sequence }.is_live()
    }

    /// What came with the last grant was of some use.
    pub fn useful(&mut self) {
        self.patience.useful();
    }

    /// What woke this thread was of no use.
    pub fn in_vain(&mut self) {
        let now = Instant::now();
        let pause = self.patience.in_vain(now);
        self.deaf_until = pause.map(|pause| now + pause);
    }

    /// Answers `sequence`: returns the processor, and wakes the donor.
    pub fn give_back(&mut self, words: Words<'_>, sequence: u32) {
        self.answered = sequence;
        // Who hears of the return, in `Lender::wait`, sees the replies.
        words.returned.say(sequence);
    }
}

#[cfg(all(test, not(urpc_loom)))]
mod tests {
    use super::*;
    use crate::grant::OwnWords;
    use crate::sync::AtomicU32;
    use crate::{Lender, Outcome, Wake};
    use std::time::Duration;

    #[test]
    fn a_void_grant_is_answered_so_that_the_next_one_finds_its_landing() {
        let words = OwnWords::new();
        let words = words.get();
        let mut landing = Landing::open(words);
        let (lender, donor, seat) = (Lender::new(), Seat::new(), Seat::new());
        let ticket = seat.ticket();

        let grant = lender.lend(words, 0, Duration::ZERO).unwrap();
        let outcome = lender.wait(grant, words, &donor, donor.ticket(), Instant::now());
        assert_eq!(outcome, Outcome::Limit);

        let Arrival::Granted { sequence, live, .. } = landing.wait(words, &seat, ticket) else {
            panic!("a sequence waits for its answer");
        };
        assert!(!live && !Landing::holds(words, sequence));
        assert!(!lender.is_free(words.returned.says));
        landing.give_back(words, sequence);
        assert!(lender.is_free(words.returned.says));

        let _grant = lender.lend(words, 0, Duration::ZERO).unwrap();
        let arrival = landing.wait(words, &seat, ticket);
        assert!(matches!(arrival, Arrival::Granted { live: true, .. }));
    }

    #[test]
    fn a_grant_that_is_void_is_seen_also_where_the_sequences_wrap() {
        let words = OwnWords::new();
        let words = words.get();
        let mut landing = Landing::open(words);
        let (lender, donor, seat) = (Lender::new(), Seat::new(), Seat::new());
        lender.last.store(u32::MAX >> 1, Ordering::Relaxed);
        landing.give_back(words, u32::MAX >> 1);
        let grant = lender.lend(words, 0, Duration::ZERO).expect("it is free");
        let _ = lender.wait(grant, words, &donor, donor.ticket(), Instant::now());
        let _ = seat.wake();
        let arrival = landing.wait(words, &seat, 0);
        assert!(
            matches!(arrival, Arrival::Granted { live: false, .. }),
            "{arrival:?}"
        );
    }

    #[test]
    fn a_landing_is_woken_by_its_own_process() {
        let words = OwnWords::new();
        let mut landing = Landing::open(words.get());
        let seat = Seat::new();
        let ticket = seat.ticket();
        std::thread::scope(|s| {
            s.spawn(|| assert_eq!(landing.wait(words.get(), &seat, ticket), Arrival::Woken));
            if let Wake::Nudge(_) = seat.wake() {
                words.get().grant.nudge();
            }
        });
    }

    #[test]
    fn a_donor_that_undoes_every_nudge_keeps_no_landing_asleep() {
        let words = OwnWords::new();
        let (words, over) = (words.get(), AtomicU32::new(0));
        let mut landing = Landing::open(words);
        std::thread::scope(|s| {
            s.spawn(|| {
                while over.load(Ordering::Relaxed) == 0 {
                    words.grant.wake.store(0, Ordering::Relaxed);
                }
            });
            for _ in 0..100 {
                let seat = Seat::new();
                let ticket = seat.ticket();
                std::thread::scope(|s| {
                    s.spawn(|| assert_eq!(landing.wait(words, &seat, ticket), Arrival::Woken));
                    if let Wake::Nudge(_) = seat.wake() {
                        words.grant.nudge();
                    }
                });
            }
            over.store(1, Ordering::Relaxed);
        });
    }

    #[test]
    fn a_landing_that_was_woken_for_nothing_too_often_hears_its_own_process_at_once_and_its_donor_later()
     {
        let words = OwnWords::new();
        let words = words.get();
        let mut landing = Landing::open(words);
        let (lender, seat) = (Lender::new(), Seat::new());
        let _grant = lender.lend(words, 0, Duration::ZERO).unwrap();
        let tire = |landing: &mut Landing| {
            while landing.deaf_until.is_none() {
                landing.in_vain();
            }
            landing.deaf_until.unwrap()
        };
        let ticket = seat.ticket();
        let until = tire(&mut landing);
        let arrival = landing.wait(words, &seat, ticket);
        assert!(matches!(arrival, Arrival::Granted { live: true, .. }));
        assert!(Instant::now() >= until);
        landing.give_back(words, OPENING + 1);

        tire(&mut landing);
        landing.deaf_until = Some(Instant::now() + Duration::from_secs(60));
        let _ = seat.wake();
        assert_eq!(landing.wait(words, &seat, ticket), Arrival::Woken);
    }
}
