//! Rest and ring: each side sends without asking, and asks only before it sleeps.
//!
//! Both sides rest after a few looks, and each times its messages so that they come just then: a little
//! earlier if the last one had to be rung, a little later if not.

use std::sync::atomic::{Ordering, fence};

use urpc_channel::Kind;
use urpc_donate::{Presence, View};

use crate::raw::{Random, ring};
use crate::{End, LONG};

/// Asks: some calls are always under way.
pub fn client(end: &End, random: &mut Random) {
    let (mut sent, mut answered) = (0, 0);
    let mut side = Side::new(end);
    loop {
        answered += end.receive(|reply| assert_eq!(reply.kind, Kind::Reply)) as u32;
        assert!(answered <= sent);
        // Mostly a single one: then no later message makes good what an earlier one missed.
        let most = random.below(4).max(1) as u32;
        while sent - answered < most {
            side.send(Kind::Call, sent, random);
            sent += 1;
            end.step();
        }
        if !side.pause(random) {
            return;
        }
    }
}

/// Answers.
pub fn server(end: &End, random: &mut Random) {
    let mut side = Side::new(end);
    loop {
        let mut calls = Vec::new();
        end.receive(|call| calls.push(call.id));
        for id in calls {
            side.send(Kind::Reply, id, random);
        }
        if !side.pause(random) {
            return;
        }
    }
}

struct Side<'a> {
    end: &'a End,
    own: Presence<'a>,
    peer: Presence<'a>,
    /// Something was sent since the last look at whether the peer rests. There is one such look for each
    /// message: a second one would make good what the first one missed.
    owes_a_look: bool,
    /// What is waited before a message is sent, in steps of a few nanoseconds.
    delay: u64,
}

impl<'a> Side<'a> {
    fn new(end: &'a End) -> Self {
        end.own.word(0).store(1, Ordering::Relaxed);
        Self {
            end,
            own: Presence {
                processors: end.own.word(0),
                resting: end.own.word(1),
                unheld: end.own.word(2),
            },
            peer: Presence {
                processors: end.peer.word(0),
                resting: end.peer.word(1),
                unheld: end.peer.word(2),
            },
            owes_a_look: false,
            delay: 0,
        }
    }

    fn send(&mut self, kind: Kind, id: u32, random: &mut Random) {
        for _ in 0..self.delay {
            std::hint::spin_loop();
        }
        self.end.send(kind, id);
        self.owes_a_look = true;
        if random.below(2) == 0 {
            // As a thread does that will not idle.
            fence(Ordering::SeqCst);
            self.look(random);
        }
    }

    /// After a fence: either the peer sees what we sent before it sleeps, or we see that it rests.
    fn look(&mut self, random: &mut Random) {
        if !std::mem::take(&mut self.owes_a_look) {
            return;
        }
        let step = 1 + random.below(8);
        if self.end.channel.unread_by_peer() && View::read(&self.peer).may_sleep() {
            ring(&self.end.socket);
            self.delay = self.delay.saturating_sub(step);
        } else {
            self.delay = (self.delay + step).min(1 << 12);
        }
    }

    /// Looks a few times, then rests. False if the peer is gone.
    fn pause(&mut self, random: &mut Random) -> bool {
        for _ in 0..random.below(1 << 8) {
            if self.end.channel.has_incoming() {
                return true;
            }
            std::hint::spin_loop();
        }
        self.own.announce_rest(); // with its fence
        let mut alive = true;
        if !self.end.channel.has_incoming() {
            self.look(random);
            alive = self.sleep();
        }
        self.own.retract_rest();
        alive
    }

    /// Sleeps until it is rung. False if the peer is gone.
    fn sleep(&self) -> bool {
        let mut waited = false;
        while !self.end.listen(LONG) {
            // Its sender may have been kept from the processor between sending and ringing: as long again.
            let unread = self.end.channel.has_incoming();
            assert!(!waited || !unread, "asleep, with a message, and not rung");
            waited = unread;
        }
        self.end.hear()
    }
}
