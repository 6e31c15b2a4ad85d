//! Doing what the policy says: `src/idle/reallocate.rs` of the library in the small. Here the real policy is asked.

use std::time::Duration;

use urpc::policy::{Action, Here, Lent, PeerView};

use crate::costs::{ANNOUNCE, DECIDE, FENCE, RING, Time, VIEW, WAKE};
use crate::kernel::Use;
use crate::thread::{After, Doing, Errand, Program, Role};
use crate::world::World;

impl World<'_> {
    /// What there is to be told of the processor of this thread.
    fn here(&self, t: usize, ready: bool) -> Here {
        let role = self.programs[t].role;
        let lent = match role {
            Role::Landing(landing) => Some(self.lent(landing)),
            _ => None,
        };
        let due_in = match role {
            Role::Landing(landing) => {
                let until = self.landings[landing].until;
                Some(Duration::from_nanos(until.saturating_sub(self.now)))
            }
            _ => None,
        };
        Here {
            ready,
            lent,
            may_lend: matches!(role, Role::Worker | Role::Landing(_)),
            cpus: self.kernel.cpus(),
            may_spin: false,
            due_in,
        }
    }

    fn lent(&self, landing: usize) -> Lent {
        let link = self.landings[landing].link;
        let (from_owner, to_owner) = (&self.links[link], &self.links[link ^ 1]);
        Lent {
            served: from_owner.live == 0 && from_owner.messages.is_empty(),
            wanted: !to_owner.messages.is_empty() && !self.spaces[to_owner.to].presence().awake(),
        }
    }

    /// Between two tasks of a landing: false if the processor goes back.
    pub(crate) fn is_wanted_here(&self, landing: usize) -> bool {
        let here = self.here(self.landings[landing].thread, true);
        self.contender.policy.decide(&here, &[]) != Action::Return
    }

    /// The link to whom the processor of this thread belongs.
    pub(crate) fn owner(&self, t: usize) -> Option<usize> {
        match self.programs[t].role {
            Role::Landing(landing) => {
                let landing = &self.landings[landing];
                landing.donor.map(|_| landing.link ^ 1)
            }
            _ => None,
        }
    }

    fn view(&mut self, t: usize, link: usize) -> PeerView {
        if self.owner(t) == Some(link) {
            return PeerView::default(); // it gets its processor back
        }
        let presence = self.spaces[self.links[link].to].presence();
        let free = self.free_landing(link).is_some();
        self.links[link].view(presence, free, self.now)
    }

    /// Announced, and nothing to do here.
    pub(crate) fn decide(&mut self, t: usize) {
        let links = self.spaces[self.programs[t].space].to.clone();
        let views: Vec<PeerView> = links.iter().map(|&link| self.view(t, link)).collect();
        let here = self.here(t, false);
        let action = self.contender.policy.decide(&here, &views);
        let errands = &mut self.programs[t].errands;
        match action {
            Action::Ring(i) if views[i].unread && !views[i].rung => {
                errands.push_back(Errand::Ring(links[i]));
                // Who only spins begins to do so when it has rung.
                let spins = self.contender.spins && !self.contender.lends;
                self.programs[t].after = if spins { After::Look } else { After::Decide };
            }
            Action::Donate { to, ring } if here.may_lend && views[to].landing_free => {
                self.prepare_to_lend(t, links[to], ring, &views, &links);
            }
            Action::Run | Action::Scan => {
                self.retract(t);
                self.programs[t].after = After::Look;
            }
            _ => {
                let rings = (links.iter().zip(&views)).filter(|(_, view)| view.needs_a_ring());
                errands.extend(rings.map(|(&link, _)| Errand::Ring(link)));
                self.programs[t].after = After::Sleep(match action {
                    Action::Rest(limit) => limit.map(|limit| self.now + limit.as_nanos() as Time),
                    _ => None,
                });
            }
        }
        self.next_errand(t);
    }

    /// Whoever else sleeps on our messages must not have to wait until the processor is back.
    fn prepare_to_lend(
        &mut self,
        t: usize,
        to: usize,
        ring: bool,
        views: &[PeerView],
        links: &[usize],
    ) {
        let errands = &mut self.programs[t].errands;
        if ring {
            errands.push_back(Errand::Ring(to));
        }
        let others =
            (links.iter().zip(views)).filter(|(link, view)| **link != to && view.needs_a_ring());
        errands.extend(others.map(|(&link, _)| Errand::Ring(link)));
        errands.push_back(Errand::Lend(to));
        self.programs[t].after = After::Look;
    }

    /// After a task: there may be messages that the policy wants to hear of at once.
    pub(crate) fn look_or_urge(&mut self, t: usize) {
        let owner = self.owner(t);
        let program = &mut self.programs[t];
        program.urgent.retain(|&link| Some(link) != owner);
        if program.urgent.is_empty() {
            return self.look(t);
        }
        let cost = FENCE + VIEW * program.urgent.len() as Time;
        self.step(t, Doing::Urge, Use::System, cost);
    }

    pub(crate) fn urge(&mut self, t: usize) {
        let links = std::mem::take(&mut self.programs[t].urgent);
        let mut views: Vec<PeerView> = links.iter().map(|&link| self.view(t, link)).collect();
        views.iter_mut().for_each(|view| view.urgent = true);
        let here = self.here(t, true);
        self.programs[t].after = After::Look;
        match self.contender.policy.decide(&here, &views) {
            Action::Ring(i) if views[i].unread && !views[i].rung => {
                self.programs[t].errands.push_back(Errand::Ring(links[i]));
                self.programs[t].urgent = links;
                self.programs[t].urgent.remove(i);
            }
            Action::Donate { to, ring } if here.may_lend && views[to].landing_free => {
                self.prepare_to_lend(t, links[to], ring, &views, &links);
            }
            _ => {}
        }
        self.next_errand(t);
    }

    pub(crate) fn next_errand(&mut self, t: usize) {
        let program = &mut self.programs[t];
        if let Some(errand) = program.errands.pop_front() {
            let says_so = program.role == Role::Worker && !program.announced;
            let cost = match errand {
                Errand::Ring(_) => RING,
                Errand::Lend(link) if says_so => ANNOUNCE + DECIDE + self.cost_of_lending(t, link),
                Errand::Lend(link) => self.cost_of_lending(t, link),
            };
            return self.step(t, Doing::Errand(errand), Use::System, cost);
        }
        match program.after {
            After::Look => {
                self.retract(t);
                self.look_or_urge(t);
            }
            After::Decide => self.step(t, Doing::Decide, Use::System, 0),
            After::Sleep(limit) => self.rest(t, limit),
        }
    }

    pub(crate) fn run_errand(&mut self, t: usize, errand: Errand) {
        match errand {
            Errand::Ring(link) => self.ring(link, t),
            // Called meanwhile: it would be back at once.
            Errand::Lend(_) if std::mem::take(&mut self.programs[t].woken) => {}
            Errand::Lend(link) => {
                self.say_rests(t);
                if self.lend(t, link) {
                    return;
                }
                if !self.links[link].is_rung() {
                    self.programs[t].errands.push_back(Errand::Ring(link));
                }
            }
        }
        self.next_errand(t);
    }

    /// Nothing is left to do: a worker sleeps, what was lent goes back.
    fn rest(&mut self, t: usize, limit: Option<Time>) {
        let Program { space, role, .. } = self.programs[t];
        match role {
            Role::Worker => self.doze(t, limit),
            Role::Landing(_) => self.give_up(t),
            Role::StandIn | Role::Keeper => {
                if self.spaces[space].has_work() {
                    self.look(t);
                } else {
                    self.doze(t, None);
                }
            }
        }
    }

    /// A landing that has no right to go on rings who sleeps on the messages of its address space.
    pub(crate) fn left(&mut self, t: usize) {
        let links = self.spaces[self.programs[t].space].to.clone();
        for link in links {
            if self.view(t, link).needs_a_ring() {
                self.programs[t].errands.push_back(Errand::Ring(link));
            }
        }
        self.programs[t].after = After::Sleep(None);
        self.next_errand(t);
    }

    fn give_up(&mut self, t: usize) {
        let space = self.programs[t].space;
        if !self.spaces[space].ready.is_empty() {
            self.notify(space, Some(t));
        }
        self.step(t, Doing::Return, Use::System, WAKE);
    }

    /// A landing returns what it had, and sleeps.
    pub(crate) fn give_back(&mut self, t: usize) {
        let Program { space, role, .. } = self.programs[t];
        let Role::Landing(k) = role else {
            unreachable!("only a landing has something to give back");
        };
        if std::mem::take(&mut self.programs[t].permitted) {
            self.spaces[space].landings_running -= 1;
        }
        self.landings[k].answered = true;
        if let Some(donor) = self.landings[k].donor
            && self.kernel.is_asleep(donor)
        {
            self.count(|tally| &mut tally.crossings);
            self.wake(donor, Some(t));
        }
        self.sleep(t, Doing::Asleep, None);
    }

    /// The processor is back, or its donor goes on without it.
    pub(crate) fn take_back(&mut self, t: usize, k: usize) {
        let woken = std::mem::take(&mut self.programs[t].woken);
        let landing = &mut self.landings[k];
        landing.donor = None;
        let (returned, since, before) = (landing.answered, landing.since, landing.before);
        let (link, lands) = (landing.link, landing.thread);
        if returned {
            self.books.returned += 1;
        } else {
            self.books.reclaimed += 1;
            self.count(|tally| &mut tally.reclaims);
            // What is lent onwards ends with the grant it came by.
            if matches!(self.programs[lands].doing, Doing::Lent { .. }) {
                self.wake(lands, Some(t));
            }
        }
        self.judge(link, before, returned, woken, self.now - since);
        self.programs[t].waits_since = None;
        self.retract(t);
        if let Role::Landing(_) = self.programs[t].role
            && !self.links[link ^ 1].messages.is_empty()
        {
            // It looks at its donor's messages only, but these are what it has waited for.
            let (n, cost) = self.batch(link ^ 1);
            let receive = Doing::Receive { link: link ^ 1, n };
            return self.step(t, receive, Use::Work, cost);
        }
        self.look(t);
    }

    /// Whether the donation was of use.
    fn judge(&mut self, l: usize, before: u64, returned: bool, woken: bool, cost: Time) {
        let link = &mut self.links[l];
        link.streak.add(self.now - cost, self.now);
        let has_read = link.progress != before;
        let answered = link.answered;
        let answered = answered || !self.links[l ^ 1].messages.is_empty();
        let backoff = &self.links[l].backoff;
        if answered || returned && has_read {
            backoff.useful();
        } else if returned || !woken {
            backoff.wasted(self.now, Duration::from_nanos(cost));
        }
    }
}
