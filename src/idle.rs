//! What a worker does when no task is ready: scan, spin, donate, ring, rest (§3.1 at work).
//!
//! Sending takes no fence and no system call. Whether a peer sleeps is asked here, by who runs out of
//! work (R18). An idle worker scans through its spin budget first; before it lends its processor or
//! sleeps it announces that it rests, fences, and looks at everything once more. The peer does the
//! mirror image: *either it sees us resting, or we see its message.*

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use urpc_channel::Glance;
use urpc_donate::policy::{self, Action, Here};
use urpc_donate::{Outcome, Wake};
use urpc_executor::{Idle, Worker};

use crate::binding::Binding;
use crate::node::Node;
use crate::note::note;
use crate::peer::Peer;
use crate::stats::add;
use crate::wire::Nanos;

thread_local! {
    /// A call that must not wait for this worker to run out of tasks.
    static URGENT: RefCell<Option<Arc<Binding>>> = const { RefCell::new(None) };
}

/// Looks at the rings between two looks at the clock: some 64 × 10 ns.
const LOOKS_PER_CLOCK: u32 = 64;

impl Idle for Node {
    fn scan(&self, worker: &Worker, busy: bool) -> bool {
        let found = self.scan_all();
        if busy {
            if let Some(peer) = URGENT.take() {
                self.lend_at_once(worker, &peer);
            }
            Peer::let_go_of_spare(false);
            // A busy worker may not come to rest for long: who sleeps on our messages is rung now.
            self.expire(Nanos::coarse());
            // Pairs as in `ring_sleepers`.
            fence(Ordering::SeqCst);
            for binding in self.local_bindings().iter() {
                binding.tell_drained();
                binding.ring_if_stuck();
            }
        }
        found
    }

    fn rest(&self, worker: &Worker) {
        if self.spin(worker) {
            return;
        }
        let Some(seat) = worker.id().map(|id| &self.seats[id]) else {
            return;
        };
        Peer::let_go_of_spare(true);
        let ticket = seat.ticket();
        worker.announce_rest();
        self.presence().announce_rest();
        if !self.last_look() && !worker.has_work() {
            add(&self.counters.rests, 1);
            self.give_away(worker, ticket);
        }
        self.presence().retract_rest();
        worker.retract_rest();
    }

    fn wake(&self, id: usize) {
        if self.seats[id].wake() == Wake::RingBell {
            self.bell.ring();
        }
        add(&self.counters.system_calls, 1);
    }

    fn unattended(&self) {
        let _ = self.stand_in.wake();
        let timers = |executor: urpc_executor::Executor| executor.timers().next().is_some();
        if self.executor().is_some_and(timers) {
            self.keeper.poke();
        }
    }

    fn held(&self, _free: usize) {
        self.announce_unheld();
    }

    fn arrive(&self, worker: &Worker) {
        Node::set_current(self.me());
        Node::set_working(Some(self));
        note!(on of(worker.id()));
        if let (Some(id), false) = (worker.id(), self.config.pin.is_empty()) {
            let cpu = self.config.pin[id % self.config.pin.len()];
            Node::with_affinity(|affinity| affinity.bind(cpu));
        }
    }

    fn leave(&self, _worker: &Worker) {
        note!(on Outside);
        if !self.config.pin.is_empty() {
            Node::with_affinity(|affinity| affinity.let_go());
        }
        Node::set_working(None);
        Node::set_current(None);
        Node::forget_bindings();
    }
}

impl Node {
    /// Looks at every channel, and takes what is there.
    pub(crate) fn scan_all(&self) -> bool {
        let mut found = false;
        for binding in self.local_bindings().iter() {
            found |= scan_one(binding);
        }
        found
    }

    /// The look after the announcement and its fence: now every shortcut of the warm path is made up
    /// for. True if there is work after all.
    pub(crate) fn last_look(&self) -> bool {
        self.settle();
        self.scan_all()
    }

    /// Publishes what can be published, and tells the peers where we wait for them. Afterwards, and
    /// after a fence, whoever left something here finds it done, or sees to it itself.
    pub(crate) fn settle(&self) {
        let bindings = self.local_bindings();
        let mut blocked = false;
        for binding in bindings.iter() {
            binding.tell_drained();
            binding.pending.tidy();
            binding.pending.wake_waiters();
            binding.channel.flush();
            blocked |= binding.channel.announce_blocked();
        }
        if !blocked {
            return;
        }
        // Pairs with the fence before the peers' `peer_blocked`: either they see that we wait, or we
        // see the room.
        fence(Ordering::SeqCst);
        for binding in bindings.iter() {
            binding.channel.flush();
            binding.channel.refresh_window();
        }
    }

    /// Scans for as long as it pays. True if there is something to do.
    fn spin(&self, worker: &Worker) -> bool {
        let budget = self.config.spin;
        if budget.is_zero() || !self.parallel {
            return false;
        }
        let bindings = self.local_bindings();
        if bindings.is_empty() && budget != Duration::MAX {
            return false;
        }
        let tireless = budget == Duration::MAX;
        if self.must_act(&bindings, tireless) {
            return false;
        }
        let mut until = None;
        let mut looks = 0;
        let quiet = |b: &Arc<Binding>| b.channel.glance() == Glance::default();
        loop {
            // No more than a look at each ring: a message waits half a round of this loop.
            if !bindings.iter().all(quiet) && self.scan_all() || worker.has_work() {
                return true;
            }
            looks += 1;
            if looks % LOOKS_PER_CLOCK == 0 {
                // Everything else that a scan sees to; and a binding may be new, or gone.
                if self.scan_all() || !Rc::ptr_eq(&bindings, &self.local_bindings()) {
                    return true;
                }
                let now = Instant::now();
                if worker
                    .executor()
                    .timers()
                    .next()
                    .is_some_and(|at| at <= now)
                {
                    return true; // the worker fires it
                }
                self.expire(Nanos::coarse());
                bindings.iter().for_each(|b| b.tell_drained());
                Peer::let_go_of_spare(false);
                if self.must_act(&bindings, tireless) {
                    return false;
                }
                let until = *until.get_or_insert_with(|| now.checked_add(budget));
                if until.is_some_and(|until| until <= now) {
                    return false;
                }
            }
            std::hint::spin_loop();
        }
    }

    /// Some peer has messages and no processor awake: waiting for it is in vain.
    fn must_act(&self, bindings: &[Arc<Binding>], tireless: bool) -> bool {
        // The presence first: its line is shared and quiet, the other is written with every message.
        // A donor of ours is no such peer: its processor is about to come back to it.
        let view =
            |b: &Arc<Binding>| !b.presence().awake() && b.wants_attention() && !b.lends_to_us();
        if !bindings.iter().any(view) {
            return false;
        }
        if tireless {
            // This one never rests, so it rings from here.
            self.ring_sleepers(|_| false);
            return bindings
                .iter()
                .any(|b| b.presence().processors == 0 && view(b));
        }
        true
    }

    /// Announced, and nothing to do here: lend the processor, or ring who needs it, or sleep.
    fn give_away(&self, worker: &Worker, ticket: u32) {
        let bindings = self.local_bindings();
        let here = Here {
            may_lend: self.lends,
            parallel: self.parallel,
            may_spin: false,
        };
        loop {
            let views = bindings.iter().map(|binding| (binding, binding.view()));
            match policy::decide(here, views) {
                Action::Donate { to, ring } => {
                    if ring {
                        to.ring();
                    }
                    if self.donate(worker, to, ticket) {
                        return;
                    }
                    to.ring(); // its landing has just been taken
                }
                Action::Ring(peer) => peer.ring(),
                Action::Scan => return,
                Action::Rest => break,
            }
        }
        self.sleep(worker, ticket);
    }

    /// Lends this worker's processor to `peer` until it comes back. False if no landing was free.
    fn donate(&self, worker: &Worker, peer: &Arc<Binding>, ticket: u32) -> bool {
        let (Some(id), Some(k)) = (worker.id(), peer.free_landing()) else {
            return false;
        };
        let seat = &self.seats[id];
        let limit = self.config.grant_limit;
        let mut until = Instant::now() + limit;
        until = self.next_event(worker).map_or(until, |at| at.min(until));
        let cpu = urpc_donate::current_cpu();
        if self.parallel {
            // So that the kernel does not take this thread elsewhere when it wakes.
            Node::with_affinity(|affinity| affinity.bind(cpu));
        }
        // Whoever else sleeps on messages of ours must not have to wait until this processor is back.
        self.ring_sleepers(|other| Arc::ptr_eq(other, peer));
        let progress = peer.channel.peer_progress();
        let (lender, words) = peer.lender(k);
        let returned = peer.channel.inbox().returned(k);
        if !peer.hand_over(id) {
            peer.take_back(id);
            return true; // it has just been closed: as if it were back already
        }
        worker.set_lent(true);
        note!(let lent);
        let grant = lender.lend(words, returned, cpu, limit);
        let outcome = grant.map(|grant| {
            peer.count_donation();
            note!(Donate at lent, peer);
            lender.wait(grant, words, returned, seat, ticket, until)
        });
        worker.set_lent(false);
        peer.take_back(id);
        let Some(outcome) = outcome else {
            return false;
        };
        let counters = &peer.counters;
        add(&counters.donations_given, 1);
        add(&counters.crossings, 2);
        add(&counters.system_calls, 2);
        match outcome {
            Outcome::Returned => {
                note!(Return, peer);
                peer.count_wasted(progress);
                add(&counters.donations_returned, 1);
            }
            Outcome::Woken | Outcome::Limit => {
                note!(Reclaim, peer);
                add(&counters.donations_reclaimed, 1);
            }
        }
        true
    }

    /// Wakes the workers of these processors: the peer to which they are lent is gone.
    pub(crate) fn call_back(&self, mut donors: u64) {
        while donors != 0 {
            self.wake(donors.trailing_zeros() as usize);
            donors &= donors - 1;
        }
    }

    /// Sleeps at the bell, or, if somebody sits there, on the worker's own word.
    fn sleep(&self, worker: &Worker, ticket: u32) {
        let Some(seat) = worker.id().map(|id| &self.seats[id]) else {
            return;
        };
        if self.parallel && self.config.pin.is_empty() {
            Node::with_affinity(|affinity| affinity.let_go());
        }
        let until = self.next_event(worker);
        note!(Rest);
        add(&self.counters.system_calls, 1);
        match self.bell.sit() {
            Some(sitting) => {
                add(&self.counters.system_calls, 2);
                if seat.sit_at_bell(ticket) {
                    sitting.sleep(until, |key| self.answer(key));
                }
                seat.stand_up();
            }
            None => {
                seat.sleep(ticket, until);
            }
        }
        note!(Wake);
        self.expire(Nanos::coarse());
    }

    /// When this worker has to look at a clock again.
    fn next_event(&self, worker: &Worker) -> Option<Instant> {
        let timer = worker.executor().timers().next();
        let deadline = self.next_deadline().to_instant();
        match (timer, deadline) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// A peer rang, or hung up.
    pub(crate) fn answer(&self, key: u64) {
        if let Some(binding) = self.binding(key)
            && !binding.answer_bell()
        {
            binding.hang_up();
        }
    }

    /// Rings every peer that may sleep on something from us, except a donor that still `waits` for its
    /// processor: that gets it back instead.
    pub(crate) fn ring_sleepers(&self, waits: impl Fn(&Arc<Binding>) -> bool) {
        // Pairs with the fence in the peers' announcements of rest, and so with a donor that reclaims
        // its processor just now and then rests: either it sees our replies, or we see its grant void.
        fence(Ordering::SeqCst);
        for binding in self.local_bindings().iter() {
            binding.tell_drained();
            if waits(binding) {
                continue;
            }
            let view = binding.view();
            if view.unread && view.presence.may_sleep() && !view.rung {
                binding.ring();
            }
        }
    }

    /// Has this worker give `peer` a processor as soon as its task pauses, although others may be ready
    /// (R24).
    pub(crate) fn urge(&self, peer: &Arc<Binding>) {
        URGENT.set(Some(Arc::clone(peer)));
        urpc_executor::look_around_next();
    }

    fn lend_at_once(&self, worker: &Worker, peer: &Arc<Binding>) {
        let Some(seat) = worker.id().map(|id| &self.seats[id]) else {
            peer.ring(); // a borrowed processor is not ours to lend
            return;
        };
        let ticket = seat.ticket();
        worker.announce_rest();
        self.presence().announce_rest();
        let view = peer.view();
        let lent = || self.lends && self.donate(worker, peer, ticket);
        if view.unread && !view.presence.awake() && !lent() {
            peer.ring();
        }
        self.presence().retract_rest();
        worker.retract_rest();
    }
}

/// One look at one channel. Nothing is written where nothing has come in.
#[inline]
pub(crate) fn scan_one(binding: &Arc<Binding>) -> bool {
    let glance = binding.channel.glance();
    if glance.chores {
        binding.channel.flush();
        binding.channel.refresh_window();
    }
    if !glance.incoming {
        return false;
    }
    note!(Scan, binding);
    Node::with_scratch(|scratch| binding.receive(scratch))
}
