//! The locks under many tasks on two processors, and step by step where the order matters.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::{Condition, Mutex, MutexGuard};
use crate::{JoinHandle, Runtime, spawn, yield_now};

/// Runs `future` on `processors` processors. A test that takes a minute has failed.
fn on<T>(processors: usize, future: impl Future<Output = T>) -> T {
    let rt = Runtime::builder().processors(processors).build().unwrap();
    rt.block_on(async {
        let done = crate::time::timeout(Duration::from_secs(60), future).await;
        done.expect("nobody waits for ever")
    })
}

async fn all<T>(tasks: impl IntoIterator<Item = JoinHandle<T>>) {
    for task in tasks.into_iter().collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

fn poll<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn many_tasks_on_two_processors_hold_it_one_at_a_time() {
    let (tasks, times) = (50, 40);
    let shared = Arc::new((Mutex::new(0), AtomicBool::new(false)));
    on(
        2,
        all((0..tasks).map(|i| {
            let shared = Arc::clone(&shared);
            spawn(async move {
                for turn in 0..times {
                    let mut sum = shared.0.lock().await;
                    assert!(!shared.1.swap(true, Ordering::Relaxed), "two at a time");
                    *sum += 1;
                    if (i + turn) % 3 == 0 {
                        yield_now().await;
                    }
                    shared.1.store(false, Ordering::Relaxed);
                }
            })
        })),
    );
    assert_eq!(
        *shared.0.try_lock().expect("free at the end"),
        tasks * times
    );
}

#[test]
fn a_task_that_locks_again_and_again_starves_nobody() {
    let mutex = Arc::new(Mutex::new(false));
    on(1, async {
        let greedy = spawn({
            let mutex = Arc::clone(&mutex);
            async move {
                loop {
                    let done = mutex.lock().await;
                    if *done {
                        return;
                    }
                    yield_now().await;
                    drop(done);
                }
            }
        });
        while mutex.try_lock().is_some() {
            yield_now().await; // the greedy one has not come yet
        }
        *mutex.lock().await = true;
        greedy.await.unwrap();
    });
}

#[test]
fn tasks_get_it_in_the_order_of_their_coming() {
    let shared = Arc::new((Mutex::new(Vec::new()), AtomicUsize::new(0)));
    on(1, async {
        let first = shared.0.lock().await;
        let tasks: Vec<_> = (0..10)
            .map(|i| {
                let shared = Arc::clone(&shared);
                spawn(async move {
                    shared.1.fetch_add(1, Ordering::Relaxed);
                    shared.0.lock().await.push(i);
                })
            })
            .collect();
        while shared.1.load(Ordering::Relaxed) < 10 {
            yield_now().await;
        }
        drop(first);
        all(tasks).await;
        assert_eq!(*shared.0.lock().await, (0..10).collect::<Vec<_>>());
    });
}

#[test]
fn a_newcomer_does_not_overtake_who_waits() {
    let mutex = Mutex::new(());
    let holder = mutex.try_lock().expect("new");
    let mut waits = pin!(mutex.lock());
    assert!(poll(waits.as_mut()).is_pending());
    drop(holder);
    assert!(mutex.try_lock().is_none(), "it is another's turn");
    let mut late = pin!(mutex.lock());
    assert!(poll(late.as_mut()).is_pending());
    let Poll::Ready(guard) = poll(waits) else {
        panic!("its turn has come");
    };
    drop(guard);
    assert!(poll(late).is_ready());
}

#[test]
fn who_gives_up_waiting_leaves_its_turn_to_the_next() {
    let mutex = Mutex::new(());
    let holder = mutex.try_lock().expect("new");
    let mut next = Box::pin(mutex.lock());
    let mut given_up = Box::pin(mutex.lock());
    assert!(poll(given_up.as_mut()).is_pending());
    assert!(poll(next.as_mut()).is_pending());
    drop(holder);
    drop(given_up);
    assert!(poll(next.as_mut()).is_ready());
    drop(next);
    assert!(mutex.try_lock().is_some(), "nobody is counted as waiting");
}

#[test]
fn a_panic_lets_go_of_it() {
    let mutex = Arc::new(Mutex::new(1));
    let inside = Arc::clone(&mutex);
    on(1, async {
        let failed = spawn(async move {
            let mut value = inside.lock().await;
            *value = 2;
            panic!("on purpose");
        });
        assert!(failed.await.is_err());
        assert_eq!(*mutex.lock().await, 2);
    });
}

#[test]
fn a_guard_moves_between_threads_if_its_value_may() {
    fn is_send<T: Send>(_: T) {}
    let mutex = Mutex::new(std::cell::Cell::new(1));
    is_send(mutex.try_lock());
    is_send(mutex.lock());
    is_send(Condition::new().wait(mutex.try_lock().expect("free")));
}

#[test]
fn two_tasks_take_turns() {
    let turns = 4_000;
    for processors in [1, 2] {
        let shared = Arc::new((Mutex::new(0), Condition::new()));
        on(
            processors,
            all([0, 1].map(|me| {
                let shared = Arc::clone(&shared);
                spawn(async move {
                    let mut turn = shared.0.lock().await;
                    while *turn < turns {
                        if *turn % 2 == me {
                            *turn += 1;
                            shared.1.notify_one();
                        } else {
                            turn = shared.1.wait(turn).await;
                        }
                    }
                })
            })),
        );
    }
}

#[test]
fn what_is_produced_on_one_processor_is_consumed_on_another() {
    struct Shelf {
        items: Mutex<VecDeque<u32>>,
        filled: Condition,
        emptied: Condition,
    }
    let (room, each) = (3, 1_000);
    let shelf = Arc::new(Shelf {
        items: Mutex::default(),
        filled: Condition::new(),
        emptied: Condition::new(),
    });
    let producers = (0..4).map(|_| {
        let shelf = Arc::clone(&shelf);
        async move {
            for item in 0..each {
                let mut items = shelf.items.lock().await;
                while items.len() >= room {
                    items = shelf.emptied.wait(items).await;
                }
                items.push_back(item);
                drop(items);
                shelf.filled.notify_one();
            }
            0
        }
    });
    let consumers = (0..4).map(|_| {
        let shelf = Arc::clone(&shelf);
        async move {
            let mut sum = 0;
            for _ in 0..each {
                let mut items = shelf.items.lock().await;
                sum += loop {
                    match items.pop_front() {
                        Some(item) => break item,
                        None => items = shelf.filled.wait(items).await,
                    }
                };
                drop(items);
                shelf.emptied.notify_one();
            }
            sum
        }
    });
    let total = on(2, async {
        let mut tasks: Vec<JoinHandle<u32>> = producers.map(spawn).collect();
        tasks.extend(consumers.map(spawn));
        let mut total = 0;
        for task in tasks {
            total += task.await.unwrap();
        }
        total
    });
    assert_eq!(total, 4 * (0..each).sum::<u32>());
}

/// Waits on `condition` in a future that has begun to wait.
fn waiter<'a>(
    mutex: &'a Mutex<()>,
    condition: &'a Condition,
) -> Pin<Box<dyn Future<Output = MutexGuard<'a, ()>> + 'a>> {
    let guard = mutex.try_lock().expect("free");
    let mut waiter = Box::pin(condition.wait(guard));
    assert!(poll(waiter.as_mut()).is_pending());
    waiter
}

#[test]
fn each_notification_wakes_one_and_notify_all_wakes_the_rest() {
    let (mutex, condition) = (Mutex::new(()), Condition::new());
    let mut waiters: Vec<_> = (0..5).map(|_| waiter(&mutex, &condition)).collect();
    condition.notify_one();
    condition.notify_one();
    let mut woken = 0;
    waiters.retain_mut(|waiter| {
        let ready = poll(waiter.as_mut()).is_ready();
        woken += usize::from(ready);
        !ready
    });
    assert_eq!(woken, 2);
    condition.notify_all();
    for mut waiter in waiters {
        assert!(poll(waiter.as_mut()).is_ready());
    }
}

#[test]
fn a_notification_for_nobody_is_not_kept() {
    let (mutex, condition) = (Mutex::new(()), Condition::new());
    condition.notify_one();
    condition.notify_all();
    let mut late = waiter(&mutex, &condition);
    assert!(poll(late.as_mut()).is_pending());
}

#[test]
fn a_dropped_wait_passes_on_the_notification_it_had() {
    let (mutex, condition) = (Mutex::new(()), Condition::new());
    let dropped = waiter(&mutex, &condition);
    let mut other = waiter(&mutex, &condition);
    condition.notify_one();
    assert!(poll(other.as_mut()).is_pending(), "it was for the first");
    drop(dropped);
    assert!(poll(other.as_mut()).is_ready());
}

#[test]
fn a_wait_dropped_on_its_way_back_to_the_mutex_passes_its_notification_on_too() {
    let (mutex, condition) = (Mutex::new(()), Condition::new());
    let mut dropped = waiter(&mutex, &condition);
    let mut other = waiter(&mutex, &condition);
    condition.notify_one();
    let holder = mutex.try_lock().expect("free");
    assert!(poll(dropped.as_mut()).is_pending(), "woken, but it is held");
    drop(dropped);
    drop(holder);
    assert!(poll(other.as_mut()).is_ready());
}

#[test]
fn a_wait_that_is_never_polled_lets_go_of_the_mutex() {
    let (mutex, condition) = (Mutex::new(()), Condition::new());
    drop(condition.wait(mutex.try_lock().expect("new")));
    assert!(mutex.try_lock().is_some());
}
