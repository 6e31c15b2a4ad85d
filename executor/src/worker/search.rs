//! The order in which a worker looks for something to do: one line a source.
//!
//! Whoever holds a processor runs [`Worker::work`]; guests run [`Worker::work_as_guest`]. Neither runs
//! more than [`TASKS_PER_SCAN`] tasks without a look at everything, whatever the order of the tasks is.

use super::{TASKS_PER_SCAN, Worker};
use crate::processor::Processor;
use crate::task::Runnable;

/// What a worker found.
enum Found {
    Task(Runnable),
    /// Something was done that may have made a task ready.
    Something,
    Nothing,
}

impl Worker {
    /// Runs tasks until `finished`, which is asked between any two of them, or until this worker
    /// must leave its processor.
    pub(super) fn work(&self, mut finished: impl FnMut(&Worker) -> bool) {
        let Some(processor) = &self.processor else {
            unreachable!("work() is called with a processor in hand");
        };
        while !self.must_leave() {
            if let Some(task) = self.take_next() {
                self.run(task);
            } else if finished(self) {
                break;
            } else if let Some(task) = self.local(processor) {
                self.run(task);
            } else {
                match self.find(processor) {
                    Found::Task(task) => self.run(task),
                    Found::Something => {}
                    Found::Nothing => self.executor.shared.idle.rest(self),
                }
            }
        }
    }

    /// Takes a task of its own, unless it is time to look at everything.
    #[inline]
    fn local(&self, processor: &Processor) -> Option<Runnable> {
        if self.since_scan.get() < TASKS_PER_SCAN {
            processor.local.pop()
        } else {
            None
        }
    }

    /// The order of search after [`local`](Self::local). A scan costs cache misses, so it comes only when
    /// nothing is ready here (R15), and before a theft, because what it finds is a caller who waits.
    #[inline(never)]
    fn find(&self, processor: &Processor) -> Found {
        if self.since_scan.get() >= TASKS_PER_SCAN {
            return self.look_around(processor);
        }
        if let Some(task) = self.injected() {
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
    pub(super) fn work_as_guest(
        &self,
        mut more: impl FnMut() -> bool,
        mut scan: impl FnMut(&Worker) -> bool,
    ) {
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
}
