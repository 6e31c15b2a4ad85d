//! What came in: replies wake their callers, calls are dispatched, anything else is a rare thing.
//!
//! In two steps. Under the receiving end's lock a message is only sorted, in the order in which it was sent;
//! users' code (wakers and handlers) runs afterwards, when the end is free again.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;

use urpc_channel::{Arrived, Head, Kind};

use super::Binding;
use crate::entry::Delivery;
use crate::limits;
use crate::note::note;
use crate::pending::Answer;
use crate::serving::{Request, Waiting};
use crate::wire::Status;

/// What a receive leaves to be done; kept by each thread, so that it is allocated once.
#[derive(Default)]
pub(crate) struct Scratch {
    wakers: Vec<Waker>,
    /// The first `begun` are calls, the others empty ones to be used again.
    calls: Vec<Waiting>,
    begun: usize,
}

impl Binding {
    /// Takes what has come in, and acts on it. True if there was anything.
    pub(crate) fn receive(self: &Arc<Self>, scratch: &mut Scratch) -> bool {
        let mut wrong = None;
        let taken = self.channel.receive_with(limits::BATCH, |head, body| {
            if let Err(text) = self.sort(head, body, scratch) {
                wrong.get_or_insert(text);
            }
        });
        let received = match (taken, wrong) {
            (Ok(count), None) => count > 0,
            (Err(violation), _) => self.break_off(&violation),
            (_, Some(wrong)) => self.break_off(&wrong),
        };
        // Two phases: nothing of this touches the ring, whose lines are still on their way.
        if scratch.begun == 0
            && scratch.wakers.len() == 1
            && let Some(waker) = scratch.wakers.pop()
        {
            urpc_executor::run_next(waker);
            return received;
        }
        for waker in scratch.wakers.drain(..) {
            waker.wake();
        }
        for waiting in &mut scratch.calls[..std::mem::take(&mut scratch.begun)] {
            if let Some(request) = Request::take_up(self, waiting) {
                self.offer.dispatch(request);
            }
        }
        received
    }

    /// Takes what a peer had sent before it went: whoever it answered is told, nobody is served.
    pub(super) fn receive_replies(&self) {
        let mut last = Scratch::default();
        let _ = self.channel.receive_with(usize::MAX, |head, body| {
            let _ = self.sort(head, body, &mut last);
        });
        for waker in last.wakers {
            waker.wake();
        }
    }

    #[cold]
    fn break_off(self: &Arc<Self>, wrong: &dyn fmt::Display) -> bool {
        self.close(&format!("it broke the protocol: {wrong}"));
        true
    }

    /// The quick part, under the receiving end's lock: what has to happen in order.
    #[inline(always)]
    fn sort(&self, head: Head, body: Arrived<'_>, scratch: &mut Scratch) -> Result<(), String> {
        match head.kind {
            Kind::Reply => self.deliver(head.id, body, scratch),
            Kind::Call => {
                // An id is free when its answer is on the way, so the credit alone does not bound answers
                // that nobody reads. An honest peer leaves us at most its calls to answer, and ours and
                // their cancels to send.
                if self.channel.backlog() > 4 * u64::from(self.limits.calls) {
                    return Err("it calls on and on without reading the answers".into());
                }
                self.begin(head, body, scratch)
            }
            _ => self.sort_rare(head, body, scratch),
        }
    }

    #[cold]
    fn sort_rare(
        &self,
        head: Head,
        body: Arrived<'_>,
        scratch: &mut Scratch,
    ) -> Result<(), String> {
        let id = head.id;
        match head.kind {
            Kind::Failed => {
                let body = body.into_body();
                let error = Status::into_error(head.procedure, body.as_slice());
                self.channel.freed(body.window_bytes());
                let error = error.ok_or_else(|| format!("status {} is none", head.procedure))?;
                let put = |answer: &mut Answer| *answer = Err(error);
                let delivery = self.pending.deliver(id, put);
                self.delivered(id, 0, delivery, scratch)?;
            }
            Kind::Cancel => self.serving.cancel(id),
            Kind::Aborted => {
                // Half of a request came, then its caller was gone. It is answered like any other.
                self.begin(head, body, scratch)?;
                self.serving.cancel(id);
            }
            Kind::Goodbye => self.leaving.store(true, Ordering::Release),
            other => return Err(format!("kind {other:?} is not for us")),
        }
        Ok(())
    }

    #[inline(always)]
    fn begin(&self, head: Head, body: Arrived<'_>, scratch: &mut Scratch) -> Result<(), String> {
        if !self.serving.begin(head.id) {
            return Err(wrong(
                "called with an id that is live or beyond the credit",
                head.id,
            ));
        }
        note!(Receive, self, head.id);
        if scratch.begun == scratch.calls.len() {
            scratch.calls.push(Waiting::EMPTY);
        }
        let waiting = &mut scratch.calls[scratch.begun];
        waiting.id = head.id;
        waiting.procedure = head.procedure;
        waiting.deadline_ms = head.deadline_ms;
        body.read_into(&mut waiting.body);
        scratch.begun += 1;
        Ok(())
    }

    #[inline(always)]
    fn deliver(&self, id: u32, body: Arrived<'_>, scratch: &mut Scratch) -> Result<(), String> {
        let bytes = body.window_bytes();
        let put = |answer: &mut Answer| match answer {
            Ok(place) => body.read_into(place),
            Err(_) => *answer = Ok(body.into_body()),
        };
        let delivery = self.pending.deliver(id, put);
        self.delivered(id, bytes, delivery, scratch)
    }

    #[inline(always)]
    fn delivered(
        &self,
        id: u32,
        bytes: usize,
        delivery: Delivery,
        scratch: &mut Scratch,
    ) -> Result<(), String> {
        match delivery {
            Delivery::Delivered(Some(waker)) => scratch.wakers.push(waker),
            Delivery::Delivered(None) => {}
            Delivery::Freed => self.channel.freed(bytes), // nobody will look at them
            Delivery::Unknown => return Err(wrong("answered what is no call", id)),
        }
        Ok(())
    }
}

/// Texts are for the few; the many should not carry the code.
#[cold]
fn wrong(what: &str, id: u32) -> String {
    format!("it {what}: {id:#x}")
}
