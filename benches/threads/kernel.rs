//! Kernel threads: what Taos had beside FastThreads, and what everybody has.

use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Instant;

use crate::common::report::Args;
use crate::rows::{Contender, Row, procedure_calls};

/// Threads that are alive at a time where they are only forked.
const BATCH: u32 = 16;

/// See the [module's documentation](self).
pub struct KernelThreads;

impl Contender for KernelThreads {
    fn name(&self) -> &'static str {
        "kernel threads"
    }

    fn measure(&self, row: Row, args: &Args) -> Option<f64> {
        let count = args.count(match row {
            Row::ProcedureCall => 5_000_000,
            Row::AcquireRelease => 500_000,
            Row::Yield(_) => 100_000,
            Row::PingPong => 5_000,
            _ => 480,
        });
        let begin = Instant::now();
        match row {
            Row::ProcedureCall => procedure_calls(count),
            Row::Fork => {
                for _ in 0..count / BATCH {
                    join((0..BATCH).map(|_| thread::spawn(|| {})).collect());
                }
            }
            Row::ForkJoin => (0..count).for_each(|_| join(vec![thread::spawn(|| {})])),
            Row::ForkJoinYield => {
                (0..count).for_each(|_| join(vec![thread::spawn(thread::yield_now)]));
            }
            Row::Yield(threads) => {
                let each = move || (0..count / threads).for_each(|_| thread::yield_now());
                join((0..threads).map(|_| thread::spawn(each)).collect());
            }
            Row::AcquireRelease => {
                let lock = Mutex::new(0u64);
                (0..count).for_each(|_| *lock.lock().expect("nobody panics") += 1);
            }
            Row::PingPong => {
                let baton = Arc::new((Mutex::new(0), Condvar::new()));
                let player = |me| {
                    let baton = Arc::clone(&baton);
                    thread::spawn(move || play(&baton, me, count))
                };
                join([0, 1].map(player).into());
            }
            Row::ForkNow | Row::ForkJoinNow => return None,
        }
        Some(begin.elapsed().as_nanos() as f64 / f64::from(count))
    }
}

fn join(threads: Vec<thread::JoinHandle<()>>) {
    for thread in threads {
        thread.join().expect("it does not panic");
    }
}

fn play((whose, changed): &(Mutex<usize>, Condvar), me: usize, rounds: u32) {
    let mut whose = whose.lock().expect("nobody panics");
    for _ in 0..rounds {
        whose = changed
            .wait_while(whose, |whose| *whose != me)
            .expect("nobody panics");
        *whose = 1 - me;
        changed.notify_one();
    }
}
