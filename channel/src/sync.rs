//! The atomics of the protocols in private memory: std's, or loom's under `--cfg urpc_loom`.
//!
//! Nothing but this choice lives here, and three things of which loom needs a version of its own.

#[cfg(urpc_loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, fence};
pub(crate) use std::sync::atomic::Ordering;
#[cfg(not(urpc_loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, fence};

/// Says to loom what `SeqCst` on the access before it says to a compiler: loom takes `SeqCst` accesses
/// for `AcqRel` ones, but knows fences. Nothing at all in a real build.
#[inline(always)]
pub(crate) fn seq_cst_access() {
    #[cfg(urpc_loom)]
    fence(Ordering::SeqCst);
}

/// A cell whose every use loom sees.
#[derive(Debug)]
pub(crate) struct UnsafeCell<T>(
    #[cfg(not(urpc_loom))] std::cell::UnsafeCell<T>,
    #[cfg(urpc_loom)] loom::cell::UnsafeCell<T>,
);

impl<T> UnsafeCell<T> {
    pub(crate) fn new(inside: T) -> Self {
        #[cfg(not(urpc_loom))]
        return UnsafeCell(std::cell::UnsafeCell::new(inside));
        #[cfg(urpc_loom)]
        return UnsafeCell(loom::cell::UnsafeCell::new(inside));
    }

    #[inline(always)]
    pub(crate) fn get(&self) -> *mut T {
        #[cfg(not(urpc_loom))]
        return self.0.get();
        #[cfg(urpc_loom)]
        return self.0.with_mut(|inside| inside);
    }
}

/// What was handed over to the holder of an end: a queue that nobody waits at.
///
/// `is_empty` may miss a push unless fences order the two; the loom version promises no more than that.
#[derive(Debug)]
pub(crate) struct HandOver<T> {
    #[cfg(not(urpc_loom))]
    queue: concurrent_queue::ConcurrentQueue<T>,
    #[cfg(urpc_loom)]
    queue: std::sync::Mutex<std::collections::VecDeque<T>>,
    #[cfg(urpc_loom)]
    count: loom::sync::atomic::AtomicUsize,
}

#[cfg(not(urpc_loom))]
impl<T> HandOver<T> {
    pub(crate) fn new() -> Self {
        HandOver {
            queue: concurrent_queue::ConcurrentQueue::unbounded(),
        }
    }

    pub(crate) fn push(&self, item: T) {
        // An unbounded queue that nobody closes takes everything.
        let _ = self.queue.push(item);
    }

    pub(crate) fn pop(&self) -> Option<T> {
        self.queue.pop().ok()
    }

    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(urpc_loom)]
impl<T> HandOver<T> {
    pub(crate) fn new() -> Self {
        let count = loom::sync::atomic::AtomicUsize::new(0);
        HandOver {
            queue: Default::default(),
            count,
        }
    }

    pub(crate) fn push(&self, item: T) {
        self.queue.lock().unwrap().push_back(item);
        self.count.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn pop(&self) -> Option<T> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.count.fetch_sub(1, Ordering::AcqRel);
        self.queue.lock().unwrap().pop_front()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }
}
