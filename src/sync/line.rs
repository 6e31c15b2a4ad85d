//! A line of tasks that wait: first come, first called, and each call another one.
//!
//! Each who comes gets the next number. All numbers below `gone` were called or have given up, and of the
//! others those are in the line that have not given up. So who was called learns it without a lock. The lock is
//! held for a few instructions, in which nothing is woken.

use std::collections::VecDeque;
use std::sync::PoisonError;
use std::task::{Context, Poll, Waker};

use sync::{AtomicUsize, Mutex, MutexGuard, Ordering};

#[cfg(not(urpc_loom))]
mod sync {
    pub(super) use std::sync::atomic::{AtomicUsize, Ordering};
    pub(super) use std::sync::{Mutex, MutexGuard};
}
#[cfg(urpc_loom)]
mod sync {
    pub(super) use loom::sync::atomic::{AtomicUsize, Ordering};
    pub(super) use loom::sync::{Mutex, MutexGuard};
}

/// See the [module's documentation](self).
pub(super) struct Line {
    /// The next number, and the first that was not called. Written under the lock.
    come: AtomicUsize,
    gone: AtomicUsize,
    /// In the order of their numbers, all of them in `gone..come`.
    waiting: Mutex<VecDeque<(usize, Waker)>>,
}

impl Line {
    #[cfg(not(urpc_loom))]
    pub(super) const fn new() -> Self {
        Self {
            come: AtomicUsize::new(0),
            gone: AtomicUsize::new(0),
            waiting: Mutex::new(VecDeque::new()),
        }
    }

    #[cfg(urpc_loom)]
    pub(super) fn new() -> Self {
        Self {
            come: AtomicUsize::new(0),
            gone: AtomicUsize::new(0),
            waiting: Mutex::new(VecDeque::new()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(usize, Waker)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls the first, if there is one. It fences nothing: who is sure to be called has come before something
    /// that happened before this.
    #[inline]
    pub(super) fn call_one(&self) {
        if self.come.load(Ordering::Relaxed) != self.gone.load(Ordering::Relaxed) {
            let mut waiting = self.lock();
            let first = waiting.pop_front();
            if let Some((number, _)) = first {
                self.set_gone(number.wrapping_add(1));
            }
            drop(waiting);
            if let Some((_, waker)) = first {
                waker.wake();
            }
        }
    }

    /// Calls all that wait now.
    pub(super) fn call_all(&self) {
        let mut waiting = self.lock();
        let all = std::mem::take(&mut *waiting);
        self.set_gone(self.come.load(Ordering::Relaxed));
        drop(waiting);
        all.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// Under the lock.
    fn set_gone(&self, number: usize) {
        // Pairs with the Acquire in `was_called`: what was done before the call is seen.
        self.gone.store(number, Ordering::Release);
    }

    #[inline]
    fn was_called(&self, number: usize) -> bool {
        // The numbers of those who wait at one time are near one another, also where they begin again at 0.
        let gone = self.gone.load(Ordering::Acquire);
        gone.wrapping_sub(number).cast_signed() > 0
    }

    /// Where in the line one is that has come and was not called. Under the lock.
    fn index(&self, waiting: &VecDeque<(usize, Waker)>, number: usize) -> usize {
        let gone = self.gone.load(Ordering::Relaxed);
        let rank = |number: usize| number.wrapping_sub(gone);
        let found = waiting.binary_search_by_key(&rank(number), |(other, _)| rank(*other));
        found.expect("who was not called is in the line")
    }
}

/// One who waits, from its first poll on. Dropped after it was called, it passes the call on.
pub(super) struct Place<'a> {
    line: &'a Line,
    state: State,
}

#[derive(Clone, Copy)]
enum State {
    New,
    Waiting(usize),
    Called,
}

impl<'a> Place<'a> {
    pub(super) fn new(line: &'a Line) -> Self {
        let state = State::New;
        Self { line, state }
    }

    /// Waits to be called. The first poll only takes the place.
    #[inline]
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.state {
            State::New => {
                let mut waiting = self.line.lock();
                let number = self.line.come.load(Ordering::Relaxed);
                waiting.push_back((number, cx.waker().clone()));
                let next = number.wrapping_add(1);
                self.line.come.store(next, Ordering::Relaxed);
                self.state = State::Waiting(number);
                Poll::Pending
            }
            State::Waiting(number) if self.line.was_called(number) => {
                self.state = State::Called;
                Poll::Ready(())
            }
            State::Waiting(number) => self.renew(number, cx.waker()),
            State::Called => Poll::Ready(()),
        }
    }

    /// It was polled for another reason, perhaps by another task.
    #[cold]
    fn renew(&mut self, number: usize, waker: &Waker) -> Poll<()> {
        let mut waiting = self.line.lock();
        if self.line.was_called(number) {
            self.state = State::Called;
            return Poll::Ready(());
        }
        let index = self.line.index(&waiting, number);
        let own = &mut waiting[index].1;
        if !own.will_wake(waker) {
            let before = std::mem::replace(own, waker.clone());
            drop(waiting);
            drop(before); // perhaps the last reference to a task
        }
        Poll::Pending
    }

    /// It was called, and has acted on that: there is nothing to pass on.
    #[inline]
    pub(super) fn done(self) {
        std::mem::forget(self);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let State::Waiting(number) = self.state {
            let mut waiting = self.line.lock();
            if self.line.was_called(number) {
                self.state = State::Called;
            } else {
                let index = self.line.index(&waiting, number);
                let given_up = waiting.remove(index);
                drop(waiting);
                drop(given_up); // perhaps the last reference to a task
            }
        }
        if let State::Called = self.state {
            self.line.call_one();
        }
    }
}

#[cfg(all(test, urpc_loom))]
mod loom_line {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    fn poll(place: &mut Place<'_>) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        place.poll(&mut cx).is_ready()
    }

    /// Two wait; one gives up while somebody is called: whoever of them was meant, the other one is called.
    #[test]
    fn loom_a_call_is_not_lost_with_who_gives_up() {
        loom::model(|| {
            let line = Arc::new(Line::new());
            let other = line.clone();
            let mut first = Place::new(&line);
            let mut second = Place::new(&line);
            assert!(!poll(&mut first) && !poll(&mut second));
            let caller = thread::spawn(move || other.call_one());
            drop(first);
            caller.join().unwrap();
            assert!(poll(&mut second));
            second.done();
        });
    }

    /// Two callers and two who wait, one of whom comes meanwhile: each call is another one's.
    #[test]
    fn loom_each_call_is_for_another_one() {
        loom::model(|| {
            let line = Arc::new(Line::new());
            let mut first = Place::new(&line);
            assert!(!poll(&mut first));
            let callers = [(); 2].map(|()| {
                let line = line.clone();
                thread::spawn(move || line.call_one())
            });
            let mut second = Place::new(&line);
            assert!(!poll(&mut second));
            for caller in callers {
                caller.join().unwrap();
            }
            assert!(poll(&mut first));
            first.done();
            if !poll(&mut second) {
                line.call_one();
                assert!(poll(&mut second));
            }
            second.done();
        });
    }
}
