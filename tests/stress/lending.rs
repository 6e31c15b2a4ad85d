//! Donate, return, reclaim: a lent processor comes back when its landing returns it, when its own process
//! wakes the donor, or when the landing's process dies; never because a limit passed that was far away.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use urpc_channel::{GrantWords, Kind, WakeWords};
use urpc_donate::{Affinity, Arrival, Landing, Lender, Outcome, Seat, Signal, Wake, Words};

use crate::raw::Random;
use crate::{End, LONG, think};

/// An id that asks the landing to keep the processor for as long as it can, if the grant has a limit.
const HOLD: u32 = u32::MAX;

/// The words of the one processor that is lent here to the peer, or by it.
fn words(end: &End, lent_to_peer: bool) -> Words<'_> {
    let (outbox, inbox) = (end.channel.outbox(), end.channel.inbox());
    let (granted, returned, wakes) = if lent_to_peer {
        let wakes = end.wakes.lent_to_peer(0);
        (outbox.grant(0), inbox.returned(0), wakes)
    } else {
        (inbox.grant(0), outbox.returned(0), end.wakes.lent_to_us(0))
    };
    let GrantWords {
        grant,
        cpu,
        limit_us,
    } = granted;
    let WakeWords {
        grant: granted,
        returned: back,
    } = wakes;
    let signal = |says, wake| Signal { says, wake };
    Words {
        grant: signal(grant, granted),
        cpu,
        limit_us,
        returned: signal(returned, back),
        name: 0,
    }
}

/// What a process's keeper does: it sleeps until the peer is gone, then wakes who may sleep for it.
struct Watch {
    gone: AtomicBool,
    done: AtomicBool,
    seat: Seat,
}

impl Watch {
    /// Runs `part`, which sleeps until something is said at `signal`, while the peer is watched.
    fn over(end: &End, signal: Signal<'_>, part: impl FnOnce(&Watch)) {
        let watch = Watch {
            gone: AtomicBool::new(false),
            done: AtomicBool::new(false),
            seat: Seat::new(),
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !watch.done.load(Ordering::Relaxed) {
                    if end.listen(Duration::from_millis(100)) && !end.hear() {
                        watch.gone.store(true, Ordering::Release);
                        wake(&watch.seat, signal);
                        return;
                    }
                }
            });
            let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| part(&watch)));
            watch.done.store(true, Ordering::Relaxed);
            played.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        });
    }

    fn is_over(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }
}

/// Wakes a thread of this process that may sleep until something is said at `signal`.
fn wake(seat: &Seat, signal: Signal<'_>) {
    if let Wake::Nudge(_) = seat.wake() {
        signal.nudge();
    }
}

/// Serves whoever lends it a processor, until the peer is gone.
pub(crate) fn landing(end: &End, random: &mut Random) {
    let words = words(end, false);
    Watch::over(end, words.grant, |watch| {
        let mut landing = Landing::open(words);
        let mut last = 0;
        loop {
            let ticket = watch.seat.ticket();
            if watch.is_over() {
                return;
            }
            match landing.wait(words, &watch.seat, ticket) {
                Arrival::Woken => assert!(watch.is_over(), "woken for nothing"),
                Arrival::Granted {
                    sequence,
                    live,
                    limit_us,
                    ..
                } => {
                    assert_ne!(sequence, last, "answered twice");
                    last = sequence;
                    if live {
                        let holds = || limit_us > 0 && Landing::holds(words, sequence);
                        serve(end, &|| holds() && !watch.is_over(), random);
                    }
                    landing.give_back(words, sequence);
                    end.step();
                    end.step();
                }
            }
        }
    });
}

fn serve(end: &End, holds: &dyn Fn() -> bool, random: &mut Random) {
    let mut calls = Vec::new();
    end.receive(|call| calls.push(call.id));
    for id in calls {
        think(random);
        while id == HOLD && holds() {
            std::thread::yield_now();
        }
        end.send(Kind::Reply, id);
    }
}

/// Lends its processor again and again, until the peer is gone.
pub(crate) fn donor(end: &End, random: &mut Random) {
    let (wake, waker) = channel();
    let mut affinity = Affinity::of_this_thread();
    let returned = words(end, true).returned;
    Watch::over(end, returned, |watch| {
        std::thread::scope(|scope| {
            let seed = random.next();
            scope.spawn(move || wake_at_random(&waker, &watch.seat, returned, Random(seed)));
            affinity.bind(0); // not where it is woken from: so the two run at once
            let wake = wake; // gone at the end of this scope, which ends the waker
            Donor {
                end,
                watch,
                lender: Lender::new(),
                id: 0,
            }
            .run(random, &|| wake.send(()).expect("the waker listens"));
        });
    });
    affinity.let_go();
}

/// Somebody else in the donor's process, for whose sake it has to come back.
fn wake_at_random(asked: &Receiver<()>, seat: &Seat, signal: Signal<'_>, mut random: Random) {
    Affinity::of_this_thread().bind(1);
    while asked.recv().is_ok() {
        think(&mut random);
        wake(seat, signal);
    }
}

struct Donor<'a> {
    end: &'a End,
    watch: &'a Watch,
    lender: Lender,
    id: u32,
}

impl Donor<'_> {
    fn run(mut self, random: &mut Random, have_us_woken: &dyn Fn()) {
        while self.landing_answers() {
            let mut calls = 1 + random.below(4) as usize;
            for _ in 0..calls {
                self.end.send(Kind::Call, self.id);
                self.id = (self.id + 1) % HOLD;
            }
            think(random);
            match random.below(4) {
                0 => {
                    let until = Instant::now() + Duration::from_micros(random.below(100));
                    if self.lend(until, Duration::ZERO, || {}).is_none() {
                        return;
                    }
                }
                1 => {
                    self.end.send(Kind::Call, HOLD);
                    calls += 1;
                    let outcome = self.lend(Instant::now() + LONG, LONG, have_us_woken);
                    if self.watch.is_over() {
                        return;
                    }
                    assert_eq!(outcome, Some(Outcome::Woken), "by its own process");
                }
                _ => {
                    let outcome = self.lend(Instant::now() + LONG, Duration::ZERO, || {});
                    if self.watch.is_over() {
                        return;
                    }
                    assert_eq!(outcome, Some(Outcome::Returned), "when all is served");
                    let replies = self.end.receive(|_| {});
                    assert_eq!(replies, calls, "a return is seen after its replies");
                    calls = 0;
                }
            }
            if !self.takes(calls) {
                return;
            }
        }
    }

    /// Lends the processor until it comes back. `None` if the peer is gone.
    fn lend(&self, until: Instant, limit: Duration, meanwhile: impl FnOnce()) -> Option<Outcome> {
        let watch = self.watch;
        let words = words(self.end, true);
        let ticket = watch.seat.ticket();
        if watch.is_over() {
            return None;
        }
        let grant = self.lender.lend(words, 0, limit);
        let grant = grant.expect("the landing has answered");
        self.end.step();
        meanwhile();
        let outcome = self.lender.wait(grant, words, &watch.seat, ticket, until);
        Some(outcome)
    }

    /// Waits until the landing has answered what it was granted last, void or not. False if it is gone.
    fn landing_answers(&self) -> bool {
        let returned = self.end.channel.inbox().returned(0);
        self.wait(|| self.lender.is_free(returned))
    }

    /// A processor that came back early leaves replies to come. False if the peer is gone.
    fn takes(&self, mut calls: usize) -> bool {
        // What was not served with this grant is served with the next.
        if calls > 0 {
            if !self.landing_answers() {
                return false;
            }
            calls -= self.end.receive(|_| {});
        }
        if calls > 0 {
            let outcome = self.lend(Instant::now() + LONG, Duration::ZERO, || {});
            if self.watch.is_over() {
                return false;
            }
            assert_eq!(outcome, Some(Outcome::Returned), "when the rest is served");
            assert_eq!(self.end.receive(|_| {}), calls);
        }
        true
    }

    /// A landing that has slept through a grant never answers it.
    fn wait(&self, condition: impl Fn() -> bool) -> bool {
        let begin = Instant::now();
        while !condition() {
            if self.watch.is_over() {
                return false;
            }
            assert!(
                begin.elapsed() < LONG,
                "the landing sleeps on an unanswered grant"
            );
            std::thread::yield_now();
        }
        true
    }
}
