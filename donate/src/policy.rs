//! What a processor does next: the reallocation policy (§3.1), as a pure function.
//!
//! A worker describes what it sees at home ([`Here`]) and of its peers ([`PeerView`]), and is told one
//! [`Action`]. It does that and, where it still has the processor afterwards, looks and asks again. The
//! policy of the paper, [`Optimistic`], answers with the first row that fits. A peer is *underpowered* if
//! it has messages that it has not read and no processor awake to read them, or if those that are awake have
//! read none of them for so long ([`STUCK`]) that they must be busy. It can be *served* if this
//! thread may lend, a landing of the peer is free, back-off does not bar it, and nothing is due here before
//! the processor could be back ([`WORTH`]). A processor that was lent to this process may be lent *onwards*;
//! what is due then is its owner's wish to have it back.
//!
//! | what the worker sees | action | the paper |
//! | --- | --- | --- |
//! | the processor is lent to this process, and all messages of its owner have replies | `Return` | "return the processor when all outstanding messages from the client have generated replies" |
//! | the peer of an urgent call is underpowered | `Donate` though tasks are ready; `Ring` if it cannot be served | "URPC allows the client's address space to force a processor reallocation to the server's, even though there might still be runnable threads in the client's" |
//! | a task is ready here | `Run` | "it can be delayed by scheduling within an address space for as long as possible" |
//! | the processor is lent to this process, and its owner is underpowered | `Return` | "or when the server determines that the client has become 'underpowered' (there are outstanding messages back to the client, and one of the server's processors is idle)" |
//! | a peer is underpowered, cannot be served, and was not rung | `Ring` | "there is no guarantee that the application will voluntarily return the processor": a donation is an optimisation, liveness is not |
//! | a peer is underpowered, and can be served | `Donate`, to the one unserved for longest | "When an idle processor discovers an underpowered address space, it invokes a procedure called *Processor.Donate*"; whose processor it is makes no difference: what its owner waits for waits for that peer |
//! | the same, again and again without a pause ([`PATIENCE`]), and it has processors of its own | `Donate` and ring | "The server has, or will soon have, a processor with which it can service a message": this makes it true |
//! | something is outstanding, and there is some of the spin budget left | `Scan` | "Processors scan for incoming messages only when they would otherwise be idle" |
//! | a peer has unread messages, some processor of it rests, and it was not rung | `Ring` | "if the workload between them is imbalanced": the one that is awake may be stuck |
//! | the processor is lent to this process | `Return` | "After these have been processed, the processor is returned to the client address space" |
//! | else | `Rest`, until the next thing is due, or a peer that could be served has left messages unread for too long | |
//!
//! An application may put a [`Policy`] of its own in the place of this one.

use std::fmt;
use std::time::Duration;

pub use crate::View;

/// After so many donations in a row to a peer that has processors of its own, one of these is woken:
/// work that stays deserves a processor that stays. Fewer would wake a second core for a single call.
/// From then on at each doubling, should it find no CPU.
pub const PATIENCE: u32 = 4;

/// A donation that begins later than so after the last one has ended is the first in a row again: a processor of the
/// peer's own that had been woken would be asleep by now.
pub const PAUSE: Duration = Duration::from_micros(50);

/// A processor that is needed here sooner than this is not lent: a few times what a hand-over and its return
/// cost on one CPU.
pub const WORTH: Duration = Duration::from_micros(20);

/// A peer that is awake and has read none of our messages for so long is busy with something else: for its idle
/// peers that is as if it had no processor. A processor that is lent brings its own CPU, and one that is rung so
/// late has lost no more than what waking it takes.
pub const STUCK: Duration = Duration::from_micros(50);

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
    /// Back-off: for so long it should be lent nothing, since what it was lent was wasted (see
    /// [`Backoff`](crate::Backoff)).
    pub barred: Duration,
    /// For how long there have been unread messages without its having read any.
    pub unserved: Duration,
    /// Donations in a row, without a [`PAUSE`] between them, and without a processor of its own having been seen awake.
    pub streak: u32,
    /// This peer has been rung since it last read from us.
    pub rung: bool,
    /// A call to it must not wait for this worker to run out of tasks (R24).
    pub urgent: bool,
}

impl PeerView {
    /// It has messages, and no processor for them, or none that comes to them (R19).
    ///
    /// ```
    /// use urpc_donate::{View, policy::PeerView};
    ///
    /// let mut peer = PeerView { unread: true, ..PeerView::default() };
    /// assert!(peer.is_underpowered());
    /// peer.presence = View { processors: 2, resting: 1 };
    /// assert!(!peer.is_underpowered());
    /// peer.unserved = urpc_donate::policy::STUCK;
    /// assert!(peer.is_underpowered());
    /// ```
    #[must_use]
    pub fn is_underpowered(&self) -> bool {
        self.unread && (!self.presence.awake() || self.unserved >= STUCK)
    }

    /// In how much time a processor should be lent to it if those it has, or that were rung, go on to read nothing.
    fn stuck_in(&self) -> Option<Duration> {
        self.unread
            .then(|| STUCK.saturating_sub(self.unserved).max(self.barred))
    }

    /// Some processor of it may sleep on messages of ours, and it has not been rung for them.
    #[must_use]
    pub fn needs_a_ring(&self) -> bool {
        self.unread && self.presence.may_sleep() && !self.rung
    }
}

/// This processor is another process's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lent {
    /// All messages of its owner have replies, and what was woken by the replies among them has run.
    pub served: bool,
    /// Its owner is itself underpowered: it has messages from here, and no processor for them but this one.
    pub wanted: bool,
}

/// What a worker sees at home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Here {
    /// Tasks are ready here.
    pub ready: bool,
    /// The processor is another process's.
    pub lent: Option<Lent>,
    /// This thread has a processor that it can lend: one of its own, or one that was lent to it.
    pub may_lend: bool,
    /// How many CPUs this process may use: with more than one, a peer can run while we do.
    pub cpus: usize,
    /// There is some of the spin budget left.
    pub may_spin: bool,
    /// When the next timer or deadline here is due, if there is any; and when a processor that was lent should
    /// be back from where it is lent onwards.
    pub due_in: Option<Duration>,
}

impl Here {
    /// True if this worker's processor can be given to `peer`, whether or not `peer` needs it.
    #[must_use]
    pub fn can_serve(&self, peer: &PeerView) -> bool {
        self.could_serve(peer) && peer.barred.is_zero()
    }

    /// The same, back-off aside.
    fn could_serve(&self, peer: &PeerView) -> bool {
        let worth = self.due_in.is_none_or(|due| due >= WORTH);
        self.may_lend && worth && peer.landing_free
    }
}

/// What to do. Peers are named by their places in the slice that was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Run the tasks that are ready.
    Run,
    /// Look again.
    Scan,
    /// Lend this processor to a peer; ring it as well if `ring`.
    Donate {
        /// To whom.
        to: usize,
        /// Also wake one of its own processors.
        ring: bool,
    },
    /// Wake a processor of this peer.
    Ring(usize),
    /// Give the processor back to its owner. Whoever is still to be rung is rung then.
    Return,
    /// Nothing more to do: sleep until something happens, or for so long.
    Rest(Option<Duration>),
}

/// Decides what a worker does when it has nothing to run, when a call is urgent, and, on a processor that was
/// lent, between any two tasks; then `peers` is empty. The owner of a processor that was lent is not among the
/// peers that it is shown with, or is there as one that needs nothing.
///
/// It is called from all workers at once, and must neither block nor panic. Whatever it answers, nothing breaks
/// for others: an answer that cannot be carried out is a look around or a rest; an idle processor rings whoever
/// may sleep on messages of this process, if the policy has not, and sleeps no longer than until the next timer;
/// a processor that was lent goes back when nothing is ready, unless it is lent onwards.
///
/// ```
/// use urpc_donate::policy::{Action, Here, Optimistic, PeerView, Policy};
///
/// /// Never lends a processor; rings instead.
/// struct Miser;
///
/// impl Policy for Miser {
///     fn decide(&self, here: &Here, peers: &[PeerView]) -> Action {
///         Optimistic.decide(&Here { may_lend: false, ..*here }, peers)
///     }
/// }
/// # let here = Here { ready: false, lent: None, may_lend: true, cpus: 2, may_spin: false, due_in: None };
/// # let peer = PeerView { unread: true, landing_free: true, ..PeerView::default() };
/// # assert_eq!(Miser.decide(&here, &[peer]), Action::Ring(0));
/// # assert_eq!(Optimistic.decide(&here, &[peer]), Action::Donate { to: 0, ring: false });
/// ```
pub trait Policy: Send + Sync {
    /// One action for what a worker sees.
    fn decide(&self, here: &Here, peers: &[PeerView]) -> Action;
}

impl fmt::Debug for dyn Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Policy")
    }
}

/// The policy of the paper: see the table in the [module's documentation](self).
#[derive(Clone, Copy, Debug, Default)]
pub struct Optimistic;

impl Policy for Optimistic {
    #[inline]
    fn decide(&self, here: &Here, peers: &[PeerView]) -> Action {
        if here.lent.is_some_and(|lent| lent.served) {
            return Action::Return;
        }
        if let Some(action) = reallocate(here, peers, |peer| peer.urgent) {
            return action;
        }
        if here.ready {
            return Action::Run;
        }
        if here.lent.is_some_and(|lent| lent.wanted) {
            return Action::Return;
        }
        if let Some(action) = reallocate(here, peers, |_| true) {
            return action;
        }
        if here.may_spin && peers.iter().any(|peer| peer.outstanding) {
            return Action::Scan;
        }
        if let Some(stuck) = peers.iter().position(PeerView::needs_a_ring) {
            return Action::Ring(stuck);
        }
        match here.lent {
            Some(_) => Action::Return,
            None => {
                let could = peers.iter().filter(|peer| here.could_serve(peer));
                let stuck = could.filter_map(PeerView::stuck_in).min();
                Action::Rest([here.due_in, stuck].into_iter().flatten().min())
            }
        }
    }
}

/// What is done for the underpowered among some peers: those that cannot be served are rung, each once, and
/// then the one that has waited longest is served.
fn reallocate(
    here: &Here,
    peers: &[PeerView],
    of_these: impl Fn(&PeerView) -> bool,
) -> Option<Action> {
    let mut neediest: Option<(usize, &PeerView)> = None;
    for (i, peer) in peers.iter().enumerate() {
        if !peer.is_underpowered() || !of_these(peer) {
            continue;
        }
        if !here.can_serve(peer) {
            if peer.needs_a_ring() {
                return Some(Action::Ring(i));
            }
        } else if neediest.is_none_or(|(_, other)| other.unserved < peer.unserved) {
            neediest = Some((i, peer));
        }
    }
    neediest.map(|(to, peer)| {
        let stays = peer.presence.processors > 0 && here.cpus > 1;
        let ring = stays && peer.streak >= PATIENCE && peer.streak.is_power_of_two();
        Action::Donate { to, ring }
    })
}

#[cfg(all(test, not(urpc_loom)))]
mod tests;
