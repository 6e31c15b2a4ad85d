//! The simulated machine: events in the order of time, and what threads do to one another.
//!
//! Everything follows from the load, the policy and the seed. Two threads that are due at the same nanosecond go in
//! the order in which that was decided. After the end of its time nothing new begins, and the world runs on until
//! nothing moves any more: then every call has had its reply and every grant its end, or something was forgotten.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use fastrand::Rng;

use crate::contenders::Contender;
use crate::costs::{LANDINGS, SPREAD, Time};
use crate::kernel::{Begins, Kernel, Use};
use crate::load::{Load, Rhythm, Source};
use crate::space::{Landing, Link, Space, Task};
use crate::tally::Tally;
use crate::thread::{Doing, Program, Role};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Event {
    /// What this thread did is done, if it still does that.
    Step {
        thread: usize,
        epoch: u32,
    },
    /// A sleep has come to its limit.
    Limit {
        thread: usize,
        epoch: u32,
    },
    /// Spinning workers of this address space see what has changed.
    Seen(usize),
    /// Calls from outside.
    Burst(usize),
    /// Measuring begins, and ends.
    Begin,
    End,
}

/// A call of a caller, or for the sake of another one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) link: usize,
    pub(crate) source: usize,
    pub(crate) parent: Option<usize>,
    /// Calls its handler waits for.
    pub(crate) waits_for: usize,
    pub(crate) since: Time,
}

/// What every run must balance in the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Books {
    pub(crate) called: u64,
    pub(crate) served: u64,
    pub(crate) answered: u64,
    pub(crate) granted: u64,
    pub(crate) returned: u64,
    pub(crate) reclaimed: u64,
}

pub(crate) struct World<'a> {
    pub(crate) now: Time,
    events: BinaryHeap<Reverse<(Time, u64, Event)>>,
    order: u64,
    pub(crate) kernel: Kernel,
    pub(crate) programs: Vec<Program>,
    pub(crate) spaces: Vec<Space>,
    pub(crate) links: Vec<Link>,
    pub(crate) landings: Vec<Landing>,
    pub(crate) calls: Vec<Call>,
    /// Each with a stream of numbers of its own: what comes from outside is the same for all policies.
    pub(crate) sources: Vec<(Source, Rng, Vec<usize>)>,
    pub(crate) rng: Rng,
    pub(crate) contender: &'a Contender,
    pub(crate) tally: Tally,
    pub(crate) books: Books,
    /// Address spaces that have work, and no thread on a CPU.
    starving: usize,
    begun_at: Time,
    pub(crate) measures: bool,
    pub(crate) ended: bool,
    duration: Time,
}

impl<'a> World<'a> {
    pub(crate) fn new(load: &Load, contender: &'a Contender, seed: u64) -> Self {
        let mut world = Self {
            now: 0,
            events: BinaryHeap::new(),
            order: 0,
            kernel: Kernel::new(load.cpus, load.cold_threads, load.spaces.len()),
            programs: Vec::new(),
            spaces: Vec::new(),
            links: Vec::new(),
            landings: Vec::new(),
            calls: Vec::new(),
            sources: Vec::new(),
            rng: Rng::with_seed(seed),
            contender,
            tally: Tally::new(load.cpus),
            books: Books::default(),
            starving: 0,
            begun_at: 0,
            measures: false,
            ended: false,
            duration: load.duration,
        };
        world.settle_spaces(load);
        let mut seeds = Rng::with_seed(seed);
        for (i, source) in load.sources.iter().enumerate() {
            world.add_source(i, source, seeds.fork());
        }
        world.at(load.duration / 10, Event::Begin);
        world.at(load.duration, Event::End);
        world
    }

    fn settle_spaces(&mut self, load: &Load) {
        for (s, spec) in load.spaces.iter().enumerate() {
            let workers = (0..spec.processors).map(|_| self.spawn(s, Role::Worker));
            let workers: Vec<usize> = workers.collect();
            let stand_in = (spec.processors == 0).then(|| self.spawn(s, Role::StandIn));
            let keeper = self.spawn(s, Role::Keeper);
            self.spaces.push(Space {
                processors: spec.processors,
                resting: spec.processors,
                sitter: workers.first().copied(),
                workers,
                stand_in,
                keeper,
                work: spec.work,
                ..Space::default()
            });
        }
        for &(caller, server) in &load.bound {
            for (from, to) in [(caller, server), (server, caller)] {
                let link = self.links.len();
                self.links.push(Link::new(from, to));
                self.spaces[from].to.push(link);
                self.spaces[to].from.push(link);
                for _ in 0..load.spaces[from].processors.clamp(1, LANDINGS) {
                    let landing = self.landings.len();
                    let thread = self.spawn(to, Role::Landing(landing));
                    self.landings.push(Landing::new(thread, link));
                    self.links[link].landings.push(landing);
                }
            }
        }
        for (s, spec) in load.spaces.iter().enumerate() {
            self.spaces[s].then = spec.then.iter().map(|&to| self.link(s, to)).collect();
        }
    }

    /// The link between these two.
    fn link(&self, from: usize, to: usize) -> usize {
        let mut links = self.spaces[from].to.iter().copied();
        links
            .find(|&link| self.links[link].to == to)
            .unwrap_or_else(|| panic!("{from} calls {to}, and is not bound to it"))
    }

    fn spawn(&mut self, space: usize, role: Role) -> usize {
        self.programs.push(Program::new(space, role));
        self.kernel.spawn(space)
    }

    fn add_source(&mut self, i: usize, source: &Source, mut rng: Rng) {
        let links = source.targets.iter().map(|&to| self.link(source.space, to));
        let links: Vec<usize> = links.collect();
        let first = source.burst(&mut rng).0;
        self.sources.push((source.clone(), rng, links));
        match source.rhythm {
            Rhythm::Callers(callers) => {
                for _ in 0..callers {
                    self.call(i);
                }
                self.notify(source.space, None);
            }
            Rhythm::Bursts { .. } => self.at(first, Event::Burst(i)),
        }
    }

    pub(crate) fn at(&mut self, time: Time, event: Event) {
        self.order += 1;
        self.events.push(Reverse((time, self.order, event)));
    }

    /// Runs until nothing moves any more.
    pub(crate) fn run(&mut self) {
        while let Some(Reverse((time, _, event))) = self.events.pop() {
            if self.measures {
                let wasted = self.starving.min(self.kernel.lazy);
                self.tally.wasted += u128::from(time - self.now) * wasted as u128;
            }
            self.now = time;
            self.happen(event);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Step { thread, epoch } if self.programs[thread].epoch == epoch => {
                self.kernel.begin(thread, self.now);
                self.recount(self.programs[thread].space);
                if self.kernel.has_had_its_turn(thread, self.now) {
                    let next = self.kernel.preempt(thread, self.now);
                    self.begins(next);
                    self.recount(self.programs[thread].space);
                } else {
                    self.advance(thread);
                }
            }
            Event::Limit { thread, epoch } if self.programs[thread].epoch == epoch => {
                self.wake(thread, None);
            }
            Event::Step { .. } | Event::Limit { .. } => {}
            Event::Seen(space) => self.seen(space),
            Event::Burst(source) => self.burst(source),
            Event::Begin => {
                self.begun_at = self.now;
                self.tally.spent = self.kernel.spent(self.now);
                self.measures = true;
            }
            Event::End => {
                let spent = self.kernel.spent(self.now);
                for (spent, until) in self.tally.spent.iter_mut().zip(spent) {
                    *spent = until - *spent;
                }
                self.tally.time = self.now - self.begun_at;
                self.measures = false;
                self.ended = true;
            }
        }
    }

    fn seen(&mut self, space: usize) {
        for i in 0..self.spaces[space].workers.len() {
            let worker = self.spaces[space].workers[i];
            if matches!(self.programs[worker].doing, Doing::Spin { .. })
                && self.kernel.cpu_of(worker).is_some()
            {
                self.due(worker, 0);
            }
        }
    }

    fn burst(&mut self, i: usize) {
        if self.now >= self.duration {
            return;
        }
        let (source, rng, _) = &mut self.sources[i];
        let (pause, calls) = source.burst(rng);
        let space = source.space;
        for _ in 0..calls {
            self.call(i);
        }
        self.notify(space, None);
        self.at(self.now + pause, Event::Burst(i));
    }

    /// A caller of this source is ready to call.
    fn call(&mut self, i: usize) {
        let call = self.new_call(i);
        let space = self.sources[i].0.space;
        self.spaces[space].ready.push_back(Task::Start(call));
        self.recount(space);
    }

    pub(crate) fn new_call(&mut self, i: usize) -> usize {
        let (_, rng, links) = &mut self.sources[i];
        let link = links[rng.usize(..links.len())];
        self.calls.push(Call {
            link,
            source: i,
            parent: None,
            waits_for: 0,
            since: self.now,
        });
        self.books.called += 1;
        self.calls.len() - 1
    }

    /// Counts, while that is measured.
    pub(crate) fn count(&mut self, what: impl FnOnce(&mut Tally) -> &mut u64) {
        if self.measures {
            *what(&mut self.tally) += 1;
        }
    }

    /// Whether this address space starves may have changed.
    pub(crate) fn recount(&mut self, s: usize) {
        let space = &mut self.spaces[s];
        let work = space.has_work() || space.in_hand > 0;
        let starves = work && self.kernel.on_cpu[s] == 0;
        self.starving = self.starving + usize::from(starves) - usize::from(space.starves);
        space.starves = starves;
    }

    /// The next step of this thread ends after so long.
    pub(crate) fn due(&mut self, thread: usize, cost: Time) {
        let program = &mut self.programs[thread];
        program.epoch += 1;
        let epoch = program.epoch;
        self.at(self.now + cost, Event::Step { thread, epoch });
    }

    fn begins(&mut self, thread: Begins) {
        if let Some((thread, cost)) = thread {
            self.due(thread, cost);
            self.recount(self.programs[thread].space);
        }
    }

    /// The thread does something for so long.
    pub(crate) fn step(&mut self, thread: usize, doing: Doing, does: Use, cost: Time) {
        self.programs[thread].doing = doing;
        self.kernel.turn_to(thread, does, self.now);
        let cost = match does {
            Use::Spin => cost,
            _ => cost * self.rng.u64(100 - SPREAD..=100 + SPREAD) / 100,
        };
        self.due(thread, cost);
    }

    /// The thread sleeps until it is woken, or the limit.
    pub(crate) fn sleep(&mut self, thread: usize, doing: Doing, limit: Option<Time>) {
        let program = &mut self.programs[thread];
        program.doing = doing;
        program.epoch += 1;
        let epoch = program.epoch;
        if let Some(limit) = limit {
            self.at(limit, Event::Limit { thread, epoch });
        }
        let next = self.kernel.sleep(thread, self.now);
        self.begins(next);
        self.recount(self.programs[thread].space);
    }

    /// The thread goes to the CPU it is bound to.
    pub(crate) fn migrate(&mut self, thread: usize) {
        self.programs[thread].epoch += 1;
        for begins in self.kernel.migrate(thread, self.now) {
            self.begins(begins);
        }
        self.recount(self.programs[thread].space);
    }

    /// Wakes a thread, if it sleeps.
    pub(crate) fn wake(&mut self, thread: usize, by: Option<usize>) {
        if self.kernel.is_asleep(thread) {
            let near = by.and_then(|by| self.kernel.cpu_of(by));
            self.programs[thread].epoch += 1;
            let begins = self.kernel.wake(thread, near, self.now);
            self.begins(begins);
        }
    }
}

#[cfg(test)]
impl World<'_> {
    /// Nothing is left over: no message, no task, no thread that is awake.
    pub(crate) fn rests(&self) {
        for (t, program) in self.programs.iter().enumerate() {
            assert!(self.kernel.is_asleep(t), "{:?} is awake", program.role);
            assert!(
                matches!(program.doing, Doing::Asleep),
                "{:?}",
                program.doing
            );
        }
        for space in &self.spaces {
            assert!(!space.has_work() && space.in_hand == 0 && space.outstanding == 0);
            assert_eq!((space.spinning, space.landings_running), (0, 0));
            assert_eq!(space.resting, space.processors);
        }
        assert!(self.landings.iter().all(Landing::is_free));
        assert_eq!(self.starving, 0);
        assert_eq!(self.kernel.lazy, self.kernel.cpus());
    }
}
