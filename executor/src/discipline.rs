//! The order in which ready tasks run, when the application chooses it.
//!
//! A [`Discipline`] is one object for all processors of an executor: every task that becomes ready is
//! pushed into it, and whoever has a processor free pops the next one. It decides nothing else: a task
//! is never taken away from its processor, and the looks at channels and timers between tasks stay
//! where they are. How its count joins the protocol of push and rest is in `ordered.rs`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::shared::Shared;
use crate::task::Runnable;

/// The order in which ready tasks run. It is called from all threads of its executor, and from those
/// that wake its tasks.
///
/// Without one, each processor has a queue of its own, first in, first out, and takes from others when
/// that is empty: that is faster, because nothing is shared, but it is no order across processors, and
/// a task whose reply has just come in runs ahead of its turn. With a discipline it waits for its turn.
///
/// Neither method may block for long, poll, wake or spawn: they run in the middle of somebody's wake.
///
/// A discipline can harm only its own process. If it panics, the panic hook reports that, and the task
/// in hand is dropped; if it drops a task, that is aborted, as [`JoinHandle::abort`] does it (beware of
/// the task's destructor there, if a lock is held). One that keeps tasks back although it is asked keeps
/// its workers awake and asking.
///
/// [`JoinHandle::abort`]: crate::JoinHandle::abort
///
/// ```
/// use std::collections::VecDeque;
/// use std::sync::{Arc, Mutex};
/// use urpc_executor::{Discipline, Executor, Park, Ready};
///
/// /// What is urgent goes to the front, everything else to the back.
/// #[derive(Default)]
/// struct Express(Mutex<VecDeque<Ready>>);
///
/// impl Discipline for Express {
///     fn push(&self, task: Ready) {
///         let mut line = self.0.lock().unwrap();
///         if task.priority() > 0 {
///             line.push_front(task);
///         } else {
///             line.push_back(task);
///         }
///     }
///
///     fn pop(&self) -> Option<Ready> {
///         self.0.lock().unwrap().pop_front()
///     }
/// }
///
/// let idle = Arc::new(Park::new());
/// let executor = Executor::with_discipline(1, "express", idle, Arc::new(Express::default()));
/// let urgent = executor.spawn_with(1, async { "first" });
/// assert_eq!(executor.block_on(urgent)?, "first");
/// executor.shutdown();
/// # Ok::<(), urpc_executor::JoinError>(())
/// ```
pub trait Discipline: Send + Sync + 'static {
    /// Takes a task that has become ready.
    fn push(&self, task: Ready);

    /// Gives the task that is to run now. It is asked only while it has one, unless it drops tasks;
    /// `None` means that it has none.
    fn pop(&self) -> Option<Ready>;
}

impl<D: Discipline + ?Sized> Discipline for Arc<D> {
    fn push(&self, task: Ready) {
        (**self).push(task);
    }

    fn pop(&self) -> Option<Ready> {
        (**self).pop()
    }
}

/// A task that waits for its turn. Only its executor can run it; dropping it aborts it.
pub struct Ready {
    /// `None` only in `drop`, or when it has been taken to be run.
    task: Option<Runnable>,
}

impl Ready {
    pub(crate) fn new(task: Runnable) -> Ready {
        Ready { task: Some(task) }
    }

    /// The number that the task was spawned with, see [`Executor::spawn_with`]; 0 if it was given none.
    ///
    /// [`Executor::spawn_with`]: crate::Executor::spawn_with
    pub fn priority(&self) -> i32 {
        let tag = self.task.as_ref().map(Runnable::metadata);
        tag.map_or(0, |tag| tag.priority)
    }

    /// The task, if it is one of executor `serial`.
    pub(crate) fn of(mut self, serial: u32) -> Option<Runnable> {
        // If it is not, `self` is dropped, and the count of its own executor is right again.
        self.task.take_if(|task| task.metadata().serial == serial)
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            let shared = Shared::of(task.metadata().serial);
            drop(task);
            if let Some(ordered) = shared.as_ref().and_then(|shared| shared.ordered()) {
                ordered.dropped_one();
            }
        }
    }
}

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ready")
            .field("priority", &self.priority())
            .finish_non_exhaustive()
    }
}

/// First ready, first run, across all processors.
///
/// This is stricter than what an executor does without a [`Discipline`], and slower.
#[derive(Debug, Default)]
pub struct Fifo(Mutex<VecDeque<Ready>>);

impl Fifo {
    /// An empty queue.
    pub fn new() -> Fifo {
        Fifo::default()
    }
}

impl Discipline for Fifo {
    fn push(&self, task: Ready) {
        lock(&self.0).push_back(task);
    }

    fn pop(&self) -> Option<Ready> {
        lock(&self.0).pop_front()
    }
}

/// Last ready, first run: what was touched last is still in the cache.
///
/// A task can starve: as long as others become ready, those at the bottom wait. That is meant.
#[derive(Debug, Default)]
pub struct Lifo(Mutex<Vec<Ready>>);

impl Lifo {
    /// An empty stack.
    pub fn new() -> Lifo {
        Lifo::default()
    }
}

impl Discipline for Lifo {
    fn push(&self, task: Ready) {
        lock(&self.0).push(task);
    }

    fn pop(&self) -> Option<Ready> {
        lock(&self.0).pop()
    }
}

/// The highest [priority](Ready::priority) first; among equals, first ready, first run.
///
/// A task can starve: as long as tasks of higher priority become ready, it waits. That is meant.
#[derive(Debug, Default)]
pub struct Priorities(Mutex<Ranks>);

#[derive(Debug, Default)]
struct Ranks {
    /// By priority, and then by the order of coming.
    ready: BTreeMap<(Reverse<i32>, u64), Ready>,
    /// Tasks that have come so far.
    came: u64,
}

impl Priorities {
    /// An empty queue.
    pub fn new() -> Priorities {
        Priorities::default()
    }
}

impl Discipline for Priorities {
    fn push(&self, task: Ready) {
        let mut ranks = lock(&self.0);
        ranks.came += 1;
        let key = (Reverse(task.priority()), ranks.came);
        ranks.ready.insert(key, task);
    }

    fn pop(&self) -> Option<Ready> {
        let (_, task) = lock(&self.0).ready.pop_first()?;
        Some(task)
    }
}

/// None of these locks is held while anything else runs, so none is poisoned.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
