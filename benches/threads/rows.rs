//! The rows of the table, written once for all who run tasks.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use crate::common::report::Args;

/// Children that are alive at a time where they are only forked: fewer than any queue here holds.
const BATCH: u32 = 64;

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Row {
    /// A call of a function that does nothing: what a processor thinks of as little.
    ProcedureCall,
    /// To start a task, and to run it to its end.
    Fork,
    /// The same, if the parent allows that the child runs before it goes on itself.
    ForkNow,
    /// The same, and the parent waits for the child.
    ForkJoin,
    ForkJoinNow,
    /// The same with a child that does not end at once.
    ForkJoinYield,
    /// To let the next one of so many tasks go first.
    Yield(u32),
    /// To take a lock that nobody else wants.
    AcquireRelease,
    /// Two tasks signal one another and wait, there and back.
    PingPong,
}

pub const ROWS: [Row; 11] = [
    Row::ProcedureCall,
    Row::Fork,
    Row::ForkNow,
    Row::ForkJoin,
    Row::ForkJoinNow,
    Row::ForkJoinYield,
    Row::Yield(1),
    Row::Yield(2),
    Row::Yield(64),
    Row::AcquireRelease,
    Row::PingPong,
];

impl Row {
    pub fn name(self) -> &'static str {
        match self {
            Row::ProcedureCall => "procedure call",
            Row::Fork => "fork",
            Row::ForkNow => "fork, run at once",
            Row::ForkJoin => "fork;join",
            Row::ForkJoinNow => "fork;join, run at once",
            Row::ForkJoinYield => "fork;join, child yields once",
            Row::Yield(1) => "yield, 1 task",
            Row::Yield(2) => "yield, 2 tasks",
            Row::Yield(_) => "yield, 64 tasks",
            Row::AcquireRelease => "acquire;release",
            Row::PingPong => "pingpong",
        }
    }

    /// FastThreads and Taos, in µs (Table I).
    pub fn paper(self) -> [Option<f64>; 2] {
        match self {
            Row::ProcedureCall => [Some(7.0), Some(7.0)],
            Row::Fork => [Some(43.0), Some(1192.0)],
            Row::ForkJoin => [Some(102.0), Some(1574.0)],
            Row::Yield(1) => [Some(37.0), Some(57.0)],
            Row::AcquireRelease => [Some(27.0), Some(27.0)],
            Row::PingPong => [Some(53.0), Some(271.0)],
            _ => [None, None],
        }
    }

    /// How often tasks do it in one round: some 10 ms.
    fn count(self) -> u32 {
        match self {
            Row::ProcedureCall => 5_000_000,
            Row::AcquireRelease => 500_000,
            Row::Yield(_) => 200_000,
            _ => 50_000,
        }
    }
}

/// Who has a column of the table.
pub trait Contender {
    fn name(&self) -> &'static str;

    /// Nanoseconds that it takes once, in one round. `None` if it has no such thing.
    fn measure(&self, row: Row, args: &Args) -> Option<f64>;
}

/// An executor, as far as the rows need it.
pub trait Tasks: 'static {
    type Handle<T: Send + 'static>: Send;
    type Lock: Default + Send + Sync + 'static;
    type Baton: Default + Send + Sync + 'static;
    /// Whether it has `spawn_now`.
    const RUNS_AT_ONCE: bool = false;

    /// Runs `body` to its end, as a task like any other.
    fn run(&self, body: impl Future<Output = f64> + Send + 'static) -> f64;
    fn spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> Self::Handle<T>;
    /// The child runs first.
    fn spawn_now<T: Send + 'static>(
        task: impl Future<Output = T> + Send + 'static,
    ) -> Self::Handle<T> {
        Self::spawn(task)
    }
    fn detach<T: Send + 'static>(handle: Self::Handle<T>) {
        drop(handle);
    }
    fn join<T: Send + 'static>(handle: Self::Handle<T>) -> impl Future<Output = T> + Send;
    fn yield_now() -> impl Future<Output = ()> + Send;
    fn acquire_release(lock: &Self::Lock) -> impl Future<Output = ()> + Send;
    /// Waits `rounds` times until it is the turn of `me`, and gives it to the other one.
    fn play(
        baton: Arc<Self::Baton>,
        me: usize,
        rounds: u32,
    ) -> impl Future<Output = ()> + Send + 'static;
}

/// One round of a row.
pub fn measure<X: Tasks>(executor: &X, row: Row, args: &Args) -> Option<f64> {
    if matches!(row, Row::ForkNow | Row::ForkJoinNow) && !X::RUNS_AT_ONCE {
        return None;
    }
    let count = args.count(row.count());
    let body = async move {
        let begin = Instant::now();
        repeat::<X>(row, count).await;
        begin.elapsed().as_nanos() as f64 / f64::from(count)
    };
    Some(executor.run(body))
}

async fn repeat<X: Tasks>(row: Row, count: u32) {
    match row {
        Row::ProcedureCall => procedure_calls(count),
        Row::Fork => fork::<X>(count).await,
        Row::ForkNow => {
            for _ in 0..count {
                X::detach(X::spawn_now(async {}));
            }
        }
        Row::ForkJoin => {
            for _ in 0..count {
                X::join(X::spawn(async {})).await;
            }
        }
        Row::ForkJoinNow => {
            for _ in 0..count {
                X::join(X::spawn_now(async {})).await;
            }
        }
        Row::ForkJoinYield => {
            for _ in 0..count {
                X::join(X::spawn(X::yield_now())).await;
            }
        }
        Row::Yield(tasks) => {
            let task = || async move {
                for _ in 0..count / tasks {
                    X::yield_now().await;
                }
            };
            let tasks: Vec<_> = (0..tasks).map(|_| X::spawn(task())).collect();
            for task in tasks {
                X::join(task).await;
            }
        }
        Row::AcquireRelease => {
            let lock = X::Lock::default();
            for _ in 0..count {
                X::acquire_release(&lock).await;
            }
        }
        Row::PingPong => {
            let baton = Arc::<X::Baton>::default();
            let players = [0, 1].map(|me| X::spawn(X::play(Arc::clone(&baton), me, count)));
            for player in players {
                X::join(player).await;
            }
        }
    }
}

/// Children that nobody waits for, some at a time.
async fn fork<X: Tasks>(count: u32) {
    let ended = Arc::new(AtomicU32::new(0));
    for batch in 1..=count / BATCH {
        for _ in 0..BATCH {
            let ended = Arc::clone(&ended);
            // There is one processor, so nobody writes in between.
            X::detach(X::spawn(async move {
                ended.store(ended.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            }));
        }
        while ended.load(Ordering::Relaxed) < batch * BATCH {
            X::yield_now().await;
        }
    }
}

pub fn procedure_calls(count: u32) {
    #[inline(never)]
    fn procedure() {
        black_box(());
    }
    for _ in 0..count {
        procedure();
    }
}
