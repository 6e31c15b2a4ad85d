//! What an idle processor does next: the reallocation policy (§3.1), as a pure function.
//!
//! A worker that found nothing to run describes what it sees and is told one action. Top to bottom,
//! the first row that fits:
//!
//! | what it sees | action | the paper |
//! | --- | --- | --- |
//! | a peer has unread messages, no processor awake, a free landing | `Donate` | "an idle processor … can balance the load by reallocating itself to a server that has pending (unprocessed) messages" |
//! | the same, but it has slept through several donations although it has processors of its own, and another CPU is there | `Donate` and ring | the optimistic assumption "the server has, or will soon have, a processor" is made true |
//! | the same, but no landing is free | `Ring` | a donation is an optimisation, liveness is not |
//! | something is outstanding, and the spin budget is not used up | `Scan` | "the server has, or will soon have, a processor with which it can service a message" |
//! | a peer has unread messages, and some processor of it rests | `Ring` | the awake one may be stuck |
//! | else | `Rest` | |
//!
//! The function only looks at values, so that it can be tested exhaustively and simulated.

use crate::View;

/// After so many donations in a row to a peer that has processors of its own, one of these is woken:
/// work that stays deserves a processor that stays. Fewer would wake a second core for a single call.
/// From then on at each doubling, should it find no CPU.
pub const PATIENCE: u32 = 4;

/// What a worker sees of one peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerView {
    /// There are messages from us, or room that it waits for, which the peer has not looked at.
    pub unread: bool,
    /// The peer owes us something: replies, or room in its ring.
    pub outstanding: bool,
    /// Its presence page.
    pub presence: View,
    /// A landing of it answers.
    pub landing_free: bool,
    /// Donations in a row, without a processor of its own having been seen awake.
    pub streak: u32,
    /// This peer has been rung since it last read from us.
    pub rung: bool,
}

/// What a worker sees at home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Here {
    /// This thread has a processor of its own, which it can lend.
    pub may_lend: bool,
    /// More than one CPU: a peer can run while we do.
    pub parallel: bool,
    /// There is some of the spin budget left.
    pub may_spin: bool,
}

/// What to do. `K` names a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action<K> {
    /// Lend this processor to the peer; ring it as well if `ring`.
    Donate {
        /// To whom.
        to: K,
        /// Also wake one of its own processors.
        ring: bool,
    },
    /// Wake a processor of this peer.
    Ring(K),
    /// Look again.
    Scan,
    /// Nothing more to do: sleep until something happens.
    Rest,
}

/// Decides. See the table in the [module's documentation](self).
pub fn decide<K>(here: Here, peers: impl IntoIterator<Item = (K, PeerView)>) -> Action<K> {
    let mut outstanding = false;
    let mut ring = None;
    for (key, peer) in peers {
        outstanding |= peer.outstanding;
        if !peer.unread {
            continue;
        }
        if !peer.presence.awake() {
            if here.may_lend && peer.landing_free {
                let stays = peer.presence.processors > 0 && here.parallel;
                let ring = stays && peer.streak >= PATIENCE && peer.streak.is_power_of_two();
                return Action::Donate { to: key, ring };
            }
            if !peer.rung {
                return Action::Ring(key);
            }
        } else if peer.presence.may_sleep() && !peer.rung {
            ring.get_or_insert(key);
        }
    }
    if outstanding && here.may_spin {
        return Action::Scan;
    }
    ring.map_or(Action::Rest, Action::Ring)
}

#[cfg(all(test, not(urpc_loom)))]
mod tests {
    use super::*;

    const HERE: Here = Here {
        may_lend: true,
        parallel: true,
        may_spin: true,
    };

    fn peer(processors: u32, resting: u32) -> PeerView {
        PeerView {
            unread: true,
            outstanding: true,
            presence: View {
                processors,
                resting,
            },
            landing_free: true,
            streak: 0,
            rung: false,
        }
    }

    #[test]
    fn a_peer_without_a_processor_is_given_one() {
        for view in [peer(0, 0), peer(2, 2)] {
            assert_eq!(
                decide(HERE, [(7, view)]),
                Action::Donate { to: 7, ring: false }
            );
        }
    }

    #[test]
    fn a_peer_that_is_awake_is_left_to_it_while_we_may_spin() {
        assert_eq!(decide(HERE, [(7, peer(2, 1))]), Action::Scan);
        let tired = Here {
            may_spin: false,
            ..HERE
        };
        assert_eq!(decide(tired, [(7, peer(2, 1))]), Action::Ring(7));
        assert_eq!(decide(tired, [(7, peer(2, 0))]), Action::Rest);
    }

    #[test]
    fn work_that_stays_wakes_a_processor_that_stays() {
        let often = PeerView {
            streak: PATIENCE,
            ..peer(1, 1)
        };
        assert_eq!(
            decide(HERE, [(7, often)]),
            Action::Donate { to: 7, ring: true }
        );
        let single = Here {
            parallel: false,
            ..HERE
        };
        assert_eq!(
            decide(single, [(7, often)]),
            Action::Donate { to: 7, ring: false }
        );
    }

    #[test]
    fn who_cannot_donate_rings_once() {
        let guest = Here {
            may_lend: false,
            ..HERE
        };
        assert_eq!(decide(guest, [(7, peer(0, 0))]), Action::Ring(7));
        let rung = PeerView {
            rung: true,
            ..peer(0, 0)
        };
        assert_eq!(decide(guest, [(7, rung)]), Action::Scan);
    }

    #[test]
    fn with_nothing_outstanding_a_processor_rests() {
        assert_eq!(decide::<u8>(HERE, []), Action::Rest);
        assert_eq!(decide(HERE, [(7, PeerView::default())]), Action::Rest);
    }

    #[test]
    fn no_unread_message_is_left_with_a_peer_that_sleeps_unrung() {
        let bools = [false, true];
        let here = bools
            .iter()
            .flat_map(|&a| bools.map(|b| bools.map(|c| (a, b, c))).concat());
        for (may_lend, parallel, may_spin) in here {
            for (processors, resting) in [(0, 0), (1, 1), (2, 1), (2, 2)] {
                for landing_free in bools {
                    let view = PeerView {
                        landing_free,
                        ..peer(processors, resting)
                    };
                    let here = Here {
                        may_lend,
                        parallel,
                        may_spin,
                    };
                    let action = decide(here, [(0, view)]);
                    assert_ne!(action, Action::Rest, "{here:?} {view:?}");
                }
            }
        }
    }
}
