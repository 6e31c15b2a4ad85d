//! The atomics of the protocols in private memory: std's, or loom's under `--cfg urpc_loom`.
//!
//! Nothing but this choice lives here, and three things of which loom needs a version of its own.

#[cfg(urpc_loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, fence};
pub(crate) use std::sync::atomic::Ordering;
#[cfg(not(urpc_loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, fence};

pub(crate) use fences::{fence_everywhere, has_fences, light_fence, this_thread};

/// A fence that costs the frequent side nothing and the rare side a system call: for each of the two, it
/// is as if both had executed `fence(SeqCst)`.
#[cfg(not(urpc_loom))]
mod fences {
    use std::cell::Cell;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering, compiler_fence};

    use rustix::thread::{MembarrierCommand, membarrier};

    /// The frequent side.
    #[inline(always)]
    pub(crate) fn light_fence() {
        compiler_fence(Ordering::SeqCst);
    }

    /// The rare side. Only where there [are fences](has_fences).
    #[cold]
    pub(crate) fn fence_everywhere() {
        // Cannot fail: this process has registered for it.
        let done = membarrier(MembarrierCommand::PrivateExpedited);
        debug_assert!(done.is_ok(), "{done:?}");
    }

    /// Whether the kernel offers them: Linux 4.14 and newer, unless a sandbox refuses. ThreadSanitizer does not know
    /// of them.
    pub(crate) fn has_fences() -> bool {
        if cfg!(urpc_plain) {
            return false;
        }
        static REGISTERED: OnceLock<bool> = OnceLock::new();
        *REGISTERED.get_or_init(|| membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok())
    }

    thread_local! {
        static NUMBER: Cell<u64> = const { Cell::new(u64::MAX) };
    }

    /// A number that no other thread of this process ever had, and never 0.
    #[inline(always)]
    pub(crate) fn this_thread() -> u64 {
        let number = NUMBER.get();
        if number == u64::MAX {
            return first_number();
        }
        number
    }

    #[cold]
    fn first_number() -> u64 {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed) + 1;
        NUMBER.set(number);
        number
    }
}

#[cfg(urpc_loom)]
mod fences {
    use loom::sync::atomic::fence;
    use std::sync::atomic::{AtomicU64, Ordering};

    pub(crate) fn light_fence() {
        fence(Ordering::SeqCst);
    }

    pub(crate) fn fence_everywhere() {
        fence(Ordering::SeqCst);
    }

    pub(crate) fn has_fences() -> bool {
        true
    }

    loom::thread_local! {
        static NUMBER: u64 = {
            static LAST: AtomicU64 = AtomicU64::new(0);
            LAST.fetch_add(1, Ordering::Relaxed) + 1
        };
    }

    pub(crate) fn this_thread() -> u64 {
        NUMBER.with(|number| *number)
    }
}

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
/// `is_empty` is one load, and may miss a push unless fences order the two.
#[derive(Debug)]
pub(crate) struct HandOver<T> {
    #[cfg(not(urpc_loom))]
    queue: concurrent_queue::ConcurrentQueue<T>,
    #[cfg(urpc_loom)]
    queue: std::sync::Mutex<std::collections::VecDeque<T>>,
    /// How many are in the queue, or on their way into it or out of it.
    count: AtomicU64,
}

impl<T> HandOver<T> {
    pub(crate) fn new() -> Self {
        HandOver {
            #[cfg(not(urpc_loom))]
            queue: concurrent_queue::ConcurrentQueue::unbounded(),
            #[cfg(urpc_loom)]
            queue: Default::default(),
            count: AtomicU64::new(0),
        }
    }

    pub(crate) fn push(&self, item: T) {
        // First, so that nobody who stops at a count of nothing leaves an item behind: it may be another thread's, and
        // what that sends next must not overtake it.
        self.count.fetch_add(1, Ordering::Relaxed);
        // An unbounded queue that nobody closes takes everything.
        #[cfg(not(urpc_loom))]
        let _ = self.queue.push(item);
        #[cfg(urpc_loom)]
        self.queue.lock().unwrap().push_back(item);
    }

    pub(crate) fn pop(&self) -> Option<T> {
        if self.is_empty() {
            return None;
        }
        #[cfg(not(urpc_loom))]
        let item = self.queue.pop().ok()?;
        #[cfg(urpc_loom)]
        let item = self.queue.lock().unwrap().pop_front()?;
        self.count.fetch_sub(1, Ordering::Relaxed);
        Some(item)
    }

    /// Nothing can be popped: all that is counted is still being pushed, by threads that look after it themselves.
    pub(crate) fn has_none_whole(&self) -> bool {
        #[cfg(not(urpc_loom))]
        return self.queue.is_empty();
        #[cfg(urpc_loom)]
        return self.queue.lock().unwrap().is_empty();
    }

    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }
}
