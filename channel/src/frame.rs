//! From claim to checked: what a slot says, once it has been copied out.
//!
//! [`message`] and [`Part::parse`] look at private memory only. Whoever holds what they give need not check again
//! what can be checked without knowing what came before; the rest is `incoming`'s.

use crate::layout::{INLINE, LINE, PIECE};
use crate::message::{Head, Kind, Payload};
use crate::ring::Slot;
use crate::violation::Violation;

/// Bytes of a piece at least, if there are several: none is so small that its slot costs as much as its bytes.
const SMALL_PIECE: u32 = 4096;

/// The upper bits of the kind byte: which part of a message the slot is.
const PART: u8 = 0xc0;
const WHOLE: u8 = 0x00;
const FIRST: u8 = 0x80;
const MORE: u8 = 0x40;
const ABORT: u8 = 0xc0;

/// The kinds that are sent, as the lower bits of the kind byte say them.
#[inline(always)]
fn kind(code: u8) -> Option<Kind> {
    match code {
        1 => Some(Kind::Call),
        2 => Some(Kind::Reply),
        3 => Some(Kind::Failed),
        4 => Some(Kind::Cancel),
        5 => Some(Kind::Goodbye),
        _ => None,
    }
}

/// Some bytes of a large message, and where they lie in the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) head: Head,
    /// As [`Large::lead`](crate::Large::lead).
    pub(crate) lead: u8,
    /// Bytes of the whole message.
    pub(crate) total: u32,
    /// Of the first byte of this piece in the message; 0 means that it is the first piece.
    pub(crate) position: u32,
    pub(crate) offset: u32,
    pub(crate) len: u32,
}

/// What a slot says that carries no whole message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Piece(Piece),
    /// The sender of call `id` took back what it had not sent.
    Abort {
        id: u32,
    },
}

#[inline(always)]
fn head_words(head: &Head, part: u8, len: u8) -> (u32, u64) {
    let tag =
        u32::from(head.kind as u8 | part) | u32::from(len) << 8 | u32::from(head.procedure) << 16;
    (tag, u64::from(head.id) | u64::from(head.deadline_ms) << 32)
}

/// The tag and the second word of a message that carries its bytes, `len` of them, itself.
#[inline(always)]
pub(crate) fn whole(head: &Head, len: u8) -> (u32, u64) {
    head_words(head, WHOLE, len)
}

/// The slot of a piece.
pub(crate) fn piece(piece: &Piece) -> Slot {
    let part = if piece.position == 0 { FIRST } else { MORE };
    let (tag, word) = head_words(&piece.head, part, piece.lead);
    let place = u64::from(piece.offset) | u64::from(piece.len) << 32;
    let share = u64::from(piece.total) | u64::from(piece.position) << 32;
    Slot {
        tag,
        word,
        payload: Payload::of_words([place, share]),
    }
}

/// Bytes of the pieces of a large message of `total` bytes: so many pieces that the receiver copies out while the
/// sender still copies in.
pub(crate) fn piece_of(total: u32) -> u32 {
    if is_one_piece(total) {
        return total.next_multiple_of(LINE as u32);
    }
    let pieces = (total / SMALL_PIECE).min(8);
    let len = total.div_ceil(pieces).next_multiple_of(LINE as u32);
    len.min(PIECE)
}

/// Whether a large message of `total` bytes crosses in one piece.
pub(crate) fn is_one_piece(total: u32) -> bool {
    total < 2 * SMALL_PIECE
}

/// The slot that takes call `id` back.
pub(crate) fn abort(id: u32) -> Slot {
    let head = Head {
        kind: Kind::Call,
        id,
        procedure: 0,
        deadline_ms: 0,
    };
    let (tag, word) = head_words(&head, ABORT, 0);
    Slot {
        tag,
        word,
        payload: Payload::of_words([0, 0]),
    }
}

#[inline(always)]
fn head(tag: u32, word: u64, kind: Kind) -> Head {
    let (id, deadline_ms) = halves(word);
    let procedure = (tag >> 16) as u16;
    Head {
        kind,
        id,
        procedure,
        deadline_ms,
    }
}

/// The message of a slot with this tag and word, if it carries a whole one: its head, and how many bytes of the
/// payload.
#[inline(always)]
pub(crate) fn message(tag: u32, word: u64) -> Option<(Head, u8)> {
    let [code, len, ..] = tag.to_le_bytes();
    let kind = kind(code)?;
    (usize::from(len) <= INLINE).then(|| (head(tag, word, kind), len))
}

impl Part {
    /// What `slot` says, which is no [`message`], if a peer that keeps the rules can say it. A piece lies in the arena,
    /// or in the annex behind it, which has no bytes before it is open.
    #[inline]
    pub(crate) fn parse(
        slot: &Slot,
        (arena, annex): (u32, u32),
        max_payload: u32,
    ) -> Result<Part, Violation> {
        let [code, len, ..] = slot.tag.to_le_bytes();
        let part = code & PART;
        let kind = match kind(code & !PART) {
            Some(Kind::Cancel | Kind::Goodbye) if part != WHOLE => None,
            Some(Kind::Reply | Kind::Failed) if part == ABORT => None,
            kind => kind,
        };
        let kind = kind.ok_or(Violation::UnknownKind(code))?;
        let head = head(slot.tag, slot.word, kind);
        let (id, lead) = (head.id, len);
        if part == WHOLE || part == ABORT && lead != 0 || usize::from(lead) > INLINE {
            return Err(Violation::Length(lead));
        }
        if part == ABORT {
            return Ok(Part::Abort { id });
        }
        let [place, share, ..] = slot.payload.words();
        let ((offset, len), (total, position)) = (halves(place), halves(share));
        if total as usize <= INLINE || total > max_payload {
            return Err(Violation::Total {
                total,
                max: max_payload,
            });
        }
        let all = arena + annex;
        let is_within = |end| end <= arena || offset >= arena && end <= all;
        let fits = offset.checked_add(len).is_some_and(is_within);
        if len == 0 || len > PIECE || !offset.is_multiple_of(LINE as u32) || !fits {
            return Err(Violation::Outside {
                offset,
                len,
                arena: all,
            });
        }
        // The position says as well whether a piece is a first one; both must say the same.
        let first = part == FIRST;
        if (position == 0) != first || position.checked_add(len).is_none_or(|end| end > total) {
            let (expected, expected_total) = (if first { 0 } else { total - 1 }, total);
            return Err(Violation::Position {
                id,
                position,
                total,
                expected,
                expected_total,
            });
        }
        Ok(Part::Piece(Piece {
            head,
            lead,
            total,
            position,
            offset,
            len,
        }))
    }
}

#[inline(always)]
fn halves(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
}

#[cfg(all(test, not(urpc_loom)))]
mod tests {
    use super::*;

    const HEAD: Head = Head {
        kind: Kind::Reply,
        id: 0xdead_beef,
        procedure: 0xabcd,
        deadline_ms: 77,
    };

    fn parse(slot: Slot) -> Result<Part, Violation> {
        Part::parse(&slot, (65536, 4096), 1 << 22)
    }

    #[test]
    fn what_is_encoded_is_what_is_parsed() {
        for len in 0..=48 {
            let (tag, word) = whole(&HEAD, len);
            assert_eq!(message(tag, word), Some((HEAD, len)));
        }
        for position in [0, 49] {
            let part = Piece {
                head: HEAD,
                lead: 3,
                total: 50,
                position,
                offset: 65472,
                len: 1,
            };
            assert_eq!(parse(piece(&part)), Ok(Part::Piece(part)));
        }
        assert_eq!(parse(abort(9)), Ok(Part::Abort { id: 9 }));
    }

    #[test]
    fn no_slot_whatsoever_makes_parse_panic_and_what_it_accepts_is_in_bounds() {
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = move || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        let mut pieces = 0;
        for _ in 0..200_000 {
            // Numbers near the limits, in all bit patterns of the kind.
            let near = |r: u64| ((r >> 40) % 70_000) & if r & 8 == 0 { !63 } else { !0 };
            let mut slot = Slot {
                tag: next() as u32 & 0xffff_00ff,
                word: 0,
                payload: Payload::of_words([0, 0]),
            };
            slot.tag |= if next() % 4 == 0 {
                next() as u32 & 0xff00
            } else {
                0
            };
            slot.tag &= if next() % 2 == 0 { !0x3c } else { !0 }; // kinds that exist, half of the time
            let mut near = || near(next()) | near(next()) << 32;
            slot.word = near();
            slot.payload = Payload::of_words([near(), near()]);
            if let Ok(Part::Piece(p)) = parse(slot) {
                let end = u64::from(p.offset) + u64::from(p.len);
                let (in_arena, in_annex) = (end <= 65536, p.offset >= 65536 && end <= 65536 + 4096);
                assert!((in_arena || in_annex) && p.len > 0);
                assert!(p.position + p.len <= p.total && p.total <= 1 << 22);
                pieces += 1;
            }
        }
        assert!(
            pieces > 100,
            "{pieces} accepted pieces are too few to mean anything"
        );
    }
}
