//! Disciplines: the order they give, and what they cannot change (`any_discipline.rs` has what must not
//! depend on one).
#![cfg(not(urpc_loom))]

mod common;

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use common::watched;
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
        woken.next().iter().for_each(run_next);
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
