//! Everything at once, for long: servers and clients are killed and started again, stopped and let go on, and calls are
//! given up, while others call all the time. Those who live through it have all their calls end, get on, and hold no
//! more at the end than early on.
//!
//! `URPC_SECONDS=3600 cargo test --release --test soak -- --nocapture` does it for an hour.
#[macro_use]
mod common;
#[path = "common/state.rs"]
mod state;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use common::{
    Names, Process, for_each_line, panics_are_fatal, runtime, say, serve, wait_for, watchdog_of,
};
use futures::future::{join_all, pending, poll_immediate};
use state::{Held, until_back_at};
use urpc::{CallErrorKind, ErrorKind, Executed, Peer};

/// Tasks of a client that call one server.
const CALLERS: usize = 8;
/// How often everything comes to rest, and it is counted what is held.
const RESTS: u32 = 10;
/// The one by which everything is warm, and the heap as full of holes as it gets.
const WARM: u32 = 3;
/// How long somebody is stopped at most.
const STOP: u64 = 30_000;

fn time() -> Duration {
    let said = std::env::var("URPC_SECONDS").ok();
    Duration::from_secs(said.map_or(5, |said| said.parse().expect("a number")))
}

/// What a process may hold more in memory than when it was warm. After a short time it may not be.
fn slack() -> u64 {
    let is_long = time() >= Duration::from_secs(60);
    if is_long { 1 << 20 } else { 8 << 20 }
}

fn server(argument: &str) {
    panics_are_fatal();
    serve(argument, |server, _| {
        server
            .method("len", |bytes: Vec<u8>| async move { bytes.len() })
            .method("later", |bytes: Vec<u8>| async move {
                urpc::yield_now().await;
                bytes.len()
            })
            .method("never", |_: Vec<u8>| pending::<()>())
    });
}

/// What the tasks of a client are told, and how many calls they have made.
#[derive(Default)]
struct Told {
    rest: AtomicBool,
    calls: AtomicU64,
}

/// Calls of all kinds, some of which are given up, until it is told to rest, or the channel is closed.
async fn call(peer: Peer, told: Arc<Told>) {
    while !told.rest.load(Relaxed) {
        let bytes = vec![7u8; fastrand::choice([0, 40, 3000, 60_000, 200_000]).unwrap()];
        let (len, limit) = (bytes.len(), Duration::from_millis(fastrand::u64(1..50)));
        let kind = fastrand::u32(0..10);
        let ended = match kind {
            0 => {
                let never = urpc::call::<()>(&peer, "never", bytes);
                poll_immediate(never).await.map_or(Ok(()), |ended| ended)
            }
            1 => urpc::call(&peer, "never", bytes).timeout(limit).await,
            n => {
                let name = ["len", "later"][n as usize % 2];
                let mut call = urpc::call::<usize>(&peer, name, bytes);
                if n < 5 {
                    call = call.timeout(limit);
                }
                call.await.map(|came| assert_eq!(came, len))
            }
        };
        match ended.map_err(|error| (error.kind(), error.executed(), error)) {
            Ok(()) => {}
            Err((CallErrorKind::Closed, Executed::No | Executed::Maybe, _)) => return,
            // The others have 30 s: nobody is stopped for so long.
            Err((CallErrorKind::Deadline, Executed::No | Executed::Maybe, _)) if kind < 5 => {}
            Err((.., error)) => panic!("{error}"),
        }
        told.calls.fetch_add(1, Relaxed);
    }
}

/// Binds to whoever serves `name`, again and again, until it is told to rest.
async fn visit(name: String, told: Arc<Told>) {
    while !told.rest.load(Relaxed) {
        match urpc::connect(&name).await {
            Ok(peer) => {
                let call = |_| urpc::spawn(call(peer.clone(), Arc::clone(&told)));
                let callers: Vec<_> = (0..CALLERS).map(call).collect();
                join_all(callers).await;
            }
            Err(error) => {
                let gone = [ErrorKind::NoServer, ErrorKind::Handshake];
                assert!(gone.contains(&error.kind()), "{error}");
                urpc::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
}

async fn idle() {
    for _ in 0..3 {
        urpc::time::sleep(Duration::from_millis(1)).await;
    }
}

/// `PROCESSORS NAME NAME …`: calls them all. Told so, it rests, without any channel, or goes on.
fn client(argument: &str) {
    panics_are_fatal();
    let (processors, names) = argument.split_once(' ').unwrap();
    let rt = runtime(processors.parse().unwrap());
    let told = Arc::new(Told::default());
    let visits = || {
        let visit = |name: &str| rt.spawn(visit(name.to_owned(), Arc::clone(&told)));
        names.split(' ').map(visit).collect::<Vec<_>>()
    };
    let (mut tasks, mut before) = (visits(), 0);
    say("ready", "");
    for_each_line(|line| match line {
        "rest" => {
            wait_for("calls", || told.calls.load(Relaxed) > before);
            told.rest.store(true, Relaxed);
            rt.block_on(join_all(tasks.drain(..)));
            before = told.calls.load(Relaxed);
            // This thread and the runtime's own: each frees its buffers as it rests for the second time.
            rt.block_on(idle());
            futures::executor::block_on(rt.spawn(idle())).unwrap();
            say("rests", before);
        }
        _ => {
            told.rest.store(false, Relaxed);
            tasks = visits();
        }
    });
}

/// All processes.
struct World {
    /// Those that live: two servers, then two clients.
    steady: Vec<Process>,
    /// Those that are killed: a server, and a client.
    mayflies: Vec<Process>,
    names: Names,
    /// How often each of it was done.
    kills: u64,
    stops: u64,
}

impl World {
    fn new() -> Self {
        let names = Names::new();
        let mut world = Self {
            steady: Vec::new(),
            mayflies: Vec::new(),
            names,
            kills: 0,
            stops: 0,
        };
        for processors in [1, 0] {
            let name = world.names.name(&format!("s{processors}"));
            world.start_steady("server", &format!("{processors} {name}"));
        }
        world.start_mayflies();
        for processors in [1, 0] {
            let argument = world.client(processors);
            world.start_steady("client", &argument);
        }
        world
    }

    fn start_steady(&mut self, role: &str, argument: &str) {
        let process = Process::start_with(role, argument, state::frugal);
        self.steady.push(process);
    }

    fn client(&self, processors: u32) -> String {
        let [s1, s0, mayfly] = ["s1", "s0", "mayfly"].map(|name| self.names.name(name));
        format!("{processors} {s1} {s0} {mayfly}")
    }

    /// With a processor, or without.
    fn start_mayfly(&self, i: usize) -> Process {
        let processors = fastrand::u32(0..2);
        match i {
            0 => {
                let name = self.names.name("mayfly");
                Process::start("server", &format!("{processors} {name}"))
            }
            _ => Process::start("client", &self.client(processors)),
        }
    }

    fn start_mayflies(&mut self) {
        self.mayflies = (0..2).map(|i| self.start_mayfly(i)).collect();
    }

    /// Kills somebody and starts it again, or stops somebody for a moment.
    fn strike(&mut self) {
        std::thread::sleep(Duration::from_micros(fastrand::u64(0..10_000)));
        if fastrand::bool() {
            let i = fastrand::usize(0..self.mayflies.len());
            self.mayflies[i].kill();
            self.mayflies[i] = self.start_mayfly(i);
            self.kills += 1;
        } else {
            let all: Vec<_> = self.steady.iter().chain(&self.mayflies).collect();
            let process = fastrand::choice(all).unwrap();
            process.stop();
            std::thread::sleep(Duration::from_micros(fastrand::u64(0..STOP)));
            process.go_on();
            self.stops += 1;
        }
    }

    /// Everything comes to rest: each client has got on, no call hangs, and no channel is left. The calls that each
    /// steady client has made.
    fn rest(&mut self) -> Vec<u64> {
        let rest = |client: &mut Process| {
            client.tell("rest");
            client.expect("rests").parse().unwrap()
        };
        let calls = self.steady[2..].iter_mut().map(rest).collect();
        self.mayflies.clear();
        calls
    }

    fn go_on(&mut self) {
        self.start_mayflies();
        let clients = self.steady[2..].iter_mut();
        clients.for_each(|client| client.tell("go on"));
    }
}

/// What each holds, once it has let go of all channels.
fn held(processes: &[Process]) -> Vec<Held> {
    let settled = |process: &Process| {
        let mut held = None;
        wait_for("the last channels to go", || {
            held = Held::by(process.pid());
            // A presence page of its own.
            held.is_some_and(|held| held.mappings <= 1)
        });
        held.unwrap()
    };
    processes.iter().map(settled).collect()
}

#[test]
fn whoever_lives_through_it_holds_no_more_at_the_end() {
    let _watch = watchdog_of(time() + Duration::from_secs(120));
    let mut world = World::new();
    let begun = Instant::now();
    let mut warm = None;
    for n in 1..=RESTS {
        let until = Instant::now() + time() / RESTS;
        while Instant::now() < until {
            world.strike();
        }
        let calls = world.rest();
        if n == WARM {
            warm = Some(held(&world.steady));
        }
        for (process, warm) in world.steady.iter().zip(warm.iter().flatten()) {
            until_back_at(process.pid(), *warm, slack());
        }
        let rss = held(&world.steady).into_iter().map(|held| held.rss / 1024);
        println!(
            "{:.0?}: {} kills, {} stops, {calls:?} calls, {:?} KiB",
            begun.elapsed(),
            world.kills,
            world.stops,
            rss.collect::<Vec<_>>()
        );
        if n < RESTS {
            world.go_on();
        }
    }
    for process in world.steady.into_iter().rev() {
        process.finish();
    }
}

roles! { "server" => server, "client" => client }
