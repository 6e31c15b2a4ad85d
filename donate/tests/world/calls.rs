//! The calls of the world: who called whom, for whose sake, and what is to be done next.

use fastrand::Rng;

/// Something that is ready to run in a process.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Task {
    /// Makes a call.
    Start,
    /// Serves this call.
    Serve(usize),
    /// Answers this call, since the nested one has its answer.
    Resume(usize),
}

/// A message, with the number of its call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Message {
    Call(usize),
    Reply(usize),
}

impl Message {
    pub(crate) fn is_call(self) -> bool {
        matches!(self, Self::Call(_))
    }
}

struct Call {
    from: usize,
    to: usize,
    /// The call it is made for.
    parent: Option<usize>,
    depth: u32,
}

#[derive(Default)]
pub(crate) struct Calls {
    all: Vec<Call>,
    /// Calls by tasks, made and answered.
    pub(crate) roots: usize,
    pub(crate) done: usize,
    live: [[u32; 4]; 4],
}

impl Calls {
    /// Calls of `from` to `to` that have no answer yet.
    pub(crate) fn live(&self, from: usize, to: usize) -> u32 {
        self.live[from][to]
    }

    fn begin(&mut self, from: usize, to: usize, parent: Option<usize>) -> Message {
        let depth = parent.map_or(0, |parent| self.all[parent].depth + 1);
        self.live[from][to] += 1;
        self.all.push(Call {
            from,
            to,
            parent,
            depth,
        });
        Message::Call(self.all.len() - 1)
    }

    fn answer(&mut self, id: usize) -> (usize, Message) {
        let Call { from, to, .. } = self.all[id];
        self.live[from][to] -= 1;
        (from, Message::Reply(id))
    }

    /// Runs a task of process `p`, which may call `other`: what it sends, and to whom.
    pub(crate) fn run(
        &mut self,
        rng: &mut Rng,
        task: Task,
        p: usize,
        other: usize,
    ) -> (usize, Message) {
        match task {
            Task::Start => (other, self.begin(p, other, None)),
            Task::Serve(id) if self.all[id].depth < 3 && rng.u8(..3) == 0 => {
                (other, self.begin(p, other, Some(id)))
            }
            Task::Serve(id) | Task::Resume(id) => self.answer(id),
        }
    }

    /// What a message that was received makes ready.
    pub(crate) fn received(&mut self, message: Message) -> Option<Task> {
        match message {
            Message::Call(id) => Some(Task::Serve(id)),
            Message::Reply(id) => match self.all[id].parent {
                Some(parent) => Some(Task::Resume(parent)),
                None => {
                    self.done += 1;
                    None
                }
            },
        }
    }
}
