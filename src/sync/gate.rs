//! Who may go in: the state word of a mutex, and the queue before it.
//!
//! One word, `2 × waiting + held`:
//!
//! | word | means | who may take it |
//! | --- | --- | --- |
//! | 0 | free, and nobody waits | anybody, by one compare-and-swap |
//! | 1 | held, and nobody waits | nobody; leaving is one subtraction |
//! | 2 n | free, and n tasks wait | a waiting task that was notified |
//! | 2 n + 1 | held, and n tasks wait | nobody; who leaves notifies the first of the queue |
//!
//! A newcomer never takes the word while others wait for it, so those go in in the order of their coming
//! and none of them starves. (Two that are notified within the same instant on two processors may
//! change places.) *While the gate is free and somebody waits, one of those who wait is notified, or
//! has yet to look*: loom checks this as `nobody_is_left_before_an_open_gate`.

use super::event::{Event, listener};
use sync::{AtomicUsize, Ordering};

#[cfg(not(urpc_loom))]
mod sync {
    pub(super) use std::sync::atomic::{AtomicUsize, Ordering};
}
#[cfg(urpc_loom)]
mod sync {
    pub(super) use loom::sync::atomic::{AtomicUsize, Ordering};
}

const HELD: usize = 1;
const ONE_WAITS: usize = 2;

/// See the [module's documentation](self).
pub(super) struct Gate {
    word: AtomicUsize,
    queue: Event,
}

impl Gate {
    #[cfg(not(urpc_loom))]
    pub(super) const fn new() -> Self {
        Self {
            word: AtomicUsize::new(0),
            queue: Event::new(),
        }
    }

    #[cfg(urpc_loom)]
    pub(super) fn new() -> Self {
        Self {
            word: AtomicUsize::new(0),
            queue: Event::new(),
        }
    }

    /// Free → held. False if it is held, or others wait for it.
    #[inline]
    pub(super) fn try_enter(&self) -> bool {
        // Pairs with the Release in `leave`: what the last holder wrote is seen.
        self.word
            .compare_exchange(0, HELD, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }

    /// Waits for its turn, where [`try_enter`](Self::try_enter) was false.
    ///
    /// # Cancellation
    /// Its place is given up; if its turn had come, the next one's has.
    #[cold]
    pub(super) async fn wait(&self) {
        let place = Place::take(self);
        loop {
            listener!(self.queue => listener);
            // Who left before we listened notified nobody, or somebody who has gone in and out since.
            // Pairs with the fence in `leave`'s notification: either that finds us listening, or we
            // find the gate free. Then the first of the queue goes on, which may be this task.
            if self.word.load(Ordering::SeqCst) & HELD == 0 {
                self.queue.notify(1);
            }
            listener.await;
            if place.enter() {
                return;
            }
        }
    }

    /// Held → free. Only the holder calls this.
    #[inline]
    pub(super) fn leave(&self) {
        // Pairs with the Acquire in `try_enter` and `Place::enter`.
        if self.word.fetch_sub(HELD, Ordering::Release) != HELD {
            self.pass_on();
        }
    }

    #[cold]
    fn pass_on(&self) {
        // Fences before it looks who listens; see `wait`.
        self.queue.notify(1);
    }
}

/// A task that is counted as waiting.
struct Place<'a>(&'a Gate);

impl<'a> Place<'a> {
    fn take(gate: &'a Gate) -> Self {
        gate.word.fetch_add(ONE_WAITS, Ordering::SeqCst);
        Self(gate)
    }

    /// Free → held, and waits no more. False if somebody was faster.
    fn enter(&self) -> bool {
        let mut word = self.0.word.load(Ordering::Relaxed);
        while word & HELD == 0 {
            // Still counted: the drop of this place does that.
            match self.0.word.compare_exchange_weak(
                word,
                word | HELD,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        false
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.word.fetch_sub(ONE_WAITS, Ordering::Relaxed);
    }
}

#[cfg(all(test, urpc_loom))]
mod loom_gate {
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::thread;
    use std::future::Future;
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    fn poll(future: Pin<&mut impl Future<Output = ()>>) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        matches!(future.poll(&mut cx), Poll::Ready(()))
    }

    async fn enter(gate: &Gate) {
        if !gate.try_enter() {
            gate.wait().await;
        }
    }

    /// Polls to the end. Under loom a future that waits for ever is a model that does not end.
    fn finish(mut future: Pin<&mut impl Future<Output = ()>>) {
        while !poll(future.as_mut()) {
            thread::yield_now();
        }
    }

    /// A gate, and what only its holder may touch: loom reports two at a time.
    struct Guarded(Gate, UnsafeCell<usize>);

    impl Guarded {
        fn visit(&self) {
            finish(pin!(enter(&self.0)));
            self.1.with_mut(|_| {});
            self.0.leave();
        }
    }

    // SAFETY: the cell is touched between `enter` and `leave` only, and never through its pointer.
    unsafe impl Sync for Guarded {}
    // SAFETY: as above.
    unsafe impl Send for Guarded {}

    fn model(f: impl Fn(&Arc<Guarded>) + Send + Sync + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(move || f(&Arc::new(Guarded(Gate::new(), UnsafeCell::new(0)))));
    }

    #[test]
    fn loom_nobody_is_left_before_an_open_gate() {
        model(|gate| {
            let other = {
                let gate = gate.clone();
                thread::spawn(move || gate.visit())
            };
            gate.visit();
            gate.visit();
            other.join().unwrap();
            assert!(gate.0.try_enter(), "free, and nobody is counted as waiting");
        });
    }

    #[test]
    fn loom_who_gives_up_waiting_leaves_the_turn_to_the_next() {
        model(|gate| {
            assert!(gate.0.try_enter());
            let other = {
                let gate = gate.clone();
                thread::spawn(move || gate.visit())
            };
            {
                let mut given_up = pin!(enter(&gate.0));
                assert!(!poll(given_up.as_mut()));
                gate.0.leave();
            }
            other.join().unwrap();
            assert!(gate.0.try_enter(), "free, and nobody is counted as waiting");
        });
    }
}
