//! Tasks and their handles: spawn, join, abort, detach, panic, order.
#![cfg(not(urpc_loom))]

mod common;

use std::future::{pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier, Mutex};
use std::task::{Poll, Waker};
use std::thread;

use common::{Drops, watched};
use urpc_executor::{Executor, Park, on_worker, yield_now};

fn executor(processors: usize) -> Executor {
    Executor::new(processors, "test", Arc::new(Park::new()))
}

#[test]
fn a_joined_task_yields_its_value() {
    watched(|| {
        let executor = executor(1);
        let task = executor.spawn(async { 2 + 3 });
        assert_eq!(executor.block_on(task).expect("it ran"), 5);
        executor.shutdown();
    });
}

#[test]
fn spawn_queues_and_spawn_eager_polls_at_once() {
    watched(|| {
        let executor = executor(1);
        let inner = executor.clone();
        executor.block_on(async move {
            let ran = Arc::new(AtomicBool::new(false));
            let set = |ran: &Arc<AtomicBool>| {
                let ran = ran.clone();
                async move { ran.store(true, Ordering::SeqCst) }
            };
            let queued = inner.spawn(set(&ran));
            assert!(!ran.load(Ordering::SeqCst));
            queued.await.expect("it ran");
            assert!(ran.swap(false, Ordering::SeqCst));
            let eager = inner.spawn_eager(set(&ran));
            assert!(ran.load(Ordering::SeqCst));
            assert!(eager.is_finished());
            eager.await.expect("it ran");
        });
        executor.shutdown();
    });
}

#[test]
fn an_eager_task_that_panics_tells_its_handle_and_nobody_else() {
    watched(|| {
        let executor = executor(1);
        let inner = executor.clone();
        executor.block_on(async move {
            let at_once = inner.spawn_eager(async { panic!("at once") });
            assert!(at_once.is_finished());
            let error = at_once.await.expect_err("it panicked");
            assert_eq!(error.to_string(), "the task panicked: at once");
            let later = inner.spawn_eager(async {
                two_yields().await;
                panic!("later");
            });
            let error = later.await.expect_err("it panicked");
            assert_eq!(error.to_string(), "the task panicked: later");
        });
        executor.shutdown();
    });
}

#[test]
fn an_eager_task_that_waits_goes_on_detached_and_can_be_aborted() {
    watched(|| {
        let executor = executor(1);
        let inner = executor.clone();
        executor.block_on(async move {
            let ran = Arc::new(AtomicBool::new(false));
            let set = ran.clone();
            drop(inner.spawn_eager(async move {
                two_yields().await;
                set.store(true, Ordering::SeqCst);
            }));
            assert!(!ran.load(Ordering::SeqCst), "it waits");
            while !ran.load(Ordering::SeqCst) {
                urpc_executor::yield_now().await;
            }
            let aborted = inner.spawn_eager(std::future::pending::<()>());
            assert!(!aborted.is_finished());
            aborted.abort();
            assert!(aborted.await.expect_err("aborted").is_aborted());
        });
        executor.shutdown();
    });
}

/// The first is lost on an eager task, which is polled twice at its beginning.
async fn two_yields() {
    urpc_executor::yield_now().await;
    urpc_executor::yield_now().await;
}

#[test]
fn deeply_nested_eager_tasks_are_queued_in_the_end() {
    fn descend(
        executor: Executor,
        depth: usize,
    ) -> std::pin::Pin<Box<dyn Future<Output = usize> + Send>> {
        Box::pin(async move {
            if depth == 0 {
                return 0;
            }
            executor
                .spawn_eager(descend(executor.clone(), depth - 1))
                .await
                .expect("it ran")
                + 1
        })
    }
    watched(|| {
        let executor = executor(1);
        assert_eq!(
            executor.block_on(descend(executor.clone(), 100_000)),
            100_000
        );
        executor.shutdown();
    });
}

#[test]
fn a_panic_is_delivered_with_its_message_and_the_worker_goes_on() {
    watched(|| {
        let executor = executor(1);
        let text = executor.spawn(async { panic!("plain") });
        let formatted = executor.spawn(async { panic!("number {}", 7) });
        let other = executor.spawn(async { std::panic::panic_any(42u8) });
        let after = executor.spawn(async { 1 });
        executor.block_on(async {
            let error: urpc_executor::JoinError =
                text.await.map(|(): ()| ()).expect_err("it panicked");
            assert!(error.is_panic() && !error.is_aborted());
            assert_eq!(error.to_string(), "the task panicked: plain");
            let error = formatted.await.map(|(): ()| ()).expect_err("it panicked");
            assert_eq!(error.to_string(), "the task panicked: number 7");
            let error = other.await.map(|(): ()| ()).expect_err("it panicked");
            assert_eq!(error.to_string(), "the task panicked");
            assert_eq!(error.into_panic().downcast_ref::<u8>(), Some(&42));
            assert_eq!(after.await.expect("it ran"), 1);
        });
        executor.shutdown();
    });
}

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("a destructor");
    }
}

#[test]
fn a_destructor_that_panics_spoils_neither_value_nor_worker() {
    watched(|| {
        let executor = executor(1);
        let held = executor.spawn(poll_fn({
            let bomb = Bomb;
            move |_| {
                let _ = &bomb;
                Poll::Ready(7)
            }
        }));
        assert_eq!(
            executor.block_on(held).expect("the value was there first"),
            7
        );
        drop(executor.spawn(async { Bomb }));
        let aborted = executor.spawn(async {
            let _bomb = Bomb;
            pending::<()>().await;
        });
        executor.block_on(async {
            yield_now().await;
            aborted.abort();
            assert!(aborted.await.expect_err("it was aborted").is_aborted());
        });
        executor.shutdown();
    });
}

#[test]
fn a_detached_task_goes_on() {
    watched(|| {
        let executor = executor(1);
        let (done, over) = channel();
        drop(executor.spawn(async move {
            yield_now().await;
            done.send(on_worker()).expect("the test waits");
        }));
        assert!(over.recv().expect("it ran to its end"));
        executor.shutdown();
    });
}

#[test]
fn an_aborted_task_is_dropped_before_its_handle_says_so() {
    watched(|| {
        let executor = executor(1);
        let drops = Drops::default();
        let flag = drops.flag();
        let task = executor.spawn(async move {
            let _flag = flag;
            pending::<()>().await;
        });
        executor.block_on(async {
            yield_now().await;
            assert!(!task.is_finished());
            task.abort();
            assert!(task.await.expect_err("it was aborted").is_aborted());
            assert_eq!(drops.count(), 1);
        });
        executor.shutdown();
    });
}

#[test]
fn a_task_aborted_in_the_middle_of_a_poll_is_over_after_that_poll() {
    watched(|| {
        let executor = executor(1);
        let drops = Drops::default();
        let flag = drops.flag();
        let (started, go) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
        let task = executor.spawn({
            let (started, go) = (started.clone(), go.clone());
            async move {
                let _flag = flag;
                started.wait();
                go.wait();
                pending::<()>().await;
            }
        });
        started.wait();
        task.abort();
        assert!(!task.is_finished());
        assert_eq!(drops.count(), 0);
        go.wait();
        assert!(
            executor
                .block_on(task)
                .expect_err("it was aborted")
                .is_aborted()
        );
        assert_eq!(drops.count(), 1);
        executor.shutdown();
    });
}

#[test]
fn an_abort_after_the_end_still_yields_the_value() {
    watched(|| {
        let executor = executor(1);
        let value = executor.block_on(async {
            let task = executor.spawn(async { 5 });
            yield_now().await;
            assert!(task.is_finished());
            task.abort();
            task.abort();
            assert!(task.is_finished());
            task.await
        });
        assert_eq!(value.expect("it was over before"), 5);
        executor.shutdown();
    });
}

#[test]
fn tasks_that_yield_take_turns() {
    watched(|| {
        let executor = executor(1);
        let turns = Arc::new(Mutex::new(Vec::new()));
        executor.block_on(async {
            let tasks: Vec<_> = (0..3)
                .map(|name| {
                    let turns = turns.clone();
                    executor.spawn(async move {
                        for _ in 0..100 {
                            turns.lock().expect("no panic").push(name);
                            yield_now().await;
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.expect("it ran");
            }
        });
        let turns = turns.lock().expect("no panic");
        assert!(turns.chunks(3).all(|turn| turn == [0, 1, 2]), "{turns:?}");
        executor.shutdown();
    });
}

#[test]
fn tasks_that_keep_the_local_queue_full_do_not_starve_the_shared_one() {
    watched(|| {
        let executor = executor(1);
        let stop = Arc::new(AtomicBool::new(false));
        let busy: Vec<_> = (0..3)
            .map(|_| {
                let stop = stop.clone();
                executor.spawn(async move {
                    while !stop.load(Ordering::SeqCst) {
                        yield_now().await;
                    }
                })
            })
            .collect();
        let end = executor.spawn(async move { stop.store(true, Ordering::SeqCst) });
        executor.block_on(async {
            end.await.expect("it ran");
            for task in busy {
                task.await.expect("it ran");
            }
        });
        executor.shutdown();
    });
}

#[test]
fn more_tasks_than_the_local_queue_holds_all_run() {
    watched(|| {
        let executor = executor(1);
        let ran = Arc::new(AtomicUsize::new(0));
        executor.block_on(async {
            let tasks: Vec<_> = (0..2_000)
                .map(|_| {
                    let ran = ran.clone();
                    executor.spawn(async move {
                        yield_now().await;
                        ran.fetch_add(1, Ordering::Relaxed);
                    })
                })
                .collect();
            for task in tasks {
                task.await.expect("it ran");
            }
        });
        assert_eq!(ran.load(Ordering::Relaxed), 2_000);
        executor.shutdown();
    });
}

#[test]
fn a_hundred_thousand_tasks_on_four_workers_each_run_once() {
    const TASKS: usize = 100_000;
    watched(|| {
        let executor = executor(4);
        let runs: Arc<Vec<AtomicUsize>> =
            Arc::new((0..TASKS).map(|_| AtomicUsize::new(0)).collect());
        let spawners: Vec<_> = (0..4)
            .map(|part| {
                let (executor, runs) = (executor.clone(), runs.clone());
                executor.clone().spawn(async move {
                    let mine = (part..TASKS).step_by(4).map(|task| {
                        let runs = runs.clone();
                        executor.spawn(async move {
                            if task % 3 == 0 {
                                yield_now().await;
                            }
                            runs[task].fetch_add(1, Ordering::Relaxed);
                        })
                    });
                    for task in mine.collect::<Vec<_>>() {
                        task.await.expect("it ran");
                    }
                })
            })
            .collect();
        executor.block_on(async {
            for spawner in spawners {
                spawner.await.expect("it ran");
            }
        });
        assert!(runs.iter().all(|runs| runs.load(Ordering::Relaxed) == 1));
        executor.shutdown();
    });
}

#[test]
fn a_task_woken_from_a_plain_thread_wakes_a_sleeping_worker() {
    watched(|| {
        let executor = executor(2);
        for round in 0..2_000 {
            let slot: Arc<Mutex<(bool, Option<Waker>)>> = Arc::default();
            let task = executor.spawn({
                let slot = slot.clone();
                poll_fn(move |cx| {
                    let mut slot = slot.lock().expect("no panic");
                    if slot.0 {
                        return Poll::Ready(round);
                    }
                    slot.1 = Some(cx.waker().clone());
                    Poll::Pending
                })
            });
            let waker = loop {
                if let Some(waker) = slot.lock().expect("no panic").1.take() {
                    break waker;
                }
                thread::yield_now();
            };
            slot.lock().expect("no panic").0 = true;
            waker.wake();
            // Nothing but the wake-up tells a worker: this thread waits without a processor.
            let (done, over) = channel();
            drop(executor.spawn(async move { done.send(task.await) }));
            assert_eq!(over.recv().expect("it ran").expect("it ran"), round);
        }
        executor.shutdown();
    });
}

#[test]
fn tasks_are_stolen_from_a_worker_that_is_stuck_in_a_poll() {
    watched(|| {
        let executor = executor(2);
        let inner = executor.clone();
        let (done, over) = channel();
        let stuck = executor.spawn(async move {
            let tasks: Vec<_> = (0..10)
                .map(|n| {
                    let done = done.clone();
                    inner.spawn(async move { done.send(n).expect("the test waits") })
                })
                .collect();
            // Blocks the thread until other threads have run all of them.
            let mut ran: Vec<i32> = over.iter().take(10).collect();
            ran.sort_unstable();
            drop(tasks);
            ran
        });
        // The second processor is free or goes to this thread, which steals.
        let ran = executor.block_on(stuck).expect("it ran");
        assert_eq!(ran, (0..10).collect::<Vec<_>>());
        executor.shutdown();
    });
}

#[test]
fn after_a_shutdown_a_spawn_is_aborted_at_once() {
    watched(|| {
        let executor = executor(1);
        executor.shutdown();
        executor.shutdown();
        let drops = Drops::default();
        let flag = drops.flag();
        let task = executor.spawn(async move { drop(flag) });
        assert_eq!(drops.count(), 1);
        assert!(task.is_finished());
        assert!(
            executor
                .block_on(task)
                .expect_err("no task runs")
                .is_aborted()
        );
    });
}

#[test]
fn a_handle_polled_after_its_result_panics_with_a_reason() {
    watched(|| {
        let executor = executor(1);
        // Spawned inside, so that no other thread comes for it.
        let mut slot = None;
        executor.block_on(async {
            let task = slot.insert(executor.spawn(async {}));
            task.await.expect("it ran");
        });
        let mut task = slot.take().expect("it was spawned");
        let again = catch_unwind(AssertUnwindSafe(|| executor.block_on(&mut task)));
        assert!(again.is_err());
        // The processor has come back.
        assert_eq!(executor.unheld(), 1);
        executor.shutdown();
    });
}
