//! Reserve workers: threads that run tasks here although no processor of this process is free.
//!
//! A **landing** comes up when a peer lends its processor: it serves the donor's messages, runs the
//! tasks they become, and returns the processor when every message has its reply or nothing is ready
//! (R21, R22). The **stand-in** of a process without processors comes up for everything else: a ring, a
//! due timer, a task woken by a foreign thread. Liveness never depends on a donation.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use urpc_donate::policy::{Action, Here, Lent};
use urpc_donate::{Arrival, GrantWords, Landing};
use urpc_executor::{Executor, Worker};

use crate::binding::{Binding, grant_words};
use crate::idle::{forget_urgent_calls, scan_one};
use crate::node::Node;
use crate::note::note;
use crate::spare;
use crate::stats::add;
use crate::wire::Nanos;

/// The thread of landing `k` of this channel.
pub(crate) fn run(node: &Arc<Node>, binding: &Arc<Binding>, k: usize) {
    Node::set_current(Some(Arc::clone(node)));
    note!(on landing(binding, k));
    let words = grant_words(binding.channel.inbox().grant(k));
    let returned = binding.channel.outbox().returned(k);
    let seat = &binding.landings[k];
    let mut landing = Landing::open(returned);
    loop {
        let ticket = seat.ticket();
        if binding.is_closed() {
            break;
        }
        let Arrival::Granted {
            sequence,
            live,
            cpu,
            ..
        } = landing.wait(words, seat, ticket)
        else {
            continue; // woken: the channel is closed
        };
        // A grant is a claim: no more of them run at once than there are CPUs to run them on.
        if live && let Some(_permit) = Permit::take(node) {
            if node.parallel {
                Node::with_affinity(|affinity| affinity.bind(cpu));
            }
            add(&binding.counters.donations_received, 1);
            note!(Arrive, binding);
            serve(node, binding, words, sequence);
            note!(Return, binding);
        }
        add(&binding.counters.system_calls, 2);
        landing.give_back(returned, sequence);
    }
    Node::set_current(None);
    Node::forget_bindings();
}

/// Runs with the donor's processor until it is to be returned.
fn serve(node: &Arc<Node>, donor: &Arc<Binding>, words: GrantWords<'_>, sequence: u32) {
    let Some(executor) = node.executor() else {
        return;
    };
    let policy = &node.config.policy;
    // Whether anything is ready is known after a look only. If nothing is, the processor goes back whatever
    // the policy says, and `leave` rings who is still to be rung.
    let goes_on = || {
        let served = donor.live() == 0 && !donor.channel.has_incoming();
        policy.decide(&borrowed(node, served), &[]) != Action::Return
    };
    let waits = |peer: &Arc<Binding>| Arc::ptr_eq(peer, donor);
    // The first look must come before the first question.
    let mut arrived = false;
    let mut bounds = Busy::default();
    node.work_while(
        &executor,
        || Landing::holds(words, sequence) && (!std::mem::replace(&mut arrived, true) || goes_on()),
        |worker| {
            node.see_to_urgent_calls(worker, Some(Lent::default()), waits);
            bounds.tick(node, waits);
            scan_one(donor)
        },
    );
    // A donor that has gone on without its processor may rest by now, on the very replies that were
    // written here: then it is rung like any other.
    leave(node, |peer| waits(peer) && Landing::holds(words, sequence));
}

/// What the policy is told between two tasks on a processor that was lent.
fn borrowed(node: &Node, served: bool) -> Here {
    Here {
        ready: true,
        lent: Some(Lent { served }),
        may_lend: false,
        cpus: node.cpus,
        may_spin: false,
        due_in: None,
    }
}

impl Node {
    /// [`Executor::run_while`], as a thread that works for this node.
    fn work_while(
        &self,
        executor: &Executor,
        more: impl FnMut() -> bool,
        scan: impl FnMut(&Worker) -> bool,
    ) {
        Node::set_working(Some(self));
        executor.run_while(more, scan);
        Node::set_working(None);
        forget_urgent_calls(); // `leave` sees to these too
    }
}

/// Before a reserve worker sleeps: what is left is somebody else's from here on.
fn leave(node: &Arc<Node>, waits: impl Fn(&Arc<Binding>) -> bool) {
    spare::let_go();
    // Pairs with the fence of a thread that hands a message over: it sees the end free, or we flush.
    fence(Ordering::SeqCst);
    node.settle();
    node.ring_sleepers(waits);
    if let Some(executor) = node.executor()
        && executor.has_ready()
    {
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
            &executor,
            || !node.stopping.load(Ordering::Relaxed),
            |worker| {
                node.see_to_urgent_calls(worker, None, |_| false);
                bounds.tick(node, |_| false);
                node.scan_all()
            },
        );
        leave(node, |_| false);
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
            node.ring_sleepers(waits);
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
