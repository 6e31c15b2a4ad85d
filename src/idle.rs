//! What a worker does when no task is ready: scan, spin, donate, ring, rest (§3.1 at work).
//!
//! Sending takes no fence and no system call. Whether a peer sleeps is asked here, by who runs out of
//! work (R18). An idle worker scans through its spin budget first; before it lends its processor or
//! sleeps it announces that it rests, fences, and looks at everything once more. The peer does the
//! mirror image: *either it sees us resting, or we see its message.*

mod reallocate;
mod round;
mod spin;

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::task::Waker;
use std::time::{Duration, Instant};

use urpc_channel::Glance;
use urpc_donate::Wake;
use urpc_executor::{Idle, Worker};

use crate::binding::Binding;
use crate::node::Node;
use crate::note::note;
use crate::spare;
use crate::stats::add;
use crate::wire::Nanos;
use crate::woken;
use reallocate::Left;
pub(crate) use reallocate::forget_urgent_calls;
pub(crate) use round::{FEW, LOOKS_PER_SILENT, Round};
pub(crate) use spin::LOOKS_PER_PAUSE;
use spin::{News, Spun};

impl Idle for Node {
    fn scan(&self, worker: &Worker, busy: bool) -> bool {
        let found = self.scan();
        if busy {
            self.see_to_urgent_calls(worker, None);
            spare::let_go_if_in_the_way();
            if self.local_bindings().is_empty() {
                return found;
            }
            // A busy worker may not come to rest for long: who sleeps on our messages is rung now.
            self.tick();
            // Pairs as in `ring_sleepers`.
            fence(Ordering::SeqCst);
            let now = Nanos::now();
            for binding in self.lively().iter() {
                binding.tell_drained();
                binding.ring_if_stuck(now);
            }
        }
        found
    }

    fn rest(&self, worker: &Worker) {
        let Spun::Tired(since) = self.spin(worker) else {
            return;
        };
        let Some(seat) = worker.id().map(|id| &self.seats[id]) else {
            return;
        };
        let tired = Instant::now();
        let since = since.unwrap_or(tired);
        spare::let_go_if_in_the_way();
        let ticket = seat.ticket();
        worker.announce_rest();
        self.presence().announce_rest();
        let found = self.last_look() || worker.has_work();
        spin::note_cost(tired.elapsed());
        if found {
            self.note_wait(since.elapsed());
        } else {
            add(&self.counters.rests, 1);
            if let Left::Rest(limit) = self.give_away(worker, ticket)
                // What is let go of may wake somebody: then there is a new look.
                && !spare::let_go()
            {
                self.sleep(worker, ticket, limit);
                let waited = since.elapsed();
                // Else nothing has ended it yet.
                if limit.is_none_or(|limit| waited < limit) {
                    self.note_wait(waited);
                }
            }
        }
        self.presence().retract_rest();
        worker.retract_rest();
    }

    fn linger(&self, worker: &Worker, waker: &Waker) -> bool {
        self.linger_for_call(worker, waker)
    }

    fn wake(&self, id: usize) {
        match self.seats[id].wake() {
            Wake::Done => {}
            Wake::RingBell => self.bell.ring(),
            Wake::Nudge(name) => self.nudge_donor(name),
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

    fn begin(&self) {
        self.settle_in();
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
        // The thread may be the application's; and the next worker's may be started from here.
        Node::with_affinity(|affinity| affinity.let_go());
        Node::set_working(None);
        Node::set_current(None);
        Node::forget_bindings();
        reallocate::forget_urgent_calls();
        woken::let_go();
    }
}

impl Node {
    /// Looks at the lively channels, and at some of the others, and takes what is there.
    pub(crate) fn scan(&self) -> bool {
        let mut found = false;
        for binding in self.lively().iter() {
            found |= scan_one(binding);
        }
        found | self.is_crowded() && self.scan_silent_sometimes()
    }

    /// If the clock has ticked since this thread asked last: wakes callers whose deadline has passed, and sees to what
    /// else is to be done at channels of which nothing comes in.
    fn tick(&self) {
        thread_local! {
            static LAST: Cell<Nanos> = const { Cell::new(Nanos::NEVER) };
        }
        let now = Nanos::coarse();
        if LAST.replace(now) != now {
            self.tend_some(now);
            // Done before each rest; but there are processors that never rest.
            for binding in self.lively().iter() {
                binding.channel.freed(binding.pending.tidy());
            }
        }
    }

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
        let bindings = self.local_bindings();
        self.settle(&bindings);
        // What another thread is just receiving, perhaps a landing that has to leave before it has taken all: the
        // peer has rung for that, and only once.
        self.scan_all() || bindings.iter().any(|b| b.channel.has_incoming())
    }

    /// Publishes what can be published, and tells the peers where we wait for them. Afterwards, and
    /// after a fence, whoever left something here finds it done, or sees to it itself.
    pub(crate) fn settle(&self, bindings: &[Arc<Binding>]) {
        let mut blocked = false;
        for binding in bindings.iter() {
            binding.tell_drained();
            binding.holding.spare_nothing();
            binding.channel.freed(binding.pending.tidy());
            binding.pending.wake_waiters();
            binding.flush();
            blocked |= binding.channel.announce_blocked();
        }
        if !blocked {
            return;
        }
        // Pairs with the fence before the peers' `peer_blocked`: either they see that we wait, or we
        // see the room.
        fence(Ordering::SeqCst);
        for binding in bindings.iter() {
            binding.flush();
            binding.channel.refresh_window();
        }
    }

    /// Wakes the workers of these processors: the peer to which they are lent is gone.
    pub(crate) fn call_back(&self, mut donors: u64) {
        while donors != 0 {
            self.wake(donors.trailing_zeros() as usize);
            donors &= donors - 1;
        }
    }

    /// Sleeps at the bell, or, if somebody sits there, on the worker's own word: until there is something to
    /// do, and no longer than `limit`.
    fn sleep(&self, worker: &Worker, ticket: u32, limit: Option<Duration>) {
        let Some(seat) = worker.id().map(|id| &self.seats[id]) else {
            return;
        };
        let moves = self.parallel && self.config.pin.is_empty();
        if moves {
            Node::with_affinity(|affinity| affinity.let_go());
        }
        let limits = [self.next_event_in(worker), limit];
        let limit = limits.into_iter().flatten().min();
        let until = limit.and_then(|limit| Instant::now().checked_add(limit));
        Node::forget_list();
        note!(Rest);
        add(&self.counters.system_calls, 1);
        let mut rung = false;
        match self.bell.sit() {
            Some(sitting) => {
                add(&self.counters.system_calls, 2);
                if seat.sit_at_bell(ticket) {
                    sitting.sleep(until, |key| {
                        rung = true;
                        spin::note(News::Rang);
                        self.answer(key);
                        self.step_aside(key);
                    });
                }
                seat.stand_up();
            }
            None => {
                seat.sleep(ticket, until);
            }
        }
        note!(Wake);
        if moves && !rung {
            // A caller that lends its processor does so after each pause.
            Node::with_affinity(|affinity| affinity.bind_again(urpc_donate::current_cpu()));
        }
        if seat.ticket() != ticket {
            spin::note(News::Came);
        }
        // By the clock that it slept by: by a coarser one, what it was to see to would not be due yet, and it would rest
        // and rest for no time at all until that clock ticks.
        self.expire(Nanos::now());
    }

    /// In how much time this worker has to look at a clock again.
    fn next_event_in(&self, worker: &Worker) -> Option<Duration> {
        let timer = worker.executor().timers().next();
        let timer = timer.map(|at| at.saturating_duration_since(Instant::now()));
        let deadline = self.next_deadline();
        let deadline = (deadline != Nanos::NEVER).then(|| deadline.since(Nanos::now()));
        [timer, deadline].into_iter().flatten().min()
    }

    /// The kernel likes to wake a thread where its waker runs. If that peer lends its processor to us again and
    /// again, it needs its CPU, and this worker is rung so that there are two: it runs elsewhere until it
    /// sleeps.
    fn step_aside(&self, key: u64) {
        let cpu = urpc_donate::current_cpu();
        if self.parallel
            && self.config.pin.is_empty()
            && self.binding(key).is_some_and(|peer| peer.has_lent_cpu(cpu))
        {
            Node::with_affinity(|affinity| affinity.avoid(cpu));
        }
    }

    /// A peer rang, or hung up.
    pub(crate) fn answer(&self, key: u64) {
        let Some(binding) = self.binding(key) else {
            return;
        };
        if !binding.answer_bell() {
            return binding.hang_up();
        }
        if let Some(until) = binding.has_enough_rings() {
            self.bell.listen(&binding.socket, key, false);
            self.keeper.listen_again(key, until);
        }
    }
}

/// Something has come in for this thread.
#[inline]
pub(crate) fn came() {
    spin::note(News::Came);
}

/// One look at one channel. Nothing is written where nothing has come in.
#[inline]
pub(crate) fn scan_one(binding: &Arc<Binding>) -> bool {
    let glance = binding.channel.glance();
    glance != Glance::default() && see_to(binding, glance)
}

/// Does what a look at a channel has shown. True if something came in, or a large message got further: more of it is
/// about to.
#[inline(never)]
fn see_to(binding: &Arc<Binding>, glance: Glance) -> bool {
    let channel = &binding.channel;
    let mut moved = false;
    if glance.chores {
        let published = channel.published();
        binding.flush();
        channel.refresh_window();
        moved = channel.published() != published;
    }
    if glance.incoming {
        note!(Scan, binding);
        let taken = channel.taken();
        let received = Node::with_scratch(|scratch| binding.receive(scratch));
        if received || channel.taken() != taken {
            moved = true;
            binding.note_answers();
        }
    }
    if moved {
        spin::note(News::Came);
    }
    moved
}
