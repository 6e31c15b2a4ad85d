//! Rest and ring: each side sends without asking, and asks only before it sleeps.
//!
//! Both sides rest as soon as they have nothing to do, or after a few looks, so that nearly every message
//! meets a peer that is just going to sleep, asleep, or just awake.

use std::sync::atomic::{Ordering, fence};

use urpc_channel::Kind;
use urpc_donate::{Presence, View};

use crate::raw::{Random, ring};
use crate::{End, LONG, think};

/// Asks: some calls are always under way.
pub fn client(end: &End, random: &mut Random) {
    let (mut asked, mut answered) = (0, 0);
    open(end);
    loop {
        answered += end.receive(|reply| assert_eq!(reply.kind, Kind::Reply)) as u32;
        assert!(answered <= asked);
        let most = 1 + random.below(4) as u32;
        while asked - answered < most {
            end.send(Kind::Call, asked);
            asked += 1;
            think(random);
        }
        if !pause(end, random) {
            return;
        }
    }
}

/// Answers.
pub fn server(end: &End, random: &mut Random) {
    open(end);
    loop {
        let mut calls = Vec::new();
        end.receive(|call| calls.push(call.id));
        for id in calls {
            think(random);
            end.send(Kind::Reply, id);
        }
        if !pause(end, random) {
            return;
        }
    }
}

fn open(end: &End) {
    end.own.word(0).store(1, Ordering::Relaxed);
}

fn own(end: &End) -> Presence<'_> {
    Presence {
        processors: end.own.word(0),
        resting: end.own.word(1),
        unheld: end.own.word(2),
    }
}

fn peer(end: &End) -> View {
    View::read(&Presence {
        processors: end.peer.word(0),
        resting: end.peer.word(1),
        unheld: end.peer.word(2),
    })
}

/// Looks a few times, then rests. False if the peer is gone.
fn pause(end: &End, random: &mut Random) -> bool {
    for _ in 0..random.below(3) {
        if end.channel.has_incoming() {
            return true;
        }
        think(random);
    }
    own(end).announce_rest();
    let mut alive = true;
    if !end.channel.has_incoming() {
        // `announce_rest` has fenced: either the peer sees our message before it sleeps, or we see it rest.
        if end.channel.unread_by_peer() && peer(end).may_sleep() {
            ring(&end.socket);
        }
        alive = sleep(end);
    }
    own(end).retract_rest();
    // As a busy worker does now and then: the peer may rest on what it has not read.
    if random.below(8) == 0 {
        fence(Ordering::SeqCst);
        if end.channel.unread_by_peer() && peer(end).may_sleep() {
            ring(&end.socket);
        }
    }
    alive
}

/// Sleeps until it is rung. False if the peer is gone.
fn sleep(end: &End) -> bool {
    let mut waited = false;
    while !end.listen(LONG) {
        // Its sender may have been kept from the processor between sending and ringing: as long again.
        assert!(
            !waited || !end.channel.has_incoming(),
            "asleep, with a message, and not rung"
        );
        waited = end.channel.has_incoming();
    }
    end.hear()
}
