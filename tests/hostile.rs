//! A peer that keeps to no rule spoils its own calls, and nothing else: no crash, no hang, and honest
//! peers of the same process notice nothing.
//!
//! The hostile side is in the test's process, the honest ones are children whose panics are fatal, so
//! that none goes unseen.
#[macro_use]
mod common;
#[path = "common/kit.rs"]
mod kit;
#[path = "common/raw.rs"]
mod raw;

use std::future::pending;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use common::{
    Names, Process, panics_are_fatal, runtime, say, serve, until_told_to_end, wait_for, watchdog,
};
use kit::Hostile;
use raw::{Bound, Random, Shown, Vandal};
use urpc::{CallErrorKind, Peer};
use urpc_channel::{Body, Channel, Kind, Message};

/// What is written in each of the two attacks on a server, and to one channel at most; and how many channels there
/// are, at most: for each there is a wait at the door.
const STRIKES: u32 = 100_000;
const STRIKES_EACH: u32 = 2_000;
const CHANNELS: u32 = 150;

fn server(argument: &str) {
    panics_are_fatal();
    serve(argument, |server, _| {
        server
            .method("len", |bytes: Vec<u8>| async move { bytes.len() })
            .method("hold", |(): ()| pending::<()>())
            .method("reverse", |text: String| async move {
                urpc::yield_now().await;
                text.chars().rev().collect::<String>()
            })
            .method("back", |n: u32| async move {
                let caller = urpc::caller().expect("this is a handler").peer();
                let asked = urpc::call::<u32>(&caller, "back", n);
                asked.timeout(Duration::from_millis(5)).await.is_ok()
            })
    });
}

/// Calls whoever serves `NAME`, however often it is cut off, until it has called so many times.
fn client(argument: &str) {
    panics_are_fatal();
    let (name, calls) = argument.split_once(' ').unwrap();
    let calls: u32 = calls.parse().unwrap();
    say("ready", "");
    let (mut values, mut errors) = (0, 0);
    runtime(1).block_on(async {
        while values + errors < calls {
            let Ok(peer) = urpc::connect(name).await else {
                continue;
            };
            while values + errors < calls && !peer.is_closed() {
                let large = (values + errors) % 8 == 0;
                let bytes = vec![7u8; if large { 50_000 } else { 10 }];
                let call = urpc::call::<u64>(&peer, "len", bytes);
                match call.timeout(Duration::from_millis(20)).await {
                    Ok(_) => values += 1,
                    Err(error) => {
                        assert!(error.to_string().contains("`len`"), "{error}");
                        errors += 1;
                    }
                }
            }
        }
    });
    say("values", values);
    say("errors", errors);
    until_told_to_end();
}

async fn honest(peer: &Peer) {
    let reversed: String = urpc::call(peer, "reverse", "abc").await.unwrap();
    assert_eq!(reversed, "cba");
    let len: usize = urpc::call(peer, "len", vec![1u8; 1000]).await.unwrap();
    assert_eq!(len, 1000);
}

/// Honest calls, from now until `attack` is over. Says how many.
fn with_an_honest_client(name: &str, attack: impl FnOnce()) -> u32 {
    let over = AtomicBool::new(false);
    std::thread::scope(|s| {
        let calls = s.spawn(|| {
            runtime(1).block_on(async {
                let peer = urpc::connect(name).await.unwrap();
                let mut calls = 0;
                while !over.load(Relaxed) {
                    honest(&peer).await;
                    calls += 2;
                }
                calls
            })
        });
        attack();
        over.store(true, Relaxed);
        calls.join().unwrap()
    })
}

/// Spoils one channel until the peer has enough. Says how often it struck.
fn spoil(bound: &Bound, vandal: &mut Vandal) -> u32 {
    vandal.begin();
    let mut struck = 0;
    while struck < STRIKES_EACH && !raw::is_hung_up(&bound.socket) {
        for _ in 0..1 + vandal.random.below(100) {
            vandal.strike(bound);
            struck += 1;
        }
        raw::ring(&bound.socket);
        std::thread::yield_now();
    }
    struck
}

fn vandalize_a_server(processors: u32, seed: u64) {
    let _watch = watchdog();
    let names = Names::new();
    let name = names.name("s");
    let server = Process::start("server", &format!("{processors} {name}"));
    let mut vandal = Vandal::new(seed);
    let (mut struck, mut channels) = (0, 0);
    let calls = with_an_honest_client(&name, || {
        while struck < STRIKES && channels < CHANNELS {
            let bound = Bound::connect(&name).expect("the server takes whoever says hello");
            struck += spoil(&bound, &mut vandal);
            channels += 1;
        }
    });
    println!("{struck} strikes on {channels} channels during {calls} honest calls");
    assert!(calls > 0 && channels > 1);
    runtime(1).block_on(async { honest(&urpc::connect(&name).await.unwrap()).await });
    server.finish();
}

#[test]
fn a_vandal_spoils_nobody_elses_calls() {
    vandalize_a_server(1, 0x9e37_79b9_7f4a_7c15);
}

#[test]
fn a_vandal_spoils_nobody_elses_calls_of_a_server_without_processors() {
    vandalize_a_server(0, 0x2545_f491_4f6c_dd1d);
}

/// Serves one client after another as `serve` does, while it makes 300 calls. Says how many of them got
/// a value, and how many an error.
fn called_by_a_client(mut serve: impl FnMut(Bound) + Send) -> (u32, u32) {
    let names = Names::new();
    let name = names.name("hostile");
    let listener = UnixListener::bind(&name).unwrap();
    let mut client = Process::start("client", &format!("{name} 300"));
    let over = AtomicBool::new(false);
    let ends = std::thread::scope(|s| {
        s.spawn(|| {
            for socket in listener.incoming() {
                if over.load(Relaxed) {
                    return;
                }
                if let Some(bound) = Bound::accept(socket.unwrap(), &[("len", "")]) {
                    serve(bound);
                }
            }
        });
        let values = client.expect("values").parse().unwrap();
        let errors = client.expect("errors").parse().unwrap();
        over.store(true, Relaxed);
        drop(UnixStream::connect(&name));
        (values, errors)
    });
    client.finish();
    ends
}

#[test]
fn every_call_of_a_vandal_ends_with_an_error() {
    let _watch = watchdog();
    let mut vandal = Vandal::new(0xd1b5_4a32_d192_ed03);
    let (values, errors) = called_by_a_client(|bound| {
        spoil(&bound, &mut vandal);
    });
    println!("{values} values, {errors} errors");
    assert!(values + errors >= 300 && errors > 0);
}

#[test]
fn every_call_of_a_server_that_answers_anything_ends_with_a_value_or_an_error() {
    let _watch = watchdog();
    let mut random = Random(0x853c_49e6_748f_ea9b);
    let (values, errors) = called_by_a_client(|bound| {
        let (channel, socket, _pages) = bound.speak();
        while !raw::is_hung_up(&socket) {
            let mut calls = Vec::new();
            channel.receive(1, |message| calls.push(message)).unwrap();
            for Message { id, kind, body, .. } in calls {
                channel.freed(body.window_bytes());
                if kind == Kind::Cancel {
                    continue;
                }
                let (other, status) = (random.next() as u32, random.below(12) as u16);
                let answers: &[Message] = match random.below(40) {
                    0 => &[], // its caller gives up
                    1 => &[message(Kind::Reply, other, 0, b"\x01")],
                    2 => &[message(Kind::Failed, id, status, b"\xff\0")],
                    3 => &[message(Kind::Reply, id, 0, b"\x01 surplus")],
                    4 => &[message(Kind::Reply, id, 0, b"\xff")],
                    5 => &[
                        message(Kind::Reply, id, 0, b"\x01"),
                        message(Kind::Reply, id, 0, b"\x01"),
                    ],
                    6 => &[message(Kind::Call, id, 7, b"and you?")],
                    _ => &[message(Kind::Reply, id, 0, b"\x01")],
                };
                for answer in answers {
                    channel.send(answer.clone()).unwrap();
                }
            }
            raw::ring(&socket);
            std::thread::yield_now();
        }
    });
    println!("{values} values, {errors} errors");
    assert!(values > 0 && errors > 0);
}

fn message(kind: Kind, id: u32, procedure: u16, body: &[u8]) -> Message {
    Message {
        kind,
        id,
        procedure,
        deadline_ms: 0,
        body: Body::from_slice(body),
    }
}

/// The next message from an honest peer.
fn next(channel: &Channel) -> Message {
    let mut got = None;
    wait_for("an answer", || {
        channel.receive(1, |message| got = Some(message)).unwrap();
        got.is_some()
    });
    got.unwrap()
}

#[test]
fn messages_that_break_the_protocol_close_the_channel_and_no_other() {
    let _watch = watchdog();
    let names = Names::new();
    let name = names.name("s");
    let server = Process::start("server", &format!("1 {name}"));
    let hold = 1;
    let cases: [(&str, &[Message]); 8] = [
        (
            "a reply to no call",
            &[message(Kind::Reply, 1 << 16, 0, b"")],
        ),
        ("a failure of no call", &[message(Kind::Failed, 0, 4, b"")]),
        ("no status", &[message(Kind::Failed, 0, 99, b"")]),
        (
            "an id beyond the credit",
            &[message(Kind::Call, 1024, hold, b"")],
        ),
        (
            "the same id twice",
            &[
                message(Kind::Call, 5, hold, b""),
                message(Kind::Call, 5, hold, b""),
            ],
        ),
        (
            "the same index twice",
            &[
                message(Kind::Call, 5, hold, b""),
                message(Kind::Call, 1 << 16 | 5, hold, b""),
            ],
        ),
        (
            "large, to no call",
            &[message(Kind::Reply, 0, 0, &[7; 1000])],
        ),
        (
            "the beginning of a large one, to no call",
            &[message(Kind::Reply, 0, 0, &[7; 100_000])],
        ),
    ];
    let calls = with_an_honest_client(&name, || {
        for (what, messages) in cases {
            let (channel, socket, _pages) = Bound::connect(&name).unwrap().speak();
            for message in messages {
                let bytes = message.body.window_bytes();
                assert!(channel.try_reserve(bytes).unwrap());
                channel.send(message.clone()).unwrap();
            }
            raw::ring(&socket);
            wait_for(what, || raw::is_hung_up(&socket));
        }
    });
    assert!(calls > 0);
    server.finish();
}

#[test]
fn what_is_only_odd_is_answered_or_ignored() {
    let _watch = watchdog();
    let names = Names::new();
    let name = names.name("s");
    let server = Process::start("server", &format!("1 {name}"));
    let (channel, socket, _pages) = Bound::connect(&name).unwrap().speak();
    let send = |message: Message| {
        channel.send(message).unwrap();
        raw::ring(&socket);
    };
    // Nothing of this is a call that anybody waits for.
    send(message(Kind::Cancel, 77, 0, b""));
    send(message(Kind::Cancel, u32::MAX, 9, b"for no reason"));
    send(message(Kind::Goodbye, 3, 3, b"and yet"));
    let odd = [
        (999, b"".as_slice(), 1, "procedure"),
        (0, b"\xff\xff\xff\xff\xff\xff", 2, "decoded"),
        (2, b"\x02\xff\xfe", 2, "decoded"),
        (2, b"\x01a surplus", 3, "left over"),
    ];
    for (procedure, body, status, word) in odd {
        send(message(Kind::Call, 7, procedure, body));
        let answer = next(&channel);
        assert_eq!((answer.kind, answer.id), (Kind::Failed, 7));
        assert_eq!(answer.procedure, status);
        let text = String::from_utf8(answer.body.as_slice().to_vec()).unwrap();
        assert!(text.contains(word), "`{word}` is not in: {text}");
        channel.freed(answer.body.window_bytes());
    }
    send(message(Kind::Call, 8, 2, b"\x03abc"));
    let answer = next(&channel);
    assert_eq!((answer.kind, answer.id), (Kind::Reply, 8));
    assert_eq!(answer.body.as_slice(), b"\x03cba");
    assert!(!raw::is_hung_up(&socket));
    server.finish();
}

#[test]
fn a_client_that_takes_no_replies_keeps_nobody_else_from_theirs() {
    let _watch = watchdog();
    let names = Names::new();
    let name = names.name("s");
    let server = Process::start("server", &format!("1 {name}"));
    let calls = with_an_honest_client(&name, || {
        let (channel, socket, _pages) = Bound::connect(&name).unwrap().speak();
        for id in 0..1024 {
            channel
                .send(message(Kind::Call, id, 0, b"\x01\x07"))
                .unwrap();
        }
        wait_for("all of it to be taken", || {
            raw::ring(&socket);
            channel.flush() && !channel.unread_by_peer()
        });
        runtime(1).block_on(async {
            let peer = urpc::connect(&name).await.unwrap();
            honest(&peer).await;
            // Its own calls in the wrong direction do not hang, either.
            let back = urpc::call::<bool>(&peer, "back", 1u32).await;
            assert!(!back.unwrap(), "this side offers nothing");
            let unknown = urpc::call::<()>(&peer, "nothing", ()).await.unwrap_err();
            assert_eq!(unknown.kind(), CallErrorKind::UnknownProcedure);
        });
        assert!(!raw::is_hung_up(&socket));
        // And once it takes them, all are there.
        let mut ids: Vec<_> = (0..1024)
            .map(|_| {
                raw::ring(&socket);
                next(&channel).id
            })
            .collect();
        ids.sort_unstable();
        assert!(ids.into_iter().eq(0..1024));
    });
    assert!(calls > 0);
    server.finish();
}

#[test]
fn a_replayed_call_closes_its_channel_while_words_change_and_rings_come_without_end() {
    let _watch = watchdog();
    let names = Names::new();
    let name = names.name("s");
    let server = Process::start("server", &format!("1 {name}"));
    let calls = with_an_honest_client(&name, || {
        for _ in 0..20 {
            let mut hostile = Hostile::connect(&name).unwrap();
            let (hold, len) = (1, 0);
            // One that is answered may come again: its id is free.
            for _ in 0..3 {
                hostile.call(7, len, b"\x01\x07");
                let taken = hostile.taken() + 1;
                wait_for("a call to be taken", || {
                    hostile.ring();
                    hostile.taken() >= taken || hostile.is_hung_up()
                });
            }
            hostile.call(9, hold, b"");
            hostile.replay(1);
            let presence = |shown: &Shown| shown.page.word(1).store(fastrand::u32(..), Relaxed);
            hostile.meanwhile(presence, || {
                wait_for("it to have enough", || {
                    hostile.ring();
                    hostile.is_hung_up()
                });
            });
        }
    });
    assert!(calls > 0);
    server.finish();
}

/// A server that leaves its socket to a child, and then waits to be killed.
fn testator(name: &str) {
    let listener = UnixListener::bind(name).unwrap();
    say("ready", "");
    let (socket, _) = listener.accept().unwrap();
    let hostile = Hostile::from(Bound::accept(socket, &[("len", "")]).unwrap());
    say("left", hostile.leave_to_a_child());
    until_told_to_end();
}

#[test]
fn calls_of_a_dead_server_end_although_its_child_keeps_the_socket() {
    let _watch = watchdog();
    let names = Names::new();
    let name = names.name("s");
    let mut server = Process::start("testator", &name);
    let rt = runtime(1);
    let peer = rt.block_on(urpc::connect(&name)).unwrap();
    let call = rt.spawn(urpc::call::<u64>(&peer, "len", vec![7u8; 10]));
    let heir = server.expect("left");
    let killed = std::time::Instant::now();
    server.kill();
    let lives = std::path::Path::new("/proc").join(heir).exists();
    let error = rt.block_on(call).unwrap().unwrap_err();
    assert!(lives, "its child was there when it died");
    assert_eq!(error.kind(), CallErrorKind::Closed, "{error}");
    println!("{:?} after the death", killed.elapsed());
}

roles! { "server" => server, "client" => client, "testator" => testator }
