//! What one address space does to another: messages, rings, processors.

use crate::contenders::{Eager, Landings};
use crate::costs::{CACHE_LINE, GRANT_LIMIT, MOVE_OTHER, Time, WAKE};
use crate::space::{Link, Message};
use crate::thread::{Doing, Role};
use crate::world::{Event, World};

impl World<'_> {
    /// There is something to do in this address space: for a worker that rests, for the stand-in, or for the one
    /// whose processor is lent.
    pub(crate) fn notify(&mut self, s: usize, by: Option<usize>) {
        let is = |doing: fn(&Doing) -> bool, asleep: bool| {
            let mut workers = self.spaces[s].workers.iter().copied();
            workers.find(|&w| doing(&self.programs[w].doing) && self.kernel.is_asleep(w) == asleep)
        };
        let sleeps = is(|doing| matches!(doing, Doing::Asleep), true);
        // On its way to sleep, or just woken.
        let rests = is(
            |doing| matches!(doing, Doing::Announced | Doing::Decide | Doing::Asleep),
            false,
        );
        let awake = self.spaces[s].presence().awake();
        let lent = is(|doing| matches!(doing, Doing::Lent { .. }), true).filter(|_| !awake);
        if let Some(thread) = sleeps.or(rests).or(lent).or(self.spaces[s].stand_in) {
            self.programs[thread].woken = true;
            if self.spaces[s].sitter == Some(thread) {
                self.spaces[s].sitter = None;
            }
            self.wake(thread, by);
        }
    }

    /// A byte on the socket: whoever sits at the bell hears it, or the keeper.
    pub(crate) fn ring(&mut self, link: usize, by: usize) {
        if self.links[link].messages.is_empty() {
            return;
        }
        self.links[link].ring();
        self.count(|tally| &mut tally.rings);
        let s = self.links[link].to;
        let hears = match self.spaces[s].sitter.take() {
            Some(sitter) => {
                self.programs[sitter].rung = true;
                sitter
            }
            None => {
                self.spaces[s].rung = true;
                let keeper = self.spaces[s].keeper;
                self.programs[keeper].woken = true;
                keeper
            }
        };
        if self.kernel.is_asleep(hears) {
            self.count(|tally| &mut tally.crossings);
            self.wake(hears, Some(by));
        }
    }

    /// A message is in the ring. Nobody is told, but who spins sees it.
    pub(crate) fn publish(&mut self, link: usize, message: Message, by: usize) {
        let Link { from, to, .. } = self.links[link];
        self.links[link].messages.push_back(message);
        self.spaces[to].unread += 1;
        self.recount(to);
        let in_vain = !self.spaces[to].presence().awake();
        for (space, tell) in [(to, true), (from, in_vain)] {
            if tell && self.spaces[space].spinning > 0 {
                self.at(self.now + CACHE_LINE, Event::Seen(space));
            }
        }
        let asks = match self.contender.eager {
            Eager::No => false,
            Eager::Calls => matches!(message, Message::Call(_)),
            Eager::All => true,
        };
        if asks && !self.programs[by].urgent.contains(&link) {
            self.programs[by].urgent.push(link);
        }
    }

    pub(crate) fn free_landing(&self, link: usize) -> Option<usize> {
        let mut landings = self.links[link].landings.iter().copied();
        landings.find(|&landing| self.landings[landing].is_free())
    }

    /// What it costs this thread to lend its processor there.
    pub(crate) fn cost_of_lending(&self, thread: usize, link: usize) -> Time {
        let landing = self.free_landing(link).map(|k| self.landings[k].thread);
        let bound = landing.and_then(|thread| self.kernel.threads[thread].bound);
        let moves =
            self.contender.landings == Landings::AreMoved && bound != self.kernel.cpu_of(thread);
        WAKE + if moves { MOVE_OTHER } else { 0 }
    }

    /// Lends the processor of this thread. False if no landing is free any more.
    pub(crate) fn lend(&mut self, thread: usize, link: usize) -> bool {
        let (Some(k), Some(cpu)) = (self.free_landing(link), self.kernel.cpu_of(thread)) else {
            return false;
        };
        let limit = match self.programs[thread].role {
            Role::Landing(held) => self.landings[held].until,
            _ => Time::MAX,
        };
        let until = limit.min(self.now + GRANT_LIMIT);
        self.links[link].answered = false;
        let landing = &mut self.landings[k];
        landing.donor = Some(thread);
        landing.answered = false;
        landing.cpu = cpu;
        landing.since = self.now;
        landing.until = until;
        landing.before = self.links[link].progress;
        let lands = landing.thread;
        self.kernel.threads[thread].bound = Some(cpu);
        if self.contender.landings == Landings::AreMoved {
            self.kernel.threads[lands].bound = Some(cpu);
        }
        self.books.granted += 1;
        self.count(|tally| &mut tally.donations);
        self.count(|tally| &mut tally.crossings);
        self.wake(lands, Some(thread));
        self.sleep(thread, Doing::Lent { landing: k }, Some(until));
        true
    }
}
