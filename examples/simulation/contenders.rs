//! The policies that are compared. All share everything but what they answer, and when they are asked.

use urpc::policy::{Action, Here, Optimistic, PeerView, Policy};

/// Which messages the policy is asked about as soon as they are sent, as it is for urgent calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Eager {
    No,
    Calls,
    All,
}

/// How a landing comes to the CPU that is lent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Landings {
    /// It wakes where it slept, and moves itself there.
    Follow,
    /// Its donor moves it there before it wakes it.
    AreMoved,
}

pub(crate) struct Contender {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) policy: &'static dyn Policy,
    pub(crate) lends: bool,
    /// A worker with nothing to do looks for messages for a while.
    pub(crate) spins: bool,
    pub(crate) eager: Eager,
    pub(crate) landings: Landings,
}

/// This library's first, and then the others.
pub(crate) const ALL: [Contender; 6] = [
    Contender {
        name: "urpc",
        about: "the policy of this library",
        policy: &Optimistic,
        lends: true,
        spins: true,
        eager: Eager::No,
        landings: Landings::Follow,
    },
    Contender {
        name: "urpc, moving",
        about: "the same, if a donor could move the landing to its CPU before it wakes it",
        policy: &Optimistic,
        lends: true,
        spins: true,
        eager: Eager::No,
        landings: Landings::AreMoved,
    },
    Contender {
        name: "urpc, spin 0",
        about: "the policy of this library where idle processors do not spin (`Builder::spin`)",
        policy: &Optimistic,
        lends: true,
        spins: false,
        eager: Eager::No,
        landings: Landings::Follow,
    },
    Contender {
        name: "never donate",
        about: "an idle processor rings who needs one, and spins for the reply",
        policy: &Never,
        lends: false,
        spins: true,
        eager: Eager::No,
        landings: Landings::Follow,
    },
    Contender {
        name: "always ring",
        about: "whoever may sleep is rung with each message, and nobody spins, as with a socket",
        policy: &AlwaysRing,
        lends: false,
        spins: false,
        eager: Eager::All,
        landings: Landings::Follow,
    },
    Contender {
        name: "hand-off",
        about: "the processor goes with every call, as in LRPC, although tasks are ready",
        policy: &HandOff,
        lends: true,
        spins: true,
        eager: Eager::Calls,
        landings: Landings::AreMoved,
    },
];

struct Never;

impl Policy for Never {
    fn decide(&self, here: &Here, peers: &[PeerView]) -> Action {
        let here = Here {
            may_lend: false,
            ..*here
        };
        Optimistic.decide(&here, peers)
    }
}

struct AlwaysRing;

impl Policy for AlwaysRing {
    fn decide(&self, here: &Here, peers: &[PeerView]) -> Action {
        let asleep = |peer: &PeerView| peer.urgent && peer.needs_a_ring();
        match peers.iter().position(asleep) {
            Some(peer) => Action::Ring(peer),
            None => Never.decide(here, peers),
        }
    }
}

struct HandOff;

impl Policy for HandOff {
    fn decide(&self, here: &Here, peers: &[PeerView]) -> Action {
        let called = |peer: &PeerView| peer.urgent && peer.unread && here.can_serve(peer);
        match peers.iter().position(called) {
            Some(to) => Action::Donate { to, ring: false },
            None => Optimistic.decide(here, peers),
        }
    }
}
