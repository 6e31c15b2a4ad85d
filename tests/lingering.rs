//! A caller that lingers misses nothing: not its reply, however it is awaited, nor what else it waits for.
#[macro_use]
mod common;

use std::time::Duration;

use common::{Names, Process, serve, watchdog};
use futures::future::{Either, join_all, select};
use futures::stream::{FuturesUnordered, StreamExt};
use urpc::{CallErrorKind, Peer};

fn server(argument: &str) {
    serve(argument, |server, _| {
        server
            .method("next", |n: u64| async move { n + 1 })
            .method("later", |n: u64| async move {
                urpc::time::sleep(Duration::from_millis(1)).await;
                n
            })
            .method("never", |()| std::future::pending::<()>())
    });
}

/// Runs a test with and without lingering, as a task and in `block_on`, with processors that rest at once
/// and ones that never do.
fn everywhere<T, F>(test: T)
where
    T: Fn(Peer) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let _watch = watchdog();
    let names = Names::new();
    let name = names.name("s");
    let server = Process::start("server", &format!("1 {name}"));
    for lingers in [true, false] {
        for spin in [Duration::ZERO, Duration::from_micros(50), Duration::MAX] {
            let rt = urpc::Runtime::builder().spin(spin).linger(lingers);
            let rt = rt.build().unwrap();
            rt.block_on(async {
                let peer = urpc::connect(&name).await.unwrap();
                test(peer.clone()).await;
                urpc::spawn(test(peer)).await.unwrap();
            });
        }
    }
    server.finish();
}

fn next(peer: &Peer, n: u64) -> urpc::Call<u64> {
    urpc::call(peer, "next", n)
}

#[test]
fn calls_one_after_another_and_side_by_side_bring_their_own_replies() {
    everywhere(|peer| async move {
        for n in 0..1000 {
            assert_eq!(next(&peer, n).await, Ok(n + 1));
        }
        for _ in 0..50 {
            // With wakers of their own, and without.
            let all = join_all((0..40).map(|n| next(&peer, n))).await;
            assert!(all.into_iter().eq((1..=40).map(Ok)));
            let few = futures::join!(next(&peer, 1), next(&peer, 2), next(&peer, 3));
            assert_eq!(few, (Ok(2), Ok(3), Ok(4)));
            let mut calls: FuturesUnordered<_> = (0..3).map(|n| next(&peer, n)).collect();
            let mut sum = 0;
            while let Some(n) = calls.next().await {
                sum += n.unwrap();
            }
            assert_eq!(sum, 6);
        }
    });
}

/// A call that has begun in one place is awaited in another: it is heard of there.
#[test]
fn a_call_that_is_moved_after_its_first_poll_brings_its_reply_where_it_is_awaited() {
    everywhere(|peer| async move {
        let begun = async |n| {
            let mut call = next(&peer, n).timeout(Duration::from_secs(20));
            let polled = futures::poll!(&mut call);
            assert!(polled.is_pending(), "a call takes more than a poll");
            [call]
        };
        for n in 0..300 {
            let mut set = FuturesUnordered::from_iter(begun(n).await);
            assert_eq!(set.next().await, Some(Ok(n + 1)));
            let [call] = begun(n).await;
            assert_eq!(urpc::spawn(call).await.unwrap(), Ok(n + 1));
        }
    });
}

/// It has no deadline of its own before its first wait, which another runtime's thread sees to.
#[test]
fn a_call_of_another_runtimes_task_ends_at_its_default_deadline() {
    let _watch = watchdog();
    let names = Names::new();
    let name = names.name("s");
    let server = Process::start("server", &format!("1 {name}"));
    let [home, other] = [Duration::from_millis(200), Duration::from_secs(3000)].map(|deadline| {
        let rt = urpc::Runtime::builder().call_deadline(deadline);
        rt.build().unwrap()
    });
    let peer = home.block_on(urpc::connect(&name)).unwrap();
    for _ in 0..3 {
        let call = urpc::call::<()>(&peer, "never", ());
        let ended = other.block_on(call).unwrap_err();
        assert_eq!(ended.kind(), CallErrorKind::Deadline);
    }
    server.finish();
}

#[test]
fn a_call_whose_reply_is_slow_is_woken_by_it() {
    everywhere(|peer| async move {
        for n in 0..20 {
            assert_eq!(urpc::call(&peer, "later", n).await, Ok(n));
        }
    });
}

#[test]
fn a_call_without_a_reply_ends_at_its_deadline_or_when_it_is_dropped() {
    everywhere(|peer| async move {
        let limit = Duration::from_millis(5);
        let error = urpc::call::<()>(&peer, "never", ()).timeout(limit).await;
        assert_eq!(error.unwrap_err().kind(), CallErrorKind::Deadline);
        let call = urpc::call::<()>(&peer, "never", ());
        urpc::time::timeout(limit, call).await.unwrap_err();
        assert_eq!(next(&peer, 1).await, Ok(2));
    });
}

#[test]
fn what_else_the_task_waits_for_is_seen() {
    everywhere(|peer| async move {
        for _ in 0..20 {
            let (tell, told) = futures::channel::oneshot::channel();
            let other = urpc::spawn(async move { tell.send(7) });
            let never = urpc::call::<()>(&peer, "never", ());
            match select(told, never).await {
                Either::Left((told, _)) => assert_eq!(told, Ok(7)),
                Either::Right((reply, _)) => panic!("{reply:?}"),
            }
            other.await.unwrap().unwrap();
        }
    });
}

#[test]
fn a_call_beside_one_that_is_never_answered_is_woken_by_its_reply() {
    everywhere(|peer| async move {
        for n in 0..20 {
            let limit = Duration::from_secs(20);
            let never = urpc::call::<()>(&peer, "never", ()).timeout(limit);
            match select(urpc::call::<u64>(&peer, "later", n), never).await {
                Either::Left((reply, _)) => assert_eq!(reply, Ok(n)),
                Either::Right((reply, _)) => panic!("{reply:?}"),
            }
        }
    });
}

#[test]
fn a_task_that_calls_on_and_on_is_aborted() {
    everywhere(|peer| async move {
        let busy = urpc::spawn(async move {
            loop {
                next(&peer, 1).await.unwrap();
            }
        });
        urpc::time::sleep(Duration::from_millis(1)).await;
        busy.abort();
        busy.await.unwrap_err();
    });
}

roles! {
    "server" => server,
}
