//! Storms: processes are killed at any moment, under load, again and again; far more is asked for than can be done.
//! What is left goes on as before, and holds no more than before.
//!
//! `URPC_STORM=1000 cargo test --release --test storms -- --nocapture` kills a thousand servers and as many clients;
//! without it, there are fewer of each.
#[macro_use]
mod common;
#[path = "common/state.rs"]
mod state;

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{Names, PATIENCE, Process, runtime, say, serve, wait_for, watchdog_of};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use state::{Held, until_back_at};
use urpc::{CallErrorKind, Executed, Peer, Runtime};

/// Tasks that call without end.
const CALLERS: usize = 16;
/// How soon after a death can be seen every call has failed, on a machine that does nothing else.
const SOON: Duration = Duration::from_millis(100);

/// How often each of it is done: so often as was asked for, on a machine that does nothing else.
fn asked_for() -> Option<u64> {
    let said = std::env::var("URPC_STORM").ok();
    said.map(|said| said.parse().expect("a number"))
}

fn times() -> u64 {
    asked_for().unwrap_or(20)
}

/// Rounds before it is counted what a process holds: by then it has what it makes once, and for each thread.
fn warm_up() -> u64 {
    20.max(times() / 5)
}

/// What a process may hold more in memory, for ever, than before a storm. After a short one it may still be about to
/// make what it makes once.
fn slack() -> u64 {
    asked_for().map_or(8 << 20, |_| 1 << 20)
}

fn server(argument: &str) {
    serve(argument, |server, _| {
        server
            .method("len", |bytes: Vec<u8>| async move { bytes.len() })
            .method("later", |bytes: Vec<u8>| async move {
                urpc::yield_now().await;
                bytes.len()
            })
    });
}

/// Calls of all kinds, one after the other, until one fails.
async fn call_until_it_fails(peer: Peer, calls: Arc<AtomicU64>) -> urpc::CallError {
    for n in 0.. {
        let bytes = vec![7u8; [0, 40, 3000, 60_000][n % 4]];
        let name = ["len", "later"][n / 4 % 2];
        let len = bytes.len();
        match urpc::call::<usize>(&peer, name, bytes).await {
            Ok(came) => assert_eq!(came, len),
            Err(error) => return error,
        }
        calls.fetch_add(1, Relaxed);
    }
    unreachable!("it calls for ever")
}

/// Load on a peer: its tasks, and how many calls they have made.
struct Load {
    tasks: Vec<urpc::JoinHandle<urpc::CallError>>,
    calls: Arc<AtomicU64>,
}

impl Load {
    fn on(rt: &Runtime, peer: &Peer) -> Self {
        let calls = Arc::default();
        let call = |_| rt.spawn(call_until_it_fails(peer.clone(), Arc::clone(&calls)));
        let tasks = (0..CALLERS).map(call).collect();
        Self { tasks, calls }
    }

    /// Waits until so many calls have been made.
    fn run(&self, calls: u64) {
        wait_for("calls", || self.calls.load(Relaxed) >= calls);
    }
}

/// Calls `NAME` until it is killed.
fn client(name: &str) {
    let rt = runtime(1);
    let peer = rt.block_on(urpc::connect(name)).unwrap();
    let load = Load::on(&rt, &peer);
    load.run(1);
    say("ready", "");
    common::until_told_to_end();
}

/// Says in a thread when a process is dead, as soon as the kernel says so.
fn death_of(pid: u32) -> std::thread::JoinHandle<Instant> {
    let pid = Pid::from_raw(pid as i32).unwrap();
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    std::thread::spawn(move || {
        let mut fds = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
        poll(&mut fds, None).unwrap();
        Instant::now()
    })
}

/// Servers that are killed under load, all of one name. The argument is `PROCESSORS NAME`.
fn kill_servers(argument: &str) {
    let (_, name) = argument.split_once(' ').unwrap();
    let rt = runtime(1);
    let last = Arc::new(Mutex::new(Instant::now()));
    say("ready", "");
    let mut before = None;
    let mut longest = Duration::ZERO;
    for round in 0..times() + warm_up() {
        let server = Process::start("server", argument);
        let peer = rt
            .block_on(urpc::connect(name))
            .expect("a killed server leaves no name behind");
        let load = Load::on(&rt, &peer);
        load.run(fastrand::u64(1..200));
        let death = death_of(server.pid());
        server.signal(9);
        rt.block_on(async {
            for task in load.tasks {
                let error = task.await.unwrap();
                assert_eq!(error.kind(), CallErrorKind::Closed, "{error}");
                assert_ne!(error.executed(), Executed::Yes, "{error}");
            }
            *last.lock().unwrap() = Instant::now();
        });
        let late = last
            .lock()
            .unwrap()
            .saturating_duration_since(death.join().unwrap());
        longest = longest.max(late);
        drop((peer, server));
        if round == warm_up() - 1 {
            before = Some(Held::by(std::process::id()).unwrap());
        }
    }
    until_back_at(std::process::id(), before.unwrap(), slack());
    say("longest", format!("{longest:?}"));
    let soon = asked_for().is_none() || longest <= SOON;
    assert!(soon, "calls failed {longest:?} after a death");
    say("over", "");
}

/// Clients that are killed under load. The argument is `PROCESSORS NAME`, of their server.
fn kill_clients(argument: &str) {
    let (_, name) = argument.split_once(' ').unwrap();
    let server = Process::start("server", argument);
    let rt = runtime(1);
    let honest = rt.block_on(urpc::connect(name)).unwrap();
    say("ready", "");
    let alone = Held::by(server.pid()).unwrap().mappings;
    let mut before = None;
    for round in 0..times() + warm_up() {
        let client = Process::start("client", name);
        // At any moment: there is no telling where it is.
        std::thread::sleep(Duration::from_micros(fastrand::u64(0..3000)));
        client.signal(9);
        drop(client);
        let len = urpc::call::<usize>(&honest, "later", vec![7u8; 100]);
        assert_eq!(rt.block_on(len), Ok(100), "of a client that lives");
        if round == warm_up() - 1 {
            wait_for("the first clients to be gone", || {
                Held::by(server.pid()).is_some_and(|held| held.mappings <= alone)
            });
            before = Held::by(server.pid());
        }
    }
    until_back_at(server.pid(), before.unwrap(), slack());
    say("over", "");
    drop((honest, rt));
    server.finish();
}

/// Plays one of these, in a process of its own, since what it holds is counted.
fn storm(role: &str, processors: usize) -> Process {
    let names = Names::new();
    let argument = format!("{processors} {}", names.name("s"));
    let mut process = Process::start_with(role, &argument, state::frugal);
    if role == "kill servers" {
        let longest = process.expect("longest");
        println!("{processors} processors: all calls failed within {longest} of a death");
    }
    process.expect("over");
    process
}

fn patience() -> Duration {
    PATIENCE + Duration::from_millis(500) * times() as u32
}

#[test]
fn servers_that_are_killed_leave_nothing_and_their_names_are_free_again() {
    let _watch = watchdog_of(patience());
    for processors in [1, 0] {
        storm("kill servers", processors).finish();
    }
}

#[test]
fn clients_that_are_killed_leave_nothing_at_their_server() {
    let _watch = watchdog_of(patience());
    for processors in [1, 0] {
        storm("kill clients", processors).finish();
    }
}

roles! {
    "server" => server,
    "client" => client,
    "kill servers" => kill_servers,
    "kill clients" => kill_clients,
}
