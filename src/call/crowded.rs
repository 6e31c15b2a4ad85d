//! A call that waits for an id, or for room in the byte window: at home, before anything of it is sent.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use event_listener::EventListener;
use urpc_executor::Sleep;

use crate::binding::Binding;
use crate::error::CallError;
use crate::wire::Nanos;

/// A call that cannot be sent yet. It may cost an allocation and a timer.
pub(super) struct Crowded {
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

impl Crowded {
    pub(super) fn new(binding: Arc<Binding>, bytes: usize, deadline: Nanos) -> Self {
        Crowded {
            bytes,
            deadline,
            room: None,
            window: None,
            reserved: false,
            timer: None,
            binding,
        }
    }

    pub(super) fn deadline(&self) -> Nanos {
        self.deadline
    }

    /// Ready with an id, the room being reserved, with an error, or with `None` for "the deadline passed".
    pub(super) fn poll(
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
                if let Some(id) = binding.pending.begin(None, Some(cx.waker()), self.deadline) {
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
        let begins = self.window.is_none();
        let window = self.window.get_or_insert_with(|| {
            let binding = Arc::clone(binding);
            Box::pin(async move {
                let reserved = binding.channel.reserve(bytes).await;
                reserved.map_err(|_| binding.not_sent(&urpc_channel::Why::Closed))
            })
        });
        let polled = window.as_mut().poll(cx).map_err(Some);
        if begins && polled.is_pending() && !binding.node.works_here() {
            // A worker that goes to rest tells the peer that somebody waits. Those that rest already have not.
            binding.node.look();
        }
        polled
    }
}
