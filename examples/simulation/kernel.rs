//! The kernel's part: which thread runs on which CPU.
//!
//! A thread that is woken goes to the CPU it is bound to, else to its last one if that is idle, else to the next idle
//! one, and to nobody's queue only if there is none. Threads that are ready run in their order, at most a
//! [`SLICE`] while others wait, and a wake preempts nobody: that is what was measured (a sleep that ends on a busy
//! CPU ends one tick late). An idle CPU takes any ready thread that may run there. So no CPU idles beside a ready
//! thread, which is kinder to all policies than a real kernel is.

use std::collections::VecDeque;

use crate::costs::{SLICE, Time, from_idle, switch};

/// What a CPU does. An idle one that is waking up is still idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Tasks, and the messages that they send.
    Work,
    /// Wakes, switches, rests, rings.
    System,
    /// Looking for messages, since there is nothing else to do.
    Spin,
    Idle,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Running(usize),
    Ready,
    Asleep,
}

#[derive(Debug)]
pub(crate) struct Thread {
    pub(crate) space: usize,
    pub(crate) state: State,
    /// It has been given its CPU, and that one has woken up.
    begun: bool,
    /// The only CPU it may run on.
    pub(crate) bound: Option<usize>,
    last: usize,
    /// When it left its last CPU.
    left: Time,
}

#[derive(Debug)]
struct Cpu {
    thread: Option<usize>,
    does: Use,
    /// It does so since then.
    since: Time,
    /// Its thread has run since then.
    slice: Time,
    idle_since: Time,
    /// How long it was idle before its first thread since: the next switch finds it cold.
    idled: Time,
    /// Ready threads that are bound to it, with their place in the order of all.
    bound: VecDeque<(u64, usize)>,
    spent: [Time; 4],
}

#[derive(Debug)]
pub(crate) struct Kernel {
    cpus: Vec<Cpu>,
    pub(crate) threads: Vec<Thread>,
    /// Ready threads that may run anywhere.
    ready: VecDeque<(u64, usize)>,
    order: u64,
    /// See [`Load`](crate::load::Load).
    cold_threads: bool,
    /// CPUs that idle or spin.
    pub(crate) lazy: usize,
    /// How many threads of each address space are on a CPU.
    pub(crate) on_cpu: Vec<u32>,
}

/// This thread begins after so long.
pub(crate) type Begins = Option<(usize, Time)>;

impl Kernel {
    pub(crate) fn new(cpus: usize, cold_threads: bool, spaces: usize) -> Self {
        let idle = || Cpu {
            thread: None,
            does: Use::Idle,
            since: 0,
            slice: 0,
            idle_since: 0,
            idled: 0,
            bound: VecDeque::new(),
            spent: [0; 4],
        };
        Self {
            cpus: (0..cpus).map(|_| idle()).collect(),
            threads: Vec::new(),
            ready: VecDeque::new(),
            order: 0,
            cold_threads,
            lazy: cpus,
            on_cpu: vec![0; spaces],
        }
    }

    pub(crate) fn cpus(&self) -> usize {
        self.cpus.len()
    }

    /// A new thread, asleep.
    pub(crate) fn spawn(&mut self, space: usize) -> usize {
        self.threads.push(Thread {
            space,
            state: State::Asleep,
            begun: false,
            bound: None,
            last: space % self.cpus.len(),
            left: 0,
        });
        self.threads.len() - 1
    }

    pub(crate) fn cpu_of(&self, thread: usize) -> Option<usize> {
        match self.threads[thread].state {
            State::Running(cpu) => Some(cpu),
            _ => None,
        }
    }

    pub(crate) fn is_asleep(&self, thread: usize) -> bool {
        self.threads[thread].state == State::Asleep
    }

    /// From now on the CPU of this thread does something else.
    pub(crate) fn turn_to(&mut self, thread: usize, does: Use, now: Time) {
        if let State::Running(cpu) = self.threads[thread].state {
            self.account(cpu, does, now);
        }
    }

    fn account(&mut self, cpu: usize, does: Use, now: Time) {
        let cpu = &mut self.cpus[cpu];
        let lazy = |does| usize::from(matches!(does, Use::Spin | Use::Idle));
        self.lazy = self.lazy + lazy(does) - lazy(cpu.does);
        cpu.spent[cpu.does as usize] += now - cpu.since;
        cpu.since = now;
        cpu.does = does;
    }

    /// What all CPUs have done until now, in the order of [`Use`].
    pub(crate) fn spent(&mut self, now: Time) -> [Time; 4] {
        let mut all = [0; 4];
        for cpu in 0..self.cpus.len() {
            self.account(cpu, self.cpus[cpu].does, now);
            for (sum, spent) in all.iter_mut().zip(self.cpus[cpu].spent) {
                *sum += spent;
            }
        }
        all
    }

    /// A sleeping thread is ready, for somebody on the CPU `near`.
    pub(crate) fn wake(&mut self, thread: usize, near: Option<usize>, now: Time) -> Begins {
        assert!(self.is_asleep(thread), "woken twice");
        self.place(thread, near, now)
    }

    fn place(&mut self, thread: usize, near: Option<usize>, now: Time) -> Begins {
        let idle = |cpu: usize| self.cpus[cpu].thread.is_none();
        let Thread { bound, last, .. } = self.threads[thread];
        let target = match bound {
            Some(cpu) => Some(cpu).filter(|&cpu| idle(cpu)),
            None if idle(last) => Some(last),
            None => {
                let n = self.cpus.len();
                let first = near.unwrap_or(last) + 1;
                (first..first + n).map(|cpu| cpu % n).find(|&cpu| idle(cpu))
            }
        };
        match target {
            Some(cpu) => {
                let idle_for = now - self.cpus[cpu].idle_since;
                self.give(cpu, thread, now);
                self.cpus[cpu].idled = idle_for;
                Some((thread, from_idle(idle_for)))
            }
            None => {
                self.queue(thread);
                None
            }
        }
    }

    fn queue(&mut self, thread: usize) {
        self.threads[thread].state = State::Ready;
        self.order += 1;
        let queue = match self.threads[thread].bound {
            Some(cpu) => &mut self.cpus[cpu].bound,
            None => &mut self.ready,
        };
        queue.push_back((self.order, thread));
    }

    fn give(&mut self, cpu: usize, thread: usize, now: Time) {
        assert!(self.cpus[cpu].thread.is_none(), "two threads on one CPU");
        self.cpus[cpu].thread = Some(thread);
        self.cpus[cpu].slice = now;
        let thread = &mut self.threads[thread];
        thread.state = State::Running(cpu);
        thread.last = cpu;
    }

    /// A thread that was given a CPU runs there from now on.
    pub(crate) fn begin(&mut self, thread: usize, now: Time) {
        if let State::Running(cpu) = self.threads[thread].state
            && !std::mem::replace(&mut self.threads[thread].begun, true)
        {
            self.on_cpu[self.threads[thread].space] += 1;
            self.cpus[cpu].slice = now;
            self.account(cpu, Use::System, now);
        }
    }

    /// The thread has run for a slice, and others wait for its CPU.
    pub(crate) fn has_had_its_turn(&self, thread: usize, now: Time) -> bool {
        self.cpu_of(thread).is_some_and(|cpu| {
            let cpu = &self.cpus[cpu];
            let others = !cpu.bound.is_empty() || !self.ready.is_empty();
            others && now - cpu.slice >= SLICE
        })
    }

    /// The thread sleeps. The next one on its CPU begins then.
    pub(crate) fn sleep(&mut self, thread: usize, now: Time) -> Begins {
        self.take_off(thread, State::Asleep, now)
            .and_then(|cpu| self.next(cpu, now))
    }

    /// The thread has to let others run.
    pub(crate) fn preempt(&mut self, thread: usize, now: Time) -> Begins {
        let cpu = self.take_off(thread, State::Ready, now);
        self.queue(thread);
        cpu.and_then(|cpu| self.next(cpu, now))
    }

    /// The thread goes to the only CPU it may run on. What begins on the one that it leaves, and the thread itself.
    pub(crate) fn migrate(&mut self, thread: usize, now: Time) -> [Begins; 2] {
        let cpu = self.take_off(thread, State::Ready, now);
        let next = cpu.and_then(|cpu| self.next(cpu, now));
        [next, self.place(thread, None, now)]
    }

    fn take_off(&mut self, thread: usize, state: State, now: Time) -> Option<usize> {
        let cpu = self.cpu_of(thread)?;
        let thread = &mut self.threads[thread];
        thread.state = state;
        thread.left = now;
        if std::mem::take(&mut thread.begun) {
            self.on_cpu[thread.space] -= 1;
        }
        self.cpus[cpu].thread = None;
        self.cpus[cpu].idle_since = now;
        self.account(cpu, Use::Idle, now);
        Some(cpu)
    }

    fn next(&mut self, cpu: usize, now: Time) -> Begins {
        let anywhere = self.ready.front().map(|&(order, _)| order);
        let here = self.cpus[cpu].bound.front().map(|&(order, _)| order);
        let queue = match (here, anywhere) {
            (Some(here), anywhere) if anywhere.is_none_or(|other| here < other) => {
                &mut self.cpus[cpu].bound
            }
            _ => &mut self.ready,
        };
        let (_, thread) = queue.pop_front()?;
        self.give(cpu, thread, now);
        let idled = std::mem::take(&mut self.cpus[cpu].idled);
        let away = now - self.threads[thread].left;
        let cold = if self.cold_threads {
            away
        } else {
            away.min(idled)
        };
        self.begin(thread, now);
        Some((thread, switch(cold)))
    }
}
