//! A peer that lies about its processors, or about those lent to it, costs whoever believes it a few of them, for
//! no longer than the grant limit, and is rung from then on.
#[macro_use]
mod common;
#[path = "common/raw.rs"]
mod raw;

use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use common::{Names, Process, runtime, serve, wait_for, watchdog};
use raw::Bound;
use urpc::{CallErrorKind, Stats};
use urpc_channel::{Body, Kind, Message};

/// Landings that one channel can have.
const LANDINGS: usize = 8;

/// Says of each landing that it has answered, be it what was granted last or just that it is there.
fn return_all(bound: &Bound) {
    for k in 0..LANDINGS {
        let granted = bound.inbox.grant(k).grant.load(Relaxed) >> 1;
        bound
            .shown
            .outbox
            .returned(k)
            .store(granted.max(1), Relaxed);
    }
}

/// Calls to a server that reads nothing, has no processor, and says that a landing waits; `lie` goes on meanwhile. What
/// is counted of it, and of all channels.
fn lend_to(lie: impl Fn(&Bound) + Sync) -> (Stats, Stats) {
    let names = Names::new();
    let name = names.name("s");
    let listener = UnixListener::bind(&name).unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            let (socket, _) = listener.accept().unwrap();
            let bound = Bound::accept(socket, &[("f", "")]).expect("it is let in");
            return_all(&bound);
            while !over.load(Relaxed) {
                lie(&bound);
            }
        });
        let rt = runtime(1);
        let stats = rt.block_on(async {
            let peer = urpc::connect(&name).await.unwrap();
            for _ in 0..100 {
                let call = urpc::call::<()>(&peer, "f", ());
                let error = call.timeout(Duration::from_millis(10)).await.unwrap_err();
                assert_eq!(error.kind(), CallErrorKind::Deadline);
            }
            peer.stats()
        });
        over.store(true, Relaxed);
        (stats, rt.stats())
    })
}

#[test]
fn a_landing_that_is_none_is_lent_few_processors() {
    let _w = watchdog();
    let (stats, _) = lend_to(|_| std::thread::sleep(Duration::from_millis(1)));
    assert!(
        (1..=LANDINGS as u64).contains(&stats.donations_given),
        "{stats:?}"
    );
    assert_eq!(
        stats.donations_reclaimed, stats.donations_given,
        "nobody returned one"
    );
    assert!(stats.rings > 0, "{stats:?}");
}

#[test]
fn a_processor_that_is_returned_unused_is_followed_by_a_ring() {
    let _w = watchdog();
    let (stats, _) = lend_to(|bound| {
        return_all(bound);
        std::thread::yield_now();
    });
    // Each bars the next ones for many times what it took, so there are few for each call.
    assert!((1..=1000).contains(&stats.donations_given), "{stats:?}");
    assert!(stats.rings > 0, "{stats:?}");
}

/// Where the peer says what it waits for, and how much it has consumed.
const BLOCKED: usize = 192;
const CONSUMED: usize = 64;

/// Says at `word` now that it has come further, now that it has not, and returns what it was lent.
fn wriggle(bound: &Bound, word: usize) {
    let word = bound.shown.outbox.word(word);
    word.store(1 - word.load(Relaxed).min(1), Relaxed);
    for k in 0..LANDINGS {
        let granted = bound.inbox.grant(k).grant.load(Relaxed) >> 1;
        let (says, wake) = (
            bound.shown.outbox.returned(k),
            bound.wakes.lent_to_us(k).returned,
        );
        if says.load(Relaxed) != granted.max(1) {
            raw::say(says, wake, granted.max(1));
        }
    }
    std::thread::sleep(Duration::from_micros(1));
}

#[test]
fn a_peer_that_only_says_that_it_gets_on_is_lent_no_more_than_one_that_does_not() {
    let _w = watchdog();
    for word in [BLOCKED, CONSUMED] {
        let (stats, _) = lend_to(|bound| wriggle(bound, word));
        assert!((1..=1000).contains(&stats.donations_given), "{stats:?}");
    }
}

#[test]
fn a_peer_that_says_that_it_is_awake_and_gets_on_keeps_nobody_looking() {
    let _w = watchdog();
    for word in [BLOCKED, CONSUMED] {
        let (_, stats) = lend_to(|bound| {
            bound.shown.page.word(0).store(1, Relaxed);
            wriggle(bound, word);
        });
        // It is found out after some 50 µs, and its landings after one more processor.
        assert!(stats.rests <= 700, "{stats:?}");
    }
}

fn server(argument: &str) {
    serve(argument, |server, _| {
        server
            .method("double", |n: u64| async move { 2 * n })
            .method("lent", |()| async {
                let stats = urpc::stats();
                (
                    stats.donations_given,
                    stats.donations_reclaimed,
                    stats.rings,
                )
            })
    });
}

#[test]
fn a_client_that_lies_about_its_landings_is_lent_few_processors() {
    let _w = watchdog();
    let names = Names::new();
    let name = names.name("s");
    let process = Process::start("server", &format!("1 {name}"));
    let bound = Bound::connect(&name).unwrap();
    return_all(&bound);
    let (channel, socket, _pages) = bound.speak();
    let rt = runtime(1);
    let peer = rt.block_on(urpc::connect(&name)).unwrap();
    let honest = |n: u64| rt.block_on(urpc::call::<u64>(&peer, "double", n));
    let lent = || rt.block_on(urpc::call::<(u64, u64, u64)>(&peer, "lent", ()));
    let mut calls = 0;
    wait_for("the server to lend in vain, and then to ring", || {
        // It takes the replies now and then, so that each round is worth a try.
        let _ = channel.receive(64, |message| channel.freed(message.body.window_bytes()));
        let call = Message {
            kind: Kind::Call,
            id: (calls % 1024) | ((calls / 1024) << 16),
            procedure: 0,
            deadline_ms: 0,
            body: Body::from_slice(&[calls as u8 & 0x7f]),
        };
        channel.send(call).unwrap();
        raw::ring(&socket);
        calls += 1;
        assert_eq!(honest(calls.into()), Ok(2 * u64::from(calls)));
        std::thread::sleep(Duration::from_millis(1));
        let (given, reclaimed, rings) = lent().unwrap();
        assert!(given <= LANDINGS as u64, "{given} {reclaimed} {rings}");
        given > 0 && reclaimed > 0 && rings > 0
    });
    drop((peer, rt));
    process.finish();
}

roles! { "server" => server }
