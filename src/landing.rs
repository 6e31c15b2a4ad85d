//! Reserve workers: threads that run tasks here although no processor of this process is free.
//!
//! A **landing** comes up when a peer lends its processor: it serves the donor's messages, runs the
//! tasks they become, and returns the processor when every message has its reply or nothing is ready
//! (R21, R22). While those wait for a third process it lends the processor onwards, there. The **stand-in** of
//! a process without processors comes up for everything else: a ring, a due timer, a task woken by a foreign
//! thread. Liveness never depends on a donation.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::{Duration, Instant};

use urpc_donate::policy::{Action, Here, Lent};
use urpc_donate::{Arrival, Landing, Seat};
use urpc_executor::{Executor, Guest, Worker};

use crate::binding::Binding;
use crate::idle::{forget_urgent_calls, scan_one};
use crate::limits;
use crate::node::Node;
use crate::note::note;
use crate::spare;
use crate::stats::add;
use crate::wire::Nanos;

/// Longer than the coarse clock is late. An owner that has left its processor here for so long beyond the limit has
/// stopped, or means to keep a landing busy.
const LATE: Duration = Duration::from_millis(20);

/// The thread of landing `k` of this channel. The next one is opened when this one is of use for the first time: how
/// many a peer can use is its own word.
pub(crate) fn run(node: &Arc<Node>, binding: &Arc<Binding>, k: usize) {
    Node::set_current(Some(Arc::clone(node)));
    note!(on landing(binding, k));
    let words = binding.landing_words(k);
    let seat = &binding.landings[k];
    // There is none after the end of the runtime: then what is lent goes back at once.
    let guest = node.executor().map(|executor| executor.guest());
    let mut landing = Landing::open(words);
    binding.tell_of_landing();
    let (mut before, mut opened) = (0, false);
    loop {
        let ticket = seat.ticket();
        if binding.is_closed() {
            break;
        }
        Node::forget_list();
        let Arrival::Granted {
            sequence,
            live,
            cpu,
            limit_us,
        } = landing.wait(words, seat, ticket)
        else {
            continue; // woken: some channel is closed
        };
        // A grant is a claim: no more of them run at once than there are CPUs to run them on.
        if live
            && let Some(guest) = &guest
            && let Some(permit) = Permit::take(node)
        {
            if node.parallel {
                Node::with_affinity(|affinity| affinity.bind(cpu));
            }
            add(&binding.counters.donations_received, 1);
            note!(Arrive, binding);
            let limit = Duration::from_micros(limit_us.into()).min(node.config.grant_limit);
            let grant = words.grant;
            let held = Held {
                node,
                owner: binding,
                grant: urpc_donate::Held { grant, sequence },
                seat,
                until: Instant::now() + limit,
                over: Nanos::coarse().after(limit + LATE),
                permit: RefCell::new(Some(permit)),
                for_replies: Cell::new(0),
            };
            serve(&held, guest);
            note!(Return, binding);
        }
        add(&binding.counters.system_calls, 2);
        landing.give_back(words, sequence);
        let moved = binding.channel.moved();
        if std::mem::replace(&mut before, moved) != moved {
            landing.useful();
            if !std::mem::replace(&mut opened, true) {
                node.open_landing(binding, k + 1);
            }
        } else {
            landing.in_vain();
        }
    }
    Node::set_current(None);
    Node::forget_bindings();
}

/// A peer's processor, while it is here.
pub(crate) struct Held<'a> {
    node: &'a Arc<Node>,
    owner: &'a Arc<Binding>,
    pub(crate) grant: urpc_donate::Held<'a>,
    /// Where its landing sleeps.
    pub(crate) seat: &'a Seat,
    /// For so long its owner means to wait.
    until: Instant,
    /// By then it has gone on without it, or should have.
    over: Nanos,
    /// Gone if there was none any more when the landing woke from an onward grant.
    permit: RefCell<Option<Permit<'a>>>,
    /// So many tasks may run for the sake of the owner's replies.
    for_replies: Cell<usize>,
}

impl Held<'_> {
    /// True if it is this peer's.
    pub(crate) fn is_from(&self, peer: &Arc<Binding>) -> bool {
        Arc::ptr_eq(self.owner, peer)
    }

    /// What the policy is told when not all is served yet.
    pub(crate) fn lent(&self) -> Lent {
        Lent {
            served: false,
            wanted: self.owner.wants_attention() && !self.owner.presence().awake(),
        }
    }

    /// For how long it may be lent onwards. Half of the time that is left: so it is back before its owner gives it
    /// up, and the peer that kept it is the one that wasted it.
    pub(crate) fn stay_onwards(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now()) / 2
    }

    /// It is lent onwards: another landing may run here meanwhile.
    pub(crate) fn begin_rest(&self) {
        self.permit.take();
    }

    /// It is back.
    pub(crate) fn end_rest(&self) {
        self.permit.replace(Permit::take(self.node));
    }

    /// True once its owner is gone: the grant stays as it was then, and nobody reclaims it.
    pub(crate) fn is_orphan(&self) -> bool {
        self.owner.is_closed()
    }

    fn may_run(&self) -> bool {
        let is_owned = self.grant.is_live() && !self.is_orphan();
        is_owned && Nanos::coarse() < self.over && self.permit.borrow().is_some()
    }

    /// Asked between two tasks. Whether anything is ready is known after a look only. If nothing is, the processor
    /// goes onwards or back, and `leave` rings who is still to be rung.
    fn goes_on(&self, executor: &Executor) -> bool {
        let mut served = self.owner.live() == 0 && !self.owner.channel.has_incoming();
        let tasks = self.for_replies.get();
        if served && tasks > 0 && executor.has_ready() {
            self.for_replies.set(tasks - 1);
            served = false;
        }
        let policy = &self.node.config.policy;
        policy.decide(&borrowed(self.node, served), &[]) != Action::Return
    }

    /// Takes what the owner has sent; with nothing to do for it, lends the processor to whom that waits for.
    fn scan(&self, worker: &Worker, executor: &Executor) -> bool {
        let calls = self.owner.serving.count();
        let found = scan_one(self.owner);
        if found && self.owner.live() == 0 && self.owner.serving.count() == calls {
            // Replies: what they woke is what the processor was lent for (R23). Which tasks that were is not
            // known, so others may run in their place, but not more.
            self.for_replies.set(limits::BATCH);
        }
        found || !executor.has_ready() && self.node.give_onwards(worker, self)
    }
}

/// Runs with the owner's processor until it is to be returned.
fn serve(held: &Held<'_>, guest: &Guest) {
    let (node, executor) = (held.node, guest.executor());
    // The first look must come before the first question.
    let mut arrived = false;
    let mut bounds = Busy::default();
    node.work_while(
        guest,
        || held.may_run() && (!std::mem::replace(&mut arrived, true) || held.goes_on(executor)),
        |worker| {
            node.see_to_urgent_calls(worker, Some(held));
            if executor.has_ready() {
                // Else it goes on soon, with the processor or to leave: no ring needs to overtake it.
                bounds.tick(node, |peer| held.is_from(peer));
            }
            held.scan(worker, executor)
        },
    );
    // A donor that has gone on without its processor may rest by now, on the very replies that were
    // written here: then it is rung like any other.
    leave(node, executor, |peer| {
        held.is_from(peer) && held.grant.is_live()
    });
}

/// What the policy is told between two tasks on a processor that was lent.
fn borrowed(node: &Node, served: bool) -> Here {
    Here {
        ready: true,
        lent: Some(Lent {
            served,
            wanted: false,
        }),
        may_lend: false,
        cpus: node.cpus,
        may_spin: false,
        due_in: None,
    }
}

impl Node {
    /// [`Guest::run_while`], as a thread that works for this node.
    fn work_while(
        &self,
        guest: &Guest,
        more: impl FnMut() -> bool,
        scan: impl FnMut(&Worker) -> bool,
    ) {
        Node::set_working(Some(self));
        guest.run_while(more, scan);
        Node::set_working(None);
        forget_urgent_calls(); // `leave` sees to these too
    }
}

/// Before a reserve worker sleeps: what is left is somebody else's from here on.
fn leave(node: &Arc<Node>, executor: &Executor, waits: impl Fn(&Arc<Binding>) -> bool) {
    spare::let_go();
    // Pairs with the fence of a thread that hands a message over: it sees the end free, or we flush.
    fence(Ordering::SeqCst);
    // Not this thread's copy: it would have to be made, and is forgotten at once.
    let peers = node.list();
    node.settle(&peers);
    node.ring_sleepers(&peers, waits);
    if executor.has_ready() {
        executor.notify();
    }
}

/// The thread of the stand-in.
pub(crate) fn stand_in(node: &Arc<Node>) {
    Node::set_current(Some(Arc::clone(node)));
    note!(on StandIn);
    let mut bounds = Busy::default();
    while !node.stopping.load(Ordering::Acquire) {
        let ticket = node.stand_in.ticket();
        let Some(executor) = node.executor() else {
            break;
        };
        node.work_while(
            &executor.guest(),
            || !node.stopping.load(Ordering::Relaxed),
            |worker| {
                node.see_to_urgent_calls(worker, None);
                bounds.tick(node, |_| false);
                node.scan()
            },
        );
        leave(node, &executor, |_| false);
        if !node.last_look() && !executor.has_ready() {
            drop(executor);
            Node::forget_bindings();
            note!(Rest);
            node.stand_in.sleep(ticket, None);
            note!(Wake);
        }
    }
    Node::set_current(None);
    Node::forget_bindings();
}

/// A reserve worker that does not run out of work rings who sleeps on its messages all the same, as a
/// busy worker does; and sees to the deadlines.
#[derive(Default)]
struct Busy(Option<Nanos>);

impl Busy {
    fn tick(&mut self, node: &Arc<Node>, waits: impl Fn(&Arc<Binding>) -> bool) {
        let now = Nanos::coarse();
        let before = self.0.replace(now);
        if before.is_some_and(|before| before != now) {
            node.expire(now);
            node.ring_sleepers(&node.local_bindings(), waits);
        }
    }
}

/// The right of a landing to run.
struct Permit<'a>(&'a AtomicU64);

impl<'a> Permit<'a> {
    fn take(node: &'a Node) -> Option<Self> {
        let most = node.config.processors.max(node.cpus) as u64;
        let running = &node.landings_running;
        let taken = running.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |running| {
            (running < most).then_some(running + 1)
        });
        taken.is_ok().then(|| Self(running))
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
