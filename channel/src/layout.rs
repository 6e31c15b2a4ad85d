//! Every byte a peer sees, and nothing else: the offsets in an outbox, in a slot, in a presence page and in a wake
//! page.
//!
//! Each location has one access size and, but for the wake page, one writer (the process that made the region).
//! Offsets here are constants or come from a checked [`Geometry`]; no number that a peer wrote decides where we look.
//!
//! An outbox, in bytes:
//!
//! | offset | size | what its maker tells the peer |
//! | --- | --- | --- |
//! | 0 | u64 | [`MAGIC`] |
//! | 8 | u64 | [`VERSION`] |
//! | 16 | u64 | slots, and the arena's bytes in the upper half |
//! | 24 | u64 | 1 once the peer may use the annex of its own outbox |
//! | 64 | u64 | `consumed`: slots of the peer's ring we have consumed, ever |
//! | 128 | u64 | `freed`: bytes of the peer's large payloads we have done with, ever |
//! | 192 | u64 | `blocked`: 0, or 1 + the peer's `consumed + freed` that we last saw while we wait for more |
//! | 256 + 64 k | 3 × u32 | grant word `k`: grant, CPU, limit in µs (k < 8) |
//! | 768 + 64 k | u32 | return word `k` (k < 8) |
//! | 4096 | slots × 64 | the ring |
//! | next page | arena | large payload, in blocks at multiples of 64 |
//! | right behind it | [`ANNEX`] | a second arena: address space, and no memory until both processes open it |
//!
//! A slot is eight u64:
//!
//! | word | bits 0–31 | 32–39 | 40–47 | 48–63 |
//! | --- | --- | --- | --- | --- |
//! | 0 | sequence: the slot's index + 1 | kind, part | bytes inline; or how many at the end come first | procedure or status |
//! | 1 | id | deadline in ms (32–63) | | |
//! | 2–7 | payload; or, of a large message, word 2: offset and length in the arena, word 3: total length and position | | | |
//!
//! A header word is only ever a header: no payload byte can be taken for one.
//!
//! A wake page is one page of a channel. Both processes can write all of it, and what is in it means nothing: a word
//! is changed by who wakes, and slept on by the other.
//!
//! | offset | size | changed with |
//! | --- | --- | --- |
//! | 64 k | u32 | grant word `k` in the outbox of the process that made the page (k < 8) |
//! | 64 k + 4 | u32 | return word `k` in the other's |
//! | 512 + 64 k | 2 × u32 | the same, the two processes exchanged |

/// `"urpc-out"`, as the first word of every outbox.
pub const MAGIC: u64 = u64::from_le_bytes(*b"urpc-out");
/// Of this table. Peers of different versions do not bind.
pub const VERSION: u64 = 2;

/// Bytes of a cache line and of a slot.
pub const LINE: usize = 64;
/// Unit of the parts of an outbox, in bytes.
pub const PAGE: usize = 4096;
/// Grant and return words in an outbox: no more landings serve one channel (§3.1).
pub const GRANTS: usize = 8;
/// Words in a presence page, one on each line.
pub const PRESENCE_WORDS: usize = PAGE / LINE;

pub(crate) const MAGIC_AT: usize = 0;
pub(crate) const VERSION_AT: usize = 8;
pub(crate) const GEOMETRY_AT: usize = 16;
pub(crate) const OPEN_AT: usize = 24;
pub(crate) const CONSUMED_AT: usize = 64;
pub(crate) const FREED_AT: usize = 128;
pub(crate) const BLOCKED_AT: usize = 192;
pub(crate) const GRANTS_AT: usize = 256;
pub(crate) const RETURNS_AT: usize = 768;
pub(crate) const RING_AT: usize = 4096;
/// Bytes of a wake page that belong to what one of the two processes lends.
pub(crate) const WAKES: usize = GRANTS * LINE;

/// Bytes of payload that a slot carries itself; more lies in the arena.
pub const INLINE: usize = 48;
/// Where they begin in the slot.
pub(crate) const PAYLOAD_AT: usize = LINE - INLINE;
/// Bytes of one piece of a large message at most: bounds how long a copy keeps an end.
pub const PIECE: u32 = 16 * 1024;
/// Bytes of an annex: about what a processor keeps in its own cache, so that a line which is written once more has left
/// the reader's. Then it need not be taken from there, which makes large messages two to three times faster.
pub const ANNEX: u32 = 1 << 20;

/// How large the two parts of an outbox are. Both processes agree on it at binding; it never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Slots of the ring: a power of two, 2 to 4096.
    pub slots: u32,
    /// Bytes of the arena: a multiple of 4096, 4096 to 256 MiB.
    pub arena: u32,
}

impl Default for Geometry {
    /// 256 slots (16 KiB), so that a burst of as many calls never waits; 64 KiB of arena, four pieces.
    fn default() -> Self {
        Geometry {
            slots: 256,
            arena: 64 * 1024,
        }
    }
}

/// A [`Geometry`] that no outbox can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "an outbox of {} slots and {} bytes of arena: slots must be a power of two from 2 to 4096, \
     the arena a multiple of 4096 from 4096 to 256 MiB", .0.slots, .0.arena
)]
pub struct BadGeometry(pub Geometry);

const ARENA_MAX: u32 = 256 << 20;

impl Geometry {
    /// Itself, if an outbox can have it.
    ///
    /// # Errors
    /// [`BadGeometry`], which also the numbers in a peer's offer may earn.
    pub fn check(self) -> Result<Geometry, BadGeometry> {
        let slots = self.slots.is_power_of_two() && (2..=4096).contains(&self.slots);
        let arena = self.arena.is_multiple_of(PAGE as u32)
            && (PAGE as u32..=ARENA_MAX).contains(&self.arena);
        if slots && arena {
            Ok(self)
        } else {
            Err(BadGeometry(self))
        }
    }

    /// Bytes of an outbox that are there from the start: all but the annex.
    ///
    /// # Errors
    /// [`BadGeometry`]; so there is no overflow to speak of.
    pub fn size(self) -> Result<usize, BadGeometry> {
        self.check()?
            .arena_at()
            .checked_add(self.arena as usize)
            .ok_or(BadGeometry(self))
    }

    /// Where the arena begins. `self` has been checked.
    pub(crate) fn arena_at(self) -> usize {
        (RING_AT + self.slots as usize * LINE).next_multiple_of(PAGE)
    }

    /// As the third word of the outbox says it.
    pub(crate) fn word(self) -> u64 {
        u64::from(self.slots) | u64::from(self.arena) << 32
    }

    /// Bytes of the largest piece that fits.
    pub(crate) fn piece(self) -> u32 {
        PIECE.min(self.arena)
    }
}

#[cfg(all(test, not(urpc_loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_default_outbox_is_its_parts_and_no_more() {
        assert_eq!(Geometry::default().size(), Ok(4096 + 256 * 64 + 64 * 1024));
        assert_eq!(
            Geometry {
                slots: 2,
                arena: 4096
            }
            .size(),
            Ok(3 * 4096)
        );
    }

    #[test]
    fn a_geometry_that_no_outbox_can_have_is_refused() {
        for (slots, arena) in [
            (0, 4096),
            (1, 4096),
            (3, 4096),
            (8192, 4096),
            (2, 0),
            (2, 4097),
            (2, u32::MAX - 4095),
        ] {
            let bad = Geometry { slots, arena };
            assert_eq!(bad.size(), Err(BadGeometry(bad)));
        }
    }

    #[test]
    fn no_two_locations_overlap() {
        let lines = [0, CONSUMED_AT, FREED_AT, BLOCKED_AT]
            .into_iter()
            .chain((0..GRANTS).map(|k| GRANTS_AT + k * LINE))
            .chain((0..GRANTS).map(|k| RETURNS_AT + k * LINE));
        let mut seen = std::collections::HashSet::new();
        for at in lines {
            assert!(
                at % LINE == 0 && at < RING_AT && seen.insert(at),
                "offset {at}"
            );
        }
    }
}
