//! Disciplines: the order they give, and that nothing else about tasks depends on it.
#![cfg(not(urpc_loom))]

mod common;

use std::collections::BTreeMap;
use std::future::{pending, poll_fn};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::task::{Poll, Waker};
use std::thread;

use common::{Drops, watched};
use urpc_executor::{
    Discipline, Executor, Fifo, Idle, Lifo, Park, Priorities, Ready, TASKS_PER_SCAN, Worker,
    run_next, yield_now,
};

/// An application's own: the earliest deadline first, which a task's priority is minus of. Those of
/// one deadline come newest first.
#[derive(Default)]
struct Deadlines(Mutex<BTreeMap<i32, Vec<Ready>>>);

impl Discipline for Deadlines {
    fn push(&self, task: Ready) {
        let mut ready = self.0.lock().unwrap();
        ready.entry(-task.priority()).or_default().push(task);
    }

    fn pop(&self) -> Option<Ready> {
        let mut ready = self.0.lock().unwrap();
        let mut first = ready.first_entry()?;
        let task = first.get_mut().pop();
        if first.get().is_empty() {
            first.remove();
        }
        task
    }
}

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
        Arc::new(Deadlines::default()),
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

/// In which order tasks of these priorities run that become ready in this order.
fn order_of(discipline: impl Discipline, priorities: &[i32]) -> Vec<(usize, i32)> {
    let executor = executor(1, discipline);
    let order = Arc::new(Mutex::new(Vec::new()));
    executor.block_on(async {
        let tasks: Vec<_> = (0..)
            .zip(priorities)
            .map(|(n, &priority)| {
                let order = order.clone();
                let note = async move { order.lock().unwrap().push((n, priority)) };
                executor.spawn_with(priority, note)
            })
            .collect();
        for task in tasks {
            task.await.expect("it ran");
        }
    });
    executor.shutdown();
    let order = order.lock().unwrap();
    order.clone()
}

#[test]
fn fifo_runs_the_oldest_first() {
    let order = watched(|| order_of(Fifo::new(), &[3, 1, 2]));
    assert_eq!(order, [(0, 3), (1, 1), (2, 2)]);
}

#[test]
fn lifo_runs_the_newest_first() {
    let order = watched(|| order_of(Lifo::new(), &[3, 1, 2]));
    assert_eq!(order, [(2, 2), (1, 1), (0, 3)]);
}

#[test]
fn priorities_run_the_highest_first_and_equals_in_their_order() {
    let order = watched(|| order_of(Priorities::new(), &[0, 5, i32::MIN, 5, -3, i32::MAX]));
    let expected = [
        (5, i32::MAX),
        (1, 5),
        (3, 5),
        (0, 0),
        (4, -3),
        (2, i32::MIN),
    ];
    assert_eq!(order, expected);
}

#[test]
fn an_own_discipline_runs_the_earliest_deadline_first() {
    let order = watched(|| order_of(Deadlines::default(), &[-30, -10, -20, -10]));
    assert_eq!(order, [(3, -10), (1, -10), (2, -20), (0, -30)]);
}

#[test]
fn a_task_that_yields_keeps_its_priority() {
    let turns = watched(|| {
        let executor = executor(1, Priorities::new());
        let turns = Arc::new(Mutex::new(Vec::new()));
        executor.block_on(async {
            let task = |priority| {
                let turns = turns.clone();
                executor.spawn_with(priority, async move {
                    for _ in 0..2 {
                        turns.lock().unwrap().push(priority);
                        yield_now().await;
                    }
                })
            };
            for task in [task(1), task(2)] {
                task.await.expect("it ran");
            }
        });
        executor.shutdown();
        Arc::into_inner(turns).unwrap().into_inner().unwrap()
    });
    assert_eq!(turns, [2, 2, 1, 1]);
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

/// An [`Idle`] that counts its busy scans, and in an idle one wakes what waits for a reply: the task of
/// the lowest priority as the one to be run next.
struct Outside {
    park: Park,
    busy_scans: AtomicUsize,
    waiting: Mutex<BTreeMap<i32, Waker>>,
}

impl Outside {
    fn new() -> Arc<Outside> {
        Arc::new(Outside {
            park: Park::new(),
            busy_scans: AtomicUsize::new(0),
            waiting: Mutex::default(),
        })
    }

    /// Waits until it is woken, and says who it is.
    async fn reply(self: Arc<Self>, priority: i32, order: Arc<Mutex<Vec<i32>>>) {
        let mut waited = false;
        poll_fn(|cx| {
            if std::mem::replace(&mut waited, true) {
                return Poll::Ready(());
            }
            let mut waiting = self.waiting.lock().unwrap();
            waiting.insert(priority, cx.waker().clone());
            Poll::Pending
        })
        .await;
        order.lock().unwrap().push(priority);
    }
}

impl Idle for Outside {
    fn scan(&self, _worker: &Worker, busy: bool) -> bool {
        self.busy_scans.fetch_add(busy.into(), Ordering::SeqCst);
        let mut waiting = self.waiting.lock().unwrap();
        if busy || waiting.len() < 2 {
            return false;
        }
        let woken = std::mem::take(&mut *waiting);
        drop(waiting);
        let mut woken = woken.into_values();
        woken.next().into_iter().for_each(run_next);
        woken.for_each(Waker::wake);
        true
    }

    fn rest(&self, worker: &Worker) {
        self.park.rest(worker);
    }

    fn wake(&self, id: usize) {
        self.park.wake(id);
    }

    fn unattended(&self) {
        self.park.unattended();
    }
}

#[test]
fn a_task_woken_by_its_reply_goes_through_the_discipline() {
    let order_on = |executor: &Executor, outside: &Arc<Outside>| {
        let order = Arc::new(Mutex::new(Vec::new()));
        executor.block_on(async {
            let [low, high] = [-1, 5].map(|priority| {
                let reply = outside.clone().reply(priority, order.clone());
                executor.spawn_with(priority, reply)
            });
            low.await.expect("it ran");
            high.await.expect("it ran");
        });
        executor.shutdown();
        Arc::into_inner(order).unwrap().into_inner().unwrap()
    };
    watched(move || {
        let outside = Outside::new();
        let plain = Executor::new(1, "plain", outside.clone());
        assert_eq!(order_on(&plain, &outside), [-1, 5]);
        let outside = Outside::new();
        let discipline = Arc::new(Priorities::new());
        let ordered = Executor::with_discipline(1, "ordered", outside.clone(), discipline);
        assert_eq!(order_on(&ordered, &outside), [5, -1]);
    });
}

#[test]
fn a_task_that_always_comes_first_does_not_put_off_the_scan() {
    watched(|| {
        let outside = Outside::new();
        let executor = Executor::with_discipline(1, "lifo", outside.clone(), Arc::new(Lifo::new()));
        let again = executor.spawn(async move {
            let mut turns = 0;
            while outside.busy_scans.load(Ordering::SeqCst) < 3 {
                turns += 1;
                yield_now().await;
            }
            turns
        });
        let turns = executor.block_on(again).expect("it ran");
        assert!(turns <= 3 * TASKS_PER_SCAN, "{turns} turns");
        executor.shutdown();
    });
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
        let foreign = here.block_on(async {
            let own = here.spawn(async {});
            let foreign = there.spawn(async { unreachable!("nobody runs tasks there") });
            own.await.expect("it ran");
            foreign
        });
        assert!(!here.has_ready() && !there.has_ready());
        let error = there.block_on(foreign).expect_err("it was dropped");
        assert!(error.is_aborted());
        here.shutdown();
        there.shutdown();
    });
}
