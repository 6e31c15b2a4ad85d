//! The private end of a ring: state that one thread at a time may use, behind a lock that never waits.
//!
//! The lock lives in this process's own memory, so no peer can hold it (R6). Taking it is one locked
//! instruction; letting go is a plain store, because a locked instruction right after a ring store would
//! wait until that store has got its cache line. What that costs is said at [`crate::outgoing`].

use std::ops::{Deref, DerefMut};

use crate::sync::{AtomicBool, Ordering, UnsafeCell, seq_cst_access};

#[derive(Debug)]
pub(crate) struct End<T> {
    taken: AtomicBool,
    inside: UnsafeCell<T>,
}

// SAFETY: `inside` is reached only through `Held`, of which `taken` lets one exist at a time; so sharing
// an `End` never does more than move a `T` between threads.
unsafe impl<T: Send> Sync for End<T> {}

/// An end, taken. Dropping it lets go, with nothing but a store.
pub(crate) struct Held<'a, T>(&'a End<T>);

impl<T> End<T> {
    pub(crate) fn new(inside: T) -> Self {
        End {
            taken: AtomicBool::new(false),
            inside: UnsafeCell::new(inside),
        }
    }

    /// Free → taken. `None` if some thread has it; never waits, never tries twice.
    #[inline]
    pub(crate) fn try_take(&self) -> Option<Held<'_, T>> {
        if self.taken.load(Ordering::Relaxed) {
            return None; // without dragging the holder's cache line away
        }
        // Acquire pairs with the Release in `Held::drop`; SeqCst is for `pass`. A failure leaves no store.
        let free = self
            .taken
            .compare_exchange(false, true, Ordering::SeqCst, Ordering::Relaxed);
        free.ok()?;
        seq_cst_access();
        Some(Held(self))
    }

    /// Orders the caller behind every `try_take` whose thread did not yet see, with a SeqCst load, what the
    /// caller stored before with SeqCst: what that thread did before it took the end is visible afterwards.
    ///
    /// Its load missed our store, so it comes before that in the order of all SeqCst operations, and with it
    /// the exchange in `try_take`; so this load reads what the exchange, or somebody later, left here.
    pub(crate) fn pass(&self) {
        self.taken.load(Ordering::SeqCst);
        seq_cst_access();
    }
}

impl<T> Drop for Held<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // Pairs with the exchange in `try_take`: the next holder sees all that we did inside.
        self.0.taken.store(false, Ordering::Release);
    }
}

impl<T> Deref for Held<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: only `try_take` makes a `Held`, and not while another lives; the borrow of `self`
        // keeps `deref_mut` away.
        unsafe { &*self.0.inside.get() }
    }
}

impl<T> DerefMut for Held<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`; and `self` is borrowed mutably, so this is the only reference.
        unsafe { &mut *self.0.inside.get() }
    }
}

#[cfg(all(test, not(urpc_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_taken_end_is_refused_and_a_dropped_one_is_free_again() {
        let end = End::new(1);
        let mut held = end.try_take().expect("a new end is free");
        *held += 1;
        assert!(end.try_take().is_none());
        drop(held);
        assert_eq!(end.try_take().as_deref(), Some(&2));
    }
}
