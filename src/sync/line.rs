//! A line of tasks that wait: first come, first called, and each call another one.
//!
//! Each who comes gets the next number. All numbers below `gone` were called or have given up, and of the
//! others those are in the line that have not given up. So who was called learns it without a lock. The lock is
//! held for a few instructions, in which nothing is woken. Who comes when nobody waits needs no number and no
//! lock: it takes the [`Spot`] before the line.

use std::collections::VecDeque;
use std::sync::PoisonError;
use std::task::{Context, Poll, Waker};

use super::spot::{Called, Spot, Turn};
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
    spot: Spot,
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
            spot: Spot::new(),
            come: AtomicUsize::new(0),
            gone: AtomicUsize::new(0),
            waiting: Mutex::new(VecDeque::new()),
        }
    }

    #[cfg(urpc_loom)]
    pub(super) fn new() -> Self {
        Self {
            spot: Spot::new(),
            come: AtomicUsize::new(0),
            gone: AtomicUsize::new(0),
            waiting: Mutex::new(VecDeque::new()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(usize, Waker)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True if nobody seems to wait behind the spot.
    #[inline]
    fn is_empty(&self) -> bool {
        self.come.load(Ordering::Relaxed) == self.gone.load(Ordering::Relaxed)
    }

    /// Calls the first, if there is one. It fences nothing: who is sure to be called has come before something
    /// that happened before this.
    #[inline]
    pub(super) fn call_one(&self) {
        match self.spot.call() {
            Called::Waiter(waker) => waker.wake(),
            Called::Renewing => {}
            Called::Nobody if self.is_empty() => {}
            Called::Nobody => self.call_first(),
        }
    }

    fn call_first(&self) {
        let mut waiting = self.lock();
        let first = waiting.pop_front();
        self.set_gone(match &first {
            Some((number, _)) if !waiting.is_empty() => number.wrapping_add(1),
            _ => self.come.load(Ordering::Relaxed),
        });
        drop(waiting);
        if let Some((_, waker)) = first {
            waker.wake();
        }
    }

    /// Calls all that wait now.
    pub(super) fn call_all(&self) {
        if let Called::Waiter(waker) = self.spot.call() {
            waker.wake();
        }
        if self.is_empty() {
            return;
        }
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

    /// Takes a number.
    fn come(&self, waker: &Waker) -> usize {
        let waker = waker.clone();
        let mut waiting = self.lock();
        let number = self.come.load(Ordering::Relaxed);
        waiting.push_back((number, waker));
        self.come.store(number.wrapping_add(1), Ordering::Relaxed);
        number
    }

    /// Another waker for who was polled for another reason. False if it was called meanwhile.
    fn renew(&self, number: usize, waker: &Waker) -> bool {
        let mut waiting = self.lock();
        if self.was_called(number) {
            return false;
        }
        let index = self.index(&waiting, number);
        let before = std::mem::replace(&mut waiting[index].1, waker.clone());
        drop(waiting);
        drop(before); // perhaps the last reference to a task
        true
    }

    /// False if it was called meanwhile.
    fn give_up(&self, number: usize) -> bool {
        let mut waiting = self.lock();
        if self.was_called(number) {
            return false;
        }
        let index = self.index(&waiting, number);
        let given_up = waiting.remove(index);
        if waiting.is_empty() {
            self.set_gone(self.come.load(Ordering::Relaxed));
        }
        drop(waiting);
        drop(given_up); // perhaps the last reference to a task
        true
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
    AtTheSpot(Turn),
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
        let called = match self.state {
            State::New => {
                self.take(cx.waker());
                false
            }
            State::AtTheSpot(turn) => {
                self.line.spot.is_over(turn) || !self.line.spot.renew(turn, cx.waker())
            }
            State::Waiting(number) => {
                self.line.was_called(number) || !self.line.renew(number, cx.waker())
            }
            State::Called => true,
        };
        if !called {
            return Poll::Pending;
        }
        self.state = State::Called;
        Poll::Ready(())
    }

    #[inline]
    fn take(&mut self, waker: &Waker) {
        let first = self.line.is_empty();
        self.state = match first.then(|| self.line.spot.take(waker)).flatten() {
            Some(turn) => State::AtTheSpot(turn),
            None => State::Waiting(self.line.come(waker)),
        };
    }

    /// It was called, and has acted on that: there is nothing to pass on.
    #[inline]
    pub(super) fn done(self) {
        std::mem::forget(self);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let called = match self.state {
            State::New => false,
            State::AtTheSpot(turn) => !self.line.spot.give_up(turn),
            State::Waiting(number) => !self.line.give_up(number),
            State::Called => true,
        };
        if called {
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
    fn one_gives_up(second_gives_up: bool) {
        loom::model(move || {
            let line = Arc::new(Line::new());
            let other = line.clone();
            let mut places = [Place::new(&line), Place::new(&line)];
            assert!(places.iter_mut().all(|place| !poll(place)));
            let caller = thread::spawn(move || other.call_one());
            let [first, second] = places;
            let (given_up, mut waits) = if second_gives_up {
                (second, first)
            } else {
                (first, second)
            };
            drop(given_up);
            caller.join().unwrap();
            assert!(poll(&mut waits));
            waits.done();
        });
    }

    #[test]
    fn loom_a_call_is_not_lost_with_the_first_that_gives_up() {
        one_gives_up(false);
    }

    #[test]
    fn loom_a_call_is_not_lost_with_the_second_that_gives_up() {
        one_gives_up(true);
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

    /// Somebody is called while it is polled for another reason, and what the caller did before is seen.
    #[test]
    fn loom_a_call_is_seen_by_who_is_just_polled() {
        loom::model(|| {
            let line = Arc::new((Line::new(), loom::cell::UnsafeCell::new(0)));
            let other = line.clone();
            let mut place = Place::new(&line.0);
            assert!(!poll(&mut place));
            let caller = thread::spawn(move || {
                other.1.with_mut(|_| {});
                other.0.call_one();
            });
            if poll(&mut place) {
                line.1.with_mut(|_| {});
            } else {
                caller.join().unwrap();
                assert!(poll(&mut place));
            }
            place.done();
        });
    }
}
