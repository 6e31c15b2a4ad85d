//! Address spaces, and what lies between two of them: messages, presence, rings, grants. As in the library, but
//! without a peer that lies.

use std::collections::VecDeque;
use std::time::Duration;

use urpc::policy::{PeerView, View};
use urpc_donate::{Backoff, Streak};

use crate::costs::Time;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Message {
    /// With the place of its call.
    Call(usize),
    Reply(usize),
}

/// Something that is ready to run in an address space, with the place of the call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Task {
    /// A caller makes it.
    Start(usize),
    /// It is served.
    Serve(usize),
    /// All calls that its handler made have replies.
    Resume(usize),
    /// Its caller has the reply.
    Finish(usize),
}

#[derive(Debug, Default)]
pub(crate) struct Space {
    /// Own processors.
    pub(crate) processors: u32,
    /// How many of them rest.
    pub(crate) resting: u32,
    pub(crate) workers: Vec<usize>,
    pub(crate) stand_in: Option<usize>,
    pub(crate) keeper: usize,
    /// Links from here, and to here.
    pub(crate) to: Vec<usize>,
    pub(crate) from: Vec<usize>,
    pub(crate) ready: VecDeque<Task>,
    /// Messages to it that nobody has read.
    pub(crate) unread: usize,
    /// Tasks that a thread of it has taken on and not begun.
    pub(crate) in_hand: usize,
    /// Calls from here without a reply.
    pub(crate) outstanding: usize,
    pub(crate) spinning: u32,
    /// Who sleeps at the bell.
    pub(crate) sitter: Option<usize>,
    /// It was rung, and nobody has answered.
    pub(crate) rung: bool,
    pub(crate) landings_running: usize,
    /// A handler here costs so much on average, besides what any call costs.
    pub(crate) work: Time,
    /// And makes a call over each of these links.
    pub(crate) then: Vec<usize>,
    /// It has something to do, and no thread on a CPU.
    pub(crate) starves: bool,
}

impl Space {
    pub(crate) fn presence(&self) -> View {
        View {
            processors: self.processors,
            resting: self.resting,
        }
    }

    pub(crate) fn has_work(&self) -> bool {
        self.unread > 0 || !self.ready.is_empty()
    }
}

/// One direction of a channel.
#[derive(Debug, Default)]
pub(crate) struct Link {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) messages: VecDeque<Message>,
    /// Messages read so far.
    pub(crate) progress: u64,
    /// Calls that were sent here and have no reply.
    pub(crate) outstanding: usize,
    /// Calls that were read here and have no reply.
    pub(crate) live: usize,
    /// Something has come back since the last grant.
    pub(crate) answered: bool,
    /// The landings of the receiver for processors of the sender.
    pub(crate) landings: Vec<usize>,
    pub(crate) streak: Streak,
    pub(crate) backoff: Backoff,
    rung_at: Option<u64>,
    stuck_at: Option<u64>,
    /// How far it was read, and since when there were messages without its being read further.
    unserved: Option<(u64, Time)>,
}

impl Link {
    pub(crate) fn new(from: usize, to: usize) -> Self {
        Self {
            from,
            to,
            ..Self::default()
        }
    }

    pub(crate) fn is_rung(&self) -> bool {
        self.rung_at == Some(self.progress)
    }

    pub(crate) fn ring(&mut self) {
        self.rung_at = Some(self.progress);
    }

    pub(crate) fn needs_a_ring(&self, presence: View) -> bool {
        !self.messages.is_empty() && presence.may_sleep() && !self.is_rung()
    }

    /// A busy worker looks: true if it saw it as it is at its last look, too.
    pub(crate) fn is_stuck(&mut self) -> bool {
        self.stuck_at.replace(self.progress) == Some(self.progress)
    }

    /// What the policy is told of the receiver.
    pub(crate) fn view(&mut self, presence: View, landing_free: bool, now: Time) -> PeerView {
        let unread = !self.messages.is_empty();
        if presence.awake() {
            self.streak.end();
        }
        if unread && self.unserved.is_none_or(|(at, _)| at != self.progress) {
            self.unserved = Some((self.progress, now));
        }
        let since = self.unserved.filter(|_| unread);
        PeerView {
            unread,
            outstanding: self.outstanding > 0,
            presence,
            landing_free: unread && landing_free,
            barred: self.backoff.bars(now),
            unserved: Duration::from_nanos(since.map_or(0, |(_, since)| now - since)),
            streak: self.streak.donations(),
            rung: self.is_rung(),
            urgent: false,
        }
    }
}

/// A thread of a receiver that sleeps until the sender lends a processor.
#[derive(Debug)]
pub(crate) struct Landing {
    pub(crate) thread: usize,
    pub(crate) link: usize,
    /// Whose processor it has. Without one its grant is void.
    pub(crate) donor: Option<usize>,
    /// It has returned what it had last.
    pub(crate) answered: bool,
    /// The CPU of the last grant, when that was, when the processor should be back, and how far it had read then.
    pub(crate) cpu: usize,
    pub(crate) since: Time,
    pub(crate) until: Time,
    pub(crate) before: u64,
}

impl Landing {
    pub(crate) fn new(thread: usize, link: usize) -> Self {
        Self {
            thread,
            link,
            donor: None,
            answered: true,
            cpu: 0,
            since: 0,
            until: 0,
            before: 0,
        }
    }

    pub(crate) fn is_free(&self) -> bool {
        self.donor.is_none() && self.answered
    }
}
