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

use crate::patience::FREE;
use crate::seat::Seat;
use crate::signal::Signal;
use crate::sync::{AtomicU32, Ordering};

/// Sequences have 31 bits; the lowest bit of the word says whether the grant is live.
const SEQUENCES: u32 = u32::MAX >> 1;

/// The sequence before the first grant. A landing that is ready answers this one; a zeroed page,
/// which answers 0, has no landing.
pub(crate) const OPENING: u32 = 1;

/// The words of one landing: all of them but `returned` are its donor's.
#[derive(Clone, Copy, Debug)]
pub struct Words<'a> {
    /// `sequence << 1 | live`.
    pub grant: Signal<'a>,
    /// The CPU that is lent: where the landing should run.
    pub cpu: &'a AtomicU32,
    /// How long the donor means to wait, in microseconds.
    pub limit_us: &'a AtomicU32,
    /// The sequence that the landing has answered last.
    pub returned: Signal<'a>,
    /// What [`Seat::wake`] calls them.
    pub name: u64,
}

impl Words<'_> {
    /// The donor says that it waits for a processor which it has lent: a hint.
    #[must_use]
    pub fn lends(self) -> bool {
        self.grant.says.load(Ordering::Relaxed) & 1 == 1
    }

    /// The donor says that what it has lent last was this CPU: a hint.
    #[must_use]
    pub fn has_lent(self, cpu: u32) -> bool {
        // Before the first grant, the CPU says nothing.
        self.grant.says.load(Ordering::Relaxed) != 0 && self.cpu.load(Ordering::Relaxed) == cpu
    }
}

/// For tests, the words themselves, in one process.
#[cfg(test)]
pub(crate) struct OwnWords([AtomicU32; 6]);

#[cfg(test)]
impl OwnWords {
    pub(crate) fn new() -> Self {
        Self(std::array::from_fn(|_| AtomicU32::new(0)))
    }

    pub(crate) fn get(&self) -> Words<'_> {
        let [says, wake, cpu, limit_us, back, wake_back] = &self.0;
        let grant = Signal { says, wake };
        let (says, wake) = (back, wake_back);
        let returned = Signal { says, wake };
        Words {
            grant,
            cpu,
            limit_us,
            returned,
            name: 7,
        }
    }
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
    pub grant: Signal<'a>,
    /// The sequence that was live there on arrival.
    pub sequence: u32,
}

impl Held<'_> {
    /// True while the donor has neither reclaimed the processor nor gone on to another grant.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.grant.says.load(Ordering::Relaxed) == self.sequence << 1 | 1
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
    pub(crate) last: AtomicU32,
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
    pub fn lend(&self, words: Words<'_>, cpu: u32, limit: Duration) -> Option<Grant<'static>> {
        // Pairs with the Release in `wait`: the next donor sees what the last one granted.
        if self
            .busy
            .compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            return None;
        }
        let last = self.last.load(Ordering::Relaxed);
        // What the landing wrote before it returned is seen.
        if words.returned.hear() != last {
            self.busy.store(0, Ordering::Release);
            return None;
        }
        let sequence = next(last);
        self.last.store(sequence, Ordering::Relaxed);
        words.cpu.store(cpu, Ordering::Relaxed);
        words.limit_us.store(
            limit.as_micros().try_into().unwrap_or(u32::MAX),
            Ordering::Relaxed,
        );
        // Who hears of the grant, in `Landing::wait`, sees CPU, limit, and messages.
        words.grant.say(sequence << 1 | 1);
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
        words: Words<'_>,
        seat: &Seat,
        ticket: u32,
        until: Instant,
    ) -> Outcome {
        seat.sit_beside(words.name);
        let mut sleeps = 0;
        let outcome = loop {
            // Before the looks at what they wake for.
            let back = words.returned.watch();
            let over = grant.under.map(|held| held.grant.watch());
            // Its replies are seen.
            if words.returned.hear() == grant.sequence {
                break Outcome::Returned;
            }
            if seat.ticket() != ticket || grant.under.is_some_and(|held| !held.is_live()) {
                break Outcome::Woken;
            }
            // Asked each time: a peer can end all sleeps before their time.
            if sleeps > 0 && Instant::now() >= until {
                break Outcome::Limit;
            }
            sleeps += 1;
            match over {
                // Woken so often for nothing: who does that gets the rest of the time.
                _ if sleeps > FREE => seat.sleep_beside(ticket, &[], Some(until)),
                None => seat.sleep_beside(ticket, &[back], Some(until)),
                Some(over) => seat.sleep_beside(ticket, &[back, over], Some(until)),
            }
        };
        seat.stand_up();
        // Void from here on. `Held::is_live` is asked at every task boundary.
        let void = grant.sequence << 1;
        if outcome == Outcome::Returned {
            words.grant.say_quietly(void);
        } else {
            // The landing may have lent it onwards, and sleep until this.
            words.grant.say(void);
        }
        self.busy.store(0, Ordering::Release);
        outcome
    }
}

/// The sequence after `sequence`; never 0, since a word of 0 is one in which nothing has been said.
fn next(sequence: u32) -> u32 {
    ((sequence + 1) & SEQUENCES).max(1)
}

#[cfg(all(test, not(urpc_loom)))]
mod tests {
    use super::*;
    use crate::Wake;
    use crate::sync::wake_shared;

    /// A lender, and the words of its one landing.
    struct Shared {
        lender: Lender,
        words: OwnWords,
    }

    impl Shared {
        /// The landing has answered `returned`.
        fn new(returned: u32) -> Self {
            let (lender, words) = (Lender::new(), OwnWords::new());
            words.get().returned.say_quietly(returned);
            Self { lender, words }
        }

        fn words(&self) -> Words<'_> {
            self.words.get()
        }

        fn lend(&self) -> Option<Grant<'static>> {
            self.lender.lend(self.words(), 3, Duration::from_micros(9))
        }

        fn wait(&self, grant: Grant<'_>, seat: &Seat, ticket: u32, until: Instant) -> Outcome {
            self.lender.wait(grant, self.words(), seat, ticket, until)
        }

        fn is_void(&self) -> bool {
            self.words().grant.hear() & 1 == 0
        }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(1)
    }

    fn far() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn nothing_is_lent_where_no_landing_is() {
        let shared = Shared::new(0);
        assert!(!shared.lender.is_free(shared.words().returned.says));
        assert!(shared.lend().is_none());
    }

    #[test]
    fn a_forged_return_neither_wakes_nor_opens() {
        let shared = Shared::new(OPENING);
        let seat = Seat::new();
        let grant = shared.lend().expect("free");
        shared.words().returned.say(7);
        let outcome = shared.wait(grant, &seat, seat.ticket(), soon());
        assert_eq!(outcome, Outcome::Limit);
        assert!(shared.is_void());
        let returned = shared.words().returned.says;
        assert!(
            !shared.lender.is_free(returned),
            "its landing did not answer"
        );
    }

    #[test]
    fn only_one_donor_lends_at_a_time() {
        let shared = Shared::new(OPENING);
        let first = shared.lend();
        assert!(first.is_some());
        assert_eq!(shared.words().cpu.load(Ordering::Relaxed), 3);
        assert_eq!(shared.words().limit_us.load(Ordering::Relaxed), 9);
        assert!(shared.lend().is_none());
    }

    #[test]
    fn a_local_wake_ends_the_donors_sleep() {
        let shared = Shared::new(OPENING);
        let seat = Seat::new();
        let ticket = seat.ticket();
        let grant = shared.lend().expect("free");
        std::thread::scope(|s| {
            s.spawn(|| {
                let outcome = shared.wait(grant, &seat, ticket, far());
                assert_eq!(outcome, Outcome::Woken);
            });
            if let Wake::Nudge(_) = seat.wake() {
                shared.words().returned.nudge();
            }
        });
    }

    #[test]
    fn a_wake_word_that_changes_all_the_time_keeps_no_donor_beyond_its_time() {
        let shared = Shared::new(OPENING);
        let seat = Seat::new();
        let over = AtomicU32::new(0);
        std::thread::scope(|s| {
            s.spawn(|| {
                let wake = shared.words().returned.wake;
                while over.load(Ordering::Relaxed) == 0 {
                    wake.fetch_add(1, Ordering::Relaxed);
                    wake_shared(wake);
                }
            });
            for _ in 0..100 {
                let grant = shared.lend().expect("free");
                let ticket = seat.ticket();
                assert_eq!(shared.wait(grant, &seat, ticket, soon()), Outcome::Limit);
                let granted = shared.words().grant.hear() >> 1;
                shared.words().returned.say(granted); // late
            }
            over.store(1, Ordering::Relaxed);
        });
    }

    #[test]
    fn a_processor_lent_onwards_comes_back_when_its_owner_reclaims_it() {
        let (near, further) = (Shared::new(OPENING), Shared::new(OPENING));
        let (seat, middle) = (Seat::new(), Seat::new());
        let held = near.lend().expect("free");
        let under = Held {
            grant: near.words().grant,
            sequence: OPENING + 1,
        };
        assert!(under.is_live());
        std::thread::scope(|s| {
            s.spawn(|| {
                let grant = further.lend().expect("free").under(under);
                let outcome = further.wait(grant, &middle, middle.ticket(), far());
                assert_eq!(outcome, Outcome::Woken);
            });
            while further.is_void() {
                std::thread::yield_now();
            }
            let outcome = near.wait(held, &seat, seat.ticket(), soon());
            assert_eq!(outcome, Outcome::Limit);
        });
        assert!(!under.is_live());
        assert!(further.is_void());
    }

    #[test]
    fn a_sequence_wraps_within_its_bits() {
        assert_eq!(next(SEQUENCES), 1);
        assert_eq!(next(OPENING), OPENING + 1);
    }
}
