//! Tasks: futures that the executor polls.
//!
//! A task lives in async-task; this file adds what a runtime needs around it. A panic of a poll goes to
//! the handle. A destructor that panics is reported by the panic hook and otherwise goes nowhere. And
//! a shutdown finds every task: one that is ready is in a queue, and one that waits is in the
//! [`Registry`], which it enters when it is pending for the first time, so that a task that never
//! waits pays nothing for it.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use slab::Slab;

use crate::executor::Executor;
use crate::join::JoinHandle;
use crate::linger;
use crate::shared::Shared;
use crate::worker::Worker;

/// A task that is ready.
pub(crate) type Runnable = async_task::Runnable<Tag>;

/// What async-task keeps with each task, without an allocation of its own.
#[derive(Clone, Copy)]
pub(crate) struct Tag {
    /// Of its executor.
    pub(crate) serial: u32,
    /// For a discipline; nobody else looks at it.
    pub(crate) priority: i32,
}

/// Parts of the registry, each with its lock; a worker uses the one of its processor.
const SHARDS: usize = 8;

/// Makes a task of a future. It is neither queued nor polled yet.
pub(crate) fn task<F>(
    executor: &Executor,
    priority: i32,
    future: F,
) -> (Runnable, JoinHandle<F::Output>)
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    // The serial stands for the executor: a counted reference would cost two locked instructions
    // for each task, and make a circle of the executor and the tasks in its queues. It is not in the
    // closure, for which async-task would count a reference to the task each time it is ready.
    let builder = async_task::Builder::new().propagate_panic(true);
    let builder = builder.metadata(Tag {
        serial: executor.shared.serial,
        priority,
    });
    let new = |_: &Tag| Task {
        future: Some(future),
        entry: None,
    };
    let (runnable, task) = builder.spawn(new, ready);
    (runnable, JoinHandle::of(task.fallible()))
}

/// Called by async-task when a task is ready: puts it where somebody will run it.
fn ready(task: Runnable) {
    if let Err(task) = Worker::ready_here(task) {
        ready_outside(task);
    }
}

#[inline(never)]
fn ready_outside(task: Runnable) {
    match Shared::of(task.metadata().serial) {
        Some(shared) => shared.inject(task),
        None => drop(task), // the executor is gone, and its tasks with it
    }
}

/// The future of a task, and its place in the registry.
struct Task<F> {
    /// Pinned. `None` once it is ready or dropped.
    future: Option<F>,
    entry: Option<Entry>,
}

impl<F> Task<F> {
    fn project(self: Pin<&mut Self>) -> (Pin<&mut Option<F>>, &mut Option<Entry>) {
        // SAFETY: `future` is pinned with `self`: nothing in this file moves it out (`set(None)`
        // drops it in place), `Drop` below treats it as pinned, and `Task` is `Unpin` only if `F`
        // is. `entry` is never pinned.
        let this = unsafe { self.get_unchecked_mut() };
        // SAFETY: as above.
        (
            unsafe { Pin::new_unchecked(&mut this.future) },
            &mut this.entry,
        )
    }

    /// Drops the future in place. If its destructor panics, the panic hook has said so.
    fn clear(future: Pin<&mut Option<F>>) {
        let mut future = future;
        let _ = catch_unwind(AssertUnwindSafe(|| future.set(None)));
    }
}

impl<F: Future> Future for Task<F> {
    type Output = Output<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (mut slot, entry) = self.project();
        let Some(mut future) = slot.as_mut().as_pin_mut() else {
            unreachable!("async-task polls no future that was ready");
        };
        match linger::poll(cx, |cx| future.as_mut().poll(cx)) {
            Poll::Ready(output) => {
                let output = Output(Some(output));
                Self::clear(slot);
                Poll::Ready(output)
            }
            Poll::Pending => {
                if entry.is_none() {
                    *entry = Entry::register(cx.waker());
                }
                Poll::Pending
            }
        }
    }
}

impl<F> Drop for Task<F> {
    fn drop(&mut self) {
        // SAFETY: whatever was pinned stays where it is until the end of `drop`.
        let (future, entry) = unsafe { Pin::new_unchecked(self) }.project();
        Self::clear(future);
        if let Some(entry) = entry.take() {
            entry.remove();
        }
    }
}

/// What a task made, in a wrapping that survives a destructor that panics.
pub(crate) struct Output<T>(Option<T>);

impl<T> Output<T> {
    pub(crate) fn into_inner(mut self) -> Option<T> {
        self.0.take()
    }
}

impl<T> Drop for Output<T> {
    fn drop(&mut self) {
        if let Some(value) = self.0.take() {
            let _ = catch_unwind(AssertUnwindSafe(|| drop(value)));
        }
    }
}

/// The tasks that wait, so that a shutdown can drop them.
pub(crate) struct Registry {
    shards: [Mutex<Shard>; SHARDS],
}

struct Shard {
    wakers: Slab<Waker>,
    closed: bool,
}

/// A task's place in the registry of its executor.
struct Entry {
    serial: u32,
    shard: usize,
    key: usize,
}

impl Entry {
    /// Enters a task of the executor whose worker this thread is: only that one polls it.
    fn register(waker: &Waker) -> Option<Entry> {
        let worker = Worker::current()?;
        let shared = &worker.executor().shared;
        let shard = worker.shard() % SHARDS;
        match shared.registry.enter(shard, waker.clone()) {
            Ok(key) => Some(Entry {
                serial: shared.serial,
                shard,
                key,
            }),
            // The shutdown has been here already. Woken now, the task is dropped after this poll.
            Err(waker) => {
                waker.wake();
                None
            }
        }
    }

    fn remove(self) {
        match Worker::current() {
            Some(worker) if worker.executor().shared.serial == self.serial => {
                worker.executor().shared.registry.leave(&self);
            }
            _ => {
                if let Some(shared) = Shared::of(self.serial) {
                    shared.registry.leave(&self);
                }
            }
        }
    }
}

impl Registry {
    pub(crate) fn new() -> Registry {
        let shard = |_| {
            Mutex::new(Shard {
                wakers: Slab::new(),
                closed: false,
            })
        };
        Registry {
            shards: std::array::from_fn(shard),
        }
    }

    fn enter(&self, shard: usize, waker: Waker) -> Result<usize, Waker> {
        let mut shard = self.shards[shard]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if shard.closed {
            Err(waker)
        } else {
            Ok(shard.wakers.insert(waker))
        }
    }

    fn leave(&self, entry: &Entry) {
        let mut shard = self.shards[entry.shard]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let waker = shard.wakers.try_remove(entry.key);
        drop(shard); // a waker may be the last reference to a task
        drop(waker);
    }

    /// Takes no more tasks, and wakes those that are here, so that they get into the queues.
    pub(crate) fn close(&self) {
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.closed = true;
            let wakers = std::mem::take(&mut shard.wakers);
            drop(shard);
            for (_, waker) in wakers {
                waker.wake();
            }
        }
    }
}

/// Lets the other ready tasks of this worker go first.
///
/// # Cancellation
/// Dropping it does nothing.
#[derive(Debug)]
#[must_use = "a future does nothing unless it is awaited"]
pub struct YieldNow {
    yielded: bool,
}

/// A future that is pending once, and wakes its task at once: the task goes to the back of the queue.
pub fn yield_now() -> YieldNow {
    YieldNow { yielded: false }
}

impl Future for YieldNow {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
