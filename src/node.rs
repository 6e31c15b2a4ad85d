//! One runtime's share of the system: its processors' seats, its peers, its presence page, its bell.
//!
//! A node knows the three parts of the paper (`executor`, `channel`, `donate`) and joins them. Its list of peers is
//! in `node/peers.rs`; what is done when nothing is ready is in `idle.rs`, what waits for the kernel in `keeper.rs`.

mod peers;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::thread::JoinHandle as Thread;
use std::time::Duration;

use rustix::process::{DumpableBehavior, Resource, getrlimit, set_dumpable_behavior};
use urpc_channel::{Birthmark, Glance, OwnPage};
use urpc_donate::policy::Policy;
use urpc_donate::{Affinity, Presence, Seat};
use urpc_executor::{Executor, JoinHandle};

use crate::bell::Bell;
use crate::binding::Scratch;
use crate::discipline::MakeDiscipline;
use crate::error::{Error, Result};
use crate::keeper::{self, Keeper};
use crate::landing;
use crate::limits::Caps;
use crate::quota::Quota;
use crate::stats::{Counters, Stats};
use crate::wire::Nanos;
pub(crate) use peers::List;
use peers::Peers;

/// The words of a presence page.
pub(crate) mod page {
    /// Own processors.
    pub(crate) const PROCESSORS: usize = 0;
    /// Those whose workers rest.
    pub(crate) const RESTING: usize = 1;
    /// Those that no thread holds.
    pub(crate) const UNHELD: usize = 2;
}

/// What a runtime was built with.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) processors: usize,
    pub(crate) pin: Vec<u32>,
    pub(crate) spin: Duration,
    pub(crate) linger: bool,
    pub(crate) grant_limit: Duration,
    pub(crate) call_deadline: Duration,
    /// `None`: each processor has a queue of its own.
    pub(crate) discipline: Option<MakeDiscipline>,
    pub(crate) policy: Arc<dyn Policy>,
    /// Every call is urgent.
    pub(crate) urgent: bool,
    pub(crate) caps: Caps,
    /// Other processes of the same user are kept out of this one's memory.
    pub(crate) undumpable: bool,
}

/// See the [module's documentation](self).
pub(crate) struct Node {
    me: Weak<Node>,
    pub(crate) config: Config,
    /// Tells a forked child from the process that owns all this.
    pub(crate) birthmark: Birthmark,
    /// More than one CPU is allowed: a peer can run while we do.
    pub(crate) parallel: bool,
    lingers: bool,
    pub(crate) cpus: usize,
    /// Where its threads run.
    home: Affinity,
    /// The kernel lets processors be lent.
    pub(crate) lends: bool,
    /// `None` before the start and after the end.
    executor: RwLock<Option<Executor>>,
    pub(crate) page: OwnPage,
    pub(crate) seats: Box<[Seat]>,
    pub(crate) bell: Bell,
    pub(crate) keeper: Keeper,
    pub(crate) quota: Arc<Quota>,
    peers: Peers,
    /// Serializes the announcements of unheld processors.
    unheld: Mutex<()>,
    /// For what happens while no own processor is there: the seat of the reserve worker.
    pub(crate) stand_in: Seat,
    pub(crate) stopping: AtomicBool,
    threads: Mutex<Vec<Thread<()>>>,
    /// Landings that hold a processor right now.
    pub(crate) landings_running: AtomicU64,
    pub(crate) counters: Counters,
    past: Mutex<Stats>,
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<Node>>> = const { RefCell::new(None) };
    /// Whose tasks this thread runs just now; only compared.
    static WORKS_FOR: Cell<*const Node> = const { Cell::new(std::ptr::null()) };
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
    static AFFINITY: RefCell<Option<Affinity>> = const { RefCell::new(None) };
}

impl Node {
    /// A running node: its keeper is started, its processors wait for work.
    pub(crate) fn start(mut config: Config) -> Result<Arc<Self>> {
        let processors = config.processors;
        // Not those of this moment: this thread may run a task of another runtime, and be bound.
        let home = Self::with_affinity(|affinity| affinity.unbound());
        let cpus = home.cpus();
        let failed = |error| Error::system("start a runtime", error);
        let descriptors = getrlimit(Resource::Nofile).current;
        let descriptors = descriptors.map_or(usize::MAX, |n| n as usize);
        config.caps = config.caps.within(descriptors);
        if config.undumpable {
            set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|e| failed(e.into()))?;
        }
        let page = OwnPage::create().map_err(failed)?;
        page.word(page::PROCESSORS)
            .store(processors as u32, Ordering::Relaxed);
        page.word(page::UNHELD)
            .store(processors as u32, Ordering::Relaxed);
        let birthmark = Birthmark::take().map_err(failed)?;
        let keeper = Keeper::new(config.caps).map_err(failed)?;
        let bell = keeper.new_bell().map_err(failed)?;
        let node = Arc::new_cyclic(|me: &Weak<Node>| Self {
            me: me.clone(),
            birthmark,
            parallel: cpus > 1,
            lingers: cpus > 1 && config.linger && !config.spin.is_zero(),
            cpus,
            home,
            lends: urpc_donate::lending_works(),
            executor: RwLock::new(None),
            page,
            seats: (0..processors).map(|_| Seat::new()).collect(),
            bell,
            keeper,
            quota: Arc::new(Quota::new(config.caps)),
            peers: Peers::new(),
            unheld: Mutex::new(()),
            stand_in: Seat::new(),
            stopping: AtomicBool::new(false),
            threads: Mutex::new(Vec::new()),
            landings_running: AtomicU64::new(0),
            counters: Counters::default(),
            past: Mutex::new(Stats::default()),
            config,
        });
        let executor = match &node.config.discipline {
            None => Executor::new(processors, "urpc", node.clone()),
            Some(chosen) => {
                Executor::with_discipline(processors, "urpc", node.clone(), chosen.make())
            }
        };
        *write(&node.executor) = Some(executor);
        let keeper = node.thread("urpc-keeper", keeper::run);
        let threads = keeper.and_then(|()| match processors {
            0 => node.thread("urpc-stand-in", landing::stand_in),
            _ => Ok(()),
        });
        if let Err(error) = threads {
            node.stop(); // else it and its executor would hold each other for ever
            return Err(failed(error));
        }
        Ok(node)
    }

    /// Ends it: every channel is closed, every task dropped, every thread joined.
    pub(crate) fn stop(self: &Arc<Self>) {
        self.stopping.store(true, Ordering::Release);
        for binding in self.bindings() {
            binding.close("its runtime has ended");
        }
        let executor = write(&self.executor).take();
        if let Some(executor) = executor {
            executor.shutdown();
        }
        self.keeper.poke();
        let _ = self.stand_in.wake();
        let threads = std::mem::take(&mut *lock(&self.threads));
        for thread in threads {
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
        self.keeper.clear();
    }

    /// Starts a thread that belongs to this node.
    pub(crate) fn thread(
        self: &Arc<Self>,
        name: &str,
        run: impl FnOnce(&Arc<Node>) + Send + 'static,
    ) -> std::io::Result<()> {
        let node = Arc::clone(self);
        let thread = std::thread::Builder::new()
            .name(name.into())
            .spawn(move || {
                node.settle_in();
                run(&node);
            })?;
        let mut threads = lock(&self.threads);
        threads.retain(|thread| !thread.is_finished());
        threads.push(thread);
        Ok(())
    }

    /// For a thread that was started for this node just now, by one that may be bound to a CPU that is lent.
    pub(crate) fn settle_in(&self) {
        Self::settle_at(&self.home);
    }

    /// The same, for a thread that is nobody's, and perhaps not new: then it is where it should be.
    pub(crate) fn settle_at(home: &Affinity) {
        AFFINITY.with_borrow_mut(|affinity| {
            affinity.get_or_insert_with(|| {
                home.settle();
                home.clone()
            });
        });
    }

    /// The node whose runtime the current thread works for.
    pub(crate) fn current() -> Option<Arc<Node>> {
        CURRENT.with_borrow(Option::clone)
    }

    /// The current thread works for this node, or, with `None`, for none. Returns what it was before.
    pub(crate) fn set_current(node: Option<Arc<Node>>) -> Option<Arc<Node>> {
        CURRENT.replace(node)
    }

    /// This thread runs tasks of `node` from here on, or, with `None`, of nobody.
    pub(crate) fn set_working(node: Option<&Node>) {
        WORKS_FOR.set(node.map_or(std::ptr::null(), std::ptr::from_ref));
    }

    /// True if this thread runs tasks of this node, and so will scan its channels.
    #[inline]
    pub(crate) fn works_here(&self) -> bool {
        std::ptr::eq(WORKS_FOR.get(), self)
    }

    /// True if this thread runs tasks of some node.
    #[inline]
    pub(crate) fn works() -> bool {
        !WORKS_FOR.get().is_null()
    }

    /// Whether callers may linger: the peer can run while this thread looks for its reply.
    #[inline]
    pub(crate) fn lingers(&self) -> bool {
        self.lingers
    }

    pub(crate) fn me(&self) -> Option<Arc<Node>> {
        self.me.upgrade()
    }

    /// The executor, while the runtime lives.
    pub(crate) fn executor(&self) -> Option<Executor> {
        let executor = self.executor.read();
        executor.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Starts a task. `None` after the end of the runtime: then it is dropped.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Option<JoinHandle<T>> {
        Some(self.executor()?.spawn(future))
    }

    /// The same of a future that is pending already: it learns its waker at once.
    pub(crate) fn spawn_pending<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Option<JoinHandle<T>> {
        Some(self.executor()?.spawn_pending(future))
    }

    /// Runs `f` with this thread's scratch. Nested, `f` gets a fresh one.
    pub(crate) fn with_scratch<R>(f: impl FnOnce(&mut Scratch) -> R) -> R {
        let mut scratch = SCRATCH.take().unwrap_or_default();
        let result = f(&mut scratch);
        SCRATCH.set(Some(scratch));
        result
    }

    /// Runs `f` with this thread's affinity.
    pub(crate) fn with_affinity<R>(f: impl FnOnce(&mut Affinity) -> R) -> R {
        AFFINITY.with_borrow_mut(|affinity| f(affinity.get_or_insert_default()))
    }

    /// Has somebody scan: a thread that cannot do it itself left something to be seen to.
    pub(crate) fn look(&self) {
        if self.config.processors == 0 {
            let _ = self.stand_in.wake();
        } else if let Some(executor) = self.executor() {
            executor.notify();
        }
    }

    /// A call was begun whose deadline is the earliest: who sleeps must not sleep longer than until then.
    /// A worker looks itself before it rests; any other thread has to tell one, or the keeper.
    pub(crate) fn deadline_set(&self) {
        if self.config.processors == 0 {
            self.keeper.poke();
        } else if let Some(executor) = self.executor() {
            executor.timer_set();
            if !self.works_here() {
                self.keeper.poke(); // every worker may be stuck in a long poll
            }
        }
    }

    /// The earliest deadline of any outstanding call.
    pub(crate) fn next_deadline(&self) -> Nanos {
        let bindings = self.local_bindings();
        let deadlines = bindings.iter().map(|b| b.pending.next_deadline());
        deadlines.min().unwrap_or(Nanos::NEVER)
    }

    /// Wakes the callers whose deadline has passed.
    pub(crate) fn expire(&self, now: Nanos) {
        for binding in self.local_bindings().iter() {
            binding.pending.expire(now);
        }
    }

    // Presence.

    pub(crate) fn presence(&self) -> Presence<'_> {
        Presence {
            processors: self.page.word(page::PROCESSORS),
            resting: self.page.word(page::RESTING),
            unheld: self.page.word(page::UNHELD),
        }
    }

    /// The number of processors without a thread has changed.
    pub(crate) fn announce_unheld(&self) {
        let Some(executor) = self.executor() else {
            return;
        };
        let unheld = {
            let _in_order = lock(&self.unheld);
            let unheld = executor.unheld();
            self.presence().announce_unheld(unheld as u32);
            unheld
        };
        if unheld > 0 {
            // As a worker looks once more before it sleeps. What it sent last is perhaps not rung for yet.
            fence(Ordering::SeqCst);
            let bindings = self.bindings();
            for binding in &bindings {
                binding.flush();
                if binding.wants_attention() && binding.presence().may_sleep() {
                    binding.ring();
                }
            }
            // What waits for room, too: the peer is told of that by a worker on its way to rest, and by nobody else.
            if bindings
                .iter()
                .any(|b| b.channel.glance() != Glance::default())
            {
                executor.attend();
            }
            self.keeper.poke(); // which sees to the timers from now on
        }
    }

    /// Counts of this runtime and all its channels, closed ones included.
    pub(crate) fn stats(&self) -> Stats {
        let mut stats = self.counters.read();
        stats += *lock(&self.past);
        for binding in self.bindings() {
            stats += binding.stats();
        }
        stats
    }
}

/// A poisoned lock of ours protects data that is never left half changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
