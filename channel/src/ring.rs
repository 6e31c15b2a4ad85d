//! One direction of a channel: a ring of 64-byte slots with one producer and one consumer, in memory that
//! only the producer's process can write.
//!
//! A slot's header carries the slot's index, so the consumer polls the slot itself: a message crosses in
//! one cache line. The slots `consumed..next` are the consumer's, all others the producer's; `consumed` is
//! told in the consumer's own outbox. Both indices count for ever and are private; what a peer says about
//! its own is a claim, looked at once and checked.

use crate::layout::*;
use crate::message::{InRing, Payload};
use crate::outbox::{Inbox, Outbox};
use crate::region::Line;
use crate::sync::{Ordering, fence};
use crate::violation::Violation;

/// The memory a protocol runs on: regions, or loom's atomics.
///
/// Offsets are those of `layout`. All is Relaxed unless it says otherwise.
pub(crate) trait Words {
    type Slot<'a>: SlotWords
    where
        Self: 'a;

    fn load(&self, at: usize) -> u64;
    /// A store with Release.
    fn publish(&self, at: usize, word: u64);
    /// Adds to a word of our own, with Release; several threads of this process may.
    fn add(&self, at: usize, amount: u64);
    fn slot(&self, at: usize) -> Self::Slot<'_>;
    /// `past_caches`: as [`Region::copy_in`](crate::region::Region::copy_in).
    fn copy_in(&self, at: usize, bytes: &[u8], past_caches: bool);
    fn copy_out(&self, at: usize, len: usize, out: &mut Vec<u8>);
    /// As [`Region::fill`](crate::region::Region::fill), for the annex.
    fn fill_annex(&self, to_write: bool) -> bool;
    fn prefetch(&self, at: usize, write: bool);
}

/// A slot of a ring, where it lies.
pub(crate) trait SlotWords {
    fn header(&self) -> u64;
    fn word(&self) -> u64;
    fn payload(&self) -> InRing<'_>;
    /// Stores all of it, and the header last, with Release.
    fn publish(&self, header: u64, word: u64, payload: &Payload);
}

impl SlotWords for Line<'_> {
    #[inline(always)]
    fn header(&self) -> u64 {
        self.word_at::<0>().load(Ordering::Relaxed)
    }
    #[inline(always)]
    fn word(&self) -> u64 {
        self.word_at::<1>().load(Ordering::Relaxed)
    }
    #[inline(always)]
    fn payload(&self) -> InRing<'_> {
        InRing::Slot(*self)
    }
    #[inline(always)]
    fn publish(&self, header: u64, word: u64, payload: &Payload) {
        self.word_at::<1>().store(word, Ordering::Relaxed);
        self.store_payload(payload);
        self.word_at::<0>().store(header, Ordering::Release);
    }
}

macro_rules! words_of_region {
    ($of:ty) => {
        impl Words for $of {
            type Slot<'a> = Line<'a>;

            #[inline(always)]
            fn load(&self, at: usize) -> u64 {
                self.region.u64(at).load(Ordering::Relaxed)
            }
            #[inline(always)]
            fn publish(&self, at: usize, word: u64) {
                self.region.u64(at).store(word, Ordering::Release);
            }
            fn add(&self, at: usize, amount: u64) {
                self.region.u64(at).fetch_add(amount, Ordering::Release);
            }
            #[inline(always)]
            fn slot(&self, at: usize) -> Line<'_> {
                self.region.line(at)
            }
            fn copy_in(&self, at: usize, bytes: &[u8], past_caches: bool) {
                match at.checked_sub(self.region.len()) {
                    None => self.region.copy_in(at, bytes, past_caches),
                    Some(at) => self.annex.copy_in(at, bytes, past_caches),
                }
            }
            fn copy_out(&self, at: usize, len: usize, out: &mut Vec<u8>) {
                match at.checked_sub(self.region.len()) {
                    None => self.region.copy_out(at, len, out),
                    Some(at) => self.annex.copy_out(at, len, out),
                }
            }
            fn fill_annex(&self, to_write: bool) -> bool {
                self.annex.fill(to_write)
            }
            #[inline(always)]
            fn prefetch(&self, at: usize, write: bool) {
                self.region.prefetch(at, write);
            }
        }
    };
}
words_of_region!(Outbox);
words_of_region!(Inbox);

/// What a slot says, but for its sequence: the header's upper half, the second word, the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) tag: u32,
    pub(crate) word: u64,
    pub(crate) payload: Payload,
}

/// A published slot, of which the payload still lies in the ring.
#[derive(Debug)]
pub(crate) struct Taken<S> {
    pub(crate) tag: u32,
    pub(crate) word: u64,
    pub(crate) slot: S,
}

impl<S: SlotWords> Taken<S> {
    /// All of it, copied.
    pub(crate) fn copied(&self) -> Slot {
        let mut payload = Payload::ZERO;
        self.slot.payload().copy(&mut payload);
        Slot {
            tag: self.tag,
            word: self.word,
            payload,
        }
    }
}

/// How many slots ahead the producer asks for the cache line: beyond the one that the consumer polls.
const AHEAD: u64 = 4;

#[inline(always)]
fn slot_at(index: u64, slots: u32) -> usize {
    RING_AT + (index & u64::from(slots - 1)) as usize * LINE
}

/// The slot with `index`, whichever lap: a zeroed slot or one of another lap never has it.
#[inline(always)]
fn sequence(index: u64) -> u32 {
    index.wrapping_add(1) as u32
}

/// The producer's private state.
#[derive(Debug)]
pub(crate) struct Producer {
    slots: u32,
    next: u64,
    /// The peer's `consumed` when last looked at; it is looked at only when the ring seems full, so that
    /// the line is not dragged from core to core.
    consumed: u64,
}

impl Producer {
    pub(crate) fn new(slots: u32) -> Producer {
        Producer {
            slots,
            next: 0,
            consumed: 0,
        }
    }

    /// Slots published, ever.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Slots that the peer is known to have consumed, ever.
    pub(crate) fn consumed(&self) -> u64 {
        self.consumed
    }

    /// Whether there is a free slot, as far as is known without looking.
    #[inline(always)]
    pub(crate) fn has_room(&self) -> bool {
        self.has_room_after(0)
    }

    /// Whether there is one more after so many others.
    #[inline(always)]
    pub(crate) fn has_room_after(&self, others: usize) -> bool {
        self.next + others as u64 - self.consumed < u64::from(self.slots)
    }

    /// Looks how far the peer has come.
    pub(crate) fn refresh(&mut self, peer: &impl Words) -> Result<(), Violation> {
        let claimed = peer.load(CONSUMED_AT);
        // Pairs with the Release in `Consumer::tell`: the peer's copies out of the slots and blocks that we
        // are about to write again are done.
        fence(Ordering::Acquire);
        if claimed < self.consumed || claimed > self.next {
            let (known, published) = (self.consumed, self.next);
            return Err(Violation::Consumed {
                claimed,
                known,
                published,
            });
        }
        self.consumed = claimed;
        Ok(())
    }

    /// Publishes a slot. There is room.
    #[inline(always)]
    pub(crate) fn publish(&mut self, own: &impl Words, (tag, word): (u32, u64), payload: &Payload) {
        debug_assert!(self.has_room());
        let header = u64::from(sequence(self.next)) | u64::from(tag) << 32;
        // The Release pairs with the fence in `Consumer::take`: whoever sees the header sees the slot, and the
        // block of the arena it names. Loom checks this as `a_slot_is_published_whole`.
        own.slot(slot_at(self.next, self.slots))
            .publish(header, word, payload);
        self.next += 1;
        own.prefetch(slot_at(self.next + AHEAD, self.slots), true);
    }
}

/// Whether the slot with `index` has been published: one relaxed look.
#[inline(always)]
pub(crate) fn is_published(peer: &impl Words, index: u64, slots: u32) -> bool {
    peer.load(slot_at(index, slots)) as u32 == sequence(index)
}

/// The consumer's private state.
#[derive(Debug)]
pub(crate) struct Consumer {
    slots: u32,
    next: u64,
    told: u64,
}

impl Consumer {
    pub(crate) fn new(slots: u32) -> Consumer {
        Consumer {
            slots,
            next: 0,
            told: 0,
        }
    }

    /// Slots taken, ever.
    #[inline(always)]
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// The next slot, if it is there. It stays as it is until it is [passed](Self::pass), and the peer
    /// [told](Self::tell) so.
    #[inline(always)]
    pub(crate) fn peek<'a, W: Words>(&self, peer: &'a W) -> Option<Taken<W::Slot<'a>>> {
        let slot = peer.slot(slot_at(self.next, self.slots));
        let header = slot.header();
        if header as u32 != sequence(self.next) {
            return None;
        }
        // Pairs with the Release in `Producer::publish`.
        fence(Ordering::Acquire);
        Some(Taken {
            tag: (header >> 32) as u32,
            word: slot.word(),
            slot,
        })
    }

    /// The next slot is done with.
    #[inline(always)]
    pub(crate) fn pass(&mut self) {
        self.next += 1;
    }

    /// Takes the next slot, if it is there.
    #[inline(always)]
    pub(crate) fn take<'a, W: Words>(&mut self, peer: &'a W) -> Option<Taken<W::Slot<'a>>> {
        let taken = self.peek(peer);
        self.next += u64::from(taken.is_some());
        taken
    }

    /// Asks for the line of the slot after the next one.
    #[inline(always)]
    pub(crate) fn prefetch(&self, peer: &impl Words) {
        peer.prefetch(slot_at(self.next + 1, self.slots), false);
    }

    /// Tells the peer which slots it may use again, if there are any new ones.
    #[inline(always)]
    pub(crate) fn tell(&mut self, own: &impl Words) {
        if self.told != self.next {
            self.told = self.next;
            // Pairs with the fence in `Producer::refresh`.
            own.publish(CONSUMED_AT, self.next);
        }
    }
}

#[cfg(all(test, not(urpc_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_is_its_own_on_every_lap_up_to_the_wrap_of_32_bits() {
        assert_ne!(sequence(0), 0);
        for slots in [2u64, 256, 4096] {
            for index in [
                0,
                1,
                slots,
                u64::from(u32::MAX) - 1,
                u64::from(u32::MAX),
                1 << 32,
            ] {
                assert_ne!(sequence(index), sequence(index + slots));
            }
        }
    }
}
