//! Calls as an address space sees them: made, received, served, answered.

use crate::costs::*;
use crate::kernel::Use;
use crate::load::{Rhythm, exponential};
use crate::space::{Message, Space, Task};
use crate::thread::{Doing, News, Program, Role};
use crate::world::{Call, World};

impl World<'_> {
    pub(crate) fn begin_task(&mut self, t: usize, task: Task) {
        self.programs[t].tasks_since_scan += 1;
        let cost = match task {
            Task::Start(call) => START + self.work_of_caller(call),
            Task::Serve(call) => SERVE + self.work_of_server(call),
            Task::Resume(_) => SERVE,
            Task::Finish(call) if self.goes_on_calling(call) => {
                FINISH + START + self.work_of_caller(call)
            }
            Task::Finish(_) => FINISH,
        };
        self.step(t, Doing::Task(task), Use::Work, cost);
    }

    pub(crate) fn finish_task(&mut self, t: usize, task: Task) {
        match task {
            Task::Start(call) => self.send_call(t, call),
            Task::Serve(call) => {
                self.books.served += 1;
                let then = self.spaces[self.programs[t].space].then.clone();
                if then.is_empty() {
                    return self.reply(t, call);
                }
                self.calls[call].waits_for = then.len();
                for link in then {
                    self.calls.push(Call {
                        link,
                        parent: Some(call),
                        since: self.now,
                        ..self.calls[call]
                    });
                    self.books.called += 1;
                    self.send_call(t, self.calls.len() - 1);
                }
            }
            Task::Resume(call) => self.reply(t, call),
            Task::Finish(call) => self.finish(t, call),
        }
    }

    fn send_call(&mut self, t: usize, call: usize) {
        let link = self.calls[call].link;
        self.links[link].outstanding += 1;
        self.spaces[self.links[link].from].outstanding += 1;
        self.publish(link, Message::Call(call), t);
    }

    fn reply(&mut self, t: usize, call: usize) {
        let link = self.calls[call].link;
        self.links[link].live -= 1;
        self.publish(link ^ 1, Message::Reply(call), t);
    }

    /// A request is served by who reads it, a reply makes its caller ready.
    pub(crate) fn receive(&mut self, t: usize, link: usize, n: usize) {
        let s = self.programs[t].space;
        let n = n.min(self.links[link].messages.len());
        for _ in 0..n {
            match self.links[link].messages.pop_front() {
                Some(Message::Call(call)) => {
                    self.links[link].live += 1;
                    self.spaces[s].in_hand += 1;
                    self.programs[t].hand.push_back(Task::Serve(call));
                }
                Some(Message::Reply(call)) => {
                    self.links[link ^ 1].outstanding -= 1;
                    self.spaces[s].outstanding -= 1;
                    self.replied(s, call);
                }
                None => {}
            }
        }
        if n == 0 {
            return;
        }
        self.links[link].progress += n as u64;
        self.links[link ^ 1].answered = true;
        self.spaces[s].unread -= n;
        self.programs[t].news = News::Came;
        // One is for this thread itself, another for one that sleeps.
        let idle = |&&w: &&usize| matches!(self.programs[w].doing, Doing::Asleep);
        if self.spaces[s].ready.len() >= 2 && self.spaces[s].workers.iter().any(|w| idle(&w)) {
            self.notify(s, Some(t));
        }
        self.recount(s);
    }

    fn replied(&mut self, s: usize, call: usize) {
        let Some(parent) = self.calls[call].parent else {
            return self.spaces[s].ready.push_back(Task::Finish(call));
        };
        self.books.answered += 1;
        self.calls[parent].waits_for -= 1;
        if self.calls[parent].waits_for == 0 {
            self.spaces[s].ready.push_back(Task::Resume(parent));
        }
    }

    /// A landing looks at its donor's messages only, everybody else at all.
    pub(crate) fn begin_receiving(&mut self, t: usize) -> bool {
        let Program { space, role, .. } = self.programs[t];
        let Space { unread, from, .. } = &self.spaces[space];
        if *unread == 0 {
            return false;
        }
        let has = |&link: &usize| !self.links[link].messages.is_empty();
        let link = match role {
            Role::Landing(landing) => Some(self.landings[landing].link).filter(has),
            // Whoever is first in the list is not always first.
            _ => {
                let first = self.now as usize % from.len();
                let (before, after) = from.split_at(first);
                after.iter().chain(before).copied().find(has)
            }
        };
        if let Some(link) = link {
            let (n, cost) = self.batch(link);
            self.step(t, Doing::Receive { link, n }, Use::Work, cost);
        }
        link.is_some()
    }

    pub(crate) fn work_of_caller(&self, call: usize) -> Time {
        self.sources[self.calls[call].source].0.work
    }

    pub(crate) fn work_of_server(&mut self, call: usize) -> Time {
        let mean = self.spaces[self.links[self.calls[call].link].to].work;
        exponential(&mut self.rng, mean)
    }

    /// A caller has its reply. One that goes on and on makes its next call at once.
    fn finish(&mut self, t: usize, call: usize) {
        let Call { source, since, .. } = self.calls[call];
        self.books.answered += 1;
        if self.measures {
            self.tally.latency.saturating_record(self.now - since);
        }
        if self.goes_on_calling(call) && !self.ended {
            let next = self.new_call(source);
            self.send_call(t, next);
        }
    }

    fn goes_on_calling(&self, call: usize) -> bool {
        let source = &self.sources[self.calls[call].source].0;
        matches!(source.rhythm, Rhythm::Callers(_))
    }

    /// What one reading of this link takes, and costs.
    pub(crate) fn batch(&self, link: usize) -> (usize, Time) {
        let n = self.links[link].messages.len().min(crate::costs::BATCH);
        (n, n as Time * RECEIVE)
    }
}
