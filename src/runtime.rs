//! A runtime: processors, and the threads that come with them. Most programs need only the default one,
//! or the one that [`main`](macro@crate::main) makes.

mod caps;

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use urpc_donate::policy::{Optimistic, Policy};
use urpc_executor::{Discipline, Executor, JoinHandle};

use crate::caller;
use crate::discipline::MakeDiscipline;
use crate::error::{Error, Result};
use crate::limits;
use crate::node::{Config, Node, lock};
use crate::stats::Stats;

/// The runtime of everything outside of one: it starts when it is first needed, with one processor.
static DEFAULT: Mutex<Option<Runtime>> = Mutex::new(None);

/// Processors of this process, the tasks on them, and the channels bound in it.
///
/// Dropping it closes its channels, drops its tasks and joins its threads.
///
/// ```
/// let rt = urpc::Runtime::builder().processors(2).build()?;
/// let sum = rt.block_on(async {
///     let two = urpc::spawn(async { 2 });
///     two.await.unwrap() + 3
/// });
/// assert_eq!(sum, 5);
/// # Ok::<(), urpc::Error>(())
/// ```
pub struct Runtime {
    node: Arc<Node>,
    executor: Executor,
}

impl Runtime {
    /// A runtime with the defaults: one processor.
    ///
    /// # Errors
    /// If the system refuses memory, descriptors or threads.
    pub fn new() -> Result<Self> {
        Self::builder().build()
    }

    /// Chooses how a runtime is to be.
    pub fn builder() -> Builder {
        Builder {
            config: Config {
                processors: 1,
                pin: Vec::new(),
                spin: limits::SPIN,
                linger: true,
                grant_limit: limits::GRANT_LIMIT,
                call_deadline: limits::CALL_DEADLINE,
                discipline: None,
                policy: Arc::new(Optimistic),
                urgent: false,
                caps: limits::Caps::default(),
                undumpable: false,
            },
        }
    }

    /// Runs `future` to its end. The calling thread borrows a processor for that time, and runs other
    /// tasks too; with no processors of its own (n = 0), or when other threads have borrowed them all,
    /// it only waits.
    ///
    /// # Panics
    /// Inside a task: there it would take the processor it waits for. Await the future instead.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        let before = Node::set_current(Some(Arc::clone(&self.node)));
        let _back = Back(before);
        self.executor.block_on(future)
    }

    /// Starts a task. It runs whether its handle is awaited or not.
    pub fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.executor.spawn(future)
    }

    /// Starts a task with a priority, see [`spawn_with`](crate::spawn_with).
    pub fn spawn_with<T: Send + 'static>(
        &self,
        priority: i32,
        future: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.executor.spawn_with(priority, future)
    }

    /// Counts of this runtime and its channels.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.node.stats()
    }
}

/// Sets the thread's node back to what it was.
struct Back(Option<Arc<Node>>);

impl Drop for Back {
    fn drop(&mut self) {
        Node::set_current(self.0.take());
        Node::forget_bindings();
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        // A forked child has none of its parent's threads to join.
        if !self.node.birthmark.forked() {
            self.node.stop();
        }
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime")
            .field("config", &self.node.config)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// How a [`Runtime`] is to be.
#[derive(Clone, Debug)]
#[must_use = "nothing is started before `build`"]
pub struct Builder {
    config: Config,
}

impl Builder {
    /// Own processors: how many tasks can run at once, 0 to 64; the default is 1. With 0 the process
    /// costs nothing until somebody calls it, and then runs on its caller's processor.
    pub fn processors(mut self, n: usize) -> Self {
        self.config.processors = n;
        self
    }

    /// One CPU for each processor; if there are fewer CPUs than processors, they are used in turn. The
    /// default is to let the kernel choose, as it also does where a CPU is not there, or not for this process.
    pub fn pin(mut self, cpus: impl IntoIterator<Item = u32>) -> Self {
        self.config.pin = cpus.into_iter().collect();
        self
    }

    /// How long an idle processor looks for messages before it rests, at most; the default is 50 µs,
    /// about what waking it would cost. It looks only if something is outstanding or has just come in, and
    /// for a shorter time (down to a 32nd) where waits turn out longer than this; after a large message for a
    /// longer one, by a microsecond for each 4 KiB. `Duration::MAX` never rests, and `ZERO` rests at once. On a single CPU nothing is looked for, whatever is said here.
    pub fn spin(mut self, limit: Duration) -> Self {
        self.config.spin = limit;
        self
    }

    /// Whether a task whose call is about to be answered keeps its context loaded, if no other task is
    /// ready, instead of being put to sleep and woken (footnote 1 of the paper); the default is true. For a few
    /// microseconds such a task does not notice anything else that it waits for. Without spinning, and on a
    /// single CPU, no task lingers.
    pub fn linger(mut self, lingers: bool) -> Self {
        self.config.linger = lingers;
        self
    }

    /// How long a donor waits for its processor before it goes on without it; the default is 5 ms. The
    /// call goes on too: its limit is the call deadline (§3.1.3, R25). More than 71 minutes are as many: a grant
    /// cannot say more.
    pub fn grant_limit(mut self, limit: Duration) -> Self {
        self.config.grant_limit = limit.min(Duration::from_micros(u32::MAX.into()));
        self
    }

    /// The deadline of calls that are given none; the default is 30 s. It is the caller's alone: the handler is told
    /// only what [`Call::timeout`](crate::Call::timeout) says.
    pub fn call_deadline(mut self, limit: Duration) -> Self {
        self.config.call_deadline = limit;
        self
    }

    /// The order in which ready tasks run: [`Fifo`](crate::Fifo), [`Lifo`](crate::Lifo),
    /// [`Priorities`](crate::Priorities), or one of your own, see [`Discipline`]. Each runtime that is
    /// built makes its own.
    ///
    /// The default is none of these, and the fastest: each processor has a queue of its own, first in,
    /// first out, and takes from others when that is empty; a task whose reply comes in goes ahead.
    ///
    /// What a discipline cannot put off: the future of a `block_on`, the first poll of a handler, and the
    /// looks at the channels between tasks.
    ///
    /// ```
    /// use std::sync::{Arc, Mutex};
    ///
    /// let rt = urpc::Runtime::builder()
    ///     .discipline(urpc::Priorities::new)
    ///     .build()?;
    /// let order = Arc::new(Mutex::new(Vec::new()));
    /// rt.block_on(async {
    ///     let note = |n| {
    ///         let order = Arc::clone(&order);
    ///         async move { order.lock().unwrap().push(n) }
    ///     };
    ///     let low = urpc::spawn_with(-1, note(-1));
    ///     let plain = urpc::spawn(note(0));
    ///     let high = urpc::spawn_with(7, note(7));
    ///     for task in [low, plain, high] {
    ///         task.await.unwrap();
    ///     }
    /// });
    /// assert_eq!(*order.lock().unwrap(), [7, 0, -1]);
    /// # Ok::<(), urpc::Error>(())
    /// ```
    pub fn discipline<D: Discipline>(
        mut self,
        make: impl Fn() -> D + Send + Sync + 'static,
    ) -> Self {
        self.config.discipline = Some(MakeDiscipline::new(make));
        self
    }

    /// Who is lent a processor, who is rung, and when to rest: the default is
    /// [`Optimistic`](crate::policy::Optimistic), the policy of the paper.
    ///
    /// ```
    /// use urpc::policy::{Action, Here, Optimistic, PeerView, Policy};
    ///
    /// /// Lends a processor only where a call is urgent, and rings otherwise.
    /// struct Reluctant;
    ///
    /// impl Policy for Reluctant {
    ///     fn decide(&self, here: &Here, peers: &[PeerView]) -> Action {
    ///         let may_lend = here.may_lend && peers.iter().any(|peer| peer.urgent);
    ///         Optimistic.decide(&Here { may_lend, ..*here }, peers)
    ///     }
    /// }
    ///
    /// let rt = urpc::Runtime::builder().policy(Reluctant).build()?;
    /// # Ok::<(), urpc::Error>(())
    /// ```
    pub fn policy(mut self, policy: impl Policy + 'static) -> Self {
        self.config.policy = Arc::new(policy);
        self
    }

    /// Whether every call is [`urgent`](crate::Call::urgent): a server without a processor awake gets the
    /// caller's as soon as the calling task waits, although others are ready here. For real-time programs,
    /// whose calls must not wait until this process has nothing else to do (§3.1.1, R24). The default is no.
    pub fn urgent(mut self, urgent: bool) -> Self {
        self.config.urgent = urgent;
        self
    }

    /// Starts the runtime.
    ///
    /// # Errors
    /// If more than 64 processors are asked for, or the system refuses memory, descriptors or threads.
    pub fn build(self) -> Result<Runtime> {
        if self.config.processors > limits::PROCESSORS {
            return Err(Error::system(
                format!("start a runtime of {} processors", self.config.processors),
                format!("{} are possible at most", limits::PROCESSORS),
            ));
        }
        let node = Node::start(self.config)?;
        let executor = node.executor().expect("just started");
        Ok(Runtime { node, executor })
    }
}

/// The node that a thread's calls belong to: that of its runtime, or the default one.
pub(crate) fn current_node() -> Result<Arc<Node>> {
    if let Some(node) = Node::current() {
        return Ok(node);
    }
    let mut default = lock(&DEFAULT);
    if let Some(runtime) = &*default {
        return Ok(Arc::clone(&runtime.node));
    }
    let runtime = Runtime::new()?;
    let node = Arc::clone(&runtime.node);
    *default = Some(runtime);
    Ok(node)
}

/// The executor that a thread's tasks belong to.
///
/// # Panics
/// If the default runtime has to be started and cannot be.
pub(crate) fn current_executor() -> Executor {
    if let Some(executor) = Executor::current() {
        return executor;
    }
    let node = current_node().unwrap_or_else(|error| panic!("{error}"));
    node.executor()
        .unwrap_or_else(|| panic!("the runtime of this thread has ended"))
}

/// Does something with the executor that a thread's tasks belong to, as [`current_executor`] does.
#[inline]
fn with_executor<R>(f: impl FnOnce(&Executor) -> R) -> R {
    Executor::with_current(|current| match current {
        Some(executor) => f(executor),
        None => f(&current_executor()),
    })
}

/// Runs `future` to its end on the current runtime, or on the default one, which starts by itself with
/// one processor. See [`Runtime::block_on`].
///
/// # Panics
/// Inside a task: await the future there instead.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let executor = current_executor();
    let before = Node::set_current(current_node().ok());
    let _back = Back(before);
    executor.block_on(future)
}

/// Starts a task on the current runtime, or on the default one. It runs whether its handle is awaited
/// or not; see [`JoinHandle`].
///
/// ```
/// # let rt = urpc::Runtime::builder().processors(1).build()?;
/// # rt.block_on(async {
/// let handle = urpc::spawn(async { 6 * 7 });
/// assert_eq!(handle.await?, 42);
/// # Ok::<(), urpc::Error>(()) })?;
/// # Ok::<(), urpc::Error>(())
/// ```
pub fn spawn<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    with_executor(|executor| executor.spawn(future))
}

/// Starts a task and runs it at once, here, as far as it goes; only what is pending then becomes a task of
/// its own, and waits for its turn. A child that need not wait for anything costs little more than a call
/// of it. Outside of a task, and where such calls are nested too deeply, it is as [`spawn`].
///
/// The parent must hold no lock that its child takes: then use [`spawn`], which queues. What the child does
/// before it waits for the first time delays its parent, and a [`yield_now`](crate::yield_now) there does
/// nothing: the child is polled first without a waker, and at once again with one if it is not done.
///
/// ```
/// # let rt = urpc::Runtime::builder().processors(1).build()?;
/// # rt.block_on(async {
/// let handle = urpc::spawn_eager(async { 6 * 7 });
/// assert!(handle.is_finished());
/// assert_eq!(handle.await?, 42);
/// # Ok::<(), urpc::Error>(()) })?;
/// # Ok::<(), urpc::Error>(())
/// ```
pub fn spawn_eager<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    // A handler's child is no part of its call, at its first poll as little as later.
    with_executor(|executor| executor.spawn_eager(caller::outside(future)))
}

/// Starts a task with a priority: a number that the runtime's [`discipline`](Builder::discipline) may
/// order by. Without one it means nothing. All other tasks, handlers included, have priority 0.
pub fn spawn_with<T: Send + 'static>(
    priority: i32,
    future: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    with_executor(|executor| executor.spawn_with(priority, future))
}

/// Runs blocking work off the processors, on a pool of threads that grows and shrinks.
///
/// # Cancellation
/// Dropping the future does not stop the work, only the waiting for it.
///
/// ```
/// # let rt = urpc::Runtime::builder().processors(1).build()?;
/// # rt.block_on(async {
/// let text = urpc::unblock(|| std::fs::read_to_string("Cargo.toml")).await?;
/// assert!(text.contains("[package]"));
/// # Ok::<(), urpc::Error>(()) })?;
/// # Ok::<(), urpc::Error>(())
/// ```
pub async fn unblock<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    // The thread that does it may be started from here.
    let home = Node::with_affinity(|affinity| affinity.unbound());
    let work = move || {
        Node::settle_at(&home);
        work()
    };
    blocking::unblock(work).await
}

/// Counts of the current runtime and all its channels.
#[must_use]
pub fn stats() -> Stats {
    current_node().map_or_else(|_| Stats::default(), |node| node.stats())
}

/// What `#[urpc::main]` and `#[urpc::test]` expand to.
///
/// # Panics
/// If the runtime cannot be started.
pub fn run<T>(processors: Option<usize>, future: impl Future<Output = T>) -> T {
    let builder = Runtime::builder().processors(processors.unwrap_or(1));
    let runtime = builder.build().unwrap_or_else(|error| panic!("{error}"));
    runtime.block_on(future)
}
