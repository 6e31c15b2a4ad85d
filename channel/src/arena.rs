//! Where large payload lies on its way: a circle of bytes in the producer's outbox, used in order.
//!
//! The producer alone knows which blocks are in use: each belongs to the slot that names it, and is free
//! when that slot is consumed. A block is contiguous and begins at a multiple of 64.

use std::collections::VecDeque;

use crate::layout::LINE;

#[derive(Debug)]
pub(crate) struct Arena {
    /// Where it begins, for those who count from the first of several.
    begin: u32,
    size: u64,
    /// Bytes in use at most.
    most: u64,
    /// Both count bytes for ever, skipped ones too; the blocks in use are `free..next`.
    free: u64,
    next: u64,
    /// Where `next` lies: it modulo `size`, without dividing each time.
    at: u64,
    /// For each slot with a block: the slot's index, and where its block ends.
    ends: VecDeque<(u64, u64)>,
}

impl Arena {
    pub(crate) fn new(begin: u32, size: u32) -> Arena {
        Arena {
            begin,
            size: size.into(),
            most: size.into(),
            free: 0,
            next: 0,
            at: 0,
            ends: VecDeque::new(),
        }
    }

    /// The same, of which no more than `most` bytes are in use at a time.
    pub(crate) fn with_most(self, most: u32) -> Arena {
        let most = most.into();
        Arena { most, ..self }
    }

    /// Frees the blocks of all slots before `consumed`.
    pub(crate) fn free(&mut self, consumed: u64) {
        while let Some((_, end)) = self.ends.pop_front_if(|(index, _)| *index < consumed) {
            self.free = end;
        }
        if self.ends.is_empty() {
            self.free = self.next;
        }
    }

    /// If no block is in use, the next one is from the start: so that even one as large as the arena fits again.
    pub(crate) fn rewind(&mut self) {
        if self.ends.is_empty() && self.at != 0 {
            self.next += self.size - self.at;
            self.at = 0;
            self.free = self.next;
        }
    }

    /// A block of `len` bytes for the slot that will be `index`: its offset. `None` if there is no room yet.
    pub(crate) fn take(&mut self, index: u64, len: u32) -> Option<u32> {
        let len = u64::from(len).next_multiple_of(LINE as u64);
        let (mut begin, mut at) = (self.next, self.at);
        if at + len > self.size {
            begin += self.size - at; // the rest of this lap is too short
            at = 0;
        }
        let end = begin + len;
        if end - self.free > self.most {
            return None;
        }
        self.next = end;
        self.at = at + len;
        if self.at == self.size {
            self.at = 0;
        }
        self.ends.push_back((index, end));
        Some(self.begin + at as u32)
    }
}

#[cfg(all(test, not(urpc_loom)))]
mod tests {
    use super::*;

    #[test]
    fn blocks_in_use_never_overlap_and_never_leave_the_arena() {
        let size = 4096u32;
        let mut arena = Arena::new(64, size);
        let mut used: VecDeque<(u64, u32, u32)> = VecDeque::new();
        let (mut random, mut laps) = (0x9e37_79b9_7f4a_7c15_u64, 0);
        for index in 0..20_000 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let len = (random >> 33) as u32 % (if random & 1 == 0 { size } else { 300 }) + 1;
            let offset = loop {
                match arena.take(index, len) {
                    Some(offset) => break offset,
                    None => {
                        let (first, ..) = used.pop_front().expect("an empty arena takes any block");
                        arena.free(first + 1);
                        arena.rewind();
                    }
                }
            };
            assert!(offset.is_multiple_of(64) && offset >= 64 && offset + len <= 64 + size);
            for &(_, other, end) in &used {
                assert!(
                    offset + len <= other || end <= offset,
                    "{offset}+{len} in {other}..{end}"
                );
            }
            laps += u32::from(used.back().is_some_and(|&(_, other, _)| other > offset));
            used.push_back((index, offset, offset + len));
        }
        assert!(laps > 100, "{laps} laps are too few to mean anything");
    }

    #[test]
    fn a_full_arena_has_no_room_until_its_slots_are_consumed() {
        let mut arena = Arena::new(0, 4096);
        assert_eq!(arena.take(7, 4096), Some(0));
        assert_eq!(arena.take(8, 1), None);
        arena.free(7);
        assert_eq!(arena.take(8, 1), None);
        arena.free(8);
        assert_eq!(arena.take(8, 64), Some(0));
        assert_eq!(arena.take(9, 4096), None);
        arena.free(9);
        assert_eq!(arena.take(9, 64), Some(64), "on in the circle");
        arena.free(10);
        assert_eq!(arena.take(10, 4096), None, "it would be in two parts");
        arena.rewind();
        assert_eq!(arena.take(10, 4096), Some(0));
    }
}
