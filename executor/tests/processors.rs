//! Processors and the threads that hold them: `block_on`, guests, timers.
#![cfg(not(urpc_loom))]

mod common;

use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier, Mutex};
use std::task::Waker;
use std::thread;
use std::time::{Duration, Instant};

use common::{Drops, watched};
use urpc_executor::{
    Elapsed, Executor, Idle, Park, Sleep, Worker, on_worker, timeout_at, yield_now,
};

fn executor(processors: usize) -> Executor {
    Executor::new(processors, "test", Arc::new(Park::new()))
}

/// A thread that runs the tasks of an executor without processors, until it is dropped.
struct StandIn {
    park: Arc<Park>,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl StandIn {
    fn new() -> (Executor, StandIn) {
        let park = Arc::new(Park::new());
        let executor = Executor::new(0, "none", park.clone());
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let (park, executor, stop) = (park.clone(), executor.clone(), stop.clone());
            move || park.stand_in(&executor, || !stop.load(Ordering::SeqCst))
        });
        (
            executor,
            StandIn {
                park,
                stop,
                thread: Some(thread),
            },
        )
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.park.unattended();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("it does not panic");
        }
    }
}

#[test]
fn a_new_executor_holds_no_processor_and_block_on_borrows_one() {
    watched(|| {
        let executor = executor(2);
        assert_eq!((executor.processors(), executor.unheld()), (2, 2));
        let inner = executor.clone();
        executor.block_on(async move {
            assert_eq!(inner.unheld(), 1);
            assert!(on_worker());
            assert!(
                Executor::current()
                    .expect("this thread is in block_on")
                    .same(&inner)
            );
        });
        assert_eq!(executor.unheld(), 2);
        assert!(!on_worker() && Executor::current().is_none());
        executor.shutdown();
    });
}

#[test]
fn several_threads_block_on_one_processor_and_all_finish() {
    watched(|| {
        let executor = executor(1);
        let threads: Vec<_> = (0..6)
            .map(|thread| {
                let executor = executor.clone();
                thread::spawn(move || {
                    let mut sum = 0;
                    for round in 0..200 {
                        let task = executor.spawn(async move {
                            yield_now().await;
                            round + thread
                        });
                        sum += executor.block_on(async {
                            yield_now().await;
                            task.await.expect("it ran")
                        });
                    }
                    sum
                })
            })
            .collect();
        for (number, thread) in threads.into_iter().enumerate() {
            assert_eq!(thread.join().expect("no panic"), 199 * 100 + 200 * number);
        }
        executor.shutdown();
    });
}

#[test]
fn never_more_tasks_run_at_once_than_there_are_processors() {
    watched(|| {
        let executor = executor(2);
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let blocked: Vec<_> = (0..4)
            .map(|_| {
                let (executor, now, most) = (executor.clone(), now.clone(), most.clone());
                thread::spawn(move || {
                    for _ in 0..200 {
                        let tasks = (0..5).map(|_| {
                            let (now, most) = (now.clone(), most.clone());
                            executor.spawn(async move {
                                for _ in 0..3 {
                                    most.fetch_max(
                                        now.fetch_add(1, Ordering::SeqCst) + 1,
                                        Ordering::SeqCst,
                                    );
                                    thread::yield_now();
                                    now.fetch_sub(1, Ordering::SeqCst);
                                    yield_now().await;
                                }
                            })
                        });
                        let tasks: Vec<_> = tasks.collect();
                        executor.block_on(async {
                            for task in tasks {
                                task.await.expect("it ran");
                            }
                        });
                    }
                })
            })
            .collect();
        for thread in blocked {
            thread.join().expect("no panic");
        }
        assert!((1..=2).contains(&most.load(Ordering::SeqCst)));
        executor.shutdown();
    });
}

#[test]
fn what_a_task_starts_runs_on_all_processors() {
    watched(|| {
        let executor = executor(2);
        let both = Arc::new(Barrier::new(2));
        executor.block_on(async {
            // Each of them keeps its processor until the other one has one, too.
            let tasks = [both.clone(), both].map(|both| executor.spawn(async move { both.wait() }));
            for task in tasks {
                task.await.expect("it ran");
            }
        });
        executor.shutdown();
    });
}

#[test]
fn a_resting_reserve_thread_gives_way_to_block_on() {
    watched(|| {
        let executor = executor(1);
        // Brings a reserve thread to the processor, where it goes on to rest.
        let (done, over) = channel();
        drop(executor.spawn(async move { done.send(()) }));
        over.recv().expect("it ran");
        let inner = executor.clone();
        // On a processor, and not only waiting: else no task would run while this is polled.
        let mine = executor.block_on(async move {
            while !on_worker() {
                let child = inner.spawn(async {});
                child.await.expect("it ran");
            }
            inner.unheld()
        });
        assert_eq!(mine, 0);
        executor.shutdown();
    });
}

#[test]
fn block_on_inside_a_worker_panics_with_advice() {
    watched(|| {
        let executor = executor(1);
        let inner = executor.clone();
        let task = executor.spawn(async move { inner.block_on(async {}) });
        let error = executor.block_on(task).expect_err("it panicked");
        assert!(error.to_string().contains("await the future"), "{error}");
        executor.shutdown();
    });
}

#[test]
fn a_panic_of_the_main_future_comes_out_and_the_processor_comes_back() {
    watched(|| {
        let executor = executor(1);
        let end = catch_unwind(AssertUnwindSafe(|| {
            executor.block_on(async {
                yield_now().await;
                panic!("main");
            })
        }));
        assert!(end.is_err());
        assert_eq!(executor.unheld(), 1);
        assert_eq!(executor.block_on(async { 1 }), 1);
        executor.shutdown();
    });
}

#[test]
fn without_processors_a_guest_runs_the_tasks_of_block_on() {
    watched(|| {
        let (executor, stand_in) = StandIn::new();
        for round in 0..500 {
            let inner = executor.clone();
            let value = executor.block_on(async move {
                assert!(!on_worker());
                let task = inner.spawn(async move {
                    assert!(on_worker());
                    yield_now().await;
                    round
                });
                task.await.expect("it ran")
            });
            assert_eq!(value, round);
        }
        drop(stand_in);
        executor.shutdown();
    });
}

#[test]
fn without_processors_timers_are_honoured() {
    watched(|| {
        let (executor, stand_in) = StandIn::new();
        let at = Instant::now() + Duration::from_millis(5);
        executor.block_on(Sleep::new(&executor, at));
        assert!(Instant::now() >= at);
        let inner = executor.clone();
        let task = executor.spawn(async move {
            let at = Instant::now() + Duration::from_millis(5);
            Sleep::new(&inner, at).await;
            Instant::now() >= at
        });
        assert!(executor.block_on(task).expect("it ran"));
        drop(stand_in);
        executor.shutdown();
    });
}

#[test]
fn a_guest_stops_between_two_tasks_and_leaves_the_others() {
    watched(|| {
        let executor = Executor::new(0, "none", Arc::new(Park::new()));
        let ran = Arc::new(AtomicUsize::new(0));
        for _ in 0..10 {
            let ran = ran.clone();
            drop(executor.spawn(async move { ran.fetch_add(1, Ordering::SeqCst) }));
        }
        executor.run_while(|| ran.load(Ordering::SeqCst) < 3, |_| false);
        assert_eq!(ran.load(Ordering::SeqCst), 3);
        assert!(executor.has_ready());
        let mut scans = 0;
        executor.run_while(
            || true,
            |worker| {
                assert!(worker.is_guest() && worker.id().is_none());
                scans += 1;
                scans < 3
            },
        );
        assert_eq!((ran.load(Ordering::SeqCst), scans), (10, 3));
        assert!(!executor.has_ready());
        executor.shutdown();
    });
}

#[test]
fn a_detached_sleep_ends_after_block_on_is_over() {
    watched(|| {
        let executor = executor(1);
        let (done, over) = channel();
        executor.block_on(async {
            let inner = executor.clone();
            drop(executor.spawn(async move {
                Sleep::new(&inner, Instant::now() + Duration::from_millis(20)).await;
                done.send(()).expect("the test waits");
            }));
            yield_now().await;
        });
        over.recv().expect("somebody fired the timer");
        executor.shutdown();
    });
}

#[test]
fn an_earlier_timer_from_a_plain_thread_shortens_a_rest() {
    watched(|| {
        let executor = executor(1);
        let inner = executor.clone();
        let long = executor.spawn(async move {
            Sleep::new(&inner, Instant::now() + Duration::from_secs(3600)).await;
        });
        let inner = executor.clone();
        let (done, over) = channel();
        let short = thread::spawn(move || {
            let mut sleep = Box::pin(Sleep::new(
                &inner,
                Instant::now() + Duration::from_millis(5),
            ));
            let waker = Waker::from(Arc::new(Signal(Mutex::new(Some(done)))));
            let mut cx = std::task::Context::from_waker(&waker);
            assert!(sleep.as_mut().poll(&mut cx).is_pending());
            over.recv().expect("the worker fired it");
            assert!(sleep.as_mut().poll(&mut cx).is_ready());
        });
        short.join().expect("no panic");
        assert!(!long.is_finished());
        executor.shutdown();
    });
}

/// A waker that sends.
struct Signal(Mutex<Option<std::sync::mpsc::Sender<()>>>);

impl std::task::Wake for Signal {
    fn wake(self: Arc<Self>) {
        if let Some(done) = self.0.lock().expect("no panic").take() {
            done.send(()).expect("the test waits");
        }
    }
}

#[test]
fn a_timeout_drops_the_late_future_and_lets_the_early_one_win() {
    watched(|| {
        let executor = executor(1);
        let drops = Drops::default();
        let flag = drops.flag();
        let soon = Instant::now() + Duration::from_millis(5);
        let late = timeout_at(&executor, soon, async move {
            let _flag = flag;
            pending::<()>().await;
        });
        assert_eq!(executor.block_on(late), Err(Elapsed));
        assert_eq!(drops.count(), 1);
        // Its time is over already, but it is ready.
        assert_eq!(
            executor.block_on(timeout_at(&executor, soon, async { 3 })),
            Ok(3)
        );
        let hour = Instant::now() + Duration::from_secs(3600);
        let early = timeout_at(&executor, hour, async {
            yield_now().await;
            4
        });
        assert_eq!(executor.block_on(early), Ok(4));
        assert_eq!(executor.timers().next(), None);
        executor.shutdown();
    });
}

/// Sleeps like `Park`, and counts what it is told.
struct Counting {
    park: Park,
    busy: AtomicUsize,
    held: Mutex<Vec<usize>>,
}

impl Idle for Counting {
    fn scan(&self, worker: &Worker, busy: bool) -> bool {
        self.busy.fetch_add(usize::from(busy), Ordering::SeqCst);
        self.park.scan(worker, busy)
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

    fn held(&self, free: usize) {
        self.held.lock().expect("no panic").push(free);
    }
}

#[test]
fn a_busy_worker_scans_now_and_then_and_tells_who_holds_processors() {
    watched(|| {
        let idle = Arc::new(Counting {
            park: Park::new(),
            busy: AtomicUsize::new(0),
            held: Mutex::new(Vec::new()),
        });
        let executor = Executor::new(1, "counting", idle.clone());
        let inner = executor.clone();
        executor.block_on(async move {
            let task = inner.spawn(async {
                for _ in 0..10 * urpc_executor::TASKS_PER_SCAN {
                    yield_now().await;
                }
            });
            task.await.expect("it ran");
        });
        assert_eq!(idle.busy.load(Ordering::SeqCst), 10);
        assert_eq!(*idle.held.lock().expect("no panic"), [0, 1]);
        executor.shutdown();
    });
}

#[test]
#[should_panic(expected = "an executor of 65 processors: at most 64 are possible")]
fn more_processors_than_the_masks_hold_are_refused() {
    drop(executor(65));
}
