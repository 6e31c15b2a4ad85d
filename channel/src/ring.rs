//! One direction of a channel: a ring of 64-byte slots with one producer and one consumer, in memory that
//! only the producer's process can write.
//!
//! A slot's header carries the slot's index, so the consumer polls the slot itself: a message crosses in
//! one cache line. The slots `consumed..next` are the consumer's, all others the producer's; `consumed` is
//! told in the consumer's own outbox. Both indices count for ever and are private; what a peer says about
//! its own is a claim, looked at once and checked.

use crate::layout::*;
use crate::message::Payload;
use crate::outbox::{Inbox, Outbox};
use crate::sync::{Ordering, fence};
use crate::violation::Violation;

/// The memory a protocol runs on: regions, or loom's atomics.
///
/// Offsets are those of `layout`. All is Relaxed unless it says otherwise.
pub(crate) trait Words {
    fn load(&self, at: usize) -> u64;
    /// A store with Release.
    fn publish(&self, at: usize, word: u64);
    /// Adds to a word of our own, with Release; several threads of this process may.
    fn add(&self, at: usize, amount: u64);
    fn store(&self, at: usize, word: u64);
    /// Of the slot at `at`.
    fn payload(&self, at: usize) -> Payload;
    fn store_payload(&self, at: usize, payload: &Payload);
    fn copy_in(&self, at: usize, bytes: &[u8]);
    fn copy_out(&self, at: usize, len: usize, out: &mut Vec<u8>);
    fn prefetch(&self, at: usize, write: bool);
}

macro_rules! words_of_region {
    ($of:ty) => {
        impl Words for $of {
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
            fn store(&self, at: usize, word: u64) {
                self.region.u64(at).store(word, Ordering::Relaxed);
            }
            #[inline(always)]
            fn payload(&self, at: usize) -> Payload {
                self.region.load_payload(at)
            }
            #[inline(always)]
            fn store_payload(&self, at: usize, payload: &Payload) {
                self.region.store_payload(at, payload);
            }
            fn copy_in(&self, at: usize, bytes: &[u8]) {
                self.region.copy_in(at, bytes);
            }
            fn copy_out(&self, at: usize, len: usize, out: &mut Vec<u8>) {
                self.region.copy_out(at, len, out);
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
        self.next - self.consumed < u64::from(self.slots)
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
        let at = slot_at(self.next, self.slots);
        own.store(at + 8, word);
        own.store_payload(at, payload);
        // Pairs with the fence in `Consumer::take`: whoever sees the header sees the slot, and the block of
        // the arena it names. Loom checks this as `a_slot_is_published_whole`.
        own.publish(at, u64::from(sequence(self.next)) | u64::from(tag) << 32);
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

    /// Copies the next slot out, if it is there.
    #[inline(always)]
    pub(crate) fn take(&mut self, peer: &impl Words) -> Option<Slot> {
        let at = slot_at(self.next, self.slots);
        let header = peer.load(at);
        if header as u32 != sequence(self.next) {
            return None;
        }
        // Pairs with the Release in `Producer::publish`.
        fence(Ordering::Acquire);
        self.next += 1;
        peer.prefetch(slot_at(self.next + 1, self.slots), false);
        Some(Slot {
            tag: (header >> 32) as u32,
            word: peer.load(at + 8),
            payload: peer.payload(at),
        })
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
