//! The ready queue of one processor: a ring of tasks, first in, first out, that its holder fills and
//! that everybody may empty, even while the holder is stuck in a poll.
//!
//! `tail` is written only by the [`Owner`], and a plain store publishes a task. `head` moves only
//! upwards, and each index is taken by exactly one: the slots in `head..tail` hold one task each, all
//! other slots are the owner's to overwrite. Indices count up from 0 and do not wrap within the life of
//! a machine.
//!
//! How `head` moves depends on whether there are thieves:
//!
//! | `thieves` | the owner takes | a thief takes |
//! | --- | --- | --- |
//! | above 0 | by compare-and-swap | by compare-and-swap |
//! | 0 | by a plain store, between `taking` and `!taking` | counts itself first, and goes away if it finds `taking` |
//!
//! Between its two steps each of them fences ([`barrier`](crate::barrier)), and the thief pays for that. So
//! either the owner sees the thief and compares, or the thief sees that the owner is taking just now. If an
//! executor has several processors, thieves are counted for ever: there a theft is no rare thing.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::barrier;
use crate::sync::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use crate::task::Runnable;

/// Tasks that fit into a local queue; what is more goes to the shared queue. 256 pointers are 2 KiB,
/// and a processor that has that much ready is better helped by others than by a longer queue.
#[cfg(not(urpc_loom))]
pub(crate) const SLOTS: usize = 256;
#[cfg(urpc_loom)]
pub(crate) const SLOTS: usize = 2;

/// Tasks that one theft takes at most, besides the one it returns: bounds how long a thief is away
/// from its own scan.
const HAUL: usize = 32;

/// Keeps what different threads write on different cache lines. Two lines, because the hardware
/// fetches them in pairs.
#[repr(align(128))]
struct Line<T>(T);

/// The ring of pointers. It knows nothing of tasks, so that loom can check it with numbers.
struct Ring {
    head: Line<AtomicUsize>,
    /// Those who may take by compare-and-swap just now.
    thieves: Line<AtomicUsize>,
    ends: Line<OwnerEnd>,
    slots: [AtomicPtr<()>; SLOTS],
    /// There are thieves at all times.
    shared: bool,
}

/// What only the owner writes.
struct OwnerEnd {
    tail: AtomicUsize,
    /// The owner is about to move `head` by a plain store.
    taking: AtomicBool,
}

impl Ring {
    /// An empty ring.
    fn new(shared: bool) -> Ring {
        Ring {
            head: Line(AtomicUsize::new(0)),
            thieves: Line(AtomicUsize::new(usize::from(shared))),
            ends: Line(OwnerEnd {
                tail: AtomicUsize::new(0),
                taking: AtomicBool::new(false),
            }),
            slots: std::array::from_fn(|_| AtomicPtr::new(std::ptr::null_mut())),
            shared,
        }
    }

    /// Appends. Only the owner calls this, one call at a time. Returns how many are queued now (at
    /// most; a thief may just be taking one), or the pointer if the ring is full.
    fn push(&self, item: NonNull<()>) -> Result<usize, NonNull<()>> {
        let tail = self.ends.0.tail.load(Ordering::Relaxed);
        // Acquire pairs with the Release of the move of `head` in `take` and `take_shared`: whoever took the task of
        // the previous lap out of this slot has read it before we overwrite it.
        let head = self.head.0.load(Ordering::Acquire);
        if tail - head == SLOTS {
            return Err(item);
        }
        self.slots[tail % SLOTS].store(item.as_ptr(), Ordering::Relaxed);
        // Release pairs with the Acquire load of `tail` in `take_shared`: who sees the index sees the slot.
        self.ends.0.tail.store(tail + 1, Ordering::Release);
        Ok(tail + 1 - head)
    }

    /// Takes the oldest. Only the owner calls this, one call at a time.
    #[inline]
    fn take(&self) -> Option<NonNull<()>> {
        if self.thieves.0.load(Ordering::Relaxed) != 0 {
            return self.take_shared();
        }
        self.ends.0.taking.store(true, Ordering::Relaxed);
        // Pairs with the fence in `steal`: either we see the thief, or it sees `taking`.
        barrier::often();
        // Acquire pairs with the Release of the thief that left last: where it left `head` is seen.
        if self.thieves.0.load(Ordering::Acquire) != 0 {
            self.ends.0.taking.store(false, Ordering::Release);
            return self.take_shared();
        }
        let head = self.head.0.load(Ordering::Relaxed);
        let mut item = None;
        if head != self.ends.0.tail.load(Ordering::Relaxed) {
            item = NonNull::new(self.slots[head % SLOTS].load(Ordering::Relaxed));
            self.head.0.store(head + 1, Ordering::Release);
        }
        // Release pairs with the Acquire in `steal`: who finds us away finds `head` where we left it.
        self.ends.0.taking.store(false, Ordering::Release);
        item
    }

    /// Takes the oldest, called by anybody. `None` also if the owner is just taking one itself.
    fn steal(&self) -> Option<NonNull<()>> {
        if self.shared {
            return self.take_shared();
        }
        if self.len() == 0 {
            return None; // not worth a system call
        }
        self.thieves.0.fetch_add(1, Ordering::Relaxed);
        // Pairs with the fence in `take`. Refused, it leaves the thief counted: the owner compares then.
        if !barrier::rarely() {
            return None;
        }
        // Acquire pairs with the Release in `take`.
        let item = if self.ends.0.taking.load(Ordering::Acquire) {
            None
        } else {
            self.take_shared()
        };
        // Release pairs with the Acquire in `take`.
        self.thieves.0.fetch_sub(1, Ordering::Release);
        item
    }

    /// Takes the oldest while all who do so compare.
    fn take_shared(&self) -> Option<NonNull<()>> {
        let mut head = self.head.0.load(Ordering::Acquire);
        loop {
            // Acquire pairs with the Release store in `push`.
            let tail = self.ends.0.tail.load(Ordering::Acquire);
            if head >= tail {
                return None;
            }
            // The slot may be overwritten after this load only if `head` has moved on, and then the
            // compare-and-swap fails: success proves that the pointer is the one of this index.
            let item = self.slots[head % SLOTS].load(Ordering::Relaxed);
            // Release pairs with the Acquire load of `head` in `push`.
            match self.head.0.compare_exchange_weak(
                head,
                head + 1,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => return NonNull::new(item),
                Err(now) => head = now,
            }
        }
    }

    fn len(&self) -> usize {
        let head = self.head.0.load(Ordering::Acquire);
        self.ends
            .0
            .tail
            .load(Ordering::Acquire)
            .saturating_sub(head)
    }
}

/// The right to push. It goes with the processor, from thread to thread, but is never with two
/// (`Send`, not `Sync`, not `Clone`).
pub(crate) struct Owner {
    ring: Arc<Ring>,
    not_sync: PhantomData<Cell<()>>,
}

/// The right to take, for everybody.
#[derive(Clone)]
pub(crate) struct Thief {
    ring: Arc<Ring>,
}

/// A new, empty queue; one that is `shared` is made for many thefts.
pub(crate) fn queue(shared: bool) -> (Owner, Thief) {
    let ring = Arc::new(Ring::new(shared || !barrier::available()));
    (
        Owner {
            ring: ring.clone(),
            not_sync: PhantomData,
        },
        Thief { ring },
    )
}

/// Makes a task of a pointer that a `Ring` gave out.
fn task(raw: NonNull<()>) -> Runnable {
    // SAFETY: `Owner::push` is the only source of pointers in a ring, each is the `into_raw` of one
    // task, and a ring gives each out once (loom: `a_task_is_taken_once_by_owner_or_thief`).
    unsafe { Runnable::from_raw(raw) }
}

impl Owner {
    /// Appends a task and says how many are queued now; gives the task back if the ring is full.
    pub(crate) fn push(&self, runnable: Runnable) -> Result<usize, Runnable> {
        self.ring.push(runnable.into_raw()).map_err(task)
    }

    /// Takes the oldest task.
    #[inline]
    pub(crate) fn pop(&self) -> Option<Runnable> {
        self.ring.take().map(task)
    }

    /// True if nothing is queued; only a push of this owner can change that.
    pub(crate) fn is_empty(&self) -> bool {
        self.ring.len() == 0
    }

    /// True if a push would succeed; only a push of this owner can change that.
    fn has_room(&self) -> bool {
        self.ring.len() < SLOTS
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        while let Some(runnable) = self.pop() {
            drop(runnable);
        }
    }
}

impl Thief {
    /// Takes the oldest task.
    pub(crate) fn steal(&self) -> Option<Runnable> {
        self.ring.steal().map(task)
    }

    /// Takes the oldest task to be run now, and up to half of the others for `home`.
    pub(crate) fn steal_half(&self, home: &Owner) -> Option<Runnable> {
        let first = self.steal()?;
        for _ in 0..(self.ring.len() / 2).min(HAUL) {
            if !home.has_room() {
                break;
            }
            let Some(next) = self.steal() else { break };
            if home.push(next).is_err() {
                unreachable!("there was room, and only this owner fills it");
            }
        }
        Some(first)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ring.len() == 0
    }
}

#[cfg(all(test, not(urpc_loom)))]
mod tests {
    use super::*;
    use crate::task::Tag;

    fn number(n: usize) -> NonNull<()> {
        NonNull::new(std::ptr::without_provenance_mut(n)).expect("not 0")
    }

    #[test]
    fn tasks_leave_in_the_order_they_came_over_many_laps() {
        for shared in [false, true] {
            let ring = Ring::new(shared);
            for n in 1..=10 * SLOTS {
                assert_eq!(ring.push(number(n)), Ok(1));
                assert_eq!(ring.take(), Some(number(n)));
            }
            assert_eq!(ring.take(), None);
        }
    }

    #[test]
    fn a_full_ring_gives_the_task_back_and_takes_one_after_a_theft() {
        for shared in [false, true] {
            let ring = Ring::new(shared || !barrier::available());
            for n in 1..=SLOTS {
                assert_eq!(ring.push(number(n)), Ok(n));
            }
            assert_eq!(ring.push(number(999)), Err(number(999)));
            assert_eq!(ring.steal(), Some(number(1)));
            assert_eq!(ring.push(number(999)), Ok(SLOTS));
            assert_eq!(ring.take(), Some(number(2)));
        }
    }

    /// An owner that pushes and takes without a locked instruction, and two thieves who do not rest.
    #[test]
    fn every_task_is_taken_once_while_thieves_come_and_go() {
        const TASKS: usize = 200_000;
        let ring = Ring::new(!barrier::available());
        let over = AtomicBool::new(false);
        let steal = || {
            let mut stolen = Vec::new();
            while !over.load(Ordering::Relaxed) {
                stolen.extend(ring.steal().map(|item| item.as_ptr().addr()));
                std::thread::yield_now();
            }
            stolen
        };
        let mut taken = Vec::new();
        std::thread::scope(|scope| {
            let thieves = [scope.spawn(steal), scope.spawn(steal)];
            for n in 1..=TASKS {
                while ring.push(number(n)).is_err() {
                    std::thread::yield_now();
                    taken.extend(ring.take().map(|item| item.as_ptr().addr()));
                }
                if n % 3 == 0 {
                    taken.extend(ring.take().map(|item| item.as_ptr().addr()));
                }
            }
            while let Some(item) = ring.take() {
                taken.push(item.as_ptr().addr());
            }
            over.store(true, Ordering::Relaxed);
            for thief in thieves {
                taken.extend(thief.join().expect("a thief does not panic"));
            }
        });
        taken.sort_unstable();
        assert!(taken.into_iter().eq(1..=TASKS));
    }

    #[test]
    fn a_theft_takes_the_oldest_and_half_of_the_rest() {
        let (rich, thief) = queue(true);
        let (home, _) = queue(true);
        let mut handles = Vec::new();
        for _ in 0..9 {
            let builder = async_task::Builder::new().metadata(Tag {
                serial: 0,
                priority: 0,
            });
            let (runnable, handle) = builder.spawn(|_| async {}, |_| {});
            assert!(rich.push(runnable).is_ok());
            handles.push(handle);
        }
        let first = thief.steal_half(&home).expect("nine are there");
        first.run();
        assert!(handles[0].is_finished());
        assert_eq!(home.ring.len(), 4);
        assert_eq!(rich.ring.len(), 4);
    }
}

#[cfg(all(test, urpc_loom))]
mod loom_tests {
    use super::*;
    use loom::thread;

    fn number(n: usize) -> NonNull<()> {
        NonNull::new(std::ptr::without_provenance_mut(n)).expect("not 0")
    }

    fn drain(ring: &Ring, taken: &mut Vec<usize>) {
        while let Some(item) = ring.take() {
            taken.push(item.as_ptr().addr());
        }
    }

    /// Bounded: without that the models of an owner alone take minutes.
    fn model(f: impl Fn() + Send + Sync + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(f);
    }

    /// Three tasks through two slots, so that a slot is used again while the thief may be in it; in a ring
    /// with thieves at all times, and in one whose owner has to notice that there is one.
    fn one_thief(shared: bool) {
        model(move || {
            let ring = Arc::new(Ring::new(shared));
            let thief = thread::spawn({
                let ring = ring.clone();
                move || ring.steal().map(|item| item.as_ptr().addr())
            });
            let mut taken = Vec::new();
            for n in 1..=3 {
                if ring.push(number(n)).is_err() {
                    let oldest = ring.take().or_else(|| ring.take());
                    taken.extend(oldest.map(|item| item.as_ptr().addr()));
                    ring.push(number(n)).expect("a place has just become free");
                }
            }
            drain(&ring, &mut taken);
            assert!(taken.is_sorted(), "the owner saw {taken:?}");
            taken.extend(thief.join().expect("the thief does not panic"));
            taken.sort_unstable();
            assert_eq!(taken, [1, 2, 3]);
        });
    }

    #[test]
    fn a_task_is_taken_once_by_owner_or_thief() {
        one_thief(true);
    }

    #[test]
    fn a_task_is_taken_once_by_an_owner_alone_or_a_thief_that_comes() {
        one_thief(false);
    }

    /// The owner takes before the thief comes, while it is there, and after it left.
    #[test]
    fn an_owner_is_alone_again_when_the_thief_has_left() {
        model(|| {
            let ring = Arc::new(Ring::new(false));
            for n in 1..=2 {
                ring.push(number(n)).expect("there is room");
            }
            let thief = thread::spawn({
                let ring = ring.clone();
                move || ring.steal().map(|item| item.as_ptr().addr())
            });
            let mut taken = Vec::new();
            drain(&ring, &mut taken);
            ring.push(number(3)).expect("there is room");
            drain(&ring, &mut taken);
            taken.extend(thief.join().expect("the thief does not panic"));
            taken.sort_unstable();
            assert_eq!(taken, [1, 2, 3]);
        });
    }
}
