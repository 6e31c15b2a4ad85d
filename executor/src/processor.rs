//! The processors that no thread holds, and the threads that wait for one.
//!
//! A [`Processor`] is a value: whoever has it may run tasks, and there are never more than n. It is in
//! the pool or with one thread. Reserve threads wait here to be called; a thread in `block_on` waits
//! here for a processor *or* for its own future. A reserve thread gives way to such a thread.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::block_on::Main;
use crate::queue::Owner;

/// The right to run tasks, and the ready queue that goes with it.
pub(crate) struct Processor {
    pub(crate) id: usize,
    pub(crate) local: Owner,
}

/// What [`Pool::call`] found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// Every processor is held by a thread.
    NoneFree,
    /// Somebody is on the way to each free processor, now at the latest.
    Coming,
}

/// What a thread in `block_on` waited for.
pub(crate) enum Granted {
    /// A processor is its own now.
    Processor(Processor),
    /// Its future was woken.
    Woken,
}

pub(crate) struct Pool {
    /// Copies of `free.len()` and `waiting.len()`, written under the lock, for looks without it.
    free: AtomicUsize,
    wanted: AtomicUsize,
    state: Mutex<State>,
    /// Reserve threads sleep here.
    called: Condvar,
}

struct State {
    free: Vec<Processor>,
    /// Threads asleep in `block_on` that would take a processor.
    waiting: VecDeque<Arc<Main>>,
    /// Calls that no reserve thread has answered yet.
    calls: usize,
    /// Reserve threads that hold no processor: asleep here, or just started.
    spare: usize,
    /// The processors that reserve threads hold, as a mask.
    with_reserve: u64,
    /// Threads started so far; names them.
    started: usize,
    threads: Vec<JoinHandle<()>>,
    closed: bool,
}

impl Pool {
    pub(crate) fn new(processors: Vec<Processor>) -> Pool {
        Pool {
            free: AtomicUsize::new(processors.len()),
            wanted: AtomicUsize::new(0),
            state: Mutex::new(State {
                free: processors,
                waiting: VecDeque::new(),
                calls: 0,
                spare: 0,
                with_reserve: 0,
                started: 0,
                threads: Vec::new(),
                closed: false,
            }),
            called: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Processors that no thread holds.
    pub(crate) fn free(&self) -> usize {
        self.free.load(Ordering::Relaxed)
    }

    /// True if a thread in `block_on` waits for a processor.
    pub(crate) fn wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed) > 0
    }

    fn pop(&self, state: &mut State) -> Option<Processor> {
        let processor = if state.closed { None } else { state.free.pop() };
        self.free.store(state.free.len(), Ordering::Relaxed);
        processor
    }

    /// Takes a free processor, if there is one.
    pub(crate) fn take(&self) -> Option<Processor> {
        self.pop(&mut self.lock())
    }

    /// Puts a processor back, and wakes one who waits for it. The caller then fences and looks whether
    /// anything is ready that this processor has to be called for.
    pub(crate) fn put(&self, processor: Processor) {
        let mut state = self.lock();
        let bit = 1 << processor.id;
        if state.with_reserve & bit != 0 {
            state.with_reserve &= !bit;
            state.spare += 1;
        }
        state.free.push(processor);
        self.free.store(state.free.len(), Ordering::Relaxed);
        if let Some(first) = state.waiting.front() {
            first.signal.notify_one();
        }
    }

    /// Calls a reserve thread to a free processor, unless somebody is on the way to it. `start` starts
    /// a thread with the number given; if it cannot, the processor counts as not free.
    pub(crate) fn call(&self, start: impl FnOnce(usize) -> Option<JoinHandle<()>>) -> Call {
        let mut state = self.lock();
        if state.free.is_empty() || state.closed {
            return Call::NoneFree;
        }
        if state.free.len() <= state.calls + state.waiting.len() {
            return Call::Coming;
        }
        if state.spare <= state.calls {
            let Some(thread) = start(state.started) else {
                return Call::NoneFree;
            };
            state.threads.push(thread);
            state.started += 1;
            state.spare += 1;
        }
        state.calls += 1;
        drop(state);
        self.called.notify_one();
        Call::Coming
    }

    /// Sleeps until this reserve thread is called and has a processor; `None` after `close`.
    pub(crate) fn answer(&self) -> Option<Processor> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            if state.calls == 0 {
                state = self
                    .called
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.calls -= 1;
            // None left if a `block_on` was faster: that thread looks at all queues, too.
            if let Some(processor) = self.pop(&mut state) {
                state.spare -= 1;
                state.with_reserve |= 1 << processor.id;
                return Some(processor);
            }
        }
    }

    /// Sleeps until there is a processor for the thread of `main`, or its future was woken. Before
    /// it sleeps for the first time it calls `ask` with the processors whose holders give way.
    pub(crate) fn wait(&self, main: &Arc<Main>, ask: impl FnOnce(u64)) -> Granted {
        let mut ask = Some(ask);
        let mut state = self.lock();
        let granted = loop {
            if let Some(processor) = self.pop(&mut state) {
                break Granted::Processor(processor);
            }
            if main.take_woken() {
                break Granted::Woken;
            }
            if !state.closed
                && let Some(ask) = ask.take()
            {
                state.waiting.push_back(main.clone());
                self.wanted.store(state.waiting.len(), Ordering::Relaxed);
                let with_reserve = state.with_reserve;
                drop(state);
                ask(with_reserve);
                state = self.lock();
                continue;
            }
            state = main
                .signal
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        };
        state.waiting.retain(|other| !Arc::ptr_eq(other, main));
        self.wanted.store(state.waiting.len(), Ordering::Relaxed);
        // Two processors may have come before this thread woke, and both have been its to announce.
        if !state.free.is_empty()
            && let Some(next) = state.waiting.front()
        {
            next.signal.notify_one();
        }
        granted
    }

    /// Wakes the thread of `main` out of [`wait`](Self::wait), or before it gets there: the lock puts
    /// this either before its look at `take_woken` or after it fell asleep.
    pub(crate) fn nudge(&self, main: &Main) {
        drop(self.lock());
        main.signal.notify_one();
    }

    /// Sends all reserve threads home and gives no more processors away. Returns the threads, once.
    pub(crate) fn close(&self) -> Vec<JoinHandle<()>> {
        let mut state = self.lock();
        state.closed = true;
        let threads = std::mem::take(&mut state.threads);
        drop(state);
        self.called.notify_all();
        threads
    }
}
