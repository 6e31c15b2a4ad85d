//! Processes are stopped (SIGSTOP) at any moment, under load, again and again, and go on later (SIGCONT): servers,
//! clients, and a client whose processor is away. Every call ends with its reply or at its deadline; others go on;
//! and who goes on works as before.
//!
//! `URPC_STORM=200 cargo test --release --test stops -- --nocapture` stops each of them 200 times. How late calls end
//! is printed here; `cargo bench --bench storm` measures it.
#[macro_use]
mod common;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{Names, PATIENCE, Process, for_each_line, runtime, say, serve, wait_for, watchdog_of};
use urpc::{CallErrorKind, Executed, JoinHandle, Peer, Runtime, ServerBuilder};

/// Tasks that call without end.
const CALLERS: u64 = 16;

fn times() -> u64 {
    let said = std::env::var("URPC_STORM").ok();
    said.map_or(20, |said| said.parse().expect("a number"))
}

fn patience() -> Duration {
    PATIENCE + Duration::from_secs(2) * times() as u32
}

/// How calls have ended.
#[derive(Default)]
struct Ends {
    replies: AtomicU64,
    deadlines: AtomicU64,
    /// How long after their deadlines.
    late: Mutex<Vec<Duration>>,
}

/// Calls of all kinds, one after the other, until `over`.
async fn call_until(peer: Peer, over: Arc<AtomicBool>, ends: Arc<Ends>) {
    for n in 0.. {
        if over.load(Relaxed) {
            return;
        }
        let bytes = vec![7u8; [0, 40, 3000, 60_000][n % 4]];
        let name = ["len", "later"][n / 4 % 2];
        let len = bytes.len();
        let limit = Duration::from_millis(fastrand::u64(5..40));
        let begun = Instant::now();
        let call = urpc::call::<usize>(&peer, name, bytes);
        match call.timeout(limit).await {
            Ok(came) => {
                assert_eq!(came, len);
                ends.replies.fetch_add(1, Relaxed);
            }
            Err(error) => {
                let late = begun.elapsed().checked_sub(limit);
                assert_eq!(error.kind(), CallErrorKind::Deadline, "{error}");
                assert_ne!(error.executed(), Executed::Yes, "{error}");
                let late = late.expect("not before its deadline");
                ends.late.lock().unwrap().push(late);
                ends.deadlines.fetch_add(1, Relaxed);
            }
        }
    }
}

/// Load on a peer, and how its calls have ended.
struct Load {
    tasks: Vec<JoinHandle<()>>,
    over: Arc<AtomicBool>,
    ends: Arc<Ends>,
}

impl Load {
    fn on(rt: &Runtime, peer: &Peer) -> Self {
        let (over, ends) = (Arc::default(), Arc::default());
        let call = |_| {
            let call = call_until(peer.clone(), Arc::clone(&over), Arc::clone(&ends));
            rt.spawn(call)
        };
        let tasks = (0..CALLERS).map(call).collect();
        Self { tasks, over, ends }
    }

    /// Waits until `count` has grown by as many as there are callers.
    fn until_more(&self, what: &str, count: &AtomicU64) {
        let before = count.load(Relaxed);
        wait_for(what, || count.load(Relaxed) >= before + CALLERS);
    }

    fn until_replies(&self) {
        self.until_more("replies", &self.ends.replies);
    }

    fn until_deadlines(&self) {
        self.until_more("deadlines", &self.ends.deadlines);
    }

    /// Ends it: no caller hangs. How late those were whose deadline passed.
    fn end(self, rt: &Runtime) -> String {
        self.over.store(true, Relaxed);
        for task in self.tasks {
            rt.block_on(task).unwrap();
        }
        let mut late = std::mem::take(&mut *self.ends.late.lock().unwrap());
        late.sort();
        let (half, last) = (late.get(late.len() / 2), late.last());
        format!(
            "{} replies; {} deadlines passed, of which calls heard {half:?} later in the middle, {last:?} at most",
            self.ends.replies.load(Relaxed),
            late.len()
        )
    }
}

/// Stops a process at any moment, does something meanwhile, and has it go on.
fn while_stopped(process: &Process, f: impl FnOnce()) {
    std::thread::sleep(Duration::from_micros(fastrand::u64(0..3000)));
    process.stop();
    f();
    process.go_on();
}

fn works(rt: &Runtime, peer: &Peer) {
    let len = urpc::call::<usize>(peer, "later", vec![7u8; 5000]);
    assert_eq!(rt.block_on(len), Ok(5000));
}

fn offer(server: ServerBuilder) -> ServerBuilder {
    server
        .method("len", |bytes: Vec<u8>| async move { bytes.len() })
        .method("later", |bytes: Vec<u8>| async move {
            urpc::yield_now().await;
            bytes.len()
        })
}

fn server(argument: &str) {
    serve(argument, |server, _| offer(server));
}

/// `PROCESSORS NAME`: offers what a server offers, and calls all the time; asked for it, says whether that works.
fn client(argument: &str) {
    let (processors, name) = argument.split_once(' ').unwrap();
    let rt = runtime(processors.parse().unwrap());
    let connect = urpc::connect(name)
        .method("len", |bytes: Vec<u8>| async move { bytes.len() })
        .method("later", |bytes: Vec<u8>| async move {
            urpc::yield_now().await;
            bytes.len()
        });
    let peer = rt.block_on(connect).unwrap();
    rt.block_on(urpc::call::<()>(&peer, "here", ())).unwrap();
    let load = Load::on(&rt, &peer);
    say("ready", "");
    for_each_line(|_| {
        works(&rt, &peer);
        load.until_replies();
        say("works", "");
    });
    load.end(&rt);
}

/// `NAME`: has its processor held, whenever it is told to, and says when it is back.
fn donor(name: &str) {
    let rt = runtime(1);
    let peer = rt.block_on(urpc::connect(name)).unwrap();
    rt.block_on(urpc::call::<()>(&peer, "here", ())).unwrap();
    say("ready", "");
    for_each_line(|_| {
        while rt.block_on(urpc::call::<bool>(&peer, "hold", ())) != Ok(true) {}
        works(&rt, &peer);
        say("works", "");
    });
}

fn ask(client: &mut Process) {
    client.tell("ask");
    client.expect("works");
}

#[test]
fn every_call_of_a_server_that_is_stopped_ends() {
    let _watch = watchdog_of(patience());
    for processors in [1, 0] {
        let names = Names::new();
        let start = |name: &str| {
            let name = names.name(name);
            let process = Process::start("server", &format!("{processors} {name}"));
            (process, name)
        };
        let [(stopped, name), (runs, other)] = ["stopped", "runs"].map(start);
        let rt = runtime(1);
        let [peer, other] = [name, other].map(|name| rt.block_on(urpc::connect(&name)).unwrap());
        let load = Load::on(&rt, &peer);
        for _ in 0..times() {
            load.until_replies();
            while_stopped(&stopped, || {
                load.until_deadlines();
                works(&rt, &other);
            });
            works(&rt, &peer);
        }
        println!("S={processors}: {}", load.end(&rt));
        drop((peer, other, rt));
        stopped.finish();
        runs.finish();
    }
}

#[test]
fn every_call_back_to_a_client_that_is_stopped_ends_and_other_clients_go_on() {
    let _watch = watchdog_of(patience());
    for (ours, theirs) in [(1, 1), (0, 1), (1, 0)] {
        let names = Names::new();
        let name = names.name("s");
        let rt = runtime(ours);
        let (come, came) = channel();
        let server = offer(urpc::serve(&name)).method("here", move |()| {
            come.send(urpc::caller().unwrap().peer()).unwrap();
            async {}
        });
        let _server = rt.block_on(async { server.bind().unwrap() });
        let client = || Process::start("client", &format!("{theirs} {name}"));
        let [mut stopped, mut runs] = [client(), client()];
        let peer = came.recv().unwrap();
        let load = Load::on(&rt, &peer);
        for _ in 0..times() {
            load.until_replies();
            while_stopped(&stopped, || {
                load.until_deadlines();
                ask(&mut runs);
            });
            works(&rt, &peer);
            ask(&mut stopped);
        }
        println!("C={theirs} S={ours}: back, {}", load.end(&rt));
        stopped.finish();
        runs.finish();
    }
}

#[test]
fn a_client_that_is_stopped_while_its_processor_is_away_keeps_nobody_from_going_on() {
    let _watch = watchdog_of(patience());
    let names = Names::new();
    let name = names.name("s");
    let rt = runtime(0);
    let (come, came) = channel();
    let (enter, inside) = channel();
    let (release, released) = channel::<()>();
    let released = Arc::new(Mutex::new(released));
    let server = offer(urpc::serve(&name))
        .method("here", move |()| {
            come.send(urpc::caller().unwrap().peer()).unwrap();
            async {}
        })
        // Only a landing: the one thread that comes up for a ring is there for the others.
        .method("hold", move |()| {
            let landing = std::thread::current().name() == Some("urpc-landing");
            if landing {
                enter.send(()).unwrap();
                released.lock().unwrap().recv().unwrap();
            }
            async move { landing }
        });
    let _server = rt.block_on(async { server.bind().unwrap() });
    let mut stopped = Process::start("donor", &name);
    let peer = came.recv().unwrap();
    let mut runs = Process::start("client", &format!("1 {name}"));
    for n in 0..times() {
        stopped.tell("hold");
        inside.recv().unwrap();
        while_stopped(&stopped, || {
            let back = urpc::call::<usize>(&peer, "len", vec![7u8; 10]);
            let end = rt.block_on(back.timeout(Duration::from_millis(20)));
            let kind = end.unwrap_err().kind();
            // The client offers nothing, but one that is stopped cannot say so, and need not.
            assert_eq!(kind, CallErrorKind::UnknownProcedure);
            ask(&mut runs);
            if n % 2 == 0 {
                release.send(()).unwrap();
                ask(&mut runs);
            }
        });
        if n % 2 == 1 {
            release.send(()).unwrap();
        }
        stopped.expect("works");
    }
    stopped.finish();
    runs.finish();
}

roles! {
    "server" => server,
    "client" => client,
    "donor" => donor,
}
