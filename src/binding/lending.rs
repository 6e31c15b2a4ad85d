//! Who runs where: what is known of a peer's processors, and what is done about it (§3.1).
//!
//! A peer's presence, grants and progress are claims of its own. Believing a false one delays that peer's
//! calls, and nothing else.

use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use urpc_channel::{GrantWords, Standing, WakeWords};
use urpc_donate::policy::{PeerView, STUCK};
use urpc_donate::{Lender, Outcome, Presence, Signal, View, Words};

use super::Binding;
use crate::bind::foreign::{self, Unread};
use crate::node::{Node, lock, page};
use crate::note::note;
use crate::quota::Client;
use crate::stats::add;
use crate::wire::Nanos;

/// A number below [`LANDINGS`](crate::limits::LANDINGS) has no more bits.
const K_BITS: u32 = 8;

impl Binding {
    /// The peer's presence, as its page says it now.
    pub(crate) fn presence(&self) -> View {
        View::read(&Presence {
            processors: self.page.word(page::PROCESSORS),
            resting: self.page.word(page::RESTING),
            unheld: self.page.word(page::UNHELD),
        })
    }

    /// The peer has something to read, or waits for room that there is now.
    pub(crate) fn wants_attention(&self) -> bool {
        self.channel.unread_by_peer() || self.channel.peer_blocked()
    }

    /// What the policy has to know of this peer.
    pub(crate) fn view(&self, now: Nanos) -> PeerView {
        let Standing {
            wants_attention: unread,
            progress,
            gained,
        } = self.channel.standing();
        let if_unread = |ask: &dyn Fn() -> Duration| if unread { ask() } else { Duration::ZERO };
        PeerView {
            unread,
            outstanding: self.outstanding(),
            presence: self.seen_presence(),
            landing_free: unread && self.free_landing().is_some(),
            barred: if_unread(&|| self.backoff.bars(now.0)),
            unserved: if_unread(&|| self.unserved(gained, now)),
            streak: self.streak.donations(),
            rung: self.is_rung_at(progress),
            urgent: false,
        }
    }

    /// The peer owes us something: replies, or room in its ring.
    pub(crate) fn outstanding(&self) -> bool {
        self.pending.outstanding() || self.channel.staged()
    }

    /// [`presence`](Self::presence), and a peer that is awake has ended its streak.
    pub(crate) fn seen_presence(&self) -> View {
        let presence = self.presence();
        if presence.awake() {
            self.streak.end();
        }
        presence
    }

    /// For how long we have been seeing unread messages without the peer's having come further than so.
    fn unserved(&self, gained: u64, now: Nanos) -> Duration {
        if self.unserved_at.load(Ordering::Relaxed) != gained {
            self.unserved_at.store(gained, Ordering::Relaxed);
            self.unserved_since.store(now.0, Ordering::Relaxed);
        }
        now.since(Nanos(self.unserved_since.load(Ordering::Relaxed)))
    }

    /// Rings the peer if it may sleep on something of ours, and was not rung for it. After a fence.
    pub(crate) fn ring_if_needed(&self) {
        self.ring_if(|standing| self.needs_a_ring(standing));
    }

    fn needs_a_ring(&self, standing: Standing) -> bool {
        self.seen_presence().may_sleep() && !self.is_rung_at(standing.progress)
    }

    /// The peer says that it waits for a processor which it lent to us.
    pub(crate) fn lends_to_us(&self) -> bool {
        (0..self.landings.len()).any(|k| self.landing_words(k).lends())
    }

    /// The peer says that the processor which it lent to us last was this CPU: whoever runs there is in its way.
    pub(crate) fn has_lent_cpu(&self, cpu: u32) -> bool {
        (0..self.landings.len()).any(|k| self.landing_words(k).has_lent(cpu))
    }

    /// A landing of the peer that would answer.
    pub(crate) fn free_landing(&self) -> Option<usize> {
        let inbox = self.channel.inbox();
        (0..self.lenders.len()).find(|&k| self.lenders[k].is_free(inbox.returned(k)))
    }

    pub(crate) fn lender(&self, k: usize) -> (&Lender, Words<'_>) {
        let channel = &self.channel;
        let words = self.words(
            k,
            channel.outbox().grant(k),
            channel.inbox().returned(k),
            self.wakes.lent_to_peer(k),
        );
        (&self.lenders[k], words)
    }

    /// The words of landing `k` of this side.
    pub(crate) fn landing_words(&self, k: usize) -> Words<'_> {
        let channel = &self.channel;
        self.words(
            k,
            channel.inbox().grant(k),
            channel.outbox().returned(k),
            self.wakes.lent_to_us(k),
        )
    }

    /// The words of landing `k`, of this side or of the peer's, as `donate` wants them.
    fn words<'a>(
        &self,
        k: usize,
        granted: GrantWords<'a>,
        returned: &'a AtomicU32,
        wakes: WakeWords<'a>,
    ) -> Words<'a> {
        Words {
            grant: Signal {
                says: granted.grant,
                wake: wakes.grant,
            },
            cpu: granted.cpu,
            limit_us: granted.limit_us,
            returned: Signal {
                says: returned,
                wake: wakes.returned,
            },
            name: self.key.load(Ordering::Relaxed) << K_BITS | k as u64,
        }
    }

    /// Processor `id`, or one that was lent to us, is about to be lent to the peer. False if the channel is
    /// closed: [`close`](Self::close) would not wake its worker any more. Followed by
    /// [`take_back`](Self::take_back) in either case.
    pub(crate) fn hand_over(&self, id: Option<usize>) -> bool {
        match id {
            Some(id) => drop(self.donors.fetch_or(1 << id, Ordering::Relaxed)),
            None => drop(self.onwards.fetch_add(1, Ordering::Relaxed)),
        }
        // Pairs with the fence in `close`: either that sees this donor, or we see that it is closed.
        fence(Ordering::SeqCst);
        !self.is_closed()
    }

    pub(crate) fn take_back(&self, id: Option<usize>) {
        match id {
            Some(id) => drop(self.donors.fetch_and(!(1 << id), Ordering::Relaxed)),
            None => drop(self.onwards.fetch_sub(1, Ordering::Relaxed)),
        }
    }

    /// A processor is about to be lent. What is returned is for [`end_donation`](Self::end_donation).
    pub(crate) fn begin_donation(&self) -> u64 {
        self.answered_since.store(false, Ordering::Relaxed);
        self.channel.standing().gained
    }

    /// It was lent since `begun`, might have stayed away for `limit`, and is back. One that was wasted bars the next
    /// ones for a while.
    pub(crate) fn end_donation(
        &self,
        before: u64,
        outcome: Outcome,
        begun: Instant,
        limit: Duration,
    ) {
        let now = Instant::now();
        let lent = now.saturating_duration_since(begun);
        let at = |moment: Instant| moment.saturating_duration_since(self.made).as_nanos() as u64;
        self.streak.add(at(begun), at(now));
        let answered = self.answered_since.load(Ordering::Relaxed) || self.channel.has_incoming();
        let has_read = self.channel.standing().gained != before;
        match outcome {
            _ if answered => self.backoff.useful(),
            // For reasons of our own: that says nothing about the peer.
            Outcome::Woken => {}
            // It may wait for something else, and has returned at once.
            Outcome::Returned if has_read => self.backoff.useful(),
            // It came back early, for a timer of ours.
            Outcome::Limit if has_read && lent < limit => {}
            Outcome::Returned | Outcome::Limit => {
                self.backoff.wasted(Nanos::now().0, lent);
            }
        }
    }

    /// Something has come in from the peer.
    #[inline]
    pub(crate) fn note_answers(&self) {
        // Looked at first: the line is read by all workers, and seldom has to be written.
        if !self.answered_since.load(Ordering::Relaxed) {
            self.answered_since.store(true, Ordering::Relaxed);
        }
    }

    /// Rings the peer's doorbell, if there is something it should look at. Never blocks; if it is rung
    /// already, that is as good, and if the kernel has no memory for it, the keeper rings later.
    pub(crate) fn ring(&self) {
        self.ring_if(|_| true);
    }

    fn ring_if(&self, is_needed: impl FnOnce(Standing) -> bool) {
        // There is something to look at for a peer that has come so far, and while it has come no further, it has
        // yet to look.
        let standing = self.channel.standing();
        if !standing.wants_attention || !is_needed(standing) {
            return;
        }
        self.rung_at.store(standing.progress, Ordering::Relaxed);
        self.ring_at_once();
    }

    /// A landing of this side has come up. If there is something for it, the peer may have looked for a landing before,
    /// and have rung somebody who is blocked by now: so it is asked to look again.
    pub(crate) fn tell_of_landing(&self) {
        // Pairs with the fence of a peer that rests: either it sees the landing, or we see what it has sent. Loom:
        // `no_landing_comes_up_unseen_while_a_message_waits_for_one`.
        fence(Ordering::SeqCst);
        if self.channel.has_incoming() {
            self.ring_at_once();
        }
    }

    fn ring_at_once(&self) {
        note!(Ring, self);
        add(&self.counters.rings, 1);
        add(&self.counters.system_calls, 1);
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        if let Err(Errno::NOBUFS | Errno::NOMEM) = send(&self.socket, &[1], flags) {
            let key = self.key.load(Ordering::Relaxed);
            self.node.keeper.ring_again(key);
        }
    }

    /// Rings if the peer may sleep on what busy workers have seen waiting for it for a while. (What is younger may be
    /// found, or lent a processor by who has by then run out of the replies of the last donation, without a system
    /// call.)
    pub(crate) fn ring_if_stuck(&self, now: Nanos) {
        self.ring_if(|standing| {
            self.unserved(standing.gained, now) >= STUCK && self.needs_a_ring(standing)
        });
    }

    /// It was rung, and has not moved since.
    pub(crate) fn is_rung(&self) -> bool {
        self.is_rung_at(self.channel.peer_progress())
    }

    fn is_rung_at(&self, progress: u64) -> bool {
        self.rung_at.load(Ordering::Relaxed) == progress
    }

    /// It has rung. Says until when it is not to be heard, if it rings for nothing all the time.
    pub(crate) fn has_enough_rings(&self) -> Option<Instant> {
        let mut heard = lock(&self.heard);
        let moved = self.channel.moved();
        let (patience, before) = &mut *heard;
        if std::mem::replace(before, moved) != moved || self.channel.has_unread() {
            patience.useful();
            return None;
        }
        let now = Instant::now();
        patience.in_vain(now).map(|pause| now + pause)
    }

    /// Reads the doorbell. False if the peer is gone, or rings with something in its hands.
    pub(crate) fn answer_bell(&self) -> bool {
        let mut bytes = [0u8; 256];
        add(&self.counters.system_calls, 1);
        let one = lock(&self.heard);
        if self.is_closed() {
            return false;
        }
        let read = foreign::read(&self.socket, &mut bytes);
        drop(one);
        match read {
            Ok(bytes) => bytes != 0,
            Err(Unread::Failed(error)) => error == Errno::AGAIN || error == Errno::INTR,
            _ => {
                let client = Client::of(self.process.credentials());
                self.node.keeper.offended(client);
                false
            }
        }
    }
}

impl Node {
    /// Wakes a donor that sleeps beside the words of this name. Of a channel that has just been closed they are not
    /// found; [`Binding::close`] wakes its donors itself.
    pub(crate) fn nudge_donor(&self, name: u64) {
        let k = name & ((1 << K_BITS) - 1);
        if let Some(peer) = self.binding(name >> K_BITS) {
            peer.lender(k as usize).1.returned.nudge();
        }
    }
}
