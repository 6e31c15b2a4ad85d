//! The calls this process has outstanding on one channel: ids, deadlines, and who waits.
//!
//! Bounded: as many entries as the peer gave credit for. An id is `generation << 16 | index`;
//! what a peer says about ids is looked up here, and never believed. All of it is private memory.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::task::Waker;

use concurrent_queue::ConcurrentQueue;
use event_listener::{Event, EventListener};
use urpc_channel::Body;

use crate::entry::{Delivery, Entry, Leave};
use crate::error::CallError;
use crate::table::{PART, Table};
use crate::wire::Nanos;
use crate::woken;

/// When to look again, in nanoseconds, where it cannot be known.
const SOON: u64 = 1_000_000;
/// The same where it is hardly ever of use: an id that is kept may be so for hours.
const LATER: u64 = 100 * SOON;

/// What comes back: a body to decode, or why there is none.
pub(crate) type Answer = Result<Body, CallError>;

/// Keeps calls of different threads on different cache lines.
#[repr(align(64))]
struct Outgoing {
    entry: Entry<Answer>,
    deadline: AtomicU64,
    /// Calls made with this entry: their sum is the channel's count of calls, for free.
    uses: AtomicU32,
}

/// See the [module's documentation](self).
pub(crate) struct Pending {
    calls: Table<Outgoing>,
    /// A set bit is a free index.
    free: Box<[AtomicU64]>,
    /// No deadline lies before this, unless somebody goes through them.
    next_deadline: AtomicU64,
    /// Odd while somebody does; then it is another number.
    passes: AtomicU64,
    /// Ids whose caller left at a moment when somebody else was at their entry.
    left: ConcurrentQueue<u32>,
    waiting: AtomicUsize,
    room: Event,
}

/// An id that a thread keeps for a call of its own to come: taken from the list, and of no call.
#[derive(Debug)]
#[must_use = "it has to be given back"]
pub(crate) struct Kept(u16);

#[inline]
fn index(id: u32) -> usize {
    (id & 0xFFFF) as usize
}

impl Pending {
    /// Room for `calls` calls at a time, at most 65,536.
    pub(crate) fn new(calls: u32) -> Self {
        let calls = calls.min(1 << 16) as usize;
        let free = (0..calls.div_ceil(64)).map(|word| {
            let bits = (calls - word * 64).min(64);
            AtomicU64::new(u64::MAX >> (64 - bits))
        });
        Self {
            free: free.collect(),
            calls: Table::new(calls, || Outgoing {
                entry: Entry::new(Ok(Body::EMPTY)),
                deadline: AtomicU64::new(Nanos::NEVER.0),
                uses: AtomicU32::new(0),
            }),
            next_deadline: AtomicU64::new(Nanos::NEVER.0),
            passes: AtomicU64::new(0),
            left: ConcurrentQueue::unbounded(),
            waiting: AtomicUsize::new(0),
            room: Event::new(),
        }
    }

    /// Takes an id for a call that `waker` waits for, or that is to [`wait`](Self::wait) later: the one that was
    /// kept, else the lowest free one, so that a few calls stay in a few cache lines. `None` if all are taken: see
    /// [`room`](Self::room).
    ///
    /// A call whose deadline is `NEVER` gets one [later](Self::set_deadline), or needs none.
    #[inline]
    pub(crate) fn begin(
        &self,
        kept: Option<Kept>,
        waker: Option<&Waker>,
        deadline: Nanos,
    ) -> Option<u32> {
        let index = match kept {
            Some(Kept(index)) => usize::from(index),
            None => self.take_index()?,
        };
        let call = &self.calls[index];
        call.deadline.store(deadline.0, Ordering::Relaxed);
        let uses = call.uses.load(Ordering::Relaxed);
        call.uses.store(uses.wrapping_add(1), Ordering::Relaxed);
        // Pairs with the swap in `expire`, as the taking of the index pairs with its look at the free
        // list (all SeqCst): either we see its swap and lower the deadline, or it sees the index taken. (A kept
        // one has been taken for long.)
        if deadline.0 < self.next_deadline.load(Ordering::SeqCst) {
            self.next_deadline.fetch_min(deadline.0, Ordering::SeqCst);
        }
        let generation = call.entry.begin(waker.map(woken::again));
        Some(u32::from(generation) << 16 | index as u32)
    }

    /// The deadline of a call of the caller's that has none yet.
    pub(crate) fn set_deadline(&self, id: u32, deadline: Nanos) {
        // Both SeqCst, as the swap and the look at the deadline in `expire`: either it sees this deadline, or it
        // has swapped before, and what we put there stays.
        self.calls[index(id)]
            .deadline
            .store(deadline.0, Ordering::SeqCst);
        self.next_deadline.fetch_min(deadline.0, Ordering::SeqCst);
    }

    /// The deadline of a call of the caller's.
    pub(crate) fn deadline(&self, id: u32) -> Nanos {
        Nanos(self.calls[index(id)].deadline.load(Ordering::Relaxed))
    }

    #[cold]
    fn take_index(&self) -> Option<usize> {
        for (i, word) in self.free.iter().enumerate() {
            let mut bits = word.load(Ordering::Relaxed);
            while bits != 0 {
                let bit = bits.trailing_zeros();
                // Acquire pairs with the Release in `free`: the last user of the entry is done with it.
                let before = word.fetch_and(!(1 << bit), Ordering::SeqCst);
                if before & (1 << bit) != 0 {
                    return Some(i * 64 + bit as usize);
                }
                bits = word.load(Ordering::Relaxed);
            }
        }
        None
    }

    fn free(&self, index: usize) {
        // SeqCst here and in `room`, for a thread that is no worker: it does not look again.
        self.free[index / 64].fetch_or(1 << (index % 64), Ordering::SeqCst);
        // A waiter that registers after this look finds the bit itself, or is found by the look that
        // every worker takes after its fence, before it rests (`wake_waiters`).
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.wake_waiters();
        }
    }

    /// Puts a kept id back into the list.
    pub(crate) fn give_back(&self, Kept(index): Kept) {
        self.free(index.into());
    }

    /// Some caller waits for an id.
    pub(crate) fn is_awaited(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// To be awaited by a caller that found no id, after looking once more. It counts as waiting until
    /// [`no_longer_waits`](Self::no_longer_waits).
    pub(crate) fn room(&self) -> EventListener {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        self.room.listen()
    }

    /// A caller got what it waited for, or is gone.
    pub(crate) fn no_longer_waits(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// Wakes as many waiting callers as there are free ids.
    pub(crate) fn wake_waiters(&self) {
        if self.is_awaited() {
            let free: u32 = self
                .free
                .iter()
                .map(|word| word.load(Ordering::Relaxed).count_ones())
                .sum();
            self.room.notify(free as usize);
        }
    }

    /// Whether the caller of `id` need not wait any more.
    #[inline]
    pub(crate) fn has_answered(&self, id: u32) -> bool {
        let entry = &self.calls[index(id)].entry;
        entry.has_answered((id >> 16) as u16)
    }

    /// Has `waker` woken with the answer to `id`. False if the caller has to look again.
    pub(crate) fn wait(&self, id: u32, waker: &Waker) -> bool {
        self.calls[index(id)].entry.wait((id >> 16) as u16, waker)
    }

    /// The same, but for a call that is waited for elsewhere by now: that stays so.
    pub(crate) fn wait_first(&self, id: u32, waker: &Waker) -> bool {
        let entry = &self.calls[index(id)].entry;
        entry.wait_first((id >> 16) as u16, waker)
    }

    /// What the caller of `id` makes of its answer, if that is there. Also returns the id, which it may keep, and how
    /// much of the byte window is left to be freed.
    #[inline]
    pub(crate) fn take<R>(
        &self,
        id: u32,
        take: impl FnOnce(&mut Answer) -> R,
    ) -> Option<(R, Kept, usize)> {
        let take = |answer: &mut Answer| (take(answer), empty(answer));
        let (taken, bytes) = self.calls[index(id)].entry.take(take)?;
        Some((taken, Kept(id as u16), bytes))
    }

    /// A call that could not be sent: its id is free again.
    pub(crate) fn undo(&self, id: u32) {
        // Nobody else knows this id yet, except a deadline's nudge.
        while let Leave::Busy = self.calls[index(id)].entry.undo() {
            std::hint::spin_loop();
        }
        self.free(index(id));
    }

    /// The caller of `id` is gone. `Err` if its answer has come already: so much of the byte window that took.
    /// Else the peer should be told.
    pub(crate) fn abandon(&self, id: u32) -> Result<(), usize> {
        match self.calls[index(id)].entry.abandon() {
            Leave::Abandoned => Ok(()),
            Leave::Answered => {
                let (_, kept, bytes) = self.take(id, |_| ()).expect("it is there");
                self.give_back(kept);
                Err(bytes)
            }
            Leave::Busy => {
                let _ = self.left.push(id);
                Ok(())
            }
        }
    }

    /// Finishes what [`abandon`](Self::abandon) could not. Part of every scan that has time. Returns how much
    /// of the byte window the answers took that nobody looks at.
    pub(crate) fn tidy(&self) -> usize {
        let ids = (0..self.left.len()).map_while(|_| self.left.pop().ok());
        ids.map(|id| self.abandon(id).err().unwrap_or(0)).sum()
    }

    /// Whether an answer to call `id` is still to come.
    pub(crate) fn awaits(&self, id: u32) -> bool {
        let call = self.calls.get(index(id));
        call.is_some_and(|call| call.entry.awaits((id >> 16) as u16))
    }

    /// Delivers an answer that a peer sent, if there is such a call and it has a caller: `put` puts it there.
    #[inline]
    pub(crate) fn deliver(&self, id: u32, put: impl FnOnce(&mut Answer)) -> Delivery {
        let Some(call) = self.calls.get(index(id)) else {
            return Delivery::Unknown;
        };
        let delivery = call.entry.deliver((id >> 16) as u16, put);
        if let Delivery::Freed = delivery {
            self.free(index(id));
        }
        delivery
    }

    /// Answers every call that still waits, with what `why` makes.
    pub(crate) fn fail_all(&self, mut why: impl FnMut() -> CallError) {
        for (i, call) in self.calls.made() {
            let id = u32::from(call.entry.generation()) << 16 | i as u32;
            if let Delivery::Delivered(Some(waker)) =
                self.deliver(id, |answer| *answer = Err(why()))
            {
                waker.wake();
            }
        }
        self.room.notify(usize::MAX);
    }

    /// Whether no other deadline is known to lie before this one.
    pub(crate) fn is_earliest(&self, deadline: Nanos) -> bool {
        self.next_deadline.load(Ordering::Relaxed) >= deadline.0
    }

    /// The earliest moment at which [`expire`](Self::expire) may have something to do. Who sleeps until then misses
    /// no deadline.
    pub(crate) fn next_deadline(&self) -> Nanos {
        // All SeqCst, as in `expire`: who sees that a pass has blanked the deadline sees the pass, before or after.
        let before = self.passes.load(Ordering::SeqCst);
        let next = self.next_deadline.load(Ordering::SeqCst);
        let after = self.passes.load(Ordering::SeqCst);
        if before.is_multiple_of(2) && before == after {
            Nanos(next)
        } else {
            Nanos(Nanos::now().0 + SOON)
        }
    }

    /// Wakes the callers whose deadline has passed; they notice it themselves.
    pub(crate) fn expire(&self, now: Nanos) {
        let passes = self.passes.load(Ordering::Relaxed);
        if !passes.is_multiple_of(2) || self.next_deadline.load(Ordering::Relaxed) > now.0 {
            return;
        }
        // One at a time: the others look again soon.
        let pass = (Ordering::SeqCst, Ordering::Relaxed);
        let begun = self
            .passes
            .compare_exchange(passes, passes + 1, pass.0, pass.1);
        if begun.is_err() {
            return;
        }
        // From here on `begin` lowers it again; what was begun before is looked at below.
        self.next_deadline.swap(Nanos::NEVER.0, Ordering::SeqCst);
        let soon = now.0 + SOON;
        let mut next = Nanos::NEVER.0;
        for call in self.taken(Ordering::SeqCst) {
            let Some(call) = call else {
                next = next.min(soon); // just being taken
                continue;
            };
            if call.entry.is_free() {
                next = next.min(now.0 + LATER); // kept, or just being begun
            } else if call.entry.is_waited_for() {
                let deadline = call.deadline.load(Ordering::SeqCst);
                if deadline > now.0 {
                    next = next.min(deadline);
                } else if !call.entry.nudge() {
                    next = next.min(soon);
                }
            }
        }
        self.next_deadline.fetch_min(next, Ordering::SeqCst);
        self.passes.store(passes + 2, Ordering::SeqCst);
    }

    /// Calls begun so far.
    pub(crate) fn count(&self) -> u64 {
        let uses = self.calls.made().map(|(_, call)| &call.uses);
        uses.map(|uses| u64::from(uses.load(Ordering::Relaxed)))
            .sum()
    }

    /// Some call has no answer yet, not even one that its caller has still to look at. An id that is taken and of no
    /// call does not count: it is kept; or its call is just being begun, and will not be sent, since whoever closed the
    /// channel has seen all that were (see [`Channel::send`](urpc_channel::Channel::send)).
    pub(crate) fn unsettled(&self) -> bool {
        let mut calls = self.taken(Ordering::Relaxed);
        calls.any(|call| {
            call.is_none_or(|Outgoing { entry, .. }| !entry.is_answered() && !entry.is_free())
        })
    }

    /// The calls whose ids are taken. `None` for one whose entry is just being made.
    fn taken(&self, order: Ordering) -> impl Iterator<Item = Option<&Outgoing>> {
        const {
            assert!(
                PART == 64,
                "a part of the table for each word of the free list"
            )
        };
        self.free.iter().enumerate().flat_map(move |(part, word)| {
            let taken = !word.load(order);
            let entries = if taken == 0 {
                None
            } else {
                self.calls.part(part)
            };
            let count = PART.min(self.calls.len() - part * PART);
            let taken = (0..count).filter(move |i| taken & 1 << i != 0);
            taken.map(move |i| entries.map(|entries| &entries[i]))
        })
    }

    /// Calls that have no answer yet, abandoned ones included.
    pub(crate) fn outstanding(&self) -> bool {
        let mut left = self.calls.len();
        self.free.iter().any(|word| {
            let all = u64::MAX >> (64 - left.min(64));
            left -= left.min(64);
            word.load(Ordering::Relaxed) != all
        })
    }
}

/// Makes place for the next answer. Returns how much of the byte window this one took.
#[inline]
fn empty(answer: &mut Answer) -> usize {
    match answer {
        Ok(Body::Inline(_)) => 0, // to be overwritten
        _ => std::mem::replace(answer, Ok(Body::EMPTY)).map_or(0, |body| body.window_bytes()),
    }
}

#[cfg(test)]
mod tests;
