//! Buffers of large messages, used again: what a thread encodes into, until the last piece is on its way.
//!
//! So a warm call touches no fresh pages. A thread keeps few, of what it has sent; and it frees them when it rests for
//! the second time since it needed one.

use std::cell::{Cell, RefCell};

/// Buffers a thread keeps: as many large calls at a time as make sense.
const MOST: usize = 4;
/// Bytes they have together at most.
const BYTES: usize = 8 << 20;
/// So many times as large as what is put into it, a buffer may be.
const MUCH: usize = 2;

thread_local! {
    static KEPT: RefCell<Kept> = const { RefCell::new(Kept::NONE) };
    /// One has been kept since the last rest.
    static IN_USE: Cell<bool> = const { Cell::new(false) };
}

#[derive(Default)]
struct Kept {
    buffers: Vec<Vec<u8>>,
    /// What they have room for.
    bytes: usize,
}

impl Kept {
    const NONE: Kept = Kept {
        buffers: Vec::new(),
        bytes: 0,
    };

    fn take_if(&mut self, fits: impl Fn(usize) -> bool) -> Option<Vec<u8>> {
        let last = self.buffers.pop_if(|buffer| fits(buffer.capacity()))?;
        self.bytes -= last.capacity();
        Some(last)
    }

    fn keep(&mut self, buffer: Vec<u8>) {
        let bytes = self.bytes + buffer.capacity();
        if self.buffers.len() < MOST && bytes <= BYTES {
            self.bytes = bytes;
            self.buffers.push(buffer);
        }
    }
}

/// An empty buffer: the one that was kept last, if there is one.
#[must_use]
pub fn take_buffer() -> Vec<u8> {
    let last = KEPT.try_with(|kept| kept.borrow_mut().take_if(|_| true));
    last.ok().flatten().unwrap_or_default()
}

/// The same for so many bytes. What is much too large is left to those who need it.
pub(crate) fn take_buffer_for(bytes: usize) -> Vec<u8> {
    kept_for(bytes).unwrap_or_else(|| Vec::with_capacity(bytes))
}

/// The same, if there is one; else a buffer without room, since the number is only claimed.
pub(crate) fn take_kept_for(bytes: usize) -> Vec<u8> {
    kept_for(bytes).unwrap_or_default()
}

fn kept_for(bytes: usize) -> Option<Vec<u8>> {
    let fits = |room| (bytes..=MUCH * bytes).contains(&room);
    let last = KEPT.try_with(|kept| kept.borrow_mut().take_if(fits));
    last.ok().flatten()
}

/// Keeps a buffer whose bytes are done with, if there is room for it.
pub fn keep_buffer(mut buffer: Vec<u8>) {
    buffer.clear();
    if buffer.capacity() > 0 {
        let _ = KEPT.try_with(|kept| kept.borrow_mut().keep(buffer));
        IN_USE.set(true);
    }
}

/// This thread goes to rest: frees what it keeps, if it has not used any of it since it did so last.
pub fn let_go_of_buffers() {
    if !IN_USE.replace(false) {
        let _ = KEPT.try_with(RefCell::take);
    }
}

#[cfg(all(test, not(urpc_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_empty_and_what_is_kept_is_bounded() {
        keep_buffer(vec![1; 1000]);
        let buffer = take_buffer();
        assert!(buffer.is_empty() && buffer.capacity() >= 1000);
        keep_buffer(Vec::with_capacity(BYTES + 1));
        assert_eq!(take_buffer().capacity(), 0);
        (0..2 * MOST).for_each(|_| keep_buffer(vec![1; 10]));
        let kept = (0..2 * MOST).filter(|_| take_buffer().capacity() > 0);
        assert_eq!(kept.count(), MOST);
        keep_buffer(buffer);
        let_go_of_buffers();
        let_go_of_buffers();
        assert_eq!(take_buffer().capacity(), 0);
    }

    #[test]
    fn a_buffer_for_few_bytes_is_not_one_for_many() {
        for (kept, expected) in [(100, 100), (199, 199), (200, 200), (201, 100), (99, 100)] {
            keep_buffer(Vec::with_capacity(kept));
            assert_eq!(take_buffer_for(100).capacity(), expected);
            let _ = take_buffer();
        }
        keep_buffer(Vec::with_capacity(10));
        keep_buffer(Vec::new());
        assert_eq!(take_buffer().capacity(), 10, "nothing is not kept");
    }
}
