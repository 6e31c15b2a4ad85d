//! A Camelot-like queue (§5.4): log records go one way through shared memory, and nothing comes back.
//!
//! A data server writes into the queue until it is full; then it makes the kernel run the disk manager, which takes
//! all of it. On two CPUs the disk manager looks into the queue all the time, and a full queue means waiting for
//! it. Left out: everything that Camelot keeps in its log, several data servers, and a reply, which its callers
//! would have to wait for elsewhere. So this is half of what a call is.

use std::sync::atomic::Ordering;
use std::time::Instant;

use rustix::thread::futex;

use crate::common::child::{Child, pin, pinned, ready};
use crate::common::shared::{Shared, WORDS};

/// Records that the queue can hold.
pub const DEPTH: u32 = 32;

/// Lines of the shared memory: how many records were taken, how often the disk manager was called, and the
/// queue. A record's first word publishes it: it is the record's number, from 1 on.
const TAKEN: usize = 0;
const CALLED: usize = 1;
const QUEUE: usize = 2;

fn slot(number: u32) -> usize {
    QUEUE + (number % DEPTH) as usize
}

/// Nanoseconds of a record, of so many.
pub fn measure(records: u32, server: u32, manager: u32) -> f64 {
    let (shared, _file, path) = Shared::create();
    let polls = server != manager;
    let _manager = Child::start(&format!("disk-manager {path} {manager} {polls}"));
    pinned(server, || {
        let (mut number, mut taken) = (0, 0);
        let mut run = |records: u32| {
            let begin = Instant::now();
            for _ in 0..records {
                if number - taken == DEPTH {
                    taken = until_taken(&shared, taken + 1, polls);
                }
                number += 1;
                write(&shared, number);
            }
            taken = until_taken(&shared, number, polls);
            begin.elapsed().as_nanos() as f64 / f64::from(records)
        };
        run(records / 10 + 1);
        run(records)
    })
}

fn write(shared: &Shared, number: u32) {
    let slot = slot(number);
    (1..WORDS).for_each(|i| shared.word(slot, i).store(number, Ordering::Relaxed));
    shared.line(slot).store(number, Ordering::Release);
}

/// Waits until at least so many records were taken in all. How many were.
fn until_taken(shared: &Shared, count: u32, polls: bool) -> u32 {
    let (taken, called) = (shared.line(TAKEN), shared.line(CALLED));
    if !polls && taken.load(Ordering::Acquire) < count {
        called.fetch_add(1, Ordering::Release);
        futex::wake(called, futex::Flags::empty(), 1).expect("a futex");
    }
    loop {
        match taken.load(Ordering::Acquire) {
            now if now >= count => return now,
            _ if polls => std::hint::spin_loop(),
            now => drop(futex::wait(taken, futex::Flags::empty(), now, None)),
        }
    }
}

/// The disk manager's process.
pub fn manager_child(path: &str, cpu: &str, polls: &str) {
    let shared = Shared::open(path);
    pin(cpu.parse().expect("a CPU"));
    let polls = polls == "true";
    let (taken, called) = (shared.line(TAKEN), shared.line(CALLED));
    let (mut number, mut calls) = (0, 0);
    ready();
    loop {
        while !polls && called.load(Ordering::Acquire) == calls {
            let _ = futex::wait(called, futex::Flags::empty(), calls, None);
        }
        calls = called.load(Ordering::Acquire);
        while shared.line(slot(number + 1)).load(Ordering::Acquire) == number + 1 {
            number += 1;
            let words = (1..WORDS).map(|i| shared.word(slot(number), i).load(Ordering::Relaxed));
            words.for_each(|word| assert_eq!(word, number));
            if polls {
                taken.store(number, Ordering::Release);
            }
        }
        if !polls {
            taken.store(number, Ordering::Release);
            futex::wake(taken, futex::Flags::empty(), 1).expect("a futex");
        }
    }
}
