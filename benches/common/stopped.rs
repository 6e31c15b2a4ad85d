//! How long a donor waits for a processor that a stopped process cannot return.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use urpc::{Peer, Runtime};

use super::child::{Child, ready, until_told_to_end};
use super::shared::Shared;

/// What the one shared word says: whether a landing is inside the handler, and may leave it.
const OUT: u32 = 0;
const INSIDE: u32 = 1;
const LEAVE: u32 = 2;

/// The time that nobody notices.
const MOMENT: Duration = Duration::from_micros(50);

/// A client whose server is stopped again and again.
pub struct Stopped {
    runtime: Runtime,
    peer: Peer,
    shared: Shared,
    _server: Child,
    _directory: tempfile::TempDir,
}

impl Stopped {
    /// A client with one processor, and a server that has none.
    pub fn start(limit: Duration) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let name = directory.path().join("bench.sock").display().to_string();
        let (shared, _file, path) = Shared::create();
        let _server = Child::start(&format!("stopped {name} {path}"));
        let builder = Runtime::builder().processors(1).grant_limit(limit);
        let runtime = builder.build().expect("a runtime");
        let connected = runtime.block_on(async { urpc::connect(&name).await });
        Self {
            runtime,
            peer: connected.expect("the server is ready"),
            shared,
            _server,
            _directory: directory,
        }
    }

    /// Nanoseconds from a call whose handler is stopped on the processor that was lent for it, until its caller's
    /// process has that back.
    pub fn resume(&self) -> f64 {
        let word = self.shared.line(0);
        word.store(OUT, Ordering::Relaxed);
        self.until_lent();
        let before = self.peer.stats().donations_reclaimed;
        let hold = || urpc::call::<bool>(&self.peer, "hold", ());
        let mut begin = Instant::now();
        let mut held = self.runtime.spawn(hold());
        while word.load(Ordering::Acquire) != INSIDE {
            // Not by a landing: once more.
            if held.is_finished() {
                begin = Instant::now();
                held = self.runtime.spawn(hold());
            }
            std::thread::sleep(MOMENT);
        }
        self.signal(Signal::STOP);
        while self.peer.stats().donations_reclaimed == before {
            std::thread::sleep(MOMENT);
        }
        let taken = begin.elapsed();
        self.signal(Signal::CONT);
        word.store(LEAVE, Ordering::Release);
        let held = self.runtime.block_on(held);
        held.expect("it does not panic").expect("the server serves");
        taken.as_nanos() as f64
    }

    /// The server is trusted again: it has wasted a processor before.
    fn until_lent(&self) {
        let before = self.peer.stats().donations_given;
        while self.peer.stats().donations_given == before {
            let call = urpc::call::<()>(&self.peer, "null", ());
            self.runtime.block_on(call).expect("the server serves");
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.peer.credentials().pid);
        kill_process(pid.expect("a process"), signal).expect("it lives");
    }
}

/// The server's process.
pub fn stopped_child(name: &str, path: &str) {
    let shared: &Shared = Box::leak(Box::new(Shared::open(path)));
    let word: &AtomicU32 = shared.line(0);
    let runtime = Runtime::builder().processors(0).build();
    runtime.expect("a runtime").block_on(async {
        let server = urpc::serve(name)
            .method("null", |()| async {})
            .method("hold", move |()| async move {
                let landing = std::thread::current().name() == Some("urpc-landing");
                if landing {
                    word.store(INSIDE, Ordering::Release);
                    while word.load(Ordering::Acquire) == INSIDE {
                        std::thread::sleep(MOMENT);
                    }
                }
                landing
            })
            .bind();
        let _server = server.expect("a free name");
        ready();
        urpc::unblock(until_told_to_end).await;
    });
}
