//! The future that a call is (§2.1, R10, R11).
//!
//! Beneath the procedure call everything is asynchronous: a call is a message in a ring and an entry
//! where its reply will be found; waiting is being not ready, like any other wait of a task.

mod crowded;

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use urpc_channel::{Body, Head, Kind};

use crate::binding::Binding;
use crate::caller;
use crate::entry;
use crate::error::{CallError, CallErrorKind, Executed};
use crate::linger;
use crate::note::note;
use crate::peer::Peer;
use crate::wire::{self, Nanos, Undecodable};
use crowded::Crowded;

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

impl Peer {
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
        let bytes = self.binding.pending.end(self.id);
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
            // Footnote 1, R16: perhaps its task need not be put to sleep, and woken.
            let lingers = linger::may(binding, cx.waker());
            let waker = (!lingers).then_some(cx.waker());
            match binding.pending.begin(waker, deadline) {
                Some(id) => {
                    if lingers {
                        linger::until_answered(binding, id);
                    }
                    return self.send(id, deadline);
                }
                None => binding.channel.unreserve(bytes),
            }
        }
        let crowded = Crowded::new(Arc::clone(binding), bytes, deadline);
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
        note!(Call, binding, id);
        if !binding.channel.post(head, &self.body)
            && let Err(error) = self.send_large(head)
        {
            return Poll::Ready(error);
        }
        self.stage = Stage::Sent(deadline);
        let binding = self.peer().binding();
        if !binding.node.works_here() {
            binding.sent_from_outside();
        } else if self.urgent || binding.node.config.urgent {
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
                note!(Resume, binding, id);
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
            Poll::Ready(Ok(id)) => self.send(id, crowded.deadline()),
        }
    }

    /// The caller is gone, or has given up.
    fn leave(&mut self) {
        if let Stage::Sent(_) = self.stage {
            self.stage = Stage::Done;
            let (binding, id) = (self.peer().binding(), self.id);
            match binding.pending.abandon(id) {
                Ok(()) => binding.withdraw(id),
                Err(bytes) => binding.channel.freed(bytes),
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
