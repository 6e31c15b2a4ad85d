//! Ten times as much is asked for as a server may take: what it serves and what it holds stays within its limits,
//! everything beyond is refused before it is begun, and a client that asks for little is served as ever.
//!
//! `cargo bench --bench storm` measures how much is served meanwhile.
#[macro_use]
mod common;
#[path = "common/state.rs"]
mod state;

use std::fs::read_to_string;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use common::{Names, Process, runtime, say, until_told_to_end, watchdog};
use futures::future::join_all;
use serde_bytes::ByteBuf;
use urpc::{CallErrorKind, Executed, Peer, Runtime};

/// Limits of the server, and what any one client may take of them.
const SERVING: u64 = 60;
const BYTES: u64 = 8 << 20;
const SHARE: u8 = 20;
/// Clients that ask for ten times their share: so something is left for one that does not.
const CROWDS: usize = 4;
const CALLERS: u64 = 10 * SERVING * SHARE as u64 / 100;
/// Besides the bytes of calls: channels, and what is allocated in pieces.
const SLACK: u64 = 4 << 20;

/// Calls or bytes that handlers have right now, and the most that they ever had.
#[derive(Default)]
struct Gauge(AtomicU64, AtomicU64);

impl Gauge {
    fn add(&self, n: u64) {
        self.1.fetch_max(self.0.fetch_add(n, Relaxed) + n, Relaxed);
    }

    fn sub(&self, n: u64) {
        self.0.fetch_sub(n, Relaxed);
    }
}

fn server(name: &str) {
    let builder = Runtime::builder()
        .processors(1)
        .max_serving(SERVING as usize);
    let rt = builder
        .max_bytes(BYTES)
        .client_share(SHARE)
        .build()
        .unwrap();
    let gauges = Arc::new((Gauge::default(), Gauge::default()));
    let most = Arc::clone(&gauges);
    rt.block_on(async {
        let _server = urpc::serve(name)
            .method("work", move |bytes: ByteBuf| {
                let gauges = Arc::clone(&gauges);
                async move {
                    let (calls, held) = &*gauges;
                    calls.add(1);
                    held.add(bytes.len() as u64);
                    for _ in 0..20 {
                        urpc::yield_now().await;
                    }
                    held.sub(bytes.len() as u64);
                    calls.sub(1);
                    bytes.len()
                }
            })
            .method("most", move |()| {
                let most = (most.0.1.load(Relaxed), most.1.1.load(Relaxed));
                async move { most }
            })
            .bind()
            .unwrap();
        say("ready", "");
        urpc::unblock(until_told_to_end).await;
    });
}

/// Calls without end; how many were served, and refused.
struct Crowd {
    peer: Peer,
    bytes: usize,
    over: AtomicBool,
    served: AtomicU64,
    refused: AtomicU64,
}

impl Crowd {
    async fn call(&self) {
        while !self.over.load(Relaxed) {
            let bytes = ByteBuf::from(vec![7u8; self.bytes]);
            match urpc::call::<usize>(&self.peer, "work", bytes).await {
                Ok(len) => {
                    assert_eq!(len, self.bytes);
                    self.served.fetch_add(1, Relaxed);
                }
                Err(error) => {
                    let (kind, executed) = (error.kind(), error.executed());
                    let overloaded = (CallErrorKind::Overloaded, Executed::No);
                    assert_eq!((kind, executed), overloaded, "{error}");
                    self.refused.fetch_add(1, Relaxed);
                }
            }
        }
    }
}

/// `NAME BYTES`: calls with so many bytes, ten times as many at a time as are served, until it is told to end.
fn crowd(argument: &str) {
    let (name, bytes) = argument.split_once(' ').unwrap();
    let rt = runtime(1);
    let crowd = Arc::new(Crowd {
        peer: rt.block_on(urpc::connect(name)).unwrap(),
        bytes: bytes.parse().unwrap(),
        over: AtomicBool::new(false),
        served: AtomicU64::new(0),
        refused: AtomicU64::new(0),
    });
    let callers = (0..CALLERS).map(|_| {
        let crowd = Arc::clone(&crowd);
        rt.spawn(async move { crowd.call().await })
    });
    let callers: Vec<_> = callers.collect();
    common::wait_for("some to be served, and many refused", || {
        crowd.served.load(Relaxed) > 20 && crowd.refused.load(Relaxed) > 200
    });
    say("ready", "");
    common::hear();
    crowd.over.store(true, Relaxed);
    for ended in rt.block_on(join_all(callers)) {
        ended.unwrap();
    }
    let (served, refused) = (crowd.served.load(Relaxed), crowd.refused.load(Relaxed));
    say("ends", format!("{served} served, {refused} refused"));
    until_told_to_end();
}

/// The most memory that a process ever had, in bytes.
fn most_memory(pid: u32) -> u64 {
    let status = read_to_string(format!("/proc/{pid}/status")).unwrap();
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: u64 = most
        .unwrap()
        .trim()
        .strip_suffix(" kB")
        .unwrap()
        .parse()
        .unwrap();
    kib * 1024
}

fn ten_times_too_much(bytes: usize) {
    let _watch = watchdog();
    let names = Names::new();
    let name = names.name("s");
    let server = Process::start_with("server", &name, state::frugal);
    let rt = runtime(1);
    let peer = rt.block_on(urpc::connect(&name)).unwrap();
    let work = || urpc::call::<usize>(&peer, "work", ByteBuf::from(vec![7u8; bytes]));
    assert_eq!(rt.block_on(work()), Ok(bytes));
    let before = most_memory(server.pid());
    let argument = format!("{name} {bytes}");
    let crowds = (0..CROWDS).map(|_| Process::start("crowd", &argument));
    let crowds: Vec<_> = crowds.collect();
    for _ in 0..50 {
        assert_eq!(rt.block_on(work()), Ok(bytes), "of who asks for little");
    }
    for mut crowd in crowds {
        crowd.tell("enough");
        println!("{}", crowd.expect("ends"));
        crowd.finish();
    }
    let most = rt.block_on(urpc::call::<(u64, u64)>(&peer, "most", ()));
    let (calls, held) = most.unwrap();
    let grown = most_memory(server.pid()) - before;
    println!("at most {calls} calls with {held} bytes, and {grown} bytes of memory");
    assert!(calls <= SERVING && held <= BYTES);
    assert!(grown <= BYTES + SLACK, "{grown} bytes of memory");
    drop((peer, rt));
    server.finish();
}

#[test]
fn ten_times_as_many_calls_as_are_served_do_not_get_in() {
    ten_times_too_much(40);
}

#[test]
fn ten_times_as_many_bytes_as_there_is_room_for_are_not_held() {
    ten_times_too_much(250_000);
}

roles! { "server" => server, "crowd" => crowd }
