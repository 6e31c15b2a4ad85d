//! What a thread does next: `src/idle.rs`, `src/idle/spin.rs` and `src/landing.rs` of the library in the small.
//!
//! It looks for a task, else for messages, else it spins, and before it sleeps it announces that, looks once more,
//! and does what the policy says (`reallocate.rs`).

use crate::costs::*;
use crate::kernel::Use;
use crate::thread::{After, Doing, Errand, News, Program, Role};
use crate::world::World;

impl World<'_> {
    /// What this thread did is done.
    pub(crate) fn advance(&mut self, t: usize) {
        match self.programs[t].doing {
            Doing::Asleep => self.wake_up(t),
            Doing::Answer => self.answered(t),
            Doing::Move => self.look(t),
            Doing::Task(task) => {
                self.finish_task(t, task);
                self.look_or_urge(t);
            }
            Doing::Receive { link, n } => {
                self.receive(t, link, n);
                self.look(t);
            }
            Doing::Spin { until } => self.spun(t, until),
            Doing::Announced => self.last_look(t),
            Doing::Decide => self.decide(t),
            Doing::Urge => self.urge(t),
            Doing::Errand(errand) => self.run_errand(t, errand),
            Doing::Lent { landing } => self.take_back(t, landing),
            Doing::Leave => self.left(t),
            Doing::Return => self.give_back(t),
        }
    }

    fn wake_up(&mut self, t: usize) {
        let Program { space, role, .. } = self.programs[t];
        match role {
            Role::Landing(landing) => self.arrive(t, landing),
            Role::Keeper | Role::StandIn => {
                self.step(t, Doing::Answer, Use::System, self.cost_of_answer(t))
            }
            Role::Worker => {
                if self.spaces[space].sitter == Some(t) {
                    self.spaces[space].sitter = None;
                }
                let program = &mut self.programs[t];
                if !std::mem::take(&mut program.rung) {
                    return self.answered(t);
                }
                program.news = News::Rang;
                self.step(t, Doing::Answer, Use::System, ANSWER);
            }
        }
    }

    fn cost_of_answer(&self, t: usize) -> Time {
        if self.programs[t].role == Role::Keeper {
            KEEPER
        } else {
            0
        }
    }

    /// Awake, and knows why.
    fn answered(&mut self, t: usize) {
        let now = self.now;
        let program = &mut self.programs[t];
        let woken = std::mem::take(&mut program.woken);
        match program.role {
            Role::Keeper => {
                let space = program.space;
                if std::mem::take(&mut self.spaces[space].rung) {
                    self.notify(space, Some(t));
                }
                return self.doze(t, None);
            }
            Role::Worker => {
                if woken {
                    program.news = News::Came;
                }
                if let Some(since) = program.waits_since.take() {
                    let short = now - since < 2 * SPIN;
                    program.adapt(short);
                }
                self.retract(t);
            }
            _ => {}
        }
        self.look(t);
    }

    /// The thread looks for something to do.
    pub(crate) fn look(&mut self, t: usize) {
        let Program { space, role, .. } = self.programs[t];
        if let Some(task) = self.programs[t].hand.pop_front() {
            self.spaces[space].in_hand -= 1;
            return self.begin_task(t, task);
        }
        if let Role::Landing(landing) = role
            && !self.goes_on(t, landing)
        {
            return self.step(t, Doing::Leave, Use::System, LEAVE);
        }
        if self.programs[t].tasks_since_scan >= TASKS_PER_SCAN {
            self.programs[t].tasks_since_scan = 0;
            self.programs[t].looks_around = true;
            if self.look_around(t) {
                return;
            }
        }
        let around = std::mem::take(&mut self.programs[t].looks_around);
        if around && self.begin_receiving(t) {
            return;
        }
        if let Some(task) = self.spaces[space].ready.pop_front() {
            return self.begin_task(t, task);
        }
        if self.begin_receiving(t) {
            return;
        }
        match role {
            Role::Worker if self.begin_spinning(t) => {}
            _ => self.announce(t),
        }
    }

    /// A busy thread rings who seems to sleep on its messages.
    fn look_around(&mut self, t: usize) -> bool {
        let space = self.programs[t].space;
        let owner = self.owner(t);
        for i in 0..self.spaces[space].to.len() {
            let link = self.spaces[space].to[i];
            let stuck = self.links[link].is_stuck();
            let presence = self.spaces[self.links[link].to].presence();
            if stuck && Some(link) != owner && self.links[link].needs_a_ring(presence) {
                self.programs[t].errands.push_back(Errand::Ring(link));
            }
        }
        let any = !self.programs[t].errands.is_empty();
        if any {
            self.programs[t].after = After::Look;
            self.next_errand(t);
        }
        any
    }

    fn begin_spinning(&mut self, t: usize) -> bool {
        let program = &mut self.programs[t];
        let news = std::mem::replace(&mut program.news, News::Nothing);
        if news == News::Rang {
            program.halvings = 0;
        }
        let (space, budget) = (program.space, SPIN >> program.halvings);
        let expects = news != News::Nothing || self.spaces[space].outstanding > 0;
        if self.kernel.cpus() == 1 || !self.contender.spins || !expects || self.must_act(space) {
            return false;
        }
        self.programs[t].waits_since = Some(self.now);
        self.spaces[space].spinning += 1;
        let until = self.now + budget;
        self.step(t, Doing::Spin { until }, Use::Spin, budget);
        true
    }

    /// A spin has ended, or something was seen.
    fn spun(&mut self, t: usize, until: Time) {
        let space = self.programs[t].space;
        let found = self.spaces[space].has_work();
        if !found && self.now < until && !self.must_act(space) {
            return self.step(t, Doing::Spin { until }, Use::Spin, until - self.now);
        }
        self.spaces[space].spinning -= 1;
        if found {
            self.programs[t].waits_since = None;
            self.programs[t].adapt(true);
            self.look(t);
        } else {
            self.announce(t);
        }
    }

    /// Some peer has messages and no processor awake: waiting for it is in vain, unless it waits for one that it has
    /// lent to us, or was rung by somebody who never lends.
    fn must_act(&self, space: usize) -> bool {
        let lends = |&landing: &usize| self.landings[landing].donor.is_some();
        self.spaces[space].to.iter().any(|&link| {
            !self.links[link].messages.is_empty()
                && !self.spaces[self.links[link].to].presence().awake()
                && !self.links[link ^ 1].landings.iter().any(lends)
                && (self.contender.lends || !self.links[link].is_rung())
        })
    }

    /// Nothing to do: says so, and looks once more.
    fn announce(&mut self, t: usize) {
        let program = &mut self.programs[t];
        let space = program.space;
        if program.role == Role::Worker {
            program.waits_since.get_or_insert(self.now);
            self.say_rests(t);
        }
        let cost = ANNOUNCE + VIEW * self.spaces[space].to.len() as Time;
        self.step(t, Doing::Announced, Use::System, cost);
    }

    pub(crate) fn say_rests(&mut self, t: usize) {
        if self.programs[t].role == Role::Worker && !self.programs[t].announced {
            self.programs[t].announced = true;
            self.spaces[self.programs[t].space].resting += 1;
        }
    }

    pub(crate) fn retract(&mut self, t: usize) {
        if std::mem::take(&mut self.programs[t].announced) {
            self.spaces[self.programs[t].space].resting -= 1;
        }
    }

    fn last_look(&mut self, t: usize) {
        let Program { space, role, .. } = self.programs[t];
        let found = match role {
            Role::Landing(landing) => {
                let donors = &self.links[self.landings[landing].link];
                !self.spaces[space].ready.is_empty() || !donors.messages.is_empty()
            }
            _ => self.spaces[space].has_work(),
        };
        if found {
            self.programs[t].waits_since = None;
            self.retract(t);
            self.look(t);
        } else {
            self.step(t, Doing::Decide, Use::System, DECIDE);
        }
    }

    /// Sleeps, unless somebody has called meanwhile.
    pub(crate) fn doze(&mut self, t: usize, limit: Option<Time>) {
        let Program {
            space, role, woken, ..
        } = self.programs[t];
        if woken {
            return self.wake_up(t);
        }
        if role == Role::Worker && self.spaces[space].sitter.is_none() {
            if std::mem::take(&mut self.spaces[space].rung) {
                self.programs[t].rung = true;
                return self.wake_up(t);
            }
            self.spaces[space].sitter = Some(t);
        }
        if role == Role::Worker {
            self.kernel.threads[t].bound = None;
        }
        self.sleep(t, Doing::Asleep, limit);
    }

    /// A processor was lent to this landing, or had been.
    fn arrive(&mut self, t: usize, landing: usize) {
        let cpus = self.kernel.cpus();
        let space = &mut self.spaces[self.programs[t].space];
        let live = self.landings[landing].donor.is_some();
        let most = (space.processors as usize).max(cpus);
        self.programs[t].looked = false;
        self.programs[t].permitted = live && space.landings_running < most;
        if !self.programs[t].permitted {
            return self.step(t, Doing::Return, Use::System, WAKE);
        }
        space.landings_running += 1;
        let cpu = Some(self.landings[landing].cpu);
        if self.kernel.threads[t].bound == cpu {
            return self.look(t);
        }
        self.kernel.threads[t].bound = cpu;
        if self.kernel.cpu_of(t) == cpu {
            return self.step(t, Doing::Move, Use::System, MOVE_ITSELF);
        }
        self.programs[t].doing = Doing::Move;
        self.migrate(t);
    }

    fn goes_on(&mut self, t: usize, landing: usize) -> bool {
        let live = self.landings[landing].donor.is_some();
        let first = !std::mem::replace(&mut self.programs[t].looked, true);
        live && (first || self.is_wanted_here(landing))
    }
}
