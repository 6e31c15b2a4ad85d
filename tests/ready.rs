//! A processor with tasks that are ready is not lent unless a call asks for that, and still looks at its
//! channels: those calls end, and those of its peers are served. Counters say so, not times.
#[macro_use]
mod common;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use common::{Names, Process, runtime, say, until_told_to_end, wait_for, watchdog};
use futures::future::join_all;
use urpc::Peer;

const CALLS: u64 = 200;

/// How often the endless task of this process has run.
static TURNS: AtomicU64 = AtomicU64::new(0);

/// There is always a task to run from here on, for as long as the runtime lives.
fn keep_busy(rt: &urpc::Runtime) {
    let before = TURNS.load(Relaxed);
    drop(rt.spawn(async {
        loop {
            TURNS.fetch_add(1, Relaxed);
            urpc::yield_now().await;
        }
    }));
    wait_for("the endless task to run", || TURNS.load(Relaxed) > before);
}

/// The argument is `PROCESSORS NAME`, and `busy` if it is to be that.
fn server(argument: &str) {
    let words: Vec<&str> = argument.split(' ').collect();
    let rt = runtime(words[0].parse().unwrap());
    let _server = rt.block_on(async {
        urpc::serve(words[1])
            .method("double", |n: u64| async move { 2 * n })
            .method("counts", |()| async {
                let stats = urpc::stats();
                [stats.served, stats.rests, TURNS.load(Relaxed)]
            })
            .bind()
            .unwrap()
    });
    if words.get(2) == Some(&"busy") {
        keep_busy(&rt);
    }
    say("ready", "");
    until_told_to_end();
}

fn start(names: &Names, processors: usize, how: &str) -> (Process, String) {
    let name = names.name("s");
    let process = Process::start("server", &format!("{processors} {name} {how}"));
    (process, name)
}

async fn counts(peer: &Peer) -> [u64; 3] {
    urpc::call(peer, "counts", ()).await.unwrap()
}

#[test]
fn a_process_with_ready_tasks_lends_no_processor_unless_a_call_is_urgent() {
    let _watchdog = watchdog();
    for processors in [0, 1] {
        let names = Names::new();
        let (server, name) = start(&names, processors, "");
        let rt = runtime(1);
        let peer = rt.block_on(urpc::connect(&name)).unwrap();
        keep_busy(&rt);
        let double = |n: u64| urpc::call::<u64>(&peer, "double", n);
        rt.block_on(async {
            let (before, rests, mut calls) = (peer.stats(), rt.stats().rests, 0);
            // Now and then its peer has nobody awake.
            while calls < CALLS || peer.stats().rings == before.rings {
                assert_eq!(double(calls).await, Ok(2 * calls));
                calls += 1;
            }
            for (n, answer) in (0..).zip(join_all((0..CALLS).map(double)).await) {
                assert_eq!(answer, Ok(2 * n));
            }
            let after = peer.stats();
            assert_eq!(before.donations_given, after.donations_given, "{after:?}");
            assert_eq!(rt.stats().rests, rests, "there was always a task");

            while peer.stats().donations_given == after.donations_given {
                assert_eq!(double(21).urgent().await, Ok(42));
            }
        });
        drop((peer, rt));
        server.finish();
    }
}

#[test]
fn a_process_that_never_runs_out_of_tasks_serves_its_peers() {
    let _watchdog = watchdog();
    for (processors, lends) in [(0, true), (0, false), (1, true), (1, false)] {
        let names = Names::new();
        let (server, name) = start(&names, processors, "busy");
        let rt = runtime(1);
        if !lends {
            keep_busy(&rt);
        }
        rt.block_on(async {
            let peer = urpc::connect(&name).await.unwrap();
            let before = counts(&peer).await;
            for n in 0..CALLS {
                assert_eq!(urpc::call(&peer, "double", n).await, Ok(2 * n));
            }
            let [served, rests, turns] = counts(&peer).await;
            assert_eq!(served - before[0], CALLS + 1);
            // There was always a task; unless it ran on a processor that was lent just then.
            let lent = peer.stats().donations_given;
            assert!(lends || lent == 0);
            assert!(rests - before[1] <= lent, "{rests} {before:?} {lent}");
            assert!(turns > before[2], "and its turn came");
        });
        drop(rt);
        server.finish();
    }
}

roles! { "server" => server }
