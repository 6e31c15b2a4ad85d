//! The one answer that a request gets, and where it waits if the peer does not read.
//!
//! A small one goes into the ring. One that needs room in the window goes, too, if it has that room and nothing waits
//! before it; else its bytes count as held for the peer, until it is published.

use std::sync::Arc;

use urpc_channel::{Body, Head, INLINE, Kind, Message};

use super::keep;
use crate::binding::Binding;
use crate::limits;
use crate::note::note;
use crate::wire::{MAX_TEXT, Status};

/// The one answer of call `id`: its result.
#[inline]
pub(super) fn answer(binding: &Arc<Binding>, id: u32, body: &mut Body) {
    note!(Reply, binding, id);
    let head = Head {
        kind: Kind::Reply,
        id,
        procedure: 0,
        deadline_ms: 0,
    };
    let bytes = body.window_bytes();
    if bytes != 0 && !may_go(binding, bytes) {
        return answer_large(binding, head.with(body.take()));
    }
    binding.end_call(id);
    if !binding.channel.post(head, body) {
        binding.send(head.with(body.take()));
    }
}

/// Whether an answer that needs room in the window has it, and is likely to be published at once.
fn may_go(binding: &Binding, bytes: usize) -> bool {
    let most = limits::LARGE.min(binding.limits.max_payload as usize + 1);
    bytes < most && !binding.channel.staged() && binding.try_reserve(bytes)
}

/// The one answer of call `id`: why there is no result.
#[cold]
pub(super) fn fail(binding: &Arc<Binding>, id: u32, status: Status, text: &str) {
    note!(Reply, binding, id);
    let most = MAX_TEXT.min(INLINE.max(binding.limits.max_payload as usize));
    let shown = &text.as_bytes()[..text.len().min(most)];
    let message = Message {
        kind: Kind::Failed,
        id,
        procedure: status as u16,
        deadline_ms: 0,
        body: Body::from_slice(shown),
    };
    answer_large(binding, message);
}

/// Sends an answer that may have to be held until the peer reads.
fn answer_large(binding: &Arc<Binding>, message: Message) {
    let (id, bytes) = (message.id, message.body.window_bytes());
    let max = binding.limits.max_payload;
    if bytes > max as usize {
        let text = format!("its reply has {bytes} bytes, and no more than {max} can cross at once");
        return fail(binding, id, Status::ReplyTooLarge, &text);
    }
    if binding.holding.take(bytes as u32) {
        if binding.try_reserve(bytes) {
            return binding.send_held(message);
        }
        // The window is full.
        let turn = binding.serving.turn(id);
        let held = HeldReply {
            binding: Arc::clone(binding),
            message: Some(message),
        };
        keep(binding, (id, turn), binding.node.spawn(held.send()));
    } else if message.kind == Kind::Reply {
        fail(binding, id, Status::NoRoom, NO_ROOM);
    } else {
        // A text, which can be done without.
        let body = Body::EMPTY;
        binding.end_call(id);
        binding.send(Message { body, ..message });
    }
}

/// A reply that waits for room in the window, in a task of its own. Its call is live until then.
struct HeldReply {
    binding: Arc<Binding>,
    message: Option<Message>,
}

impl HeldReply {
    async fn send(mut self) {
        let bytes = self.bytes();
        let reserved = self.binding.channel.reserve(bytes).await;
        if reserved.is_ok()
            && let Some(message) = self.message.take()
        {
            self.binding.send_held(message);
        }
    }

    /// What it takes of what may be held for the peer.
    fn bytes(&self) -> usize {
        let bytes = |message: &Message| message.body.window_bytes();
        self.message.as_ref().map_or(0, bytes)
    }
}

impl Drop for HeldReply {
    fn drop(&mut self) {
        let bytes = self.bytes();
        if let Some(message) = self.message.take() {
            self.binding.holding.give(bytes as u64);
            fail(&self.binding, message.id, Status::Abandoned, GIVEN_UP);
        }
    }
}

/// Texts that need no room themselves: the channel may be closed, or full.
const NO_ROOM: &str = "its reply finds no room (`Builder::max_bytes`)";
const GIVEN_UP: &str = "it ended before its reply could be sent";
const _: () = assert!(NO_ROOM.len() <= INLINE && GIVEN_UP.len() <= INLINE);
