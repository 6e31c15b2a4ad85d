//! The second process of every measurement: the bench runs its own binary again, in a role.
//!
//! A child says a line when it is ready, and lives until its standard input is closed or it is
//! killed.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdout, Command, Stdio};

use rustix::thread::CpuSet;

/// The variable with a child's role and its arguments, separated by blanks.
pub const ROLE: &str = "URPC_BENCH_ROLE";

/// A process in a role; it ends with this value.
pub struct Child {
    process: std::process::Child,
    said: BufReader<ChildStdout>,
}

impl Child {
    /// Starts this binary as `role`, and waits until it is ready.
    pub fn start(role: &str) -> Self {
        let exe = std::env::current_exe().expect("this binary has a path");
        let mut process = Command::new(exe)
            .env(ROLE, role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this binary starts");
        let said = BufReader::new(process.stdout.take().expect("piped"));
        let mut child = Self { process, said };
        child.listen();
        child
    }

    /// The next line it says.
    pub fn listen(&mut self) -> String {
        let mut line = String::new();
        let said = self.said.read_line(&mut line);
        assert!(said.is_ok_and(|n| n > 0), "the child has ended");
        line.trim_end().to_owned()
    }

    /// Tells it a line.
    pub fn tell(&mut self, line: &str) {
        let stdin = self.process.stdin.as_mut().expect("piped");
        writeln!(stdin, "{line}").expect("the child listens");
    }

    /// Tells it a line, and waits for what it says to that.
    pub fn ask(&mut self, line: &str) -> String {
        self.tell(line);
        self.listen()
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Waits until it has ended by itself.
    pub fn wait(mut self) {
        let _ = self.process.wait();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The role of this process, if it is a child.
pub fn role() -> Option<Vec<String>> {
    let role = std::env::var(ROLE).ok()?;
    Some(role.split_whitespace().map(str::to_owned).collect())
}

/// In a child: says that it is ready.
pub fn ready() {
    println!("ready");
    std::io::stdout().flush().expect("the parent listens");
}

/// In a child: waits until the parent has closed its end, or is gone.
pub fn until_told_to_end() {
    let mut line = String::new();
    while std::io::stdin().read_line(&mut line).is_ok_and(|n| n > 0) {
        line.clear();
    }
}

/// The CPUs this process may run on.
pub fn cpus() -> Vec<u32> {
    let set = rustix::thread::sched_getaffinity(None).expect("one's own affinity");
    let all = 0..CpuSet::MAX_CPU;
    all.filter(|&cpu| set.is_set(cpu))
        .map(|cpu| cpu as u32)
        .collect()
}

/// The CPU of a client, and the CPU of its server: another one, if there is one.
pub fn two_cpus() -> (u32, u32) {
    let cpus = cpus();
    (cpus[0], cpus.get(1).copied().unwrap_or(cpus[0]))
}

/// Pins the calling thread for as long as `f` runs: what it starts later is not to inherit that.
pub fn pinned<T>(cpu: u32, f: impl FnOnce() -> T) -> T {
    let before = rustix::thread::sched_getaffinity(None).expect("one's own affinity");
    pin(cpu);
    let value = f();
    let _ = rustix::thread::sched_setaffinity(None, &before);
    value
}

/// Pins the calling thread for good.
pub fn pin(cpu: u32) {
    let mut set = CpuSet::new();
    set.set(cpu as usize);
    rustix::thread::sched_setaffinity(None, &set).expect("an allowed CPU");
}
