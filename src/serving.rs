//! The calls this process serves on one channel: which ids are live, and how each gets its one answer.
//!
//! Every request is answered exactly once, whatever becomes of it: by its result, by a status, or, if
//! its task is dropped, by "given up" from [`Served`]'s destructor. An id is free again just before its
//! answer is sent; a request with a live id breaks the protocol.

mod answer;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;
use urpc_channel::Body;
use urpc_executor::JoinHandle;

use crate::binding::Binding;
use crate::caller::Within;
use crate::table::Table;
use crate::wire::{self, Nanos, Status, Undecodable};
use answer::{answer, fail};

/// A request is being served: the low 32 bits of its word are its id.
const LIVE: u64 = 1 << 32;
/// Its caller is gone.
const CANCELLED: u64 = 1 << 33;
/// There was no room for its arguments.
const TOO_MUCH: u64 = 1 << 34;
/// Its arguments are large: `bytes` says how many there are.
const LARGE: u64 = 1 << 35;
/// From here on the word counts its requests: an id may be used again as soon as its answer is on its way.
const TURN: u64 = 1 << 36;

struct Incoming {
    word: AtomicU64,
    bytes: AtomicU32,
    /// The task it became, if it did not end at its first poll, and in which turn.
    task: Mutex<Option<(u64, JoinHandle<()>)>>,
}

/// See the [module's documentation](self).
pub(crate) struct Serving {
    calls: Table<Incoming>,
    /// Written under the receiving end's lock only.
    begun: AtomicU64,
}

impl Serving {
    /// Room for the `calls` that the peer was given credit for.
    pub(crate) fn new(calls: u32) -> Self {
        let new = || Incoming {
            word: AtomicU64::new(0),
            bytes: AtomicU32::new(0),
            task: Mutex::new(None),
        };
        Self {
            calls: Table::new(calls as usize, new),
            begun: AtomicU64::new(0),
        }
    }

    fn entry(&self, id: u32) -> Option<&Incoming> {
        self.calls.get((id & 0xFFFF) as usize)
    }

    /// A request came in. False if its id is live or beyond the credit: a violation. Only under the
    /// receiving end's lock, so a cancel that follows finds it.
    pub(crate) fn begin(&self, id: u32) -> bool {
        let Some(entry) = self.entry(id) else {
            return false;
        };
        // Pairs with the Release in `end`.
        let word = entry.word.load(Ordering::Acquire);
        if word & LIVE != 0 {
            return false;
        }
        let turn = turn(word).wrapping_add(TURN);
        entry
            .word
            .store(turn | LIVE | u64::from(id), Ordering::Relaxed);
        let begun = self.begun.load(Ordering::Relaxed);
        self.begun.store(begun + 1, Ordering::Relaxed);
        true
    }

    /// The request that has just begun has so many bytes, for which there is room. As `begin`.
    pub(crate) fn note_bytes(&self, id: u32, bytes: u32) {
        if let Some(entry) = self.entry(id) {
            entry.bytes.store(bytes, Ordering::Relaxed);
            // Nobody else writes it before the request is dispatched.
            let word = entry.word.load(Ordering::Relaxed);
            entry.word.store(word | LARGE, Ordering::Relaxed);
        }
    }

    /// There is no room for the request that has just begun. As `begin`.
    pub(crate) fn note_too_much(&self, id: u32) {
        if let Some(entry) = self.entry(id) {
            entry.word.fetch_or(TOO_MUCH, Ordering::Relaxed);
        }
    }

    /// Its answer is about to be sent. Returns the bytes there was room made for.
    #[inline]
    pub(crate) fn end(&self, id: u32) -> Option<u32> {
        let entry = self.entry(id)?;
        let word = entry.word.load(Ordering::Relaxed);
        let bytes = (word & LARGE != 0).then(|| entry.bytes.load(Ordering::Relaxed));
        entry.word.store(turn(word), Ordering::Release);
        bytes
    }

    /// The caller of `id` is gone: its task is dropped. Too late is nothing: the answer is on its way.
    pub(crate) fn cancel(&self, id: u32) {
        let Some(entry) = self.entry(id) else { return };
        // Pairs with the look in `keep`, through the mutex: one of the two aborts the task.
        let cancelled = entry
            .word
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |word| {
                let live = word & (CANCELLED | TOO_MUCH) == 0 && is_live(word, id);
                live.then_some(word | CANCELLED)
            });
        if let Ok(word) = cancelled {
            let task = lock(&entry.task).take_if(|(of, _)| *of == turn(word));
            if let Some((_, task)) = task {
                task.abort();
            }
        }
    }

    /// What has been noted about a request: `CANCELLED`, `TOO_MUCH`.
    #[inline]
    fn notes(&self, id: u32) -> u64 {
        let word = self.entry(id).map_or(0, |e| e.word.load(Ordering::Acquire));
        word & (CANCELLED | TOO_MUCH)
    }

    /// Which of the requests with this id is live.
    fn turn(&self, id: u32) -> u64 {
        let word = |entry: &Incoming| entry.word.load(Ordering::Relaxed);
        turn(self.entry(id).map_or(0, word))
    }

    /// Remembers the task that serves `id` in this turn, unless that has ended; or aborts it if the caller is gone
    /// already.
    fn keep(&self, id: u32, of: u64, task: JoinHandle<()>) {
        let Some(entry) = self.entry(id) else { return };
        let mut place = lock(&entry.task);
        let word = entry.word.load(Ordering::Acquire);
        if turn(word) != of || !is_live(word, id) {
            return;
        }
        if word & CANCELLED == 0 {
            *place = Some((of, task));
        } else {
            drop(place);
            task.abort();
        }
    }

    /// Calls received so far.
    pub(crate) fn count(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// The channel is closed: nobody waits for any of these.
    pub(crate) fn abort_all(&self) {
        for (_, entry) in self.calls.made() {
            let task = lock(&entry.task).take();
            if let Some((_, task)) = task {
                task.abort();
            }
        }
    }
}

fn turn(word: u64) -> u64 {
    word & !(TURN - 1)
}

fn is_live(word: u64, id: u32) -> bool {
    word & LIVE != 0 && word as u32 == id
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request that was received, and waits for the end of that.
pub(crate) struct Waiting {
    pub(crate) id: u32,
    pub(crate) procedure: u16,
    pub(crate) deadline_ms: u32,
    pub(crate) body: Body,
}

impl Waiting {
    pub(crate) const EMPTY: Self = Self {
        id: 0,
        procedure: 0,
        deadline_ms: 0,
        body: Body::EMPTY,
    };
}

/// A request on its way to its handler. It is answered by the method that consumes it.
pub(crate) struct Request<'a> {
    binding: &'a Arc<Binding>,
    message: &'a mut Waiting,
    deadline: Nanos,
}

impl<'a> Request<'a> {
    /// Takes up a request for which [`Serving::begin`] was true.
    #[inline(always)]
    pub(crate) fn new(binding: &'a Arc<Binding>, message: &'a mut Waiting) -> Self {
        let deadline = match message.deadline_ms {
            0 => Nanos::NEVER,
            ms => Nanos::coarse().deadline(ms),
        };
        Self {
            binding,
            message,
            deadline,
        }
    }

    /// Whether it should not even be begun: its caller is gone, or its time is over, or the server leaves, or has
    /// enough to do.
    #[inline(always)]
    pub(crate) fn is_vain(&self) -> bool {
        self.deadline != Nanos::NEVER && self.deadline < Nanos::coarse()
            || self.binding.serving.notes(self.message.id) != 0
            || self.binding.draining.load(Ordering::Relaxed)
            || self.binding.holding.is_full()
    }

    /// Answers one that is in vain.
    #[cold]
    pub(crate) fn dismiss(self) {
        let notes = self.binding.serving.notes(self.message.id);
        let late = self.deadline != Nanos::NEVER && self.deadline < Nanos::coarse();
        let (status, text) = if notes & CANCELLED != 0 {
            let text = "its caller gave it up before it was begun";
            (Status::NotStarted, text)
        } else if self.binding.draining.load(Ordering::Relaxed) {
            (Status::ShuttingDown, "the server is shutting down")
        } else if notes & TOO_MUCH != 0 {
            let text = "there is no room for so many bytes (`Builder::max_bytes`)";
            (Status::Overloaded, text)
        } else if late {
            (Status::Late, "its deadline passed before it was begun")
        } else {
            let text = "there are too many calls already (`Builder::max_serving`)";
            (Status::Overloaded, text)
        };
        self.refuse(status, text);
    }

    pub(crate) fn binding(&self) -> &'a Arc<Binding> {
        self.binding
    }

    #[cfg(feature = "trace")]
    pub(crate) fn id(&self) -> u32 {
        self.message.id
    }

    pub(crate) fn procedure(&self) -> u16 {
        self.message.procedure
    }

    pub(crate) fn deadline(&self) -> Nanos {
        self.deadline
    }

    /// Decodes the arguments, and lets the peer have their room back.
    #[inline]
    pub(crate) fn decode<T: DeserializeOwned>(&mut self) -> Result<T, Undecodable> {
        let nesting = self.binding.node.config.caps.nesting;
        self.release();
        wire::decode(&mut self.message.body, nesting)
    }

    /// Lets the peer have the room of a large request back: its bytes become the handler's.
    #[inline]
    fn release(&mut self) {
        let bytes = self.message.body.window_bytes();
        if bytes != 0 {
            self.binding.channel.freed(bytes);
        }
    }

    /// Encodes the result, where the arguments were.
    #[inline]
    pub(crate) fn encode<T: Serialize>(&mut self, result: &T) -> Result<(), String> {
        wire::encode(result, &mut self.message.body)
    }

    /// Answers with what was encoded.
    #[inline]
    pub(crate) fn reply(self) {
        answer(self.binding, self.message.id, &mut self.message.body);
    }

    /// Answers one that was not decoded.
    #[cold]
    pub(crate) fn refuse(mut self, status: Status, text: &str) {
        self.release();
        self.fail(status, text);
    }

    /// Answers one that was.
    #[cold]
    pub(crate) fn fail(self, status: Status, text: &str) {
        self.message.body.clear();
        fail(self.binding, self.message.id, status, text);
    }

    /// The handler was not done at its first poll: from now on it is a task.
    pub(crate) fn go_on<F>(self, handler: F)
    where
        F: Future<Output = Result<Body, (Status, String)>> + Send + Unpin + 'static,
    {
        let id = self.message.id;
        let turn = self.binding.serving.turn(id);
        self.binding.holding.begin();
        let mut served = Served {
            binding: Arc::clone(self.binding),
            id,
            answered: false,
        };
        let within = Within {
            binding: Arc::clone(self.binding),
            deadline: self.deadline,
            future: handler,
        };
        let task = async move {
            let result = within.await;
            served.answered = true;
            match result {
                Ok(mut body) => answer(&served.binding, id, &mut body),
                Err((status, text)) => fail(&served.binding, id, status, &text),
            }
        };
        let task = self.binding.node.spawn_pending(task);
        keep(self.binding, (id, turn), task);
    }
}

/// Has a task of call `id` aborted when its caller gives up, or the channel is closed. It may be over by now, and
/// another call have the id.
fn keep(binding: &Binding, (id, turn): (u32, u64), task: Option<JoinHandle<()>>) {
    let Some(task) = task else { return };
    binding.serving.keep(id, turn, task);
    // Who closed the channel meanwhile has aborted what was kept, or is seen here, through the mutex in `keep`.
    if binding.is_closed() {
        binding.serving.abort_all();
    }
}

/// A call that is served by a task. Dropped without an answer, it answers that it was given up.
struct Served {
    binding: Arc<Binding>,
    id: u32,
    answered: bool,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.binding.holding.end();
        if !self.answered {
            let why = "its task was dropped by the server";
            fail(&self.binding, self.id, Status::Abandoned, why);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_that_is_kept_too_late_takes_no_later_ones_place() {
        let runtime = crate::Runtime::builder().processors(1).build().unwrap();
        let task = || runtime.spawn(std::future::pending());
        let serving = Serving::new(1);
        let begin = || {
            assert!(serving.begin(0) && !serving.begin(0));
            serving.turn(0)
        };
        let first = begin();
        serving.end(0);
        let second = begin();
        serving.keep(0, second, task());
        serving.keep(0, first, task());
        let kept = || {
            lock(&serving.entry(0).unwrap().task)
                .as_ref()
                .map(|(of, _)| *of)
        };
        assert_eq!(kept(), Some(second));
        serving.cancel(0);
        assert_eq!(kept(), None, "it has been aborted");
    }
}
