//! Processors lent in vain: the grants that find no place, or nobody who runs, are wasted. They become few, and
//! the calls are served all the same.
#[macro_use]
mod common;

use std::sync::{Condvar, Mutex};
use std::time::Duration;

use common::{Names, Process, runtime, serve, watchdog};

/// How many landings are stuck, and whether they are to go on.
static STUCK: (Mutex<(usize, bool)>, Condvar) = (Mutex::new((0, false)), Condvar::new());

fn server(argument: &str) {
    serve(argument, |server, _| {
        server
            // Only in a landing: the one thread that comes up for a ring is not to be stuck here.
            .method("block", |()| async {
                if std::thread::current().name() == Some("urpc-landing") {
                    let mut stuck = STUCK.0.lock().unwrap();
                    stuck.0 += 1;
                    drop(STUCK.1.wait_while(stuck, |(_, released)| !*released));
                }
            })
            .method("stuck", |()| async { STUCK.0.lock().unwrap().0 })
            .method("release", |()| async {
                STUCK.0.lock().unwrap().1 = true;
                STUCK.1.notify_all();
            })
    });
}

#[test]
fn a_call_is_served_when_every_landing_that_may_run_is_stuck() {
    let _w = watchdog();
    let names = Names::new();
    let name = names.name("s");
    let process = Process::start("server", &format!("0 {name}"));
    let rt = runtime(1);
    // As the server counts them. A donor keeps its thread to the CPU it has lent, so they are counted here.
    let landings = urpc_donate::allowed_cpus();
    rt.block_on(async {
        let peer = urpc::connect(&name).await.unwrap();
        let ask = || urpc::call::<usize>(&peer, "stuck", ()).timeout(Duration::from_secs(10));
        let mut calls = Vec::new();
        for most in 1..=landings {
            // Each on a channel of its own, since each channel has landings of its own.
            let other = urpc::connect(&name).await.unwrap();
            let mut call = urpc::spawn(urpc::call::<()>(&other, "block", ()));
            while ask().await.unwrap() < most {
                if let Ok(done) = urpc::time::timeout(Duration::from_millis(1), &mut call).await {
                    done.unwrap().unwrap(); // it was not a landing that served it
                    call = urpc::spawn(urpc::call::<()>(&other, "block", ()));
                }
            }
            calls.push((other, call));
        }
        // Wasted, again and again: so it is soon rung instead, most times.
        let mut lent = u64::MAX;
        while lent > 25 {
            let before = peer.stats().donations_given;
            for _ in 0..50 {
                assert_eq!(ask().await, Ok(landings));
            }
            lent = peer.stats().donations_given - before;
        }
        urpc::call::<()>(&peer, "release", ()).await.unwrap();
        for (_, call) in calls {
            call.await.unwrap().unwrap();
        }
    });
    drop(rt);
    process.finish();
}

#[test]
fn a_stopped_process_is_lent_few_processors_and_trusted_again_when_it_goes_on() {
    let _w = watchdog();
    let names = Names::new();
    let name = names.name("s");
    let process = Process::start("server", &format!("0 {name}"));
    // As many landings as there are processors here: it takes more than one grant to use them up.
    let rt = runtime(4);
    rt.block_on(async {
        let peer = urpc::connect(&name).await.unwrap();
        let ask = || urpc::call::<usize>(&peer, "stuck", ());
        let until_lent = async || {
            // And it has come back: else no landing is left that could answer.
            let before = peer.stats().donations_returned;
            while peer.stats().donations_returned == before {
                ask().await.unwrap();
            }
        };
        until_lent().await;

        process.stop();
        let before = peer.stats();
        for _ in 0..100 {
            let error = ask().timeout(Duration::from_millis(2)).await.unwrap_err();
            assert_eq!(error.kind(), urpc::CallErrorKind::Deadline);
        }
        let after = peer.stats();
        let lent = after.donations_given - before.donations_given;
        assert!((1..=4).contains(&lent), "{before:?} {after:?}");
        assert!(after.rings > before.rings, "it is told all the same");

        process.go_on();
        assert_eq!(ask().await, Ok(0));
        until_lent().await;
    });
    drop(rt);
    process.finish();
}

roles! {
    "server" => server,
}
