//! Many channels of one server: whoever is silent for long is heard when it calls, however busy the server is.
#[macro_use]
mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::{Names, Process, runtime, serve, watchdog};
use urpc::Peer;

/// More than any thread looks at each time.
const CHANNELS: usize = 60;

fn server(argument: &str) {
    serve(argument, |server, _| {
        server
            .method("null", |()| async {})
            .method("later", |n: u64| async move {
                urpc::yield_now().await;
                n
            })
    });
}

async fn bind(name: &str) -> Vec<Peer> {
    let mut peers = Vec::new();
    for _ in 0..CHANNELS {
        peers.push(urpc::connect(name).await.unwrap());
    }
    peers
}

async fn ask(peer: &Peer, n: u64) {
    let answer: u64 = urpc::call(peer, "later", n).await.unwrap();
    assert_eq!(answer, n);
}

#[test]
fn a_silent_client_is_heard_while_another_calls_on_and_on() {
    let _watchdog = watchdog();
    for processors in [1, 0] {
        let names = Names::new();
        let name = names.name("server");
        let server = Process::start("server", &format!("{processors} {name}"));
        runtime(1).block_on(async {
            let peers = bind(&name).await;
            let (over, calls) = (
                Arc::new(AtomicBool::new(false)),
                Arc::new(AtomicU64::new(0)),
            );
            let loud = urpc::spawn({
                let (peer, over, calls) = (peers[0].clone(), over.clone(), calls.clone());
                async move {
                    while !over.load(Ordering::Relaxed) {
                        urpc::call::<()>(&peer, "null", ()).await.unwrap();
                        calls.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
            // Each has been silent for long when its turn comes, and is heard all the same.
            for round in 0..3 {
                for (n, peer) in (0u64..).zip(&peers[1..]) {
                    let before = calls.load(Ordering::Relaxed);
                    while calls.load(Ordering::Relaxed) < before + 20 {
                        urpc::yield_now().await;
                    }
                    ask(peer, round * 1000 + n).await;
                }
            }
            over.store(true, Ordering::Relaxed);
            loud.await.unwrap();
        });
        server.finish();
    }
}

#[test]
fn all_call_at_once_and_again_after_a_pause() {
    let _watchdog = watchdog();
    for processors in [1, 0] {
        let names = Names::new();
        let name = names.name("server");
        let server = Process::start("server", &format!("{processors} {name}"));
        runtime(1).block_on(async {
            let peers = bind(&name).await;
            for round in 0..5u64 {
                let calls = peers.iter().map(|peer| ask(peer, round));
                futures::future::join_all(calls).await;
                // Both sides go to sleep, some time or other.
                urpc::time::sleep(Duration::from_millis(2 * round)).await;
            }
        });
        server.finish();
    }
}

#[test]
fn a_call_from_outside_of_the_runtime_is_answered_on_a_silent_channel() {
    let _watchdog = watchdog();
    let names = Names::new();
    let name = names.name("server");
    let server = Process::start("server", &format!("1 {name}"));
    let runtime = runtime(1);
    let peers = runtime.block_on(bind(&name));
    for (n, peer) in (0u64..).zip(&peers) {
        futures::executor::block_on(ask(peer, n));
    }
    drop(peers);
    server.finish();
}

roles! { "server" => server }
