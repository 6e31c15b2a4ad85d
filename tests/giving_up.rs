//! A caller may give up: by dropping the call, or at its deadline. The server sees both, and so do the
//! processes it has called for it.
#[macro_use]
mod common;

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::{Names, Process, runtime, say, serve, until_told_to_end, watchdog};
use urpc::{CallErrorKind, Executed};

static BEGUN: AtomicU64 = AtomicU64::new(0);

/// Says that a handler's future was dropped.
struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        say("dropped", "");
    }
}

fn server(argument: &str) {
    serve(argument, |server, _| {
        server
            .method("wait", |()| async {
                let _guard = Guard;
                BEGUN.fetch_add(1, Ordering::Relaxed);
                say("began", "");
                pending::<()>().await;
            })
            .method("wait after", |ms: u64| async move {
                urpc::time::sleep(Duration::from_millis(ms)).await;
                let _guard = Guard;
                pending::<()>().await;
            })
            .method("begun", |()| async { BEGUN.load(Ordering::Relaxed) })
            .method("left", |()| async { left() })
    });
}

/// Milliseconds that the caller still waits, if it said so.
fn left() -> Option<u64> {
    let deadline = urpc::caller().expect("this is a handler").deadline()?;
    let left = deadline.saturating_duration_since(std::time::Instant::now());
    Some(left.as_millis() as u64)
}

/// Passes calls on to the third process.
fn relay(argument: &str) {
    let mut words = argument.split(' ');
    let rt = runtime(words.next().unwrap().parse().unwrap());
    let (name, third) = (words.next().unwrap(), words.next().unwrap());
    rt.block_on(async {
        let third = urpc::connect(third).await.unwrap();
        let left = third.procedure::<(), Option<u64>>("left");
        let wait = third.procedure::<(), ()>("wait");
        let _server = urpc::serve(name)
            .method("left", move |()| {
                let left = left.clone();
                async move { left.call(()).await.unwrap() }
            })
            .method("wait", move |()| {
                let wait = wait.clone();
                async move {
                    // It ends with this call's deadline, of which the caller tells this handler, too.
                    let _ = wait.call(()).await;
                    pending::<()>().await;
                }
            })
            .bind()
            .unwrap();
        say("ready", "");
        urpc::unblock(until_told_to_end).await;
    });
}

#[test]
fn the_server_sees_that_a_call_was_dropped() {
    let _watchdog = watchdog();
    for processors in [1, 0] {
        let names = Names::new();
        let name = names.name("server");
        let mut server = Process::start("server", &format!("{processors} {name}"));
        let rt = runtime(1);
        let peer = rt.block_on(urpc::connect(&name)).unwrap();
        for _ in 0..20 {
            // Dropped with its task, which another thread aborts.
            let task = rt.spawn(urpc::call::<()>(&peer, "wait", ()));
            server.expect("began");
            task.abort();
            server.expect("dropped");
        }
        // Dropped by its own task, which goes on.
        let call = urpc::call::<()>(&peer, "wait", ());
        let limited = urpc::call::<()>(&peer, "wait after", 1u64);
        rt.block_on(async {
            let limit = Duration::from_millis(300); // in which a busy machine runs the server
            assert!(urpc::time::timeout(limit, call).await.is_err());
            assert!(urpc::time::timeout(limit, limited).await.is_err());
        });
        server.expect("dropped");
        server.expect("dropped");
        // Dropped outside of any runtime.
        let mut call = Box::pin(urpc::call::<()>(&peer, "wait", ()));
        futures::executor::block_on(async {
            assert!(futures::poll!(&mut call).is_pending());
        });
        server.expect("began");
        drop(call);
        server.expect("dropped");
        drop(rt);
        server.finish();
    }
}

#[test]
fn a_call_dropped_before_its_first_poll_was_never_made() {
    let _watchdog = watchdog();
    let names = Names::new();
    let name = names.name("server");
    let server = Process::start("server", &format!("1 {name}"));
    runtime(1).block_on(async {
        let peer = urpc::connect(&name).await.unwrap();
        for _ in 0..100 {
            drop(urpc::call::<()>(&peer, "wait", ()));
        }
        assert_eq!(urpc::call::<u64>(&peer, "begun", ()).await.unwrap(), 0);
        assert_eq!(peer.stats().calls, 1);
    });
    server.finish();
}

#[test]
fn calls_dropped_at_any_moment_leave_room_for_as_many_more() {
    let _watchdog = watchdog();
    for processors in [1, 0] {
        let names = Names::new();
        let name = names.name("server");
        let server = Process::start("server", &format!("{processors} {name}"));
        runtime(1).block_on(async {
            let peer = urpc::connect(&name).await.unwrap();
            // More than the credit of 1,024 in all: each id must come back.
            for round in 0..40u64 {
                let mut calls: Vec<_> = (0..100)
                    .map(|_| Box::pin(urpc::call::<u64>(&peer, "begun", ())))
                    .collect();
                for call in &mut calls {
                    assert!(futures::poll!(call).is_pending());
                }
                for _ in 0..round % 4 {
                    urpc::yield_now().await;
                }
            }
            assert_eq!(urpc::call::<u64>(&peer, "begun", ()).await.unwrap(), 0);
        });
        server.finish();
    }
}

#[test]
fn a_call_fails_at_its_deadline_and_its_handler_is_dropped() {
    let _watchdog = watchdog();
    for processors in [1, 0] {
        let names = Names::new();
        let name = names.name("server");
        let mut server = Process::start("server", &format!("{processors} {name}"));
        let rt = runtime(1);
        let peer = rt.block_on(urpc::connect(&name)).unwrap();
        let limit = Duration::from_millis(500); // as above
        let call = urpc::call::<()>(&peer, "wait", ()).timeout(limit);
        let begin = std::time::Instant::now();
        let error = rt.block_on(call).unwrap_err();
        assert!(begin.elapsed() >= limit, "not before its time");
        assert_eq!(error.kind(), CallErrorKind::Deadline);
        assert_eq!(error.executed(), Executed::Maybe);
        assert!(error.to_string().contains("500ms"), "{error}");
        server.expect("dropped");
        // A deadline that is kept is none.
        let long = Duration::from_secs(3600);
        let begun = urpc::call::<u64>(&peer, "begun", ()).timeout(long);
        assert_eq!(rt.block_on(begun).unwrap(), 1);
        drop(rt);
        server.finish();
    }
}

#[test]
fn a_deadline_travels_with_the_call_and_with_those_it_makes() {
    let _watchdog = watchdog();
    for processors in [1, 0] {
        let names = Names::new();
        let (name, third) = (names.name("relay"), names.name("third"));
        let mut server = Process::start("server", &format!("{processors} {third}"));
        let between = Process::start("relay", &format!("{processors} {name} {third}"));
        let rt = runtime(1);
        rt.block_on(async {
            let peer = urpc::connect(&name).await.unwrap();
            let left = || urpc::call::<Option<u64>>(&peer, "left", ());
            assert_eq!(left().await.unwrap(), None, "nobody chose one");
            for ms in [5_000, 20_000] {
                let there = left().timeout(Duration::from_millis(ms)).await.unwrap();
                let there = there.expect("it travelled");
                assert!(there > 0 && there <= ms, "{there} of {ms}");
            }
            // When it passes, it passes for both.
            let wait = urpc::call::<()>(&peer, "wait", ());
            let error = wait.timeout(Duration::from_millis(500)).await.unwrap_err();
            assert_eq!(error.kind(), CallErrorKind::Deadline);
        });
        server.expect("dropped");
        drop(rt);
        between.finish();
        server.finish();
    }
}

#[test]
fn an_urgent_call_is_given_the_processor_although_tasks_are_ready() {
    let _watchdog = watchdog();
    let names = Names::new();
    let name = names.name("server");
    let server = Process::start("server", &format!("0 {name}"));
    runtime(1).block_on(async {
        let peer = urpc::connect(&name).await.unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let busy = urpc::spawn({
            let stop = Arc::clone(&stop);
            async move {
                while !stop.load(Ordering::Relaxed) {
                    urpc::yield_now().await;
                }
            }
        });
        let call = || urpc::call::<u64>(&peer, "begun", ());
        for _ in 0..20 {
            call().await.unwrap();
        }
        assert_eq!(peer.stats().donations_given, 0, "there was always a task");
        // Not each one: the server may still be up from the last ring, and faster.
        for _ in 0..10_000 {
            call().urgent().await.unwrap();
            if peer.stats().donations_given > 0 {
                break;
            }
        }
        assert!(peer.stats().donations_given > 0);
        stop.store(true, Ordering::Relaxed);
        busy.await.unwrap();
    });
    server.finish();
}

roles! { "server" => server, "relay" => relay }
