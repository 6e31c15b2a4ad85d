//! The processes of the world, and what lies between two of them.

use std::collections::VecDeque;
use std::time::Duration;

use fastrand::Rng;
use urpc_donate::policy::{PeerView, View};
use urpc_donate::{Backoff, Streak};

use super::calls::{Message, Task};

/// What a worker does with its processor.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Worker {
    Awake,
    /// It has said that it rests, and looks once more.
    Announced,
    Asleep,
    /// To this process.
    Lent(usize),
}

pub(crate) struct Process {
    pub(crate) workers: Vec<Worker>,
    /// The stand-in is awake.
    pub(crate) stand_in: bool,
    pub(crate) ready: VecDeque<Task>,
    /// For so many of its steps nothing moves.
    stopped_for: u32,
}

impl Process {
    pub(crate) fn new(processors: usize) -> Self {
        Self {
            workers: vec![Worker::Awake; processors],
            stand_in: false,
            ready: VecDeque::new(),
            stopped_for: 0,
        }
    }

    /// Stopped, or just stopping.
    pub(crate) fn stopped(&mut self, rng: &mut Rng) -> bool {
        if self.stopped_for == 0 && rng.u16(..2_000) == 0 {
            self.stopped_for = rng.u32(..300);
        }
        self.stopped_for = self.stopped_for.saturating_sub(1);
        self.stopped_for > 0
    }

    pub(crate) fn presence(&self) -> View {
        let rests = |worker: &&Worker| !matches!(worker, Worker::Awake);
        View {
            processors: self.workers.len() as u32,
            resting: self.workers.iter().filter(rests).count() as u32,
        }
    }

    /// A ring byte reaches it now: a worker sleeps at the bell, or nobody is awake who will sleep there.
    pub(crate) fn hears(&self) -> bool {
        let sleeps = |worker: &Worker| matches!(worker, Worker::Asleep);
        let away = |worker: &Worker| matches!(worker, Worker::Lent(_));
        self.workers.iter().any(sleeps) || self.workers.iter().all(away)
    }

    /// Wakes a worker that sleeps, or the stand-in if there are none. If all are lent, the processor that is
    /// to come back.
    pub(crate) fn wake(&mut self) -> Option<(usize, usize)> {
        if self.workers.is_empty() {
            self.stand_in = true;
            return None;
        }
        for worker in &mut self.workers {
            match worker {
                Worker::Asleep => {
                    *worker = Worker::Awake;
                    return None;
                }
                Worker::Awake | Worker::Announced => return None,
                Worker::Lent(_) => {}
            }
        }
        self.workers.iter().enumerate().find_map(|(w, worker)| {
            let Worker::Lent(to) = *worker else {
                return None;
            };
            Some((w, to))
        })
    }
}

/// Who lends a processor to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Donor {
    /// A worker its own.
    Worker(usize),
    /// The landing for this process the one it has: onwards.
    Landing(usize),
}

/// The landing at the end of a link.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Landing {
    /// It sleeps, and has answered every grant.
    #[default]
    Free,
    /// It runs, or is about to.
    Up {
        /// Who lent it the processor.
        from: Donor,
        /// It has not been reclaimed.
        live: bool,
        /// There was a first look.
        looked: bool,
        /// It has lent the processor onwards, to this process.
        onwards: Option<usize>,
    },
}

/// What one process sends to another, and the processors it lends there.
#[derive(Default)]
pub(crate) struct Link {
    pub(crate) messages: VecDeque<Message>,
    pub(crate) landing: Landing,
    /// A ring byte is under way.
    pub(crate) byte: bool,
    progress: u64,
    rung_at: Option<u64>,
    unserved: Option<(u64, u64)>,
    streak: Streak,
    backoff: Backoff,
    /// Progress and time at the last grant.
    granted: (u64, u64),
}

impl Link {
    pub(crate) fn take(&mut self) -> Option<Message> {
        let message = self.messages.pop_front()?;
        self.progress += 1;
        Some(message)
    }

    pub(crate) fn ring(&mut self) {
        self.rung_at = Some(self.progress);
        self.byte = true;
    }

    pub(crate) fn grant(&mut self, from: Donor, now: u64) {
        self.granted = (self.progress, now);
        self.landing = Landing::Up {
            from,
            live: true,
            looked: false,
            onwards: None,
        };
    }

    /// This donor's processor is lent here.
    pub(crate) fn holds(&self, donor: Donor) -> bool {
        matches!(self.landing, Landing::Up { from, live: true, .. } if from == donor)
    }

    pub(crate) fn look(&mut self) {
        if let Landing::Up { looked, .. } = &mut self.landing {
            *looked = true;
        }
    }

    /// The landing lends its processor on, or, with `None`, has it back.
    pub(crate) fn set_onwards(&mut self, to: Option<usize>) {
        if let Landing::Up { onwards, .. } = &mut self.landing {
            *onwards = to;
        }
    }

    pub(crate) fn void(&mut self, now: u64) {
        if let Landing::Up { live, .. } = &mut self.landing {
            *live = false;
        }
        self.returned(now);
    }

    /// The processor is back, one way or the other.
    pub(crate) fn returned(&mut self, now: u64) {
        let (progress, since) = self.granted;
        self.streak.add(since, now);
        if self.progress == progress {
            self.backoff.wasted(now, Duration::from_nanos(now - since));
        } else {
            self.backoff.useful();
        }
    }

    pub(crate) fn view(&self, presence: View, now: u64) -> PeerView {
        let unread = !self.messages.is_empty();
        let since = self.unserved.filter(|&(at, _)| at == self.progress);
        PeerView {
            unread,
            presence,
            landing_free: unread && matches!(self.landing, Landing::Free),
            barred: self.backoff.bars(now),
            unserved: Duration::from_nanos(since.map_or(0, |(_, since)| now - since)),
            streak: self.streak.donations(),
            rung: self.rung_at == Some(self.progress),
            ..PeerView::default()
        }
    }

    /// What a look at the peer leaves behind.
    pub(crate) fn seen(&mut self, view: &PeerView, now: u64) {
        if view.presence.awake() {
            self.streak.end();
        }
        if view.unread && self.unserved.is_none_or(|(at, _)| at != self.progress) {
            self.unserved = Some((self.progress, now));
        }
    }
}
