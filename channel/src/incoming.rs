//! The receiving end: from the peer's ring to whole messages, each word looked at once.
//!
//! What a peer can make us hold is bounded: bytes by the window, half-sent messages by twice the calls. A
//! peer that goes beyond, or contradicts itself, is a [`Violation`]; then its ring is not read again.

use std::collections::HashMap;

use crate::buffers::{take_buffer_for, take_kept_for};
use crate::channel::Limits;
use crate::end::End;
use crate::frame::{self, Part, Piece};
use crate::layout::{ANNEX, FREED_AT, Geometry};
use crate::message::{Arrived, Head, Kind, Large, Sink};
use crate::ring::{Consumer, Slot, SlotWords, Words, is_published};
use crate::sync::{AtomicBool, AtomicU64, Ordering};
use crate::violation::Violation;

#[derive(Debug)]
pub(crate) struct Incoming {
    /// Where the holder will look next; for those who only ask whether there is something.
    next: AtomicU64,
    /// Part of a large message has come. Written by the holder.
    is_underway: AtomicBool,
    /// The peer may use its annex.
    is_annexed: AtomicBool,
    geometry: Geometry,
    limits: Limits,
    end: End<Receiver>,
}

#[derive(Debug)]
struct Receiver {
    consumer: Consumer,
    /// The one that grew last.
    current: Option<Partial>,
    /// The others. A call and a reply may have the same id: each side numbers its own calls.
    partials: HashMap<(Kind, u32), Partial>,
    /// Bytes of large messages that the peer has announced, ever.
    declared: u64,
}

#[derive(Debug)]
struct Partial {
    head: Head,
    total: u32,
    /// Bytes that have come.
    come: u32,
    /// These bytes; `None` if the sink does not want them.
    large: Option<Large>,
}

impl Incoming {
    /// `geometry` is the peer's.
    pub(crate) fn new(geometry: Geometry, limits: Limits) -> Incoming {
        let consumer = Consumer::new(geometry.slots);
        let end = End::new(Receiver {
            consumer,
            current: None,
            partials: HashMap::new(),
            declared: 0,
        });
        Incoming {
            next: AtomicU64::new(0),
            is_underway: AtomicBool::new(false),
            is_annexed: AtomicBool::new(false),
            geometry,
            limits,
            end,
        }
    }

    /// Pieces may lie in the peer's annex from now on, which is there.
    pub(crate) fn open_annex(&self) {
        self.is_annexed.store(true, Ordering::Relaxed);
    }

    /// Slots taken, ever.
    #[inline(always)]
    pub(crate) fn taken(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// Whether a part of a large message has come, and the rest not yet.
    pub(crate) fn is_underway(&self) -> bool {
        self.is_underway.load(Ordering::Relaxed)
    }

    /// One relaxed look at the next slot. Another thread's `receive` in progress can make it say yes for a slot
    /// that is just being taken.
    #[inline(always)]
    pub(crate) fn has_more(&self, peer: &impl Words) -> bool {
        is_published(peer, self.next.load(Ordering::Relaxed), self.geometry.slots)
    }

    /// Takes up to `max` whole messages; 0 if another thread has the end. The slots are told free at the end. With a
    /// `max` of 1 no other slot is touched.
    #[inline(always)]
    pub(crate) fn receive(
        &self,
        own: &impl Words,
        peer: &impl Words,
        max: usize,
        sink: &mut impl Sink,
    ) -> Result<usize, Violation> {
        let Some(mut receiver) = self.end.try_take() else {
            return Ok(0);
        };
        let receiver = &mut *receiver;
        let mut count = 0;
        let mut result = Ok(());
        // Not more than one lap of slots, so that pieces cannot keep us here.
        let stop = receiver.consumer.next() + u64::from(self.geometry.slots);
        while count < max && receiver.consumer.next() < stop {
            let Some(taken) = receiver.consumer.take(peer) else {
                break;
            };
            if max > 1 {
                receiver.consumer.prefetch(peer);
            }
            if let Some((head, len)) = frame::message(taken.tag, taken.word) {
                let payload = taken.slot.payload();
                sink.small(head, Arrived { payload, len });
                count += 1;
            } else {
                match self.part(receiver, own, peer, &taken.copied(), sink) {
                    // The sender may be waiting for its room.
                    Ok(false) => receiver.consumer.tell(own),
                    Ok(true) => count += 1,
                    Err(violation) => {
                        result = Err(violation);
                        break;
                    }
                }
            }
        }
        receiver.consumer.tell(own);
        self.next.store(receiver.consumer.next(), Ordering::Relaxed);
        result.map(|()| count)
    }

    /// Takes the next message if it is the answer to call `id` and small: `put` gets its body. False if it is not, or
    /// is not there, or another thread has the end.
    #[inline(always)]
    pub(crate) fn receive_answer(
        &self,
        own: &impl Words,
        peer: &impl Words,
        id: u32,
        put: impl FnOnce(Arrived<'_>),
    ) -> bool {
        let Some(mut receiver) = self.end.try_take() else {
            return false;
        };
        let consumer = &mut receiver.consumer;
        let Some(taken) = consumer.peek(peer) else {
            return false;
        };
        match frame::message(taken.tag, taken.word) {
            Some((head, len)) if head.kind == Kind::Reply && head.id == id => {
                let payload = taken.slot.payload();
                put(Arrived { payload, len });
            }
            _ => return false,
        }
        consumer.pass();
        consumer.tell(own);
        self.next.store(consumer.next(), Ordering::Relaxed);
        true
    }

    /// Takes a slot that is no whole message. True if one is whole now.
    #[cold]
    #[inline(never)]
    fn part(
        &self,
        receiver: &mut Receiver,
        own: &impl Words,
        peer: &impl Words,
        slot: &Slot,
        sink: &mut impl Sink,
    ) -> Result<bool, Violation> {
        let annex = if self.is_annexed.load(Ordering::Relaxed) {
            ANNEX
        } else {
            0
        };
        let places = (self.geometry.arena, annex);
        let whole = match Part::parse(slot, places, self.limits.max_payload)? {
            Part::Piece(piece) if piece.len == piece.total && !receiver.is_underway() => {
                let wanted = self.announce(receiver, own, &piece.head, piece.total, sink)?;
                let large = wanted.then(|| self.whole(peer, &piece));
                Some(finish(own, piece.head, piece.total, large))
            }
            Part::Piece(piece) => self.add(receiver, own, peer, piece, sink)?,
            Part::Abort { id } => Some((receiver.abort(id, own, sink), Large::default())),
        };
        let is_whole = whole.is_some();
        self.is_underway
            .store(receiver.is_underway(), Ordering::Relaxed);
        if let Some((head, large)) = whole {
            sink.large(head, large);
        }
        Ok(is_whole)
    }

    /// What came in one piece.
    fn whole(&self, peer: &impl Words, piece: &Piece) -> Large {
        let mut bytes = take_buffer_for(piece.len as usize);
        self.copy_out(peer, piece, &mut bytes);
        let lead = piece.lead;
        Large { bytes, lead }
    }

    fn copy_out(&self, peer: &impl Words, piece: &Piece, bytes: &mut Vec<u8>) {
        let at = self.geometry.arena_at() + piece.offset as usize;
        peer.copy_out(at, piece.len as usize, bytes);
    }

    /// Adds a piece to its message, and returns that if it is whole now.
    fn add(
        &self,
        receiver: &mut Receiver,
        own: &impl Words,
        peer: &impl Words,
        piece: Piece,
        sink: &mut impl Sink,
    ) -> Result<Option<(Head, Large)>, Violation> {
        let Piece {
            head,
            lead,
            total,
            position,
            len,
            ..
        } = piece;
        let is_known = receiver.take_up(&head);
        if position == 0 {
            if is_known {
                return Err(Violation::Repeated(head.id));
            }
            self.begin(receiver, own, head, lead, total, sink)?;
        }
        let Some(partial) = receiver.current.as_mut().filter(|p| p.is_of(&head)) else {
            return Err(Violation::Orphan(head.id));
        };
        let (expected, expected_total) = (partial.come, partial.total);
        if (position, total) != (expected, expected_total) {
            return Err(Violation::Position {
                id: head.id,
                position,
                total,
                expected,
                expected_total,
            });
        }
        partial.come += len; // `frame` has checked that it ends within the total
        if let Some(Large { bytes, .. }) = &mut partial.large {
            make_room(bytes, len as usize, total as usize);
            self.copy_out(peer, &piece, bytes);
        }
        if partial.come < total {
            return Ok(None);
        }
        let whole = receiver.current.take();
        Ok(whole.map(|Partial { head, large, .. }| finish(own, head, total, large)))
    }

    fn begin(
        &self,
        receiver: &mut Receiver,
        own: &impl Words,
        head: Head,
        lead: u8,
        total: u32,
        sink: &mut impl Sink,
    ) -> Result<(), Violation> {
        receiver.put_aside();
        if receiver.partials.len() >= 2 * self.limits.calls as usize {
            return Err(Violation::Partials(receiver.partials.len()));
        }
        let wanted = self.announce(receiver, own, &head, total, sink)?;
        let large = wanted.then(|| Large {
            bytes: take_kept_for(total as usize),
            lead,
        });
        receiver.current = Some(Partial {
            head,
            total,
            come: 0,
            large,
        });
        Ok(())
    }

    /// A message of `total` bytes begins to come. True if they are to be held.
    fn announce(
        &self,
        receiver: &mut Receiver,
        own: &impl Words,
        head: &Head,
        total: u32,
        sink: &mut impl Sink,
    ) -> Result<bool, Violation> {
        // `FREED_AT` is our own word: the peer cannot have changed it, and has seen at most what we see.
        let held = receiver.declared.saturating_sub(own.load(FREED_AT));
        let window = self.limits.window;
        if held + u64::from(total) > window {
            return Err(Violation::Window {
                total,
                held,
                window,
            });
        }
        receiver.declared += u64::from(total);
        Ok(sink.admits(head, total))
    }
}

/// The message of which the last piece has come; its bytes, if they were to be held.
fn finish(own: &impl Words, head: Head, total: u32, large: Option<Large>) -> (Head, Large) {
    match large {
        Some(large) => (head, large),
        None => {
            own.add(FREED_AT, total.into());
            let kind = Kind::Refused;
            (Head { kind, ..head }, Large::default())
        }
    }
}

impl Partial {
    fn is_of(&self, head: &Head) -> bool {
        (self.head.kind, self.head.id) == (head.kind, head.id)
    }
}

impl Receiver {
    fn is_underway(&self) -> bool {
        self.current.is_some() || !self.partials.is_empty()
    }

    /// Makes the message of `head` the current one. False if nothing of it has come yet.
    fn take_up(&mut self, head: &Head) -> bool {
        if self
            .current
            .as_ref()
            .is_some_and(|current| current.is_of(head))
        {
            return true;
        }
        if self.partials.is_empty() {
            return false; // the usual case, for which nothing is hashed
        }
        let Some(partial) = self.partials.remove(&(head.kind, head.id)) else {
            return false;
        };
        self.put_aside();
        self.current = Some(partial);
        true
    }

    fn put_aside(&mut self) {
        if let Some(partial) = self.current.take() {
            let key = (partial.head.kind, partial.head.id);
            self.partials.insert(key, partial);
        }
    }

    /// Drops what has come of call `id`. There may be nothing: then it was withdrawn before its first piece.
    fn abort(&mut self, id: u32, own: &impl Words, sink: &mut impl Sink) -> Head {
        let mut head = Head {
            kind: Kind::Call,
            id,
            procedure: 0,
            deadline_ms: 0,
        };
        if self.take_up(&head)
            && let Some(partial) = self.current.take()
        {
            own.add(FREED_AT, partial.total.into());
            if partial.large.is_some() {
                sink.withdrawn(partial.total);
            }
        }
        head.kind = Kind::Aborted;
        head
    }
}

/// Bytes of a large message that room is made for when its first piece has come, and how many times what has come by
/// then there is room for afterwards: so all but the largest are moved once, and early. The rest is only claimed.
const AT_ONCE: usize = 128 * 1024;
const MUCH_MORE: usize = 16;

/// Makes room for `len` more of `total` bytes.
fn make_room(bytes: &mut Vec<u8>, len: usize, total: usize) {
    let come = bytes.len() + len;
    if bytes.capacity() < come {
        let room = AT_ONCE.max(MUCH_MORE * bytes.len()).clamp(come, total);
        bytes.reserve_exact(room - bytes.len());
    }
}
