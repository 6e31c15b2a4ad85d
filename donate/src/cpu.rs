//! Which CPU a thread runs on. A hand-over is some fifteen times cheaper when donor and landing share
//! the CPU that is lent, so the landing follows the donor's CPU, and the donor stays on it.
//!
//! All of it is advice: where the kernel refuses (another cpuset, a sandbox), things still work.

use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};

/// The CPU this thread runs on right now.
#[must_use]
pub fn current_cpu() -> u32 {
    u32::try_from(sched_getcpu()).unwrap_or(0)
}

/// How many CPUs this thread may run on; at least 1.
#[must_use]
pub fn allowed_cpus() -> usize {
    sched_getaffinity(None).map_or(1, |set| set.count().max(1) as usize)
}

/// The CPUs of one thread: those it began with, and to which of them it keeps for now.
#[derive(Clone, Debug)]
pub struct Affinity {
    home: Option<CpuSet>,
    bound: Option<Bound>,
    /// [`bind`](Self::bind) was asked for since it was let go last, and between the last two times.
    was_bound: [bool; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bound {
    To(u32),
    OffFrom(u32),
}

impl Default for Affinity {
    fn default() -> Self {
        Self::of_this_thread()
    }
}

impl Affinity {
    /// The affinity this thread has now.
    #[must_use]
    pub fn of_this_thread() -> Self {
        // With a single CPU allowed there is nothing to choose, and nothing is ever set.
        let home = sched_getaffinity(None).ok().filter(|set| set.count() > 1);
        Self {
            home,
            bound: None,
            was_bound: [false; 2],
        }
    }

    /// What this thread has when it is not bound, as of now.
    #[must_use]
    pub fn unbound(&self) -> Self {
        match self.bound {
            None => Self::of_this_thread(),
            Some(_) => Self {
                home: self.home,
                bound: None,
                was_bound: [false; 2],
            },
        }
    }

    /// How many CPUs the thread may run on when it is not bound; at least 1.
    #[must_use]
    pub fn cpus(&self) -> usize {
        self.home.map_or(1, |home| home.count() as usize)
    }

    /// Moves this thread there. It was started by one that may have been bound just then, and has inherited that.
    pub fn settle(&self) {
        if let Some(home) = &self.home {
            let _ = sched_setaffinity(None, home);
        }
    }

    /// Binds this thread to `cpu`, if it may run there and is not bound to it already.
    pub fn bind(&mut self, cpu: u32) {
        self.was_bound[0] = true;
        self.bind_to(cpu);
    }

    /// Binds this thread to `cpu` if it is to be expected that it will have to be, since it was the last time. What it
    /// does next is sooner done then: it takes some microseconds, and a CPU that has slept some fifteen.
    pub fn bind_again(&mut self, cpu: u32) {
        if self.was_bound[1] {
            self.bind_to(cpu);
        }
    }

    fn bind_to(&mut self, cpu: u32) {
        let mut one = CpuSet::new();
        if self.may_run_on(cpu) {
            one.set(cpu as usize);
            self.keep_to(&one, Bound::To(cpu));
        }
    }

    /// Keeps this thread off `cpu`: there are others.
    pub fn avoid(&mut self, cpu: u32) {
        if let (true, Some(mut others)) = (self.may_run_on(cpu), self.home) {
            others.unset(cpu as usize);
            self.keep_to(&others, Bound::OffFrom(cpu));
        }
    }

    fn may_run_on(&self, cpu: u32) -> bool {
        let cpu = cpu as usize;
        cpu < CpuSet::MAX_CPU && self.home.is_some_and(|home| home.is_set(cpu))
    }

    fn keep_to(&mut self, cpus: &CpuSet, bound: Bound) {
        if self.bound != Some(bound) && sched_setaffinity(None, cpus).is_ok() {
            self.bound = Some(bound);
        }
    }

    /// Lets this thread run wherever it could at first.
    pub fn let_go(&mut self) {
        self.was_bound = [false, self.was_bound[0]];
        if let (Some(_), Some(home)) = (self.bound.take(), &self.home) {
            let _ = sched_setaffinity(None, home);
        }
    }
}

#[cfg(all(test, not(urpc_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_bound_and_let_go_and_a_foreign_cpu_is_ignored() {
        std::thread::spawn(|| {
            let before = allowed_cpus();
            let mut affinity = Affinity::of_this_thread();
            affinity.bind(u32::MAX);
            assert_eq!(allowed_cpus(), before);
            affinity.bind(current_cpu());
            assert_eq!(allowed_cpus(), 1);
            std::thread::scope(|s| {
                s.spawn(|| {
                    assert_eq!(allowed_cpus(), 1, "as the one that started it");
                    affinity.unbound().settle();
                    assert_eq!(allowed_cpus(), before);
                });
            });
            affinity.let_go();
            assert_eq!(allowed_cpus(), before);
            let cpu = current_cpu();
            affinity.avoid(cpu);
            assert_eq!(allowed_cpus(), (before - 1).max(1));
            assert!(before == 1 || current_cpu() != cpu);
            affinity.let_go();
            assert_eq!(allowed_cpus(), before);
            affinity.bind_again(cpu);
            assert_eq!(allowed_cpus(), before, "it was not bound the last time");
            affinity.bind(cpu);
            for expected in [1, before] {
                affinity.let_go();
                affinity.bind_again(cpu);
                assert_eq!(allowed_cpus(), expected);
            }
        })
        .join()
        .unwrap();
    }
}
