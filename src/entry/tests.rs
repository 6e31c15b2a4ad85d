//! What an entry does, one party after the other.

use super::*;

fn answer(entry: &Entry<i32>) -> Option<i32> {
    entry.take(|answer| *answer)
}

#[test]
fn a_reply_meets_its_caller() {
    let entry = Entry::new(0);
    let generation = entry.begin(Some(Waker::noop().clone()));
    assert!(entry.wait(generation, Waker::noop()) && answer(&entry).is_none());
    let delivery = entry.deliver(generation, |answer| *answer = 42);
    assert!(matches!(delivery, Delivery::Delivered(Some(_))));
    assert!(!entry.wait(generation, Waker::noop()));
    assert_eq!(answer(&entry), Some(42));
}

#[test]
fn a_second_a_stale_and_an_unasked_reply_are_unknown() {
    let entry = Entry::new(0);
    assert!(matches!(
        entry.deliver(0, |answer| *answer = 1),
        Delivery::Unknown
    ));
    let first = entry.begin(Some(Waker::noop().clone()));
    assert!(matches!(
        entry.deliver(first, |answer| *answer = 1),
        Delivery::Delivered(_)
    ));
    assert!(matches!(
        entry.deliver(first, |answer| *answer = 2),
        Delivery::Unknown
    ));
    assert_eq!(answer(&entry), Some(1));
    let second = entry.begin(Some(Waker::noop().clone()));
    assert_ne!(first, second);
    assert!(matches!(
        entry.deliver(first, |answer| *answer = 3),
        Delivery::Unknown
    ));
}

#[test]
fn the_id_of_a_dropped_call_is_free_once_its_reply_has_come() {
    let entry = Entry::new(0);
    let generation = entry.begin(Some(Waker::noop().clone()));
    assert!(matches!(entry.abandon(), Leave::Abandoned));
    assert!(matches!(
        entry.deliver(generation, |answer| *answer = 1),
        Delivery::Freed
    ));
    assert!(matches!(
        entry.deliver(generation, |answer| *answer = 1),
        Delivery::Unknown
    ));
}
