//! Calls: a peer, its procedures, and the future that a call is (§2.1, R10, R11).
//!
//! Beneath the procedure call everything is asynchronous: a call is a message in a ring and an entry
//! where its reply will be found; waiting is being not ready, like any other wait of a task.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use event_listener::EventListener;
use serde::Serialize;
use serde::de::DeserializeOwned;
use urpc_channel::{Body, Head, Kind};
use urpc_donate::Credentials;
use urpc_executor::Sleep;

use crate::binding::Binding;
use crate::caller;
use crate::entry;
use crate::error::{CallError, CallErrorKind, Executed};
use crate::node::Node;
use crate::pending::Answer;
use crate::stats::Stats;
use crate::wire::{self, Nanos, Undecodable};

/// A process that is bound to this one. Cheap to clone; a client's channel closes when the last clone
/// and the last call are gone, or when the peer goes.
#[derive(Clone)]
pub struct Peer(Arc<Handle>);

struct Handle {
    binding: Arc<Binding>,
    /// A client's channel lives as long as its handles; a server's as long as its client.
    holds: bool,
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.holds {
            self.binding.close("this side has let go of it");
        }
    }
}

thread_local! {
    /// The peer of the call that ended last on this worker, for the next call to the same: so calls that
    /// follow one another count no references. See [`Peer::let_go_of_spare`].
    static SPARE: Cell<Option<Peer>> = const { Cell::new(None) };
}

impl Peer {
    /// A clone for a call.
    #[inline]
    fn for_call(&self) -> Self {
        match SPARE.take() {
            Some(spare) if Arc::ptr_eq(&spare.0, &self.0) => spare,
            other => {
                SPARE.set(other);
                self.clone()
            }
        }
    }

    /// Takes the peer of a call that has ended.
    #[inline]
    fn keep_as_spare(self) {
        if Node::works() {
            SPARE.set(Some(self));
        }
    }

    /// Drops this thread's spare peer, in any case or if that is all that keeps its channel open. Workers
    /// do the one before they rest, and the other every so many tasks.
    pub(crate) fn let_go_of_spare(in_any_case: bool) {
        let spare = SPARE.take();
        if !in_any_case {
            SPARE.set(spare.filter(|spare| Arc::strong_count(&spare.0) > 1));
        }
    }

    /// A peer that stays bound without this handle.
    pub(crate) fn new(binding: Arc<Binding>) -> Self {
        let holds = false;
        Self(Arc::new(Handle { binding, holds }))
    }

    /// A peer that is bound for as long as this handle or a clone of it lives.
    pub(crate) fn holding(binding: Arc<Binding>) -> Self {
        let holds = true;
        Self(Arc::new(Handle { binding, holds }))
    }

    pub(crate) fn binding(&self) -> &Arc<Binding> {
        &self.0.binding
    }

    /// The name it was connected by; of a caller, its process.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.binding().name
    }

    /// Process, user and group of the peer, as the kernel vouched for them at binding (R4).
    #[must_use]
    pub fn credentials(&self) -> Credentials {
        self.binding().process.credentials()
    }

    /// What the peer offers: names and signatures. A signature is empty if the procedure is free-form.
    pub fn procedures(&self) -> impl Iterator<Item = (&str, &str)> {
        self.binding().offered.iter()
    }

    /// A procedure by its name, looked up once. That the peer has none of this name is said by the
    /// first call.
    ///
    /// ```no_run
    /// # async fn show(peer: urpc::Peer) -> urpc::Result<()> {
    /// let mul = peer.procedure::<(i64, i64), i64>("mul");
    /// assert_eq!(mul.call((2, 3)).await?, 6);
    /// # Ok(()) }
    /// ```
    pub fn procedure<A, R>(&self, name: &str) -> Procedure<A, R>
    where
        A: Serialize,
        R: DeserializeOwned,
    {
        Procedure {
            peer: self.clone(),
            name: name.into(),
            number: self.binding().offered.find(name),
            _types: PhantomData,
        }
    }

    /// True once the channel is closed: every call fails from then on.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.binding().is_closed()
    }

    /// Waits until the channel is closed.
    ///
    /// # Cancellation
    /// Nothing happens; it may be asked again.
    pub async fn closed(&self) {
        loop {
            let listener = self.binding().ended.listen();
            if self.binding().is_closed() {
                return;
            }
            listener.await;
        }
    }

    /// Counts of this channel.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.binding().stats()
    }

    /// A call of procedure `number`; `None` is a name the peer has nothing of.
    #[inline]
    pub(crate) fn start<A: Serialize + ?Sized, R>(
        &self,
        number: Option<u16>,
        name: &str,
        arguments: &A,
    ) -> Call<R> {
        let Some(number) = number else {
            let error = CallError::new(
                CallErrorKind::UnknownProcedure,
                Executed::No,
                "the peer offers no procedure of this name",
            );
            return self.failed(name, error);
        };
        let mut call = self.lazy(number);
        if let Err(why) = wire::encode(arguments, &mut call.call.body) {
            let why = format!("its arguments could not be encoded: {why}");
            let error = CallError::new(CallErrorKind::Encode, Executed::No, why);
            return self.failed(name, error);
        }
        call
    }

    pub(crate) fn failed<R>(&self, name: &str, error: CallError) -> Call<R> {
        let mut call = self.lazy(0);
        call.call.stage = Stage::Rare;
        call.call.rare = Some(Box::new(Rare::Failed(error.of(name, self.name()))));
        call
    }

    #[inline]
    fn lazy<R>(&self, procedure: u16) -> Call<R> {
        Call {
            call: Raw {
                peer: Some(self.for_call()),
                procedure,
                id: 0,
                body: Body::EMPTY,
                timeout: None,
                urgent: false,
                stage: Stage::Lazy,
                rare: None,
            },
            _reply: PhantomData,
        }
    }
}

impl Drop for Peer {
    #[inline]
    fn drop(&mut self) {
        // Perhaps nobody holds the channel open but this one and this thread's spare.
        if Arc::strong_count(&self.0) == 2 {
            // No spare at the end of a thread.
            let spare = SPARE.try_with(Cell::take).ok().flatten();
            if let Some(spare) = spare.filter(|spare| !Arc::ptr_eq(&spare.0, &self.0)) {
                SPARE.set(Some(spare));
            }
        }
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer")
            .field("name", &self.name())
            .field("credentials", &self.credentials())
            .field("closed", &self.is_closed())
            .finish()
    }
}

/// A procedure of a peer, looked up once.
pub struct Procedure<A, R> {
    peer: Peer,
    name: Arc<str>,
    number: Option<u16>,
    _types: PhantomData<fn(A) -> R>,
}

impl<A: Serialize, R: DeserializeOwned> Procedure<A, R> {
    /// Calls it. See [`Call`].
    pub fn call(&self, arguments: A) -> Call<R> {
        self.peer.start(self.number, &self.name, &arguments)
    }
}

impl<A, R> Clone for Procedure<A, R> {
    fn clone(&self) -> Self {
        Self {
            peer: self.peer.clone(),
            name: Arc::clone(&self.name),
            number: self.number,
            _types: PhantomData,
        }
    }
}

impl<A, R> fmt::Debug for Procedure<A, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Procedure")
            .field("peer", &self.peer.name())
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Calls the procedure `name` of `peer`. A tuple is a list of arguments; anything else is one argument.
///
/// ```no_run
/// # async fn show(peer: urpc::Peer) -> urpc::Result<()> {
/// let six: i64 = urpc::call(&peer, "mul", (2i64, 3i64)).await?;
/// # Ok(()) }
/// ```
pub fn call<R: DeserializeOwned>(peer: &Peer, name: &str, arguments: impl Serialize) -> Call<R> {
    peer.start(peer.binding().offered.find(name), name, &arguments)
}

/// A call: a future of its reply.
///
/// It is lazy: nothing is sent before its first poll. Without [`timeout`](Self::timeout) it has the
/// deadline of its runtime (30 s unless chosen otherwise), or that of the call being served, if that is
/// earlier.
///
/// # Errors
/// A [`CallError`], which says whether the procedure can have run.
///
/// # Cancellation
/// Dropping it cancels the call and never waits: a handler that has begun is dropped at its next await,
/// one that has not is never started.
#[must_use = "a call does nothing unless it is awaited"]
pub struct Call<R> {
    call: Raw,
    _reply: PhantomData<fn() -> R>,
}

impl<R> Call<R> {
    /// Fails the call if no reply has come `after` its first poll. The handler sees this deadline, and
    /// the calls it makes inherit it.
    pub fn timeout(mut self, after: Duration) -> Self {
        self.call.timeout = Some(after);
        self
    }

    /// Gives the peer a processor at once if it has none awake, although tasks are ready here: for
    /// programs with a single task, for real-time calls, and to start long I/O early (§3.1.1, R24).
    pub fn urgent(mut self) -> Self {
        self.call.urgent = true;
        self
    }
}

impl<R: DeserializeOwned> Future for Call<R> {
    type Output = Result<R, CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let result = match self.call.poll(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(reply)) => reply.decode(),
            Poll::Ready(Err(error)) => Err(error),
        };
        let call = &self.call;
        Poll::Ready(result.map_err(|error| error.of(call.name(), call.peer().name())))
    }
}

impl<R> fmt::Debug for Call<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("procedure", &self.call.name())
            .field("peer", &self.call.peer().name())
            .finish_non_exhaustive()
    }
}

/// The answer to a call, which its entry keeps until this is dropped.
struct Reply<'a> {
    binding: &'a Binding,
    id: u32,
}

impl Reply<'_> {
    fn decode<R: DeserializeOwned>(&self) -> Result<R, CallError> {
        self.binding.pending.look(self.id, |answer| match answer {
            Ok(body) => wire::decode(body.as_slice()).map_err(undecodable),
            Err(error) => Err(error.clone()),
        })
    }
}

impl Drop for Reply<'_> {
    fn drop(&mut self) {
        let pending = &self.binding.pending;
        let bytes = |answer: &Answer| answer.as_ref().map_or(0, Body::window_bytes);
        let bytes = pending.look(self.id, bytes);
        pending.end(self.id);
        self.binding.channel.freed(bytes);
    }
}

#[cold]
fn undecodable(error: Undecodable) -> CallError {
    let why = match error {
        Undecodable::Malformed(why) => {
            format!("its reply could not be decoded as the expected type: {why}")
        }
        Undecodable::Surplus(bytes) => format!(
            "its reply has {bytes} bytes more than the expected type: another type was sent"
        ),
    };
    CallError::new(CallErrorKind::UndecodableReply, Executed::Yes, why)
}

/// A call without its types.
struct Raw {
    /// `None` only in `drop`.
    peer: Option<Peer>,
    procedure: u16,
    /// Once it is sent.
    id: u32,
    /// The arguments, until they are sent: small ones are copied from here into the ring, and nowhere else.
    body: Body,
    timeout: Option<Duration>,
    urgent: bool,
    stage: Stage,
    rare: Option<Box<Rare>>,
}

#[derive(Clone, Copy)]
enum Stage {
    /// Not polled yet.
    Lazy,
    /// Sent, or staged, with this deadline: the answer will come.
    Sent(Nanos),
    /// As `rare` says.
    Rare,
    Done,
}

/// Where few calls get to, so that the others need not carry it about.
enum Rare {
    /// Not polled yet, and not to be sent.
    Failed(CallError),
    /// Waits for an id, or for room in the byte window.
    Crowded(Crowded),
}

/// A call that cannot be sent yet. It may cost an allocation and a timer.
struct Crowded {
    /// Of the window.
    bytes: usize,
    deadline: Nanos,
    room: Option<EventListener>,
    window: Option<Reservation>,
    reserved: bool,
    timer: Option<Sleep>,
    binding: Arc<Binding>,
}

/// Waits for room in the byte window.
type Reservation = Pin<Box<dyn Future<Output = Result<(), CallError>> + Send>>;

impl Drop for Crowded {
    fn drop(&mut self) {
        if self.reserved {
            self.binding.channel.unreserve(self.bytes);
        }
        if self.room.take().is_some() {
            self.binding.pending.no_longer_waits();
        }
    }
}

impl Raw {
    #[inline]
    fn peer(&self) -> &Peer {
        self.peer.as_ref().expect("not dropped")
    }

    fn name(&self) -> &str {
        self.peer().binding().offered.name(self.procedure)
    }

    #[inline]
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Reply<'_>, CallError>> {
        match self.stage {
            Stage::Sent(deadline) => self.poll_sent(deadline, cx),
            Stage::Lazy => self.begin(cx).map(Err),
            _ => self.poll_rarely(cx).map(Err),
        }
    }

    #[cold]
    fn poll_rarely(&mut self, cx: &mut Context<'_>) -> Poll<CallError> {
        self.stage = Stage::Done;
        match self.rare.take().map(|rare| *rare) {
            Some(Rare::Failed(error)) => Poll::Ready(error),
            Some(Rare::Crowded(crowded)) => self.poll_crowded(crowded, cx),
            None => panic!("a call was polled after it had ended"),
        }
    }

    /// What can be refused without asking anybody.
    fn refusal(&self) -> Option<CallError> {
        let binding = self.peer().binding();
        let max = binding.limits.max_payload as usize;
        let len = self.body.as_slice().len();
        if len > max {
            let why = format!(
                "its arguments take {len} bytes, and no more than {max} can cross at once; send them in \
                 several calls"
            );
            return Some(CallError::new(CallErrorKind::TooLarge, Executed::No, why));
        }
        binding.refusal()
    }

    /// The first attempt: takes an id and room, and sends. Ready only with an error.
    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<CallError> {
        if let Some(error) = self.refusal() {
            self.stage = Stage::Done;
            return Poll::Ready(error);
        }
        let binding = self.peer().binding();
        let inherited = caller::inherited();
        let own = match self.timeout {
            Some(after) => Nanos::now().after(after),
            None => Nanos::coarse().after(binding.node.config.call_deadline),
        };
        let deadline = own.min(inherited);
        let bytes = self.body.window_bytes();
        if binding.try_reserve(bytes) {
            match binding.pending.begin(cx.waker(), deadline) {
                Some(id) => return self.send(id, deadline),
                None => binding.channel.unreserve(bytes),
            }
        }
        let crowded = Crowded {
            bytes,
            deadline,
            room: None,
            window: None,
            reserved: false,
            timer: None,
            binding: Arc::clone(binding),
        };
        self.poll_crowded(crowded, cx)
    }

    /// Publishes the request whose id and room are taken.
    fn send(&mut self, id: u32, deadline: Nanos) -> Poll<CallError> {
        self.id = id;
        // A deadline that somebody chose is the peer's business too; ours is not.
        let chosen = self.timeout.is_some() || caller::inherited() != Nanos::NEVER;
        let head = Head {
            kind: Kind::Call,
            id,
            procedure: self.procedure,
            deadline_ms: if chosen { deadline.to_wire() } else { 0 },
        };
        let binding = self.peer().binding();
        if !binding.channel.post(head, &self.body)
            && let Err(error) = self.send_large(head)
        {
            return Poll::Ready(error);
        }
        self.stage = Stage::Sent(deadline);
        let binding = self.peer().binding();
        if !binding.node.works_here() {
            binding.sent_from_outside();
        } else if self.urgent {
            binding.node.urge(binding);
        }
        if binding.pending.next_deadline() >= deadline {
            binding.node.deadline_set();
        }
        Poll::Pending
    }

    /// Sends what has to wait, or is larger than a slot.
    #[cold]
    fn send_large(&mut self, head: Head) -> Result<(), CallError> {
        let message = head.with(self.body.take());
        let binding = self.peer().binding();
        let sent = binding.channel.send(message).map_err(|error| {
            binding.pending.undo(head.id);
            binding.channel.unreserve(error.0.body.window_bytes());
            binding.not_sent(&error.1)
        });
        if sent.is_err() {
            self.stage = Stage::Done;
        }
        sent.map(|_| ())
    }

    #[inline]
    fn poll_sent(
        &mut self,
        deadline: Nanos,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Reply<'_>, CallError>> {
        let id = self.id;
        match self.peer().binding().pending.poll(id, cx.waker()) {
            entry::Poll::Answered => {
                self.stage = Stage::Done;
                let binding = self.peer().binding();
                return Poll::Ready(Ok(Reply { binding, id }));
            }
            entry::Poll::Waiting => {}
            // R6: go on to something else.
            entry::Poll::Busy => cx.waker().wake_by_ref(),
        }
        self.poll_late(deadline).map(Err)
    }

    /// Polled without an answer: perhaps because time is up.
    fn poll_late(&mut self, deadline: Nanos) -> Poll<CallError> {
        if deadline > Nanos::now() {
            return Poll::Pending;
        }
        self.leave();
        let limit = self.limit();
        Poll::Ready(CallError::deadline(limit, true))
    }

    fn limit(&self) -> Duration {
        let of_runtime = self.peer().binding().node.config.call_deadline;
        self.timeout.unwrap_or(of_runtime)
    }

    /// Waits for an id and for room in the window, then sends.
    fn poll_crowded(&mut self, mut crowded: Crowded, cx: &mut Context<'_>) -> Poll<CallError> {
        let binding = Arc::clone(self.peer().binding());
        match crowded.poll(&binding, cx) {
            Poll::Pending => {
                self.stage = Stage::Rare;
                self.rare = Some(Box::new(Rare::Crowded(crowded)));
                Poll::Pending
            }
            Poll::Ready(Err(None)) => Poll::Ready(CallError::deadline(self.limit(), false)),
            Poll::Ready(Err(Some(error))) => Poll::Ready(error),
            Poll::Ready(Ok(id)) => self.send(id, crowded.deadline),
        }
    }

    /// The caller is gone, or has given up.
    fn leave(&mut self) {
        if let Stage::Sent(_) = self.stage {
            self.stage = Stage::Done;
            let (binding, id) = (self.peer().binding(), self.id);
            if binding.pending.abandon(id) {
                binding.withdraw(id);
            }
        }
    }
}

impl Drop for Raw {
    #[inline]
    fn drop(&mut self) {
        self.leave();
        if let Some(peer) = self.peer.take() {
            peer.keep_as_spare();
        }
    }
}

impl Crowded {
    /// Ready with an id, the room being reserved, with an error, or with `None` for "the deadline passed".
    fn poll(
        &mut self,
        binding: &Arc<Binding>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<u32, Option<CallError>>> {
        if let Some(error) = binding.refusal() {
            return Poll::Ready(Err(Some(error)));
        }
        if !self.reserved && self.poll_window(binding, cx)?.is_ready() {
            self.reserved = true;
        }
        if self.reserved {
            loop {
                if let Some(id) = binding.pending.begin(cx.waker(), self.deadline) {
                    self.reserved = false; // the message has it from here on
                    return Poll::Ready(Ok(id));
                }
                // Listen first, look again, then wait.
                match &mut self.room {
                    None => self.room = Some(binding.pending.room()),
                    Some(room) => match Pin::new(room).poll(cx) {
                        Poll::Pending => break,
                        Poll::Ready(()) => {
                            self.room = None;
                            binding.pending.no_longer_waits();
                        }
                    },
                }
            }
        }
        if self.timer.is_none()
            && let Some(at) = self.deadline.to_instant()
        {
            let executor = binding.node.executor();
            self.timer = executor.map(|executor| Sleep::new(&executor, at));
        }
        let timer = self.timer.as_mut();
        if timer.is_some_and(|timer| Pin::new(timer).poll(cx).is_ready()) {
            return Poll::Ready(Err(None));
        }
        Poll::Pending
    }

    fn poll_window(
        &mut self,
        binding: &Arc<Binding>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Option<CallError>>> {
        let bytes = self.bytes;
        if bytes == 0 {
            return Poll::Ready(Ok(()));
        }
        let window = self.window.get_or_insert_with(|| {
            let binding = Arc::clone(binding);
            Box::pin(async move {
                let reserved = binding.channel.reserve(bytes).await;
                reserved.map_err(|_| binding.not_sent(&urpc_channel::Why::Closed))
            })
        });
        window.as_mut().poll(cx).map_err(Some)
    }
}
