//! Owner and thieves at once: each task is taken by one of them.

use super::*;
use loom::thread;

fn number(n: usize) -> NonNull<()> {
    NonNull::new(std::ptr::without_provenance_mut(n)).expect("not 0")
}

fn drain(ring: &Ring, taken: &mut Vec<usize>) {
    while let Some(item) = ring.take() {
        taken.push(item.as_ptr().addr());
    }
}

/// Bounded: without that the models of an owner alone take minutes.
fn model(f: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(f);
}

/// Three tasks through two slots, so that a slot is used again while the thief may be in it; in a ring
/// with thieves at all times, and in one whose owner has to notice that there is one.
fn one_thief(shared: bool) {
    model(move || {
        let ring = Arc::new(Ring::new(shared));
        let thief = thread::spawn({
            let ring = ring.clone();
            move || ring.steal().map(|item| item.as_ptr().addr())
        });
        let mut taken = Vec::new();
        for n in 1..=3 {
            if ring.push(number(n)).is_err() {
                let oldest = ring.take().or_else(|| ring.take());
                taken.extend(oldest.map(|item| item.as_ptr().addr()));
                ring.push(number(n)).expect("a place has just become free");
            }
        }
        drain(&ring, &mut taken);
        assert!(taken.is_sorted(), "the owner saw {taken:?}");
        taken.extend(thief.join().expect("the thief does not panic"));
        taken.sort_unstable();
        assert_eq!(taken, [1, 2, 3]);
    });
}

#[test]
fn a_task_is_taken_once_by_owner_or_thief() {
    one_thief(true);
}

#[test]
fn a_task_is_taken_once_by_an_owner_alone_or_a_thief_that_comes() {
    one_thief(false);
}

/// The owner takes before the thief comes, while it is there, and after it left.
#[test]
fn an_owner_is_alone_again_when_the_thief_has_left() {
    model(|| {
        let ring = Arc::new(Ring::new(false));
        for n in 1..=2 {
            ring.push(number(n)).expect("there is room");
        }
        let thief = thread::spawn({
            let ring = ring.clone();
            move || ring.steal().map(|item| item.as_ptr().addr())
        });
        let mut taken = Vec::new();
        drain(&ring, &mut taken);
        ring.push(number(3)).expect("there is room");
        drain(&ring, &mut taken);
        taken.extend(thief.join().expect("the thief does not panic"));
        taken.sort_unstable();
        assert_eq!(taken, [1, 2, 3]);
    });
}
