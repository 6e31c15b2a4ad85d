//! A second, larger arena, for messages of several pieces. It has memory once this process and the peer both want it.
//!
//! The peer says so in its outbox, after it has seen to it that the annex is all there; this end uses it from the next
//! message on. There is no way back before the channel ends.
//!
//! It is larger so that its lines rest between two uses, not to hold more: what is under way to a peer that is late
//! cannot be taken back.

use super::Wire;
use crate::arena::Arena;
use crate::layout::{ANNEX, Geometry, OPEN_AT, PIECE};
use crate::ring::Words;
use crate::sync::{AtomicBool, Ordering, fence};

/// Bytes that the peer has not read yet at most: as many as the arena itself holds by default.
const UNDER_WAY: u32 = 4 * PIECE;

#[derive(Debug)]
pub(super) struct Annex {
    pub(super) arena: Arena,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Shut,
    Open,
    /// It could not be opened, and is not tried again.
    Failed,
}

impl Annex {
    pub(super) fn new(geometry: Geometry) -> Annex {
        Annex {
            arena: Arena::new(geometry.arena, ANNEX).with_most(UNDER_WAY),
            state: State::Shut,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Opens it, if it is `wanted` and the peer wants it, too.
    pub(super) fn open(&mut self, wire: &Wire<'_, impl Words, impl Words>, wanted: &AtomicBool) {
        let both = || wanted.load(Ordering::Relaxed) && wire.peer.load(OPEN_AT) == 1;
        if self.state != State::Shut || !both() {
            return;
        }
        // Pairs with the Release in `Channel::open_annex` of the peer: whoever there takes a piece out of the annex
        // knows that it may lie there.
        fence(Ordering::Acquire);
        self.state = if wire.own.fill_annex(true) {
            State::Open
        } else {
            State::Failed
        };
    }
}
