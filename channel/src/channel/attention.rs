//! Who waits for whom, as both sides of a channel see it: asked before a rest, and before a ring.
//!
//! Each question is about words that the other side writes at any time, so each answer is a hint, until a
//! `fence(SeqCst)` on both sides makes one of the two see the other.

use super::Channel;
use crate::layout::{BLOCKED_AT, CONSUMED_AT, FREED_AT};
use crate::ring::Words;
use crate::sync::{AtomicU64, Ordering, fence};

impl Channel {
    /// Whether the peer has not yet consumed all that we published.
    pub fn unread_by_peer(&self) -> bool {
        // Less, not unequal: the peer may have consumed what another thread has just put into the ring and
        // not counted yet. That is nothing to ring for, and a ring for nothing is never answered.
        !self.forked() && self.peer.load(CONSUMED_AT) < self.outgoing.0.published()
    }

    /// Tells the peer whether we wait for it to consume or to free; returns that. For a worker on its way to
    /// rest: afterwards `fence(SeqCst)`, then [`flush`](Channel::flush) and
    /// [`refresh_window`](Channel::refresh_window) look again. Pairs with
    /// [`peer_blocked`](Channel::peer_blocked) after the peer's own fence.
    pub fn announce_blocked(&self) -> bool {
        if self.forked() {
            return false;
        }
        let blocked = self.own.region.u64(BLOCKED_AT);
        let waits = || self.outgoing.0.is_staged() || self.window.0.is_awaited();
        if !waits() {
            let old = blocked.load(Ordering::Relaxed);
            if old == 0 {
                return false;
            }
            // Another worker may have announced since we asked: the exchange then reads its store (Acquire
            // pairs with the Release below), so asking again sees what it waits for.
            if blocked
                .compare_exchange(old, 0, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
            {
                fence(Ordering::SeqCst);
            }
            if !waits() {
                return false;
            }
        }
        let seen = self
            .peer
            .load(CONSUMED_AT)
            .wrapping_add(self.peer.load(FREED_AT));
        blocked.store(seen.wrapping_add(1), Ordering::Release);
        true
    }

    /// Whether the peer waits for us and we have consumed or freed something since it looked: it deserves a
    /// ring. Ask after a `fence(SeqCst)`; pairs with [`announce_blocked`](Channel::announce_blocked).
    pub fn peer_blocked(&self) -> bool {
        !self.forked() && self.is_past(self.peer.load(BLOCKED_AT))
    }

    /// How far the peer has come with what we sent, as one number: it changes whenever the peer consumes, or
    /// says anew whether it waits for us. While it is the same, the peer has not answered a ring.
    pub fn peer_progress(&self) -> u64 {
        self.standing().progress
    }

    /// Slots that have come and gone, and bytes that the peer is known to have freed, ever: by our own counts, which
    /// a peer changes by what it really does.
    pub fn moved(&self) -> u64 {
        let slots = self.taken().wrapping_add(self.published());
        slots.wrapping_add(self.window.0.freed())
    }

    /// Where the peer stands, by one look at each of its words: for whoever decides by more than one answer.
    pub fn standing(&self) -> Standing {
        if self.forked() {
            return Standing::default();
        }
        let consumed = self.peer.load(CONSUMED_AT);
        let blocked = self.peer.load(BLOCKED_AT);
        Standing {
            wants_attention: consumed < self.outgoing.0.published() || self.is_past(blocked),
            progress: mixed(consumed, blocked),
            gained: self.gained(consumed, blocked),
        }
    }

    /// Whether we have consumed or freed something since the peer looked that says it is `blocked`.
    fn is_past(&self, blocked: u64) -> bool {
        blocked != 0 && self.come_so_far().wrapping_add(1) > blocked
    }

    /// How far we have come, as a peer sees it that says what it waits for.
    fn come_so_far(&self) -> u64 {
        self.own
            .load(CONSUMED_AT)
            .wrapping_add(self.own.load(FREED_AT))
    }

    /// Only what is further than ever before counts, and no further than it can be: else a peer that changes its words
    /// as it likes would seem to get on for ever.
    fn gained(&self, consumed: u64, blocked: u64) -> u64 {
        let further = |word: &AtomicU64, said: u64| {
            let before = word.load(Ordering::Relaxed);
            if said > before {
                word.fetch_max(said, Ordering::Relaxed);
            }
            said.max(before)
        };
        let published = self.outgoing.0.published();
        let most = self.come_so_far().wrapping_add(1);
        mixed(
            further(&self.furthest.consumed, consumed.min(published)),
            further(&self.furthest.blocked, blocked.min(most)),
        )
    }
}

/// Multiplied, so that the two cannot move against each other unseen.
fn mixed(consumed: u64, blocked: u64) -> u64 {
    consumed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ blocked
}

/// What a peer has ever said of how far it has come.
#[derive(Debug, Default)]
pub(super) struct Furthest {
    consumed: AtomicU64,
    blocked: AtomicU64,
}

/// What one look at a peer's words has shown.
#[derive(Clone, Copy, Debug, Default)]
pub struct Standing {
    /// It has not consumed all that we published, or waits for room that there is now.
    pub wants_attention: bool,
    /// See [`peer_progress`](Channel::peer_progress).
    pub progress: u64,
    /// The same, but a peer that says what is not so changes it no more often than something crosses. For whatever
    /// else than a ring depends on it.
    pub gained: u64,
}
