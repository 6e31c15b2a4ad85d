//! Rest and ring: each side sends without asking, and asks only before it sleeps.
//!
//! Each side looks for a while before it rests, and seeks the moment at which the next message comes: it
//! looks a little longer next time if it slept, less long if it need not have rested. So messages and
//! rests meet, which they would seldom do by chance.

use std::sync::atomic::{Ordering, fence};

use urpc_channel::Kind;
use urpc_donate::{Affinity, Presence, View};

use crate::raw::{Random, ring};
use crate::{End, LONG};

/// Some ten microseconds: longer than a peer that is awake takes for an answer.
const MOST_LOOKS: u64 = 1 << 11;

/// Asks: some calls are always under way.
pub(crate) fn client(end: &End, random: &mut Random) {
    let (mut sent, mut answered) = (0, 0);
    let mut side = Side::new(end);
    let mut affinity = Affinity::of_this_thread();
    // Apart, they run at once; left alone, the kernel likes to keep them together.
    if random.below(4) > 0 {
        affinity.bind(0);
    }
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
            affinity.let_go();
            return;
        }
    }
}

/// Answers.
pub(crate) fn server(end: &End, random: &mut Random) {
    let mut side = Side::new(end);
    Affinity::of_this_thread().bind(1);
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
    /// How often to look before the next rest.
    looks: u64,
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
            looks: 1,
        }
    }

    fn send(&mut self, kind: Kind, id: u32, random: &mut Random) {
        self.end.send(kind, id);
        self.owes_a_look = true;
        if random.below(2) == 0 {
            // As a thread does that will not idle.
            fence(Ordering::SeqCst);
            self.look();
        }
    }

    /// After a fence: either the peer sees what we sent before it sleeps, or we see that it rests.
    fn look(&mut self) {
        if std::mem::take(&mut self.owes_a_look)
            && self.end.channel.unread_by_peer()
            && View::read(&self.peer).may_sleep()
        {
            ring(&self.end.socket);
        }
    }

    /// Looks for a while, then rests. False if the peer is gone.
    fn pause(&mut self, random: &mut Random) -> bool {
        let step = 1 + random.below(1 + self.looks / 4);
        for _ in 0..self.looks {
            if self.end.channel.has_incoming() {
                self.looks = self.looks.saturating_sub(step);
                return true;
            }
            std::hint::spin_loop();
        }
        self.looks = (self.looks + step).min(MOST_LOOKS);
        self.own.announce_rest(); // with its fence
        let mut alive = true;
        if !self.end.channel.has_incoming() {
            self.look();
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
