//! A server's own life: several clients, a parent and its child over an inherited socket, peers that never come, and
//! the end, in order or with its runtime.
#[macro_use]
mod common;
#[path = "common/raw.rs"]
mod raw;

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use common::{Names, Process, for_each_line, runtime, say, until_told_to_end, wait_for, watchdog};
use event_listener::Event;
use urpc::{CallErrorKind, ErrorKind, Executed, Runtime, Server, ServerBuilder};

static SERVER: OnceLock<Server> = OnceLock::new();
static SUM: AtomicU64 = AtomicU64::new(0);
static RELEASE: Event = Event::new();

fn offer(server: ServerBuilder) -> ServerBuilder {
    server
        .method("add", |n: u64| async move {
            SUM.fetch_add(n, Ordering::Relaxed) + n
        })
        .method("hold", |n: u64| async move {
            let released = RELEASE.listen();
            say("holds", n);
            released.await;
            n
        })
        .method("clients", |()| async {
            let clients = SERVER.get().expect("it serves").clients();
            let pid = |client: &urpc::Peer| client.credentials().pid;
            clients.iter().map(pid).collect::<Vec<_>>()
        })
}

/// Serves a name, and does what its parent says. The argument is `PROCESSORS NAME`.
fn server(argument: &str) {
    let (processors, name) = argument.split_once(' ').unwrap();
    let rt = runtime(processors.parse().unwrap());
    let bind = async { offer(urpc::serve(name)).bind().unwrap() };
    let server = SERVER.get_or_init(|| rt.block_on(bind));
    let (shutting_down, shutdown) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            say("ready", "");
            for_each_line(|line| match line.split_once(' ') {
                Some(("shutdown", ms)) => {
                    let within = Duration::from_millis(ms.parse().unwrap());
                    let task = rt.spawn(async move { server.shutdown(within).await });
                    shutting_down.send(task).unwrap();
                }
                _ => drop(RELEASE.notify(usize::MAX)),
            });
            std::process::exit(0);
        });
        rt.block_on(server.run()).unwrap();
        match rt.block_on(shutdown.recv().unwrap()).unwrap() {
            Ok(()) => say("ended", "in order"),
            Err(error) => say("ended", format!("{:?} {error}", error.kind())),
        }
    });
}

/// Connects to its argument and adds up, 2,000 times 1.
fn client(argument: &str) {
    runtime(1).block_on(async {
        let peer = urpc::connect(argument).await.unwrap();
        say("ready", "");
        let add = peer.procedure::<u64, u64>("add");
        for _ in 0..50 {
            let calls = (0..40).map(|_| add.call(1));
            for sum in futures::future::join_all(calls).await {
                sum.unwrap();
            }
        }
        say("done", "");
        urpc::unblock(until_told_to_end).await;
    });
}

/// Serves its parent over its standard input.
fn inherits(argument: &str) {
    let socket: OwnedFd = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    runtime(argument.parse().unwrap()).block_on(async {
        let server = offer(urpc::serve_fd(socket)).bind().unwrap();
        let server = SERVER.get_or_init(|| server);
        say("ready", "");
        server.run().await.unwrap();
        say("ended", "");
    });
}

/// Calls its parent over its standard input.
fn inherits_client(argument: &str) {
    let socket: OwnedFd = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    say("ready", "");
    runtime(argument.parse().unwrap()).block_on(async {
        let peer = urpc::connect_fd(socket).await.unwrap();
        let answer: u64 = urpc::call(&peer, "double", 21u64).await.unwrap();
        say("answer", answer);
    });
}

/// Connects to its argument, and says nothing.
fn silent(name: &str) {
    let _socket = UnixStream::connect(name).unwrap();
    say("ready", "");
    until_told_to_end();
}

#[test]
fn several_clients_are_served_at_once() {
    let _watchdog = watchdog();
    for processors in [2, 1, 0] {
        let names = Names::new();
        let name = names.name("server");
        let server = Process::start("server", &format!("{processors} {name}"));
        let mut clients: Vec<_> = (0..4).map(|_| Process::start("client", &name)).collect();
        for client in &mut clients {
            client.expect("done");
        }
        let rt = runtime(1);
        let peer = rt.block_on(urpc::connect(&name)).unwrap();
        let sum: u64 = rt.block_on(urpc::call(&peer, "add", 0u64)).unwrap();
        assert_eq!(sum, 8000);

        let mut bound: Vec<i32> = clients.iter().map(|client| client.pid() as i32).collect();
        bound.push(std::process::id() as i32);
        bound.sort_unstable();
        let now_bound = || {
            let clients = urpc::call::<Vec<i32>>(&peer, "clients", ());
            let mut pids = rt.block_on(clients).unwrap();
            pids.sort_unstable();
            pids
        };
        assert_eq!(now_bound(), bound);
        clients.into_iter().for_each(Process::finish);
        wait_for("the clients to be gone", || {
            now_bound() == [std::process::id() as i32]
        });
        drop((peer, rt, server));
    }
}

#[test]
fn a_parent_is_served_by_its_child_over_an_inherited_socket() {
    let _watchdog = watchdog();
    for processors in [1, 0] {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut child = Process::start_with("inherits", &processors.to_string(), |command| {
            command.stdin(Stdio::from(OwnedFd::from(theirs)));
        });
        let rt = runtime(1);
        rt.block_on(async {
            let peer = urpc::connect_fd(ours).await.unwrap();
            assert_eq!(peer.credentials().pid, child.pid() as i32);
            for n in 1..=100u64 {
                let sum: u64 = urpc::call(&peer, "add", 1u64).await.unwrap();
                assert_eq!(sum, n);
            }
            let clients: Vec<i32> = urpc::call(&peer, "clients", ()).await.unwrap();
            assert_eq!(clients, [std::process::id() as i32]);
        });
        // Its only peer is gone, and so `run` ends.
        child.expect("ended");
        child.finish();
    }
}

#[test]
fn a_child_is_served_by_its_parent_over_an_inherited_socket() {
    let _watchdog = watchdog();
    for (parents, childs) in [(1, 1), (0, 1), (1, 0), (0, 0)] {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let rt = runtime(parents);
        let server = rt.block_on(async {
            urpc::serve_fd(ours)
                .method("double", |n: u64| async move { 2 * n })
                .bind()
                .unwrap()
        });
        let run = rt.spawn(async move { server.run().await });
        let mut child = Process::start_with("inherits client", &childs.to_string(), |command| {
            command.stdin(Stdio::from(OwnedFd::from(theirs)));
        });
        assert_eq!(child.expect("answer"), "42");
        child.finish();
        rt.block_on(run).unwrap().unwrap();
    }
}

/// Waits for the end of a server whose peer is not bound; both are told why.
async fn ends(server: &Server, peer: &UnixStream, kind: ErrorKind, why: &str) {
    let error = server.run().await.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    for text in [error.to_string(), raw::refusal(peer)] {
        assert!(text.contains(why), "`{why}` is not in: {text}");
    }
}

#[test]
fn a_server_of_one_socket_ends_if_its_peer_says_nothing() {
    let _watch = watchdog();
    let names = Names::new();
    let name = names.name("s");
    let rt = Runtime::builder().processors(1).max_unbound(2);
    let rt = rt.build().unwrap();
    rt.block_on(async {
        let [(first, evicted), (second, late)] = [(); 2].map(|()| {
            let (peer, socket) = UnixStream::pair().unwrap();
            (peer, offer(urpc::serve_fd(socket)).bind().unwrap())
        });
        let _named = offer(urpc::serve(&*name)).bind().unwrap();
        let another = Process::start("silent", &name);
        ends(&evicted, &first, ErrorKind::Overloaded, "too many others").await;
        ends(&late, &second, ErrorKind::Handshake, "within 5s").await;
        another.finish();
    });
}

#[test]
fn a_server_ends_with_its_runtime_and_its_name_is_free() {
    let _watch = watchdog();
    let names = Names::new();
    let name = names.name("s");
    let (ended, rt) = (runtime(1), runtime(1));
    let (silent, socket) = UnixStream::pair().unwrap();
    let [server, unmet] = ended.block_on(async {
        let servers = [urpc::serve(&*name), urpc::serve_fd(socket)];
        servers.map(|server| offer(server).bind().unwrap())
    });
    drop(ended);
    rt.block_on(async {
        server.run().await.unwrap();
        ends(
            &unmet,
            &silent,
            ErrorKind::Shutdown,
            "its runtime has ended",
        )
        .await;
        let error = urpc::connect(&*name).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoServer, "{error}");
        let _again = offer(urpc::serve(&*name)).bind().unwrap();
        drop(server);
        urpc::connect(&*name).await.unwrap();
    });
}

#[test]
fn a_server_of_one_socket_that_ends_leaves_the_others_listening() {
    let _watch = watchdog();
    let names = Names::new();
    let name = names.name("s");
    let rt = runtime(1);
    rt.block_on(async {
        let _named = offer(urpc::serve(&*name)).bind().unwrap();
        let (_peer, socket) = UnixStream::pair().unwrap();
        drop(offer(urpc::serve_fd(socket)).bind().unwrap());
        urpc::connect(&*name).await.unwrap();
    });
}

#[test]
fn a_shutdown_drains_the_calls_in_progress_and_refuses_new_ones() {
    let _watchdog = watchdog();
    for processors in [1, 0] {
        let names = Names::new();
        let name = names.name("server");
        let mut server = Process::start("server", &format!("{processors} {name}"));
        let rt = runtime(1);
        let peer = rt.block_on(urpc::connect(&name)).unwrap();
        let holding: Vec<_> = (0..10u64)
            .map(|n| rt.spawn(urpc::call::<u64>(&peer, "hold", n)))
            .collect();
        for _ in 0..10 {
            server.expect("holds");
        }
        server.tell("shutdown 30000");
        let mut refused = None;
        wait_for("a call to be refused", || {
            refused = rt.block_on(urpc::call::<u64>(&peer, "add", 1u64)).err();
            refused.is_some()
        });
        let refused = refused.unwrap();
        assert_eq!(refused.kind(), CallErrorKind::ShuttingDown);
        assert_eq!(refused.executed(), Executed::No);
        let error = rt.block_on(urpc::connect(&name)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoServer, "{error}");

        assert!(!peer.is_closed(), "calls are still being served");
        server.tell("release");
        for (n, call) in (0..).zip(holding) {
            assert_eq!(rt.block_on(call).unwrap().unwrap(), n);
        }
        assert_eq!(server.expect("ended"), "in order");
        rt.block_on(peer.closed());
        let error = rt
            .block_on(urpc::call::<u64>(&peer, "add", 1u64))
            .unwrap_err();
        assert_eq!(error.kind(), CallErrorKind::Closed);
        assert_eq!(error.executed(), Executed::No);
        server.finish();
    }
}

#[test]
fn a_shutdown_may_take_as_long_as_it_takes() {
    let _watch = watchdog();
    let names = Names::new();
    let rt = runtime(1);
    let bind = async { offer(urpc::serve(names.name("s"))).bind().unwrap() };
    let server = rt.block_on(bind);
    rt.block_on(server.shutdown(Duration::MAX)).unwrap();
}

#[test]
fn a_shutdown_that_runs_out_of_time_says_what_may_have_run() {
    let _watchdog = watchdog();
    for processors in [1, 0] {
        let names = Names::new();
        let name = names.name("server");
        let mut server = Process::start("server", &format!("{processors} {name}"));
        let rt = runtime(1);
        let peer = rt.block_on(urpc::connect(&name)).unwrap();
        let holding: Vec<_> = (0..3u64)
            .map(|n| rt.spawn(urpc::call::<u64>(&peer, "hold", n)))
            .collect();
        for _ in 0..3 {
            server.expect("holds");
        }
        server.tell("shutdown 20");
        let said = server.expect("ended");
        assert!(
            said.starts_with("Shutdown") && said.contains("3 calls"),
            "{said}"
        );
        for call in holding {
            let error = rt.block_on(call).unwrap().unwrap_err();
            assert_eq!(error.executed(), Executed::Maybe, "{error}");
        }
        drop(rt);
        server.finish();
    }
}

roles! {
    "server" => server,
    "client" => client,
    "inherits" => inherits,
    "inherits client" => inherits_client,
    "silent" => silent,
}
