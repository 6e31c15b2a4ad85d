//! What holds of the policy in every state it can be shown, by a million generated ones.

use std::time::Duration;

use fastrand::Rng;
use urpc_donate::policy::{Action, Here, Lent, Optimistic, PeerView, Policy, STUCK, View, WORTH};

const STATES: u32 = 1_200_000;

fn here(rng: &mut Rng) -> Here {
    let lent = rng.u8(..3) == 0;
    Here {
        ready: rng.u8(..3) == 0,
        lent: lent.then(|| Lent {
            served: rng.u8(..4) == 0,
            wanted: rng.u8(..4) == 0,
        }),
        may_lend: rng.u8(..4) > 0,
        cpus: rng.usize(1..4),
        may_spin: rng.bool(),
        due_in: match rng.u8(..4) {
            0 => Some(WORTH / 2),
            1 => Some(WORTH * rng.u32(1..9)),
            _ => None,
        },
    }
}

fn peer(rng: &mut Rng) -> PeerView {
    let bits = rng.u16(..);
    let bit = |i: u8| bits & 1 << i != 0;
    let unread = bit(0) || bit(1);
    PeerView {
        unread,
        outstanding: bit(2),
        presence: View {
            processors: rng.u32(..3),
            resting: rng.u32(..4),
        },
        landing_free: unread && (bit(3) || bit(4)),
        barred: if bit(5) && bit(6) {
            STUCK * rng.u32(1..4)
        } else {
            Duration::ZERO
        },
        unserved: STUCK * rng.u32(..5) / 3,
        streak: rng.u32(..10),
        rung: bit(7),
        urgent: bit(8) && bit(9),
    }
}

/// Everything that an answer must be, whatever was seen.
fn check(here: &Here, peers: &[PeerView], action: Action) {
    let needy = || peers.iter().filter(|peer| peer.is_underpowered());
    let in_hand = here.lent.is_some_and(|lent| lent.served);
    let wanted = here.lent.is_some_and(|lent| lent.wanted) && !here.ready;
    let urgent = |i: usize| peers[i].urgent;
    match action {
        Action::Run => {
            assert!(here.ready && !in_hand);
            let mut urgent = needy().filter(|peer| peer.urgent);
            let seen_to = |peer: &PeerView| !peer.needs_a_ring() && !here.can_serve(peer);
            assert!(urgent.all(seen_to), "an urgent call waits");
        }
        Action::Donate { to, ring } => {
            let lucky = &peers[to];
            assert!(here.may_lend && lucky.landing_free && lucky.barred.is_zero());
            assert!(lucky.is_underpowered() && here.can_serve(lucky));
            assert!(!here.ready || lucky.urgent, "there is work here");
            assert!(!in_hand && (!wanted || urgent(to)), "its owner waits");
            let others = needy().filter(|peer| peer.urgent || !lucky.urgent);
            let longest = others.filter(|peer| here.can_serve(peer));
            let longest = longest.map(|peer| peer.unserved).max();
            assert_eq!(longest, Some(lucky.unserved), "somebody waits longer");
            let own = lucky.presence.processors > 0 && here.cpus > 1;
            assert!(!ring || own, "there is nobody to wake");
        }
        Action::Ring(i) => {
            assert!(peers[i].needs_a_ring());
            assert!(!here.ready || peers[i].urgent, "there is work here");
            assert!(!in_hand && (!wanted || urgent(i)), "its owner waits");
        }
        // It works on elsewhere.
        Action::Return if in_hand || wanted => {}
        Action::Scan | Action::Return | Action::Rest(_) => {
            assert!(!here.ready, "there is work here");
            // It could lend to one, or it could ring one.
            let left = needy().find(|peer| here.can_serve(peer) || peer.needs_a_ring());
            assert_eq!(left, None, "a processor idles beside an underpowered peer");
            match action {
                Action::Scan => {
                    assert!(here.may_spin && peers.iter().any(|peer| peer.outstanding));
                }
                Action::Return => assert!(here.lent.is_some()),
                Action::Rest(limit) => {
                    assert!(here.lent.is_none());
                    let longest = limit.unwrap_or(Duration::MAX);
                    assert!(longest <= here.due_in.unwrap_or(Duration::MAX));
                    // It is there in time for those that are about to be.
                    let unread = peers.iter().filter(|peer| peer.unread);
                    for peer in unread {
                        let then = PeerView {
                            barred: Duration::ZERO,
                            ..*peer
                        };
                        if here.can_serve(&then) {
                            let stuck = STUCK.saturating_sub(peer.unserved);
                            assert!(longest <= stuck.max(peer.barred));
                        }
                    }
                    assert!(limit.is_none_or(|limit| !limit.is_zero()));
                }
                _ => unreachable!("the others are above"),
            }
            if action != Action::Scan {
                assert!(!peers.iter().any(PeerView::needs_a_ring));
            }
        }
    }
}

#[test]
fn every_answer_of_the_policy_is_right_in_a_million_states() {
    let mut rng = Rng::with_seed(1991);
    let mut peers = Vec::new();
    let mut said = [0u32; 6];
    for _ in 0..STATES {
        let here = here(&mut rng);
        peers.clear();
        peers.extend((0..rng.u8(..5)).map(|_| peer(&mut rng)));
        // Each peer is rung once at most. Then something else is done.
        for rings in 0.. {
            let action = Optimistic.decide(&here, &peers);
            check(&here, &peers, action);
            said[match action {
                Action::Run => 0,
                Action::Scan => 1,
                Action::Donate { .. } => 2,
                Action::Ring(_) => 3,
                Action::Return => 4,
                Action::Rest(_) => 5,
            }] += 1;
            let Action::Ring(i) = action else { break };
            assert!(rings < peers.len(), "it rings for ever");
            peers[i].rung = true;
        }
    }
    // The generator reaches every row.
    assert!(said.iter().all(|&n| n > STATES / 100), "{said:?}");
}
