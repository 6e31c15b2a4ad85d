//! Many clients of one server: real channels, some hundred of them in each client process.

use std::time::{Duration, Instant};

use futures::future::join_all;
use hdrhistogram::Histogram;
use urpc::{Peer, Procedure, Runtime};

use super::child::{Child, ready};
use super::pair::{WARM_UP, runtime};
use super::process::raise_descriptor_limit;

/// Clients in one process at most.
const IN_ONE: usize = 256;

/// A server, one client in this process, and others in a few more.
pub struct Crowd {
    runtime: Runtime,
    null: Procedure<(), ()>,
    others: Vec<Child>,
    clients: usize,
    name: String,
    server: Child,
    _directory: tempfile::TempDir,
}

/// Calls and what they took, together.
pub struct Calls {
    pub rate: f64,
    /// Nanoseconds.
    pub p99: f64,
}

impl Crowd {
    /// A server with one client.
    pub fn start() -> Self {
        raise_descriptor_limit();
        let directory = tempfile::tempdir().expect("a directory");
        let name = directory.path().join("bench.sock").display().to_string();
        let server = Child::start(&format!("server {name} 1"));
        let runtime = runtime(1, 0).build().expect("a runtime");
        let connected = runtime.block_on(async { urpc::connect(&name).await });
        Self {
            null: connected.expect("the server is ready").procedure("null"),
            runtime,
            others: Vec::new(),
            clients: 1,
            name,
            server,
            _directory: directory,
        }
    }

    /// Starts the processes in which there will be `clients` in all, and returns these.
    pub fn start_others(&mut self, clients: usize) -> Vec<Child> {
        let mut missing = clients - self.clients;
        self.clients = clients;
        let mut fresh = Vec::new();
        while missing > 0 {
            let count = missing.min(IN_ONE);
            fresh.push(Child::start(&format!("crowd {} {count}", self.name)));
            missing -= count;
        }
        fresh
    }

    /// Binds their clients. How long that takes, all these processes at a time.
    pub fn bind(&mut self, mut fresh: Vec<Child>) -> Duration {
        let begin = Instant::now();
        fresh.iter_mut().for_each(|child| child.tell("bind"));
        fresh.iter_mut().for_each(|child| drop(child.listen()));
        let taken = begin.elapsed();
        self.others.append(&mut fresh);
        taken
    }

    /// The server and the processes of the others.
    pub fn pids(&self) -> Vec<u32> {
        let all = std::iter::once(&self.server).chain(&self.others);
        all.map(Child::id).collect()
    }

    /// Nanoseconds for a null call of the one client, over `calls`.
    pub fn null(&self, calls: u32) -> f64 {
        self.runtime.block_on(async {
            let call = || async { self.null.call(()).await.expect("the server serves") };
            let warm = Instant::now() + WARM_UP;
            while Instant::now() < warm {
                call().await;
            }
            let begin = Instant::now();
            for _ in 0..calls {
                call().await;
            }
            begin.elapsed().as_nanos() as f64 / f64::from(calls)
        })
    }

    /// The others call for so long, each after a pause of `pause` on average (none: one call after the other).
    pub fn all_call(&mut self, pause: Duration, time: Duration) -> Calls {
        let order = format!("call {} {}", pause.as_micros(), time.as_micros());
        self.others.iter_mut().for_each(|child| child.tell(&order));
        let mut all = histogram();
        for child in &mut self.others {
            for pair in child.listen().split_whitespace() {
                let (value, count) = pair.split_once(':').expect("value and count");
                let (value, count) = (value.parse(), count.parse());
                all.record_n(value.expect("a number"), count.expect("a number"))
                    .expect("in range");
            }
        }
        Calls {
            rate: all.len() as f64 / time.as_secs_f64(),
            p99: all.value_at_quantile(0.99) as f64,
        }
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 2).expect("bounds")
}

/// A process with many clients. Told to `bind`, and to `call PAUSE TIME` (microseconds): says the latencies.
pub fn crowd_child(name: &str, count: &str) {
    raise_descriptor_limit();
    let runtime = Runtime::builder().processors(1).build().expect("a runtime");
    let count = count.parse::<usize>().expect("a number");
    let mut peers: Vec<Peer> = Vec::new();
    ready();
    for line in std::io::stdin().lines() {
        let line = line.expect("the parent's text");
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["bind"] => {
                runtime.block_on(async {
                    for _ in 0..count {
                        peers.push(urpc::connect(name).await.expect("the server is ready"));
                    }
                });
                ready();
            }
            ["call", pause, time] => {
                let micros = |text: &str| Duration::from_micros(text.parse().expect("a number"));
                let (pause, time) = (micros(pause), micros(time));
                let until = Instant::now() + time;
                let all = runtime.block_on(async {
                    let callers = peers
                        .iter()
                        .map(|peer| urpc::spawn(calls(peer.procedure("null"), pause, until)));
                    join_all(callers).await
                });
                let mut sum = histogram();
                for one in all {
                    sum.add(one.expect("no panic")).expect("the same bounds");
                }
                let pairs = sum.iter_recorded();
                let pairs =
                    pairs.map(|v| format!("{}:{}", v.value_iterated_to(), v.count_at_value()));
                println!("{}", pairs.collect::<Vec<_>>().join(" "));
            }
            _ => panic!("told `{line}`"),
        }
    }
}

async fn calls(null: Procedure<(), ()>, pause: Duration, until: Instant) -> Histogram<u64> {
    let mut taken = histogram();
    loop {
        if !pause.is_zero() {
            urpc::time::sleep(pause.mul_f64(2.0 * fastrand::f64())).await;
        }
        let begin = Instant::now();
        if begin >= until {
            return taken;
        }
        null.call(()).await.expect("the server serves");
        taken
            .record(begin.elapsed().as_nanos() as u64)
            .expect("in range");
    }
}
