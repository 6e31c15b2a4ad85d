//! What the simulation knows of a thread.
//!
//! A thread goes from step to step. A step has a cost, and what it does to others happens at its end.

use std::collections::VecDeque;

use crate::costs::{MOST_HALVINGS, Time};
use crate::space::Task;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Worker,
    /// With its place among all landings.
    Landing(usize),
    StandIn,
    Keeper,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Doing {
    Asleep,
    /// Reads what was rung.
    Answer,
    /// Moves to the CPU that was lent.
    Move,
    Task(Task),
    /// Takes so many messages from this link.
    Receive {
        link: usize,
        n: usize,
    },
    Spin {
        until: Time,
    },
    /// Has said that it rests, and looks once more.
    Announced,
    /// Asks the policy.
    Decide,
    /// Asks the policy about messages just sent.
    Urge,
    Errand(Errand),
    /// Its processor is lent.
    Lent {
        landing: usize,
    },
    /// A landing may not go on: who sleeps on messages of its address space?
    Leave,
    /// Gives back what was lent to it.
    Return,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Errand {
    Ring(usize),
    Lend(usize),
}

/// What comes when all errands are done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum After {
    #[default]
    Look,
    Decide,
    Sleep(Option<Time>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    Nothing,
    Rang,
    Came,
}

pub(crate) struct Program {
    pub(crate) space: usize,
    pub(crate) role: Role,
    pub(crate) doing: Doing,
    pub(crate) epoch: u32,
    /// Woken for something, not by its landing and not at a limit.
    pub(crate) woken: bool,
    /// Woken by the bell.
    pub(crate) rung: bool,
    /// Links with messages that the policy is asked about at once.
    pub(crate) urgent: Vec<usize>,
    pub(crate) errands: VecDeque<Errand>,
    pub(crate) after: After,
    /// Requests that it has read and serves one after the other.
    pub(crate) hand: VecDeque<Task>,
    pub(crate) tasks_since_scan: u32,
    pub(crate) looks_around: bool,
    pub(crate) news: News,
    pub(crate) halvings: u32,
    pub(crate) waits_since: Option<Time>,
    /// It has announced that it rests.
    pub(crate) announced: bool,
    /// A landing has looked for work since it came.
    pub(crate) looked: bool,
    /// A landing may run.
    pub(crate) permitted: bool,
}

impl Program {
    pub(crate) fn new(space: usize, role: Role) -> Self {
        Self {
            space,
            role,
            doing: Doing::Asleep,
            epoch: 0,
            woken: false,
            rung: false,
            urgent: Vec::new(),
            errands: VecDeque::new(),
            after: After::Look,
            hand: VecDeque::new(),
            tasks_since_scan: 0,
            looks_around: false,
            news: News::Nothing,
            halvings: 0,
            waits_since: None,
            announced: role == Role::Worker,
            looked: false,
            permitted: false,
        }
    }
}

impl Program {
    /// A wait was short enough to be spent looking, or was not.
    pub(crate) fn adapt(&mut self, short: bool) {
        self.halvings = if short {
            self.halvings.saturating_sub(1)
        } else {
            (self.halvings + 1).min(MOST_HALVINGS)
        };
    }
}
