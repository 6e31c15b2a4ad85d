//! Telling a process something, and waking who sleeps until it is told.
//!
//! | who tells | who sleeps |
//! | --- | --- |
//! | writes the word that says it | loads the wake word |
//! | changes the wake word | looks at what the other word says |
//! | wakes who sleeps on the wake word | sleeps while the wake word is what it loaded |
//!
//! So either the sleeper sees what was said, or the kernel sees a changed wake word. The words that say something can
//! be written by one process only. A wake word can be written by both, because the kernel is faster then, and so that
//! the sleeper's own process can wake it there, too; nothing is ever concluded from it: what is loaded there is only
//! compared with what the kernel finds. A peer that writes it as it likes can make a sleep end for nothing, or not end
//! before its time.

use crate::sync::{AtomicU32, Ordering, fence, wake_shared};

/// A word that says something, and the word that is slept on until it does.
#[derive(Clone, Copy, Debug)]
pub struct Signal<'a> {
    /// What is said. Of a peer's, only Relaxed loads are made: that memory is read-only.
    pub says: &'a AtomicU32,
    /// Changed after each change of the other one that somebody is to be woken for.
    pub wake: &'a AtomicU32,
}

impl<'a> Signal<'a> {
    /// Says `value`, a new one, and wakes who sleeps until something new is said.
    pub(crate) fn say(self, value: u32) {
        self.say_quietly(value);
        self.nudge();
    }

    /// Wakes who sleeps until something new is said, or is about to, for another look: at that, and at its ticket.
    pub fn nudge(self) {
        // Pairs with the Acquire in `watch`: whoever goes to sleep knows what was said before, or the kernel finds a
        // wake word that has changed. Both processes do this, and neither can undo what the other did.
        self.wake.fetch_add(1, Ordering::Release);
        wake_shared(self.wake);
    }

    /// Says `value` to whoever looks by itself.
    pub(crate) fn say_quietly(self, value: u32) {
        // Pairs with the fence in `hear`: who hears it sees what was written before.
        self.says.store(value, Ordering::Release);
    }

    /// What is said now.
    pub(crate) fn hear(self) -> u32 {
        let value = self.says.load(Ordering::Relaxed);
        // Pairs with the Release in `say_quietly`.
        fence(Ordering::Acquire);
        value
    }

    /// What to sleep on until something new is said. Taken before the look at what is said.
    pub(crate) fn watch(self) -> (&'a AtomicU32, u32) {
        // Pairs with the Release in `nudge`.
        (self.wake, self.wake.load(Ordering::Acquire))
    }
}
