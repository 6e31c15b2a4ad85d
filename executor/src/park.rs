//! The plainest [`Idle`]: nothing comes from outside, and a worker with nothing to do sleeps.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

use crate::executor::Executor;
use crate::idle::Idle;
use crate::rest::MOST_PROCESSORS;
use crate::worker::Worker;

/// An [`Idle`] that only sleeps: each worker on a condition variable of its own, until it is woken or
/// the next timer is due. It makes an executor usable by itself, and shows the protocol of a rest.
///
/// Every resting worker sleeps until the next timer, so with many workers a timer wakes them all.
pub struct Park {
    workers: Box<[Bed]>,
    /// Where a thread in [`stand_in`](Park::stand_in) sleeps.
    stand_in: Bed,
}

/// A place to sleep, and a wake-up that waits for its sleeper.
#[derive(Default)]
struct Bed {
    woken: Mutex<bool>,
    signal: Condvar,
}

impl Bed {
    /// Sleeps until `wake` was called since the last sleep, or until `at`.
    fn sleep_until(&self, at: Option<Instant>) {
        let mut woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
        while !*woken {
            woken = match at.map(|at| at.saturating_duration_since(Instant::now())) {
                None => self
                    .signal
                    .wait(woken)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(left) if left.is_zero() => break,
                Some(left) => {
                    let waited = self.signal.wait_timeout(woken, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        *woken = false;
    }

    fn wake(&self) {
        *self.woken.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.signal.notify_one();
    }
}

impl Park {
    /// For one executor, of any number of processors.
    pub fn new() -> Park {
        let workers = (0..MOST_PROCESSORS).map(|_| Bed::default()).collect();
        Park {
            workers,
            stand_in: Bed::default(),
        }
    }

    /// Runs the tasks of an executor without processors (n = 0) on this thread, as its guest, while
    /// `more` holds; sleeps when there is nothing to do. `more` is asked between any two tasks and
    /// after every [`Idle::unattended`]: call that after making it false. One thread at a time.
    pub fn stand_in(&self, executor: &Executor, mut more: impl FnMut() -> bool) {
        while more() {
            executor.run_while(&mut more, |_| false);
            // What is pushed from here on says `unattended`, and that sticks.
            if more() && !executor.has_ready() {
                self.stand_in.sleep_until(executor.timers().next());
            }
        }
    }
}

impl Default for Park {
    fn default() -> Park {
        Park::new()
    }
}

impl Idle for Park {
    fn scan(&self, _worker: &Worker, _busy: bool) -> bool {
        false
    }

    fn rest(&self, worker: &Worker) {
        let Some(id) = worker.id() else { return };
        worker.announce_rest();
        if !worker.has_work() {
            self.workers[id].sleep_until(worker.executor().timers().next());
        }
        worker.retract_rest();
    }

    fn wake(&self, id: usize) {
        self.workers[id].wake();
    }

    fn unattended(&self) {
        self.stand_in.wake();
    }
}
