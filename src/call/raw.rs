//! A call beneath its types: an entry that its reply will find, and a message in the ring.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use serde::de::DeserializeOwned;
use urpc_channel::{Body, Head, Kind};

use super::crowded::Crowded;
use crate::binding::Binding;
use crate::burst;
use crate::caller;
use crate::error::{CallError, CallErrorKind, Executed};
use crate::linger;
use crate::note::note;
use crate::peer::Peer;
use crate::spare::Handle;
use crate::wire::{self, Nanos, Undecodable};

/// A call without its types; or, between two calls, what one leaves to the next.
#[derive(Default)]
pub(crate) struct RawCall {
    /// `None` only between two calls.
    pub(crate) handle: Option<Handle>,
    pub(super) stage: Stage,
    pub(super) procedure: u16,
    /// Once it is sent.
    id: u32,
    pub(super) urgent: bool,
    pub(super) timeout: Option<Duration>,
    pub(super) rare: Option<Box<Rare>>,
    /// The arguments, until they are sent: small ones are copied from here into the ring, and nowhere else.
    pub(super) body: Body,
}

#[derive(Clone, Copy, Default)]
pub(super) enum Stage {
    /// Not polled yet.
    Lazy,
    /// Sent, or staged: the answer will come.
    Sent,
    /// As `rare` says.
    Rare,
    #[default]
    Done,
}

/// Where few calls get to, so that the others need not carry it about.
pub(super) enum Rare {
    /// Not polled yet, and not to be sent.
    Failed(CallError),
    /// Waits for an id, or for room in the byte window.
    Crowded(Crowded),
}

impl RawCall {
    /// Whether this is what calls to `peer` begin with.
    #[inline]
    pub(crate) fn is_of(&self, peer: &Peer) -> bool {
        self.handle.as_ref().is_some_and(|own| own.peer.is(peer))
    }

    /// Whether this is of `peer` or of nobody.
    #[inline]
    pub(crate) fn is_of_no_other_than(&self, peer: &Peer) -> bool {
        self.handle.as_ref().is_none_or(|own| own.peer.is(peer))
    }

    #[inline]
    pub(super) fn peer(&self) -> &Peer {
        &self.handle.as_ref().expect("it is a call").peer
    }

    pub(super) fn name(&self) -> &str {
        self.peer().binding().offered.name(self.procedure)
    }

    /// Looks for the answer to what is sent.
    #[inline(never)]
    pub(super) fn look<R: DeserializeOwned>(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<R, CallError>> {
        let handle = self.handle.as_mut().expect("it is a call");
        let binding = handle.peer.binding();
        let taken = binding.pending.take(self.id, |answer| {
            note!(Resume, binding, self.id);
            match answer {
                Ok(body) => {
                    // From here on its bytes are the caller's.
                    binding.channel.freed(body.window_bytes());
                    wire::decode(body, binding.node.config.caps.nesting).map_err(undecodable)
                }
                Err(error) => Err(error.clone()),
            }
        });
        let Some((reply, kept, bytes)) = taken else {
            return self.go_on(cx).map(Err);
        };
        binding.channel.freed(bytes);
        handle.id = Some(kept);
        self.stage = Stage::Done;
        match reply {
            Ok(reply) => Poll::Ready(Ok(reply)),
            Err(error) => Poll::Ready(Err(self.name_in(error))),
        }
    }

    /// Begins, or waits. Ready only with an error.
    #[inline(never)]
    pub(super) fn go_on(&mut self, cx: &mut Context<'_>) -> Poll<CallError> {
        let going = match self.stage {
            Stage::Lazy => self.begin(cx),
            Stage::Sent => self.wait(cx),
            _ => self.poll_rarely(cx),
        };
        going.map(|error| self.name_in(error))
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

    /// Says which call failed.
    #[cold]
    fn name_in(&self, error: CallError) -> CallError {
        error.of(self.name(), self.peer().name())
    }

    /// The first attempt: takes an id and room, and sends. Ready only with an error.
    #[inline]
    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<CallError> {
        let handle = self.handle.as_mut().expect("it is a call");
        let binding = handle.peer.binding();
        let bytes = self.body.window_bytes();
        if let Some(error) = refusal(binding, bytes) {
            self.stage = Stage::Done;
            return Poll::Ready(error);
        }
        let kept = handle.id.take();
        let chosen = chosen_deadline(binding, self.timeout);
        if binding.try_reserve(bytes) {
            // Footnote 1, R16: perhaps its task need not be put to sleep, and woken. Then it needs no default
            // deadline before that.
            let lingers = binding.node.works_here() && linger::may(binding, cx.waker());
            let deadline = match chosen {
                None if lingers => Nanos::NEVER,
                None => binding.default_deadline(),
                Some(chosen) => chosen,
            };
            let waker = (!lingers).then_some(cx.waker());
            match binding.pending.begin(kept, waker, deadline) {
                Some(id) => {
                    if lingers {
                        linger::until_answered(binding, id);
                    }
                    return self.send(id, chosen, deadline, lingers);
                }
                None => binding.channel.unreserve(bytes),
            }
        } else if let Some(kept) = kept {
            binding.pending.give_back(kept);
        }
        let deadline = chosen.unwrap_or_else(|| binding.default_deadline());
        let crowded = Crowded::new(Arc::clone(binding), bytes, deadline);
        self.stage = Stage::Done;
        self.poll_crowded(crowded, cx)
    }

    /// Publishes the request whose id and room are taken.
    #[inline]
    fn send(
        &mut self,
        id: u32,
        chosen: Option<Nanos>,
        deadline: Nanos,
        lingers: bool,
    ) -> Poll<CallError> {
        self.id = id;
        let head = Head {
            kind: Kind::Call,
            id,
            procedure: self.procedure,
            deadline_ms: chosen.map_or(0, |at| at.to_wire(Nanos::coarse())),
        };
        let binding = self.handle.as_ref().expect("it is a call").peer.binding();
        let works_here = binding.node.works_here();
        let urgent = self.urgent || binding.node.config.urgent;
        // Who lingers is alone. And a peer that sleeps begins with none of them before it is woken for all.
        let more =
            !lingers && works_here && !urgent && binding.presence().awake() && burst::goes_on();
        note!(Call, binding, id);
        if !binding.channel.post_with(head, &mut self.body, more)
            && let Err(error) = self.send_large(head)
        {
            return Poll::Ready(error);
        }
        self.stage = Stage::Sent;
        let binding = self.peer().binding();
        if !works_here {
            binding.sent_from_outside();
        } else {
            if binding.node.is_crowded() {
                binding.node.enliven(binding);
            }
            if urgent {
                binding.node.urge(binding);
            }
        }
        if deadline != Nanos::NEVER && binding.pending.is_earliest(deadline) {
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

    /// Polled without an answer: perhaps because time is up.
    #[cold]
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<CallError> {
        let binding = self.peer().binding();
        if !binding.pending.wait(self.id, cx.waker()) {
            cx.waker().wake_by_ref(); // R6: go on to something else
        }
        if binding.deadline(self.id) > Nanos::now() {
            return Poll::Pending;
        }
        self.leave();
        Poll::Ready(self.late(true))
    }

    /// Time is up.
    fn late(&self, sent: bool) -> CallError {
        let inherited = caller::inherited();
        if inherited <= Nanos::now() {
            return CallError::inherited_deadline(sent);
        }
        let of_runtime = self.peer().binding().node.config.call_deadline;
        CallError::deadline(self.timeout.unwrap_or(of_runtime), sent)
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
            Poll::Ready(Err(None)) => Poll::Ready(self.late(false)),
            Poll::Ready(Err(Some(error))) => Poll::Ready(error),
            Poll::Ready(Ok(id)) => {
                let chosen = chosen_deadline(&binding, self.timeout).map(|_| crowded.deadline());
                self.send(id, chosen, crowded.deadline(), false)
            }
        }
    }

    /// The call is over, one way or another.
    #[inline]
    pub(super) fn end(&mut self) {
        self.leave();
        self.urgent = false;
        self.timeout = None;
        self.rare = None;
        self.body.clear();
    }

    /// The caller is gone, or has given up.
    #[inline]
    fn leave(&mut self) {
        if let Stage::Sent = self.stage {
            self.stage = Stage::Done;
            let (binding, id) = (self.peer().binding(), self.id);
            match binding.pending.abandon(id) {
                Ok(()) => binding.withdraw(id),
                Err(bytes) => binding.channel.freed(bytes),
            }
        }
    }
}

/// Why a call of so many bytes cannot be made, as far as that is known without asking anybody.
#[inline]
fn refusal(binding: &Binding, bytes: usize) -> Option<CallError> {
    if bytes > binding.limits.max_payload as usize {
        return Some(too_large(bytes, binding.limits.max_payload));
    }
    binding.refusal()
}

/// The deadline of a call that is begun now, if it is not just the default one. Then it is the peer's business too.
#[inline]
fn chosen_deadline(binding: &Binding, timeout: Option<Duration>) -> Option<Nanos> {
    let inherited = caller::inherited();
    (timeout.is_some() || inherited != Nanos::NEVER).then(|| earliest(binding, timeout, inherited))
}

#[cold]
fn earliest(binding: &Binding, timeout: Option<Duration>, inherited: Nanos) -> Nanos {
    let own = match timeout {
        None => binding.default_deadline(),
        Some(after) => Nanos::now().after(after),
    };
    own.min(inherited)
}

#[cold]
fn too_large(bytes: usize, max: u32) -> CallError {
    let why = format!(
        "its arguments take {bytes} bytes, and no more than {max} can cross at once; send them in \
         several calls"
    );
    CallError::new(CallErrorKind::TooLarge, Executed::No, why)
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
