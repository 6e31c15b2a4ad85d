//! Recording: a buffer for each thread, and a word that says whether to fill it.
//!
//! A thread locks only its own buffer, and only while recording is on; whoever takes the events locks one
//! buffer after the other. Memory is bounded twice: each buffer has [`EVENTS`] places, and there are never
//! more than [`BUFFERS`] of threads that have ended.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Event, Processor, What};
use crate::binding::Binding;
use crate::wire::Nanos;

/// Of each thread, between two [`take`]s: some 3 MiB.
const EVENTS: usize = 1 << 15;

/// Of threads that have ended. Beyond that the oldest is dropped as a whole.
const BUFFERS: usize = 64;

/// Whether to record. Guards nothing: an event more or less at either end is as good.
static ON: AtomicBool = AtomicBool::new(false);
/// This process, as of [`start`].
static PID: AtomicU32 = AtomicU32::new(0);
static ALL: Mutex<Vec<Arc<Buffer>>> = Mutex::new(Vec::new());
/// What went with buffers that were dropped as a whole.
static LOST: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static PROCESSOR: Cell<Processor> = const { Cell::new(Processor::Outside) };
    static MINE: Arc<Buffer> = Buffer::for_this_thread();
}

/// The events of one thread, in their order.
#[derive(Default)]
struct Buffer(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    events: Vec<Event>,
    dropped: u64,
}

impl Buffer {
    fn for_this_thread() -> Arc<Self> {
        let mine = Arc::new(Self::default());
        let mut all = lock(&ALL);
        all.push(Arc::clone(&mine));
        let ended = |buffer: &Arc<Self>| Arc::strong_count(buffer) == 1;
        if all.iter().filter(|buffer| ended(buffer)).count() > BUFFERS
            && let Some(oldest) = all.iter().position(ended)
        {
            let kept = all.remove(oldest);
            let lost = lock(&kept.0).all();
            LOST.fetch_add(lost, Ordering::Relaxed);
        }
        mine
    }
}

impl Kept {
    fn push(&mut self, event: Event) {
        if self.events.len() < EVENTS {
            self.events.push(event);
        } else {
            self.dropped += 1;
        }
    }

    fn all(&self) -> u64 {
        self.events.len() as u64 + self.dropped
    }

    /// Empties it into `out`.
    fn drain(&mut self, out: &mut Vec<Event>) {
        let last = self.events.last().map(|last| (last.at, last.processor));
        out.append(&mut self.events);
        self.events = Vec::new();
        let dropped = std::mem::take(&mut self.dropped);
        if let (Some((at, processor)), 1..) = (last, dropped) {
            out.push(missing(at, processor, dropped));
        }
    }
}

fn missing(at: u64, processor: Processor, events: u64) -> Event {
    Event {
        at,
        pid: PID.load(Ordering::Relaxed),
        processor,
        what: What::Dropped { events },
        peer: None,
        call: None,
    }
}

pub(super) fn start(name: &str) {
    PID.store(std::process::id(), Ordering::Relaxed);
    ON.store(true, Ordering::Relaxed);
    note(What::Start { name: name.into() }, None, None);
}

pub(super) fn stop() {
    ON.store(false, Ordering::Relaxed);
}

pub(super) fn take() -> Vec<Event> {
    let mut events = Vec::new();
    lock(&ALL).retain(|buffer| {
        // Asked first: a thread that ends after this has its buffer looked at once more.
        let lives = Arc::strong_count(buffer) > 1;
        lock(&buffer.0).drain(&mut events);
        lives
    });
    // Stable: events of a thread stay in their order.
    events.sort_by_key(|event| event.at);
    let lost = LOST.swap(0, Ordering::Relaxed);
    if lost > 0 {
        let at = events.last().map_or(0, |last| last.at);
        events.push(missing(at, Processor::Outside, lost));
    }
    events
}

fn pid_of(binding: &Binding) -> u32 {
    binding.process.credentials().pid.cast_unsigned()
}

impl Processor {
    /// What a worker runs on, by the number of its processor.
    pub(crate) fn of(worker: Option<usize>) -> Self {
        worker.map_or(Self::Outside, |id| Self::Worker(id as u32))
    }

    /// Landing `k` of this channel.
    pub(crate) fn landing(binding: &Binding, k: usize) -> Self {
        Self::Landing {
            peer: pid_of(binding),
            k: k as u32,
        }
    }
}

/// From here on this thread is `processor`.
pub(crate) fn set_processor(processor: Processor) {
    PROCESSOR.set(processor);
}

/// A moment to be remembered; 0 while nothing is recorded.
#[inline]
pub(crate) fn moment() -> u64 {
    if is_on() { Nanos::now().0 } else { 0 }
}

/// Whether to record: what every note asks first.
#[inline]
pub(crate) fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// Records an event that happens now.
#[cold]
#[inline(never)]
pub(crate) fn note(what: What, peer: Option<&Binding>, call: Option<u32>) {
    record(Nanos::now().0, what, peer, call);
}

/// Records what happened at `moment`.
#[inline]
pub(crate) fn note_at(moment: u64, what: What, peer: &Binding) {
    if is_on() && moment != 0 {
        record(moment, what, Some(peer), None);
    }
}

fn record(at: u64, what: What, peer: Option<&Binding>, call: Option<u32>) {
    let event = Event {
        at,
        pid: PID.load(Ordering::Relaxed),
        processor: PROCESSOR.get(),
        what,
        peer: peer.map(pid_of),
        call,
    };
    // A thread that is about to end has no buffer any more.
    let _ = MINE.try_with(|mine| lock(&mine.0).push(event));
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(all(test, not(urpc_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_full_buffer_says_how_much_is_missing() {
        let mut kept = Kept::default();
        for at in 0..EVENTS as u64 + 7 {
            kept.push(Event {
                at,
                pid: 1,
                processor: Processor::StandIn,
                what: What::Rest,
                peer: None,
                call: None,
            });
        }
        let mut out = Vec::new();
        kept.drain(&mut out);
        assert_eq!(out.len(), EVENTS + 1);
        let last = out.last().map(|event| (event.at, &event.what));
        let missing = What::Dropped { events: 7 };
        assert_eq!(last, Some((EVENTS as u64 - 1, &missing)));
        kept.drain(&mut out);
        assert_eq!(out.len(), EVENTS + 1, "it was said once");
    }
}
