//! Lingering: a task that waits keeps its context loaded while nothing else is ready (footnote 1, R16).
//!
//! A task that goes to sleep and is woken costs a waker, a place in a queue and some locked instructions. If
//! what it waits for is about to come, and no other task of its worker is ready, it is better polled again
//! where it is. So a future may leave its waker out: it asks [`may_linger`], and if that is true, then
//! [`Idle::linger`](crate::Idle::linger) is called as soon as the task's poll is over. That waits a moment,
//! or registers the waker after all.

use std::cell::Cell;
use std::task::{Context, Poll, RawWakerVTable, Waker};

use crate::worker::Worker;

/// The waker of the task that this thread polls, and whether that may linger.
#[derive(Clone, Copy)]
struct Polled {
    data: *const (),
    vtable: *const RawWakerVTable,
    lingers: bool,
}

const NOBODY: Polled = Polled {
    data: std::ptr::null(),
    vtable: std::ptr::null(),
    lingers: false,
};

thread_local! {
    static POLLED: Cell<Polled> = const { Cell::new(NOBODY) };
}

/// True if a future that is polled with `waker` just now need not register it: once the poll of its task is
/// over, [`Idle::linger`](crate::Idle::linger) will be called. So it is if `waker` is that of the task itself,
/// and nothing else is ready on this worker. True at most once in each poll.
#[inline]
pub fn may_linger(waker: &Waker) -> bool {
    let polled = POLLED.get();
    let own = polled.data == waker.data() && std::ptr::eq(polled.vtable, waker.vtable());
    if !own || polled.lingers || !Worker::is_alone() {
        return false;
    }
    POLLED.set(Polled {
        lingers: true,
        ..polled
    });
    true
}

/// Polls a task, again and again while it lingers with success.
#[inline]
pub(crate) fn poll<T>(
    cx: &mut Context<'_>,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> Poll<T> {
    /// A poll may be nested in another one, and may panic.
    struct Back(Polled);
    impl Drop for Back {
        fn drop(&mut self) {
            POLLED.set(self.0);
        }
    }
    let waker = cx.waker();
    let polled = Polled {
        data: waker.data(),
        vtable: waker.vtable(),
        lingers: false,
    };
    let _back = Back(POLLED.replace(polled));
    loop {
        let result = poll(cx);
        if result.is_ready() || !POLLED.replace(polled).lingers || !Worker::linger(cx.waker()) {
            return result;
        }
    }
}
