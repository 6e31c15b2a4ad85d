//! One bound peer: its channel, who it is, the calls in both directions, and how it ends.
//!
//! A binding is made by a handshake (`bind.rs`), kept in its node's list while it is open, and closed
//! once, for a reason that every later call is told. What a peer does wrong ends here: its channel is
//! closed, nothing else.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::{Duration, Instant};

use event_listener::Event;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};
use urpc_channel::{Channel, Kind, Message, PeerPage, Why};
use urpc_donate::policy::PeerView;
use urpc_donate::{GrantWords, Lender, PeerProcess, Presence, Seat, View};

use crate::error::{CallError, CallErrorKind, Executed};
use crate::limits;
use crate::node::{Node, page};
use crate::offered::Offered;
use crate::pending::{Answer, Pending};
use crate::service::Offer;
use crate::serving::{Request, Serving, Waiting};
use crate::stats::{Counters, Stats, add};
use crate::wire::Status;

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
    pub(crate) process: PeerProcess,
    pub(crate) socket: OwnedFd,
    pub(crate) limits: Agreed,
    /// What we offer.
    pub(crate) offer: Offer,
    /// What the peer offers.
    pub(crate) offered: Offered,
    /// This side accepted the binding, and so keeps landings for the peer.
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
    pub(crate) process: PeerProcess,
    pub(crate) socket: OwnedFd,
    pub(crate) limits: Agreed,
    offer: Offer,
    pub(crate) offered: Offered,
    pub(crate) draining: Arc<AtomicBool>,
    pub(crate) pending: Pending,
    pub(crate) serving: Serving,
    /// For the processors we lend to the peer.
    lenders: [Lender; limits::LANDINGS as usize],
    /// For the processors the peer lends to us.
    pub(crate) landings: Box<[Seat]>,
    /// Our processors that are lent to the peer right now, as a mask.
    donors: AtomicU64,
    /// Donations in a row without one of the peer's own processors having been seen awake.
    streak: AtomicU32,
    /// How far the peer had come when it was last rung. While it is still there, once is enough.
    rung_at: AtomicU64,
    /// How far the peer had come when a processor came back from it without its having read anything.
    wasted_at: AtomicU64,
    /// How far the peer had come at a busy worker's last look.
    stuck_at: AtomicU64,
    /// The peer said that it takes no more calls.
    leaving: AtomicBool,
    /// Key in the node's list, once it is there.
    pub(crate) key: AtomicU64,
    closed: OnceLock<String>,
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
            serving: Serving::new(parts.limits.calls),
            lenders: std::array::from_fn(|_| Lender::new()),
            landings: (0..parts.landings).map(|_| Seat::new()).collect(),
            node: parts.node,
            name: parts.name,
            channel: parts.channel,
            page: parts.page,
            process: parts.process,
            socket: parts.socket,
            limits: parts.limits,
            offer: parts.offer,
            offered: parts.offered,
            draining: parts.draining,
            donors: AtomicU64::new(0),
            streak: AtomicU32::new(0),
            rung_at: AtomicU64::new(NEVER_RUNG),
            wasted_at: AtomicU64::new(NEVER_RUNG),
            stuck_at: AtomicU64::new(u64::MAX),
            leaving: AtomicBool::new(false),
            key: AtomicU64::new(u64::MAX),
            closed: OnceLock::new(),
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
        bytes == 0 || matches!(self.channel.try_reserve(bytes), Ok(true))
    }

    /// Tells the peer that the caller of `id` is gone.
    pub(crate) fn withdraw(self: &Arc<Self>, id: u32) {
        self.channel.withdraw(id);
        if self.node.works_here() {
            return; // the next scan flushes
        }
        self.channel.flush();
        self.sent_from_outside();
    }

    /// What a thread does that sent something and will not scan: nobody idles here who would ring.
    pub(crate) fn sent_from_outside(self: &Arc<Self>) {
        // Pairs with the fence in `Presence::announce_rest` of the peer: either we see it resting, or
        // it sees the message.
        fence(Ordering::SeqCst);
        if self.channel.staged() && !self.channel.flush() {
            // Full, or held by somebody: a worker sees to it, and to what it has to wait for.
            self.node.look();
        }
        if self.wants_attention() && self.presence().may_sleep() {
            self.ring();
        }
    }

    // Receiving.

    /// Takes what has come in, and acts on it. True if there was anything.
    pub(crate) fn receive(self: &Arc<Self>, scratch: &mut Scratch) -> bool {
        let mut wrong = None;
        let taken = self.channel.receive(limits::BATCH, |message| {
            if let Err(text) = self.sort(message, scratch) {
                wrong.get_or_insert(text);
            }
        });
        let received = match (taken, wrong) {
            (Ok(count), None) => count > 0,
            (Err(violation), _) => self.break_off(&violation),
            (_, Some(wrong)) => self.break_off(&wrong),
        };
        // Two phases: nothing of this touches the ring, whose lines are still on their way.
        if scratch.calls.is_empty()
            && scratch.wakers.len() == 1
            && let Some(waker) = scratch.wakers.pop()
        {
            urpc_executor::run_next(waker);
            return received;
        }
        for waker in scratch.wakers.drain(..) {
            waker.wake();
        }
        for waiting in &mut scratch.calls {
            if let Some(request) = Request::take_up(self, waiting) {
                self.offer.dispatch(request);
            }
        }
        scratch.calls.clear();
        received
    }

    #[cold]
    fn break_off(self: &Arc<Self>, wrong: &dyn fmt::Display) -> bool {
        self.close(&format!("it broke the protocol: {wrong}"));
        true
    }

    /// The quick part, under the receiving end's lock: what has to happen in order.
    #[inline(always)]
    fn sort(&self, message: Message, scratch: &mut Scratch) -> Result<(), String> {
        match message.kind {
            Kind::Reply => self.deliver(message.id, Ok(message.body), scratch),
            Kind::Call => {
                // An id is free when its answer is on the way, so the credit alone does not bound answers
                // that nobody reads. An honest peer leaves us at most its calls to answer, and ours and
                // their cancels to send.
                if self.channel.backlog() > 4 * u64::from(self.limits.calls) {
                    return Err("it calls on and on without reading the answers".into());
                }
                self.begin(message, scratch)
            }
            _ => self.sort_rare(message, scratch),
        }
    }

    #[cold]
    fn sort_rare(&self, message: Message, scratch: &mut Scratch) -> Result<(), String> {
        let id = message.id;
        match message.kind {
            Kind::Failed => {
                let error = Status::into_error(message.procedure, message.body.as_slice());
                self.channel.freed(message.body.window_bytes());
                let error = error.ok_or_else(|| format!("status {} is none", message.procedure))?;
                self.deliver(id, Err(error), scratch)?;
            }
            Kind::Cancel => self.serving.cancel(id),
            Kind::Aborted => {
                // Half of a request came, then its caller was gone. It is answered like any other.
                self.begin(message, scratch)?;
                self.serving.cancel(id);
            }
            Kind::Goodbye => self.leaving.store(true, Ordering::Release),
            other => return Err(format!("kind {other:?} is not for us")),
        }
        Ok(())
    }

    #[inline(always)]
    fn begin(&self, message: Message, scratch: &mut Scratch) -> Result<(), String> {
        if !self.serving.begin(message.id) {
            return Err(wrong(
                "called with an id that is live or beyond the credit",
                message.id,
            ));
        }
        let Message {
            id,
            procedure,
            deadline_ms,
            body,
            ..
        } = message;
        scratch.calls.push(Waiting {
            id,
            procedure,
            deadline_ms,
            body,
        });
        Ok(())
    }

    #[inline(always)]
    fn deliver(&self, id: u32, answer: Answer, scratch: &mut Scratch) -> Result<(), String> {
        match self.pending.deliver(id, answer) {
            Ok(waker) => {
                scratch.wakers.extend(waker);
                Ok(())
            }
            Err(unknown) => Err(wrong("answered what is no call", unknown.0)),
        }
    }

    // Who runs where.

    /// The peer's presence, as its page says it now.
    pub(crate) fn presence(&self) -> View {
        View::read(&Presence {
            processors: self.page.word(page::PROCESSORS),
            resting: self.page.word(page::RESTING),
            unheld: self.page.word(page::UNHELD),
        })
    }

    /// The peer has something to read, or waits for room that there is now.
    pub(crate) fn wants_attention(&self) -> bool {
        self.channel.unread_by_peer() || self.channel.peer_blocked()
    }

    /// What the policy has to know of this peer.
    pub(crate) fn view(&self) -> PeerView {
        let unread = self.wants_attention();
        let presence = self.presence();
        if presence.awake() {
            self.streak.store(0, Ordering::Relaxed);
        }
        PeerView {
            unread,
            outstanding: self.pending.outstanding() || self.channel.staged(),
            presence,
            landing_free: unread && !self.is_wasted() && self.free_landing().is_some(),
            streak: self.streak.load(Ordering::Relaxed),
            rung: self.is_rung(),
        }
    }

    /// The peer says that it waits for a processor which it lent to us.
    pub(crate) fn lends_to_us(&self) -> bool {
        let inbox = self.channel.inbox();
        let live = |k| inbox.grant(k).grant.load(Ordering::Relaxed) & 1 == 1;
        (0..self.landings.len()).any(live)
    }

    /// A landing of the peer that would answer.
    pub(crate) fn free_landing(&self) -> Option<usize> {
        let inbox = self.channel.inbox();
        (0..self.lenders.len()).find(|&k| self.lenders[k].is_free(inbox.returned(k)))
    }

    pub(crate) fn lender(&self, k: usize) -> (&Lender, GrantWords<'_>) {
        let words = self.channel.outbox().grant(k);
        (&self.lenders[k], grant_words(words))
    }

    /// Processor `id` is about to be lent to the peer. False if the channel is closed: [`close`](Self::close)
    /// would not wake its worker any more. Followed by [`take_back`](Self::take_back) in either case.
    pub(crate) fn hand_over(&self, id: usize) -> bool {
        self.donors.fetch_or(1 << id, Ordering::Relaxed);
        // Pairs with the fence in `close`: either that sees this donor, or we see that it is closed.
        fence(Ordering::SeqCst);
        !self.is_closed()
    }

    pub(crate) fn take_back(&self, id: usize) {
        self.donors.fetch_and(!(1 << id), Ordering::Relaxed);
    }

    /// A processor came back unused: the peer has no place for it, so it is rung until it reads on.
    pub(crate) fn count_wasted(&self, progress: u64) {
        if self.channel.peer_progress() == progress {
            self.wasted_at.store(progress, Ordering::Relaxed);
        }
    }

    fn is_wasted(&self) -> bool {
        self.wasted_at.load(Ordering::Relaxed) == self.channel.peer_progress()
    }

    pub(crate) fn count_donation(&self) {
        self.streak.fetch_add(1, Ordering::Relaxed);
    }

    /// Rings the peer's doorbell, if there is something it should look at. Never blocks; if it is rung
    /// already, that is as good.
    pub(crate) fn ring(&self) {
        // Looked at before and after: then there was something to look at when it had come so far, and
        // while it has come no further, it has yet to look.
        let progress = self.channel.peer_progress();
        if !self.wants_attention() {
            return;
        }
        let unmoved = self.channel.peer_progress() == progress;
        let rung_at = if unmoved { progress } else { NEVER_RUNG };
        self.rung_at.store(rung_at, Ordering::Relaxed);
        add(&self.counters.rings, 1);
        add(&self.counters.system_calls, 1);
        let _ = send(
            &self.socket,
            &[1],
            SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
        );
    }

    /// Rings if the peer may sleep on what a busy worker saw waiting for it at its last look, too.
    /// (What is younger may be found, or lent a processor, without a system call.)
    pub(crate) fn ring_if_stuck(&self) {
        let progress = self.channel.peer_progress();
        let stuck = self.stuck_at.swap(progress, Ordering::Relaxed) == progress;
        if stuck && self.wants_attention() && self.presence().may_sleep() && !self.is_rung() {
            self.ring();
        }
    }

    fn is_rung(&self) -> bool {
        self.rung_at.load(Ordering::Relaxed) == self.channel.peer_progress()
    }

    /// Reads the doorbell. False if the peer is gone.
    pub(crate) fn answer_bell(&self) -> bool {
        let mut bytes = [0u8; 256];
        add(&self.counters.system_calls, 1);
        match recv(&self.socket, &mut bytes, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => false,
            Ok(_) => true,
            Err(error) => error == rustix::io::Errno::AGAIN || error == rustix::io::Errno::INTR,
        }
    }

    // The end.

    /// Why new calls cannot be made, if they cannot.
    pub(crate) fn refusal(&self) -> Option<CallError> {
        if let Some(why) = self.closed.get() {
            return Some(closed(why, Executed::No));
        }
        if self.leaving.load(Ordering::Acquire) {
            return Some(CallError::new(
                CallErrorKind::ShuttingDown,
                Executed::No,
                "the server is shutting down and takes no more calls",
            ));
        }
        None
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
        for seat in &self.landings {
            let _ = seat.wake();
        }
        // Pairs with the fence in `hand_over`. A donor without a call that waits is woken by nothing else.
        fence(Ordering::SeqCst);
        self.node.call_back(self.donors.load(Ordering::Relaxed));
        // The peer is told now, not when the last thread of ours lets go of this.
        let _ = shutdown(&self.socket, Shutdown::Both);
        self.ended.notify(usize::MAX);
    }

    /// The peer is gone: what it had sent before still counts.
    pub(crate) fn hang_up(self: &Arc<Self>) {
        let mut last = Scratch::default();
        let _ = self.channel.receive(usize::MAX, |message| {
            let _ = self.sort(message, &mut last);
        });
        for waker in last.wakers {
            waker.wake();
        }
        self.close("its process has ended or closed the channel");
    }

    /// Waits until every call of the peer has its answer in the ring, or until `until`. Returns how many
    /// have not.
    pub(crate) async fn drained(self: &Arc<Self>, until: Instant) -> u64 {
        loop {
            let answered = self.answered.listen();
            fence(Ordering::SeqCst);
            let live = self.live();
            if self.is_closed() || live == 0 && (!self.channel.staged() || self.channel.flush()) {
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
        self.serving.end(id);
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

/// Texts are for the few; the many should not carry the code.
#[cold]
fn wrong(what: &str, id: u32) -> String {
    format!("it {what}: {id:#x}")
}

fn closed(why: &str, executed: Executed) -> CallError {
    CallError::new(CallErrorKind::Closed, executed, why)
}

/// The words of the channel's page, as `donate` wants them.
pub(crate) fn grant_words(words: urpc_channel::GrantWords<'_>) -> GrantWords<'_> {
    GrantWords {
        grant: words.grant,
        cpu: words.cpu,
        limit_us: words.limit_us,
    }
}

/// What a receive leaves to be done; kept by each thread, so that it is allocated once.
#[derive(Default)]
pub(crate) struct Scratch {
    wakers: Vec<Waker>,
    calls: Vec<Waiting>,
}
