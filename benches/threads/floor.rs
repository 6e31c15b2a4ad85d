//! The floor: async-task and a `VecDeque` of one thread. What it has not: other threads, timers, channels,
//! handles that tell a panic, a shutdown.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Poll, Waker};

use async_task::{Runnable, Task};

use crate::common::report::Args;
use crate::rows::{Contender, Row, Tasks, measure};

thread_local! {
    static READY: RefCell<VecDeque<Runnable>> = const { RefCell::new(VecDeque::new()) };
    static HELD: Cell<bool> = const { Cell::new(false) };
    static WHOSE: Cell<usize> = const { Cell::new(0) };
    static WAITS: RefCell<[Option<Waker>; 2]> = const { RefCell::new([None, None]) };
}

fn ready(task: Runnable) {
    READY.with_borrow_mut(|ready| ready.push_back(task));
}

/// See the [module's documentation](self).
pub struct Floor;

impl Contender for Floor {
    fn name(&self) -> &'static str {
        "floor"
    }

    fn measure(&self, row: Row, args: &Args) -> Option<f64> {
        measure(self, row, args)
    }
}

impl Tasks for Floor {
    type Handle<T: Send + 'static> = Task<T>;
    type Lock = ();
    type Baton = ();
    const RUNS_AT_ONCE: bool = true;

    fn run(&self, body: impl Future<Output = f64> + Send + 'static) -> f64 {
        let body = Self::spawn(body);
        while let Some(task) = READY.with_borrow_mut(VecDeque::pop_front) {
            task.run();
        }
        smol::block_on(body)
    }

    fn spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> Self::Handle<T> {
        let (runnable, task) = async_task::spawn(task, ready);
        runnable.schedule();
        task
    }

    fn spawn_now<T: Send + 'static>(
        task: impl Future<Output = T> + Send + 'static,
    ) -> Self::Handle<T> {
        let (runnable, task) = async_task::spawn(task, ready);
        runnable.run();
        task
    }

    fn detach<T: Send + 'static>(handle: Self::Handle<T>) {
        handle.detach();
    }

    async fn join<T: Send + 'static>(handle: Self::Handle<T>) -> T {
        handle.await
    }

    fn yield_now() -> impl Future<Output = ()> + Send {
        urpc::yield_now()
    }

    async fn acquire_release((): &()) {
        assert!(!HELD.replace(true));
        HELD.set(false);
    }

    async fn play(_: Arc<()>, me: usize, rounds: u32) {
        for _ in 0..rounds {
            std::future::poll_fn(|cx| {
                if WHOSE.get() == me {
                    return Poll::Ready(());
                }
                WAITS.with_borrow_mut(|waits| waits[me] = Some(cx.waker().clone()));
                Poll::Pending
            })
            .await;
            WHOSE.set(1 - me);
            if let Some(other) = WAITS.with_borrow_mut(|waits| waits[1 - me].take()) {
                other.wake();
            }
        }
    }
}
