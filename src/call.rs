//! Calls: a peer, its procedures, and the future that a call is (§2.1, R10, R11).
//!
//! Beneath the procedure call everything is asynchronous: a call is a message in a ring and an entry
//! where its reply will be found; waiting is being not ready, like any other wait of a task.

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
use urpc_channel::{Body, Kind, Message, Sent};
use urpc_donate::Credentials;
use urpc_executor::Sleep;

use crate::binding::Binding;
use crate::caller;
use crate::entry;
use crate::error::{CallError, CallErrorKind, Executed};
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

impl Peer {
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
        match wire::encode(arguments) {
            Ok(body) => self.lazy(number, Ok(body)),
            Err(why) => {
                let why = format!("its arguments could not be encoded: {why}");
                let error = CallError::new(CallErrorKind::Encode, Executed::No, why);
                self.failed(name, error)
            }
        }
    }

    pub(crate) fn failed<R>(&self, name: &str, error: CallError) -> Call<R> {
        self.lazy(0, Err(error.of(name, self.name())))
    }

    fn lazy<R>(&self, number: u16, body: Result<Body, CallError>) -> Call<R> {
        Call {
            call: Raw {
                peer: self.clone(),
                number,
                timeout: None,
                urgent: false,
                stage: Stage::Lazy(body),
            },
            _reply: PhantomData,
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
        let call = &mut self.call;
        let Poll::Ready(answer) = call.poll(cx) else {
            return Poll::Pending;
        };
        let result = answer.and_then(|body| {
            let decoded = wire::decode(body.as_slice()).map_err(|error| {
                let why = match error {
                    Undecodable::Malformed(why) => {
                        format!("its reply could not be decoded as the expected type: {why}")
                    }
                    Undecodable::Surplus(bytes) => format!(
                        "its reply has {bytes} bytes more than the expected type: another type was sent"
                    ),
                };
                CallError::new(CallErrorKind::UndecodableReply, Executed::Yes, why)
            });
            call.peer.binding().release(body);
            decoded
        });
        Poll::Ready(result.map_err(|error| error.of(call.name(), call.peer.name())))
    }
}

impl<R> fmt::Debug for Call<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("procedure", &self.call.name())
            .field("peer", &self.call.peer.name())
            .finish_non_exhaustive()
    }
}

/// A call without its types.
struct Raw {
    peer: Peer,
    number: u16,
    timeout: Option<Duration>,
    urgent: bool,
    stage: Stage,
}

enum Stage {
    /// Not polled yet.
    Lazy(Result<Body, CallError>),
    /// Waits for an id, or for room in the byte window.
    Crowded(Box<Crowded>),
    /// Sent, or staged: the answer will come.
    Sent {
        id: u32,
        deadline: Nanos,
    },
    Done,
}

/// A call that cannot be sent yet. Rare, so it may cost an allocation and a timer.
struct Crowded {
    body: Body,
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
            self.binding.channel.unreserve(self.body.window_bytes());
        }
        if self.room.take().is_some() {
            self.binding.pending.no_longer_waits();
        }
    }
}

impl Raw {
    fn name(&self) -> &str {
        self.peer.binding().offered.name(self.number)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Answer> {
        match &mut self.stage {
            Stage::Sent { id, deadline } => {
                let (id, deadline) = (*id, *deadline);
                self.poll_sent(id, deadline, cx)
            }
            Stage::Lazy(_) => {
                let Stage::Lazy(body) = std::mem::replace(&mut self.stage, Stage::Done) else {
                    unreachable!("just matched");
                };
                match body.and_then(|body| self.check(body)) {
                    Ok(body) => self.begin(body, cx),
                    Err(error) => Poll::Ready(Err(error)),
                }
            }
            Stage::Crowded(_) => self.poll_crowded(cx),
            Stage::Done => panic!("a call was polled after it had ended"),
        }
    }

    /// What can be refused without asking anybody.
    fn check(&self, body: Body) -> Result<Body, CallError> {
        let binding = &self.peer.binding();
        let max = binding.limits.max_payload as usize;
        let len = body.as_slice().len();
        if len > max {
            let why = format!(
                "its arguments take {len} bytes, and no more than {max} can cross at once; send them in \
                 several calls"
            );
            return Err(CallError::new(CallErrorKind::TooLarge, Executed::No, why));
        }
        match binding.refusal() {
            Some(error) => Err(error),
            None => Ok(body),
        }
    }

    /// The first attempt: takes an id and room, and sends.
    fn begin(&mut self, body: Body, cx: &mut Context<'_>) -> Poll<Answer> {
        let binding = &self.peer.binding();
        let inherited = caller::inherited();
        let own = match self.timeout {
            Some(after) => Nanos::now().after(after),
            None => Nanos::coarse().after(binding.node.config.call_deadline),
        };
        let deadline = own.min(inherited);
        if binding.try_reserve(&body) {
            match binding.pending.begin(cx.waker(), deadline) {
                Some(id) => return self.send(id, body, deadline),
                None => binding.channel.unreserve(body.window_bytes()),
            }
        }
        self.stage = Stage::Crowded(Box::new(Crowded {
            body,
            deadline,
            room: None,
            window: None,
            reserved: false,
            timer: None,
            binding: Arc::clone(binding),
        }));
        self.poll_crowded(cx)
    }

    /// Publishes the request whose id and room are taken.
    fn send(&mut self, id: u32, body: Body, deadline: Nanos) -> Poll<Answer> {
        let binding = &self.peer.binding();
        // A deadline that somebody chose is the peer's business too; ours is not.
        let chosen = self.timeout.is_some() || caller::inherited() != Nanos::NEVER;
        let message = Message {
            kind: Kind::Call,
            id,
            procedure: self.number,
            deadline_ms: if chosen { deadline.to_wire() } else { 0 },
            body,
        };
        match binding.channel.send(message) {
            Ok(sent) => {
                self.stage = Stage::Sent { id, deadline };
                if !binding.node.works_here() {
                    binding.sent_from_outside();
                } else if self.urgent {
                    binding.node.urge(binding);
                }
                if binding.pending.next_deadline() >= deadline {
                    binding.node.deadline_set();
                }
                let _: Sent = sent;
                Poll::Pending
            }
            Err(error) => {
                binding.pending.undo(id);
                binding.channel.unreserve(error.0.body.window_bytes());
                Poll::Ready(Err(binding.not_sent(&error.1)))
            }
        }
    }

    fn poll_sent(&mut self, id: u32, deadline: Nanos, cx: &mut Context<'_>) -> Poll<Answer> {
        let pending = &self.peer.binding().pending;
        match pending.poll(id, cx.waker()) {
            entry::Poll::Answered(answer) => {
                self.stage = Stage::Done;
                return Poll::Ready(answer);
            }
            entry::Poll::Waiting => {}
            // R6: go on to something else.
            entry::Poll::Busy => cx.waker().wake_by_ref(),
        }
        // Polled without an answer: perhaps because time is up.
        let now = Nanos::now();
        if deadline > now {
            return Poll::Pending;
        }
        self.leave();
        let limit = self.limit();
        Poll::Ready(Err(CallError::deadline(limit, true)))
    }

    fn limit(&self) -> Duration {
        let of_runtime = self.peer.binding().node.config.call_deadline;
        self.timeout.unwrap_or(of_runtime)
    }

    /// Waits for an id and for room in the window, then sends.
    fn poll_crowded(&mut self, cx: &mut Context<'_>) -> Poll<Answer> {
        let Stage::Crowded(crowded) = &mut self.stage else {
            unreachable!("only called in this stage");
        };
        let binding = Arc::clone(self.peer.binding());
        match crowded.poll(&binding, cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(None)) => {
                self.stage = Stage::Done;
                let limit = self.limit();
                Poll::Ready(Err(CallError::deadline(limit, false)))
            }
            Poll::Ready(Err(Some(error))) => {
                self.stage = Stage::Done;
                Poll::Ready(Err(error))
            }
            Poll::Ready(Ok((id, body, deadline))) => self.send(id, body, deadline),
        }
    }

    /// The caller is gone, or has given up.
    fn leave(&mut self) {
        if let Stage::Sent { id, .. } = std::mem::replace(&mut self.stage, Stage::Done) {
            let binding = &self.peer.binding();
            if binding.pending.abandon(id) {
                binding.withdraw(id);
            }
        }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Crowded {
    /// Ready with what is needed to send, with an error, or with `None` for "the deadline passed".
    #[allow(clippy::type_complexity)]
    fn poll(
        &mut self,
        binding: &Arc<Binding>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(u32, Body, Nanos), Option<CallError>>> {
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
                    let body = std::mem::replace(&mut self.body, Body::EMPTY);
                    return Poll::Ready(Ok((id, body, self.deadline)));
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
        let bytes = self.body.window_bytes();
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
