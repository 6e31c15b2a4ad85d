//! One bound peer: its channel, who it is, the calls in both directions, and how it ends.
//!
//! A binding is made by a handshake (`bind.rs`), kept in its node's list while it is open, and closed
//! once, for a reason that every later call is told. What a peer does wrong ends here: its channel is
//! closed, nothing else.

mod bulk;
mod lending;
mod receive;

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use event_listener::Event;
use rustix::net::{SendFlags, Shutdown, shutdown};
use urpc_channel::{Channel, Message, PeerPage, WakePage, Why};
use urpc_donate::{Backoff, Lender, Patience, PeerProcess, Seat, Streak, Wake};

use crate::bind::{Greeting, foreign};
use crate::error::{CallError, CallErrorKind, Error, ErrorKind, Executed, Result};
use crate::limits;
use crate::node::{Node, lock};
use crate::offered::Offered;
use crate::pending::Pending;
use crate::quota::Holding;
use crate::service::Offer;
use crate::serving::Serving;
use crate::spare;
use crate::stats::{Counters, Stats};
use crate::wire::Nanos;

use bulk::Bulk;
pub(crate) use receive::Scratch;

/// No ring has been given: a peer does not come so far.
const NEVER_RUNG: u64 = u64::MAX;

/// What both sides agreed on at binding: of each limit, the smaller one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Agreed {
    pub(crate) calls: u32,
    pub(crate) max_payload: u32,
}

/// What a binding is made of.
pub(crate) struct Parts {
    pub(crate) node: Arc<Node>,
    pub(crate) name: String,
    pub(crate) channel: Channel,
    pub(crate) page: PeerPage,
    pub(crate) wakes: WakePage,
    pub(crate) process: PeerProcess,
    pub(crate) socket: Arc<OwnedFd>,
    pub(crate) limits: Agreed,
    /// What we hold for the peer.
    pub(crate) holding: Holding,
    /// What we offer.
    pub(crate) offer: Offer,
    /// What the peer offers.
    pub(crate) offered: Offered,
    /// How many processors the peer can lend us at once.
    pub(crate) landings: u32,
    /// Says whether the server that accepted this binding takes calls.
    pub(crate) draining: Arc<AtomicBool>,
}

/// See the [module's documentation](self).
pub(crate) struct Binding {
    pub(crate) node: Arc<Node>,
    pub(crate) name: String,
    pub(crate) channel: Channel,
    page: PeerPage,
    wakes: WakePage,
    pub(crate) process: PeerProcess,
    pub(crate) socket: Arc<OwnedFd>,
    pub(crate) limits: Agreed,
    pub(crate) holding: Holding,
    offer: Offer,
    pub(crate) offered: Offered,
    pub(crate) draining: Arc<AtomicBool>,
    pub(crate) pending: Pending,
    /// How many spares of this channel a thread may keep.
    pub(crate) spares: usize,
    pub(crate) serving: Serving,
    /// For the processors we lend to the peer.
    lenders: [Lender; limits::LANDINGS as usize],
    /// For the processors the peer lends to us.
    pub(crate) landings: Box<[Seat]>,
    /// Our processors that are lent to the peer right now, as a mask; and how many more are lent to it onwards.
    donors: AtomicU64,
    onwards: AtomicU32,
    /// Donations in a row without one of the peer's own processors having been seen awake. Its clock began at `made`.
    streak: Streak,
    made: Instant,
    /// How far the peer had come when it was last rung. While it is still there, once is enough.
    rung_at: AtomicU64,
    /// Whether it rings for nothing, and what had been moved when it was last heard.
    heard: Mutex<(Patience, u64)>,
    /// What processors lent to the peer were worth.
    backoff: Backoff,
    /// Something has come in since the last processor was lent.
    answered_since: AtomicBool,
    /// How far the peer had come when a look found unread messages, and when one first found it there.
    unserved_at: AtomicU64,
    unserved_since: AtomicU64,
    bulk: Bulk,
    /// The peer said that it takes no more calls.
    leaving: AtomicBool,
    /// Key in the node's list, once it is there.
    pub(crate) key: AtomicU64,
    closed: OnceLock<String>,
    /// This side has said its hello, as the one that accepts. Descriptors may be on their way.
    greeted: AtomicBool,
    pub(crate) ended: Event,
    /// While draining: a call of the peer was answered.
    answered: Event,
    pub(crate) counters: Counters,
}

impl fmt::Debug for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Binding")
            .field("name", &self.name)
            .field("closed", &self.closed.get())
            .finish_non_exhaustive()
    }
}

impl Binding {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self {
            pending: Pending::new(parts.limits.calls),
            spares: spare::limit(parts.limits.calls, parts.node.config.processors),
            serving: Serving::new(parts.limits.calls),
            lenders: std::array::from_fn(|_| Lender::new()),
            landings: (0..parts.landings).map(|_| Seat::new()).collect(),
            node: parts.node,
            name: parts.name,
            channel: parts.channel,
            page: parts.page,
            wakes: parts.wakes,
            process: parts.process,
            socket: parts.socket,
            limits: parts.limits,
            holding: parts.holding,
            offer: parts.offer,
            offered: parts.offered,
            draining: parts.draining,
            donors: AtomicU64::new(0),
            onwards: AtomicU32::new(0),
            streak: Streak::new(),
            made: Instant::now(),
            rung_at: AtomicU64::new(NEVER_RUNG),
            heard: Mutex::default(),
            backoff: Backoff::new(),
            answered_since: AtomicBool::new(false),
            unserved_at: AtomicU64::new(u64::MAX),
            unserved_since: AtomicU64::new(0),
            bulk: Bulk::default(),
            leaving: AtomicBool::new(false),
            key: AtomicU64::new(u64::MAX),
            closed: OnceLock::new(),
            greeted: AtomicBool::new(false),
            ended: Event::new(),
            answered: Event::new(),
            counters: Counters::default(),
        })
    }

    // Sending.

    /// Sends a message whose room is reserved. One that cannot be sent any more is dropped: its call
    /// fails with the channel.
    pub(crate) fn send(&self, message: Message) {
        let _ = self.channel.send(message);
    }

    /// Reserves room in the byte window, if any is needed.
    #[inline]
    pub(crate) fn try_reserve(&self, bytes: usize) -> bool {
        bytes == 0 || self.try_reserve_some(bytes)
    }

    fn try_reserve_some(&self, bytes: usize) -> bool {
        self.note_crossing(bytes);
        matches!(self.channel.try_reserve(bytes), Ok(true))
    }

    /// Tells the peer that the caller of `id` is gone.
    pub(crate) fn withdraw(self: &Arc<Self>, id: u32) {
        self.channel.withdraw(id);
        if self.node.works_here() {
            return; // the next scan flushes
        }
        self.flush();
        self.sent_from_outside();
    }

    /// What a thread does that sent something and will not scan: nobody idles here who would ring.
    pub(crate) fn sent_from_outside(self: &Arc<Self>) {
        // Pairs with the fence in `Presence::announce_rest` of the peer: either we see it resting, or
        // it sees the message.
        fence(Ordering::SeqCst);
        if self.channel.staged() && !self.flush() {
            // Full, or held by somebody: a worker sees to it, and to what it has to wait for.
            self.node.look();
        }
        if self.wants_attention() && self.presence().may_sleep() {
            self.ring();
        }
    }

    /// When a call that begins now ends by default.
    pub(crate) fn default_deadline(&self) -> Nanos {
        Nanos::coarse().after(self.node.config.call_deadline)
    }

    /// When call `id` of the caller's ends. One that has had no deadline so far gets the default one.
    #[cold]
    pub(crate) fn deadline(&self, id: u32) -> Nanos {
        let mut deadline = self.pending.deadline(id);
        if deadline == Nanos::NEVER {
            deadline = self.default_deadline();
            self.pending.set_deadline(id, deadline);
            if !self.node.works_here() {
                self.node.deadline_set();
            }
        }
        deadline
    }

    // The end.

    /// Why new calls cannot be made, if they cannot.
    #[inline]
    pub(crate) fn refusal(&self) -> Option<CallError> {
        if self.closed.get().is_none() && !self.leaving.load(Ordering::Acquire) {
            return None;
        }
        Some(self.refuse())
    }

    #[cold]
    fn refuse(&self) -> CallError {
        if let Some(why) = self.closed.get() {
            return closed(why, Executed::No);
        }
        CallError::new(
            CallErrorKind::ShuttingDown,
            Executed::No,
            "the server is shutting down and takes no more calls",
        )
    }

    /// Why a message could not be sent.
    pub(crate) fn not_sent(&self, why: &Why) -> CallError {
        if *why == Why::Forked || self.node.birthmark.forked() {
            return CallError::forked();
        }
        let why = self
            .closed
            .get()
            .map_or("the channel is closed", String::as_str);
        closed(why, Executed::No)
    }

    /// Says this side's hello.
    pub(crate) fn greet(&self, greeting: &Greeting) -> Result<()> {
        // So that nobody reads from the socket meanwhile.
        let _one = lock(&self.heard);
        if let Some(why) = self.closed.get() {
            return Err(Error::new(ErrorKind::Shutdown, why));
        }
        self.greeted.store(true, Ordering::Relaxed);
        greeting.send(&self.node, None, &self.socket, SendFlags::DONTWAIT)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.get().is_some()
    }

    /// Closes the channel: every call that waits fails, every handler's task is dropped. The first
    /// reason counts.
    pub(crate) fn close(self: &Arc<Self>, why: &str) {
        // What a forked child inherits is its parent's: the epolls, for one.
        if self.node.birthmark.forked() || self.closed.set(why.into()).is_err() {
            return;
        }
        self.channel.close();
        self.node.remove(self);
        self.serving.abort_all();
        self.fail_pending();
        self.wake_landings();
        // Pairs with the fence in `hand_over`. A donor without a call that waits is woken by nothing else.
        fence(Ordering::SeqCst);
        self.call_back();
        if self.onwards.load(Ordering::Relaxed) > 0 {
            // Which of all landings it is need not be known: the others go back to sleep.
            self.node.bindings().iter().for_each(|b| b.wake_landings());
        }
        // The peer is told now, not when the last thread of ours lets go of this.
        let _ = shutdown(&self.socket, Shutdown::Both);
        // Nobody looks at the bell any more: who does now is waited for, the next one sees that it is closed.
        drop(lock(&self.heard));
        foreign::leave(Arc::clone(&self.socket));
        // Nothing more is sent from here on. Who closes it before it is watched, and so not greeted, leaves nothing in the
        // keeper's epoll: `Node::add` still adds the socket there, and takes it out again.
        if let Some(place) = self.holding.close()
            && self.greeted.load(Ordering::Relaxed)
        {
            self.node.keeper.until_read(&self.socket, place);
        }
        self.ended.notify(usize::MAX);
    }

    fn wake_landings(&self) {
        for (k, seat) in self.landings.iter().enumerate() {
            if let Wake::Nudge(_) = seat.wake() {
                self.landing_words(k).grant.nudge();
            }
        }
    }

    /// Wakes the workers of our processors that are lent to the peer: their seats first, so that who is nudged sees it.
    fn call_back(&self) {
        let donors = self.donors.load(Ordering::Relaxed);
        if donors != 0 {
            self.node.call_back(donors);
            (0..self.lenders.len()).for_each(|k| self.lender(k).1.returned.nudge());
        }
    }

    /// The peer is gone: what it had sent before still counts.
    pub(crate) fn hang_up(self: &Arc<Self>) {
        self.receive_replies();
        self.close(if self.leaving.load(Ordering::Acquire) {
            "it was shut down"
        } else {
            "its process has ended or closed the channel"
        });
    }

    /// Waits until every call of the peer has its answer in the ring, or until `until`. Returns how many
    /// have not.
    pub(crate) async fn drained(self: &Arc<Self>, until: Instant) -> u64 {
        loop {
            let answered = self.answered.listen();
            fence(Ordering::SeqCst);
            let live = self.live();
            if self.is_closed() || live == 0 && (!self.channel.staged() || self.flush()) {
                return 0;
            }
            let Some(executor) = self.node.executor() else {
                return live;
            };
            // An answer that is staged moves on when the peer reads, of which nobody tells us here.
            let tick = Instant::now() + Duration::from_millis(1);
            let at = if live == 0 { tick.min(until) } else { until };
            let _ = urpc_executor::timeout_at(&executor, at, answered).await;
            if Instant::now() >= until {
                return self.live();
            }
        }
    }

    /// A call of the peer has its answer. Whoever waits for that is told by
    /// [`tell_drained`](Self::tell_drained).
    #[inline]
    pub(crate) fn end_call(&self, id: u32) {
        if let Some(bytes) = self.serving.end(id) {
            self.holding.give(bytes.into());
        }
    }

    /// Calls of the peer that have no answer yet.
    #[inline]
    pub(crate) fn live(&self) -> u64 {
        self.serving.count().saturating_sub(self.channel.answers())
    }

    /// Has those that wait for the peer's last call look again. For whoever has answered, after a fence, which
    /// pairs with the one in [`drained`](Self::drained): either that sees the call ended, or we see it drain.
    pub(crate) fn tell_drained(&self) {
        if self.draining.load(Ordering::Relaxed) {
            self.answered.notify(usize::MAX);
        }
    }

    /// Fails the calls that wait. Again, a little later, for one that was begun meanwhile.
    pub(crate) fn fail_pending(&self) {
        let why = self.closed.get().map_or("", String::as_str);
        self.pending.tidy();
        self.pending.fail_all(|| closed(why, Executed::Maybe));
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats {
            calls: self.pending.count(),
            served: self.serving.count(),
            ..self.counters.read()
        }
    }
}

fn closed(why: &str, executed: Executed) -> CallError {
    CallError::new(CallErrorKind::Closed, executed, why)
}
