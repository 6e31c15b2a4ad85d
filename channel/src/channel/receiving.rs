//! What comes in: looks at the peer's ring, and what is taken from it.

use super::{Channel, Glance};
use crate::message::{Arrived, Body, Head, Large, Message, Sink};
use crate::violation::Violation;

impl Channel {
    /// Hands up to `max` whole messages to `sink`: [`receive_into`](Self::receive_into), for whoever has no place
    /// of its own for them.
    ///
    /// # Errors
    /// Those of [`receive_into`](Self::receive_into).
    pub fn receive(&self, max: usize, sink: impl FnMut(Message)) -> Result<usize, Violation> {
        struct Whole<F>(F);
        impl<F: FnMut(Message)> Sink for Whole<F> {
            fn small(&mut self, head: Head, body: Arrived<'_>) {
                self.0(head.with(body.into_body()));
            }
            fn large(&mut self, head: Head, body: Large) {
                self.0(head.with(Body::Heap(body)));
            }
        }
        self.receive_into(max, &mut Whole(sink))
    }

    /// Hands up to `max` whole messages to `sink` and then tells the peer, once, that their slots are free.
    /// Returns how many; 0 also if another thread is receiving. Stops after one lap of the ring at most, so a
    /// full batch says nothing about what is left. With a `max` of 1 it looks at no further slot: that line is
    /// often still on its way, and until it is here nothing that comes afterwards can be seen by the peer.
    ///
    /// Goes on after [`close`](Channel::close), so that a dead peer's last replies are not lost.
    ///
    /// # Errors
    /// What the peer did wrong; also on every later call. The channel is closed then.
    #[inline(always)]
    pub fn receive_into(&self, max: usize, sink: &mut impl Sink) -> Result<usize, Violation> {
        if self.forked() {
            return Err(Violation::Forked);
        }
        if self.fate.is_condemned() {
            return self.condemned();
        }
        let received = self.incoming.0.receive(&self.own, &self.peer, max, sink);
        if let Err(violation) = received {
            self.give_up(violation);
        }
        received
    }

    /// Takes the next message if it is the answer ([`Kind::Reply`](crate::Kind::Reply)) to call `id` and fits into its
    /// slot: `put` gets its body, under the end's lock. False if it is not, or is not there yet, or another thread is
    /// receiving: then [`receive_into`](Self::receive_into) is what takes it. The short way for one who waits for
    /// nothing else.
    #[inline(always)]
    pub fn receive_answer(&self, id: u32, put: impl FnOnce(Arrived<'_>)) -> bool {
        !self.forked()
            && !self.fate.is_condemned()
            && (self.incoming.0).receive_answer(&self.own, &self.peer, id, put)
    }

    #[cold]
    fn condemned(&self) -> Result<usize, Violation> {
        let violation = self.fate.violation();
        violation.map_or(Ok(0), |violation| {
            self.give_up(violation);
            Err(violation)
        })
    }

    #[cold]
    fn give_up(&self, violation: Violation) {
        self.fate.condemn(violation);
        self.fate.report();
        self.close();
    }

    /// Slots of the peer's ring that have been taken, ever: pieces of large messages too, which are no messages yet.
    #[inline]
    pub fn taken(&self) -> u64 {
        self.incoming.0.taken()
    }

    /// Whether a large message is half received: the peer is about to send more, if it has a processor.
    #[inline]
    pub fn is_receiving(&self) -> bool {
        self.incoming.0.is_underway()
    }

    /// Whether [`receive`](Channel::receive) has something. May say yes while another thread is just
    /// receiving it.
    #[inline]
    pub fn has_incoming(&self) -> bool {
        self.glance().incoming
    }

    /// One look at the next slot, and at little else: for channels of which nothing is expected.
    #[inline]
    pub fn has_unread(&self) -> bool {
        !self.forked() && self.incoming.0.has_more(&self.peer)
    }

    /// What a scan finds here: a look at the next slot and at a few words of our own, and nothing is written.
    #[inline]
    pub fn glance(&self) -> Glance {
        if self.forked() {
            return Glance::default();
        }
        Glance {
            incoming: if self.fate.is_condemned() {
                self.fate.has_news()
            } else {
                self.incoming.0.has_more(&self.peer)
            },
            chores: self.outgoing.0.is_staged() || self.window.0.is_awaited(),
        }
    }
}
