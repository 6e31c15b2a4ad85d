//! What all threads of an executor share, and who is told of what.
//!
//! Tasks come in through [`Shared::inject`] (from outside) or a worker's own queue; somebody is told
//! whenever that could otherwise go unnoticed. Whoever puts something where a resting worker would
//! have to find it goes through [`Shared::notify`] afterwards.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::thread;

use concurrent_queue::ConcurrentQueue;

use crate::block_on::Main;
use crate::discipline::Discipline;
use crate::executor::Executor;
use crate::idle::Idle;
use crate::ordered::Ordered;
use crate::processor::{Call, Granted, Pool, Processor};
use crate::queue::{Thief, queue};
use crate::rest::{MOST_PROCESSORS, Rest};
use crate::task::{Registry, Runnable};
use crate::timers::Timers;
use crate::worker::{Role, Seat};

/// The executors that exist, by serial number, for wakes from threads that are none of theirs.
static EXECUTORS: RwLock<BTreeMap<u32, Weak<Shared>>> = RwLock::new(BTreeMap::new());

thread_local! {
    /// The executor (or 0) that this thread drains: what the tasks dropped in [`Shared::drain`] wake,
    /// the loop there will meet.
    static DRAINING: Cell<u32> = const { Cell::new(0) };
}

/// What the threads of an executor share.
pub(crate) struct Shared {
    /// Never used for another executor.
    pub(crate) serial: u32,
    name: String,
    pub(crate) idle: Arc<dyn Idle>,
    pub(crate) rest: Rest,
    pub(crate) pool: Pool,
    /// One for each processor: anybody may steal.
    pub(crate) thieves: Box<[Thief]>,
    /// What became ready outside of a worker, or had no place in its queue.
    injected: ConcurrentQueue<Runnable>,
    /// If the application chose a discipline: everything that is ready. All other queues stay empty then.
    ordered: Option<Ordered>,
    pub(crate) timers: Timers,
    pub(crate) registry: Registry,
    closed: AtomicBool,
}

impl Shared {
    /// See [`Executor::new`].
    pub(crate) fn new(
        processors: usize,
        name: &str,
        idle: Arc<dyn Idle>,
        discipline: Option<Arc<dyn Discipline>>,
    ) -> Arc<Shared> {
        static SERIALS: AtomicU64 = AtomicU64::new(1);
        assert!(
            processors <= MOST_PROCESSORS,
            "an executor of {processors} processors: at most {MOST_PROCESSORS} are possible",
        );
        let (owners, thieves): (Vec<_>, Vec<_>) =
            (0..processors).map(|_| queue(processors > 1)).unzip();
        let processor = |(id, local)| Processor { id, local };
        // Reversed, because the pool gives out the last one first.
        let free = owners
            .into_iter()
            .enumerate()
            .map(processor)
            .rev()
            .collect();
        let Ok(serial) = u32::try_from(SERIALS.fetch_add(1, Ordering::Relaxed)) else {
            panic!("{} executors in the life of one process", u32::MAX);
        };
        let shared = Arc::new(Shared {
            serial,
            name: name.to_owned(),
            idle,
            rest: Rest::new(),
            pool: Pool::new(free),
            thieves: thieves.into(),
            injected: ConcurrentQueue::unbounded(),
            ordered: discipline.map(|discipline| Ordered::new(discipline, serial)),
            timers: Timers::new(),
            registry: Registry::new(),
            closed: AtomicBool::new(false),
        });
        let mut executors = EXECUTORS.write().unwrap_or_else(PoisonError::into_inner);
        executors.insert(shared.serial, Arc::downgrade(&shared));
        drop(executors);
        shared
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The executor with this serial number, if it still exists.
    pub(crate) fn of(serial: u32) -> Option<Arc<Shared>> {
        let executors = EXECUTORS.read().unwrap_or_else(PoisonError::into_inner);
        executors.get(&serial).and_then(Weak::upgrade)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// The application's order, if it chose one.
    pub(crate) fn ordered(&self) -> Option<&Ordered> {
        self.ordered.as_ref()
    }

    /// Takes the next task of the shared queue.
    pub(crate) fn injected(&self) -> Option<Runnable> {
        if let Some(ordered) = &self.ordered {
            return ordered.pop();
        }
        // `is_empty` is two loads, an unsuccessful `pop` a locked instruction.
        if self.injected.is_empty() {
            None
        } else {
            self.injected.pop().ok()
        }
    }

    /// Puts a task into the shared queue and tells nobody.
    pub(crate) fn push(&self, task: Runnable) {
        if let Some(ordered) = &self.ordered {
            ordered.push(task);
            return;
        }
        // The queue has no bound and is never closed, so this always has room.
        let _ = self.injected.push(task);
    }

    /// Puts a task into the shared queue from outside.
    pub(crate) fn inject(self: &Arc<Self>, task: Runnable) {
        self.push(task);
        self.notify();
        // `notify` has fenced, which pairs with the fence in `shutdown`: if this does not see
        // `closed`, then `shutdown` sees the task.
        if self.is_closed() {
            self.drain();
        }
    }

    pub(crate) fn has_ready(&self) -> bool {
        if let Some(ordered) = &self.ordered {
            return !ordered.is_empty();
        }
        !self.injected.is_empty() || self.thieves.iter().any(|thief| !thief.is_empty())
    }

    pub(crate) fn notify(self: &Arc<Self>) {
        if !self.tell_somebody() && self.thieves.is_empty() {
            self.idle.unattended();
        }
    }

    /// Wakes a resting worker, or calls one to a free processor. False if there is neither.
    pub(crate) fn tell_somebody(self: &Arc<Self>) -> bool {
        // Fences first, so that the look at the pool is ordered as well, see `give_back`.
        if let Some(id) = self.rest.summon() {
            self.idle.wake(id);
            return true;
        }
        self.attend()
    }

    /// Wakes a resting worker, or calls one to a free processor, if either is seen without a fence.
    pub(crate) fn tell_one_hinted(self: &Arc<Self>) {
        if let Some(id) = self.rest.claim(u64::MAX) {
            self.idle.wake(id);
        } else {
            self.attend();
        }
    }

    /// Ends the rest at processor `id`, if there is one. The caller has fenced.
    pub(crate) fn wake_processor(&self, id: usize) {
        if self.rest.claim(1 << id).is_some() {
            self.idle.wake(id);
        }
    }

    pub(crate) fn attend(self: &Arc<Self>) -> bool {
        if self.pool.free() == 0 || self.is_closed() {
            return false;
        }
        let start = |number| {
            let shared = self.clone();
            let name = format!("{}-w{number}", self.name);
            thread::Builder::new()
                .name(name)
                .spawn(move || reserve(shared))
                .ok()
        };
        self.pool.call(start) == Call::Coming
    }

    /// Takes a free processor for this thread.
    pub(crate) fn take_processor(&self) -> Option<Processor> {
        let processor = self.pool.take()?;
        self.idle.held(self.pool.free());
        Some(processor)
    }

    /// Waits in `block_on` for a processor, or for its future.
    pub(crate) fn wait_for_processor(&self, main: &Arc<Main>) -> Granted {
        let granted = self.pool.wait(main, |with_reserve| {
            // `wanted` is set: either a reserve thread sees it in `has_work`, or we see it rest.
            if let Some(id) = self.rest.summon_among(with_reserve) {
                self.idle.wake(id);
            }
        });
        if let Granted::Processor(_) = granted {
            self.idle.held(self.pool.free());
        }
        granted
    }

    /// Puts a processor back. If there is anything to do, somebody is called to it.
    pub(crate) fn give_back(self: &Arc<Self>, processor: Processor) {
        self.pool.put(processor);
        self.idle.held(self.pool.free());
        // Pairs with the fence in `Rest::summon`, run by whoever pushed or set a timer: either that
        // one sees the free processor, or we see the task or the timer.
        fence(Ordering::SeqCst);
        if self.has_ready() || self.timers.next().is_some() {
            self.attend();
        }
    }

    /// See [`Executor::shutdown`].
    pub(crate) fn shutdown(&self) {
        self.closed.store(true, Ordering::Relaxed);
        // Pairs with the fence in `notify` (see `inject`) and the one in `announce_rest`.
        fence(Ordering::SeqCst);
        let threads = self.pool.close();
        while let Some(id) = self.rest.claim(u64::MAX) {
            self.idle.wake(id);
        }
        self.registry.close();
        self.drain();
        for thread in threads {
            if thread.thread().id() != thread::current().id() {
                // It cannot have panicked: `reserve` catches.
                let _ = thread.join();
            }
        }
        self.drain();
    }

    /// After a shutdown: drops every task that is queued, and what becomes ready through that.
    pub(crate) fn drain(&self) {
        // At the end of a thread, when the thread-local is gone, recursion is the lesser evil.
        let outer = DRAINING.try_with(|draining| draining.replace(self.serial));
        if outer == Ok(self.serial) {
            return;
        }
        let any = || {
            let stolen = || self.thieves.iter().find_map(Thief::steal);
            self.injected().or_else(stolen)
        };
        while let Some(task) = any() {
            let _ = catch_unwind(AssertUnwindSafe(|| drop(task)));
        }
        let _ = DRAINING.try_with(|draining| draining.set(outer.unwrap_or(0)));
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        EXECUTORS
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.serial);
    }
}

/// The life of a reserve thread: called, at work, called again.
fn reserve(shared: Arc<Shared>) {
    let executor = Executor { shared };
    executor.shared.idle.begin();
    while let Some(processor) = executor.shared.pool.answer() {
        executor.shared.idle.held(executor.shared.pool.free());
        // A panic can only come out of `Idle`, and the panic hook has reported it.
        let _ = catch_unwind(AssertUnwindSafe(|| {
            Seat::take(&executor, Some(processor), Role::Reserve).work(|_| false);
        }));
    }
}
