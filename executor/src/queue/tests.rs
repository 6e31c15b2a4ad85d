//! What a queue does, and what thieves leave.

use super::*;
use crate::task::Tag;

fn number(n: usize) -> NonNull<()> {
    NonNull::new(std::ptr::without_provenance_mut(n)).expect("not 0")
}

#[test]
fn tasks_leave_in_the_order_they_came_over_many_laps() {
    for shared in [false, true] {
        let ring = Ring::new(shared);
        for n in 1..=10 * SLOTS {
            assert_eq!(ring.push(number(n)), Ok(1));
            assert_eq!(ring.take(), Some(number(n)));
        }
        assert_eq!(ring.take(), None);
    }
}

#[test]
fn a_full_ring_gives_the_task_back_and_takes_one_after_a_theft() {
    for shared in [false, true] {
        let ring = Ring::new(shared || !barrier::available());
        for n in 1..=SLOTS {
            assert_eq!(ring.push(number(n)), Ok(n));
        }
        assert_eq!(ring.push(number(999)), Err(number(999)));
        assert_eq!(ring.steal(), Some(number(1)));
        assert_eq!(ring.push(number(999)), Ok(SLOTS));
        assert_eq!(ring.take(), Some(number(2)));
    }
}

/// An owner that pushes and takes without a locked instruction, and two thieves who do not rest.
#[test]
fn every_task_is_taken_once_while_thieves_come_and_go() {
    const TASKS: usize = 200_000;
    let ring = Ring::new(!barrier::available());
    let over = AtomicBool::new(false);
    let steal = || {
        let mut stolen = Vec::new();
        while !over.load(Ordering::Relaxed) {
            stolen.extend(ring.steal().map(|item| item.as_ptr().addr()));
            std::thread::yield_now();
        }
        stolen
    };
    let mut taken = Vec::new();
    std::thread::scope(|scope| {
        let thieves = [scope.spawn(steal), scope.spawn(steal)];
        for n in 1..=TASKS {
            while ring.push(number(n)).is_err() {
                std::thread::yield_now();
                taken.extend(ring.take().map(|item| item.as_ptr().addr()));
            }
            if n % 3 == 0 {
                taken.extend(ring.take().map(|item| item.as_ptr().addr()));
            }
        }
        while let Some(item) = ring.take() {
            taken.push(item.as_ptr().addr());
        }
        over.store(true, Ordering::Relaxed);
        for thief in thieves {
            taken.extend(thief.join().expect("a thief does not panic"));
        }
    });
    taken.sort_unstable();
    assert!(taken.into_iter().eq(1..=TASKS));
}

#[test]
fn a_theft_takes_the_oldest_and_half_of_the_rest() {
    let (rich, thief) = queue(true);
    let (home, _) = queue(true);
    let mut handles = Vec::new();
    for _ in 0..9 {
        let builder = async_task::Builder::new().metadata(Tag {
            serial: 0,
            priority: 0,
        });
        let (runnable, handle) = builder.spawn(|_| async {}, |_| {});
        assert!(rich.push(runnable).is_ok());
        handles.push(handle);
    }
    let first = thief.steal_half(&home).expect("nine are there");
    first.run();
    assert!(handles[0].is_finished());
    assert_eq!(home.ring.len(), 4);
    assert_eq!(rich.ring.len(), 4);
}
