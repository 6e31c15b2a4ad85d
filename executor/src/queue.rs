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
        self.len() == 0
    }

    /// How many are queued, at most: a thief may just be taking one.
    pub(crate) fn len(&self) -> usize {
        self.ring.len()
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
mod tests;

#[cfg(all(test, urpc_loom))]
mod loom_models;
