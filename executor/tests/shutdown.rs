//! The end of an executor: every task is dropped, every thread ends, nobody is left waiting.
#![cfg(not(urpc_loom))]

mod common;

use std::future::{pending, poll_fn};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier, Mutex};
use std::task::{Poll, Waker};
use std::thread;

use common::{Drops, watched};
use urpc_executor::{Executor, Park};

fn executor(processors: usize) -> Executor {
    Executor::new(processors, "test", Arc::new(Park::new()))
}

#[test]
fn a_shutdown_drops_ready_waiting_and_running_tasks() {
    watched(|| {
        let executor = executor(1);
        let drops = Drops::default();
        let (running, go) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
        // Tasks that wait, one of them for another.
        let mut handles: Vec<_> = (0..20)
            .map(|_| {
                let flag = drops.flag();
                executor.spawn(async move {
                    let _flag = flag;
                    pending::<()>().await;
                })
            })
            .collect();
        let (flag, first) = (drops.flag(), handles.swap_remove(0));
        handles.push(executor.spawn(async move {
            let _flag = flag;
            let _ = first.await;
            pending::<()>().await;
        }));
        // One in the middle of a poll, and behind it some that never get their turn.
        let flag = drops.flag();
        handles.push(executor.spawn({
            let (running, go) = (running.clone(), go.clone());
            async move {
                let _flag = flag;
                running.wait();
                go.wait();
                pending::<()>().await;
            }
        }));
        running.wait();
        handles.extend((0..20).map(|_| {
            let flag = drops.flag();
            executor.spawn(async move {
                let _flag = flag;
                pending::<()>().await;
            })
        }));
        let ending = thread::spawn({
            let executor = executor.clone();
            move || executor.shutdown()
        });
        // The shutdown has begun when it has dropped a task.
        while drops.count() == 0 {
            thread::yield_now();
        }
        go.wait();
        ending.join().expect("no panic");
        assert_eq!(drops.count(), 42);
        for handle in handles {
            assert!(
                executor
                    .block_on(handle)
                    .expect_err("it was dropped")
                    .is_aborted()
            );
        }
    });
}

/// Nobody has a handle to them, and nobody will wake them: they did not even register a waker.
#[test]
fn a_shutdown_drops_detached_tasks_that_nobody_can_wake() {
    watched(|| {
        let executor = executor(1);
        let drops = Drops::default();
        for _ in 0..20 {
            let flag = drops.flag();
            drop(executor.spawn(async move {
                let _flag = flag;
                pending::<()>().await;
            }));
        }
        let (done, over) = channel();
        drop(executor.spawn(async move { done.send(()) }));
        over.recv().expect("it ran, after all others have");
        assert_eq!(drops.count(), 0);
        executor.shutdown();
        assert_eq!(drops.count(), 20);
    });
}

#[test]
fn a_chain_of_tasks_that_wait_for_one_another_is_dropped_without_recursion() {
    watched(|| {
        let executor = executor(1);
        let mut last = executor.spawn(async { pending::<()>().await });
        for _ in 0..100_000 {
            last = executor.spawn(async move {
                let _ = last.await;
                pending::<()>().await;
            });
        }
        let (done, over) = channel();
        drop(executor.spawn(async move { done.send(()) }));
        over.recv().expect("it ran, after all others have");
        executor.shutdown();
        assert!(last.is_finished());
    });
}

#[test]
fn a_shutdown_from_a_task_ends_its_worker_too() {
    watched(|| {
        let executor = executor(1);
        let inner = executor.clone();
        let (done, over) = channel();
        drop(executor.spawn(async move {
            inner.shutdown();
            done.send(()).expect("the test waits");
        }));
        over.recv().expect("it came back");
        // The worker's handle is the last one beside this, and goes when its thread ends.
        while executor.unheld() == 0 {
            thread::yield_now();
        }
        executor.shutdown();
    });
}

#[test]
fn block_on_goes_on_after_a_shutdown_by_somebody_else() {
    watched(|| {
        let executor = executor(1);
        let slot: Arc<Mutex<Option<Waker>>> = Arc::default();
        let down = Arc::new(AtomicBool::new(false));
        let blocked = thread::spawn({
            let (executor, slot, down) = (executor.clone(), slot.clone(), down.clone());
            move || {
                executor.block_on(poll_fn(move |cx| {
                    *slot.lock().expect("no panic") = Some(cx.waker().clone());
                    if down.load(Ordering::SeqCst) {
                        Poll::Ready(7)
                    } else {
                        Poll::Pending
                    }
                }))
            }
        });
        while slot.lock().expect("no panic").is_none() {
            thread::yield_now();
        }
        executor.shutdown();
        down.store(true, Ordering::SeqCst);
        slot.lock()
            .expect("no panic")
            .take()
            .expect("it has been polled")
            .wake();
        assert_eq!(blocked.join().expect("no panic"), 7);
    });
}
