//! Whom a thread looks at: the lively channels each time, the silent ones in turn.
//!
//! A look at a silent channel costs as much as one at a lively channel: a few cache lines. So where there are many
//! channels, each thread has a short list of those in which it lately found something, or through which it called,
//! and looks at one of the others now and then. So scanning costs what the activity is worth, not what the number of
//! clients is; and nothing is written for it but this thread's own list.
//!
//! **Nothing depends on which list a channel is in.** The look before a rest, after the announcement and its fence, is
//! at all channels; until then each is looked at once in a round, and what it has to tell is heard so much later.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::scan_one;
use crate::binding::Binding;
use crate::node::{List, Node};
use crate::wire::Nanos;

/// So few channels are looked at each time, whether they are lively or not.
pub(crate) const FEW: usize = 2;
/// Lively channels of a thread at most.
const LIVELY: usize = 16;
/// Looks at the lively channels for one at a silent channel: that costs about as much as some of these.
pub(crate) const LOOKS_PER_SILENT: u32 = 64;
/// Scans, each of which is for the sake of a task or a message, for one look at a silent channel.
const SCANS_PER_SILENT: u32 = 16;
/// Channels that are tended at a tick of the clock: some 10 µs.
const TENDED: usize = 64;

/// See the [module's documentation](self).
#[derive(Default)]
pub(crate) struct Round {
    /// `None` while this thread sleeps.
    all: Option<List>,
    /// The ones that are looked at each time: all of them where that is few. Empty while this thread sleeps.
    lively: Lively,
    /// The lively ones before that, by their keys.
    before: Vec<u64>,
    /// For each lively one: what had come in at the end of the last round.
    seen: Vec<u64>,
    /// Which of all is looked at next, and which is tended.
    next: usize,
    tended: usize,
    /// Since the last one.
    scans: u32,
}

/// A thread's own list: it is taken up with each scan.
pub(super) type Lively = Rc<Vec<Arc<Binding>>>;

impl Round {
    /// There are others now, or this thread has slept.
    pub(crate) fn renew(&mut self, all: List) {
        self.forget();
        let mut lively = self.take_lively();
        if all.len() <= FEW {
            lively.extend(all.iter().cloned());
        } else {
            let key = |binding: &Arc<Binding>| binding.key.load(Ordering::Relaxed);
            let find = |&lively: &u64| {
                let place = all.binary_search_by_key(&lively, key).ok()?;
                Some(Arc::clone(&all[place]))
            };
            lively.extend(self.before.iter().filter_map(find));
        }
        self.all = Some(all);
        self.set_lively(lively);
        self.look_back();
    }

    /// Lets go of all channels.
    pub(crate) fn forget(&mut self) {
        if self.all.take().is_none() {
            return;
        }
        self.before.clear();
        let keys = self.lively.iter().map(|b| b.key.load(Ordering::Relaxed));
        self.before.extend(keys);
        let lively = self.take_lively();
        self.set_lively(lively);
    }

    /// All channels, by their keys.
    pub(crate) fn all(&self) -> &List {
        self.all.as_ref().expect("renewed by who gave it out")
    }

    fn has_silent(&self) -> bool {
        self.all().len() > FEW
    }

    /// An empty list, which has its room already unless somebody still goes through the last one.
    fn take_lively(&mut self) -> Vec<Arc<Binding>> {
        let mut lively = Rc::get_mut(&mut self.lively).map(std::mem::take);
        lively.iter_mut().for_each(Vec::clear);
        lively.unwrap_or_default()
    }

    fn set_lively(&mut self, lively: Vec<Arc<Binding>>) {
        match Rc::get_mut(&mut self.lively) {
            Some(place) => *place = lively,
            None => self.lively = Rc::new(lively),
        }
    }

    /// Puts a channel on the short list. If that is full, the first half of it goes.
    fn enliven(&mut self, binding: &Arc<Binding>) {
        if !self.has_silent() || self.lively.iter().any(|other| Arc::ptr_eq(other, binding)) {
            return;
        }
        let mut lively = self.lively.to_vec();
        if lively.len() == LIVELY {
            lively.drain(..LIVELY / 2);
            self.seen.drain(..LIVELY / 2);
        }
        lively.push(Arc::clone(binding));
        self.seen.push(u64::MAX);
        self.set_lively(lively);
    }

    /// Notes what has come in so far.
    fn look_back(&mut self) {
        self.seen.clear();
        if self.has_silent() {
            let taken = self.lively.iter().map(|other| other.channel.taken());
            self.seen.extend(taken);
        }
    }

    /// From which of `count` channels on some are to be tended.
    fn tend(&mut self, count: usize) -> usize {
        let from = self.tended % count.max(1);
        self.tended = from + TENDED;
        from
    }

    /// The channel whose turn it is, if any are silent. At the end of a round, those leave the short list of which
    /// nothing has come in since the one before, and nothing is expected.
    fn turn(&mut self) -> Option<(List, usize)> {
        if !self.has_silent() {
            return None;
        }
        if self.next >= self.all().len() {
            self.next = 0;
            let stays = |(other, seen): &(&Arc<Binding>, &u64)| {
                **seen != other.channel.taken() || other.outstanding() || other.wants_attention()
            };
            let lively = self.lively.iter().zip(&self.seen).filter(stays);
            let lively: Vec<_> = lively.map(|(other, _)| Arc::clone(other)).collect();
            if lively.len() < self.lively.len() {
                self.set_lively(lively);
            }
            self.look_back();
        }
        let turn = self.next;
        self.next += 1;
        Some((Arc::clone(self.all()), turn))
    }
}

impl Node {
    /// The channels that are looked at each time.
    pub(crate) fn lively(&self) -> Lively {
        self.with_round(|round| Rc::clone(&round.lively))
    }

    /// This thread expects something from this peer.
    #[cold]
    pub(crate) fn enliven(&self, binding: &Arc<Binding>) {
        self.with_round(|round| round.enliven(binding));
    }

    /// Looks at a silent channel. True if something came in.
    pub(crate) fn scan_silent(&self) -> bool {
        let Some((all, turn)) = self.with_round(Round::turn) else {
            return false;
        };
        let binding = &all[turn];
        binding.channel.has_unread() && self.scan_and_enliven(binding)
    }

    /// The same, for one of several scans.
    pub(crate) fn scan_silent_sometimes(&self) -> bool {
        let is_time = self.with_round(|round| {
            round.scans += 1;
            round.scans % SCANS_PER_SILENT == 0
        });
        is_time && self.scan_silent()
    }

    #[cold]
    fn scan_and_enliven(&self, binding: &Arc<Binding>) -> bool {
        self.enliven(binding);
        scan_one(binding)
    }

    /// Sees to all that is to be done for channels besides receiving, which is not urgent: for so many of them, and for
    /// the others in the next turns. All of a thousand at once would keep a caller waiting for longer than a peer
    /// looks on.
    pub(super) fn tend_some(&self, now: Nanos) {
        let all = self.local_bindings();
        let from = self.with_round(|round| round.tend(all.len()));
        for binding in all[from..].iter().chain(&all[..from]).take(TENDED) {
            binding.pending.expire(now);
            binding.tell_drained();
            // A peer that sleeps on something of ours has to be seen to by name.
            if binding.wants_attention() || binding.channel.staged() {
                self.enliven(binding);
            }
        }
    }
}
