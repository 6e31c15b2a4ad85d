//! A call is a plain future: it works under any executor, from plain threads, and between runtimes.
#[macro_use]
mod common;

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use common::{Names, Process, runtime, serve, watchdog};
use futures::future::{Either, join_all, select};
use futures::pin_mut;
use urpc::{Call, CallErrorKind, Executed, Peer};

static HELD: AtomicU64 = AtomicU64::new(0);
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Counts the handlers that were dropped.
struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        DROPPED.fetch_add(1, SeqCst);
    }
}

fn server(argument: &str) {
    serve(argument, |server, _| {
        server
            .method("mul", |(a, b): (u64, u64)| async move { a * b })
            .method("later", |n: u64| async move {
                urpc::time::sleep(Duration::from_millis(1)).await;
                n
            })
            .method("len", |bytes: Vec<u8>| async move { bytes.len() })
            .method("hold", |(): ()| async {
                let _guard = Guard;
                HELD.fetch_add(1, SeqCst);
                std::future::pending::<()>().await;
            })
            .method("counts", |(): ()| async {
                (HELD.load(SeqCst), DROPPED.load(SeqCst))
            })
    });
}

/// Runs a test once with a server that has a processor, and once with one that has none.
fn with_servers(mut test: impl FnMut(&str)) {
    let _watch = watchdog();
    let names = Names::new();
    for processors in [1, 0] {
        let name = names.name(&format!("s{processors}"));
        let server = Process::start("server", &format!("{processors} {name}"));
        test(&name);
        server.finish();
    }
}

fn mul(peer: &Peer, a: u64, b: u64) -> Call<u64> {
    urpc::call(peer, "mul", (a, b))
}

fn hold(peer: &Peer) -> Call<()> {
    urpc::call(peer, "hold", ())
}

/// Small calls, one after another, and one that takes its time.
async fn calls(peer: Peer, seed: u64) {
    for n in 0..50 {
        assert_eq!(mul(&peer, seed, n).await.unwrap(), seed * n);
    }
    let later: u64 = urpc::call(&peer, "later", seed).await.unwrap();
    assert_eq!(later, seed);
}

/// Many calls at once, some of them large.
async fn crowd(peer: &Peer) {
    let small = (0..500).map(|n| mul(peer, n, 3));
    let large = (0..5).map(|n| urpc::call::<usize>(peer, "len", vec![1u8; n * 10_000]));
    let (small, large) = futures::join!(join_all(small), join_all(large));
    for (n, product) in (0..).zip(small) {
        assert_eq!(product.unwrap(), n * 3);
    }
    for (n, len) in large.into_iter().enumerate() {
        assert_eq!(len.unwrap(), n * 10_000);
    }
}

/// How many calls are or were held, and how many of their handlers were dropped.
async fn counts(peer: &Peer) -> (u64, u64) {
    urpc::call(peer, "counts", ()).await.unwrap()
}

async fn until(peer: &Peer, reached: impl Fn((u64, u64)) -> bool) {
    while !reached(counts(peer).await) {}
}

/// What is begun is dropped by whatever `cancel` does with it; its handler is dropped as well.
async fn cancels<F: Future>(peer: &Peer, mut cancel: impl FnMut(Call<()>) -> F) {
    let (held, dropped) = counts(peer).await;
    // Again, should it have been cancelled before it was begun.
    while counts(peer).await.0 == held {
        cancel(hold(peer)).await;
    }
    until(peer, |now| now.1 - dropped == now.0 - held).await;
    assert_eq!(mul(peer, 6, 7).await.unwrap(), 42);
}

#[test]
fn tokio_with_many_threads_calls() {
    with_servers(|name| {
        let tokio = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_time()
            .build()
            .unwrap();
        tokio.block_on(async {
            let peer = urpc::connect(name).await.unwrap();
            let tasks: Vec<_> = (0..50)
                .map(|n| tokio::spawn(calls(peer.clone(), n)))
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
            crowd(&peer).await;
            cancels(&peer, |call| async {
                let limit = tokio::time::timeout(Duration::from_millis(20), call);
                assert!(limit.await.is_err());
            })
            .await;
            cancels(&peer, |call| async {
                let task = tokio::spawn(call);
                tokio::time::sleep(Duration::from_millis(20)).await;
                task.abort();
                assert!(task.await.unwrap_err().is_cancelled());
            })
            .await;
        });
    });
}

#[test]
fn tokio_with_one_thread_calls() {
    with_servers(|name| {
        let tokio = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        tokio.block_on(async {
            let peer = urpc::connect(name).await.unwrap();
            crowd(&peer).await;
            calls(peer.clone(), 3).await;
            cancels(&peer, |call| async {
                tokio::select! {
                    ended = call => panic!("{ended:?}"),
                    () = tokio::time::sleep(Duration::from_millis(20)) => {}
                }
            })
            .await;
        });
    });
}

#[test]
fn the_end_of_a_tokio_runtime_cancels_the_calls_of_its_tasks() {
    with_servers(|name| {
        let tokio = tokio::runtime::Runtime::new().unwrap();
        let peer = tokio.block_on(async {
            let peer = urpc::connect(name).await.unwrap();
            for _ in 0..10 {
                tokio::spawn(hold(&peer));
            }
            until(&peer, |(held, _)| held == 10).await;
            peer
        });
        drop(tokio);
        urpc::block_on(until(&peer, |(_, dropped)| dropped == 10));
    });
}

#[test]
fn smol_calls() {
    with_servers(|name| {
        smol::block_on(async {
            let peer = urpc::connect(name).await.unwrap();
            let tasks: Vec<_> = (0..50)
                .map(|n| smol::spawn(calls(peer.clone(), n)))
                .collect();
            join_all(tasks).await;
            crowd(&peer).await;
            cancels(&peer, |call| async {
                let timer = smol::Timer::after(Duration::from_millis(20));
                let ended = smol::future::or(async { Some(call.await) }, async {
                    timer.await;
                    None
                });
                assert!(ended.await.is_none());
            })
            .await;
            cancels(&peer, |call| async {
                let task = smol::spawn(call);
                smol::Timer::after(Duration::from_millis(20)).await;
                assert!(task.cancel().await.is_none());
            })
            .await;
        });
    });
}

#[test]
fn the_executor_of_futures_calls() {
    with_servers(|name| {
        futures::executor::block_on(async {
            let peer = urpc::connect(name).await.unwrap();
            crowd(&peer).await;
            join_all((0..20).map(|n| calls(peer.clone(), n))).await;
            cancels(&peer, |call| async {
                let limit = urpc::time::sleep(Duration::from_millis(20));
                pin_mut!(call, limit);
                assert!(matches!(select(call, limit).await, Either::Right(_)));
            })
            .await;
        });
    });
}

#[test]
fn plain_threads_call_at_the_same_time() {
    with_servers(|name| {
        let peer = urpc::block_on(async { urpc::connect(name).await.unwrap() });
        std::thread::scope(|s| {
            for n in 0..6 {
                let peer = peer.clone();
                s.spawn(move || match n % 3 {
                    0 => urpc::block_on(calls(peer, n)),
                    1 => futures::executor::block_on(calls(peer, n)),
                    _ => smol::block_on(calls(peer, n)),
                });
            }
        });
    });
}

#[test]
fn a_task_of_one_runtime_calls_on_a_channel_of_another() {
    with_servers(|name| {
        let (first, second) = (runtime(1), runtime(2));
        let peer = first.block_on(async { urpc::connect(name).await.unwrap() });
        let there: Vec<_> = (0..10)
            .map(|n| second.spawn(calls(peer.clone(), n)))
            .collect();
        let here: Vec<_> = (0..10)
            .map(|n| first.spawn(calls(peer.clone(), n)))
            .collect();
        second.block_on(async {
            for task in there {
                task.await.unwrap();
            }
            crowd(&peer).await;
            let own = urpc::connect(name).await.unwrap();
            let (a, b) = futures::join!(mul(&peer, 2, 3), mul(&own, 4, 5));
            assert_eq!((a.unwrap(), b.unwrap()), (6, 20));
        });
        first.block_on(async {
            for task in here {
                task.await.unwrap();
            }
        });
        // The channel belongs to the first, and goes with it.
        drop(first);
        let error = second.block_on(mul(&peer, 2, 3)).unwrap_err();
        assert_eq!(error.kind(), CallErrorKind::Closed);
        assert_eq!(error.executed(), Executed::No);
        second.block_on(async { crowd(&urpc::connect(name).await.unwrap()).await });
    });
}

#[test]
fn a_deadline_passes_under_any_executor() {
    with_servers(|name| {
        let ends_in_time = async |peer: &Peer| {
            let call = hold(peer).timeout(Duration::from_millis(200));
            let error = call.await.unwrap_err();
            assert_eq!(error.kind(), CallErrorKind::Deadline);
            assert_eq!(error.executed(), Executed::Maybe);
        };
        let peer = smol::block_on(async { urpc::connect(name).await.unwrap() });
        smol::block_on(ends_in_time(&peer));
        futures::executor::block_on(ends_in_time(&peer));
        let tokio = tokio::runtime::Runtime::new().unwrap();
        tokio.block_on(ends_in_time(&peer));
        urpc::block_on(ends_in_time(&peer));
        urpc::block_on(until(&peer, |(held, dropped)| held == dropped));
    });
}

#[test]
fn block_on_inside_a_worker_panics_with_advice() {
    let _watch = watchdog();
    let rt = runtime(1);
    let blocks = rt.spawn(async { urpc::block_on(async { 1 }) });
    let error = rt.block_on(blocks).unwrap_err();
    assert!(error.is_panic());
    let text = error.to_string();
    assert!(
        text.contains("block_on") && text.contains("await the future"),
        "{text}"
    );
    let again = rt.spawn(async { 2 });
    assert_eq!(rt.block_on(again).unwrap(), 2, "the worker goes on");
}

roles! { "server" => server }
