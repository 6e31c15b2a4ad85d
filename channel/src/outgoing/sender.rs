//! What the holder of a sending end does: from what is staged to slots, as far as there is room.

use std::time::Instant;

use super::{Item, Leaving, Sender, Wire};
use crate::buffers::keep_buffer;
use crate::frame::{self, Piece};
use crate::message::{Body, Head, Inline, Kind, Large, Message};
use crate::ring::{Slot, Words};
use crate::sync::HandOver;
use crate::violation::Violation;
use crate::window::Window;

impl Sender {
    pub(super) fn take_over(&mut self, handed: &HandOver<Item>) {
        while !handed.is_empty() {
            match handed.pop() {
                Some(item) => self.stage(item),
                None => return, // half pushed: its thread looks after it
            }
        }
    }

    #[inline(always)]
    pub(super) fn count(&mut self, kind: Kind) {
        self.answers += u64::from(matches!(kind, Kind::Reply | Kind::Failed));
    }

    pub(super) fn stage(&mut self, item: Item) {
        if let Item::Message(message) = &item {
            self.count(message.kind);
        }
        match item {
            Item::Message(message) if message.kind == Kind::Goodbye => self.goodbye = Some(message),
            Item::Message(Message {
                kind,
                id,
                procedure,
                deadline_ms,
                body: Body::Heap(large),
            }) => {
                let head = Head {
                    kind,
                    id,
                    procedure,
                    deadline_ms,
                };
                self.large.push_back(Leaving {
                    head,
                    large,
                    sent: 0,
                });
            }
            item => self.small.push_back(item),
        }
    }

    /// Whether there is a free slot, looking at the peer's index if need be.
    fn has_room(&mut self, peer: &impl Words) -> Result<bool, Violation> {
        if !self.producer.has_room() {
            self.refresh(peer)?;
        }
        Ok(self.producer.has_room())
    }

    fn refresh(&mut self, peer: &impl Words) -> Result<(), Violation> {
        self.producer.refresh(peer)?;
        self.free();
        Ok(())
    }

    /// The same, but only now and then, and timed.
    fn refresh_timed(&mut self, peer: &impl Words) -> Result<(), Violation> {
        if !self.distance.is_due() {
            return Ok(());
        }
        let (before, begin) = (self.producer.consumed(), Instant::now());
        self.producer.refresh(peer)?;
        let took = begin.elapsed();
        // Else the line may have been here before.
        if self.producer.consumed() != before {
            self.distance.learn(took);
        }
        self.free();
        Ok(())
    }

    /// What the peer has consumed can be used again.
    fn free(&mut self) {
        let consumed = self.producer.consumed();
        self.arena.free(consumed);
        self.arena.rewind();
        self.annex.arena.free(consumed);
    }

    /// Publishes what there is room for: the batch, small ones, then one piece of each large one in turn.
    /// True if nothing remains.
    pub(super) fn pump(
        &mut self,
        wire: &Wire<'_, impl Words, impl Words>,
        handed: &HandOver<Item>,
    ) -> Result<bool, Violation> {
        self.batch.publish(&mut self.producer, wire.own);
        loop {
            while !self.small.is_empty() {
                if !self.has_room(wire.peer)? {
                    return Ok(false);
                }
                let slot = match self.small.pop_front() {
                    Some(Item::Message(message)) => self.slot_of(&message, wire.window),
                    Some(Item::Withdraw(id)) => self.withdraw(id, wire.window),
                    None => break,
                };
                self.put(wire, &slot);
            }
            if self.large.is_empty() {
                let Some(goodbye) = self.goodbye.take() else {
                    return Ok(true);
                };
                self.small.push_back(Item::Message(goodbye));
            } else if !self.publish_piece(wire)? {
                return Ok(false);
            }
            self.take_over(handed);
        }
    }

    fn put(&mut self, wire: &Wire<'_, impl Words, impl Words>, slot: &Slot) {
        self.producer
            .publish(wire.own, (slot.tag, slot.word), &slot.payload);
    }

    fn slot_of(&mut self, message: &Message, window: &Window) -> Slot {
        match &message.body {
            _ if message.kind == Kind::Cancel => self.withdraw(message.id, window),
            Body::Inline(body) => slot(&message.head(), body),
            Body::Heap(_) => unreachable!("`stage` puts heap bodies elsewhere"),
        }
    }

    /// What tells the peer that call `id` is withdrawn. Drops what has not been sent of it.
    fn withdraw(&mut self, id: u32, window: &Window) -> Slot {
        let is_it = |large: &Leaving| large.head.kind == Kind::Call && large.head.id == id;
        match self
            .large
            .iter()
            .position(is_it)
            .and_then(|at| self.large.remove(at))
        {
            Some(leaving) => {
                if leaving.sent == 0 {
                    // The peer never heard of these bytes, so it will not free them.
                    window.unreserve(leaving.large.bytes.len());
                }
                frame::abort(id)
            }
            None => {
                let head = Head {
                    kind: Kind::Cancel,
                    id,
                    procedure: 0,
                    deadline_ms: 0,
                };
                slot(&head, &Inline::EMPTY)
            }
        }
    }

    /// A block for the next slot, looking at the peer's index if need be. `None` if there is no room.
    fn block(
        &mut self,
        peer: &impl Words,
        len: u32,
        annexed: bool,
    ) -> Result<Option<u32>, Violation> {
        let take = |sender: &mut Sender| {
            let arena = if annexed {
                &mut sender.annex.arena
            } else {
                &mut sender.arena
            };
            arena.take(sender.producer.next(), len)
        };
        let block = take(self);
        if block.is_some() {
            return Ok(block);
        }
        self.refresh(peer)?;
        Ok(take(self))
    }

    /// Publishes a large message that is one piece, if there is room for it.
    pub(super) fn put_whole(
        &mut self,
        wire: &Wire<'_, impl Words, impl Words>,
        head: &Head,
        large: &Large,
    ) -> bool {
        let total = large.bytes.len() as u32;
        if !frame::is_one_piece(total) || total > self.piece || !self.producer.has_room() {
            return false;
        }
        let Ok(Some(offset)) = wire.fate.judge(self.block(wire.peer, total, false)) else {
            return false;
        };
        self.put_piece(wire, head, large, (0, total), offset);
        true
    }

    /// Publishes `len` bytes from `position` on, by the block at `offset`.
    fn put_piece(
        &mut self,
        wire: &Wire<'_, impl Words, impl Words>,
        head: &Head,
        large: &Large,
        (position, len): (u32, u32),
        offset: u32,
    ) {
        let total = large.bytes.len() as u32;
        if position == 0 {
            wire.window.declare(total as usize);
        }
        let bytes = &large.bytes[position as usize..(position + len) as usize];
        let at = self.arena_at + offset as usize;
        let past_caches = len < total && self.distance.is_far();
        wire.own.copy_in(at, bytes, past_caches);
        let piece = Piece {
            head: *head,
            lead: large.lead,
            total,
            position,
            offset,
            len,
        };
        self.put(wire, &frame::piece(&piece));
    }

    /// Publishes one piece of the large message whose turn it is. False if there is no room for it.
    fn publish_piece(
        &mut self,
        wire: &Wire<'_, impl Words, impl Words>,
    ) -> Result<bool, Violation> {
        if !self.has_room(wire.peer)? {
            return Ok(false);
        }
        let Some(leaving) = self.large.front() else {
            return Ok(true);
        };
        let (total, position) = (leaving.large.bytes.len() as u32, leaving.sent);
        let piece = frame::piece_of(total).min(self.piece);
        let len = (total - position).min(piece);
        if position == 0 && len < total {
            self.refresh_timed(wire.peer)?;
        }
        let annexed = len < total && self.annex.is_open();
        let block = self.block(wire.peer, len, annexed)?;
        let (Some(offset), Some(mut leaving)) =
            (block, self.large.pop_front_if(|_| block.is_some()))
        else {
            return Ok(false);
        };
        let share = (position, len);
        self.put_piece(wire, &leaving.head, &leaving.large, share, offset);
        leaving.sent += len;
        if leaving.sent < total {
            self.large.push_back(leaving);
        } else {
            keep_buffer(leaving.large.bytes);
        }
        Ok(true)
    }
}

fn slot(head: &Head, body: &Inline) -> Slot {
    let (tag, word) = frame::whole(head, body.len());
    Slot {
        tag,
        word,
        payload: *body.payload(),
    }
}
