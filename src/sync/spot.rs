//! A spot where one task waits, without a lock: for the usual case that no other one does.
//!
//! One word, `4 × turn + state`. Whoever leaves the spot, called or not, ends its turn, so a turn is one
//! task's alone.
//!
//! | state | means | who touches the waker |
//! | --- | --- | --- |
//! | `EMPTY` | nobody waits | nobody |
//! | `FULL` | somebody waits | nobody |
//! | `BUSY` | somebody comes or goes, or is being called | who made it `BUSY` |
//! | `RENEWS` | who waits changes its waker | who waits; to call it is to make it `BUSY` |
//!
//! A caller that finds `BUSY` has nobody to call: who comes was not there before, and who goes or is called is
//! gone.

use std::task::Waker;

use sync::{AtomicUsize, Ordering, UnsafeCell};

#[cfg(not(urpc_loom))]
mod sync {
    pub(super) use std::sync::atomic::{AtomicUsize, Ordering};

    /// As loom has it.
    pub(super) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(super) const fn new(value: T) -> Self {
            Self(std::cell::UnsafeCell::new(value))
        }

        #[inline(always)]
        pub(super) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }
}
#[cfg(urpc_loom)]
mod sync {
    pub(super) use loom::cell::UnsafeCell;
    pub(super) use loom::sync::atomic::{AtomicUsize, Ordering};
}

const EMPTY: usize = 0;
const FULL: usize = 1;
const BUSY: usize = 2;
const RENEWS: usize = 3;
const TURN: usize = 4;

/// See the [module's documentation](self).
pub(super) struct Spot {
    word: AtomicUsize,
    waker: UnsafeCell<Option<Waker>>,
}

// SAFETY: a waker may be used and dropped by any thread, and the states let one thread at a time touch it.
unsafe impl Sync for Spot {}

/// The right to wait at a spot: a word, `FULL`.
#[derive(Clone, Copy)]
pub(super) struct Turn(usize);

/// Whom a caller found.
pub(super) enum Called {
    Nobody,
    /// It has no part in the spot any more, and is to be woken.
    Waiter(Waker),
    /// It is being polled just now, and will see it.
    Renewing,
}

impl Spot {
    #[cfg(not(urpc_loom))]
    pub(super) const fn new() -> Self {
        Self {
            word: AtomicUsize::new(EMPTY),
            waker: UnsafeCell::new(None),
        }
    }

    #[cfg(urpc_loom)]
    pub(super) fn new() -> Self {
        Self {
            word: AtomicUsize::new(EMPTY),
            waker: UnsafeCell::new(None),
        }
    }

    /// From one state of a turn to another one.
    #[inline]
    fn change(&self, from: usize, to: usize) -> bool {
        // Acquire pairs with the Release in `set`: who touches the waker comes after who did before. And with
        // the Release here: who waits and finds itself being called sees what was done before the call.
        let changed = self
            .word
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire);
        changed.is_ok()
    }

    /// Out of a state in which nobody else changes the word.
    #[inline]
    fn set(&self, word: usize) {
        self.word.store(word, Ordering::Release);
    }

    /// What the waker was; for who has made the word `BUSY` or `RENEWS`.
    #[inline]
    fn replace(&self, waker: Option<Waker>) -> Option<Waker> {
        // SAFETY: by the table above nobody else touches it in these states, and the callers below are in one.
        self.waker
            .with_mut(|at| unsafe { std::mem::replace(&mut *at, waker) })
    }

    /// `EMPTY` → `FULL`. `None` if it is taken.
    #[inline]
    pub(super) fn take(&self, waker: &Waker) -> Option<Turn> {
        let word = self.word.load(Ordering::Relaxed);
        let turn = word - word % TURN;
        if word % TURN != EMPTY || !self.change(word, turn + BUSY) {
            return None;
        }
        let before = self.replace(Some(waker.clone()));
        debug_assert!(before.is_none());
        self.set(turn + FULL);
        Some(Turn(turn + FULL))
    }

    /// `FULL` → `EMPTY`, or `RENEWS` → `BUSY`.
    #[inline]
    pub(super) fn call(&self) -> Called {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            let turn = word - word % TURN;
            match word % TURN {
                FULL if self.change(word, turn + BUSY) => {
                    let waker = self.replace(None);
                    self.set(turn.wrapping_add(TURN));
                    return waker.map_or(Called::Nobody, Called::Waiter);
                }
                RENEWS if self.change(word, turn + BUSY) => return Called::Renewing,
                FULL | RENEWS => word = self.word.load(Ordering::Relaxed),
                _ => return Called::Nobody,
            }
        }
    }

    /// Whether a turn is over: only then does its word never come again.
    #[inline]
    pub(super) fn is_over(&self, turn: Turn) -> bool {
        // Pairs with the Release in `set`: what was done before the call is seen.
        let word = self.word.load(Ordering::Acquire);
        word - word % TURN + FULL != turn.0
    }

    /// `FULL` → `RENEWS` → `FULL`, with another waker. False if the turn was ended by a call.
    pub(super) fn renew(&self, Turn(full): Turn, waker: &Waker) -> bool {
        let renews = full - FULL + RENEWS;
        if !self.change(full, renews) {
            return false;
        }
        let before = self.replace(Some(waker.clone()));
        let renewed = self.change(renews, full);
        if !renewed {
            drop(self.replace(None));
            self.set((full - FULL).wrapping_add(TURN));
        }
        drop(before); // perhaps the last reference to a task
        renewed
    }

    /// `FULL` → `EMPTY`: who waited gives up. False if its turn was ended by a call.
    pub(super) fn give_up(&self, Turn(full): Turn) -> bool {
        if !self.change(full, full - FULL + BUSY) {
            return false;
        }
        let waker = self.replace(None);
        self.set((full - FULL).wrapping_add(TURN));
        drop(waker); // perhaps the last reference to a task
        true
    }
}
