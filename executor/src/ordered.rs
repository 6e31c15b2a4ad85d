//! A discipline at work: beside it a count of its tasks, by which workers know whether to ask it.
//!
//! | a pusher | a worker |
//! | --- | --- |
//! | push the task | `claim`: take one from the count, if it is above 0 |
//! | `add` one to the count | if that worked: pop a task |
//! | fence, look who rests (`rest.rs`) | else announce a rest, fence, look at the count |
//!
//! A task is counted after it is pushed, and claimed before it is popped. So whoever has a claim finds
//! a task, though not always the one whose count it took; and a count of 0 with a task inside means that
//! its pusher has yet to add it, and tells somebody afterwards, or that a running worker is about to pop
//! it. An empty discipline is never locked. Loom checks this as
//! `no_task_is_left_in_a_discipline_while_all_rest`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::discipline::{Discipline, Ready};
use crate::sync::{AtomicIsize, Ordering};
use crate::task::Runnable;

/// The ready tasks of an executor whose application chose their order.
pub(crate) struct Ordered {
    discipline: Arc<dyn Discipline>,
    count: Count,
    /// Of the executor: no other's tasks are run.
    serial: u32,
}

impl Ordered {
    pub(crate) fn new(discipline: Arc<dyn Discipline>, serial: u32) -> Ordered {
        Ordered {
            discipline,
            count: Count::new(),
            serial,
        }
    }

    /// Appends a task, and says how many are ready now. It tells nobody.
    // Out of line, like `pop`: the way of a task without a discipline leads past both.
    #[inline(never)]
    pub(crate) fn push(&self, task: Runnable) -> usize {
        let task = Ready::new(task);
        // If this panics, the hook has said so, and the task is dropped and counted as such.
        let _ = catch_unwind(AssertUnwindSafe(|| self.discipline.push(task)));
        self.count.add()
    }

    /// Takes the task that is to run now.
    #[inline(never)]
    pub(crate) fn pop(&self) -> Option<Runnable> {
        while self.count.claim() {
            let popped = catch_unwind(AssertUnwindSafe(|| self.discipline.pop()));
            let Some(ready) = popped.ok().flatten() else {
                // It has dropped a task, and that is counted already; or it keeps one back.
                self.count.add();
                return None;
            };
            if let Some(task) = ready.of(self.serial) {
                return Some(task);
            }
            self.count.add(); // the claim was not for this one: it was another executor's
        }
        None
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count.is_zero()
    }

    /// The discipline has dropped a task.
    pub(crate) fn dropped_one(&self) {
        self.count.subtract();
    }
}

/// Tasks that were pushed and that nobody has claimed. It is below 0 for a moment if a task is dropped
/// before it is counted.
struct Count(AtomicIsize);

impl Count {
    fn new() -> Count {
        Count(AtomicIsize::new(0))
    }

    /// Counts a task that has been pushed. Returns how many there are.
    fn add(&self) -> usize {
        // Release pairs with the Acquire in `claim`: who has a claim finds a task in the discipline.
        let before = self.0.fetch_add(1, Ordering::Release);
        usize::try_from(before + 1).unwrap_or(0)
    }

    /// Takes the right to pop one task. False if there is none.
    fn claim(&self) -> bool {
        let mut count = self.0.load(Ordering::Relaxed);
        while count > 0 {
            // Acquire pairs with the Release in `add`; other claims in between change nothing about it.
            match self.0.compare_exchange_weak(
                count,
                count - 1,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(now) => count = now,
            }
        }
        false
    }

    fn subtract(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    fn is_zero(&self) -> bool {
        self.0.load(Ordering::Relaxed) <= 0
    }
}

#[cfg(all(test, urpc_loom))]
mod loom_tests {
    use super::*;
    use crate::rest::Rest;
    use loom::sync::Mutex;
    use loom::thread;

    /// What a discipline is to its users: a lock around an order.
    struct Stack {
        tasks: Mutex<Vec<u32>>,
        count: Count,
    }

    impl Stack {
        fn push(&self, task: u32) {
            self.tasks.lock().expect("no panic").push(task);
            self.count.add();
        }

        fn pop(&self) -> Option<u32> {
            let claimed = self.count.claim();
            claimed.then(|| {
                let popped = self.tasks.lock().expect("no panic").pop();
                popped.expect("who has a claim finds a task")
            })
        }
    }

    /// Two pushers from outside, and a worker that rests when it finds nothing: it is woken, or nothing is
    /// left. What is in the lock is left out here, so that loom sees all of it.
    #[test]
    fn no_task_is_left_in_a_discipline_while_all_rest() {
        loom::model(|| {
            let shared = Arc::new((Count::new(), Rest::new()));
            let push = |(count, rest): &(Count, Rest)| {
                count.add();
                rest.summon().is_some()
            };
            let pusher = thread::spawn({
                let shared = shared.clone();
                move || push(&shared)
            });
            let worker = thread::spawn({
                let shared = shared.clone();
                move || {
                    let (count, rest) = &*shared;
                    let ran = (0..2).filter(|_| count.claim()).count();
                    rest.announce(0);
                    let sleeps = count.is_zero();
                    if !sleeps {
                        rest.retract(0);
                    }
                    (sleeps, ran)
                }
            });
            let woke = push(&shared);
            let woke = pusher.join().expect("no panic") || woke;
            let (sleeps, ran) = worker.join().expect("no panic");
            assert!(
                !sleeps || woke || ran == 2,
                "the worker sleeps, and {} tasks are left",
                2 - ran
            );
        });
    }

    /// Two takers and two tasks, one of which is pushed only now: each task is taken once.
    #[test]
    fn a_claim_always_finds_a_task() {
        loom::model(|| {
            let stack = Arc::new(Stack {
                tasks: Mutex::new(Vec::new()),
                count: Count::new(),
            });
            stack.push(1);
            let taker = thread::spawn({
                let stack = stack.clone();
                move || stack.pop()
            });
            stack.push(2);
            let mut taken: Vec<_> = stack.pop().into_iter().collect();
            taken.extend(taker.join().expect("no panic"));
            taken.extend(stack.pop());
            taken.sort_unstable();
            assert_eq!(taken, [1, 2]);
        });
    }
}
