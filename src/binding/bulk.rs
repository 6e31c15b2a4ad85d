//! Large messages: what a channel gets once many bytes have crossed in them, how long their answers are awaited, and
//! for how long those are held that the peer does not read.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use urpc_channel::Message;

use super::Binding;
use crate::limits;

/// What is known of a channel's large messages, those that cross in several pieces.
#[derive(Debug, Default)]
pub(super) struct Bulk {
    /// Their bytes, in both directions.
    moved: AtomicU64,
    /// Bytes of the last one; 0 if its answer has been awaited in vain.
    last: AtomicU32,
    /// Bytes of answers that count as held until nothing waits to be published.
    unpublished: AtomicU64,
}

impl Binding {
    /// A message of so many bytes has come, or is about to go.
    #[inline]
    pub(crate) fn note_crossing(&self, bytes: usize) {
        if bytes >= limits::LARGE {
            self.note_large(bytes);
        }
    }

    #[cold]
    fn note_large(&self, bytes: usize) {
        self.bulk.last.store(bytes as u32, Ordering::Relaxed);
        let bytes = bytes as u64;
        let moved = self.bulk.moved.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if moved >= limits::ANNEX_FROM && self.holding.take_annexes() {
            self.channel.open_annex();
        }
    }

    /// For how long more than usual an answer is awaited: the peer copies, decodes and encodes about as much as this
    /// side has.
    pub(crate) fn more_patience(&self) -> Duration {
        let bytes = self.bulk.last.load(Ordering::Relaxed);
        Duration::from_micros((bytes / limits::BYTES_PER_MICROSECOND).into())
    }

    /// Sends an answer for which there is room in the window, and whose bytes have been [taken](Holding::take). They
    /// count until it is published: the peer need not read it.
    ///
    /// [Holding::take]: crate::quota::Holding::take
    pub(crate) fn send_held(&self, message: Message) {
        let bytes = message.body.window_bytes() as u64;
        self.end_call(message.id);
        self.send(message);
        // After the sending: whoever finds these bytes, and then nothing staged, knows that they are published.
        self.bulk.unpublished.fetch_add(bytes, Ordering::AcqRel);
        self.give_published();
    }

    /// Publishes what there is room for. False if some of it must wait for the peer.
    pub(crate) fn flush(&self) -> bool {
        let flushed = self.channel.flush();
        self.give_published();
        flushed
    }

    fn give_published(&self) {
        let unpublished = &self.bulk.unpublished;
        let bytes = unpublished.load(Ordering::Acquire);
        if bytes != 0
            && !self.channel.staged()
            && unpublished
                .compare_exchange(bytes, 0, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            self.holding.give(bytes);
        }
    }

    /// It was in vain.
    pub(crate) fn lose_patience(&self) {
        if self.bulk.last.load(Ordering::Relaxed) != 0 {
            self.bulk.last.store(0, Ordering::Relaxed);
        }
    }
}
