//! Processes die, stop and leave in the middle of calls: every call ends, and says whether it can have
//! run; nobody else notices.
#[macro_use]
mod common;

use std::future::pending;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use common::{Names, Process, runtime, say, watchdog};
use futures::future::{join_all, poll_immediate};
use urpc::{Call, CallErrorKind, Executed, Peer};

const KILL: i32 = 9;

static HELD: AtomicU64 = AtomicU64::new(0);
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Counts the handlers that were dropped before their end.
struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        DROPPED.fetch_add(1, SeqCst);
    }
}

fn server(argument: &str) {
    common::serve(argument, |server, _| {
        server
            .method("len", |bytes: Vec<u8>| async move { bytes.len() })
            .method("hold", |_: Vec<u8>| async {
                let _guard = Guard;
                HELD.fetch_add(1, SeqCst);
                pending::<()>().await;
            })
            // Before its first poll ends, the channel is closed.
            .method("outlive", |(): ()| async {
                let _guard = Guard;
                HELD.fetch_add(1, SeqCst);
                say("begun", "");
                let caller = urpc::caller().unwrap().peer();
                common::wait_for("its client to be gone", || caller.is_closed());
                pending::<()>().await;
            })
            .method("counts", |(): ()| async {
                (HELD.load(SeqCst), DROPPED.load(SeqCst))
            })
            .method("leave", |(): ()| async { leave() })
    });
}

fn leave() {
    std::process::exit(0)
}

/// Calls what outlives it.
fn mayfly(name: &str) {
    urpc::block_on(async {
        let peer = urpc::connect(name).await.unwrap();
        let mut call = urpc::call::<()>(&peer, "outlive", ());
        assert!(poll_immediate(&mut call).await.is_none());
        say("ready", "");
        let _ = call.await;
    });
}

/// Holds `NAME CALLS` until it is killed.
fn client(argument: &str) {
    let (name, calls) = argument.split_once(' ').unwrap();
    let calls = calls.parse().unwrap();
    urpc::block_on(async {
        let peer = urpc::connect(name).await.unwrap();
        let held: Vec<_> = (0..calls).map(|_| urpc::spawn(hold(&peer, 10))).collect();
        until_held(&peer, calls + 1).await;
        say("ready", "");
        join_all(held).await;
    });
}

fn start(name: &str, processors: u32) -> Process {
    Process::start("server", &format!("{processors} {name}"))
}

fn hold(peer: &Peer, bytes: usize) -> Call<()> {
    urpc::call(peer, "hold", vec![7u8; bytes])
}

async fn len(peer: &Peer, bytes: usize) -> usize {
    urpc::call(peer, "len", vec![7u8; bytes]).await.unwrap()
}

async fn counts(peer: &Peer) -> (u64, u64) {
    urpc::call(peer, "counts", ()).await.unwrap()
}

async fn until_held(peer: &Peer, calls: u64) {
    while counts(peer).await.0 < calls {
        urpc::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn until_dropped(peer: &Peer, calls: u64) {
    while counts(peer).await.1 < calls {
        urpc::time::sleep(Duration::from_millis(1)).await;
    }
}

/// How calls of a closed channel ended: how many cannot have run, how many may.
fn sort_out(ends: &[Result<(), urpc::CallError>]) -> (usize, usize) {
    let (mut no, mut maybe) = (0, 0);
    for end in ends {
        let error = end.as_ref().unwrap_err();
        assert_eq!(error.kind(), CallErrorKind::Closed, "{error}");
        let text = error.to_string();
        match error.executed() {
            Executed::No => no += 1,
            Executed::Maybe => maybe += 1,
            Executed::Yes => panic!("nobody can know that: {error}"),
        }
        let says = if error.executed() == Executed::No {
            "has not run"
        } else {
            "may have run"
        };
        assert!(text.contains("`hold`") && text.contains(says), "{text}");
        assert!(text.contains("process has ended"), "{text}");
    }
    (no, maybe)
}

/// Kills the server while `sizes` wait; says what the ends were.
async fn killed_with(server: &mut Process, peer: &Peer, sizes: &[usize]) -> (usize, usize) {
    let mut calls = join_all(sizes.iter().map(|&size| hold(peer, size)));
    // Each has been polled once: it is sent, or waits for room.
    assert!(poll_immediate(&mut calls).await.is_none());
    let killed = Instant::now();
    server.signal(KILL);
    let ends = calls.await;
    let took = killed.elapsed();
    assert!(took < Duration::from_millis(100), "it took {took:?}");
    sort_out(&ends)
}

#[test]
fn a_killed_server_fails_every_pending_call_within_100_ms() {
    let _watch = watchdog();
    let names = Names::new();
    for processors in [1, 0] {
        let name = names.name(&format!("s{processors}"));
        let server = start(&name, processors);
        runtime(1).block_on(async {
            let peer = urpc::connect(&name).await.unwrap();
            let held: Vec<_> = (0..100)
                .map(|i| urpc::spawn(hold(&peer, if i % 4 == 0 { 100_000 } else { 10 })))
                .collect();
            until_held(&peer, 100).await;
            let killed = Instant::now();
            server.signal(KILL);
            let ends: Vec<_> = join_all(held)
                .await
                .into_iter()
                .map(|e| e.unwrap())
                .collect();
            let took = killed.elapsed();
            assert!(took < Duration::from_millis(100), "it took {took:?}");
            assert_eq!(sort_out(&ends), (0, 100), "all of them had begun");
        });
    }
}

#[test]
fn calls_that_had_no_room_in_the_window_say_that_they_have_not_run() {
    let _watch = watchdog();
    let names = Names::new();
    let name = names.name("s");
    let mut server = start(&name, 1);
    runtime(1).block_on(async {
        let peer = urpc::connect(&name).await.unwrap();
        assert_eq!(len(&peer, 10).await, 10);
        // It reads nothing from here on, so 8 MiB can leave and the rest cannot.
        server.stop();
        let mut sizes = vec![10; 60];
        sizes.extend([1 << 20; 40]);
        let (no, maybe) = killed_with(&mut server, &peer, &sizes).await;
        assert_eq!(no + maybe, 100);
        assert!(no >= 40 - 8 && maybe >= 60, "{no} not run, {maybe} perhaps");
    });
}

#[test]
fn calls_beyond_the_credit_say_that_they_have_not_run() {
    let _watch = watchdog();
    let names = Names::new();
    let name = names.name("s");
    let mut server = start(&name, 1);
    runtime(1).block_on(async {
        let peer = urpc::connect(&name).await.unwrap();
        let sizes = [10; 1024 + 100];
        let ends = killed_with(&mut server, &peer, &sizes).await;
        assert_eq!(ends, (100, 1024));
    });
}

#[test]
fn a_killed_client_has_its_handlers_dropped_and_others_go_on() {
    let _watch = watchdog();
    let names = Names::new();
    for processors in [1, 0] {
        let name = names.name(&format!("s{processors}"));
        let server = start(&name, processors);
        runtime(1).block_on(async {
            let peer = urpc::connect(&name).await.unwrap();
            let ours = urpc::spawn(hold(&peer, 10));
            until_held(&peer, 1).await;
            // It is ready once 51 are held: its own, and the one of ours.
            let mut other = Process::start("client", &format!("{name} 50"));
            assert_eq!(counts(&peer).await, (51, 0));
            other.kill();
            until_dropped(&peer, 50).await;
            assert_eq!(len(&peer, 100_000).await, 100_000);
            assert!(!ours.is_finished());
            assert_eq!(counts(&peer).await, (51, 50), "ours is still held");
        });
        server.finish();
    }
}

#[test]
fn a_handler_whose_client_dies_during_its_first_poll_is_dropped() {
    let _watch = watchdog();
    let names = Names::new();
    for processors in [1, 0] {
        let name = names.name(&format!("s{processors}"));
        let mut server = start(&name, processors);
        let mut mayfly = Process::start("mayfly", &name);
        server.expect("begun");
        mayfly.kill();
        runtime(1).block_on(async {
            let peer = urpc::connect(&name).await.unwrap();
            until_dropped(&peer, 1).await;
        });
        server.finish();
    }
}

#[test]
fn a_restarted_server_is_reached_by_a_new_connect() {
    let _watch = watchdog();
    let names = Names::new();
    let name = names.name("s");
    let mut server = start(&name, 1);
    runtime(1).block_on(async {
        let old = urpc::connect(&name).await.unwrap();
        assert_eq!(len(&old, 10).await, 10);
        assert!(!old.is_closed());
        server.kill();
        old.closed().await;
        assert!(old.is_closed());

        let second = start(&name, 1);
        let error = urpc::call::<usize>(&old, "len", vec![1u8])
            .await
            .unwrap_err();
        assert_eq!(error.kind(), CallErrorKind::Closed);
        assert_eq!(error.executed(), Executed::No, "never sent to the new one");
        let new = urpc::connect(&name).await.unwrap();
        assert_eq!(len(&new, 100).await, 100);
        assert_ne!(old.credentials().pid, new.credentials().pid);
        drop(new);
        second.finish();
    });
}

/// A server looks at the coarse clock, and a deadline crosses in milliseconds, rounded up: for some milliseconds it may
/// not yet know that a call is late, and begin it.
fn until_it_is_late_by_any_clock() {
    use rustix::time::{ClockId, clock_gettime};
    let read = |clock| Duration::try_from(clock_gettime(clock)).unwrap();
    let late = read(ClockId::Monotonic) + Duration::from_millis(1);
    common::wait_for("the coarse clock", || read(ClockId::MonotonicCoarse) > late);
}

#[test]
fn a_call_of_a_stopped_server_ends_at_its_deadline_and_later_calls_work() {
    let _watch = watchdog();
    let names = Names::new();
    for processors in [1, 0] {
        let name = names.name(&format!("s{processors}"));
        let server = start(&name, processors);
        runtime(1).block_on(async {
            let peer = urpc::connect(&name).await.unwrap();
            assert_eq!(len(&peer, 10).await, 10);
            server.stop();
            let limit = Duration::from_millis(100);
            let begun = Instant::now();
            let error = hold(&peer, 10).timeout(limit).await.unwrap_err();
            let took = begun.elapsed();
            assert!(took >= limit && took < Duration::from_secs(5), "{took:?}");
            assert_eq!(error.kind(), CallErrorKind::Deadline);
            assert_eq!(error.executed(), Executed::Maybe);
            assert!(error.to_string().contains("100ms"), "{error}");
            until_it_is_late_by_any_clock();
            server.go_on();
            assert_eq!(len(&peer, 100_000).await, 100_000);
            assert_eq!(counts(&peer).await.0, 0, "it was cancelled before it began");
        });
        server.finish();
    }
}

#[test]
fn a_server_that_exits_in_the_middle_of_calls_fails_them() {
    let _watch = watchdog();
    let names = Names::new();
    let name = names.name("s");
    let _server = start(&name, 1);
    runtime(1).block_on(async {
        let peer = urpc::connect(&name).await.unwrap();
        let held: Vec<_> = (0..20).map(|_| urpc::spawn(hold(&peer, 10))).collect();
        until_held(&peer, 20).await;
        let left = urpc::call::<()>(&peer, "leave", ()).await.unwrap_err();
        assert_eq!(left.kind(), CallErrorKind::Closed);
        assert_eq!(left.executed(), Executed::Maybe);
        let ends: Vec<_> = join_all(held)
            .await
            .into_iter()
            .map(|e| e.unwrap())
            .collect();
        assert_eq!(sort_out(&ends), (0, 20));
    });
}

#[test]
fn a_server_that_ends_in_order_fails_the_calls_it_had_not_finished() {
    let _watch = watchdog();
    let names = Names::new();
    let name = names.name("s");
    let server = start(&name, 1);
    runtime(1).block_on(async {
        let peer = urpc::connect(&name).await.unwrap();
        let held: Vec<_> = (0..20).map(|_| urpc::spawn(hold(&peer, 10))).collect();
        until_held(&peer, 20).await;
        server.finish();
        let ends: Vec<_> = join_all(held)
            .await
            .into_iter()
            .map(|e| e.unwrap())
            .collect();
        assert_eq!(sort_out(&ends), (0, 20));
    });
}

#[test]
fn a_task_that_panics_or_is_aborted_cancels_the_calls_it_held() {
    let _watch = watchdog();
    let names = Names::new();
    let name = names.name("s");
    let server = start(&name, 1);
    runtime(1).block_on(async {
        let peer = urpc::connect(&name).await.unwrap();
        let panics = urpc::spawn({
            let peer = peer.clone();
            async move {
                let mut held = join_all((0..5).map(|_| hold(&peer, 10)));
                assert!(poll_immediate(&mut held).await.is_none());
                until_held(&peer, 5).await;
                panic!("with five calls in its hands");
            }
        });
        let error = panics.await.unwrap_err();
        assert!(error.is_panic() && error.to_string().contains("five calls"));
        until_dropped(&peer, 5).await;

        let aborted = urpc::spawn(hold(&peer, 100_000));
        until_held(&peer, 6).await;
        aborted.abort();
        assert!(aborted.await.unwrap_err().is_aborted());
        until_dropped(&peer, 6).await;
        assert_eq!(len(&peer, 10).await, 10);
    });
    server.finish();
}

#[test]
fn a_runtime_that_is_dropped_fails_the_calls_outside_of_it() {
    let _watch = watchdog();
    let names = Names::new();
    let name = names.name("s");
    let server = start(&name, 1);
    let rt = runtime(1);
    let peer = rt.block_on(async { urpc::connect(&name).await.unwrap() });
    let outside = std::thread::spawn({
        let peer = peer.clone();
        move || futures::executor::block_on(hold(&peer, 10))
    });
    let inside = rt.spawn(hold(&peer, 10));
    rt.block_on(until_held(&peer, 2));
    drop(rt);

    let ended = outside.join().unwrap().unwrap_err();
    assert_eq!(ended.kind(), CallErrorKind::Closed);
    assert_eq!(ended.executed(), Executed::Maybe);
    assert!(ended.to_string().contains("runtime"), "{ended}");
    // Its task is dropped, unless it has just been told that its call failed.
    match futures::executor::block_on(inside) {
        Err(end) => assert!(end.is_aborted()),
        Ok(end) => assert_eq!(end.unwrap_err().kind(), CallErrorKind::Closed),
    }
    let late = futures::executor::block_on(hold(&peer, 10)).unwrap_err();
    assert_eq!(late.kind(), CallErrorKind::Closed);
    assert_eq!(late.executed(), Executed::No);

    runtime(1).block_on(async {
        let peer = urpc::connect(&name).await.unwrap();
        until_dropped(&peer, 2).await;
    });
    server.finish();
}

#[test]
fn a_call_whose_time_is_over_wakes_its_worker_once() {
    const CALLS: u64 = 20;
    let _w = watchdog();
    let names = Names::new();
    let name = names.name("s");
    let process = Process::start("server", &format!("1 {name}"));
    let rt = runtime(1);
    rt.block_on(async {
        let peer = urpc::connect(&name).await.unwrap();
        let before = rt.stats().rests;
        for _ in 0..CALLS {
            // It ends between two ticks of the kernel's clock.
            let call = urpc::call::<()>(&peer, "hold", Vec::<u8>::new());
            let error = call.timeout(Duration::from_millis(11)).await.unwrap_err();
            assert_eq!(error.kind(), CallErrorKind::Deadline);
        }
        let rests = rt.stats().rests - before;
        assert!(rests < 5 * CALLS, "{rests} rests");
    });
    drop(rt);
    process.finish();
}

roles! { "server" => server, "client" => client, "mayfly" => mayfly }
