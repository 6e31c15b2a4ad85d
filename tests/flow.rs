//! More calls, and more bytes, than there is room for: callers wait at home, nobody locks up, and the
//! small ones get through between the large.
#[macro_use]
mod common;
#[path = "common/raw.rs"]
mod raw;

use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::{Names, Process, for_each_line, runtime, say, wait_for, watchdog};
use event_listener::Event;
use futures::future::join_all;
use urpc::Peer;
use urpc_channel::Message;

/// What the library promises by default: calls that one client may have under way at a server.
const CREDIT: u64 = 1024;

static LIVE: AtomicU64 = AtomicU64::new(0);
static MOST: AtomicU64 = AtomicU64::new(0);
static OPEN: AtomicBool = AtomicBool::new(false);
static OPENED: Event = Event::new();

/// A caller held until the gate is open.
async fn hold(n: u64) -> u64 {
    let live = LIVE.fetch_add(1, Ordering::SeqCst) + 1;
    MOST.fetch_max(live, Ordering::SeqCst);
    if live == CREDIT && !OPEN.load(Ordering::SeqCst) {
        say("full", "");
    }
    let opened = OPENED.listen();
    if !OPEN.load(Ordering::SeqCst) {
        opened.await;
    }
    urpc::yield_now().await;
    LIVE.fetch_sub(1, Ordering::SeqCst);
    n
}

/// Calls its caller `calls` times at once, small and large ones. Says how many were answered rightly.
async fn flood(peer: Peer, calls: usize) -> usize {
    let call = |n: usize| {
        let text = text(n);
        let peer = &peer;
        async move {
            let back: String = urpc::call(peer, "echo", &text).await.unwrap();
            usize::from(back == text)
        }
    };
    join_all((0..calls).map(call)).await.into_iter().sum()
}

/// Texts of all kinds of sizes: none, within a slot, within one piece, of several pieces.
fn text(n: usize) -> String {
    let len = [0, 8, 40, 60, 3000, 20_000, 100_000][n % 7];
    format!("{n}{}", ".".repeat(len))
}

/// The argument is `PROCESSORS NAME`.
fn server(argument: &str) {
    let (processors, name) = argument.split_once(' ').unwrap();
    let rt = runtime(processors.parse().unwrap());
    let _server = rt.block_on(async {
        urpc::serve(name)
            .method("hold", hold)
            .method("most", |()| async { MOST.load(Ordering::SeqCst) })
            .method("double", |n: u64| async move { 2 * n })
            .method("echo", |text: String| async move { text })
            .method("echo later", |text: String| async move {
                urpc::yield_now().await;
                text
            })
            .method("keep", |_: String| std::future::pending::<String>())
            .method("flood", |calls: usize| async move {
                let caller = urpc::caller().expect("this is a handler").peer();
                flood(caller, calls).await
            })
            .bind()
            .unwrap()
    });
    say("ready", "");
    for_each_line(|_| {
        OPEN.store(true, Ordering::SeqCst);
        OPENED.notify(usize::MAX);
    });
}

fn start(names: &Names, processors: usize) -> (Process, String) {
    let name = names.name("server");
    let server = Process::start("server", &format!("{processors} {name}"));
    (server, name)
}

#[test]
fn ten_thousand_callers_wait_while_the_server_holds_its_credit() {
    let _watchdog = watchdog();
    for processors in [1, 0] {
        let names = Names::new();
        let (mut server, name) = start(&names, processors);
        let rt = runtime(1);
        let peer = rt.block_on(urpc::connect(&name)).unwrap();
        let begun = Arc::new(AtomicU64::new(0));
        let hold = peer.procedure::<u64, u64>("hold");
        let callers: Vec<_> = (0..10_000)
            .map(|n| {
                let (hold, begun) = (hold.clone(), Arc::clone(&begun));
                rt.spawn(async move {
                    begun.fetch_add(1, Ordering::Relaxed);
                    hold.call(n).await
                })
            })
            .collect();
        server.expect("full");
        wait_for("all to call", || begun.load(Ordering::Relaxed) == 10_000);
        server.tell("open");
        rt.block_on(async {
            for (n, caller) in (0..).zip(callers) {
                assert_eq!(caller.await.unwrap().unwrap(), n);
            }
            let most: u64 = urpc::call(&peer, "most", ()).await.unwrap();
            assert_eq!(most, CREDIT);
            assert_eq!(peer.stats().calls, 10_001);
        });
        drop(rt);
        server.finish();
    }
}

#[test]
fn two_processes_that_flood_each_other_both_get_through() {
    let _watchdog = watchdog();
    for (clients, servers) in [(1, 1), (1, 0), (2, 2)] {
        let names = Names::new();
        let (server, name) = start(&names, servers);
        runtime(clients).block_on(async {
            let peer = urpc::connect(&name)
                .method("echo", |text: String| async move { text })
                .await
                .unwrap();
            let theirs = urpc::call::<usize>(&peer, "flood", 1500usize);
            let ours = flood(peer.clone(), 1500);
            let (theirs, ours) = futures::join!(theirs, ours);
            assert_eq!((theirs.unwrap(), ours), (1500, 1500));
            assert_eq!((peer.stats().calls, peer.stats().served), (1501, 1500));
        });
        server.finish();
    }
}

#[test]
fn large_messages_beyond_the_window_cross_both_ways() {
    let _watchdog = watchdog();
    for processors in [1, 0] {
        let names = Names::new();
        let (server, name) = start(&names, processors);
        runtime(1).block_on(async {
            let peer = urpc::connect(&name).await.unwrap();
            // The window has room for eight at most; the others wait for it, each way.
            let texts: Vec<String> = (0..32)
                .map(|n| format!("{n}{}", "m".repeat(1 << 20)))
                .collect();
            for echo in ["echo", "echo later"] {
                let calls = texts
                    .iter()
                    .map(|text| urpc::call::<String>(&peer, echo, text));
                for (text, back) in texts.iter().zip(join_all(calls).await) {
                    assert!(back.unwrap() == *text);
                }
            }
        });
        server.finish();
    }
}

#[test]
fn large_calls_given_up_half_sent_leave_the_channel_whole() {
    let _watchdog = watchdog();
    for processors in [1, 0] {
        let names = Names::new();
        let (server, name) = start(&names, processors);
        runtime(1).block_on(async {
            let peer = urpc::connect(&name).await.unwrap();
            let large = "l".repeat(1 << 20);
            for round in 0..100 {
                let call = || Box::pin(urpc::call::<String>(&peer, "echo later", &large));
                let mut calls = [call(), call(), call()];
                for call in &mut calls {
                    assert!(futures::poll!(call).is_pending());
                }
                let mut between = Vec::new();
                for _ in 0..round % 10 {
                    let small = urpc::call::<u64>(&peer, "double", 21u64);
                    between.push(small.await.unwrap());
                }
                assert!(between.iter().all(|&answer| answer == 42));
            }
            // All of the window is back: it takes the largest, several times over.
            let largest = "L".repeat((4 << 20) - 4);
            let calls = (0..6).map(|_| urpc::call::<String>(&peer, "echo", &largest));
            for back in join_all(calls).await {
                assert!(back.unwrap() == largest);
            }
        });
        server.finish();
    }
}

#[test]
fn many_tasks_call_from_two_processors_to_two() {
    let _watchdog = watchdog();
    let names = Names::new();
    let (server, name) = start(&names, 2);
    let rt = runtime(2);
    let peer = rt.block_on(urpc::connect(&name)).unwrap();
    let tasks: Vec<_> = (0..64u64)
        .map(|task| {
            let double = peer.procedure::<u64, u64>("double");
            rt.spawn(async move {
                let mut sum = 0;
                for n in 0..500 {
                    sum += double.call(task + n).await.unwrap();
                }
                sum
            })
        })
        .collect();
    rt.block_on(async {
        for (task, sum) in (0..).zip(tasks) {
            assert_eq!(sum.await.unwrap(), 2 * (500 * task + 499 * 500 / 2));
        }
    });
    assert_eq!(peer.stats().calls, 64 * 500);
    drop((peer, rt));
    server.finish();
}

#[test]
fn small_calls_go_through_between_large_ones() {
    let _watchdog = watchdog();
    for processors in [1, 0] {
        let names = Names::new();
        let (server, name) = start(&names, processors);
        runtime(1).block_on(async {
            let peer = urpc::connect(&name).await.unwrap();
            let stop = Arc::new(AtomicBool::new(false));
            let echoed = Arc::new(AtomicU64::new(0));
            let large: Vec<_> = (0..4)
                .map(|_| {
                    let (peer, stop, echoed) = (peer.clone(), stop.clone(), echoed.clone());
                    urpc::spawn(async move {
                        let text = "l".repeat(2 << 20);
                        while !stop.load(Ordering::Relaxed) {
                            let back: String = urpc::call(&peer, "echo", &text).await.unwrap();
                            assert_eq!(back.len(), text.len());
                            echoed.fetch_add(1, Ordering::Relaxed);
                        }
                    })
                })
                .collect();
            // From here on there are always some under way.
            while echoed.load(Ordering::Relaxed) == 0 {
                urpc::yield_now().await;
            }
            let before = echoed.load(Ordering::Relaxed);
            for n in 0..100u64 {
                let answer: u64 = urpc::call(&peer, "double", n).await.unwrap();
                assert_eq!(answer, 2 * n);
            }
            // In a queue with all of the large ones each small one would wait for four of them.
            let meanwhile = echoed.load(Ordering::Relaxed) - before;
            assert!(
                meanwhile <= 100,
                "{meanwhile} large ones went before 100 small ones"
            );
            stop.store(true, Ordering::Relaxed);
            for task in large {
                task.await.unwrap();
            }
        });
        server.finish();
    }
}

#[test]
fn a_call_that_waits_for_room_gets_it_also_when_its_worker_has_left() {
    const ROOM: usize = 16_384;
    let _w = watchdog();
    let names = Names::new();
    let name = names.name("s");
    let server = Process::start("server", &format!("1 {name}"));
    // No timer wakes anybody.
    let builder = urpc::Runtime::builder().call_deadline(Duration::MAX);
    let builder = builder.max_payload(ROOM as u32).max_window(ROOM as u64);
    let rt = builder.build().unwrap();
    let peer = rt.block_on(urpc::connect(&name)).unwrap();
    let text = ".".repeat(ROOM - 100);
    let [first, second] = rt.block_on(async {
        let calls = ["keep", "echo"].map(|what| {
            let call = urpc::call::<String>(&peer, what, &text);
            urpc::spawn(call)
        });
        // They begin, and one of them waits for the other. Nothing is looked for meanwhile.
        for _ in 0..3 {
            urpc::yield_now().await;
        }
        calls
    });
    assert_eq!(futures::executor::block_on(second).unwrap(), Ok(text));
    first.abort();
    drop((peer, rt));
    server.finish();
}

/// Where a process says that it waits for room.
const BLOCKED: usize = 192;

#[test]
fn a_call_from_outside_that_waits_for_room_is_not_forgotten_by_those_who_rest() {
    const ROOM: usize = 16_384;
    let _w = watchdog();
    for processors in [0, 1] {
        let names = Names::new();
        let name = names.name("s");
        let listener = UnixListener::bind(&name).unwrap();
        let server = std::thread::spawn(move || {
            let (socket, _) = listener.accept().unwrap();
            let bound = raw::Bound::accept(socket, &[("f", "")]).expect("it is let in");
            bound.shown.page.word(0).store(1, Ordering::Relaxed);
            bound
        });
        // No timer wakes anybody.
        let builder = urpc::Runtime::builder().processors(processors);
        let builder = builder.call_deadline(Duration::MAX);
        let builder = builder.max_payload(ROOM as u32).max_window(ROOM as u64);
        let rt = builder.build().unwrap();
        let peer = rt.block_on(urpc::connect(&name)).unwrap();
        let (channel, socket, (_page, peer_page, _)) = server.join().unwrap().speak();
        let call = || {
            let call = urpc::call::<()>(&peer, "f", ".".repeat(ROOM - 100));
            std::thread::spawn(|| futures::executor::block_on(call))
        };
        let mut bytes = 0;
        let mut receive = || {
            wait_for("a call", || {
                let each = |message: Message| bytes = message.body.window_bytes();
                channel.receive(1, each).unwrap() > 0
            });
            bytes
        };
        let first = call();
        let freed = receive();
        let count = |word| peer_page.word(word).load(Ordering::Relaxed) as usize;
        wait_for("all to rest", || count(1) + count(2) == processors);
        assert_eq!(channel.inbox().word(BLOCKED), 0);
        let second = call();
        wait_for("it to be said", || channel.inbox().word(BLOCKED) != 0);
        channel.freed(freed);
        if channel.peer_blocked() {
            assert!(raw::ring(&socket)); // else it has seen it on its way to rest
        }
        receive();
        drop((channel, socket));
        for call in [first, second] {
            call.join().unwrap().unwrap_err();
        }
    }
}

roles! { "server" => server }
