//! What came in: replies wake their callers, calls are dispatched, anything else is a rare thing.
//!
//! In two steps. Under the receiving end's lock a message is only sorted, in the order in which it was sent;
//! users' code (wakers and handlers) runs afterwards, when the end is free again.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;

use urpc_channel::{Arrived, Body, Head, Kind, Large, Sink};

use super::Binding;
use crate::entry::Delivery;
use crate::limits;
use crate::note::note;
use crate::pending::Answer;
use crate::quota::Client;
use crate::serving::{Request, Waiting};
use crate::wire::Status;
use crate::woken;

/// What a receive leaves to be done; kept by each thread, so that it is allocated once.
#[derive(Default)]
pub(crate) struct Scratch {
    wakers: Vec<Option<Waker>>,
    /// The first `begun` are calls, the others empty ones to be used again.
    calls: Vec<Waiting>,
    begun: usize,
}

impl Binding {
    /// Takes what has come in, and acts on it. True if there was anything.
    ///
    /// The first message alone: often there is no other, and then nothing is looked at before it has had its
    /// effect. The others in batches, each in two phases, because the lines of what follows are still on their way.
    #[inline(always)]
    pub(crate) fn receive(self: &Arc<Self>, scratch: &mut Scratch) -> bool {
        if !self.take_in(1, scratch) {
            return false;
        }
        let served = scratch.begun > 0;
        self.dispatch(scratch);
        // A reply that woke nobody has its caller waiting behind this very scan.
        if (served || !scratch.wakers.is_empty()) && self.channel.has_incoming() {
            self.take_in(limits::BATCH, scratch);
            self.dispatch(scratch);
        }
        if !scratch.wakers.is_empty() {
            scratch.wake(served);
        }
        true
    }

    /// Takes the answer to call `id`, whose caller waits for nothing else, if that is what comes next.
    #[inline]
    pub(crate) fn receive_answer(&self, id: u32) -> bool {
        let mut caller = None;
        let received = self.channel.receive_answer(id, |body| {
            // Whoever closes the channel may have answered it just now; that is as good.
            let delivery = self.pending.deliver(id, |answer| put(answer, body));
            if let Delivery::Delivered(waker) = delivery {
                caller = waker;
            }
        });
        if let Some(caller) = caller {
            caller.wake(); // the call has been moved, and is waited for elsewhere
        }
        if received {
            self.note_answers();
        }
        received
    }

    /// Sorts up to `max` messages. True if there was anything.
    #[inline(always)]
    fn take_in(self: &Arc<Self>, max: usize, scratch: &mut Scratch) -> bool {
        let mut sorter = Sorter {
            binding: self,
            scratch,
            wrong: None,
        };
        let taken = self.channel.receive_into(max, &mut sorter);
        match (taken, sorter.wrong) {
            (Ok(count), None) => count > 0,
            (Err(violation), _) => self.break_off(violation),
            (_, Some(wrong)) => self.break_off(wrong),
        }
    }

    /// Runs the calls that were sorted.
    #[inline(always)]
    fn dispatch(self: &Arc<Self>, scratch: &mut Scratch) {
        for waiting in &mut scratch.calls[..std::mem::take(&mut scratch.begun)] {
            let request = Request::new(self, waiting);
            if request.is_vain() {
                request.dismiss();
            } else {
                note!(Dispatch, self, request.id());
                self.offer.dispatch(request);
            }
        }
    }

    /// Takes what a peer had sent before it went: whoever it answered is told, nobody is served.
    pub(super) fn receive_replies(&self) {
        let mut last = Scratch::default();
        let mut sorter = Sorter {
            binding: self,
            scratch: &mut last,
            wrong: None,
        };
        let _ = self.channel.receive_into(usize::MAX, &mut sorter);
        for waker in last.wakers.into_iter().flatten() {
            waker.wake();
        }
    }

    #[cold]
    fn break_off(self: &Arc<Self>, wrong: impl fmt::Display) -> bool {
        // Of a channel that we have closed, the calls have an answer, and the peer may not know it yet.
        if self.is_closed() {
            return true;
        }
        let client = Client::of(self.process.credentials());
        self.node.keeper.offended(client);
        self.close(&format!("it broke the protocol: {wrong}"));
        true
    }
}

impl Scratch {
    /// Wakes those whose replies came; a single one is to run next, if nothing was `served` besides.
    #[inline(never)]
    fn wake(&mut self, served: bool) {
        match &self.wakers[..] {
            [Some(waker)] if !served => urpc_executor::run_next(waker),
            wakers => wakers.iter().flatten().for_each(Waker::wake_by_ref),
        }
        woken::keep(&mut self.wakers);
    }
}

/// The quick part of receiving, under the receiving end's lock: what has to happen in order.
struct Sorter<'a> {
    binding: &'a Binding,
    scratch: &'a mut Scratch,
    /// What the peer did wrong first. Boxed: it is for the few, and the many carry it about.
    wrong: Option<Box<str>>,
}

impl Sink for Sorter<'_> {
    #[inline(always)]
    fn small(&mut self, head: Head, body: Arrived<'_>) {
        match head.kind {
            Kind::Reply => {
                let put = |answer: &mut Answer| put(answer, body);
                let delivery = self.binding.pending.deliver(head.id, put);
                self.delivered(head.id, 0, delivery);
            }
            Kind::Call => {
                if let Some(place) = self.begin(head) {
                    body.read_into(place);
                }
            }
            _ => self.rare(head, body.into_body()),
        }
    }

    #[cold]
    fn large(&mut self, head: Head, body: Large) {
        self.binding.note_crossing(body.bytes.len());
        let body = Body::Heap(body);
        match head.kind {
            Kind::Reply => {
                let bytes = body.window_bytes();
                let put = |answer: &mut Answer| *answer = Ok(body);
                let delivery = self.binding.pending.deliver(head.id, put);
                self.delivered(head.id, bytes, delivery);
            }
            Kind::Call => {
                let bytes = body.window_bytes() as u32;
                if let Some(place) = self.begin(head) {
                    *place = body;
                    self.binding.serving.note_bytes(head.id, bytes);
                }
            }
            _ => self.rare(head, body),
        }
    }

    fn admits(&mut self, head: &Head, bytes: u32) -> bool {
        match head.kind {
            Kind::Call => self.binding.holding.take(bytes),
            // Room for the answer was made with the call.
            _ => {
                let awaits = self.binding.pending.awaits(head.id);
                if !awaits {
                    self.is_wrong("begins to answer what is no call:", head.id);
                }
                awaits
            }
        }
    }

    fn withdrawn(&mut self, bytes: u32) {
        self.binding.holding.give(bytes.into());
    }
}

impl Sorter<'_> {
    /// A call has come in: where its arguments are to be put.
    #[inline(always)]
    fn begin(&mut self, head: Head) -> Option<&mut Body> {
        // An id is free when its answer is on the way, so the credit alone does not bound answers
        // that nobody reads. An honest peer leaves us at most its calls to answer, and ours and
        // their cancels to send.
        if self.binding.channel.backlog() > 4 * u64::from(self.binding.limits.calls) {
            self.is_wrong("calls on and on without reading the answers, call", head.id);
            return None;
        }
        if !self.binding.serving.begin(head.id) {
            self.is_wrong(
                "called with an id that is live or beyond the credit:",
                head.id,
            );
            return None;
        }
        note!(Receive, self.binding, head.id);
        let Scratch { calls, begun, .. } = &mut *self.scratch;
        if *begun == calls.len() {
            one_more(calls);
        }
        let waiting = &mut calls[*begun];
        waiting.id = head.id;
        waiting.procedure = head.procedure;
        waiting.deadline_ms = head.deadline_ms;
        *begun += 1;
        Some(&mut waiting.body)
    }

    #[inline(always)]
    fn delivered(&mut self, id: u32, bytes: usize, delivery: Delivery) {
        match delivery {
            Delivery::Delivered(None) => {}
            Delivery::Delivered(waker) => self.scratch.wakers.push(waker),
            Delivery::Freed => self.binding.channel.freed(bytes), // nobody will look at them
            Delivery::Unknown => self.is_wrong("answered what is no call:", id),
        }
    }

    #[cold]
    fn rare(&mut self, head: Head, body: Body) {
        let binding = self.binding;
        let id = head.id;
        match head.kind {
            Kind::Failed => {
                let error = Status::into_error(head.procedure, body.as_slice());
                binding.channel.freed(body.window_bytes());
                let Some(error) = error else {
                    return self.is_wrong("gave a status that is none with its answer to", id);
                };
                let put = |answer: &mut Answer| *answer = Err(error);
                let delivery = binding.pending.deliver(id, put);
                self.delivered(id, 0, delivery);
            }
            Kind::Cancel => binding.serving.cancel(id),
            Kind::Aborted => {
                // Half of a request came, then its caller was gone. It is answered like any other.
                if let Some(place) = self.begin(head) {
                    *place = body;
                    binding.serving.cancel(id);
                }
            }
            Kind::Refused => {
                if let Some(place) = self.begin(head) {
                    *place = body;
                    binding.serving.note_too_much(id);
                }
            }
            Kind::Goodbye => binding.leaving.store(true, Ordering::Release),
            _ => self.is_wrong("sent what is not for us:", id),
        }
    }

    #[cold]
    fn is_wrong(&mut self, what: &str, id: u32) {
        self.wrong
            .get_or_insert_with(|| format!("it {what} {id:#x}").into());
    }
}

/// Puts a small answer where it is to stay.
#[inline(always)]
fn put(answer: &mut Answer, body: Arrived<'_>) {
    match answer {
        Ok(place) => body.read_into(place),
        Err(_) => *answer = Ok(body.into_body()),
    }
}

#[cold]
fn one_more(calls: &mut Vec<Waiting>) {
    calls.push(Waiting::EMPTY);
}
