//! A caller and whoever answers, at once: one takes the answer, or the id is free again, and nobody sleeps on it.

use super::*;
use loom::sync::Arc;
use loom::thread;
use std::sync::atomic::{AtomicUsize, Ordering as Std};

struct Count(AtomicUsize);
impl std::task::Wake for Count {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.fetch_add(1, Std::SeqCst);
    }
}

/// A thread that answers, and wakes who waits.
fn replies(entry: &Arc<Entry<i32>>, generation: u16) -> thread::JoinHandle<Option<()>> {
    let entry = entry.clone();
    thread::spawn(
        move || match entry.deliver(generation, |answer| *answer = 7) {
            Delivery::Delivered(waker) => waker.map(Waker::wake),
            other => panic!("{other:?}"),
        },
    )
}

/// A call that begins with the waker `first` gets another one while its reply comes: that is woken, or the caller sees
/// the reply.
fn registers_while_the_reply_comes(first: Option<Waker>) {
    let entry = Arc::new(Entry::new(0));
    let generation = entry.begin(first);
    let replier = replies(&entry, generation);
    let count = std::sync::Arc::new(Count(AtomicUsize::new(0)));
    let waker = Waker::from(count.clone());
    let waits = entry.wait(generation, &waker);
    replier.join().unwrap();
    assert!(!waits || count.0.load(Std::SeqCst) == 1, "woken");
    assert!(entry.has_answered(generation));
    assert_eq!(entry.take(|answer| *answer), Some(7));
}

/// cancel/reply: whatever the order, the answer is taken once, or the id is freed once.
#[test]
fn loom_a_cancel_and_a_reply_free_the_id_exactly_once() {
    loom::model(|| {
        let entry = Arc::new(Entry::new(0));
        let generation = entry.begin(Some(Waker::noop().clone()));
        let replier = {
            let entry = entry.clone();
            thread::spawn(move || entry.deliver(generation, |answer| *answer = 7))
        };
        let mut left = entry.abandon();
        let delivery = replier.join().unwrap();
        if matches!(left, Leave::Busy) {
            left = entry.abandon(); // as the scan does it, later
        }
        match (left, delivery) {
            (Leave::Abandoned, Delivery::Freed) => {}
            (Leave::Answered, Delivery::Delivered(_)) => {
                assert_eq!(entry.take(|answer| *answer), Some(7));
            }
            other => panic!("{other:?}"),
        }
    });
}

/// A caller that changes its waker while the reply comes is woken, or sees it.
#[test]
fn loom_a_reply_is_not_missed_while_the_waker_changes() {
    loom::model(|| {
        registers_while_the_reply_comes(Some(Waker::noop().clone()));
    });
}

/// A caller that lingered registers its waker after all: it is woken, or sees the reply.
#[test]
fn loom_a_reply_is_not_missed_by_a_caller_that_registers_late() {
    loom::model(|| {
        registers_while_the_reply_comes(None);
    });
}

/// A call that lingered has been moved to another task, while the first one ends its lingering, and the reply comes:
/// whoever has the call now is woken, or sees the reply.
#[test]
fn loom_a_reply_is_not_missed_by_who_has_the_call_now() {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(4); // all orders take two minutes
    builder.check(|| {
        let entry = Arc::new(Entry::new(0));
        let generation = entry.begin(None);
        let replier = replies(&entry, generation);
        let first = {
            let entry = entry.clone();
            thread::spawn(move || entry.wait_first(generation, Waker::noop()))
        };
        let count = std::sync::Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(count.clone());
        // Where it cannot wait, it looks again.
        while !entry.wait(generation, &waker) && !entry.has_answered(generation) {
            thread::yield_now();
        }
        let seen = entry.has_answered(generation);
        replier.join().unwrap();
        let _ = first.join().unwrap();
        assert!(seen || count.0.load(Std::SeqCst) == 1, "woken");
        assert_eq!(entry.take(|answer| *answer), Some(7));
    });
}

/// The death of the peer answers a call that a reply answers as well: one of them does.
#[test]
fn loom_a_call_is_answered_once_by_reply_or_by_close() {
    loom::model(|| {
        let entry = Arc::new(Entry::new(0));
        let generation = entry.begin(Some(Waker::noop().clone()));
        let closer = {
            let entry = entry.clone();
            thread::spawn(move || entry.deliver(generation, |answer| *answer = 1))
        };
        let reply = entry.deliver(generation, |answer| *answer = 2);
        let close = closer.join().unwrap();
        let delivered = |d: &Delivery| usize::from(matches!(d, Delivery::Delivered(_)));
        assert_eq!(delivered(&reply) + delivered(&close), 1);
    });
}
