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

/// The waker of the task that this thread polls, and whether that lingers. Each part is a cell of its own:
/// what is written in one piece and read in another waits until the write is over.
struct Polled {
    data: Cell<*const ()>,
    vtable: Cell<*const RawWakerVTable>,
    lingers: Cell<bool>,
}

thread_local! {
    static POLLED: Polled = const {
        Polled {
            data: Cell::new(std::ptr::null()),
            vtable: Cell::new(std::ptr::null()),
            lingers: Cell::new(false),
        }
    };
}

/// True if a future that is polled with `waker` just now need not register it: once the poll of its task is
/// over, [`Idle::linger`](crate::Idle::linger) will be called. So it is if `waker` is that of the task itself,
/// and nothing else is ready on this worker. True at most once in each poll.
#[inline]
pub fn may_linger(waker: &Waker) -> bool {
    POLLED.with(|polled| {
        let own =
            polled.data.get() == waker.data() && std::ptr::eq(polled.vtable.get(), waker.vtable());
        let lingers = own && !polled.lingers.get() && Worker::is_alone();
        if lingers {
            polled.lingers.set(true);
        }
        lingers
    })
}

/// Polls a task, again and again while it lingers with success.
#[inline]
pub(crate) fn poll<T>(
    cx: &mut Context<'_>,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> Poll<T> {
    POLLED.with(|polled| {
        /// A poll may be nested in another one, and may panic.
        struct Back<'a> {
            polled: &'a Polled,
            data: *const (),
            vtable: *const RawWakerVTable,
            lingers: bool,
        }
        impl Drop for Back<'_> {
            fn drop(&mut self) {
                self.polled.data.set(self.data);
                self.polled.vtable.set(self.vtable);
                self.polled.lingers.set(self.lingers);
            }
        }
        let _back = Back {
            polled,
            data: polled.data.replace(cx.waker().data()),
            vtable: polled.vtable.replace(cx.waker().vtable()),
            lingers: polled.lingers.replace(false),
        };
        loop {
            let result = poll(cx);
            if result.is_ready() || !polled.lingers.replace(false) || !Worker::linger(cx.waker()) {
                return result;
            }
        }
    })
}
