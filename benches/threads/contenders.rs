//! urpc, tokio and async-executor, each with what it recommends for the purpose.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use event_listener::Event;

use crate::common::report::Args;
use crate::rows::{Contender, Row, Tasks, measure};

/// This library. With two processors each takes its tasks so that the other one can steal them at any time; that
/// is shown for one row.
pub struct Urpc(urpc::Runtime, usize);

impl Urpc {
    pub fn start(processors: usize) -> Self {
        let builder = urpc::Runtime::builder().processors(processors);
        Self(builder.build().expect("a runtime"), processors)
    }
}

impl Contender for Urpc {
    fn name(&self) -> &'static str {
        if self.1 == 1 {
            "urpc"
        } else {
            "urpc, stealable"
        }
    }

    fn measure(&self, row: Row, args: &Args) -> Option<f64> {
        let shown = self.1 == 1 || row == Row::Yield(1);
        shown.then(|| measure(self, row, args)).flatten()
    }
}

/// Whose turn it is, and a condition of that.
#[derive(Default)]
pub struct Turn {
    whose: urpc::sync::Mutex<usize>,
    changed: urpc::sync::Condition,
}

impl Tasks for Urpc {
    type Handle<T: Send + 'static> = urpc::JoinHandle<T>;
    type Lock = urpc::sync::Mutex<u64>;
    type Baton = Turn;
    const RUNS_AT_ONCE: bool = true;

    fn run(&self, body: impl Future<Output = f64> + Send + 'static) -> f64 {
        self.0
            .block_on(async { Self::join(urpc::spawn(body)).await })
    }

    fn spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> Self::Handle<T> {
        urpc::spawn(task)
    }

    fn spawn_now<T: Send + 'static>(
        task: impl Future<Output = T> + Send + 'static,
    ) -> Self::Handle<T> {
        urpc::spawn_eager(task)
    }

    async fn join<T: Send + 'static>(handle: Self::Handle<T>) -> T {
        handle.await.expect("it does not panic")
    }

    fn yield_now() -> impl Future<Output = ()> + Send {
        urpc::yield_now()
    }

    async fn acquire_release(lock: &Self::Lock) {
        *lock.lock().await += 1;
    }

    async fn play(baton: Arc<Turn>, me: usize, rounds: u32) {
        let mut whose = baton.whose.lock().await;
        for _ in 0..rounds {
            while *whose != me {
                whose = baton.changed.wait(whose).await;
            }
            *whose = 1 - me;
            baton.changed.notify_one();
        }
    }
}

/// Either flavour.
pub struct Tokio(tokio::runtime::Runtime, &'static str);

impl Tokio {
    pub fn current_thread() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        Self(runtime.expect("a runtime"), "tokio current_thread")
    }

    pub fn multi_thread() -> Self {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).build();
        Self(runtime.expect("a runtime"), "tokio multi_thread")
    }
}

impl Contender for Tokio {
    fn name(&self) -> &'static str {
        self.1
    }

    fn measure(&self, row: Row, args: &Args) -> Option<f64> {
        measure(self, row, args)
    }
}

impl Tasks for Tokio {
    type Handle<T: Send + 'static> = tokio::task::JoinHandle<T>;
    type Lock = tokio::sync::Mutex<u64>;
    type Baton = [tokio::sync::Notify; 2];

    fn run(&self, body: impl Future<Output = f64> + Send + 'static) -> f64 {
        self.0
            .block_on(async { Self::join(tokio::spawn(body)).await })
    }

    fn spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> Self::Handle<T> {
        tokio::spawn(task)
    }

    async fn join<T: Send + 'static>(handle: Self::Handle<T>) -> T {
        handle.await.expect("it does not panic")
    }

    fn yield_now() -> impl Future<Output = ()> + Send {
        tokio::task::yield_now()
    }

    async fn acquire_release(lock: &Self::Lock) {
        *lock.lock().await += 1;
    }

    // It has no condition variable. This does less: a notification that nobody waits for is kept.
    async fn play(baton: Arc<Self::Baton>, me: usize, rounds: u32) {
        for round in 0..rounds {
            if me == 1 || round > 0 {
                baton[me].notified().await;
            }
            baton[1 - me].notify_one();
        }
    }
}

/// The executor of smol.
pub struct AsyncExecutor;

static EXECUTOR: smol::Executor<'static> = smol::Executor::new();

impl Contender for AsyncExecutor {
    fn name(&self) -> &'static str {
        "async-executor"
    }

    fn measure(&self, row: Row, args: &Args) -> Option<f64> {
        measure(self, row, args)
    }
}

/// Whose turn it is, and two events of that: what its authors offer in place of a condition variable.
#[derive(Default)]
pub struct Events {
    whose: AtomicUsize,
    changed: [Event; 2],
}

impl Tasks for AsyncExecutor {
    type Handle<T: Send + 'static> = smol::Task<T>;
    type Lock = smol::lock::Mutex<u64>;
    type Baton = Events;

    fn run(&self, body: impl Future<Output = f64> + Send + 'static) -> f64 {
        smol::block_on(EXECUTOR.run(EXECUTOR.spawn(body)))
    }

    fn spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> Self::Handle<T> {
        EXECUTOR.spawn(task)
    }

    fn detach<T: Send + 'static>(handle: Self::Handle<T>) {
        handle.detach();
    }

    async fn join<T: Send + 'static>(handle: Self::Handle<T>) -> T {
        handle.await
    }

    fn yield_now() -> impl Future<Output = ()> + Send {
        smol::future::yield_now()
    }

    async fn acquire_release(lock: &Self::Lock) {
        *lock.lock().await += 1;
    }

    async fn play(baton: Arc<Events>, me: usize, rounds: u32) {
        for _ in 0..rounds {
            while baton.whose.load(Ordering::Acquire) != me {
                event_listener::listener!(baton.changed[me] => changed);
                if baton.whose.load(Ordering::Acquire) != me {
                    changed.await;
                }
            }
            baton.whose.store(1 - me, Ordering::Release);
            baton.changed[1 - me].notify(1);
        }
    }
}
