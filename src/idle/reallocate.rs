//! Doing what the policy says: lend, ring, look again or rest (§3.1).
//!
//! Whoever asks has announced that this processor rests, or is about to run something else, and a fence
//! lies between that and the look at the peers. A policy may answer what it likes: what cannot be done
//! becomes a rest; each peer is rung once at most before there is a new look; and an idle processor neither
//! rests nor looks again before every peer that may sleep on messages of ours has been rung.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use urpc_donate::Outcome;
use urpc_donate::policy::{Action, Here, PeerView};
use urpc_executor::Worker;

use super::scan_one;
use crate::binding::Binding;
use crate::landing::Held;
use crate::limits;
use crate::node::Node;
use crate::note::note;
use crate::spare;
use crate::stats::add;
use crate::wire::Nanos;

/// Looks that take all of a full ring, and some more: no peer can keep a landing longer.
const LOOKS_AFTER_RETURN: usize = 2 * limits::RING_SLOTS as usize / limits::BATCH;

thread_local! {
    /// Peers whose calls must not wait for this worker to run out of tasks.
    static URGENT: Cell<Vec<Arc<Binding>>> = const { Cell::new(Vec::new()) };
    /// What was seen of the peers: kept, so that it is allocated once.
    static VIEWS: Cell<Vec<PeerView>> = const { Cell::new(Vec::new()) };
}

/// What is left to do after the policy was asked.
pub(super) enum Left {
    /// Something may have changed.
    Look,
    /// The processor was lent, and is back.
    Lent,
    /// Sleep, no longer than so.
    Rest(Option<Duration>),
}

/// This thread stops working for its node: what its calls are worth is decided by those who go on.
pub(crate) fn forget_urgent_calls() {
    drop(URGENT.take());
}

impl Node {
    /// Announced, and nothing to do here: lend the processor, or ring who needs it.
    pub(super) fn give_away(&self, worker: &Worker, ticket: u32) -> Left {
        let here = self.here(worker, None, false);
        self.reallocate(worker, None, ticket, here, &self.local_bindings())
    }

    /// Nothing to do on the processor that is `held` here: lend it onwards, or ring who needs one. True if there
    /// is something to do now.
    pub(crate) fn give_onwards(&self, worker: &Worker, held: &Held<'_>) -> bool {
        let peers = self.local_bindings();
        if peers.len() < 2 {
            return false; // there is nobody but its owner
        }
        let ticket = held.seat.ticket();
        if held.is_orphan() {
            return false; // and has been woken for it, before this ticket
        }
        spare::let_go();
        self.settle(&peers);
        if worker.executor().has_ready() {
            return true; // who waited for an id, say; nobody else was told
        }
        // Pairs with the fences of those who rest, as in `ring_sleepers`. That this landing rests itself is
        // announced to nobody: nobody counts on it.
        fence(Ordering::SeqCst);
        let here = self.here(worker, Some(held), false);
        let left = self.reallocate(worker, Some(held), ticket, here, &peers);
        matches!(left, Left::Lent)
    }

    /// What there is to be told of this processor, which is this worker's own or is `held`.
    fn here(&self, worker: &Worker, held: Option<&Held<'_>>, ready: bool) -> Here {
        let due_in = match held {
            None => self.next_event_in(worker),
            Some(held) => Some(held.stay_onwards()),
        };
        Here {
            ready,
            lent: held.map(Held::lent),
            may_lend: self.lends && (worker.id().is_some() || held.is_some()),
            cpus: self.cpus,
            may_spin: false,
            due_in,
        }
    }

    /// With tasks ready, the calls to these peers are urgent.
    fn reallocate(
        &self,
        worker: &Worker,
        held: Option<&Held<'_>>,
        ticket: u32,
        here: Here,
        peers: &[Arc<Binding>],
    ) -> Left {
        let mut views = VIEWS.take();
        let mut left = Left::Look;
        for _ in 0..=peers.len() {
            // For how long is a question only where there are several, or where one is awake; a pause may be a tick longer.
            let now = if peers.len() > 1 || peers.iter().any(|peer| peer.seen_presence().awake()) {
                Nanos::now()
            } else {
                Nanos::coarse()
            };
            let view = |peer: &Arc<Binding>| match held {
                // It gets its processor back.
                Some(held) if held.is_from(peer) => PeerView::default(),
                _ => PeerView {
                    urgent: here.ready,
                    ..peer.view(now)
                },
            };
            views.clear();
            views.extend(peers.iter().map(view));
            match self.config.policy.decide(&here, &views) {
                Action::Run | Action::Scan => break,
                Action::Ring(i) if views.get(i).is_some_and(|peer| peer.unread && !peer.rung) => {
                    peers[i].ring();
                }
                Action::Donate { to, ring }
                    if here.may_lend && views.get(to).is_some_and(|peer| peer.landing_free) =>
                {
                    if ring {
                        peers[to].ring();
                    }
                    if self.donate(worker, held, &peers[to], ticket, here.due_in) {
                        left = Left::Lent;
                        break;
                    }
                    if !peers[to].is_rung() {
                        peers[to].ring(); // its landing has just been taken
                    }
                }
                Action::Rest(limit) => {
                    left = Left::Rest(limit);
                    break;
                }
                // What cannot be done.
                Action::Ring(_) | Action::Donate { .. } | Action::Return => {
                    left = Left::Rest(here.due_in);
                    break;
                }
            }
        }
        if !here.ready {
            // Whoever was left out. The policy of the paper has left out none.
            for (peer, view) in peers.iter().zip(&views) {
                if view.needs_a_ring() {
                    peer.ring_if_needed();
                }
            }
        }
        VIEWS.set(views);
        left
    }

    /// Lends this worker's processor, or the one that is `held`, to `peer` until it comes back, or something is
    /// due here. False if no landing was free.
    fn donate(
        &self,
        worker: &Worker,
        held: Option<&Held<'_>>,
        peer: &Arc<Binding>,
        ticket: u32,
        due_in: Option<Duration>,
    ) -> bool {
        let id = worker.id();
        let seat = id.map(|id| &self.seats[id]);
        let (Some(seat), Some(k)) = (held.map(|held| held.seat).or(seat), peer.free_landing())
        else {
            return false;
        };
        let begun = Instant::now();
        let limit = self.config.grant_limit;
        let stay = due_in.map_or(limit, |due| due.min(limit));
        let cpu = urpc_donate::current_cpu();
        if self.parallel {
            // So that the kernel does not take this thread elsewhere when it wakes.
            Node::with_affinity(|affinity| affinity.bind(cpu));
        }
        // Whoever else sleeps on messages of ours must not have to wait until this processor is back.
        self.ring_sleepers(&self.local_bindings(), |other| {
            Arc::ptr_eq(other, peer) || held.is_some_and(|held| held.is_from(other))
        });
        let before = peer.begin_donation();
        let (lender, words) = peer.lender(k);
        if !peer.hand_over(id) {
            peer.take_back(id);
            return true; // it has just been closed: as if it were back already
        }
        worker.set_lent(true);
        if let Some(held) = held {
            held.begin_rest();
        }
        note!(let lent);
        let grant = lender.lend(words, cpu, stay);
        let counters = &peer.counters;
        let outcome = grant.map(|grant| {
            note!(Donate at lent, peer);
            add(&counters.crossings, 1);
            let grant = match held {
                None => grant,
                Some(held) => grant.under(held.grant),
            };
            lender.wait(grant, words, seat, ticket, begun + stay)
        });
        if let Some(held) = held {
            held.end_rest();
        }
        worker.set_lent(false);
        peer.take_back(id);
        let Some(outcome) = outcome else {
            return false;
        };
        // What is lent onwards has no timer of ours to be back for: it was wasted if it stayed for all its time.
        peer.end_donation(
            before,
            outcome,
            begun,
            if held.is_some() { stay } else { limit },
        );
        add(&counters.donations_given, 1);
        add(&counters.crossings, 1);
        add(&counters.system_calls, 2);
        match outcome {
            Outcome::Returned => {
                note!(Return, peer);
                add(&counters.donations_returned, 1);
            }
            Outcome::Woken | Outcome::Limit => {
                note!(Reclaim, peer);
                add(&counters.donations_reclaimed, 1);
                add(&counters.system_calls, 1);
            }
        }
        if held.is_some() {
            self.take_in_all(peer);
        }
        true
    }

    /// Takes all that a peer had sent when a landing got its processor back from it: landings look at their
    /// owners' channels only, and the peer has rung nobody for it.
    fn take_in_all(&self, peer: &Arc<Binding>) {
        // Pairs with the fence in the peer's `ring_sleepers`: either it sees that the grant is void, or we see its
        // replies.
        fence(Ordering::SeqCst);
        if (0..LOOKS_AFTER_RETURN).all(|_| scan_one(peer)) {
            self.look(); // what still comes is for others to see to
        }
    }

    /// Rings every peer that may sleep on something from us, except a donor that still `waits` for its
    /// processor: that gets it back instead.
    pub(crate) fn ring_sleepers(
        &self,
        peers: &[Arc<Binding>],
        waits: impl Fn(&Arc<Binding>) -> bool,
    ) {
        // Pairs with the fence in the peers' announcements of rest, and so with a donor that reclaims
        // its processor just now and then rests: either it sees our replies, or we see its grant void.
        fence(Ordering::SeqCst);
        for binding in peers {
            binding.tell_drained();
            if !waits(binding) {
                binding.ring_if_needed();
            }
        }
    }

    /// Has this worker give `peer` a processor as soon as its task pauses, although others may be ready
    /// (R24).
    pub(crate) fn urge(&self, peer: &Arc<Binding>) {
        let mut urgent = URGENT.take();
        if !urgent.iter().any(|other| Arc::ptr_eq(other, peer)) {
            urgent.push(Arc::clone(peer));
        }
        URGENT.set(urgent);
        urpc_executor::look_around_next();
    }

    /// Gives the peers of urgent calls what they need; the owner of a processor that is `held` gets that back
    /// instead.
    pub(crate) fn see_to_urgent_calls(&self, worker: &Worker, held: Option<&Held<'_>>) {
        let mut peers = URGENT.take();
        if peers.is_empty() {
            URGENT.set(peers);
            return;
        }
        let waits = |peer: &Arc<Binding>| held.is_some_and(|held| held.is_from(peer));
        peers.retain(|peer| !waits(peer) && !peer.is_closed());
        if let Some(id) = worker.id() {
            let ticket = self.seats[id].ticket();
            worker.announce_rest();
            self.presence().announce_rest();
            self.last_look();
            let here = self.here(worker, None, true);
            self.reallocate(worker, None, ticket, here, &peers);
            self.presence().retract_rest();
            worker.retract_rest();
        } else {
            let ticket = held.map_or(0, |held| held.seat.ticket());
            // Pairs as in `ring_sleepers`.
            fence(Ordering::SeqCst);
            let here = self.here(worker, held, true);
            self.reallocate(worker, held, ticket, here, &peers);
        }
        peers.clear();
        // Calls that were begun by that last look come with the next one.
        peers.append(&mut URGENT.take());
        URGENT.set(peers);
    }
}
