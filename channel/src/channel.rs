//! The two ends of a channel, as the rest of urpc uses them: from many threads, never waiting.
//!
//! Nothing here sleeps, spins or makes a system call, and a warm small send or receive allocates nothing.
//! Who may write what is said in `layout`, how sending threads share an end in `outgoing`, what a peer may
//! claim in `frame` and `incoming`, and who has to be woken in `channel/attention`.
//!
//! **How a worker goes to rest**, for each of its channels:
//! 1. [`announce_blocked`](Channel::announce_blocked), and whatever else the peer shall know;
//! 2. `fence(SeqCst)`;
//! 3. [`flush`](Channel::flush), [`refresh_window`](Channel::refresh_window), [`receive`](Channel::receive);
//!    if they found anything, or left something staged that 1. did not know of: back to 1.
//!
//! A thread that is no worker does 2. and `flush` after sending.

mod attention;
mod receiving;

use attention::Furthest;
pub use attention::Standing;

use crate::fate::{Closed, Fate};
use crate::incoming::Incoming;
use crate::layout::{FREED_AT, INLINE, OPEN_AT};
use crate::message::{Body, Head, Kind, Large, Message};
use crate::outbox::{Inbox, Outbox};
use crate::outgoing::{Item, Outgoing, Sent, Wire};
use crate::ring::Words;
use crate::violation::Violation;
use crate::window::Window;

/// What the two processes have agreed to hold for one another. The same at both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Calls outstanding each way. The channel only bounds half-sent messages by it, at twice as many.
    pub calls: u32,
    /// Bytes of large payload outstanding each way; at least `max_payload`.
    pub window: u64,
    /// Bytes of one message at most.
    pub max_payload: u32,
}

impl Default for Limits {
    /// 1,024 calls, 8 MiB outstanding, 4 MiB a message.
    fn default() -> Self {
        Limits {
            calls: 1024,
            window: 8 << 20,
            max_payload: 4 << 20,
        }
    }
}

/// What there is to do at a channel, by one look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Glance {
    /// [`Channel::receive`] has something, or another thread is just receiving it.
    pub incoming: bool,
    /// Something waits for a [`flush`](Channel::flush), or for [`refresh_window`](Channel::refresh_window).
    pub chores: bool,
}

/// Why a message was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Why {
    /// The channel is closed, by us or for a violation.
    #[error("the channel is closed")]
    Closed,
    /// This process is a forked child and has no part in the channel.
    #[error("this process is a fork of the one the channel belongs to")]
    Forked,
    /// The message has more bytes than one may have.
    #[error("a message of {len} bytes, where {max} are allowed")]
    TooLarge {
        /// Bytes of the body.
        len: usize,
        /// Bytes allowed: `max_payload`, or 48 for [`Kind::Cancel`] and [`Kind::Goodbye`].
        max: usize,
    },
}

/// A message that was not sent, given back, with the reason. It has not touched the ring.
#[derive(Debug, thiserror::Error)]
#[error("the message was not sent: {1}")]
pub struct SendError(pub Message, pub Why);

/// Keeps what different threads write on different cache lines (two, because lines are fetched in pairs).
#[derive(Debug)]
#[repr(align(128))]
struct Apart<T>(T);

/// A channel between this process and one peer.
///
/// ```
/// use urpc_channel::{Body, Channel, Geometry, Inbox, Kind, Limits, Message, Outbox, Sent};
/// let geometry = Geometry::default();
/// let (mut a, mut b) = (Outbox::create(&geometry)?, Outbox::create(&geometry)?);
/// let of_a = Inbox::accept(a.take_fd().expect("new"), &geometry).expect("made by urpc");
/// let of_b = Inbox::accept(b.take_fd().expect("new"), &geometry).expect("made by urpc");
/// let client = Channel::new(a, of_b, Limits::default());
/// let server = Channel::new(b, of_a, Limits::default());
///
/// let body = Body::from_slice(b"2 + 3");
/// let call = Message { kind: Kind::Call, id: 1, procedure: 7, deadline_ms: 0, body };
/// assert_eq!(client.send(call.clone()).expect("open"), Sent::Published);
/// assert!(server.has_incoming());
/// let mut received = Vec::new();
/// assert_eq!(server.receive(16, |message| received.push(message)), Ok(1));
/// assert_eq!(received, [call]);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Channel {
    own: Outbox,
    peer: Inbox,
    limits: Limits,
    fate: Fate,
    outgoing: Apart<Outgoing>,
    incoming: Apart<Incoming>,
    window: Apart<Window>,
    furthest: Furthest,
}

impl Channel {
    /// A channel over two fresh outboxes. Panics if the window is smaller than the largest message.
    pub fn new(mut own: Outbox, peer: Inbox, limits: Limits) -> Channel {
        let Limits {
            window,
            max_payload,
            ..
        } = limits;
        assert!(
            window >= max_payload.into(),
            "a window of {window} bytes for messages of {max_payload}"
        );
        drop(own.take_fd());
        Channel {
            fate: Fate::new(),
            outgoing: Apart(Outgoing::new(own.geometry())),
            incoming: Apart(Incoming::new(peer.geometry(), limits)),
            window: Apart(Window::new(window)),
            furthest: Furthest::default(),
            own,
            peer,
            limits,
        }
    }

    #[inline(always)]
    fn forked(&self) -> bool {
        self.own.region.forked()
    }

    #[inline(always)]
    fn wire(&self) -> Wire<'_, Outbox, Inbox> {
        Wire {
            own: &self.own,
            peer: &self.peer,
            window: &self.window.0,
            fate: &self.fate,
        }
    }

    /// Sends `message`, or stages it if it cannot go at once. Never waits, never spins; no system call, no
    /// fence. Messages of one thread stay in order, except that small ones may overtake large ones; but
    /// nothing withdraws a call before it was sent, and a [`Kind::Goodbye`] overtakes nothing.
    ///
    /// A body with [`window_bytes`](Body::window_bytes) needs as many [reserved](Channel::reserve) ones;
    /// panics if there are fewer. It also panics for [`Kind::Aborted`] and [`Kind::Refused`], which are only received.
    ///
    /// # Errors
    /// Gives the message back. Bytes reserved for it stay reserved ([`Channel::unreserve`]). When it does not
    /// fail, whoever [closed](Channel::close) the channel meanwhile sees all that this thread did before.
    pub fn send(&self, mut message: Message) -> Result<Sent, SendError> {
        if self.post(message.head(), &mut message.body) {
            return Ok(Sent::Published);
        }
        self.put(message, true)
    }

    /// Like [`send`](Channel::send), but leaves the ring to the next [`flush`](Channel::flush) (or to the
    /// next `send` that finds the end free): many messages then cross with one lock and without stalls.
    pub fn stage(&self, message: Message) -> Result<Sent, SendError> {
        self.put(message, false)
    }

    /// Sends a call or answer where that takes nothing but a free slot, and room for the bytes of a large one that
    /// crosses in one piece: then the body is copied from where it is. False if not, for whatever reason: then
    /// [`send`](Channel::send) it. A large body is empty afterwards, and its buffer [kept](crate::keep_buffer).
    ///
    /// Panics as [`send`](Channel::send) does.
    #[inline(always)]
    pub fn post(&self, head: Head, body: &mut Body) -> bool {
        self.post_with(head, body, false)
    }

    /// The same where `more` is about to follow from this thread. A small message may then wait for that in private
    /// memory: until seven others wait with it, or something is posted without more to follow, or for the next
    /// [`flush`](Channel::flush). Nothing overtakes it.
    #[inline(always)]
    pub fn post_with(&self, head: Head, body: &mut Body, more: bool) -> bool {
        if self.forked() || !matches!(head.kind, Kind::Call | Kind::Reply | Kind::Failed) {
            return false;
        }
        match body {
            Body::Inline(body) => self.outgoing.0.post(&self.wire(), &head, body, more),
            Body::Heap(large) => {
                let posted = self.post_large(head, large);
                if posted {
                    body.clear();
                }
                posted
            }
        }
    }

    #[inline(never)]
    fn post_large(&self, head: Head, large: &Large) -> bool {
        let may = !large.fits_inline() && large.bytes.len() <= self.limits.max_payload as usize;
        may && self.outgoing.0.post_large(&self.wire(), &head, large)
    }

    fn put(&self, mut message: Message, at_once: bool) -> Result<Sent, SendError> {
        if self.forked() {
            return Err(SendError(message, Why::Forked));
        }
        let sent = !matches!(message.kind, Kind::Aborted | Kind::Refused);
        assert!(sent, "{:?} is only received", message.kind);
        if let Body::Heap(large) = &message.body {
            if let Some(inline) = large.inline() {
                message.body = Body::Inline(inline);
            } else {
                let answers = matches!(message.kind, Kind::Call | Kind::Reply | Kind::Failed);
                let max = if answers {
                    self.limits.max_payload as usize
                } else {
                    INLINE
                };
                let len = large.bytes.len();
                if len > max {
                    return Err(SendError(message, Why::TooLarge { len, max }));
                }
            }
        }
        let outgoing = &self.outgoing.0;
        let put = outgoing.submit(&self.wire(), Item::Message(message), at_once);
        put.map_err(|item| {
            let message = match item {
                Item::Message(message) => message,
                Item::Withdraw(id) => withdrawal(id),
            };
            SendError(message, Why::Closed)
        })
    }

    /// Publishes what is staged, as far as there is room. True if nothing remains, or if another thread has
    /// the end: it flushes before it rests. False if the ring or the arena is full: what remains needs the
    /// peer ([`announce_blocked`](Channel::announce_blocked)). Costs a look if nothing is staged.
    ///
    /// Before resting, call it after a `fence(SeqCst)`: pairs with the one in a `send` of another thread that
    /// found the end taken.
    #[inline]
    pub fn flush(&self) -> bool {
        self.forked() || self.outgoing.0.flush(&self.wire())
    }

    /// Whether anything waits for a [`flush`](Channel::flush).
    #[inline]
    pub fn staged(&self) -> bool {
        !self.forked() && self.outgoing.0.is_staged()
    }

    /// How many small messages wait for room in the ring, by the last look. An honest peer bounds them by
    /// what it lets itself be owed.
    pub fn backlog(&self) -> u64 {
        self.outgoing.0.backlog()
    }

    /// How many answers have been taken for sending, ever. One that another thread has just handed over may
    /// not be counted yet.
    pub fn answers(&self) -> u64 {
        self.outgoing.0.answers()
    }

    /// Slots published, ever.
    #[inline]
    pub fn published(&self) -> u64 {
        self.outgoing.0.published()
    }

    /// A received body that took `bytes` of the window ([`Body::window_bytes`]) has been decoded or dropped:
    /// the peer may send as many more. To be called once for each such body.
    pub fn freed(&self, bytes: usize) {
        if bytes != 0 && !self.forked() {
            // Release pairs with the fence in the peer's `Window::look`.
            self.own.add(FREED_AT, bytes as u64);
        }
    }

    /// Waits until `bytes` of the window are free and reserves them for a message; then `send` it, or
    /// [`unreserve`](Channel::unreserve). They are free again when the peer has decoded that message. First
    /// come, first served. Panics if `bytes` exceeds the window.
    ///
    /// # Errors
    /// The channel is closed, or was while waiting.
    ///
    /// # Cancellation
    /// Nothing is reserved, and the next one waiting moves up.
    pub async fn reserve(&self, bytes: usize) -> Result<(), Closed> {
        if self.forked() {
            return Err(Closed);
        }
        self.window.0.reserve(bytes, &self.peer, &self.fate).await
    }

    /// Like [`reserve`](Channel::reserve), without waiting: false if the bytes are not there, or others wait.
    ///
    /// # Errors
    /// The channel is closed.
    pub fn try_reserve(&self, bytes: usize) -> Result<bool, Closed> {
        if self.forked() {
            return Err(Closed);
        }
        self.window.0.try_reserve(bytes, &self.peer, &self.fate)
    }

    /// Gives back `bytes` that were reserved for a message which is not going to be sent.
    pub fn unreserve(&self, bytes: usize) {
        if bytes != 0 {
            self.window.0.unreserve(bytes);
        }
    }

    /// Looks what the peer has freed, if anybody waits in [`reserve`](Channel::reserve), and wakes them. For
    /// every scan, and before resting after a `fence(SeqCst)`.
    #[inline]
    pub fn refresh_window(&self) {
        if !self.forked() {
            // A violation is told by the next `receive`.
            let _ = self.fate.judge(self.window.0.refresh(&self.peer));
        }
    }

    /// Large messages shall be faster, for a MiB of memory: lets the peer send them through its annex, and this end
    /// through its own once the peer lets it. False if the system cannot do that, or has no memory. Takes some system
    /// calls; to be called once. Nothing is given back before the channel is dropped.
    pub fn open_annex(&self) -> bool {
        if self.forked() || !self.peer.fill_annex(false) {
            return false;
        }
        self.incoming.0.open_annex();
        // Release pairs with the fence in the peer's `Annex::opens`.
        self.own.publish(OPEN_AT, 1);
        self.outgoing.0.want_annex();
        true
    }

    /// The caller of call `id` is gone. Behind the call itself, the peer gets a [`Kind::Cancel`]; or, if the
    /// call is a large message and not all of it has been sent, the rest is dropped and the peer gets
    /// [`Kind::Aborted`]. Either way an answer comes, and `id` stays taken until then. Never waits; nothing
    /// happens on a closed channel.
    pub fn withdraw(&self, id: u32) {
        if !self.forked() {
            // Closed: then every call has failed, this one too.
            let _ = self
                .outgoing
                .0
                .submit(&self.wire(), Item::Withdraw(id), true);
        }
    }

    /// Closes this end: nothing can be sent any more, all who wait in [`reserve`](Channel::reserve) are told,
    /// staged messages are dropped at the next flush. The peer is not told. May be called more than once.
    ///
    /// When it returns, every `send` either failed, or what its thread did before it (such as entering the
    /// call in a table) is visible to this one. Loom checks this as `a_close_is_seen_or_the_message_is`.
    pub fn close(&self) {
        self.outgoing.0.close(&self.fate);
        self.window.0.wake_all();
        self.flush();
    }

    /// Whether the channel is closed, by us or for a violation.
    pub fn is_closed(&self) -> bool {
        self.fate.is_closed()
    }

    /// What the peer did wrong, if it did.
    pub fn violation(&self) -> Option<Violation> {
        self.fate.violation()
    }

    /// Our own words, for grants and returns.
    pub fn outbox(&self) -> &Outbox {
        &self.own
    }

    /// The peer's words, for grants and returns: Relaxed loads only.
    pub fn inbox(&self) -> &Inbox {
        &self.peer
    }

    /// What was agreed.
    pub fn limits(&self) -> Limits {
        self.limits
    }
}

fn withdrawal(id: u32) -> Message {
    Head {
        kind: Kind::Cancel,
        id,
        procedure: 0,
        deadline_ms: 0,
    }
    .with(Body::EMPTY)
}
