//! A peer that asks for attention all the time, for nothing, is looked at now and then, and whoever breaks the
//! protocol again and again waits at the door: nobody else notices, and what it asks for in earnest, it gets.
#[macro_use]
mod common;
#[path = "common/kit.rs"]
mod kit;
#[path = "common/raw.rs"]
mod raw;

use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use common::{Names, Process, runtime, say, serve, wait_for, watchdog};
use kit::{Hostile, REPLY};
use raw::{Bound, Shown};
use rustix::net::{RecvFlags, recv};
use urpc::{CallErrorKind, Executed};
use urpc_channel::UnsealedWakePage;

/// Number of the server's procedure.
const DOUBLE: u16 = 0;
/// For so long something is tried in vain before it counts as left alone: longer than a thread needs that is woken each
/// time, and shorter than the pauses that a flood leads to, by so much that a crowded machine does not matter.
const LONG: Duration = Duration::from_millis(50);

fn server(argument: &str) {
    serve(argument, |server, _| {
        server.method("double", |n: u32| async move { 2 * n })
    });
}

/// Binds to `NAME` and calls it, once for each line of its input.
fn client(name: &str) {
    let rt = runtime(1);
    say("ready", "");
    common::for_each_line(|_| {
        let doubled = rt.block_on(async {
            let peer = urpc::connect(name).await.unwrap();
            urpc::call::<u32>(&peer, "double", 4u32).await
        });
        say("doubled", doubled.unwrap());
    });
}

/// Honest calls, from now until `attack` is over.
fn beside_an_honest_client(name: &str, attack: impl FnOnce()) {
    let (over, begun) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|s| {
        s.spawn(|| {
            runtime(1).block_on(async {
                let peer = urpc::connect(name).await.unwrap();
                for n in 0u32.. {
                    let doubled = urpc::call::<u32>(&peer, "double", n).await;
                    assert_eq!(doubled, Ok(n.wrapping_mul(2)));
                    begun.store(true, Relaxed);
                    if over.load(Relaxed) {
                        return;
                    }
                }
            });
        });
        wait_for("an honest call", || begun.load(Relaxed));
        attack();
        over.store(true, Relaxed);
    });
}

/// `is_ignored` says of one try whether the server has left it alone. In the end there is a call in earnest.
fn flood(processors: u32, mut is_ignored: impl FnMut(&Hostile) -> bool) {
    let _watch = watchdog();
    let names = Names::new();
    let name = names.name("s");
    let server = Process::start("server", &format!("{processors} {name}"));
    beside_an_honest_client(&name, || {
        let mut hostile = Hostile::connect(&name).unwrap();
        wait_for("its landing", || {
            hostile.bound.inbox.returned(0).load(Relaxed) > 0
        });
        let mut noticed = Instant::now();
        wait_for("the server to look away", || {
            for _ in 0..1000 {
                if !is_ignored(&hostile) {
                    noticed = Instant::now();
                }
            }
            noticed.elapsed() >= LONG
        });
        hostile.call(7, DOUBLE, b"\x15");
        hostile.grant(1);
        wait_for("its call to be answered", || {
            hostile.ring();
            hostile.bound.inbox.word(Hostile::slot(0)) != 0
        });
        assert!(!hostile.is_hung_up());
    });
    server.finish();
}

#[test]
fn a_peer_that_rings_without_end_is_not_heard_for_a_while() {
    for processors in [1, 0] {
        flood(processors, |hostile| !hostile.ring());
    }
}

#[test]
fn a_peer_that_grants_without_end_is_not_believed_for_a_while() {
    for processors in [1, 0] {
        let mut answered = 0;
        flood(processors, |hostile| {
            hostile.grant(1);
            let before = answered;
            answered = hostile.bound.inbox.returned(0).load(Relaxed);
            answered == before
        });
    }
}

/// A connection that has said its hello; and what must stay until it is answered.
fn hello(name: &str) -> (UnixStream, Shown, UnsealedWakePage) {
    let socket = UnixStream::connect(name).unwrap();
    let (shown, wakes) = (Shown::new(), UnsealedWakePage::create().unwrap());
    assert!(shown.say_hello(Some(&wakes), &socket, &[]));
    (socket, shown, wakes)
}

fn is_answered(socket: &UnixStream) -> bool {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    recv(socket, &mut [0u8], flags) != Err(rustix::io::Errno::AGAIN)
}

#[test]
fn who_breaks_the_protocol_again_and_again_waits_at_the_door_and_nobody_else_does() {
    let _watch = watchdog();
    let names = Names::new();
    let name = names.name("s");
    let server = Process::start("server", &format!("1 {name}"));
    let mut client = Process::start("client", &name);
    wait_for("another one to be served first", || {
        let mut hostile = Hostile::connect(&name).expect("it is let in, sooner or later");
        hostile.forge(REPLY, 0, 0, &[1 << 16]);
        wait_for("it to be found out", || {
            hostile.ring();
            hostile.is_hung_up()
        });
        let (socket, _shown, _wakes) = hello(&name);
        client.tell("call");
        assert_eq!(client.expect("doubled"), "8");
        let waits = !is_answered(&socket);
        wait_for("it to be let in after all", || is_answered(&socket));
        waits
    });
    client.finish();
    server.finish();
}

#[test]
fn a_violation_is_named_to_the_calls_that_it_ends_and_ends_no_others() {
    let _watch = watchdog();
    let names = Names::new();
    let (name, hostile) = (names.name("s"), names.name("hostile"));
    let server = Process::start("server", &format!("1 {name}"));
    let listener = UnixListener::bind(&hostile).unwrap();
    let rt = runtime(1);
    let answer_to_no_call = std::thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        let mut hostile = Hostile::from(Bound::accept(socket, &[("double", "")]).unwrap());
        wait_for("a call", || hostile.bound.inbox.word(Hostile::slot(0)) != 0);
        hostile.forge(REPLY, 0, 0, &[99 << 16]);
        wait_for("it to be found out", || {
            hostile.ring();
            hostile.is_hung_up()
        });
    });
    rt.block_on(async {
        let hostile = urpc::connect(&hostile).await.unwrap();
        let honest = urpc::connect(&name).await.unwrap();
        let ended = urpc::call::<u32>(&hostile, "double", 1u32).await;
        let error = ended.unwrap_err();
        assert_eq!(
            (error.kind(), error.executed()),
            (CallErrorKind::Closed, Executed::Maybe)
        );
        let text = error.to_string();
        assert!(
            text.contains("it broke the protocol: ") && text.contains("no call"),
            "{text}"
        );
        assert_eq!(urpc::call::<u32>(&honest, "double", 1u32).await, Ok(2));
    });
    answer_to_no_call.join().unwrap();
    server.finish();
}

roles! { "server" => server, "client" => client }
