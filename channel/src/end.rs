//! The private end of a ring: state that one thread at a time may use, behind a lock that never waits.
//!
//! The lock lives in this process's own memory, so no peer can hold it (R6). What a busy holder costs the
//! others is said at [`crate::outgoing`].
//!
//! A locked instruction right after a ring store would wait until that store has got its cache line. So
//! letting go is a plain store, and taking is one too, for the *owner*: the thread that took the end many
//! times in a row, which is the only worker of most processes. Whoever else wants the end first ends the
//! ownership, and has the kernel put a fence into the owner's thread (`membarrier`), which has none itself:
//!
//! | the owner, each time | another thread, once |
//! | --- | --- |
//! | its mark = true | `owner` = none |
//! | (no instruction) | `membarrier` |
//! | still the owner? else its mark = false | is a mark set? then the end is taken |
//!
//! One of the two sees the other's store. Loom checks this as `an_end_has_one_holder`, with fences for both. The
//! mark is one that no other thread writes: whoever was an owner once, and is interrupted between the first two
//! lines, may come back to the third much later, when another has become the owner.

use std::ops::{Deref, DerefMut};

use crate::sync::{
    AtomicBool, AtomicU32, AtomicU64, Ordering, UnsafeCell, fence, fence_everywhere, has_fences,
    light_fence, seq_cst_access, this_thread,
};

/// No thread has this number.
const NONE: u64 = 0;
/// So often in a row a thread takes an end before it becomes its owner: ending that costs a system call and an
/// interrupt, as much as some hundred locked instructions. So it never costs more than about twice what having no
/// owners would; and where threads take turns, there is none.
const ENOUGH: u32 = if cfg!(urpc_loom) { 1 } else { 256 };
/// Different threads that can ever be owners of an end, each with its mark: a worker, landings.
const OWNERS: usize = 4;

#[derive(Debug)]
pub(crate) struct End<T> {
    /// The thread that may take the end without `taken`, times `OWNERS`, plus which mark it has. Written under
    /// `taken`.
    owner: AtomicU64,
    /// Somebody who is, or just was, the owner has the end. Each written by one thread only.
    marks: [AtomicBool; OWNERS],
    /// Another thread has the end.
    taken: AtomicBool,
    /// Whose marks these are. Used under `taken`.
    owners: [AtomicU64; OWNERS],
    /// Who took it last, and how often in a row. Used under `taken`.
    last: AtomicU64,
    turns: AtomicU32,
    state: UnsafeCell<T>,
}

// SAFETY: `state` is reached only through `Held`, of which `owner`, `marks` and `taken` let one exist at a
// time; so sharing an `End` never does more than move a `T` between threads.
unsafe impl<T: Send> Sync for End<T> {}

/// An end, taken. Dropping it lets go, with nothing but a store.
pub(crate) struct Held<'a, T> {
    end: &'a End<T>,
    /// What says so: the owner's mark, or `taken`.
    mark: &'a AtomicBool,
}

impl<T> End<T> {
    pub(crate) fn new(state: T) -> Self {
        End {
            owner: AtomicU64::new(NONE),
            marks: std::array::from_fn(|_| AtomicBool::new(false)),
            taken: AtomicBool::new(false),
            owners: std::array::from_fn(|_| AtomicU64::new(NONE)),
            last: AtomicU64::new(NONE),
            turns: AtomicU32::new(0),
            state: UnsafeCell::new(state),
        }
    }

    /// Free → taken. `None` if some thread has it; never waits.
    #[inline(always)]
    pub(crate) fn try_take(&self) -> Option<Held<'_, T>> {
        let me = this_thread();
        let owner = self.owner.load(Ordering::Relaxed);
        if owner / OWNERS as u64 != me {
            return self.take(me);
        }
        let mark = &self.marks[owner as usize % OWNERS];
        if mark.load(Ordering::Relaxed) {
            return None; // this thread has it already, further up its stack
        }
        mark.store(true, Ordering::Relaxed);
        // Pairs with `fence_everywhere` in `disown`.
        light_fence();
        if self.owner.load(Ordering::Relaxed) == owner {
            return Some(Held { end: self, mark });
        }
        mark.store(false, Ordering::Release);
        // Pairs with the fence in `take`: the thread that found us inside sees that we left, or we find that
        // it let go.
        fence(Ordering::SeqCst);
        self.take(me)
    }

    /// Somebody has the end as its owner, or looks whether he still is that.
    fn is_marked(&self) -> bool {
        // Acquire pairs with the Release in `Held::drop` of an owner.
        self.marks.iter().any(|mark| mark.load(Ordering::Acquire))
    }

    /// Takes the end as any thread can.
    #[cold]
    fn take(&self, me: u64) -> Option<Held<'_, T>> {
        loop {
            if self.taken.load(Ordering::Relaxed) {
                return None; // without dragging the holder's cache line away
            }
            // Acquire pairs with the Release in `Held::drop`; SeqCst is for `pass`. A failure leaves no store.
            let free =
                self.taken
                    .compare_exchange(false, true, Ordering::SeqCst, Ordering::Relaxed);
            free.ok()?;
            seq_cst_access();
            if self.owner.load(Ordering::Relaxed) != NONE {
                self.disown();
            }
            if !self.is_marked() {
                let mark = self.count(me).unwrap_or(&self.taken);
                return Some(Held { end: self, mark });
            }
            self.taken.store(false, Ordering::Release);
            // Whoever was inside may have found the end taken by us meanwhile. After the two fences (the other
            // is in `hand_over`, or in `try_take`) one of us has it.
            fence(Ordering::SeqCst);
            if self.is_marked() {
                return None;
            }
        }
    }

    /// Ends the ownership. Called under `taken`; the owner may still be inside afterwards.
    fn disown(&self) {
        self.owner.store(NONE, Ordering::Relaxed);
        self.turns.store(0, Ordering::Relaxed);
        fence_everywhere();
    }

    /// Notes who took the end, and makes it the owner if that was often enough: then returns its mark, which holds the
    /// end from here on in the place of `taken`. Called under `taken`.
    fn count(&self, me: u64) -> Option<&AtomicBool> {
        let again = self.last.load(Ordering::Relaxed) == me;
        let turns = self.turns.load(Ordering::Relaxed).saturating_add(1);
        let turns = if again { turns } else { 1 };
        self.last.store(me, Ordering::Relaxed);
        self.turns.store(turns, Ordering::Relaxed);
        let enough = turns >= ENOUGH && has_fences();
        enough.then(|| self.own(me))?
    }

    /// Makes a thread the owner, if it has a mark or there is one left. Called under `taken`.
    #[cold]
    fn own(&self, me: u64) -> Option<&AtomicBool> {
        let is_ours = |owner: &AtomicU64| {
            let owner = owner.load(Ordering::Relaxed);
            owner == me || owner == NONE
        };
        let place = self.owners.iter().position(is_ours)?;
        self.owners[place].store(me, Ordering::Relaxed);
        // The mark first: from here on this thread takes the end by it, also further up its stack.
        let mark = &self.marks[place];
        mark.store(true, Ordering::Relaxed);
        self.owner
            .store(me * OWNERS as u64 + place as u64, Ordering::Relaxed);
        // Pairs with the exchange in `take`: whoever has `taken` next ends the ownership, and sees the mark.
        self.taken.store(false, Ordering::Release);
        Some(mark)
    }

    /// Orders the caller behind every `try_take` whose thread did not yet see, with a SeqCst load, what the
    /// caller stored before with SeqCst: what that thread did before it took the end is visible afterwards.
    ///
    /// Its load missed our store, so it comes before that in the order of all SeqCst operations, and with it
    /// the exchange in `take`; so this load reads what the exchange, or somebody later, left here. For an
    /// owner, which has no exchange, the fence in its thread does the same.
    pub(crate) fn pass(&self) {
        if has_fences() {
            fence_everywhere();
        }
        self.taken.load(Ordering::SeqCst);
        seq_cst_access();
    }
}

impl<T> Drop for Held<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        // Pairs with the exchange and the look at the marks in `take`: the next holder sees all that we did.
        self.mark.store(false, Ordering::Release);
    }
}

impl<T> Deref for Held<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: only `try_take` makes a `Held`, and not while another lives; the borrow of `self`
        // keeps `deref_mut` away.
        unsafe { &*self.end.state.get() }
    }
}

impl<T> DerefMut for Held<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`; and `self` is borrowed mutably, so this is the only reference.
        unsafe { &mut *self.end.state.get() }
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

    #[test]
    fn a_thread_cannot_take_an_end_twice_while_it_becomes_the_owner() {
        let end = End::new(0);
        for turn in 1..=2 * ENOUGH {
            let held = end.try_take();
            assert!(held.is_some() && end.try_take().is_none(), "turn {turn}");
        }
    }

    #[test]
    fn an_owner_cannot_take_its_end_twice_and_another_thread_ends_its_ownership() {
        let end = End::new(0);
        for _ in 0..2 * ENOUGH {
            *end.try_take().expect("nobody else wants it") += 1;
        }
        assert_eq!(end.owner.load(Ordering::Relaxed) != NONE, has_fences());
        let held = end.try_take().expect("nobody else wants it");
        assert!(end.try_take().is_none());
        let other = || std::thread::scope(|s| s.spawn(|| end.try_take().is_some()).join());
        assert!(!other().expect("no panic"), "it is taken");
        drop(held);
        assert!(other().expect("no panic"), "it is free");
        assert_eq!(end.owner.load(Ordering::Relaxed), NONE);
    }

    #[test]
    fn threads_that_contend_and_pause_lose_no_turn() {
        let end = End::new(0u64);
        let taken: u64 = std::thread::scope(|s| {
            let worker = |pause: u32| {
                let end = &end;
                s.spawn(move || {
                    let mut taken = 0;
                    for i in 0..100_000u32 {
                        if let Some(mut held) = end.try_take() {
                            *held += 1;
                            taken += 1;
                        }
                        if i % pause == 0 {
                            std::thread::yield_now();
                        }
                    }
                    taken
                })
            };
            let workers = [7, 1000, 30_000].map(worker);
            workers.map(|w| w.join().expect("no panic")).iter().sum()
        });
        assert_eq!(end.try_take().as_deref(), Some(&taken));
    }
}

#[cfg(all(test, urpc_loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    #[test]
    fn an_end_has_one_holder() {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(9); // all orders take minutes
        builder.check(|| {
            // Loom sees two that are in `state` at once, as it sees a `state` that is not yet visible.
            let end = Arc::new(End::new(0));
            *end.try_take().expect("new") += 1; // this thread owns it now
            let take =
                |end: &End<i32>| i32::from(end.try_take().map(|mut held| *held += 1).is_some());
            let other = thread::spawn({
                let end = end.clone();
                // The second time as the owner.
                move || take(&end) + take(&end)
            });
            let mine = take(&end);
            let theirs = other.join().expect("no panic");
            let taken = 1 + mine + theirs;
            assert_eq!(end.try_take().as_deref(), Some(&taken));
        });
    }
}
