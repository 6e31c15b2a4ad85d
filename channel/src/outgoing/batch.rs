//! Small messages that wait for those about to follow them, to go into the ring together.
//!
//! A store into the ring takes as long as its line takes to come from the peer's cache, and each locked instruction waits
//! for all stores before it. Between the calls of two tasks there are some of these. So while more calls are to follow,
//! they are written here; then one after the other into the ring, where their lines come at the same time.

use crate::message::Payload;
use crate::ring::{Producer, Words};

/// More of them save hardly anything.
pub(super) const MOST: usize = 7;

#[derive(Debug)]
pub(super) struct Batch {
    /// Tag, word and payload.
    slots: [((u32, u64), Payload); MOST],
    len: usize,
}

impl Batch {
    pub(super) const EMPTY: Batch = Batch {
        slots: [((0, 0), Payload::ZERO); MOST],
        len: 0,
    };

    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Takes a message, unless it is full.
    #[inline(always)]
    pub(super) fn push(&mut self, words: (u32, u64), payload: &Payload) -> bool {
        let place = self.slots.get_mut(self.len);
        let has_room = place.is_some();
        if let Some(place) = place {
            *place = (words, *payload);
            self.len += 1;
        }
        has_room
    }

    /// Publishes all of them. There is room.
    pub(super) fn publish(&mut self, producer: &mut Producer, own: &impl Words) {
        for (words, payload) in &self.slots[..self.len] {
            producer.publish(own, *words, payload);
        }
        self.len = 0;
    }

    pub(super) fn clear(&mut self) {
        self.len = 0;
    }
}
