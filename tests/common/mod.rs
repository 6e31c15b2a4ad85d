//! Tests of calls have two real processes: a test starts its own binary again, in a role.
//!
//! Each test file ends with `roles! { "server" => server, … }`. A child says on its standard output
//! when it is ready, and lives until it is killed or its standard input is closed.
#![allow(dead_code, unused_macros, unreachable_pub)]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// The variable that names a child's role, and the one with its argument.
pub const ROLE: &str = "URPC_TEST_ROLE";
pub const ARGUMENT: &str = "URPC_TEST_ARGUMENT";

/// Says which roles a test file's children play. Each is a `fn(&str)`, called with its argument.
macro_rules! roles {
    ($($name:literal => $role:path),* $(,)?) => {
        /// Where a child begins. In a test run of its own it has nothing to do.
        #[test]
        fn role() {
            let Ok(role) = std::env::var(common::ROLE) else { return };
            let argument = std::env::var(common::ARGUMENT).unwrap_or_default();
            match role.as_str() {
                $($name => $role(&argument),)*
                other => panic!("no role {other}"),
            }
            std::process::exit(0);
        }
    };
}

/// A process in a role. Killed when dropped.
pub struct Process {
    child: Child,
    output: BufReader<ChildStdout>,
    input: Option<ChildStdin>,
}

impl Process {
    /// Starts this test binary as `role`, and waits until it is ready.
    pub fn start(role: &str, argument: &str) -> Self {
        Self::start_with(role, argument, |_| {})
    }

    pub fn start_with(role: &str, argument: &str, change: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["role", "--exact", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .env(ARGUMENT, argument)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        change(&mut command);
        let mut child = command.spawn().expect("this test binary starts");
        let output = BufReader::new(child.stdout.take().unwrap());
        let input = child.stdin.take();
        let mut process = Self {
            child,
            output,
            input,
        };
        process.expect("ready");
        process
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Reads lines until one says `word: …`, and returns what follows.
    pub fn expect(&mut self, word: &str) -> String {
        loop {
            let mut line = String::new();
            let read = self.output.read_line(&mut line).expect("a line");
            assert!(read > 0, "the child ended before it said `{word}`");
            if let Some((_, said)) = line.split_once(&format!("@{word}:")) {
                return said.trim().to_owned();
            }
        }
    }

    /// Tells the child something: one line.
    pub fn tell(&mut self, line: &str) {
        let input = self.input.as_mut().expect("it listens");
        writeln!(input, "{line}").expect("it reads");
    }

    pub fn signal(&self, signal: i32) {
        let pid = rustix::process::Pid::from_raw(self.pid() as i32).unwrap();
        let signal = rustix::process::Signal::from_named_raw(signal).unwrap();
        rustix::process::kill_process(pid, signal).expect("it lives");
    }

    /// Stops it, and returns when none of its threads runs any more.
    pub fn stop(&self) {
        self.signal(19);
        // The kernel says so once, when the last of them has stopped.
        let id = rustix::process::Pid::from_child(&self.child);
        let stopped = rustix::process::WaitIdOptions::STOPPED;
        rustix::process::waitid(rustix::process::WaitId::Pid(id), stopped).expect("it is ours");
    }

    /// Ends a stop.
    pub fn go_on(&self) {
        self.signal(18);
    }

    pub fn kill(&mut self) {
        self.child.kill().expect("it lives");
        self.child.wait().expect("it is ours");
    }

    /// Closes its input and waits for its end.
    pub fn finish(mut self) {
        drop(self.input.take());
        let status = self.child.wait().expect("it is ours");
        assert!(status.success(), "the child failed: {status}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// In a child: says something to the parent. The first word must be `ready`.
pub fn say(word: &str, what: impl std::fmt::Display) {
    println!("@{word}: {what}");
}

/// In a child: waits until the parent closes its end, or is gone.
pub fn until_told_to_end() {
    let mut line = String::new();
    while std::io::stdin().read_line(&mut line).is_ok_and(|n| n > 0) {
        line.clear();
    }
}

/// In a child: the next line from the parent.
pub fn hear() -> String {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    line.trim().to_owned()
}

/// In a child: does something with every line from the parent, until that closes its end or is gone.
pub fn for_each_line(mut each: impl FnMut(&str)) {
    for line in std::io::stdin().lines() {
        let Ok(line) = line else { return };
        each(line.trim());
    }
}

/// A runtime with so many processors, and otherwise with the defaults.
pub fn runtime(processors: usize) -> urpc::Runtime {
    let runtime = urpc::Runtime::builder().processors(processors).build();
    runtime.expect("a runtime starts")
}

/// In a child: serves what `offer` adds, until it is told to end. The argument is `PROCESSORS NAME`,
/// and what follows is for `offer`.
pub fn serve(
    argument: &str,
    offer: impl FnOnce(urpc::ServerBuilder, Vec<&str>) -> urpc::ServerBuilder,
) {
    let mut words = argument.split(' ');
    let processors = words.next().unwrap().parse().unwrap();
    let name = words.next().unwrap();
    runtime(processors).block_on(async {
        let _server = offer(urpc::serve(name), words.collect()).bind().unwrap();
        say("ready", "");
        urpc::unblock(until_told_to_end).await;
    });
}

/// A directory for the sockets of one test; it goes with the test.
pub struct Names(tempfile::TempDir);

impl Names {
    pub fn new() -> Self {
        Self(tempfile::Builder::new().prefix("urpc").tempdir().unwrap())
    }

    pub fn name(&self, name: &str) -> String {
        let path: PathBuf = self.0.path().join(format!("{name}.sock"));
        path.to_str().unwrap().to_owned()
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

/// Where cargo puts examples: beside the tests' own folder.
pub fn program(example: &str) -> PathBuf {
    let test = std::env::current_exe().expect("it runs");
    let profile = test
        .parent()
        .and_then(Path::parent)
        .expect("target/PROFILE/deps");
    let program = profile.join("examples").join(example);
    assert!(
        program.exists(),
        "{} is not built; `cargo test` builds it, and so does `cargo build --examples`",
        program.display()
    );
    program
}

/// What tests wait for takes seconds at most, and on a machine that is crowded or slow as many minutes.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Fails the whole test binary if a test takes longer than this: a hang is a failure, too.
pub fn watchdog() -> Watchdog {
    watchdog_of(PATIENCE)
}

/// The same, for a test that was asked to take long.
pub fn watchdog_of(limit: Duration) -> Watchdog {
    let (alive, dead) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        if dead.recv_timeout(limit) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            // Not `eprintln!`: what the test harness holds back is lost with it.
            let _ = writeln!(std::io::stderr(), "a test took longer than {limit:?}");
            std::process::abort();
        }
    });
    Watchdog(alive)
}

pub struct Watchdog(#[allow(dead_code)] std::sync::mpsc::Sender<()>);

/// So that nothing fails silently, in whichever thread or task.
pub fn panics_are_fatal() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        std::process::abort();
    }));
}

/// Waits for a condition, as long as the watchdog lets it.
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < PATIENCE * 9 / 10, "waited for {what}");
        std::thread::yield_now();
    }
}
