//! The worker: a thread that runs tasks.
//!
//! A thread is at most one [`Worker`] at a time, and a thread-local knows which, so that a wake on a
//! worker costs a push and no locked instruction. `worker/seat.rs` makes it one, `worker/search.rs` has
//! its loop, and the order in which it looks for tasks.

mod search;
mod seat;

pub use seat::Guest;
pub(crate) use seat::Seat;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use crate::block_on::Main;
use crate::executor::Executor;
use crate::ordered::Ordered;
use crate::processor::Processor;
use crate::task::Runnable;

/// Tasks that a busy worker runs between two looks at everything else: bounds how late it sees a
/// call, a due timer or a task from outside. A prime, so that it does not beat with loops of tasks.
pub const TASKS_PER_SCAN: u32 = 61;

/// Polls that `spawn_eager` nests before it queues instead: bounds the stack.
const EAGER_DEPTH: u32 = 16;

thread_local! {
    /// Never dropped, so that nothing is asked before each look at it: whoever put something there takes it away.
    static CURRENT: ManuallyDrop<RefCell<Option<Rc<Worker>>>> =
        const { ManuallyDrop::new(RefCell::new(None)) };
}

/// Why a thread is a worker.
pub(crate) enum Role {
    /// A thread of the executor's own; it gives way to threads in `block_on`.
    Reserve,
    /// A thread in `block_on`.
    Main(Arc<Main>),
    /// A thread in `run_while`.
    Guest,
}

/// Where a task goes that becomes ready on a worker with a processor. One byte at hand says it, so that the
/// possibility of another order costs nothing where there is none.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    /// The processor's own queue.
    Local,
    /// The worker's `next`, if that queue is empty: within [`run_next`] only.
    Next,
    /// The discipline that the application chose, always.
    Ordered,
}

/// The context of a thread that runs tasks, as an [`Idle`](crate::Idle) sees it.
pub struct Worker {
    executor: Executor,
    /// The executor's, at hand.
    serial: u32,
    /// No other worker can help with what is ready here.
    alone: bool,
    /// `None` for guests, and for a thread in `block_on` that only waits.
    processor: Option<Processor>,
    role: Role,
    /// Where its tasks are registered once they wait.
    shard: usize,
    /// The task to be run next, see [`run_next`]. Nobody can steal it, so it is here only between a scan and
    /// the next poll.
    next: Cell<Option<Runnable>>,
    /// Whether there is one.
    has_next: Cell<bool>,
    place: Cell<Place>,
    /// Tasks since the last look at everything.
    since_scan: Cell<u32>,
    eager_depth: Cell<u32>,
}

impl Worker {
    /// The processor that this worker holds, 0 to n - 1; `None` for guests.
    pub fn id(&self) -> Option<usize> {
        self.processor.as_ref().map(|processor| processor.id)
    }

    /// True for a thread in [`Executor::run_while`].
    pub fn is_guest(&self) -> bool {
        matches!(self.role, Role::Guest)
    }

    /// Whose tasks this worker runs.
    pub fn executor(&self) -> &Executor {
        &self.executor
    }

    /// Running → resting, with a fence: from now on a pusher may claim and wake this worker. Follow it
    /// with [`has_work`](Self::has_work). Nothing happens for guests.
    pub fn announce_rest(&self) {
        if let Some(id) = self.id() {
            self.executor.shared.rest.announce(id);
        }
    }

    /// Resting → running. Only the worker itself calls this, after every rest.
    pub fn retract_rest(&self) {
        if let Some(id) = self.id() {
            self.executor.shared.rest.retract(id);
        }
    }

    /// Says that this worker rests because it lent its processor: it is then woken only if no other
    /// worker rests. Set and cleared by the worker itself. Nothing happens for guests.
    pub fn set_lent(&self, lent: bool) {
        if let Some(id) = self.id() {
            self.executor.shared.rest.set_lent(id, lent);
        }
    }

    /// True if this worker must not sleep: a task is ready somewhere, the future of its `block_on` was
    /// woken, somebody wants its processor, or the executor shuts down.
    pub fn has_work(&self) -> bool {
        self.must_leave()
            || self.main_is_woken()
            || self.has_next.get()
            || self.executor.has_ready()
    }

    #[inline]
    fn take_next(&self) -> Option<Runnable> {
        if !self.has_next.get() {
            return None;
        }
        self.has_next.set(false);
        self.next.take()
    }

    fn main_is_woken(&self) -> bool {
        matches!(&self.role, Role::Main(main) if main.is_woken())
    }

    fn must_leave(&self) -> bool {
        let shared = &self.executor.shared;
        shared.is_closed() || (matches!(self.role, Role::Reserve) && shared.pool.wanted())
    }

    /// True if this thread is a worker with a processor, whose queue holds no task besides the one it polls.
    /// (What is ready elsewhere is seen by [`has_work`](Self::has_work), soon enough.)
    #[inline]
    pub(crate) fn is_alone() -> bool {
        let alone = |worker: &Worker| {
            let empty = |processor: &Processor| match worker.ordered() {
                None => processor.local.is_empty(),
                Some(ordered) => ordered.is_empty(),
            };
            worker.processor.as_ref().is_some_and(empty)
                && worker.eager_depth.get() == 0
                && worker.since_scan.get() < TASKS_PER_SCAN
                && !worker.has_next.get()
        };
        CURRENT.with(|current| current.borrow().as_deref().is_some_and(alone))
    }

    /// See [`Idle::linger`](crate::Idle::linger).
    pub(crate) fn linger(waker: &Waker) -> bool {
        let Some(worker) = Worker::current() else {
            return true; // the next poll registers it
        };
        worker.count();
        worker.executor.shared.idle.linger(&worker, waker)
    }

    /// Notes that a task was run, or something of that kind.
    pub(crate) fn count(&self) {
        self.since_scan.set(self.since_scan.get() + 1);
    }

    /// Polls a task. Its panics are its own: they go to its `JoinHandle`.
    #[inline]
    fn run(&self, task: Runnable) {
        self.count();
        // `task.rs` and async-task catch what a poll or a destructor throws; should anything still
        // come through, it has been reported by the panic hook, and this worker goes on.
        let _ = catch_unwind(AssertUnwindSafe(|| task.run()));
    }

    /// Takes up a task that has become ready on this thread. Gives it back if this thread has no
    /// place for it.
    #[inline(always)]
    fn ready(&self, task: Runnable) -> Result<(), Runnable> {
        match &self.processor {
            Some(processor) if self.place.get() == Place::Local => self.queue(processor, task),
            _ => return self.ready_elsewhere(task),
        }
        Ok(())
    }

    /// As [`ready`](Self::ready), where it is not simply queued.
    #[inline(never)]
    fn ready_elsewhere(&self, task: Runnable) -> Result<(), Runnable> {
        let shared = &self.executor.shared;
        match (&self.processor, self.ordered()) {
            (Some(_), Some(ordered)) => self.tell_others(ordered.push(task)),
            (Some(processor), None) if processor.local.is_empty() => {
                if let Some(before) = self.next.replace(Some(task)) {
                    shared.push(before);
                }
                self.has_next.set(true);
            }
            (Some(processor), None) => self.queue(processor, task),
            (None, _) if self.is_guest() => shared.push(task),
            (None, _) => return Err(task),
        }
        Ok(())
    }

    #[inline(always)]
    fn queue(&self, processor: &Processor, task: Runnable) {
        match processor.local.push(task) {
            Ok(queued) => self.tell_others(queued),
            Err(task) => {
                self.executor.shared.push(task);
                self.tell_others(2);
            }
        }
    }

    /// So many tasks are ready here. One is for this worker itself. The look is a hint, without a fence: if it misses
    /// a worker that goes to rest just now, the task is only run here, a little later. A processor that no thread holds
    /// is called a thread to.
    #[inline(always)]
    fn tell_others(&self, queued: usize) {
        let shared = &self.executor.shared;
        if queued >= 2 && !self.alone && (shared.rest.anybody() || shared.pool.free() > 0) {
            shared.tell_one_hinted();
        }
    }

    /// The discipline, if there is one.
    fn ordered(&self) -> Option<&Ordered> {
        match self.place.get() {
            Place::Local | Place::Next => None,
            Place::Ordered => self.executor.shared.ordered(),
        }
    }

    /// Hands a ready task to the worker that this thread is, if it is one of its executor.
    pub(crate) fn ready_here(task: Runnable) -> Result<(), Runnable> {
        let serial = task.metadata().serial;
        CURRENT.with(move |current| match &*current.borrow() {
            Some(worker) if worker.serial == serial => worker.ready(task),
            _ => Err(task),
        })
    }

    /// Polls a new task at once if this thread runs tasks of executor `serial`, else gives it back.
    pub(crate) fn run_here(serial: u32, task: Runnable) -> Result<(), Runnable> {
        let Some(nested) = Worker::nest(serial) else {
            return Err(task);
        };
        nested.0.run(task);
        Ok(())
    }

    /// For a poll inside a poll. `None` if this thread runs no tasks of executor `serial`, or there are too
    /// many such polls inside one another.
    pub(crate) fn nest(serial: u32) -> Option<Nested> {
        let worker = Worker::current()?;
        let depth = worker.eager_depth.get();
        if worker.serial != serial || !worker.runs_tasks() || depth >= EAGER_DEPTH {
            return None;
        }
        worker.eager_depth.set(depth + 1);
        Some(Nested(worker))
    }

    /// The worker that this thread is.
    pub(crate) fn current() -> Option<Rc<Worker>> {
        CURRENT.with(|current| current.borrow().clone())
    }

    /// True if this thread is the one in `block_on` with `main`.
    pub(crate) fn runs_main(main: &Arc<Main>) -> bool {
        CURRENT.with(|current| {
            matches!(&*current.borrow(), Some(worker)
                if matches!(&worker.role, Role::Main(own) if Arc::ptr_eq(own, main)))
        })
    }

    /// True for whoever may run tasks: not for a thread in `block_on` that only waits.
    fn runs_tasks(&self) -> bool {
        self.processor.is_some() || self.is_guest()
    }

    pub(crate) fn has_processor(&self) -> bool {
        self.processor.is_some()
    }

    pub(crate) fn shard(&self) -> usize {
        self.shard
    }
}

/// A poll inside another one, see [`Worker::nest`].
pub(crate) struct Nested(Rc<Worker>);

impl Drop for Nested {
    fn drop(&mut self) {
        self.0.eager_depth.set(self.0.eager_depth.get() - 1);
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("id", &self.id())
            .finish_non_exhaustive()
    }
}

/// How many tasks are in the own queue of the worker that this thread is: they are run as soon as the current one
/// pauses. 0 on other threads.
#[inline]
pub fn ready_here() -> usize {
    let look = |worker: &Worker| match &worker.processor {
        Some(processor) => processor.local.len(),
        None => 0,
    };
    CURRENT.with(|current| current.borrow().as_deref().map_or(0, look))
}

/// True if this thread runs tasks just now: as a worker with a processor, or as a guest, of any
/// executor.
pub fn on_worker() -> bool {
    CURRENT.with(|current| matches!(&*current.borrow(), Some(worker) if worker.runs_tasks()))
}

/// Wakes a task that is to be run next, if nothing else is ready on the worker that this thread is. It
/// must be the only one, and called in a scan that runs nothing afterwards: until then nobody can steal it.
pub fn run_next(waker: &Waker) {
    let Some(worker) = Worker::current() else {
        return waker.wake_by_ref();
    };
    if worker.place.get() == Place::Ordered {
        return waker.wake_by_ref(); // it has its place in the application's order
    }
    /// A waker may be anybody's, and panic.
    struct Reset(Rc<Worker>);
    impl Drop for Reset {
        fn drop(&mut self) {
            self.0.place.set(Place::Local);
        }
    }
    worker.place.set(Place::Next);
    let _reset = Reset(worker);
    waker.wake_by_ref();
}

/// Has the worker that this thread is look at everything as soon as the current task pauses:
/// [`Idle::scan`](crate::Idle::scan) is called then, as a busy one. Nothing happens on other threads.
pub fn look_around_next() {
    if let Some(worker) = Worker::current() {
        worker.since_scan.set(TASKS_PER_SCAN);
    }
}
