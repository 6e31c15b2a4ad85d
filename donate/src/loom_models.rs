//! The protocols of this crate under loom: every interleaving of two threads, on the real code.
//!
//! A sleep is modelled as "wait until the word changes", so a lost wake-up is a thread that never goes
//! on, which loom reports.

use std::time::{Duration, Instant};

use loom::sync::Arc;
use loom::thread;

use crate::grant::OwnWords;
use crate::sync::{AtomicU32, Ordering, fence};
use crate::{Arrival, Grant, Held, Landing, Lender, Outcome, Presence, Seat, View, Wake, Words};

#[test]
fn loom_no_message_is_forgotten_between_rest_and_ring() {
    loom::model(|| {
        let words = Arc::new(Page::new());
        let sender = {
            let words = words.clone();
            thread::spawn(move || {
                words.message.store(1, Ordering::Release);
                fence(Ordering::SeqCst);
                if View::read(&words.presence()).may_sleep() {
                    words.rung.store(1, Ordering::Release);
                }
            })
        };
        words.presence().announce_rest();
        let seen = words.message.load(Ordering::Relaxed) == 1;
        sender.join().unwrap(); // meanwhile this side sleeps, unless it has seen the message
        words.presence().retract_rest();
        let rung = words.rung.load(Ordering::Relaxed) == 1;
        assert!(seen || rung, "it sleeps, with a message, and nobody rang");
    });
}

/// The library's fences, as a peer that rests and a landing that comes up have them.
#[test]
fn loom_no_landing_comes_up_unseen_while_a_message_waits_for_one() {
    loom::model(|| {
        let (shared, page) = (Arc::new(Shared::new()), Arc::new(Page::new()));
        let sender = {
            let (shared, page) = (shared.clone(), page.clone());
            thread::spawn(move || {
                page.message.store(1, Ordering::Release);
                fence(Ordering::SeqCst);
                shared.lender.is_free(shared.words().returned.says)
            })
        };
        let _landing = Landing::open(shared.words());
        fence(Ordering::SeqCst);
        let rings = page.message.load(Ordering::Relaxed) == 1;
        let lends = sender.join().unwrap();
        assert!(lends || rings, "the message waits, and nobody looks again");
    });
}

/// A presence page, the one message of a ring, and whether its reader was rung.
struct Page {
    message: AtomicU32,
    rung: AtomicU32,
    presence: [AtomicU32; 3],
}

impl Page {
    fn new() -> Self {
        Self {
            message: AtomicU32::new(0),
            rung: AtomicU32::new(0),
            presence: [AtomicU32::new(1), AtomicU32::new(0), AtomicU32::new(0)],
        }
    }

    fn presence(&self) -> Presence<'_> {
        Presence {
            processors: &self.presence[0],
            resting: &self.presence[1],
            unheld: &self.presence[2],
        }
    }
}

#[test]
fn loom_a_wake_reaches_a_thread_on_its_way_to_the_bell() {
    loom::model(|| {
        let seat = Arc::new(Seat::new());
        let ticket = seat.ticket();
        let waker = {
            let seat = seat.clone();
            thread::spawn(move || seat.wake())
        };
        let slept = seat.sit_at_bell(ticket);
        let told = waker.join().unwrap();
        assert!(!slept || told == Wake::RingBell, "asleep and not rung");
    });
}

/// With sleeps of their own, two threads have too many interleavings for all of them. These have all in which a
/// thread that could go on is kept from it three times at most.
fn lending(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

struct Shared {
    words: OwnWords,
    lender: Lender,
    donor: Seat,
}

impl Shared {
    fn new() -> Self {
        Self {
            words: OwnWords::new(),
            lender: Lender::new(),
            donor: Seat::new(),
        }
    }

    fn words(&self) -> Words<'_> {
        self.words.get()
    }

    fn lend(&self) -> Grant<'static> {
        self.lender
            .lend(self.words(), 0, Duration::ZERO)
            .expect("the landing has answered")
    }

    fn wait(&self, grant: Grant<'_>, until: Instant) -> Outcome {
        let (seat, ticket) = (&self.donor, self.donor.ticket());
        self.lender.wait(grant, self.words(), seat, ticket, until)
    }

    fn wake_donor(&self) {
        if let Wake::Nudge(_) = self.donor.wake() {
            self.words().returned.nudge();
        }
    }

    /// The next sequence at the landing, and whether it is live.
    fn arrive(&self, landing: &mut Landing) -> (Held<'_>, bool) {
        let seat = Seat::new();
        match landing.wait(self.words(), &seat, seat.ticket()) {
            Arrival::Granted { sequence, live, .. } => {
                let grant = self.words().grant;
                (Held { grant, sequence }, live)
            }
            Arrival::Woken => panic!("nobody wakes it"),
        }
    }
}

/// Two grants to one landing. The donor either waits for the return or, `hasty`, reclaims at once:
/// each live grant is answered by its own sequence, and none is stranded.
fn two_grants(hasty: bool) {
    lending(move || {
        let shared = Arc::new(Shared::new());
        let mut landing = Landing::open(shared.words());
        let at = {
            let shared = shared.clone();
            thread::spawn(move || {
                let seat = Seat::new();
                let ticket = seat.ticket();
                let mut last = 0;
                for _ in 0..2 {
                    let arrival = landing.wait(shared.words(), &seat, ticket);
                    let Arrival::Granted { sequence, cpu, .. } = arrival else {
                        panic!("nobody wakes it");
                    };
                    assert_ne!(sequence, last, "a grant is answered once");
                    // What was written before the grant is seen (a reclaimed one may be overtaken).
                    assert!(cpu >= sequence);
                    last = sequence;
                    landing.give_back(shared.words(), sequence);
                }
            })
        };
        let far = Instant::now() + Duration::from_secs(3600);
        let until = if hasty { Instant::now() } else { far };
        for cpu in [2, 3] {
            let grant = loop {
                // A landing that has not answered yet is not granted to.
                match shared.lender.lend(shared.words(), cpu, Duration::ZERO) {
                    Some(grant) => break grant,
                    None => thread::yield_now(),
                }
            };
            let outcome = shared.wait(grant, until);
            assert!(hasty || outcome == Outcome::Returned);
        }
        at.join().unwrap();
    });
}

#[test]
fn loom_a_processor_that_is_donated_is_returned() {
    two_grants(false);
}

#[test]
fn loom_a_reclaimed_grant_strands_no_later_one() {
    two_grants(true);
}

/// Nobody returns the processor, and its time is an hour away: the donor is woken by its own process, the landing
/// by the reclaim, and then by its own process.
#[test]
fn loom_a_wake_from_within_ends_every_sleep() {
    lending(|| {
        let shared = Arc::new(Shared::new());
        let mut landing = Landing::open(shared.words());
        let (ticket, grant) = (shared.donor.ticket(), shared.lend());
        let at = {
            let shared = shared.clone();
            thread::spawn(move || {
                shared.wake_donor();
                let (held, _) = shared.arrive(&mut landing);
                landing.give_back(shared.words(), held.sequence);
            })
        };
        let (lender, words) = (&shared.lender, shared.words());
        let outcome = lender.wait(grant, words, &shared.donor, ticket, far());
        assert!(matches!(outcome, Outcome::Woken | Outcome::Returned));
        at.join().unwrap();
    });
    lending(|| {
        let shared = Arc::new(Shared::new());
        let _nobody = Landing::open(shared.words());
        let (ticket, grant) = (shared.donor.ticket(), shared.lend());
        let waker = {
            let shared = shared.clone();
            thread::spawn(move || shared.wake_donor())
        };
        let (lender, words) = (&shared.lender, shared.words());
        let outcome = lender.wait(grant, words, &shared.donor, ticket, far());
        assert_eq!(outcome, Outcome::Woken);
        waker.join().unwrap();
    });
    lending(|| {
        let (words, seat) = (Arc::new(OwnWords::new()), Arc::new(Seat::new()));
        let (mut landing, ticket) = (Landing::open(words.get()), seat.ticket());
        let waker = {
            let (words, seat) = (words.clone(), seat.clone());
            thread::spawn(move || {
                if let Wake::Nudge(_) = seat.wake() {
                    words.get().grant.nudge();
                }
            })
        };
        assert_eq!(landing.wait(words.get(), &seat, ticket), Arrival::Woken);
        waker.join().unwrap();
    });
}

fn far() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

/// A processor goes on from one landing to another, whose thread is here the donor's own (loom needs two threads
/// that wait in turns, not three): what was written at the far end is seen by the donor after its return.
#[test]
fn loom_a_processor_lent_onwards_comes_back_through_every_hand() {
    lending(|| {
        let (near, distant) = (Arc::new(Shared::new()), Arc::new(Shared::new()));
        let reply = Arc::new(AtomicU32::new(0));
        let mut landing = Landing::open(near.words());
        let mut last = Landing::open(distant.words());
        let middle = {
            let (near, distant, reply) = (near.clone(), distant.clone(), reply.clone());
            thread::spawn(move || {
                let (held, live) = near.arrive(&mut landing);
                assert!(live, "its donor waits");
                let outcome = distant.wait(distant.lend().under(held), far());
                assert_eq!(outcome, Outcome::Returned);
                assert_eq!(reply.load(Ordering::Relaxed), 1, "the reply that came back");
                reply.store(2, Ordering::Relaxed);
                landing.give_back(near.words(), held.sequence);
            })
        };
        let grant = near.lend();
        let (held, live) = distant.arrive(&mut last);
        assert!(live, "its donor waits");
        reply.store(1, Ordering::Relaxed);
        last.give_back(distant.words(), held.sequence);
        assert_eq!(near.wait(grant, far()), Outcome::Returned);
        assert_eq!(
            reply.load(Ordering::Relaxed),
            2,
            "the reply it made possible"
        );
        middle.join().unwrap();
    });
}

/// The first donor reclaims at once. Nobody answers the onward grant, whose own limit is an hour away: it ends
/// with the grant it is under, and is void then.
#[test]
fn loom_an_onward_grant_ends_with_the_one_it_is_under() {
    lending(|| {
        let (near, distant) = (Arc::new(Shared::new()), Arc::new(Shared::new()));
        let mut landing = Landing::open(near.words());
        let _nobody = Landing::open(distant.words());
        let second = {
            let (near, distant) = (near.clone(), distant.clone());
            thread::spawn(move || {
                let (held, live) = near.arrive(&mut landing);
                if live {
                    let outcome = distant.wait(distant.lend().under(held), far());
                    assert_eq!(outcome, Outcome::Woken);
                    assert!(!held.is_live());
                    assert_eq!(distant.words().grant.hear() & 1, 0, "void");
                }
                landing.give_back(near.words(), held.sequence);
            })
        };
        assert_eq!(near.wait(near.lend(), Instant::now()), Outcome::Limit);
        second.join().unwrap();
        assert!(
            near.lender.is_free(near.words().returned.says),
            "the next one is not stranded"
        );
    });
}
