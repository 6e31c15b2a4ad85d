//! What must hold under any discipline: every task runs, none is forgotten, and the end finds all of them.
#![cfg(not(urpc_loom))]

mod common;

use std::future::pending;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;

use common::{Drops, watched};
use urpc_executor::{Discipline, Executor, Fifo, Lifo, Park, Priorities, Ready, yield_now};

/// An application's own: any order, the same one for the same seed.
struct Shuffle(Mutex<(u64, Vec<Ready>)>);

impl Shuffle {
    fn new(seed: u64) -> Shuffle {
        Shuffle(Mutex::new((seed, Vec::new())))
    }
}

impl Discipline for Shuffle {
    fn push(&self, task: Ready) {
        self.0.lock().unwrap().1.push(task);
    }

    fn pop(&self) -> Option<Ready> {
        let (state, ready) = &mut *self.0.lock().unwrap();
        // xorshift64
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        let any = (*state >> 32) as usize % ready.len().max(1);
        (!ready.is_empty()).then(|| ready.swap_remove(any))
    }
}

fn all() -> Vec<Arc<dyn Discipline>> {
    vec![
        Arc::new(Fifo::new()),
        Arc::new(Lifo::new()),
        Arc::new(Priorities::new()),
        Arc::new(Shuffle::new(0x5eed)),
    ]
}

fn executor(processors: usize, discipline: impl Discipline) -> Executor {
    Executor::with_discipline(
        processors,
        "test",
        Arc::new(Park::new()),
        Arc::new(discipline),
    )
}

#[test]
fn every_task_runs_under_any_discipline_on_any_number_of_processors() {
    watched(|| {
        for discipline in all() {
            for processors in [1, 3] {
                let executor = executor(processors, discipline.clone());
                let ran = Arc::new(AtomicUsize::new(0));
                let task = |n: usize| {
                    let ran = ran.clone();
                    executor.spawn_with(n as i32 % 5, async move {
                        for _ in 0..n % 4 {
                            yield_now().await;
                        }
                        ran.fetch_add(1, Ordering::SeqCst);
                    })
                };
                thread::scope(|s| {
                    for _ in 0..2 {
                        // From outside, and the handles are joined outside of it as well.
                        s.spawn(|| (0..200).map(task).for_each(drop));
                    }
                    executor.block_on(async {
                        for handle in (0..200).map(task).collect::<Vec<_>>() {
                            handle.await.expect("it ran");
                        }
                    });
                });
                while ran.load(Ordering::SeqCst) < 600 {
                    thread::yield_now();
                }
                assert!(!executor.has_ready());
                executor.shutdown();
            }
        }
    });
}

#[test]
fn a_push_from_outside_wakes_a_worker_at_rest_every_time() {
    watched(|| {
        for discipline in all() {
            let executor = executor(2, discipline);
            // Two threads, each of which lets the workers come to rest again and again.
            thread::scope(|s| {
                for _ in 0..2 {
                    s.spawn(|| {
                        for _ in 0..500 {
                            let (done, over) = std::sync::mpsc::channel();
                            let _detached = executor.spawn(async move { done.send(()).unwrap() });
                            over.recv().expect("it ran");
                        }
                    });
                }
            });
            executor.shutdown();
        }
    });
}

#[test]
fn a_guest_runs_the_tasks_in_their_order() {
    let order = watched(|| {
        let executor = executor(0, Lifo::new());
        let order = Arc::new(Mutex::new(Vec::new()));
        for n in 0..3 {
            let order = order.clone();
            let _detached = executor.spawn(async move { order.lock().unwrap().push(n) });
        }
        assert!(executor.has_ready());
        executor.run_while(|| true, |_| false);
        assert!(!executor.has_ready());
        executor.shutdown();
        Arc::into_inner(order).unwrap().into_inner().unwrap()
    });
    assert_eq!(order, [2, 1, 0]);
}

#[test]
fn a_shutdown_drops_what_is_in_the_discipline() {
    watched(|| {
        for discipline in all() {
            let executor = executor(1, discipline);
            let drops = Drops::default();
            let (running, go) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
            // One in the middle of a poll, and behind it some that never get their turn.
            let _running = executor.spawn({
                let (flag, running, go) = (drops.flag(), running.clone(), go.clone());
                async move {
                    let _flag = flag;
                    running.wait();
                    go.wait();
                    pending::<()>().await;
                }
            });
            running.wait();
            let handles: Vec<_> = (0..20)
                .map(|n| {
                    let flag = drops.flag();
                    executor.spawn_with(n, async move {
                        let _flag = flag;
                        pending::<()>().await;
                    })
                })
                .collect();
            thread::scope(|s| {
                s.spawn(|| executor.shutdown());
                // The shutdown has begun when it has dropped a task.
                while drops.count() == 0 {
                    thread::yield_now();
                }
                go.wait();
            });
            assert_eq!(drops.count(), 21);
            for handle in handles {
                let error = executor.block_on(handle).expect_err("it was dropped");
                assert!(error.is_aborted());
            }
            assert!(!executor.has_ready());
        }
    });
}

/// Drops what is below 0, panics at 13, and at the first question.
#[derive(Default)]
struct Bad {
    good: Fifo,
    asked: AtomicBool,
}

impl Discipline for Bad {
    fn push(&self, task: Ready) {
        match task.priority() {
            ..0 => drop(task),
            13 => panic!("13 is bad luck"),
            _ => self.good.push(task),
        }
    }

    fn pop(&self) -> Option<Ready> {
        let again = self.asked.swap(true, Ordering::SeqCst);
        assert!(again, "this one needs to be asked twice");
        self.good.pop()
    }
}

#[test]
fn a_discipline_that_drops_and_panics_aborts_those_tasks_and_no_others() {
    watched(|| {
        let executor = executor(1, Bad::default());
        executor.block_on(async {
            let [dropped, unlucky, good] = [-1, 13, 0].map(|p| executor.spawn_with(p, async {}));
            assert!(dropped.await.expect_err("it was dropped").is_aborted());
            assert!(unlucky.await.expect_err("it was dropped").is_aborted());
            good.await.expect("it ran");
        });
        // Nothing is left over that would keep a worker awake.
        assert!(!executor.has_ready());
        executor.shutdown();
    });
}

#[test]
fn a_task_of_another_executor_is_dropped_not_run() {
    watched(|| {
        let shared = Arc::new(Lifo::new());
        let (here, there) = (executor(1, shared.clone()), executor(0, shared));
        let mut foreign = None;
        here.block_on(async {
            let own = here.spawn(async {});
            foreign = Some(there.spawn(async { unreachable!("nobody runs tasks there") }));
            own.await.expect("it ran");
        });
        assert!(!here.has_ready() && !there.has_ready());
        let error = there
            .block_on(foreign.unwrap())
            .expect_err("it was dropped");
        assert!(error.is_aborted());
        here.shutdown();
        there.shutdown();
    });
}
