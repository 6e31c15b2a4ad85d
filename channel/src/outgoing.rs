//! The sending end: from any thread of this process into the ring, in order, without ever waiting.
//!
//! A message goes straight into the ring if the end is free and nothing small is staged before it. Else it
//! is *staged*: behind the end's lock, or, when another thread holds the end, in the hand-over queue, which
//! whoever holds the end next empties. Small messages go before pieces of large ones, and large ones take
//! turns by pieces, so neither holds up the other; messages of the same size class of one thread keep their
//! order, and nothing about a call overtakes the call. Where more are about to follow, a small message may be staged
//! for these alone, in a batch that goes before all else (`batch`).
//!
//! **No hand-over is lost**, although letting go of the end has no fence. The rule: whoever has held the
//! end, in a send or a flush, calls `fence(SeqCst)` and then [`Outgoing::flush`] before it rests.
//! - The one that hands over: push, `fence(SeqCst)`, try to take the end once more.
//! - The holder: let go, …, `fence(SeqCst)`, look at the queue (in `flush`, which ends with the same two
//!   steps whenever it held the end itself).
//!
//! Of the two fences one is first. If the holder's, the other thread finds the end free and does the work. If
//! the other's, the holder sees the message. A thread that handed over and did not get the end owes
//! nothing. Loom checks this as `a_message_handed_over_is_never_lost`, and as
//! `a_message_handed_over_during_a_flush_is_never_lost`.
//!
//! **No call is lost by closing**: see [`Outgoing::close`], and `a_close_is_seen_or_the_message_is`.

mod annex;
mod batch;
mod distance;
mod sender;

use std::collections::VecDeque;

use crate::arena::Arena;
use crate::end::{End, Held};
use crate::fate::Fate;
use crate::frame;
use crate::layout::{CONSUMED_AT, Geometry};
use crate::message::{Head, Inline, Large, Message};
use crate::ring::{Producer, Words};
use crate::sync::{AtomicBool, AtomicU64, HandOver, Ordering, fence};
use crate::window::Window;
use annex::Annex;
use batch::Batch;
use distance::Distance;

/// What sending touches besides its own end.
pub(crate) struct Wire<'a, O, I> {
    pub(crate) own: &'a O,
    pub(crate) peer: &'a I,
    pub(crate) window: &'a Window,
    pub(crate) fate: &'a Fate,
}

/// What became of a message that was taken. A staged one needs a `flush` later, by whichever thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is in the ring, and so is all that was staged before it.
    Published,
    /// It waits in private memory: the ring is full, or another thread has the end, or large messages
    /// are under way.
    Staged,
}

#[derive(Debug)]
pub(crate) enum Item {
    Message(Message),
    /// The caller of `id` is gone.
    Withdraw(u32),
}

#[derive(Debug)]
pub(crate) struct Outgoing {
    handed: HandOver<Item>,
    end: End<Sender>,
    /// Whether something is staged behind the lock. Written by the holder.
    waiting: AtomicBool,
    /// Small messages staged behind the lock. Written by the holder.
    backlog: AtomicU64,
    /// Slots published. Written by the holder, for those who ask whether the peer has read them.
    published: AtomicU64,
    /// Answers published or staged behind the lock. Written by the holder.
    answers: AtomicU64,
    /// How far the peer had come when the holder last looked. Written by the holder.
    seen: AtomicU64,
    /// The annex is wanted.
    wants_annex: AtomicBool,
}

#[derive(Debug)]
struct Sender {
    producer: Producer,
    arena: Arena,
    annex: Annex,
    arena_at: usize,
    piece: u32,
    distance: Distance,
    /// What comes before all that is staged.
    batch: Batch,
    /// Keeps its buffer, so that staging allocates nothing once warm.
    small: VecDeque<Item>,
    large: VecDeque<Leaving>,
    goodbye: Option<Message>,
    answers: u64,
}

#[derive(Debug)]
struct Leaving {
    head: Head,
    large: Large,
    sent: u32,
}

impl Outgoing {
    pub(crate) fn new(geometry: Geometry) -> Outgoing {
        let end = End::new(Sender {
            producer: Producer::new(geometry.slots),
            arena: Arena::new(0, geometry.arena),
            annex: Annex::new(geometry),
            arena_at: geometry.arena_at(),
            piece: geometry.piece(),
            distance: Distance::default(),
            batch: Batch::EMPTY,
            small: VecDeque::new(),
            large: VecDeque::new(),
            goodbye: None,
            answers: 0,
        });
        let (waiting, published) = (AtomicBool::new(false), AtomicU64::new(0));
        let backlog = AtomicU64::new(0);
        Outgoing {
            handed: HandOver::new(),
            end,
            waiting,
            backlog,
            published,
            answers: AtomicU64::new(0),
            seen: AtomicU64::new(0),
            wants_annex: AtomicBool::new(false),
        }
    }

    /// From now on the annex is used, if the peer wants that, too.
    pub(crate) fn want_annex(&self) {
        self.wants_annex.store(true, Ordering::Relaxed);
    }

    /// Sends a small message if that can be done at once. False if not, for whatever reason: then
    /// [`submit`](Self::submit) it. With `more` to come soon, it may be staged for a moment.
    #[inline(always)]
    pub(crate) fn post(
        &self,
        wire: &Wire<'_, impl Words, impl Words>,
        head: &Head,
        body: &Inline,
        more: bool,
    ) -> bool {
        let Some(mut sender) = self.end.try_take() else {
            return false;
        };
        let at_once = self.nothing_small_waits(&sender, wire.fate)
            && sender.producer.has_room_after(sender.batch.len());
        if at_once {
            let words = frame::whole(head, body.len());
            sender.count(head.kind);
            if more && sender.batch.push(words, body.payload()) {
                self.waiting.store(true, Ordering::Relaxed);
            } else {
                self.publish_batch(&mut sender, wire.own);
                sender.producer.publish(wire.own, words, body.payload());
                self.tell(&sender);
            }
        }
        at_once
    }

    /// The same for a large body, whose bytes are reserved, if it crosses in one piece.
    #[inline]
    pub(crate) fn post_large(
        &self,
        wire: &Wire<'_, impl Words, impl Words>,
        head: &Head,
        large: &Large,
    ) -> bool {
        let Some(mut sender) = self.end.try_take() else {
            return false;
        };
        if !self.nothing_small_waits(&sender, wire.fate) || !sender.large.is_empty() {
            return false;
        }
        self.publish_batch(&mut sender, wire.own);
        let at_once = sender.put_whole(wire, head, large);
        if at_once {
            sender.count(head.kind);
        }
        self.tell(&sender);
        at_once
    }

    /// The channel is open, and nothing but a batch has to go before the next small message.
    #[inline(always)]
    fn nothing_small_waits(&self, sender: &Sender, fate: &Fate) -> bool {
        !fate.is_closed() && sender.small.is_empty() && self.handed.is_empty()
    }

    /// Publishes what waits only for more to come. Nothing else that is small is staged.
    #[inline(always)]
    fn publish_batch(&self, sender: &mut Sender, own: &impl Words) {
        if sender.batch.len() > 0 {
            sender.batch.publish(&mut sender.producer, own);
            let waits = !sender.large.is_empty() || sender.goodbye.is_some();
            self.waiting.store(waits, Ordering::Relaxed);
        }
    }

    /// Takes an item, for now if `at_once` and there is room, else for a later flush. Gives it back if the
    /// channel is closed.
    pub(crate) fn submit(
        &self,
        wire: &Wire<'_, impl Words, impl Words>,
        item: Item,
        at_once: bool,
    ) -> Result<Sent, Item> {
        let Some(mut sender) = self.end.try_take() else {
            return self.hand_over(wire, item);
        };
        if wire.fate.is_closed() {
            return Err(item);
        }
        if at_once {
            return Ok(self.work(sender, wire, Some(item)));
        }
        sender.take_over(&self.handed);
        sender.stage(item);
        self.tell(&sender);
        self.waiting.store(true, Ordering::Relaxed);
        Ok(Sent::Staged)
    }

    #[cold]
    fn hand_over(&self, wire: &Wire<'_, impl Words, impl Words>, item: Item) -> Result<Sent, Item> {
        // Pairs with the fence in `close`: either we see the channel closed, or the closer sees what we did
        // before sending.
        fence(Ordering::SeqCst);
        if wire.fate.is_closed() {
            return Err(item);
        }
        self.handed.push(item);
        // Pairs with the fence of the holder: its caller's before `flush`, or the one in `flush`.
        fence(Ordering::SeqCst);
        match self.end.try_take() {
            Some(sender) => Ok(self.work(sender, wire, None)),
            None => Ok(Sent::Staged),
        }
    }

    /// Stages `item` behind all that was staged before, and publishes what there is room for.
    fn work(
        &self,
        mut sender: Held<'_, Sender>,
        wire: &Wire<'_, impl Words, impl Words>,
        item: Option<Item>,
    ) -> Sent {
        sender.take_over(&self.handed);
        if let Some(item) = item {
            sender.stage(item);
        }
        sender.annex.open(wire, &self.wants_annex);
        let emptied = if wire.fate.is_closed() {
            Err(())
        } else {
            sender
                .pump(wire, &self.handed)
                .map_err(|violation| wire.fate.condemn(violation))
        };
        let emptied = emptied.unwrap_or_else(|()| {
            sender.batch.clear();
            sender.small.clear();
            sender.large.clear();
            sender.goodbye = None;
            true
        });
        self.tell(&sender);
        self.waiting.store(!emptied, Ordering::Relaxed);
        self.backlog
            .store(sender.small.len() as u64, Ordering::Relaxed);
        self.seen
            .store(sender.producer.consumed(), Ordering::Relaxed);
        if emptied {
            Sent::Published
        } else {
            Sent::Staged
        }
    }

    /// Says how far the holder has come.
    #[inline(always)]
    fn tell(&self, sender: &Sender) {
        self.published
            .store(sender.producer.next(), Ordering::Relaxed);
        self.answers.store(sender.answers, Ordering::Relaxed);
    }

    /// Publishes what is staged, as far as there is room. False if some of it must wait for the peer.
    pub(crate) fn flush(&self, wire: &Wire<'_, impl Words, impl Words>) -> bool {
        while self.is_staged() {
            let Some(sender) = self.end.try_take() else {
                return true; // whoever holds it flushes before it rests
            };
            let sent = self.work(sender, wire, None);
            // Pairs with the second fence in `hand_over`; and with the one before the flush of a thread that has been
            // rung for room, and found the end taken here. Loom: `room_that_comes_during_a_flush_is_used`.
            fence(Ordering::SeqCst);
            let emptied = sent == Sent::Published;
            let has_seen_all = || wire.peer.load(CONSUMED_AT) == self.seen.load(Ordering::Relaxed);
            if self.handed.has_none_whole() && (emptied || has_seen_all()) {
                return emptied;
            }
        }
        true
    }

    /// Whether anything waits to be flushed.
    pub(crate) fn is_staged(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) || !self.handed.is_empty()
    }

    /// Small messages that wait for room in the ring.
    pub(crate) fn backlog(&self) -> u64 {
        self.backlog.load(Ordering::Relaxed)
    }

    /// Answers taken, ever, but for those still being handed over.
    pub(crate) fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// Slots published, ever.
    pub(crate) fn published(&self) -> u64 {
        self.published.load(Ordering::Relaxed)
    }

    /// Closes. After it, every `send` of this process either returned `Closed`, or what its thread did before
    /// it is visible to the closer.
    pub(crate) fn close(&self, fate: &Fate) {
        fate.close();
        // Pairs with the SeqCst exchange and load of a sender that found the end free.
        self.end.pass();
        // Pairs with the first fence in `hand_over`, of a sender that did not.
        fence(Ordering::SeqCst);
    }
}
