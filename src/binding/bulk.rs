//! Large messages: what a channel gets once many bytes have crossed in them, and how long their answers are awaited.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::Binding;
use crate::limits;

/// What is known of a channel's large messages, those that cross in several pieces.
#[derive(Debug, Default)]
pub(super) struct Bulk {
    /// Their bytes, in both directions.
    moved: AtomicU64,
    /// Bytes of the last one; 0 if its answer has been awaited in vain.
    last: AtomicU32,
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

    /// It was in vain.
    pub(crate) fn lose_patience(&self) {
        if self.bulk.last.load(Ordering::Relaxed) != 0 {
            self.bulk.last.store(0, Ordering::Relaxed);
        }
    }
}
