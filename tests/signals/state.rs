//! What of a process has to be as it was once everything is over.

use std::collections::BTreeMap;
use std::fs::{read_dir, read_to_string};

use rustix::process::Pid;
use rustix::thread::sched_getaffinity;

/// The threads and descriptors of a process.
#[derive(Debug)]
pub(crate) struct State {
    /// How many there are of each name.
    threads: BTreeMap<String, usize>,
    /// How many are kept to fewer CPUs than others.
    bound: usize,
    descriptors: usize,
}

impl State {
    /// `None` if it is gone.
    ///
    /// A thread that ends while it is looked at is not counted. Left out are the threads of the `blocking` pool, which
    /// come and go by themselves. And a landing sleeps bound to the CPU that it was lent last.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let (mut threads, mut cpus) = (BTreeMap::new(), Vec::new());
        for task in read_dir(format!("/proc/{pid}/task")).ok()? {
            let path = task.ok()?.path();
            let Ok(name) = read_to_string(path.join("comm")) else {
                continue;
            };
            let name = name.trim().to_owned();
            if name.starts_with("blocking") {
                continue;
            }
            if name != "urpc-landing" {
                let id = Pid::from_raw(path.file_name()?.to_str()?.parse().ok()?);
                cpus.extend(sched_getaffinity(id).map(|cpus| cpus.count()));
            }
            *threads.entry(name).or_default() += 1;
        }
        let all = cpus.iter().max()?;
        Some(Self {
            threads,
            bound: cpus.iter().filter(|&cpus| cpus < all).count(),
            descriptors: read_dir(format!("/proc/{pid}/fd")).ok()?.count(),
        })
    }

    /// No more than `before`, and nothing is bound.
    pub(crate) fn is_back_at(&self, before: &Self) -> bool {
        let mut threads = self.threads.iter();
        threads.all(|(name, n)| before.threads.get(name).is_some_and(|before| n <= before))
            && self.descriptors <= before.descriptors
            && self.bound == 0
    }
}
