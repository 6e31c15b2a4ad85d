//! Whom a thread looks at: the lively channels each time, the silent ones in turn.
//!
//! A look at a silent channel costs as much as one at a lively channel: a few cache lines. So where there are many
//! channels, each thread has a short list of those in which it lately found something, or through which it called,
//! and with each look at these it takes as long for some of the others. So scanning costs what the activity is worth,
//! and not what the number of clients is.
//!
//! **Nothing depends on which list a channel is in.** The look before a rest, after the announcement and its fence, is
//! at all channels; until then each is looked at once in a round, and what it has to tell is heard so much later.

use std::rc::Rc;
use std::sync::Arc;

use urpc_channel::Glance;

use super::see_to;
use crate::binding::Binding;
use crate::node::Node;

/// Lively channels of a thread. So few channels are looked at each time, whether they are lively or not.
pub(crate) const LIVELY: usize = 16;

/// The channels that a thread knows of.
pub(crate) type List = Rc<Vec<Arc<Binding>>>;

/// See the [module's documentation](self).
#[derive(Default)]
pub(crate) struct Round {
    pub(crate) all: List,
    /// The very list `all` where that is short.
    lively: List,
    /// For each lively one: what had come in when somebody was last in want of its place.
    seen: Vec<u64>,
    /// Which of all is looked at next.
    next: usize,
}

impl Round {
    /// There are others now.
    pub(crate) fn renew(&mut self, all: Vec<Arc<Binding>>) {
        self.all = Rc::new(all);
        if self.all.len() <= LIVELY {
            self.lively = Rc::clone(&self.all);
            return;
        }
        let open = |binding: &&Arc<Binding>| !binding.is_closed();
        self.lively = Rc::new(self.lively.iter().filter(open).cloned().collect());
        self.seen = vec![0; self.lively.len()];
    }

    pub(crate) fn lively(&self) -> &List {
        &self.lively
    }

    fn has_silent(&self) -> bool {
        !Rc::ptr_eq(&self.all, &self.lively)
    }

    /// Puts a channel on the short list. Of a full one, those go of which nothing has come since the last time, or,
    /// if all are as lively as that, the first half.
    fn enliven(&mut self, binding: &Arc<Binding>) {
        if !self.has_silent() || self.lively.iter().any(|other| Arc::ptr_eq(other, binding)) {
            return;
        }
        let mut lively = self.lively.to_vec();
        if lively.len() >= LIVELY {
            let mut seen = self.seen.iter();
            lively.retain(|other| {
                let before = seen.next();
                other.outstanding() || before != Some(&other.channel.taken())
            });
            if lively.len() >= LIVELY {
                lively.drain(..LIVELY / 2);
            }
            self.seen = lively.iter().map(|other| other.channel.taken()).collect();
        }
        lively.push(Arc::clone(binding));
        self.seen.push(0);
        self.lively = Rc::new(lively);
    }

    /// Where the next `count` are to be looked at, if any are silent.
    fn advance(&mut self, count: usize) -> Option<(List, usize)> {
        if !self.has_silent() {
            return None;
        }
        let start = self.next % self.all.len();
        self.next = start + count;
        Some((Rc::clone(&self.all), start))
    }
}

impl Node {
    /// The channels that are looked at each time.
    pub(crate) fn lively(&self) -> List {
        self.with_round(|round| Rc::clone(&round.lively))
    }

    /// This thread expects something from this peer.
    #[cold]
    pub(crate) fn enliven(&self, binding: &Arc<Binding>) {
        self.with_round(|round| round.enliven(binding));
    }

    /// Looks at some silent channels, as many as `count`. True if something came in.
    pub(crate) fn scan_silent(&self, count: usize) -> bool {
        let Some((all, start)) = self.with_round(|round| round.advance(count.max(1))) else {
            return false;
        };
        let mut found = false;
        for binding in all.iter().cycle().skip(start).take(count.max(1)) {
            let glance = binding.channel.glance();
            let moved = glance != Glance::default() && see_to(binding, glance);
            // A peer that sleeps on something of ours has to be seen to, too.
            if moved || binding.wants_attention() {
                self.enliven(binding);
            }
            found |= moved;
        }
        found
    }
}
