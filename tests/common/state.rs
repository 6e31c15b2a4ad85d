//! What a process holds, as the kernel counts it: to be the same again when everything is over.
#![allow(dead_code, unreachable_pub)]

use std::fs::{read_dir, read_to_string};
use std::process::Command;
use std::time::Duration;

/// Has a process, and those that it starts, give back what it frees, so that what it has is what it holds.
pub fn frugal(command: &mut Command) {
    // As soon as there are 128 KiB of it: the default, which glibc raises otherwise. And whatever is larger than a few
    // pages has pages of its own: among small things it would leave holes, of which glibc gives back none.
    command.env("MALLOC_TRIM_THRESHOLD_", "131072");
    command.env("MALLOC_MMAP_THRESHOLD_", "16384");
}

/// What a process holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    pub descriptors: usize,
    pub threads: usize,
    /// Of memory that it shares.
    pub mappings: usize,
    /// Bytes in memory.
    pub rss: u64,
}

impl Held {
    /// `None` if it is gone.
    ///
    /// The threads of the `blocking` pool come and go by themselves, and are left out.
    pub fn by(pid: u32) -> Option<Self> {
        let mut threads = 0;
        for task in read_dir(format!("/proc/{pid}/task")).ok()? {
            // A thread that ends while it is looked at is not counted.
            let name = read_to_string(task.ok()?.path().join("comm"));
            threads += usize::from(name.is_ok_and(|name| !name.starts_with("blocking")));
        }
        let maps = read_to_string(format!("/proc/{pid}/maps")).ok()?;
        let status = read_to_string(format!("/proc/{pid}/status")).ok()?;
        let rss = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = rss.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(Self {
            descriptors: read_dir(format!("/proc/{pid}/fd")).ok()?.count(),
            threads,
            mappings: maps.matches("/memfd:urpc").count(),
            rss: kib * 1024,
        })
    }

    /// No more than `before`, and `slack` bytes.
    pub fn is_back_at(&self, before: &Self, slack: u64) -> bool {
        self.descriptors <= before.descriptors
            && self.threads <= before.threads
            && self.mappings <= before.mappings
            && self.rss <= before.rss + slack
    }
}

/// Waits until a process holds no more than `before`, and `slack` bytes.
pub fn until_back_at(pid: u32, before: Held, slack: u64) {
    let begun = std::time::Instant::now();
    loop {
        let now = Held::by(pid);
        if now.is_some_and(|now| now.is_back_at(&before, slack)) {
            return;
        }
        let late = begun.elapsed() > Duration::from_secs(20);
        assert!(!late, "process {pid}: {before:?} has become {now:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Time on a CPU so far, of threads that have ended, too; in steps of 10 ms.
pub fn cpu_time(pid: u32) -> Duration {
    let stat = read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
    // The name of the program, in brackets, may have blanks. Then, from the twelfth field on: in itself, in the kernel.
    let (_, fields) = stat.rsplit_once(") ").expect("a name in brackets");
    let ticks = fields.split(' ').skip(11).take(2);
    let ticks: u64 = ticks.map(|n| n.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(10 * ticks)
}
