//! The handle to an executor: everything its user can ask of it.

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::block_on;
use crate::discipline::Discipline;
use crate::idle::Idle;
use crate::join::JoinHandle;
use crate::shared::Shared;
use crate::task::task;
use crate::timers::Timers;
use crate::worker::{Guest, Worker};

/// A user-level scheduler (§3.3): many tasks on a few processors.
///
/// This is a handle; clones are the same executor. Dropping it stops nothing, see
/// [`shutdown`](Self::shutdown).
///
/// ```
/// use std::sync::Arc;
/// use urpc_executor::{Executor, Park};
///
/// let executor = Executor::new(1, "sums", Arc::new(Park::new()));
/// let five = executor.spawn(async { 2 + 3 });
/// assert_eq!(executor.block_on(five)?, 5);
/// executor.shutdown();
/// # Ok::<(), urpc_executor::JoinError>(())
/// ```
#[derive(Clone)]
pub struct Executor {
    pub(crate) shared: Arc<Shared>,
}

impl Executor {
    /// An executor with `processors` processors, 0 to 64. No thread is started before there is work
    /// for one; threads are then called `{name}-w{number}`.
    ///
    /// # Panics
    /// With more than 64 processors.
    pub fn new(processors: usize, name: &str, idle: Arc<dyn Idle>) -> Executor {
        Executor {
            shared: Shared::new(processors, name, idle, None),
        }
    }

    /// The same, with an order of its ready tasks that the application chooses, see [`Discipline`]:
    /// [`Fifo`](crate::Fifo), [`Lifo`](crate::Lifo), [`Priorities`](crate::Priorities), or its own. The
    /// discipline is this executor's alone; a task of another one that it gives is dropped.
    ///
    /// # Panics
    /// With more than 64 processors.
    pub fn with_discipline(
        processors: usize,
        name: &str,
        idle: Arc<dyn Idle>,
        discipline: Arc<dyn Discipline>,
    ) -> Executor {
        Executor {
            shared: Shared::new(processors, name, idle, Some(discipline)),
        }
    }

    /// How many processors this executor has of its own.
    pub fn processors(&self) -> usize {
        self.shared.thieves.len()
    }

    /// Starts a task: it is queued, and runs when its turn comes.
    ///
    /// It is not polled before this returns on the same processor, so a parent may hold a lock
    /// across `spawn` that its child takes as well. Where that cannot be,
    /// [`spawn_eager`](Self::spawn_eager) is faster.
    ///
    /// After a [`shutdown`](Self::shutdown) the future is dropped, and the handle yields an aborted
    /// [`JoinError`](crate::JoinError).
    pub fn spawn<T>(&self, future: impl Future<Output = T> + Send + 'static) -> JoinHandle<T>
    where
        T: Send + 'static,
    {
        self.spawn_with(0, future)
    }

    /// The same, with a priority: a number that the executor's [`Discipline`] may order by. It means
    /// nothing without one. 0 is what every other task has, and negative ones are allowed.
    pub fn spawn_with<T>(
        &self,
        priority: i32,
        future: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T>
    where
        T: Send + 'static,
    {
        if self.shared.is_closed() {
            return JoinHandle::never();
        }
        let (runnable, handle) = task(self, priority, future);
        runnable.schedule();
        handle
    }

    /// Starts a task and polls it at once, here, if this thread runs tasks of this executor; only
    /// what is pending then becomes a task of its own, and waits for its turn. So a child that has nothing
    /// to wait for costs little more than a call of it. Elsewhere, and when such calls are nested too
    /// deeply, it is as [`spawn`](Self::spawn).
    ///
    /// The caller must hold no lock that the task takes. (So `spawn` itself queues.) The first poll has a
    /// waker that does nothing; a future that is pending is polled again at once, with that of its task.
    pub fn spawn_eager<T>(&self, future: impl Future<Output = T> + Send + 'static) -> JoinHandle<T>
    where
        T: Send + 'static,
    {
        if self.shared.is_closed() {
            return JoinHandle::never();
        }
        let Some(nested) = Worker::nest(self.shared.serial) else {
            return self.spawn(future);
        };
        let mut future = Box::pin(future);
        let poll = || {
            future
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()))
        };
        let end = match catch_unwind(AssertUnwindSafe(poll)) {
            Ok(Poll::Pending) => {
                drop(nested);
                return self.spawn_pending(future);
            }
            Ok(Poll::Ready(value)) => Ok(value),
            Err(panic) => Err(panic),
        };
        // If its destructor panics, the panic hook has said so.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(future)));
        JoinHandle::ended(end)
    }

    /// Starts a task of a future that is pending already: as with [`spawn_eager`](Self::spawn_eager) it is
    /// polled at once if that can be, but with the waker of its task.
    pub fn spawn_pending<T>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T>
    where
        T: Send + 'static,
    {
        if self.shared.is_closed() {
            return JoinHandle::never();
        }
        let (runnable, handle) = task(self, 0, future);
        if let Err(runnable) = Worker::run_here(self.shared.serial, runnable) {
            runnable.schedule();
        }
        handle
    }

    /// Runs a future to its end on this thread, which borrows a processor for that time and runs the
    /// executor's tasks besides. If all processors are held by other threads in `block_on`, or there
    /// are none, it runs nothing but its own future.
    ///
    /// A panic of the future comes out of this call. After a [`shutdown`](Self::shutdown) it still
    /// runs the future, but no tasks.
    ///
    /// # Panics
    /// On a thread that is already inside `block_on` or [`run_while`](Self::run_while), of any
    /// executor: it would keep a processor from its tasks.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        Executor::refuse_worker("block_on");
        block_on::block_on(self, future)
    }

    /// Runs tasks on this thread as a guest, with a processor that was lent from outside (a landing,
    /// §3.1). Between any two tasks it asks `more`, and returns when that is false, or when neither
    /// a ready task nor `scan` has anything; `scan` is called when no task is ready, and once every
    /// [`TASKS_PER_SCAN`](crate::TASKS_PER_SCAN) tasks. Due timers are fired, too.
    ///
    /// What the tasks wake goes to the shared queue, and nobody is told: when this returns because of
    /// `more`, the caller calls [`notify`](Self::notify) if [`has_ready`](Self::has_ready).
    ///
    /// # Panics
    /// As [`block_on`](Self::block_on).
    pub fn run_while(&self, more: impl FnMut() -> bool, scan: impl FnMut(&Worker) -> bool) {
        self.guest().run_while(more, scan);
    }

    /// What this thread needs to [`run_while`](Guest::run_while) again and again.
    pub fn guest(&self) -> Guest {
        Guest::new(self)
    }

    pub(crate) fn refuse_worker(what: &str) {
        assert!(
            Worker::current().is_none(),
            "{what} on a thread that runs an executor already: inside a task, await the future \
             instead of blocking on it, or move the blocking work to a thread of its own",
        );
    }

    /// If no thread holds some processor, has a worker thread take it, and starts that thread if need
    /// be. False if all are held, or no thread could be started.
    pub fn attend(&self) -> bool {
        self.shared.attend()
    }

    /// Says that something was made ready from outside: wakes one resting worker, or else calls a
    /// thread to a free processor; without any processor (n = 0) it says
    /// [`Idle::unattended`]. It fences before it looks who rests.
    pub fn notify(&self) {
        self.shared.notify();
    }

    /// Says that a timer was set which is now the earliest. A worker with a processor need not be
    /// told, because it looks at the timers itself before it rests; for any other thread this wakes
    /// a resting worker, which then sleeps no longer than until that timer, or calls one, or says
    /// [`Idle::unattended`]. [`Sleep`](crate::Sleep) does this by itself.
    pub fn timer_set(&self) {
        let here = Worker::current()
            .is_some_and(|worker| worker.has_processor() && worker.executor().same(self));
        if !here && !self.shared.tell_somebody() {
            self.shared.idle.unattended();
        }
    }

    /// The timers.
    pub fn timers(&self) -> &Timers {
        &self.shared.timers
    }

    /// Ends the executor: drops all tasks, the waiting ones included, and joins all worker threads
    /// (except the calling one, should it be one of them; that ends by itself). Waits for polls that
    /// are in progress on worker threads, but not for those of threads in `block_on` or
    /// [`run_while`](Self::run_while), whose tasks are dropped at the end of the poll. Calling it
    /// again does nothing.
    pub fn shutdown(&self) {
        self.shared.shutdown();
    }

    /// The executor whose worker, guest or `block_on` this thread is in.
    pub fn current() -> Option<Executor> {
        Worker::current().map(|worker| worker.executor().clone())
    }

    /// The same, for as long as `f` takes.
    pub fn with_current<R>(f: impl FnOnce(Option<&Executor>) -> R) -> R {
        f(Worker::current().as_deref().map(Worker::executor))
    }

    /// True if both are handles to one executor.
    pub fn same(&self, other: &Executor) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// True if a task is ready in the shared queue, or in that of any processor.
    pub fn has_ready(&self) -> bool {
        self.shared.has_ready()
    }

    /// How many processors no thread holds.
    pub fn unheld(&self) -> usize {
        self.shared.pool.free()
    }
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor")
            .field("name", &self.shared.name())
            .field("processors", &self.processors())
            .field("unheld", &self.unheld())
            .finish_non_exhaustive()
    }
}
