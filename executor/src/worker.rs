//! The worker: a thread that runs tasks, and the order in which it looks for them.
//!
//! A thread is at most one [`Worker`] at a time, and a thread-local knows which, so that a wake on a
//! worker costs a push and no locked instruction. Whoever holds a processor runs [`Worker::work`];
//! guests run [`Worker::work_as_guest`].

use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::task::Waker;

use crate::block_on::Main;
use crate::executor::Executor;
use crate::processor::Processor;
use crate::task::Runnable;

/// Tasks that a busy worker runs between two looks at everything else: bounds how late it sees a
/// call, a due timer or a task from outside. A prime, so that it does not beat with loops of tasks.
pub const TASKS_PER_SCAN: u32 = 61;

/// Polls that `spawn_eager` nests before it queues instead: bounds the stack.
const EAGER_DEPTH: u32 = 16;

thread_local! {
    static CURRENT: RefCell<Option<Rc<Worker>>> = const { RefCell::new(None) };
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

/// What a worker found.
enum Found {
    Task(Runnable),
    /// Something was done that may have made a task ready.
    Something,
    Nothing,
}

/// The context of a thread that runs tasks, as an [`Idle`](crate::Idle) sees it.
pub struct Worker {
    executor: Executor,
    /// `None` for guests, and for a thread in `block_on` that only waits.
    processor: Option<Processor>,
    role: Role,
    /// Where its tasks are registered once they wait.
    shard: usize,
    /// The task to be run next, see [`run_next`]. Nobody can steal it, so it is here only between a scan and
    /// the next poll.
    next: Cell<Option<Runnable>>,
    /// What becomes ready now goes to `next`.
    is_next: Cell<bool>,
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
        self.must_leave() || self.main_is_woken() || self.has_next() || self.executor.has_ready()
    }

    fn has_next(&self) -> bool {
        let next = self.next.take();
        let has_next = next.is_some();
        self.next.set(next);
        has_next
    }

    fn main_is_woken(&self) -> bool {
        matches!(&self.role, Role::Main(main) if main.is_woken())
    }

    fn must_leave(&self) -> bool {
        let shared = &self.executor.shared;
        shared.is_closed() || (matches!(self.role, Role::Reserve) && shared.pool.wanted())
    }

    /// Runs tasks until `finished`, which is asked between any two of them, or until this worker
    /// must leave its processor.
    fn work(&self, mut finished: impl FnMut(&Worker) -> bool) {
        let Some(processor) = &self.processor else {
            unreachable!("work() is called with a processor in hand");
        };
        while !self.must_leave() {
            if let Some(task) = self.next.take() {
                self.run(task);
            } else if finished(self) {
                break;
            } else {
                match self.find(processor) {
                    Found::Task(task) => self.run(task),
                    Found::Something => {}
                    Found::Nothing => self.executor.shared.idle.rest(self),
                }
            }
        }
    }

    /// The order of search. A scan costs cache misses, so it comes only when nothing is ready here
    /// (R15), and before a theft, because what it finds is a caller who waits.
    fn find(&self, processor: &Processor) -> Found {
        if self.since_scan.get() >= TASKS_PER_SCAN {
            return self.look_around(processor);
        }
        if let Some(task) = processor.local.pop().or_else(|| self.injected()) {
            return Found::Task(task);
        }
        if self.main_is_woken() {
            return Found::Something;
        }
        if self.executor.shared.idle.scan(self, false) {
            self.count();
            return Found::Something;
        }
        if let Some(task) = self.steal(processor) {
            return Found::Task(task);
        }
        if self.executor.shared.timers.fire() {
            Found::Something
        } else {
            Found::Nothing
        }
    }

    /// Looks at everything, so that tasks that keep one another ready starve nobody: outside, timers,
    /// and then the queues, the shared one first.
    fn look_around(&self, processor: &Processor) -> Found {
        self.since_scan.set(0);
        self.executor.shared.idle.scan(self, true);
        self.executor.shared.timers.fire();
        // If nothing is there, an idle look comes next, and only that leads to a rest.
        self.injected()
            .or_else(|| processor.local.pop())
            .or_else(|| self.steal(processor))
            .map_or(Found::Something, Found::Task)
    }

    fn injected(&self) -> Option<Runnable> {
        self.executor.shared.injected()
    }

    /// Takes tasks of another processor, starting with the next one, so that thieves spread.
    fn steal(&self, processor: &Processor) -> Option<Runnable> {
        let thieves = &self.executor.shared.thieves;
        let (before, after) = thieves.split_at(processor.id);
        after[1..]
            .iter()
            .chain(before)
            .find_map(|thief| thief.steal_half(&processor.local))
    }

    /// Runs tasks without a processor of this executor: the loop of [`Executor::run_while`].
    fn work_as_guest(&self, mut more: impl FnMut() -> bool, mut scan: impl FnMut(&Worker) -> bool) {
        let shared = &self.executor.shared;
        while !shared.is_closed() && more() {
            if self.since_scan.get() >= TASKS_PER_SCAN {
                self.since_scan.set(0);
                scan(self);
                shared.timers.fire();
            }
            let stolen = || shared.thieves.iter().find_map(|thief| thief.steal());
            if let Some(task) = self.injected().or_else(stolen) {
                self.run(task);
            } else if scan(self) || shared.timers.fire() {
                self.count();
            } else {
                break;
            }
        }
    }

    /// True if this thread is a worker with a processor, and nothing is ready for it but the task it polls.
    #[inline]
    pub(crate) fn is_alone() -> bool {
        let look = |current: &RefCell<Option<Rc<Worker>>>| match &*current.borrow() {
            Some(worker) => match &worker.processor {
                Some(processor) => {
                    processor.local.is_empty()
                        && !worker.has_next()
                        && worker.eager_depth.get() == 0
                        && worker.since_scan.get() < TASKS_PER_SCAN
                        && worker.executor.shared.injected_is_empty()
                }
                None => false,
            },
            None => false,
        };
        CURRENT.try_with(look).unwrap_or(false)
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
    fn run(&self, task: Runnable) {
        self.count();
        // `task.rs` and async-task catch what a poll or a destructor throws; should anything still
        // come through, it has been reported by the panic hook, and this worker goes on.
        let _ = catch_unwind(AssertUnwindSafe(|| task.run()));
    }

    /// Takes up a task that has become ready on this thread. Gives it back if this thread has no
    /// place for it.
    fn ready(&self, task: Runnable) -> Result<(), Runnable> {
        let shared = &self.executor.shared;
        match &self.processor {
            Some(processor) if self.is_next.get() && processor.local.is_empty() => {
                if let Some(before) = self.next.replace(Some(task)) {
                    shared.push(before);
                }
                Ok(())
            }
            Some(processor) => {
                let queued = processor.local.push(task).unwrap_or_else(|task| {
                    shared.push(task);
                    2
                });
                // One is for this worker itself. The look is a hint, without a fence: if it misses
                // a worker that goes to rest just now, the task is only run here, a little later.
                if queued >= 2 && shared.rest.anybody() {
                    shared.wake_one_hinted();
                }
                Ok(())
            }
            None if self.is_guest() => {
                shared.push(task);
                Ok(())
            }
            None => Err(task),
        }
    }

    /// Hands a ready task to the worker that this thread is, if it is one of its executor.
    pub(crate) fn ready_here(task: Runnable) -> Result<(), Runnable> {
        let serial = *task.metadata();
        // The task stays in `task` if the thread-local is gone already, at the end of a thread.
        let mut task = Some(task);
        let _ = CURRENT.try_with(|current| {
            if let Some(worker) = &*current.borrow()
                && worker.executor.shared.serial == serial
                && let Some(ready) = task.take()
            {
                task = worker.ready(ready).err();
            }
        });
        task.map_or(Ok(()), Err)
    }

    /// Polls a new task at once if this thread runs tasks of executor `serial`, else gives it back.
    pub(crate) fn run_here(serial: u64, task: Runnable) -> Result<(), Runnable> {
        let Some(worker) = Worker::current() else {
            return Err(task);
        };
        let depth = worker.eager_depth.get();
        if worker.executor.shared.serial != serial || !worker.runs_tasks() || depth >= EAGER_DEPTH {
            return Err(task);
        }
        worker.eager_depth.set(depth + 1);
        worker.run(task);
        worker.eager_depth.set(depth);
        Ok(())
    }

    /// The worker that this thread is.
    pub(crate) fn current() -> Option<Rc<Worker>> {
        CURRENT
            .try_with(|current| current.borrow().clone())
            .ok()
            .flatten()
    }

    /// True if this thread is the one in `block_on` with `main`.
    pub(crate) fn runs_main(main: &Arc<Main>) -> bool {
        let look = |current: &RefCell<Option<Rc<Worker>>>| {
            matches!(&*current.borrow(), Some(worker)
                if matches!(&worker.role, Role::Main(own) if Arc::ptr_eq(own, main)))
        };
        CURRENT.try_with(look).unwrap_or(false)
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

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("id", &self.id())
            .finish_non_exhaustive()
    }
}

/// True if this thread runs tasks just now: as a worker with a processor, or as a guest, of any
/// executor.
pub fn on_worker() -> bool {
    let look = |current: &RefCell<Option<Rc<Worker>>>| matches!(&*current.borrow(), Some(worker) if worker.runs_tasks());
    CURRENT.try_with(look).unwrap_or(false)
}

/// Wakes a task that is to be run next, if nothing else is ready on the worker that this thread is. It
/// must be the only one, and called in a scan that runs nothing afterwards: until then nobody can steal it.
pub fn run_next(waker: Waker) {
    let Some(worker) = Worker::current() else {
        return waker.wake();
    };
    /// A waker may be anybody's, and panic.
    struct Reset(Rc<Worker>);
    impl Drop for Reset {
        fn drop(&mut self) {
            self.0.is_next.set(false);
        }
    }
    worker.is_next.set(true);
    let _reset = Reset(worker);
    waker.wake();
}

/// Has the worker that this thread is look at everything as soon as the current task pauses:
/// [`Idle::scan`](crate::Idle::scan) is called then, as a busy one. Nothing happens on other threads.
pub fn look_around_next() {
    if let Some(worker) = Worker::current() {
        worker.since_scan.set(TASKS_PER_SCAN);
    }
}

/// A thread's being a worker, from [`take`](Seat::take) to drop; the processor goes back then.
pub(crate) struct Seat {
    /// `None` only in `drop`.
    worker: Option<Rc<Worker>>,
}

impl Seat {
    /// Makes this thread a worker. The caller has checked that it is none yet.
    pub(crate) fn take(executor: &Executor, processor: Option<Processor>, role: Role) -> Seat {
        static GUESTS: AtomicUsize = AtomicUsize::new(0);
        let shard = match &processor {
            Some(processor) => processor.id,
            None => GUESTS.fetch_add(1, Ordering::Relaxed),
        };
        let worker = Rc::new(Worker {
            executor: executor.clone(),
            processor,
            role,
            shard,
            next: Cell::new(None),
            is_next: Cell::new(false),
            since_scan: Cell::new(0),
            eager_depth: Cell::new(0),
        });
        let before = CURRENT.with(|current| current.replace(Some(worker.clone())));
        debug_assert!(before.is_none(), "a thread is one worker at a time");
        if worker.has_processor() {
            executor.shared.idle.arrive(&worker);
        }
        Seat {
            worker: Some(worker),
        }
    }

    /// See [`Worker::work`].
    pub(crate) fn work(&self, finished: impl FnMut(&Worker) -> bool) {
        Worker::work(self, finished);
    }

    /// See [`Worker::work_as_guest`].
    pub(crate) fn work_as_guest(
        &self,
        more: impl FnMut() -> bool,
        scan: impl FnMut(&Worker) -> bool,
    ) {
        Worker::work_as_guest(self, more, scan);
    }
}

impl Deref for Seat {
    type Target = Worker;

    fn deref(&self) -> &Worker {
        match &self.worker {
            Some(worker) => worker,
            None => unreachable!("the worker is there until the seat is dropped"),
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Some(worker) = self.worker.take() else {
            return;
        };
        let shared = worker.executor.shared.clone();
        if worker.has_processor() {
            // Only a panic out of `Idle` leaves these marks behind.
            worker.set_lent(false);
            worker.retract_rest();
            shared.idle.leave(&worker);
        }
        drop(CURRENT.with(|current| current.replace(None)));
        // Other clones live only inside a poll, and that is over, so this is the last one.
        if let Some(Worker {
            processor: Some(processor),
            next,
            ..
        }) = Rc::into_inner(worker)
        {
            if let Some(task) = next.into_inner() {
                shared.push(task);
            }
            shared.give_back(processor);
        }
        // Pairs with the fence in `Shared::shutdown`: either that drains what this thread pushed
        // last, or we see that it has been.
        fence(Ordering::SeqCst);
        if shared.is_closed() {
            shared.drain();
        }
    }
}
