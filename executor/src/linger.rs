//! Lingering: a task that waits keeps its context loaded while nothing else is ready (footnote 1, R16).
//!
//! A task that goes to sleep and is woken costs a waker, a place in a queue and some locked instructions. If
//! what it waits for is about to come, and no other task of its worker is ready, it is better polled again
//! where it is. So a future may leave its waker out: it asks [`may_linger`], and if that is true, then
//! [`Idle::linger`](crate::Idle::linger) is called as soon as the task's poll is over. That waits a moment,
//! or registers the waker after all.

use std::cell::Cell;
use std::ptr;
use std::task::{Context, Poll, Waker};

use crate::worker::Worker;

/// In the place of a waker, which never lies at such an address.
const LINGERS: *const Waker = ptr::without_provenance(1);

thread_local! {
    /// Where the waker is with which this thread polls a task, which is only compared; or that the task `LINGERS`.
    static POLLED: Cell<*const Waker> = const { Cell::new(ptr::null()) };
}

/// True if a future that is polled with `waker` just now need not register it: once the poll of its task is
/// over, [`Idle::linger`](crate::Idle::linger) will be called. So it is if `waker` is that of the task itself,
/// and nothing else is ready on this worker. True at most once in each poll.
#[inline]
pub fn may_linger(waker: &Waker) -> bool {
    let lingers = ptr::eq(POLLED.get(), waker) && Worker::is_alone();
    if lingers {
        POLLED.set(LINGERS);
    }
    lingers
}

/// Polls a task, again and again while it lingers with success.
// It writes as little as it can: a task's locked instructions wait until everything before them is written.
#[inline]
pub(crate) fn poll<T>(
    cx: &mut Context<'_>,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> Poll<T> {
    /// A poll may be nested in another one, and may panic.
    struct Back(*const Waker);
    impl Drop for Back {
        fn drop(&mut self) {
            POLLED.set(self.0);
        }
    }
    let _back = Back(POLLED.replace(cx.waker()));
    loop {
        let result = poll(cx);
        if result.is_ready() || POLLED.get() != LINGERS {
            return result;
        }
        POLLED.set(cx.waker());
        if !Worker::linger(cx.waker()) {
            return result;
        }
    }
}
