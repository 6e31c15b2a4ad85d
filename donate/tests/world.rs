//! A small world that runs by the policy: a few processes with none to two processors each, calls and nested
//! calls among them, landings, grants, onward grants, ring bytes. What moves next is random, and anybody may be stopped for a
//! while.
//!
//! A rest is announced in one step and made in another, after a last look, so that everything can happen in
//! between, as between real processes.

mod world {
    pub(crate) mod calls;
    pub(crate) mod process;
}

use fastrand::Rng;
use urpc_donate::policy::{Action, Here, Lent, Optimistic, PeerView, Policy, WORTH};

use world::calls::{Calls, Task};
use world::process::{Donor, Landing, Link, Process, Worker};

/// Steps in all worlds together.
const STEPS: u64 = 3_000_000;

/// After so many in one world everything has been answered.
const ENOUGH: u64 = 200_000;

struct World {
    rng: Rng,
    /// Steps so far; and the clock, in nanoseconds.
    steps: u64,
    processes: Vec<Process>,
    /// `links[p][q]`: what `p` sends to `q`, and the processors it lends there.
    links: Vec<Vec<Link>>,
    calls: Calls,
    /// Grants given, returned, reclaimed; and how many of those given were onwards.
    grants: [u64; 4],
}

impl World {
    fn new(mut rng: Rng) -> Self {
        let n = rng.usize(2..5);
        let mut world = Self {
            steps: 0,
            processes: (0..n).map(|_| Process::new(rng.usize(..3))).collect(),
            links: (0..n)
                .map(|_| (0..n).map(|_| Link::default()).collect())
                .collect(),
            calls: Calls::default(),
            grants: [0; 4],
            rng,
        };
        for p in 0..n {
            let tasks = world.rng.usize(..40);
            world.processes[p].ready.extend(vec![Task::Start; tasks]);
            world.calls.roots += tasks;
            world.notify(p);
        }
        world
    }

    fn is_over(&self) -> bool {
        let free = |link: &Link| matches!(link.landing, Landing::Free);
        self.calls.done == self.calls.roots && self.links.iter().flatten().all(free)
    }

    /// Somebody does something.
    fn step(&mut self) {
        self.steps += 1;
        let p = self.rng.usize(..self.processes.len());
        if self.processes[p].stopped(&mut self.rng) {
            return;
        }
        let q = self.rng.usize(..self.processes.len());
        let workers = self.processes[p].workers.len();
        match self.rng.u8(..4) {
            0 => self.land(q, p),
            1 => self.hear(q, p),
            _ if workers == 0 => self.stand_in(p),
            _ => {
                let w = self.rng.usize(..workers);
                self.work(p, w);
            }
        }
        self.every_lent_processor_is_in_one_place();
    }

    fn every_lent_processor_is_in_one_place(&self) {
        for (process, links) in self.processes.iter().zip(&self.links) {
            for (w, worker) in process.workers.iter().enumerate() {
                let donor = Donor::Worker(w);
                let holders = links.iter().filter(|link| link.holds(donor)).count();
                let lent = matches!(worker, Worker::Lent(_));
                assert_eq!(holders, usize::from(lent), "{worker:?}");
            }
        }
        // What a landing has lent onwards as well.
        for (donor, links) in self.links.iter().enumerate() {
            for (link, onwards) in links.iter().zip(&self.links) {
                let donor = Donor::Landing(donor);
                let holders = onwards.iter().filter(|link| link.holds(donor)).count();
                let lent = matches!(
                    link.landing,
                    Landing::Up {
                        onwards: Some(_),
                        ..
                    }
                );
                assert_eq!(holders, usize::from(lent), "{:?}", link.landing);
            }
        }
    }

    /// A worker with a processor of its own.
    fn work(&mut self, p: usize, w: usize) {
        match self.processes[p].workers[w] {
            Worker::Asleep => {}
            Worker::Lent(to) => {
                if self.rng.u8(..16) == 0 {
                    self.reclaim(p, Donor::Worker(w), to); // at the limit
                }
            }
            Worker::Awake => {
                if let Some(task) = self.processes[p].ready.pop_front() {
                    self.run(p, task, Some(w));
                } else if !self.receive(p) {
                    self.processes[p].workers[w] = Worker::Announced;
                }
            }
            Worker::Announced => {
                // The last look.
                if self.receive(p) || !self.processes[p].ready.is_empty() {
                    self.processes[p].workers[w] = Worker::Awake;
                } else {
                    self.idle(p, w);
                }
            }
        }
    }

    /// Announced, and nothing to do: as the policy says.
    fn idle(&mut self, p: usize, w: usize) {
        let here = self.here(true, None);
        let views = self.views(p, None);
        match Optimistic.decide(&here, &views) {
            Action::Donate { to, ring } => self.donate(p, Donor::Worker(w), to, ring),
            Action::Ring(q) => self.links[p][q].ring(),
            Action::Scan => self.processes[p].workers[w] = Worker::Awake,
            Action::Rest(_) => self.processes[p].workers[w] = Worker::Asleep,
            other => panic!("{other:?} with nothing ready, and nothing lent"),
        }
    }

    fn donate(&mut self, p: usize, from: Donor, to: usize, ring: bool) {
        let link = &mut self.links[p][to];
        if ring {
            link.ring();
        }
        assert!(matches!(link.landing, Landing::Free), "granted twice");
        link.grant(from, self.steps);
        self.grants[0] += 1;
        match from {
            Donor::Worker(w) => self.processes[p].workers[w] = Worker::Lent(to),
            Donor::Landing(donor) => {
                self.links[donor][p].set_onwards(Some(to));
                self.grants[3] += 1;
            }
        }
    }

    /// The donor goes on without its processor. The landing finds out later.
    fn reclaim(&mut self, p: usize, from: Donor, to: usize) {
        self.links[p][to].void(self.steps);
        self.grants[2] += 1;
        self.go_on(p, from);
    }

    /// The processor that was lent is back, or given up.
    fn go_on(&mut self, p: usize, from: Donor) {
        match from {
            Donor::Worker(w) => self.processes[p].workers[w] = Worker::Awake,
            Donor::Landing(donor) => self.links[donor][p].set_onwards(None),
        }
    }

    /// The landing of `p` for processors of `donor`.
    fn land(&mut self, donor: usize, p: usize) {
        let Landing::Up {
            from,
            live,
            looked,
            onwards,
        } = self.links[donor][p].landing
        else {
            return;
        };
        if let Some(to) = onwards {
            if !live || self.rng.u8(..16) == 0 {
                self.reclaim(p, Donor::Landing(donor), to); // its owner's limit, or its own
                self.receive_from(to, p);
            }
            return;
        }
        let served = self.calls.live(donor, p) == 0 && self.links[donor][p].messages.is_empty();
        let here = Here {
            ready: true,
            ..self.here(false, lent(served, false))
        };
        if live && (!looked || Optimistic.decide(&here, &[]) != Action::Return) {
            self.links[donor][p].look();
            if let Some(task) = self.processes[p].ready.pop_front() {
                return self.run(p, task, None);
            }
            if self.receive_from(donor, p) || self.lend_onwards(donor, p) {
                return;
            }
        }
        self.leave(p, live.then_some(donor));
        self.links[donor][p].landing = Landing::Free;
        if live {
            self.links[donor][p].returned(self.steps);
            self.grants[1] += 1;
            self.go_on(donor, from);
            if let Donor::Landing(_) = from {
                self.receive_from(p, donor);
            }
        }
    }

    /// Nothing is ready in `p` on the processor of `donor`. False if it goes back.
    fn lend_onwards(&mut self, donor: usize, p: usize) -> bool {
        let mut views = self.views(p, None);
        let wanted = std::mem::take(&mut views[donor]).is_underpowered();
        let here = Here {
            may_spin: false,
            ..self.here(true, lent(false, wanted))
        };
        match Optimistic.decide(&here, &views) {
            Action::Donate { to, ring } => self.donate(p, Donor::Landing(donor), to, ring),
            Action::Ring(q) => self.links[p][q].ring(),
            Action::Return => return false,
            other => panic!("{other:?} on a processor that was lent"),
        }
        true
    }

    /// A reserve thread is about to sleep: whoever may sleep on something of its process is rung.
    fn leave(&mut self, p: usize, donor: Option<usize>) {
        let here = Here {
            may_spin: false,
            ..self.here(false, Some(Lent::default()))
        };
        loop {
            let mut views = self.views(p, None);
            if let Some(donor) = donor {
                views[donor] = PeerView::default(); // it gets its processor back
            }
            match Optimistic.decide(&here, &views) {
                Action::Ring(q) => self.links[p][q].ring(),
                Action::Return => break,
                other => panic!("{other:?} on a processor that was lent"),
            }
        }
        if !self.processes[p].ready.is_empty() {
            self.notify(p);
        }
    }

    /// The reserve thread of a process without processors.
    fn stand_in(&mut self, p: usize) {
        if !self.processes[p].stand_in {
            return;
        }
        if let Some(task) = self.processes[p].ready.pop_front() {
            self.run(p, task, None);
        } else if !self.receive(p) {
            self.leave(p, None);
            self.processes[p].stand_in = false;
        }
    }

    /// There is something to do in `p`.
    fn notify(&mut self, p: usize) {
        if let Some((w, to)) = self.processes[p].wake() {
            self.reclaim(p, Donor::Worker(w), to);
        }
    }

    /// A ring byte from `p` arrives at `q`, if somebody sleeps there who would hear it.
    fn hear(&mut self, p: usize, q: usize) {
        if self.links[p][q].byte && self.processes[q].hears() {
            self.links[p][q].byte = false;
            self.notify(q);
        }
    }

    /// Takes what all peers have sent to `p`.
    fn receive(&mut self, p: usize) -> bool {
        let from = (0..self.processes.len()).filter(|&q| self.receive_from(q, p));
        from.count() > 0
    }

    fn receive_from(&mut self, q: usize, p: usize) -> bool {
        let mut found = false;
        while let Some(message) = self.links[q][p].take() {
            found = true;
            let task = self.calls.received(message);
            self.processes[p].ready.extend(task);
        }
        found
    }

    /// Runs a task of `p`. It may call, urgently at times, or it answers.
    fn run(&mut self, p: usize, task: Task, worker: Option<usize>) {
        let n = self.processes.len();
        let other = (p + self.rng.usize(1..n)) % n;
        let (to, message) = self.calls.run(&mut self.rng, task, p, other);
        self.links[p][to].messages.push_back(message);
        if !message.is_call() || self.rng.u8(..8) > 0 {
            return;
        }
        let here = Here {
            ready: true,
            ..self.here(worker.is_some(), None)
        };
        let views = self.views(p, Some(to));
        match (Optimistic.decide(&here, &views), worker) {
            (Action::Donate { to, ring }, Some(w)) => {
                self.donate(p, Donor::Worker(w), to, ring);
            }
            (Action::Ring(q), _) => self.links[p][q].ring(),
            (Action::Run, _) => {}
            (other, _) => panic!("{other:?} with tasks ready"),
        }
    }

    fn here(&mut self, may_lend: bool, lent: Option<Lent>) -> Here {
        Here {
            ready: false,
            lent,
            may_lend,
            cpus: 2,
            may_spin: self.rng.bool(),
            due_in: (self.rng.u8(..8) == 0).then_some(WORTH / 2),
        }
    }

    /// What `p` sees of all.
    fn views(&mut self, p: usize, urgent: Option<usize>) -> Vec<PeerView> {
        let see = |(q, process): (usize, &Process)| PeerView {
            urgent: urgent == Some(q),
            outstanding: self.calls.live(p, q) > 0,
            ..self.links[p][q].view(process.presence(), self.steps)
        };
        let views: Vec<_> = self.processes.iter().enumerate().map(see).collect();
        for (link, view) in self.links[p].iter_mut().zip(&views) {
            link.seen(view, self.steps);
        }
        views
    }
}

fn lent(served: bool, wanted: bool) -> Option<Lent> {
    Some(Lent { served, wanted })
}

#[test]
fn a_world_that_runs_by_the_policy_answers_every_call_and_gets_every_processor_back() {
    let mut rng = Rng::with_seed(1991);
    let (mut steps, mut grants) = (0, [0; 4]);
    while steps < STEPS {
        let seed = rng.u64(..);
        let mut world = World::new(Rng::with_seed(seed));
        while !world.is_over() {
            world.step();
            assert!(
                world.steps < ENOUGH,
                "seed {seed}: {} of {} calls were answered",
                world.calls.done,
                world.calls.roots
            );
        }
        let [given, returned, reclaimed, _] = world.grants;
        assert_eq!(given, returned + reclaimed, "a grant has no end");
        steps += world.steps;
        for (all, n) in grants.iter_mut().zip(world.grants) {
            *all += n;
        }
    }
    assert!(grants.iter().all(|&n| n > 300), "{grants:?}");
}
