//! Wakers that are used again.
//!
//! A task that is woken with a reply mostly makes its next call at once, and waits for that with the very waker it
//! was woken with. So a thread wakes by reference, and keeps the wakers of the batch it woke last, in the order in
//! which their tasks will run; a call that begins takes its own from there. Else each call would count one more
//! reference, and that during a poll, so that the task's own change of state would fail once, too.

use std::cell::RefCell;
use std::task::Waker;

/// How far ahead a task looks for its waker: as many before it may have done something else than call.
const AHEAD: usize = 4;

#[derive(Default)]
struct Woken {
    wakers: Vec<Option<Waker>>,
    /// Those before this one are used, or passed over.
    next: usize,
}

thread_local! {
    static WOKEN: RefCell<Woken> = RefCell::default();
}

/// Keeps `wakers`, which have been woken. They become an empty list.
pub(crate) fn keep(wakers: &mut Vec<Option<Waker>>) {
    let swap = |woken: &RefCell<Woken>| {
        let woken = &mut *woken.borrow_mut();
        woken.next = 0;
        std::mem::swap(&mut woken.wakers, wakers);
    };
    // There is no place any more at the end of a thread.
    let _ = WOKEN.try_with(swap);
    wakers.clear(); // no longer borrowed: what the last waker of a task does as it goes may come here again
}

/// The waker of a task that is being polled with `waker`: kept, or a clone.
#[inline]
pub(crate) fn again(waker: &Waker) -> Waker {
    let find = |woken: &RefCell<Woken>| {
        let woken = &mut *woken.try_borrow_mut().ok()?;
        let mut ahead = woken.wakers[woken.next..].iter().take(AHEAD);
        let is_it = |own: &Option<Waker>| own.as_ref().is_some_and(|own| own.will_wake(waker));
        woken.next += ahead.position(is_it)? + 1;
        woken.wakers[woken.next - 1].take()
    };
    let kept = WOKEN.try_with(find).ok().flatten();
    kept.unwrap_or_else(|| waker.clone())
}

/// Lets go of them all. Their place stays: a thread that is about to sleep, or has lent its processor, comes back.
pub(crate) fn let_go() {
    let mut wakers = Vec::new();
    keep(&mut wakers);
    let put_back = |woken: &RefCell<Woken>| {
        let place = &mut woken.borrow_mut().wakers;
        if place.capacity() == 0 {
            *place = wakers;
        }
    };
    let _ = WOKEN.try_with(put_back);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Wake;

    use super::*;

    struct Task;
    impl Wake for Task {
        fn wake(self: Arc<Self>) {}
    }

    #[test]
    fn tasks_find_their_wakers_in_order_and_others_get_clones() {
        let tasks: Vec<Arc<Task>> = (0..8).map(|_| Arc::new(Task)).collect();
        let mut wakers = tasks.iter().map(|task| Some(task.clone().into())).collect();
        keep(&mut wakers);
        assert!(wakers.is_empty());
        let count = |i: usize| Arc::strong_count(&tasks[i]) - 1;
        let polled = |i: usize| again(&Waker::from(tasks[i].clone()));
        let first = polled(0);
        assert_eq!(count(0), 1, "its own");
        let third = polled(2);
        assert_eq!((count(1), count(2)), (1, 1), "one was passed over");
        let (second, last) = (polled(1), polled(7));
        assert_eq!((count(1), count(7)), (2, 2), "clones");
        drop((first, second, third, last));
        let_go();
        assert!((0..8).all(|i| count(i) == 0));
        drop(polled(0));
        keep(&mut wakers);
        assert!(wakers.capacity() >= tasks.len(), "the place is used again");
    }
}
