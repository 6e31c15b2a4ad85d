//! A client and a server, bound for as long as a measurement lasts.
//!
//! The server is another process; it offers `null`, and the service `Calc` for a typed call. Client
//! processors are pinned from the first allowed CPU on, server processors from the second on.

use std::time::{Duration, Instant};

use urpc::{Builder, Peer, Procedure, Runtime};

use super::child::{Child, cpus, ready, until_told_to_end};

/// A server that slept is lent processors first; then one of its own wakes, and takes over.
pub const WARM_UP: Duration = Duration::from_millis(20);

/// What a typed call is measured with.
#[urpc::service]
pub trait Calc {
    async fn add(&self, a: i64, b: i64) -> i64;
}

pub struct Sums;

impl Calc for Sums {
    async fn add(&self, a: i64, b: i64) -> i64 {
        a.wrapping_add(b)
    }
}

/// `count` processors on the allowed CPUs, from CPU number `first` on.
pub fn runtime(count: usize, first: usize) -> Builder {
    let cpus = cpus();
    let pins = (0..count).map(|i| cpus[(first + i) % cpus.len()]);
    Runtime::builder().processors(count).pin(pins)
}

/// The server's process. If it polls, its processors never rest.
pub fn server_child(name: &str, processors: &str, polls: bool) {
    super::process::raise_descriptor_limit(); // for many clients
    let mut builder = runtime(processors.parse().expect("a number"), 1);
    if polls {
        builder = builder.spin(Duration::MAX);
    }
    let runtime = builder.build().expect("a runtime");
    runtime.block_on(async {
        let server = urpc::serve(name)
            .method("null", |(): ()| async {})
            .method("system_calls", |(): ()| async {
                urpc::stats().system_calls
            })
            .add(CalcServer::new(Sums))
            .bind();
        let _server = server.expect("a free name");
        ready();
        urpc::unblock(until_told_to_end).await;
    });
}

/// What `calls` calls took.
pub struct Taken {
    pub time: Duration,
    pub calls: u64,
    /// Of the whole system: hand-overs, and system calls on both sides.
    pub crossings: u64,
    pub system_calls: u64,
}

/// See the [module's documentation](self).
pub struct Pair {
    runtime: Runtime,
    peer: Peer,
    null: Procedure<(), ()>,
    calc: CalcClient,
    _server: Child,
    _directory: tempfile::TempDir,
}

impl Pair {
    /// A client with `c` processors and a server with `s`.
    pub fn start(c: usize, s: usize) -> Self {
        Self::with_server("server", c, s)
    }

    /// The same with a server that polls.
    pub fn start_polling(c: usize, s: usize) -> Self {
        Self::with_server("polling-server", c, s)
    }

    fn with_server(role: &str, c: usize, s: usize) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let name = directory.path().join("bench.sock").display().to_string();
        let _server = Child::start(&format!("{role} {name} {s}"));
        let runtime = runtime(c, 0).build().expect("a runtime");
        let connected = runtime.block_on(async { urpc::connect(&name).await });
        let peer = connected.expect("the server is ready");
        Self {
            null: peer.procedure("null"),
            calc: CalcClient::on(&peer),
            runtime,
            peer,
            _server,
            _directory: directory,
        }
    }

    /// About `calls` null calls by `callers` callers at a time, once both processes are warm.
    pub fn null(&self, callers: u32, calls: u32) -> Taken {
        self.measure(callers, calls, |share| {
            let null = self.null.clone();
            async move {
                for _ in 0..share {
                    null.call(()).await.expect("the server serves");
                }
            }
        })
    }

    /// The same with two arguments and a result, checked when they were bound.
    pub fn typed(&self, callers: u32, calls: u32) -> Taken {
        self.measure(callers, calls, |share| {
            let calc = self.calc.clone();
            async move {
                for _ in 0..share {
                    assert_eq!(calc.add(2, 3).await.expect("the server serves"), 5);
                }
            }
        })
    }

    /// `caller` makes so many calls.
    fn measure<F>(&self, callers: u32, calls: u32, caller: impl Fn(u32) -> F) -> Taken
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.runtime.block_on(async {
            let warm = Instant::now() + WARM_UP;
            while Instant::now() < warm {
                run(callers, callers, &caller).await;
            }
            let before = self.counts().await;
            let begin = Instant::now();
            let done = run(callers, calls, &caller).await;
            let time = begin.elapsed();
            let after = self.counts().await;
            Taken {
                time,
                calls: done,
                crossings: after.0 - before.0,
                system_calls: after.1 - before.1,
            }
        })
    }

    /// Crossings, and system calls on both sides. The call that asks is counted too.
    async fn counts(&self) -> (u64, u64) {
        let theirs: u64 = urpc::call(&self.peer, "system_calls", ())
            .await
            .expect("the server serves");
        let ours = self.runtime.stats();
        (ours.crossings, ours.system_calls + theirs)
    }

    /// Nanoseconds for a null call after a `pause` in which nobody does anything: the median of some.
    pub fn first_after(&self, pause: Duration, samples: u32) -> f64 {
        let mut taken = Vec::new();
        self.runtime.block_on(async {
            for _ in 0..samples {
                urpc::time::sleep(pause).await;
                let begin = Instant::now();
                self.null.call(()).await.expect("the server serves");
                taken.push(begin.elapsed().as_nanos() as f64);
            }
        });
        super::report::median(taken)
    }

    /// A time in which nobody does anything.
    pub fn idle(&self, time: Duration) {
        self.runtime.block_on(urpc::time::sleep(time));
    }

    /// The server's process.
    pub fn server(&self) -> u32 {
        self.peer.credentials().pid as u32
    }
}

/// `callers` tasks, each of which makes its share of the calls. How many calls that are.
async fn run<F>(callers: u32, calls: u32, caller: impl Fn(u32) -> F) -> u64
where
    F: Future<Output = ()> + Send + 'static,
{
    let share = calls.div_ceil(callers);
    let callers: Vec<_> = (0..callers).map(|_| urpc::spawn(caller(share))).collect();
    let count = callers.len() as u64;
    for caller in callers {
        caller.await.expect("a caller does not panic");
    }
    count * u64::from(share)
}
