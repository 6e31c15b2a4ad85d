//! Scanning before a rest, for as long as that pays.
//!
//! A look from an idle processor saves a waking, which costs some 50 µs on another CPU, and costs a CPU
//! meanwhile. So nobody looks who can expect nothing: something must be outstanding, or something must have
//! come in since the last time (a server between two calls of a busy client). And how long it looks follows
//! the waits of this thread: twice as long after a short one, half as long after a long one, between a 32nd
//! of what the runtime was told and all of it. It is never shorter than what the last look before a rest took, which
//! is at all channels: who has many would else be resting, and not resting, while a caller waits. After a
//! ring for messages that a lent processor has served already it is all of the bound: that peer has work that stays
//! ([`PATIENCE`](urpc_donate::policy::PATIENCE)). After a large message the wait is longer, by what its bytes cost the
//! peer. On one CPU nobody looks: it would keep the peer from running.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use urpc_executor::Worker;

use crate::binding::Binding;
use crate::idle::round::Lively;
use crate::idle::{LOOKS_PER_SILENT, scan_one};
use crate::node::Node;
use crate::spare;

/// Looks at the rings between two looks at what other threads of this process do, with a pause: looking is
/// all that a message waits for.
pub(crate) const LOOKS_PER_PAUSE: u32 = 16;

/// Looks at the rings between two looks at the clock: some 128 × 5 ns. What is found in the first of these
/// rounds is found without a look at the clock.
const LOOKS_PER_CLOCK: u32 = 128;

/// A budget is halved so often at most. The smallest is two rounds or so at the default.
const MOST_HALVINGS: u32 = 5;
/// A look before a rest that took longer than so many times the bound was held up by something else.
const MOST_COST: u32 = 8;

thread_local! {
    /// What has happened since the last spin.
    static NEWS: Cell<News> = const { Cell::new(News::Nothing) };
    /// How often this thread's budget has been halved.
    static HALVINGS: Cell<u32> = const { Cell::new(0) };
    /// What the last look before a rest took this thread.
    static COST: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// What a thread can expect more of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Nothing.
    Nothing,
    /// A peer rang, and what it rang for was already served when this thread was awake: the peer lends its
    /// processor again and again, and would rather not.
    Rang,
    /// Something has come in, or this thread was woken for something.
    Came,
}

/// A look before a rest took so long.
pub(super) fn note_cost(cost: Duration) {
    COST.set(cost);
}

/// How a spin ended.
pub(super) enum Spun {
    /// There is something to do.
    Found,
    /// It is time to rest. The wait began then, if there was a look at the clock.
    Tired(Option<Instant>),
}

/// The next wait begins with a spin.
#[inline]
pub(super) fn note(news: News) {
    NEWS.set(news);
}

/// How much of `bound` is looked through after so many halvings.
fn budget(bound: Duration, halvings: u32) -> Duration {
    bound / (1 << halvings)
}

/// What it costs to rest.
fn cost(bound: Duration) -> Duration {
    COST.get().min(bound.saturating_mul(MOST_COST))
}

/// How many halvings there are after a wait that was short enough to be spent looking, or was not.
fn adapted(halvings: u32, short: bool) -> u32 {
    if short {
        halvings.saturating_sub(1)
    } else {
        (halvings + 1).min(MOST_HALVINGS)
    }
}

impl Node {
    /// Scans for as long as it pays.
    pub(super) fn spin(&self, worker: &Worker) -> Spun {
        let bound = self.config.spin;
        if bound.is_zero() || !self.parallel {
            return Spun::Tired(None);
        }
        let tireless = bound == Duration::MAX;
        let bindings = self.lively();
        let news = NEWS.replace(News::Nothing);
        if news == News::Rang {
            HALVINGS.set(0);
        }
        let expects = || {
            let busy = |b: &Arc<Binding>| b.outstanding() || b.channel.is_receiving();
            news != News::Nothing || bindings.iter().any(busy)
        };
        if !tireless && !expects() || self.must_act(&bindings, tireless) {
            return Spun::Tired(None);
        }
        let spun = self.scan_through(worker, bound, tireless, &bindings);
        if matches!(spun, Spun::Found) {
            HALVINGS.set(adapted(HALVINGS.get(), true));
        }
        spun
    }

    fn scan_through(
        &self,
        worker: &Worker,
        bound: Duration,
        tireless: bool,
        bindings: &Lively,
    ) -> Spun {
        let mut since = None;
        let mut looks = 0;
        loop {
            if bindings.iter().fold(false, |found, b| scan_one(b) | found) {
                return Spun::Found;
            }
            looks += 1;
            if looks % LOOKS_PER_PAUSE != 0 {
                continue;
            }
            if worker.has_work() || looks % LOOKS_PER_SILENT == 0 && self.scan_silent() {
                return Spun::Found;
            }
            std::hint::spin_loop();
            if looks % LOOKS_PER_CLOCK == 0 {
                // A binding may be new, or gone, or lively now.
                if !Rc::ptr_eq(bindings, &self.lively()) {
                    return Spun::Found;
                }
                let now = Instant::now();
                if worker
                    .executor()
                    .timers()
                    .next()
                    .is_some_and(|at| at <= now)
                {
                    return Spun::Found; // the worker fires it
                }
                self.tick();
                spare::let_go_if_in_the_way();
                let begun = *since.get_or_insert(now);
                // Of a large message the rest comes as fast as it can be copied.
                let receives = bindings.iter().any(|b| b.channel.is_receiving());
                let halvings = if receives { 0 } else { HALVINGS.get() };
                let more = bindings.iter().map(|b| b.more_patience()).max();
                // Of a processor that never rests the bound is as long as a time can be.
                let most = budget(bound, halvings).max(cost(bound));
                let spent = now - begun >= most.saturating_add(more.unwrap_or_default());
                if self.must_act(bindings, tireless) || spent && !tireless {
                    if spent {
                        bindings.iter().for_each(|b| b.lose_patience());
                    }
                    return Spun::Tired(since);
                }
            }
        }
    }

    /// Some peer has messages and no processor awake: waiting for it is in vain.
    fn must_act(&self, bindings: &[Arc<Binding>], tireless: bool) -> bool {
        // The presence first: its line is shared and quiet, the other is written with every message.
        // A donor of ours is no such peer: its processor is about to come back to it.
        let view = |b: &Arc<Binding>| {
            !b.seen_presence().awake() && b.wants_attention() && !b.lends_to_us()
        };
        if !bindings.iter().any(view) {
            return false;
        }
        if tireless {
            // This one never rests, so it rings from here.
            self.ring_sleepers(&self.local_bindings(), |_| false);
            return bindings
                .iter()
                .any(|b| b.presence().processors == 0 && view(b));
        }
        true
    }

    /// A wait has ended, spin and sleep together, after so long. The end of a sleep is seen late, by what a
    /// waking costs, and that is what the bound stands for.
    pub(super) fn note_wait(&self, waited: Duration) {
        let bound = self.config.spin;
        let short = waited < bound.saturating_mul(2).saturating_add(cost(bound));
        HALVINGS.set(adapted(HALVINGS.get(), short));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_follows_the_waits_between_its_bounds() {
        let bound = Duration::from_micros(64);
        let after = |short: &[bool]| {
            let halvings = short.iter().fold(0, |halvings, &s| adapted(halvings, s));
            budget(bound, halvings).as_micros()
        };
        assert_eq!(after(&[]), 64);
        assert_eq!(after(&[true]), 64);
        assert_eq!(after(&[false]), 32);
        assert_eq!(after(&[false, false, true]), 32);
        assert_eq!(after(&[false; 100]), 2);
        let awakened: Vec<bool> = [[false; 8], [true; 8]].concat();
        assert_eq!(after(&awakened), 64);
    }
}
