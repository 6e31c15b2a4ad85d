//! Who rests: two masks, and the protocol by which no task is lost between a push and a rest.
//!
//! A processor's bit in `resting` is set by the worker that holds it, before it sleeps, and cleared
//! either by that worker or by one pusher, which has then *claimed* it and owes it a wake-up. Its bit
//! in `lent` says that it lent its processor away meanwhile; such workers are woken last.
//!
//! | the worker | a pusher |
//! | --- | --- |
//! | `announce`: set the bit, fence | push the task |
//! | look at all queues | `summon`: fence, look at the bits |
//! | sleep if all are empty | wake whom it claimed |
//!
//! With both fences, either the worker sees the task or the pusher sees the bit. Loom checks this as
//! `no_task_is_lost_between_a_push_and_a_rest`.

use crate::sync::{AtomicU64, Ordering, fence};

/// Processors that fit into the masks.
pub(crate) const MOST_PROCESSORS: usize = 64;

/// The masks, one bit for each processor.
pub(crate) struct Rest {
    resting: AtomicU64,
    lent: AtomicU64,
}

impl Rest {
    pub(crate) fn new() -> Rest {
        Rest {
            resting: AtomicU64::new(0),
            lent: AtomicU64::new(0),
        }
    }

    /// Running → resting. The caller looks for work once more before it sleeps.
    pub(crate) fn announce(&self, id: usize) {
        self.resting.fetch_or(1 << id, Ordering::Relaxed);
        // Pairs with the fence in `summon`, run by whoever pushed.
        fence(Ordering::SeqCst);
    }

    /// Resting or claimed → running. The bit may be gone already: then a wake-up comes or has come.
    pub(crate) fn retract(&self, id: usize) {
        self.resting.fetch_and(!(1 << id), Ordering::Relaxed);
    }

    /// Marks a worker as one to be woken last, or no longer so.
    pub(crate) fn set_lent(&self, id: usize, lent: bool) {
        if lent {
            self.lent.fetch_or(1 << id, Ordering::Relaxed);
        } else {
            self.lent.fetch_and(!(1 << id), Ordering::Relaxed);
        }
    }

    /// True if somebody seems to rest: a hint, without a fence.
    pub(crate) fn anybody(&self) -> bool {
        self.resting.load(Ordering::Relaxed) != 0
    }

    /// Claims one resting worker after a push. The caller must wake whom it gets.
    pub(crate) fn summon(&self) -> Option<usize> {
        self.summon_among(u64::MAX)
    }

    /// As [`summon`](Self::summon), but only of the workers in `mask`.
    pub(crate) fn summon_among(&self, mask: u64) -> Option<usize> {
        // Pairs with the fence in `announce`, run by the worker.
        fence(Ordering::SeqCst);
        self.claim(mask)
    }

    /// Claims one resting worker of `mask`, without a fence: those that did not lend their
    /// processor first.
    pub(crate) fn claim(&self, mask: u64) -> Option<usize> {
        let mut resting = self.resting.load(Ordering::Relaxed);
        loop {
            let candidates = resting & mask;
            if candidates == 0 {
                return None;
            }
            let at_home = candidates & !self.lent.load(Ordering::Relaxed);
            let id = if at_home != 0 { at_home } else { candidates }.trailing_zeros() as usize;
            // A compare-and-swap, so that of two pushers each gets a worker of its own.
            match self.resting.compare_exchange_weak(
                resting,
                resting & !(1 << id),
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Some(id),
                Err(now) => resting = now,
            }
        }
    }
}

#[cfg(all(test, not(urpc_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_lent_worker_is_claimed_last_and_each_worker_once() {
        let rest = Rest::new();
        for id in [0, 1, 63] {
            rest.announce(id);
        }
        rest.set_lent(0, true);
        assert_eq!(rest.summon(), Some(1));
        assert_eq!(rest.summon(), Some(63));
        assert_eq!(rest.summon(), Some(0));
        assert_eq!(rest.summon(), None);
    }

    #[test]
    fn a_retracted_worker_is_not_claimed() {
        let rest = Rest::new();
        rest.announce(5);
        rest.retract(5);
        assert!(!rest.anybody());
        assert_eq!(rest.summon(), None);
    }

    #[test]
    fn only_the_workers_asked_for_are_claimed() {
        let rest = Rest::new();
        rest.announce(2);
        rest.announce(3);
        assert_eq!(rest.summon_among(1 << 3), Some(3));
        assert_eq!(rest.summon_among(1 << 3), None);
        assert_eq!(rest.summon(), Some(2));
    }
}

#[cfg(all(test, urpc_loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    /// The queue is one word, published no better than the ring does it.
    #[test]
    fn no_task_is_lost_between_a_push_and_a_rest() {
        loom::model(|| {
            let rest = Arc::new(Rest::new());
            let queue = Arc::new(AtomicU64::new(0));
            let worker = thread::spawn({
                let (rest, queue) = (rest.clone(), queue.clone());
                move || {
                    rest.announce(0);
                    let sleeps = queue.load(Ordering::Acquire) == 0;
                    if !sleeps {
                        rest.retract(0);
                    }
                    sleeps
                }
            });
            queue.store(1, Ordering::Release);
            let woken = rest.summon() == Some(0);
            let sleeps = worker.join().expect("the worker does not panic");
            assert!(
                !sleeps || woken,
                "the worker sleeps, with a task in its queue"
            );
        });
    }

    #[test]
    fn two_pushes_do_not_wake_the_same_rest_twice() {
        loom::model(|| {
            let rest = Arc::new(Rest::new());
            rest.announce(0);
            rest.announce(1);
            let other = thread::spawn({
                let rest = rest.clone();
                move || rest.summon()
            });
            let mine = rest.summon();
            let theirs = other.join().expect("the pusher does not panic");
            assert!(mine.is_some() && theirs.is_some() && mine != theirs);
        });
    }
}
