//! What came in: replies wake their callers, calls are dispatched, anything else is a rare thing.
//!
//! In two steps. Under the receiving end's lock a message is only sorted, in the order in which it was sent;
//! users' code (wakers and handlers) runs afterwards, when the end is free again.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;

use urpc_channel::{Kind, Message};

use super::Binding;
use crate::limits;
use crate::note::note;
use crate::pending::Answer;
use crate::serving::{Request, Waiting};
use crate::wire::Status;

/// What a receive leaves to be done; kept by each thread, so that it is allocated once.
#[derive(Default)]
pub(crate) struct Scratch {
    wakers: Vec<Waker>,
    calls: Vec<Waiting>,
}

impl Binding {
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

    /// Takes what a peer had sent before it went: whoever it answered is told, nobody is served.
    pub(super) fn receive_replies(&self) {
        let mut last = Scratch::default();
        let _ = self.channel.receive(usize::MAX, |message| {
            let _ = self.sort(message, &mut last);
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
        note!(Receive, self, id);
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
}

/// Texts are for the few; the many should not carry the code.
#[cold]
fn wrong(what: &str, id: u32) -> String {
    format!("it {what}: {id:#x}")
}
