//! How a thread becomes a worker, and what it leaves behind.
//!
//! A [`Seat`] is the only way to be one. Its end puts the processor back and tells somebody of what is
//! still ready, and after a shutdown it drops what this thread pushed last.

use std::cell::Cell;
use std::fmt;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering, fence};

use super::{CURRENT, Place, Role, Worker};
use crate::executor::Executor;
use crate::processor::Processor;

/// A thread's being a worker, from [`take`](Seat::take) to drop; the processor goes back then.
pub(crate) struct Seat {
    /// `None` only in `drop`.
    worker: Option<Rc<Worker>>,
}

impl Seat {
    /// Makes this thread a worker. The caller has checked that it is none yet.
    pub(crate) fn take(executor: &Executor, processor: Option<Processor>, role: Role) -> Seat {
        Seat::sit(Rc::new(Worker::new(executor, processor, role)))
    }

    fn sit(worker: Rc<Worker>) -> Seat {
        let before = CURRENT.with(|current| current.replace(Some(worker.clone())));
        debug_assert!(before.is_none(), "a thread is one worker at a time");
        if worker.has_processor() {
            worker.executor.shared.idle.arrive(&worker);
        }
        Seat {
            worker: Some(worker),
        }
    }

    /// See [`Worker::work`].
    pub(crate) fn work(&self, finished: impl FnMut(&Worker) -> bool) {
        Worker::work(self, finished);
    }
}

impl Worker {
    fn new(executor: &Executor, processor: Option<Processor>, role: Role) -> Worker {
        static GUESTS: AtomicUsize = AtomicUsize::new(0);
        let shard = match &processor {
            Some(processor) => processor.id,
            None => GUESTS.fetch_add(1, Ordering::Relaxed),
        };
        Worker {
            executor: executor.clone(),
            serial: executor.shared.serial,
            alone: executor.processors() == 1,
            processor,
            role,
            shard,
            next: Cell::new(None),
            has_next: Cell::new(false),
            place: Cell::new(match executor.shared.ordered() {
                None => Place::Local,
                Some(_) => Place::Ordered,
            }),
            since_scan: Cell::new(0),
            eager_depth: Cell::new(0),
        }
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

/// A thread that runs tasks again and again, each time with a processor that was lent from outside (a landing,
/// §3.1). Between two visits it is no worker, and keeps what it takes to be one.
pub struct Guest {
    worker: Rc<Worker>,
}

impl Guest {
    pub(crate) fn new(executor: &Executor) -> Guest {
        Guest {
            worker: Rc::new(Worker::new(executor, None, Role::Guest)),
        }
    }

    /// Whose tasks it runs.
    pub fn executor(&self) -> &Executor {
        &self.worker.executor
    }

    /// See [`Executor::run_while`].
    ///
    /// # Panics
    /// As that.
    pub fn run_while(&self, more: impl FnMut() -> bool, scan: impl FnMut(&Worker) -> bool) {
        Executor::refuse_worker("run_while");
        Seat::sit(self.worker.clone()).work_as_guest(more, scan);
    }
}

impl fmt::Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guest").finish_non_exhaustive()
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
        // Other clones live only inside a poll, and that is over, or with a guest that will come again: it has no
        // processor.
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
