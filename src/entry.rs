//! One outgoing call's meeting point: here its caller and its reply find each other.
//!
//! All unsafe code of the calls is in this file. The state word says who may touch what:
//!
//! | state | the caller | `waker` belongs to | `answer` belongs to |
//! | --- | --- | --- | --- |
//! | `Free` | none | the next caller | the next caller |
//! | `Lingering` | waits, and has no waker yet | nobody | nobody |
//! | `Waiting` | waits | nobody | nobody |
//! | `Registering` | waits | who set this state | nobody |
//! | `Claimed` | waits | the registrar, if it came from `Registering`; else who set this state | who set this state |
//! | `Answered` | is woken | the caller | the caller |
//! | `Abandoned` | is gone | the next caller | the next caller |
//!
//! `Claimed` and `Registering` last a few instructions; whoever meets them goes on to something else
//! instead of waiting. An id stays taken until its answer has come: a reply can never hit a later call.
//!
//! The file is generic over what an answer is, so that loom can check it: `loom_models`.

use std::task::Waker;

use sync::{AtomicU32, Ordering, UnsafeCell};

#[cfg(not(urpc_loom))]
mod sync {
    pub(super) use std::sync::atomic::{AtomicU32, Ordering};

    /// `std`'s cell with loom's closures.
    #[derive(Debug, Default)]
    pub(super) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(super) fn new(value: T) -> Self {
            Self(std::cell::UnsafeCell::new(value))
        }
        pub(super) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }
}

#[cfg(urpc_loom)]
mod sync {
    pub(super) use loom::cell::UnsafeCell;
    pub(super) use loom::sync::atomic::{AtomicU32, Ordering};
}

const FREE: u32 = 0;
const WAITING: u32 = 1;
const REGISTERING: u32 = 2;
const CLAIMED: u32 = 3;
const ANSWERED: u32 = 4;
const ABANDONED: u32 = 5;
const LINGERING: u32 = 6;
const STATE: u32 = 0xFFFF;

/// What became of an answer.
#[derive(Debug)]
pub(crate) enum Delivery {
    /// Its caller has to be woken (or, with `None`, is looking right now).
    Delivered(Option<Waker>),
    /// Its caller is gone; the id is free now.
    Freed,
    /// No such call: never made, of an older generation, or answered before. A violation.
    Unknown,
}

/// What became of an attempt to leave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    /// The call goes on without its caller; the id stays taken until the answer comes.
    Abandoned,
    /// The answer was there already: [`take`](Entry::take) it.
    Answered,
    /// Somebody else is at the entry this very moment: try again later.
    Busy,
}

/// See the [module's documentation](self). `word` is `generation << 16 | state`.
#[derive(Debug)]
pub(crate) struct Entry<A> {
    word: AtomicU32,
    waker: UnsafeCell<Option<Waker>>,
    answer: UnsafeCell<A>,
}

// SAFETY: the cells are touched only by the party that the state word names in the table above, and
// every change of hands is an Acquire/Release pair on that word. What is handed over is `Send`.
unsafe impl<A: Send> Sync for Entry<A> {}
// SAFETY: as above; the entry owns what it holds.
unsafe impl<A: Send> Send for Entry<A> {}

impl<A> Entry<A> {
    /// `empty` is what the cell of the answer holds until there is one.
    pub(crate) fn new(empty: A) -> Self {
        Self {
            word: AtomicU32::new(FREE),
            waker: UnsafeCell::new(None),
            answer: UnsafeCell::new(empty),
        }
    }

    /// Free → Waiting, by the one who took this entry's id from the free list. Returns the generation. Without
    /// a waker it is Lingering, and nobody is woken: [`wait`](Self::wait) follows.
    #[inline]
    pub(crate) fn begin(&self, waker: Option<Waker>) -> u16 {
        let generation = ((self.word.load(Ordering::Relaxed) >> 16) as u16).wrapping_add(1);
        let state = if waker.is_some() { WAITING } else { LINGERING };
        self.waker_mut(|own| *own = waker);
        // Pairs with the Acquire in `deliver`: the answerer finds the waker.
        let word = u32::from(generation) << 16 | state;
        self.word.store(word, Ordering::Release);
        generation
    }

    /// Waiting or Lingering → Free, for a call that could not be sent after all.
    pub(crate) fn undo(&self) -> Leave {
        self.leave(FREE)
    }

    /// Registers `waker` for the call of generation `generation`, if that still waits for its answer. False if
    /// it has to look again.
    #[inline]
    pub(crate) fn wait(&self, generation: u16, waker: &Waker) -> bool {
        let word = self.word.load(Ordering::Acquire);
        let own = u32::from(generation) << 16;
        (word == own | WAITING || word == own | LINGERING) && self.register(word, waker)
    }

    /// The same, but for one that has a waker since it began: a call that lingers may be moved, and be waited for
    /// elsewhere, before this end of it is heard of. Then that waker stays.
    pub(crate) fn wait_first(&self, generation: u16, waker: &Waker) -> bool {
        let own = u32::from(generation) << 16;
        let word = self.word.load(Ordering::Acquire);
        if word == own | LINGERING && self.register(word, waker) {
            return true;
        }
        let word = self.word.load(Ordering::Relaxed);
        word == own | WAITING || word == own | REGISTERING
    }

    /// Whether the call of generation `generation` has begun, and no answer to it has come yet.
    pub(crate) fn awaits(&self, generation: u16) -> bool {
        let word = self.word.load(Ordering::Relaxed);
        let comes = matches!(word & STATE, WAITING | LINGERING | REGISTERING | ABANDONED);
        comes && (word >> 16) as u16 == generation
    }

    /// Whether the answer to the call of generation `generation` is there, or that has ended.
    #[inline]
    pub(crate) fn has_answered(&self, generation: u16) -> bool {
        let word = self.word.load(Ordering::Relaxed);
        word & STATE == ANSWERED || (word >> 16) as u16 != generation
    }

    /// Waiting or Lingering → Registering → Waiting, with this waker. False if somebody else is at the entry.
    fn register(&self, word: u32, waker: &Waker) -> bool {
        if !self.change(word, REGISTERING) {
            return false;
        }
        self.waker_mut(|own| match own {
            Some(own) => own.clone_from(waker),
            None => *own = Some(waker.clone()),
        });
        // If an answer came meanwhile, its bearer left the waker to us; leave it for the next call to
        // replace.
        self.change(word & !STATE | REGISTERING, WAITING)
    }

    /// Wakes the caller so that it looks at its deadline. False if that cannot be just now: it has not
    /// registered yet, or somebody else is at the entry.
    pub(crate) fn nudge(&self) -> bool {
        let word = self.word.load(Ordering::Acquire);
        if word & STATE != WAITING {
            return word & STATE != LINGERING; // nobody waits, or the answer is on its way
        }
        if !self.change(word, REGISTERING) {
            return false;
        }
        let woken = self.waker_mut(|waker| waker.as_ref().map(Waker::wake_by_ref));
        self.change(word & !STATE | REGISTERING, WAITING);
        woken.is_some()
    }

    /// Delivers the answer of generation `generation`, which `put` puts in its place: Waiting or Lingering →
    /// Claimed → Answered, Abandoned → Free.
    #[inline]
    pub(crate) fn deliver(&self, generation: u16, put: impl FnOnce(&mut A)) -> Delivery {
        let mut word = self.word.load(Ordering::Acquire);
        loop {
            if (word >> 16) as u16 != generation {
                return Delivery::Unknown;
            }
            let next = match word & STATE {
                WAITING | LINGERING | REGISTERING => CLAIMED,
                ABANDONED => FREE,
                _ => return Delivery::Unknown,
            };
            // AcqRel: takes over the waker from `begin` or `wait`. Pairs with `leave`.
            match self.word.compare_exchange(
                word,
                word & !STATE | next,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) if next == FREE => return Delivery::Freed,
                Ok(_) => break,
                Err(now) => word = now,
            }
        }
        // SAFETY: in Claimed the answer is ours (see the table).
        self.answer.with_mut(|cell| put(unsafe { &mut *cell }));
        let waker = match word & STATE {
            WAITING => self.waker_mut(Option::take),
            _ => None, // the registrar has the waker, and looks again itself
        };
        // Pairs with the Acquire in `take` and `leave`: the caller finds the answer.
        self.word.store(word & !STATE | ANSWERED, Ordering::Release);
        Delivery::Delivered(waker)
    }

    /// The caller is gone: Waiting or Lingering → Abandoned, Answered → Free.
    pub(crate) fn abandon(&self) -> Leave {
        self.leave(ABANDONED)
    }

    /// The generation of the latest call.
    pub(crate) fn generation(&self) -> u16 {
        (self.word.load(Ordering::Relaxed) >> 16) as u16
    }

    /// Not begun, or not any more.
    pub(crate) fn is_free(&self) -> bool {
        self.word.load(Ordering::Relaxed) & STATE == FREE
    }

    /// The answer is there, and its caller has not looked yet.
    pub(crate) fn is_answered(&self) -> bool {
        self.word.load(Ordering::Relaxed) & STATE == ANSWERED
    }

    /// A caller waits for the answer.
    pub(crate) fn is_waited_for(&self) -> bool {
        let state = self.word.load(Ordering::Relaxed) & STATE;
        matches!(state, WAITING | LINGERING | REGISTERING)
    }

    fn leave(&self, to: u32) -> Leave {
        let word = self.word.load(Ordering::Acquire);
        match word & STATE {
            ANSWERED => Leave::Answered,
            WAITING | LINGERING if self.change(word, REGISTERING) => {
                let waker = self.waker_mut(Option::take);
                let left = self.change(word & !STATE | REGISTERING, to);
                // Outside of the entry: dropping a waker can run anything.
                drop(waker);
                if left { Leave::Abandoned } else { Leave::Busy }
            }
            _ => Leave::Busy,
        }
    }

    /// What the caller does with its answer, if that is there: Answered → Free. It leaves the cell of the answer
    /// empty; if it panics, the answer is still there.
    #[inline]
    pub(crate) fn take<R>(&self, take: impl FnOnce(&mut A) -> R) -> Option<R> {
        let word = self.word.load(Ordering::Acquire);
        if word & STATE != ANSWERED {
            return None;
        }
        // SAFETY: in Answered the cells are the caller's, and a call has one caller, which does one thing at a
        // time.
        let taken = self.answer.with_mut(|cell| take(unsafe { &mut *cell }));
        self.word.store(word & !STATE | FREE, Ordering::Release);
        Some(taken)
    }

    fn change(&self, from: u32, to: u32) -> bool {
        self.word
            .compare_exchange(
                from,
                from & !STATE | to,
                Ordering::AcqRel,
                Ordering::Relaxed,
            )
            .is_ok()
    }

    fn waker_mut<R>(&self, f: impl FnOnce(&mut Option<Waker>) -> R) -> R {
        // SAFETY: the callers hold the state in which the waker is theirs: `begin` a free entry taken
        // from the free list, `wait`, `nudge` and `leave` Registering, `deliver` Claimed.
        self.waker.with_mut(|cell| f(unsafe { &mut *cell }))
    }
}

#[cfg(all(test, not(urpc_loom)))]
mod tests;

#[cfg(all(test, urpc_loom))]
mod loom_models;
