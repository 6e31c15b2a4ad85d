//! Calls between processes under every discipline: the order of tasks changes no result.
#[macro_use]
mod common;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use common::{Names, Process, say, until_told_to_end, watchdog};
use futures::future::join_all;
use urpc::{Call, Discipline, Fifo, Lifo, Peer, Priorities, Ready, Runtime};

/// An application's own: from both ends in turn.
#[derive(Default)]
struct BothEnds(Mutex<(bool, std::collections::VecDeque<Ready>)>);

impl Discipline for BothEnds {
    fn push(&self, task: Ready) {
        self.0.lock().unwrap().1.push_back(task);
    }

    fn pop(&self) -> Option<Ready> {
        let (front, ready) = &mut *self.0.lock().unwrap();
        *front = !*front;
        if *front {
            ready.pop_front()
        } else {
            ready.pop_back()
        }
    }
}

const ALL: [&str; 4] = ["fifo", "lifo", "priorities", "own"];

fn runtime(processors: usize, discipline: &str) -> Runtime {
    let builder = Runtime::builder().processors(processors);
    let builder = match discipline {
        "fifo" => builder.discipline(Fifo::new),
        "lifo" => builder.discipline(Lifo::new),
        "priorities" => builder.discipline(Priorities::new),
        "own" => builder.discipline(BothEnds::default),
        other => panic!("no discipline {other}"),
    };
    builder.build().expect("a runtime starts")
}

/// Its argument is `PROCESSORS DISCIPLINE NAME`.
fn server(argument: &str) {
    let words: Vec<_> = argument.split(' ').collect();
    let [processors, discipline, name] = words[..] else {
        panic!("not three words: {argument}");
    };
    runtime(processors.parse().unwrap(), discipline).block_on(async {
        let server = urpc::serve(name)
            .method("mul", |(a, b): (u64, u64)| async move { a * b })
            .method("later", |n: u64| async move {
                urpc::time::sleep(Duration::from_millis(1)).await;
                n
            })
            .method("sum", |n: u64| async move {
                // Tasks of tasks, of several priorities.
                let parts = (0..n).map(|k| urpc::spawn_with(k as i32 % 3 - 1, async move { k }));
                let parts: Vec<_> = parts.collect();
                let mut sum = 0;
                for part in parts {
                    sum += part.await.unwrap();
                }
                sum
            });
        let _server = server.bind().unwrap();
        say("ready", "");
        urpc::unblock(until_told_to_end).await;
    });
}

fn mul(peer: &Peer, a: u64, b: u64) -> Call<u64> {
    urpc::call(peer, "mul", (a, b))
}

/// Calls one after another, at once, and ones that wait at the server.
async fn calls(peer: &Peer) {
    for n in 0..100 {
        assert_eq!(mul(peer, n, 3).await.unwrap(), n * 3);
    }
    let tasks: Vec<_> = (0..200u64)
        .map(|n| {
            let peer = peer.clone();
            urpc::spawn_with(n as i32 % 7 - 3, async move {
                assert_eq!(mul(&peer, n, n).await.unwrap(), n * n);
                let sum: u64 = urpc::call(&peer, "sum", n % 10).await.unwrap();
                assert_eq!(sum, (0..n % 10).sum::<u64>());
            })
        })
        .collect();
    let later = join_all((0..50u64).map(|n| urpc::call::<u64>(peer, "later", n))).await;
    for (n, later) in (0..).zip(later) {
        assert_eq!(later.unwrap(), n);
    }
    for task in tasks {
        task.await.unwrap();
    }
}

#[test]
fn calls_work_under_every_discipline() {
    let _watch = watchdog();
    let names = Names::new();
    for discipline in ALL {
        for (client, server) in [(1, 1), (1, 0), (2, 2)] {
            let name = names.name(&format!("{discipline}{server}"));
            let process = Process::start("server", &format!("{server} {discipline} {name}"));
            let runtime = runtime(client, discipline);
            runtime.block_on(async {
                let peer = urpc::connect(&name).await.unwrap();
                calls(&peer).await;
            });
            // And from a thread that only waits, while the workers come to rest and are woken.
            let peer = runtime.block_on(async { urpc::connect(&name).await.unwrap() });
            futures::executor::block_on(async {
                for n in 0..50 {
                    assert_eq!(mul(&peer, n, 2).await.unwrap(), n * 2);
                }
            });
            drop(runtime);
            process.finish();
        }
    }
}

#[test]
fn the_end_of_a_runtime_drops_the_tasks_in_its_discipline() {
    static DROPPED: AtomicUsize = AtomicUsize::new(0);
    struct Guard;
    impl Drop for Guard {
        fn drop(&mut self) {
            DROPPED.fetch_add(1, SeqCst);
        }
    }
    let _watch = watchdog();
    for discipline in ALL {
        DROPPED.store(0, SeqCst);
        let runtime = runtime(1, discipline);
        runtime.block_on(async {
            for n in 0..10 {
                let guard = Guard;
                let _detached = urpc::spawn_with(n, async move {
                    let _guard = guard;
                    std::future::pending::<()>().await;
                });
            }
        });
        drop(runtime);
        assert_eq!(DROPPED.load(SeqCst), 10, "{discipline}");
    }
}

#[test]
fn one_builder_builds_runtimes_that_share_no_task() {
    let _watch = watchdog();
    let builder = Runtime::builder().discipline(Lifo::new);
    let (a, b) = (builder.clone().build().unwrap(), builder.build().unwrap());
    let (one, two) = (a.spawn(async { 1 }), b.spawn(async { 2 }));
    assert_eq!(b.block_on(two).unwrap(), 2);
    assert_eq!(a.block_on(one).unwrap(), 1);
}

roles! { "server" => server }
