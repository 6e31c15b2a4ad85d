//! Timers of one executor, and the futures that wait on them.
//!
//! Whether there is a timer at all is one load, so that a worker without timers never reads the
//! clock. No waker is woken, cloned or dropped while the lock is held, except for the clone of one
//! that is inserted.

use std::collections::BTreeMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::executor::Executor;

/// "No timer", as a time.
const NEVER: u64 = u64::MAX;

/// Wakers that are taken out under one hold of the lock.
const BATCH: usize = 16;

/// Names one timer; never used again for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimerKey {
    at: Instant,
    number: u64,
}

/// The timers of an [`Executor`]: wakers, ordered by when they are due.
///
/// Nobody watches them by themselves: workers fire what is due when they have nothing else to do and
/// once every [`TASKS_PER_SCAN`](crate::TASKS_PER_SCAN) tasks, and [`Idle::rest`](crate::Idle::rest)
/// ends its sleep at [`next`](Self::next).
pub struct Timers {
    /// What `next` is counted from.
    start: Instant,
    /// When the first timer is due, in nanoseconds since `start`; written under the lock.
    next: AtomicU64,
    list: Mutex<List>,
}

struct List {
    wakers: BTreeMap<TimerKey, Waker>,
    numbers: u64,
}

impl Timers {
    pub(crate) fn new() -> Timers {
        Timers {
            start: Instant::now(),
            next: AtomicU64::new(NEVER),
            list: Mutex::new(List {
                wakers: BTreeMap::new(),
                numbers: 0,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_next(&self, list: &List) {
        let next = list.wakers.first_key_value().map_or(NEVER, |(key, _)| {
            let since = key.at.saturating_duration_since(self.start).as_nanos();
            u64::try_from(since).unwrap_or(NEVER).min(NEVER - 1)
        });
        // Ordered by the lock among writers. A worker about to rest reads it after the fence of
        // `Worker::announce_rest`, and who sets an earlier timer fences before it looks who rests.
        self.next.store(next, Ordering::Release);
    }

    /// Wakes `waker` once, when somebody calls [`fire_due`](Self::fire_due) at `at` or later. True
    /// with it if the timer is now the earliest of all; then whoever sleeps must hear of it, see
    /// [`Executor::timer_set`].
    pub fn insert(&self, at: Instant, waker: &Waker) -> (TimerKey, bool) {
        let mut list = self.lock();
        list.numbers += 1;
        let key = TimerKey {
            at,
            number: list.numbers,
        };
        list.wakers.insert(key, waker.clone());
        let earliest = list
            .wakers
            .first_key_value()
            .is_some_and(|(first, _)| *first == key);
        if earliest {
            self.set_next(&list);
        }
        (key, earliest)
    }

    /// Forgets a timer. False if it has fired or was removed before.
    pub fn remove(&self, key: TimerKey) -> bool {
        let mut list = self.lock();
        let waker = list.wakers.remove(&key);
        if waker.is_some() {
            self.set_next(&list);
        }
        drop(list);
        waker.is_some()
    }

    /// Lets a timer wake `waker` instead. False if it has fired or was removed before.
    pub fn renew(&self, key: TimerKey, waker: &Waker) -> bool {
        let mut list = self.lock();
        let Some(place) = list.wakers.get_mut(&key) else {
            return false;
        };
        let old = (!place.will_wake(waker)).then(|| std::mem::replace(place, waker.clone()));
        drop(list);
        drop(old);
        true
    }

    /// When the earliest timer is due. Without any timer this is one load.
    pub fn next(&self) -> Option<Instant> {
        match self.next.load(Ordering::Acquire) {
            NEVER => None,
            nanoseconds => Some(self.start + Duration::from_nanos(nanoseconds)),
        }
    }

    /// Fires the timers due at `now`, and says how many those were. Their wakers are woken outside
    /// of the lock.
    pub fn fire_due(&self, now: Instant) -> usize {
        let mut fired = 0;
        loop {
            let mut due: [Option<Waker>; BATCH] = [const { None }; BATCH];
            let mut count = 0;
            let mut list = self.lock();
            while count < BATCH
                && let Some(first) = list.wakers.first_entry()
                && first.key().at <= now
            {
                due[count] = Some(first.remove());
                count += 1;
            }
            if count > 0 {
                self.set_next(&list);
            }
            drop(list);
            due.into_iter().flatten().for_each(Waker::wake);
            fired += count;
            if count < BATCH {
                return fired;
            }
        }
    }

    /// As [`fire_due`](Self::fire_due) with the time of now, which is only looked up if there is a
    /// timer. True if any fired.
    pub(crate) fn fire(&self) -> bool {
        match self.next() {
            None => false,
            Some(next) => {
                let now = Instant::now();
                next <= now && self.fire_due(now) > 0
            }
        }
    }
}

impl fmt::Debug for Timers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timers")
            .field("next", &self.next())
            .finish_non_exhaustive()
    }
}

/// Waits until a point in time, on the timers of an executor.
///
/// It may be polled on any thread; the executor's workers (or whoever attends it) wake it.
///
/// # Cancellation
/// Dropping it removes its timer; nothing else happens.
#[derive(Debug)]
#[must_use = "a future does nothing unless it is awaited"]
pub struct Sleep {
    executor: Executor,
    at: Instant,
    key: Option<TimerKey>,
}

impl Sleep {
    /// A sleep until `at`. It touches the timers at its first poll, not before.
    pub fn new(executor: &Executor, at: Instant) -> Sleep {
        Sleep {
            executor: executor.clone(),
            at,
            key: None,
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= self.at {
            if let Some(key) = self.key.take() {
                self.executor.timers().remove(key);
            }
            return Poll::Ready(());
        }
        if let Some(key) = self.key
            && self.executor.timers().renew(key, cx.waker())
        {
            return Poll::Pending;
        }
        let (key, earliest) = self.executor.timers().insert(self.at, cx.waker());
        self.key = Some(key);
        if earliest {
            self.executor.timer_set();
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.executor.timers().remove(key);
        }
    }
}

/// The time of a [`timeout_at`] was over first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the time limit was over before it was done")
    }
}

impl std::error::Error for Elapsed {}

/// Gives `future` time until `at`. A future that is ready at its first poll wins even when the time
/// is over, and then the clock is not read.
///
/// # Errors
/// [`Elapsed`] when the time is over first; `future` is dropped then.
///
/// # Cancellation
/// Dropping it drops `future` and removes the timer.
pub fn timeout_at<F: Future>(
    executor: &Executor,
    at: Instant,
    future: F,
) -> impl Future<Output = Result<F::Output, Elapsed>> + use<F> {
    let executor = executor.clone();
    async move {
        let mut future = pin!(future);
        let mut sleep = Sleep::new(&executor, at);
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => Pin::new(&mut sleep).poll(cx).map(|()| Err(Elapsed)),
        })
        .await
    }
}

#[cfg(all(test, not(urpc_loom)))]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn counted() -> (Arc<Count>, Waker) {
        let count = Arc::new(Count(AtomicUsize::new(0)));
        (count.clone(), Waker::from(count))
    }

    #[test]
    fn timers_fire_when_due_and_not_before() {
        let timers = Timers::new();
        let (count, waker) = counted();
        let start = Instant::now();
        let later = |ms| start + Duration::from_millis(ms);
        assert_eq!(timers.next(), None);
        assert!(timers.insert(later(20), &waker).1);
        assert!(!timers.insert(later(30), &waker).1);
        assert!(timers.insert(later(10), &waker).1);
        assert_eq!(timers.next(), Some(later(10)));
        assert_eq!(timers.fire_due(later(9)), 0);
        assert_eq!(timers.fire_due(later(20)), 2);
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
        assert_eq!(timers.next(), Some(later(30)));
    }

    #[test]
    fn a_removed_timer_does_not_fire_and_is_removed_once() {
        let timers = Timers::new();
        let (count, waker) = counted();
        let at = Instant::now() + Duration::from_millis(1);
        let (key, _) = timers.insert(at, &waker);
        assert!(timers.remove(key));
        assert!(!timers.remove(key));
        assert!(!timers.renew(key, &waker));
        assert_eq!(timers.next(), None);
        assert_eq!(timers.fire_due(at), 0);
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn more_timers_than_one_batch_all_fire_at_once() {
        let timers = Timers::new();
        let (count, waker) = counted();
        let at = Instant::now();
        for _ in 0..3 * BATCH + 1 {
            timers.insert(at, &waker);
        }
        assert_eq!(timers.fire_due(at), 3 * BATCH + 1);
        assert_eq!(count.0.load(Ordering::Relaxed), 3 * BATCH + 1);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn a_renewed_timer_wakes_only_the_new_waker() {
        let timers = Timers::new();
        let (old, old_waker) = counted();
        let (new, new_waker) = counted();
        let at = Instant::now();
        let (key, _) = timers.insert(at, &old_waker);
        assert!(timers.renew(key, &new_waker));
        timers.fire_due(at);
        assert_eq!(old.0.load(Ordering::Relaxed), 0);
        assert_eq!(new.0.load(Ordering::Relaxed), 1);
    }
}
