//! Processes that are stopped again and again, and those who go on meanwhile; and a server that is asked for far more
//! than it can do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use futures::future::join_all;
use rustix::process::{Pid, Signal, kill_process};
use urpc::{CallErrorKind, JoinHandle, Peer, Runtime};

use super::child::{Child, ready, until_told_to_end};
use super::pair::runtime;
use super::report::median;

/// Callers at a time of one client.
const CALLERS: usize = 16;
/// The deadline of calls to who is stopped.
const LIMIT: Duration = Duration::from_millis(10);
/// For so long somebody is stopped.
const STOPPED: Duration = Duration::from_millis(40);
/// For so long it runs before that.
const RUNNING: Duration = Duration::from_millis(20);
/// Handlers that a server has at a time, under a flood: far fewer than it takes messages at once.
const SERVING: usize = 8;
/// What a handler of it works, in parts between which others work.
const WORK: Duration = Duration::from_micros(5);
const PARTS: usize = 4;

/// A server of this name, and what it takes to start it.
fn start_server(directory: &tempfile::TempDir, name: &str, processors: usize) -> (Child, String) {
    let name = directory.path().join(name).display().to_string();
    let child = Child::start(&format!("server {name} {processors}"));
    (child, name)
}

fn connect(runtime: &Runtime, name: &str) -> Peer {
    let connected = runtime.block_on(async { urpc::connect(name).await });
    connected.expect("the server is ready")
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(child.id() as i32).expect("a process");
    kill_process(pid, signal).expect("it lives");
}

/// Calls without end, and how many.
struct Load {
    over: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<Vec<f64>>>,
}

impl Load {
    /// With the deadline `LIMIT`, if any.
    fn on(runtime: &Runtime, peer: &Peer, limited: bool) -> Self {
        let (over, calls) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let call = |_| {
            let null = peer.procedure::<(), ()>("null");
            let (over, calls) = (Arc::clone(&over), Arc::clone(&calls));
            runtime.spawn(async move {
                let mut late = Vec::new();
                while !over.load(Relaxed) {
                    let begin = Instant::now();
                    let call = null.call(());
                    let call = if limited { call.timeout(LIMIT) } else { call };
                    match call.await {
                        Ok(()) => drop(calls.fetch_add(1, Relaxed)),
                        Err(error) => {
                            assert_eq!(error.kind(), CallErrorKind::Deadline, "{error}");
                            let after = begin.elapsed().saturating_sub(LIMIT);
                            late.push(after.as_nanos() as f64);
                        }
                    }
                }
                late
            })
        };
        let tasks = (0..CALLERS).map(call).collect();
        Self { over, calls, tasks }
    }

    /// Calls a second that are answered within `time`.
    fn rate(&self, time: Duration) -> f64 {
        let (before, begin) = (self.calls.load(Relaxed), Instant::now());
        std::thread::sleep(time);
        (self.calls.load(Relaxed) - before) as f64 / begin.elapsed().as_secs_f64()
    }

    /// Ends it; how late the calls heard whose deadlines passed, in nanoseconds.
    fn end(self, runtime: &Runtime) -> Vec<f64> {
        self.over.store(true, Relaxed);
        let late = runtime.block_on(join_all(self.tasks));
        late.into_iter()
            .flat_map(|late| late.expect("no panic"))
            .collect()
    }
}

/// A client of two servers, one of which is stopped again and again.
pub struct Halted {
    runtime: Runtime,
    peers: [Peer; 2],
    servers: [Child; 2],
    _directory: tempfile::TempDir,
}

/// How late calls to a stopped server ended, in nanoseconds, and calls a second of the other one: before and meanwhile.
pub struct Taken {
    pub late: Vec<f64>,
    pub before: f64,
    pub elsewhere: f64,
}

impl Halted {
    pub fn start(processors: usize) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let runtime = runtime(1, 0).build().expect("a runtime");
        let servers = ["stopped", "other"].map(|name| start_server(&directory, name, processors));
        Self {
            peers: [0, 1].map(|i| connect(&runtime, &servers[i].1)),
            servers: servers.map(|(child, _)| child),
            runtime,
            _directory: directory,
        }
    }

    /// Over so many stops.
    pub fn measure(&self, stops: u32) -> Taken {
        let (stopped, other) = (&self.peers[0], &self.peers[1]);
        let elsewhere = Load::on(&self.runtime, other, false);
        let load = Load::on(&self.runtime, stopped, true);
        let (mut before, mut meanwhile) = (Vec::new(), Vec::new());
        for _ in 0..stops {
            before.push(elsewhere.rate(RUNNING));
            signal(&self.servers[0], Signal::STOP);
            meanwhile.push(elsewhere.rate(STOPPED));
            signal(&self.servers[0], Signal::CONT);
        }
        elsewhere.end(&self.runtime);
        Taken {
            late: load.end(&self.runtime),
            before: median(before),
            elsewhere: median(meanwhile),
        }
    }
}

/// Two clients of one server, one of which is stopped again and again. The other one is this process.
pub struct Others {
    runtime: Runtime,
    peer: Peer,
    stopped: Child,
    _server: Child,
    _directory: tempfile::TempDir,
}

impl Others {
    pub fn start(processors: usize) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let (_server, name) = start_server(&directory, "server", processors);
        let runtime = runtime(1, 0).build().expect("a runtime");
        Self {
            peer: connect(&runtime, &name),
            stopped: Child::start(&format!("caller {name}")),
            runtime,
            _server,
            _directory: directory,
        }
    }

    /// Calls a second while the other client is stopped in the midst of its calls, and while it is silent.
    pub fn measure(&mut self, stops: u32) -> (f64, f64) {
        let load = Load::on(&self.runtime, &self.peer, false);
        let (mut silent, mut stopped) = (Vec::new(), Vec::new());
        for _ in 0..stops {
            std::thread::sleep(RUNNING);
            silent.push(load.rate(STOPPED));
            self.stopped.ask("call");
            std::thread::sleep(RUNNING);
            signal(&self.stopped, Signal::STOP);
            stopped.push(load.rate(STOPPED));
            signal(&self.stopped, Signal::CONT);
            self.stopped.ask("rest");
        }
        load.end(&self.runtime);
        (median(stopped), median(silent))
    }
}

/// A client that calls when it is told to `call`, until it is told to `rest`.
pub fn caller_child(name: &str) {
    let runtime = runtime(1, 0).build().expect("a runtime");
    let peer = connect(&runtime, name);
    let mut load = None;
    ready();
    for line in std::io::stdin().lines() {
        match line.expect("the parent's text").as_str() {
            "call" => load = Some(Load::on(&runtime, &peer, false)),
            _ => drop(load.take().map(|load| load.end(&runtime))),
        }
        ready();
    }
}

/// A server that may have `SERVING` handlers, each of which works and lets others work.
pub fn worker_child(name: &str) {
    let builder = runtime(1, 1).max_serving(SERVING).client_share(100);
    builder.build().expect("a runtime").block_on(async {
        let server = urpc::serve(name).method("work", |()| async {
            for _ in 0..PARTS {
                urpc::yield_now().await;
                let begin = Instant::now();
                while begin.elapsed() < WORK {
                    std::hint::spin_loop();
                }
            }
        });
        let _server = server.bind().expect("a free name");
        ready();
        urpc::unblock(until_told_to_end).await;
    });
}

/// A server with limits, and a client that asks for much.
pub struct Flood {
    runtime: Runtime,
    peer: Peer,
    _server: Child,
    _directory: tempfile::TempDir,
}

/// What became of what was offered: calls a second, and nanoseconds.
pub struct Offered {
    pub offered: f64,
    pub served: f64,
    pub refusal: f64,
}

impl Flood {
    pub fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let name = directory.path().join("server").display().to_string();
        let _server = Child::start(&format!("worker {name}"));
        let runtime = runtime(1, 0).build().expect("a runtime");
        Self {
            peer: connect(&runtime, &name),
            runtime,
            _server,
            _directory: directory,
        }
    }

    /// Calls a second that are served when as many are made at a time as are served at a time.
    pub fn peak(&self, time: Duration) -> f64 {
        let end = Instant::now() + time;
        let calls = |_| {
            let work = self.peer.procedure::<(), ()>("work");
            self.runtime.spawn(async move {
                let mut calls = 0;
                while Instant::now() < end {
                    calls += u64::from(work.call(()).await.is_ok());
                }
                calls
            })
        };
        let callers: Vec<_> = (0..SERVING).map(calls).collect();
        let calls = self.runtime.block_on(join_all(callers));
        let calls: u64 = calls
            .into_iter()
            .map(|calls| calls.expect("no panic"))
            .sum();
        calls as f64 / time.as_secs_f64()
    }

    /// Begins so many calls a second, whatever becomes of them.
    pub fn offer(&self, rate: f64, time: Duration) -> Offered {
        let work = self.peer.procedure::<(), ()>("work");
        let (calls, begin) = self.runtime.block_on(async {
            let (mut calls, begin) = (Vec::new(), Instant::now());
            while begin.elapsed() < time {
                let due = (begin.elapsed().as_secs_f64() * rate) as usize;
                while calls.len() < due {
                    let work = work.clone();
                    calls.push(urpc::spawn(async move {
                        let begin = Instant::now();
                        let ended = work.call(()).await;
                        (ended, begin.elapsed().as_nanos() as f64)
                    }));
                }
                urpc::yield_now().await;
            }
            (join_all(calls).await, begin)
        });
        let taken = begin.elapsed().as_secs_f64();
        let (mut served, mut refusals) = (0, Vec::new());
        let offered = calls.len() as f64 / taken;
        for call in calls {
            match call.expect("no panic") {
                (Ok(()), _) => served += 1,
                (Err(error), after) => {
                    assert_eq!(error.kind(), CallErrorKind::Overloaded, "{error}");
                    refusals.push(after);
                }
            }
        }
        Offered {
            offered,
            served: f64::from(served) / taken,
            refusal: if refusals.is_empty() {
                0.0
            } else {
                median(refusals)
            },
        }
    }
}
