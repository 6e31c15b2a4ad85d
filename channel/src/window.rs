//! How many bytes of large payload may be under way: reserved before sending, free again when the peer has
//! decoded them. Waiting for them is a future; no thread sleeps here.
//!
//! What always holds, in bytes counted for ever: `freed ≤ declared ≤ reserved ≤ freed + limit`. The
//! peer checks `declared ≤ freed + limit` on its own; breaking it would end the channel.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};

use event_listener::Event;

use crate::fate::{Closed, Fate};
use crate::layout::FREED_AT;
use crate::ring::Words;
use crate::violation::Violation;

#[derive(Debug)]
pub(crate) struct Window {
    limit: u64,
    reserved: AtomicU64,
    /// Of the reserved bytes, those that the peer has been told of by a first piece. Written by the holder of the end.
    declared: AtomicU64,
    /// The peer's count when last looked at.
    freed: AtomicU64,
    /// How many wait. The one that has the turn waits for space, the others for the turn, so that a large
    /// reservation is not overtaken for ever by small ones.
    queued: AtomicUsize,
    turn: AtomicBool,
    turns: Event,
    space: Event,
}

impl Window {
    pub(crate) fn new(limit: u64) -> Window {
        let [reserved, declared, freed] = Default::default();
        let (queued, turn) = Default::default();
        let (turns, space) = (Event::new(), Event::new());
        Window {
            limit,
            reserved,
            declared,
            freed,
            queued,
            turn,
            turns,
            space,
        }
    }

    /// Bytes that the peer had freed when last looked at.
    pub(crate) fn freed(&self) -> u64 {
        self.freed.load(Ordering::Relaxed)
    }

    /// Whether somebody waits for bytes.
    pub(crate) fn is_awaited(&self) -> bool {
        self.queued.load(Ordering::Relaxed) != 0
    }

    /// Takes what the peer has freed. Whoever gets the news tells the one that waits for space: nobody
    /// else will have it again.
    fn look(&self, peer: &impl Words) -> Result<(), Violation> {
        // Acquire pairs with `fetch_max` below: what another thread has seen, we see too, so that only the
        // peer can be the one that went back.
        let known = self.freed.load(Ordering::Acquire);
        let claimed = peer.load(FREED_AT);
        // Pairs with the Release of the peer's `freed`, and through the peer with the header store of the
        // first piece: `declared` is at least what the peer had seen.
        fence(Ordering::Acquire);
        let declared = self.declared.load(Ordering::Relaxed);
        if claimed < known || claimed > declared {
            return Err(Violation::Freed {
                claimed,
                known,
                declared,
            });
        }
        if claimed > self.freed.fetch_max(claimed, Ordering::AcqRel) {
            self.space.notify(1);
        }
        Ok(())
    }

    /// Reserves `bytes` if they are there.
    fn take(&self, bytes: u64, peer: &impl Words) -> Result<bool, Violation> {
        let mut looked = false;
        loop {
            let reserved = self.reserved.load(Ordering::Relaxed);
            let held = reserved.saturating_sub(self.freed.load(Ordering::Relaxed));
            if held + bytes <= self.limit {
                let new = reserved + bytes;
                // Relaxed: the number stands for itself; no memory changes hands by it.
                let taken = self.reserved.compare_exchange(
                    reserved,
                    new,
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                );
                if taken.is_ok() {
                    return Ok(true);
                }
            } else if looked {
                return Ok(false);
            } else {
                self.look(peer)?;
                looked = true;
            }
        }
    }

    /// Reserves `bytes` if they are there and nobody waits for them.
    pub(crate) fn try_reserve(
        &self,
        bytes: usize,
        peer: &impl Words,
        fate: &Fate,
    ) -> Result<bool, Closed> {
        let bytes = bytes as u64;
        assert!(
            bytes <= self.limit,
            "{bytes} bytes can never be reserved: the window has {}",
            self.limit
        );
        if fate.is_closed() {
            return Err(Closed);
        }
        Ok(bytes == 0 || !self.is_awaited() && fate.judge(self.take(bytes, peer))?)
    }

    pub(crate) async fn reserve(
        &self,
        bytes: usize,
        peer: &impl Words,
        fate: &Fate,
    ) -> Result<(), Closed> {
        if self.try_reserve(bytes, peer, fate)? {
            return Ok(());
        }
        let mut place = Place::join(self);
        while !place.take_turn() {
            let listener = self.turns.listen();
            if fate.is_closed() {
                return Err(Closed);
            }
            if place.take_turn() {
                break;
            }
            listener.await;
        }
        loop {
            let listener = self.space.listen();
            if fate.is_closed() {
                return Err(Closed);
            }
            if fate.judge(self.take(bytes as u64, peer))? {
                return Ok(());
            }
            listener.await;
        }
    }

    /// Gives back what was reserved for a message of which the peer has not heard, so that it will not free it.
    pub(crate) fn unreserve(&self, bytes: usize) {
        self.reserved.fetch_sub(bytes as u64, Ordering::Relaxed);
        self.space.notify(1);
    }

    /// The first piece of a message of `bytes` is about to be published, by the holder of the end. Panics if they were
    /// not reserved: the peer would close the channel, far from the mistake.
    #[inline]
    pub(crate) fn declare(&self, bytes: usize) {
        // Relaxed: the header store that follows publishes it; see `look`.
        let declared = self.declared.load(Ordering::Relaxed);
        let reserved = self.reserved.load(Ordering::Relaxed) - declared;
        let bytes = bytes as u64;
        assert!(
            bytes <= reserved,
            "{bytes} bytes used with only {reserved} reserved"
        );
        self.declared.store(declared + bytes, Ordering::Relaxed);
    }

    /// Looks again for the sake of those who wait.
    pub(crate) fn refresh(&self, peer: &impl Words) -> Result<(), Violation> {
        if self.is_awaited() {
            self.look(peer)
        } else {
            Ok(())
        }
    }

    /// Wakes all who wait; they will find the channel closed.
    pub(crate) fn wake_all(&self) {
        self.turns.notify(usize::MAX);
        self.space.notify(usize::MAX);
    }
}

/// A place among those who wait, given up when dropped, with the turn if it has that.
struct Place<'a> {
    window: &'a Window,
    has_turn: bool,
}

impl<'a> Place<'a> {
    fn join(window: &'a Window) -> Place<'a> {
        window.queued.fetch_add(1, Ordering::Relaxed);
        Place {
            window,
            has_turn: false,
        }
    }

    fn take_turn(&mut self) -> bool {
        // The turn protects no memory, only the order; `turns` has the fences that waking needs.
        self.has_turn = !self.window.turn.swap(true, Ordering::AcqRel);
        self.has_turn
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.window.queued.fetch_sub(1, Ordering::Relaxed);
        if self.has_turn {
            self.window.turn.store(false, Ordering::Release);
            self.window.turns.notify(1);
        }
    }
}
