//! The seam to the outside: what a worker does when it has nothing to do.
//!
//! The executor knows nothing of channels or processes. Where work may come from besides tasks, how a
//! thread sleeps and who wakes it is the business of an [`Idle`].

use std::task::Waker;

use crate::worker::Worker;

/// What a worker asks when no task is ready. One for each executor; called from all its threads.
///
/// No lock of the executor is held during any of these calls, and each may push tasks. None may
/// block, except [`rest`](Self::rest), and none may panic.
pub trait Idle: Send + Sync + 'static {
    /// Looks for work from outside, and says whether it found anything: a task became ready, or
    /// something was done. Called when a worker has nothing else to do (R15), and then `busy` is
    /// false; and once every [`TASKS_PER_SCAN`](crate::TASKS_PER_SCAN) tasks, and then it is true.
    fn scan(&self, worker: &Worker, busy: bool) -> bool;

    /// Nothing is ready, and a scan and an attempt to steal found nothing. May spin, lend the
    /// processor or put this thread to sleep, and returns when there may be something to do; returning
    /// for nothing is harmless.
    ///
    /// Before any sleep:
    /// 1. [`worker.announce_rest()`](Worker::announce_rest);
    /// 2. if [`worker.has_work()`](Worker::has_work): do not sleep, go to 4. (If you scan again here,
    ///    do it before asking `has_work`: what a scan makes ready wakes nobody.)
    /// 3. sleep until [`wake`](Self::wake) is called with this worker's id, or until
    ///    [`timers().next()`](crate::Timers::next), read after 1;
    /// 4. [`worker.retract_rest()`](Worker::retract_rest).
    fn rest(&self, worker: &Worker);

    /// The task that was just polled with `waker` waits, and a future in it has left `waker` out because
    /// [`may_linger`](crate::may_linger) was true. Waits a moment for it, for as long as no other task is ready
    /// ([`worker.has_work()`](Worker::has_work)). True if the task is to be polled again at once; false if
    /// `waker` has been registered after all.
    fn linger(&self, worker: &Worker, waker: &Waker) -> bool {
        let _ = (worker, waker);
        true
    }

    /// Ends the rest of the worker of processor `id`: it has announced one, and a pusher has claimed
    /// it. Called from any thread. The worker may be awake again by then, or only on its way to
    /// sleep; so this must stick until its next sleep.
    fn wake(&self, id: usize);

    /// Work was pushed, or a timer set that is earlier than all others, by a thread without a
    /// processor, and there is no worker that could be told: none rests and no processor is free.
    /// With processors this is only said of timers (tasks are found by the running workers);
    /// without any (n = 0), of tasks too. Somebody has to come and [`run_while`].
    ///
    /// [`run_while`]: crate::Executor::run_while
    fn unattended(&self);

    /// The number of processors that no thread holds is now `free`. Calls of different threads may
    /// overtake one another; [`Executor::unheld`](crate::Executor::unheld) is the truth.
    fn held(&self, free: usize) {
        let _ = free;
    }

    /// This thread has just been started for the executor. It has what it inherited of the thread that started it,
    /// whichever that was.
    fn begin(&self) {}

    /// This thread has just taken a processor (`worker.id()` says which) and is about to run tasks.
    fn arrive(&self, worker: &Worker) {
        let _ = worker;
    }

    /// This thread is about to give its processor back. It has retracted its rests.
    fn leave(&self, worker: &Worker) {
        let _ = worker;
    }
}
