//! The donor's side of a lent processor: grant, wait, reclaim.
//!
//! A grant is one word in the donor's outbox, `sequence << 1 | live`; CPU and limit are written before
//! it. The landing answers every sequence it sees by writing it as its `returned` word. The donor
//! grants only to a landing that has answered its last sequence, and believes only the answer to its
//! own; so a late or forged return is nothing, and a wrapped sequence is harmless.
//!
//! | this lender | the landing's `returned` | what may happen |
//! | --- | --- | --- |
//! | last granted `s` | anything but `s` | nobody there, or still at it: ring instead |
//! | last granted `s` | `s` | grant `s + 1`, live |
//! | waits for `s + 1` | `s + 1` | it returned: clear live |
//! | waits for `s + 1` | else, woken or time is up | reclaim: clear live, go on |
//!
//! A processor that is itself lent may be lent **onwards**. The word of the grant it came with is then one more
//! thing that ends the wait, so that no processor stays away because it went further than its owner knows.

use std::time::{Duration, Instant};

use crate::seat::{Place, Seat};
use crate::sync::{AtomicU32, Ordering, fence, wake_shared};

/// Sequences have 31 bits; the lowest bit of the word says whether the grant is live.
const SEQUENCES: u32 = u32::MAX >> 1;

/// The sequence before the first grant. A landing that is ready answers this one; a zeroed page,
/// which answers 0, has no landing.
pub(crate) const OPENING: u32 = 1;

/// The words of one landing in the donor's outbox.
#[derive(Clone, Copy, Debug)]
pub struct GrantWords<'a> {
    /// `sequence << 1 | live`.
    pub grant: &'a AtomicU32,
    /// The CPU that is lent: where the landing should run.
    pub cpu: &'a AtomicU32,
    /// How long the donor means to wait, in microseconds.
    pub limit_us: &'a AtomicU32,
}

/// A processor that is lent right now.
#[derive(Debug)]
#[must_use = "a grant stays live until it is waited for"]
pub struct Grant<'a> {
    sequence: u32,
    under: Option<Held<'a>>,
}

impl Grant<'_> {
    /// It is lent onwards: this process has it only for as long as `held` is live.
    pub fn under(self, held: Held<'_>) -> Grant<'_> {
        Grant {
            sequence: self.sequence,
            under: Some(held),
        }
    }
}

/// A peer's grant, as whoever has that processor sees it.
#[derive(Clone, Copy, Debug)]
pub struct Held<'a> {
    /// The peer's grant word.
    pub grant: &'a AtomicU32,
    /// The sequence that was live there on arrival.
    pub sequence: u32,
}

impl Held<'_> {
    /// True while the donor has neither reclaimed the processor nor gone on to another grant.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.grant.load(Ordering::Relaxed) == self.live()
    }

    fn live(&self) -> u32 {
        self.sequence << 1 | 1
    }
}

/// Why a donor runs again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The landing returned the processor.
    Returned,
    /// Somebody of this process woke the donor: there is something only it can do. Or, of a processor that was
    /// lent onwards: its owner is done waiting.
    Woken,
    /// The grant limit passed.
    Limit,
}

/// Lends processors to one landing of one peer. One donor at a time: `lend` is tried, never waited for.
#[derive(Debug)]
pub struct Lender {
    last: AtomicU32,
    busy: AtomicU32,
}

impl Default for Lender {
    fn default() -> Self {
        Self::new()
    }
}

impl Lender {
    /// A lender that has not granted yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            last: AtomicU32::new(OPENING),
            busy: AtomicU32::new(0),
        }
    }

    /// True if the landing is there and has returned what it had. A hint: `lend` looks again.
    #[must_use]
    pub fn is_free(&self, returned: &AtomicU32) -> bool {
        self.busy.load(Ordering::Relaxed) == 0
            && returned.load(Ordering::Relaxed) == self.last.load(Ordering::Relaxed)
    }

    /// Grants a processor. `None` if another donor is at it, or the landing has not answered.
    pub fn lend(
        &self,
        words: GrantWords<'_>,
        returned: &AtomicU32,
        cpu: u32,
        limit: Duration,
    ) -> Option<Grant<'static>> {
        // Pairs with the Release in `wait`: the next donor sees what the last one granted.
        if self
            .busy
            .compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            return None;
        }
        let last = self.last.load(Ordering::Relaxed);
        if returned.load(Ordering::Relaxed) != last {
            self.busy.store(0, Ordering::Release);
            return None;
        }
        // With the load of `returned`: what the landing wrote before it returned is seen.
        fence(Ordering::Acquire);
        let sequence = next(last);
        self.last.store(sequence, Ordering::Relaxed);
        words.cpu.store(cpu, Ordering::Relaxed);
        words.limit_us.store(
            limit.as_micros().try_into().unwrap_or(u32::MAX),
            Ordering::Relaxed,
        );
        // Pairs with the fence in `Landing::wait`: who sees the grant sees CPU, limit, and messages.
        words.grant.store(sequence << 1 | 1, Ordering::Release);
        wake_shared(words.grant);
        Some(Grant {
            sequence,
            under: None,
        })
    }

    /// Sleeps until the processor comes back, `seat` is woken after `ticket` was taken, the grant it is
    /// [`under`](Grant::under) has ended, or `until`; afterwards this grant is void, whatever the landing does.
    pub fn wait(
        &self,
        grant: Grant<'_>,
        words: GrantWords<'_>,
        returned: &AtomicU32,
        seat: &Seat,
        ticket: u32,
        until: Instant,
    ) -> Outcome {
        seat.sit(Place::Lent);
        let outcome = loop {
            let seen = returned.load(Ordering::Relaxed);
            if seen == grant.sequence {
                // Pairs with the Release in `Landing::give_back`: its replies are seen.
                fence(Ordering::Acquire);
                break Outcome::Returned;
            }
            if seat.ticket() != ticket || grant.under.is_some_and(|held| !held.is_live()) {
                break Outcome::Woken;
            }
            let waited = match grant.under {
                None => seat.sleep_beside(ticket, &[(returned, seen)], Some(until)),
                Some(held) => {
                    let words = [(returned, seen), (held.grant, held.live())];
                    seat.sleep_beside(ticket, &words, Some(until))
                }
            };
            if !waited {
                break Outcome::Limit;
            }
        };
        seat.stand_up();
        // Void from here on. Pairs with `Held::is_live`, which is asked at every task boundary.
        words.grant.store(grant.sequence << 1, Ordering::Release);
        if outcome != Outcome::Returned {
            // The landing may have lent it onwards, and sleep on this very word.
            wake_shared(words.grant);
        }
        self.busy.store(0, Ordering::Release);
        outcome
    }
}

/// The sequence after `sequence`.
fn next(sequence: u32) -> u32 {
    (sequence + 1) & SEQUENCES
}

#[cfg(all(test, not(urpc_loom)))]
mod tests {
    use super::*;

    struct Words([AtomicU32; 3]);

    impl Words {
        fn new() -> Self {
            Self(Default::default())
        }
        fn get(&self) -> GrantWords<'_> {
            GrantWords {
                grant: &self.0[0],
                cpu: &self.0[1],
                limit_us: &self.0[2],
            }
        }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(1)
    }

    #[test]
    fn nothing_is_lent_where_no_landing_is() {
        let (lender, words, returned) = (Lender::new(), Words::new(), AtomicU32::new(0));
        assert!(!lender.is_free(&returned));
        assert!(
            lender
                .lend(words.get(), &returned, 0, Duration::ZERO)
                .is_none()
        );
    }

    #[test]
    fn a_forged_return_neither_wakes_nor_opens() {
        let (lender, words, returned) = (Lender::new(), Words::new(), AtomicU32::new(OPENING));
        let seat = Seat::new();
        let grant = lender
            .lend(words.get(), &returned, 0, Duration::ZERO)
            .expect("free");
        returned.store(7, Ordering::Relaxed);
        let outcome = lender.wait(grant, words.get(), &returned, &seat, seat.ticket(), soon());
        assert_eq!(outcome, Outcome::Limit);
        assert_eq!(words.0[0].load(Ordering::Relaxed) & 1, 0, "void");
        assert!(!lender.is_free(&returned), "its landing did not answer");
    }

    #[test]
    fn only_one_donor_lends_at_a_time() {
        let (lender, words, returned) = (Lender::new(), Words::new(), AtomicU32::new(OPENING));
        let first = lender.lend(words.get(), &returned, 3, Duration::from_micros(9));
        assert!(first.is_some());
        assert_eq!(words.0[1].load(Ordering::Relaxed), 3);
        assert_eq!(words.0[2].load(Ordering::Relaxed), 9);
        assert!(
            lender
                .lend(words.get(), &returned, 0, Duration::ZERO)
                .is_none()
        );
    }

    #[test]
    fn a_local_wake_ends_the_donors_sleep() {
        let (lender, words, returned) = (Lender::new(), Words::new(), AtomicU32::new(OPENING));
        let seat = Seat::new();
        let ticket = seat.ticket();
        let grant = lender
            .lend(words.get(), &returned, 0, Duration::ZERO)
            .expect("free");
        let far = Instant::now() + Duration::from_secs(60);
        std::thread::scope(|s| {
            s.spawn(|| {
                let outcome = lender.wait(grant, words.get(), &returned, &seat, ticket, far);
                assert_eq!(outcome, Outcome::Woken);
            });
            let _ = seat.wake();
        });
    }

    #[test]
    fn a_processor_lent_onwards_comes_back_when_its_owner_reclaims_it() {
        let (lender, words, returned) = (Lender::new(), Words::new(), AtomicU32::new(OPENING));
        let (onwards, further) = (Lender::new(), Words::new());
        let (seat, middle) = (Seat::new(), Seat::new());
        let held = lender
            .lend(words.get(), &returned, 0, Duration::ZERO)
            .expect("free");
        let under = Held {
            grant: words.get().grant,
            sequence: OPENING + 1,
        };
        assert!(under.is_live());
        let nobody_answers = AtomicU32::new(OPENING);
        let far = Instant::now() + Duration::from_secs(60);
        std::thread::scope(|s| {
            s.spawn(|| {
                let grant = onwards
                    .lend(further.get(), &nobody_answers, 0, Duration::ZERO)
                    .expect("free")
                    .under(under);
                let ticket = middle.ticket();
                let (words, returned) = (further.get(), &nobody_answers);
                let outcome = onwards.wait(grant, words, returned, &middle, ticket, far);
                assert_eq!(outcome, Outcome::Woken);
            });
            while further.0[0].load(Ordering::Relaxed) & 1 == 0 {
                std::thread::yield_now();
            }
            let outcome = lender.wait(held, words.get(), &returned, &seat, seat.ticket(), soon());
            assert_eq!(outcome, Outcome::Limit);
        });
        assert!(!under.is_live());
        assert_eq!(further.0[0].load(Ordering::Relaxed) & 1, 0, "void");
    }

    #[test]
    fn a_sequence_wraps_within_its_bits() {
        assert_eq!(next(SEQUENCES), 0);
        assert_eq!(next(OPENING), OPENING + 1);
    }
}
