//! What the kernel counts for a process: page faults, memory, time on a CPU.

use std::fs;

/// Minor page faults of this process so far (`ru_minflt`).
pub fn faults() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").expect("/proc is there");
    // The name of the program, in brackets, may have blanks.
    let (_, fields) = stat.rsplit_once(") ").expect("a name in brackets");
    let field = fields.split(' ').nth(7).expect("minflt");
    field.parse().expect("a number")
}

/// Bytes of memory, each page shared out among the processes that map it.
#[derive(Clone, Copy, Default)]
pub struct Memory {
    pub private: f64,
    /// Memfds among them.
    pub shared: f64,
}

/// What these processes hold together: so a memfd that all of its users are among counts once.
pub fn memory(pids: &[u32]) -> Memory {
    let mut all = Memory::default();
    for pid in pids {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("it lives");
        let kib = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|rest| rest.split_whitespace().next());
            number.and_then(|n| n.parse().ok()).unwrap_or(0.0)
        };
        all.private += 1024.0 * kib("Pss_Anon:");
        all.shared += 1024.0 * kib("Pss_Shmem:");
    }
    all
}

/// Nanoseconds that all threads of these processes have spent on a CPU.
pub fn cpu_time(pids: &[u32]) -> u64 {
    let of_process = |pid: &u32| {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it lives");
        let of_task = |task: fs::DirEntry| {
            let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<u64>().ok()
        };
        tasks.flatten().filter_map(of_task).sum::<u64>()
    };
    pids.iter().map(of_process).sum()
}

/// Lets this process have as many descriptors as it may.
pub fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("its own limit");
}
