//! `block_on`: a thread from outside that borrows a processor for as long as its future takes.
//!
//! With a processor it is a worker like any other, which polls its own future whenever that was woken.
//! Without one (n = 0, or all are held by others that block) it only waits, and polls its own future:
//! it never runs a task then.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Condvar, Weak};
use std::task::{Context, Poll, Wake, Waker};

use crate::executor::Executor;
use crate::linger;
use crate::processor::{Granted, Processor};
use crate::shared::Shared;
use crate::worker::{Role, Seat, Worker};

/// The thread is at no processor.
const NOWHERE: usize = usize::MAX;

/// The future of one `block_on`, seen by its wakers: was it woken, and where is its thread?
///
/// The thread is running, or rests at `processor`, or waits at the pool. A waker sets `woken`, fences
/// and looks where; the thread says where it is, fences and looks at `woken`. So one sees the other.
pub(crate) struct Main {
    executor: Weak<Shared>,
    woken: AtomicBool,
    processor: AtomicUsize,
    /// For [`Pool::wait`](crate::processor::Pool::wait), with the lock of the pool.
    pub(crate) signal: Condvar,
}

impl Main {
    /// True if the future was woken since the last call.
    pub(crate) fn take_woken(&self) -> bool {
        // Acquire pairs with the Release of the waker: what it did before is seen by the poll.
        self.is_woken() && self.woken.swap(false, Ordering::Acquire)
    }

    pub(crate) fn is_woken(&self) -> bool {
        self.woken.load(Ordering::Relaxed)
    }

    /// Tells wakers where the thread rests.
    fn move_to(&self, processor: usize) {
        self.processor.store(processor, Ordering::Relaxed);
        // Pairs with the fence in `wake_by_ref`. (When it arrives at a processor, the fence of
        // `announce_rest` would do; when it leaves, the next look at `woken` is in `Pool::wait`.)
        fence(Ordering::SeqCst);
    }
}

impl Wake for Main {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if Worker::runs_main(self) {
            // This thread is awake, and nobody but itself takes the mark away.
            self.woken.store(true, Ordering::Release);
            return;
        }
        if self.woken.swap(true, Ordering::AcqRel) {
            return; // whoever set it wakes the thread
        }
        // Pairs with the fence in `move_to` and the one in `announce_rest`.
        fence(Ordering::SeqCst);
        let Some(shared) = self.executor.upgrade() else {
            return;
        };
        match self.processor.load(Ordering::Relaxed) {
            NOWHERE => shared.pool.nudge(self),
            processor => shared.wake_processor(processor),
        }
    }
}

/// Runs `future` to its end on this thread, see [`Executor::block_on`].
pub(crate) fn block_on<F: Future>(executor: &Executor, future: F) -> F::Output {
    let main = Arc::new(Main {
        executor: Arc::downgrade(&executor.shared),
        woken: AtomicBool::new(true),
        processor: AtomicUsize::new(NOWHERE),
        signal: Condvar::new(),
    });
    let waker = Waker::from(main.clone());
    let mut cx = Context::from_waker(&waker);
    let mut future = pin!(future);

    let mut processor = executor.shared.take_processor();
    loop {
        if let Some(processor) = processor.take()
            && let Some(output) = as_worker(executor, processor, &main, future.as_mut(), &mut cx)
        {
            return output;
        }
        match executor.shared.wait_for_processor(&main) {
            Granted::Processor(granted) => processor = Some(granted),
            Granted::Woken => {
                let _seat = Seat::take(executor, None, Role::Main(main.clone()));
                if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
                    return output;
                }
            }
        }
    }
}

/// Works at `processor` until the future is ready, or, with `None`, until the executor shuts down.
fn as_worker<F: Future>(
    executor: &Executor,
    processor: Processor,
    main: &Arc<Main>,
    mut future: Pin<&mut F>,
    cx: &mut Context<'_>,
) -> Option<F::Output> {
    let id = processor.id;
    let seat = Seat::take(executor, Some(processor), Role::Main(main.clone()));
    main.move_to(id);
    let mut output = None;
    seat.work(|worker| {
        if main.take_woken() {
            worker.count();
            if let Poll::Ready(value) = linger::poll(cx, |cx| future.as_mut().poll(cx)) {
                output = Some(value);
                return true;
            }
        }
        false
    });
    main.move_to(NOWHERE);
    output
}
