//! A process without processors of its own works in every way, on processors that others lend it; and
//! who lends one never loses it for long.
#[macro_use]
mod common;

use std::sync::mpsc;
use std::time::Duration;

use common::{Names, Process, for_each_line, runtime, say, wait_for, watchdog};
use event_listener::Event;
use rustix::time::{ClockId, clock_gettime};

static WOKEN: Event = Event::new();

/// The argument is `PROCESSORS NAME`, and, for a server that calls another, its name.
fn server(argument: &str) {
    let words: Vec<&str> = argument.split(' ').collect();
    let rt = runtime(words[0].parse().unwrap());
    let next = words
        .get(2)
        .map(|next| rt.block_on(urpc::connect(*next)).unwrap());
    let (unblock, blocked) = mpsc::channel::<()>();
    let blocked = std::sync::Arc::new(std::sync::Mutex::new(blocked));
    let _server = rt.block_on(async {
        urpc::serve(words[1])
            .method("double", |n: u64| async move { 2 * n })
            .method("sleep", |ms: u64| async move {
                urpc::time::sleep(Duration::from_millis(ms)).await;
                say("slept", ms);
                now()
            })
            .method("outlive", |ms: u64| async move {
                drop(urpc::spawn(async move {
                    urpc::time::sleep(Duration::from_millis(ms)).await;
                    urpc::yield_now().await;
                    say("outlived", ms);
                }));
            })
            .method("foreign", |()| async {
                let woken = WOKEN.listen();
                say("waits", "");
                woken.await;
                say("woken", "");
            })
            .method("block", move |()| {
                let blocked = blocked.clone();
                async move {
                    say("blocks", std::thread::current().name().unwrap());
                    blocked.lock().unwrap().recv().unwrap();
                }
            })
            .method("block for", |ms: u64| async move {
                std::thread::sleep(Duration::from_millis(ms));
            })
            .method("nested", move |ms: u64| {
                let next = next.clone();
                async move {
                    let next = next.as_ref().expect("it was named");
                    urpc::call::<u64>(next, "sleep", ms).await.unwrap();
                    urpc::call::<u64>(next, "double", ms).await.unwrap()
                }
            })
            .bind()
            .unwrap()
    });
    say("ready", "");
    // A plain thread, which has nothing to do with the runtime.
    for_each_line(|line| match line {
        "wake" => drop(WOKEN.notify(usize::MAX)),
        _ => unblock.send(()).unwrap(),
    });
}

/// Nanoseconds on a clock that all processes share.
fn now() -> u64 {
    let t = clock_gettime(ClockId::Monotonic);
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

/// A client that makes a call whenever it is told to. The argument is a server's name.
fn client(argument: &str) {
    let rt = runtime(1);
    let peer = rt.block_on(urpc::connect(argument)).unwrap();
    let double = |n: u64| rt.block_on(urpc::call::<u64>(&peer, "double", n)).unwrap();
    assert_eq!(double(1), 2);
    say("ready", "");
    for_each_line(|line| say("answer", double(line.parse().unwrap())));
}

fn start(names: &Names, name: &str, processors: usize) -> (Process, String) {
    let name = names.name(name);
    let server = Process::start("server", &format!("{processors} {name}"));
    (server, name)
}

#[test]
fn a_handler_sleeps_and_its_reply_comes_without_another_call() {
    let _watchdog = watchdog();
    let names = Names::new();
    let (mut server, name) = start(&names, "server", 0);
    for clients in [1, 0] {
        let rt = runtime(clients);
        let peer = rt.block_on(urpc::connect(&name)).unwrap();
        for _ in 0..20 {
            rt.block_on(urpc::call::<u64>(&peer, "sleep", 10u64))
                .unwrap();
            assert_eq!(server.expect("slept"), "10");
        }
    }
    server.finish();
}

#[test]
fn a_handler_goes_on_although_its_client_has_left_the_runtime_alone() {
    let _watchdog = watchdog();
    let names = Names::new();
    let (mut server, name) = start(&names, "server", 0);
    let rt = runtime(1);
    let peer = rt.block_on(urpc::connect(&name)).unwrap();
    for ms in 10..30u64 {
        let call = rt.spawn(urpc::call::<u64>(&peer, "sleep", ms));
        assert_eq!(server.expect("slept"), ms.to_string());
        rt.block_on(call).unwrap().unwrap();
    }
    drop((peer, rt));
    server.finish();
}

#[test]
fn a_handler_is_woken_by_a_plain_thread() {
    let _watchdog = watchdog();
    let names = Names::new();
    let (mut server, name) = start(&names, "server", 0);
    for clients in [1, 0] {
        let rt = runtime(clients);
        let peer = rt.block_on(urpc::connect(&name)).unwrap();
        for _ in 0..20 {
            let call = rt.spawn(urpc::call::<()>(&peer, "foreign", ()));
            server.expect("waits");
            server.tell("wake");
            server.expect("woken");
            rt.block_on(call).unwrap().unwrap();
        }
    }
    server.finish();
}

#[test]
fn a_task_outlives_the_call_that_started_it() {
    let _watchdog = watchdog();
    let names = Names::new();
    let (mut server, name) = start(&names, "server", 0);
    let rt = runtime(1);
    let peer = rt.block_on(urpc::connect(&name)).unwrap();
    for ms in 10..20u64 {
        rt.block_on(urpc::call::<()>(&peer, "outlive", ms)).unwrap();
        assert_eq!(server.expect("outlived"), ms.to_string());
    }
    // Even when there is nobody left who could lend a processor.
    rt.block_on(urpc::call::<()>(&peer, "outlive", 50u64))
        .unwrap();
    drop((peer, rt));
    assert_eq!(server.expect("outlived"), "50");
    server.finish();
}

#[test]
fn a_call_goes_through_a_row_of_processes_without_processors() {
    let _watchdog = watchdog();
    for clients in [1, 0] {
        let names = Names::new();
        let (third, last) = start(&names, "third", 0);
        let name = names.name("second");
        let second = Process::start("server", &format!("0 {name} {last}"));
        let rt = runtime(clients);
        let peer = rt.block_on(urpc::connect(&name)).unwrap();
        for ms in [0, 1, 10u64] {
            let doubled: u64 = rt.block_on(urpc::call(&peer, "nested", ms)).unwrap();
            assert_eq!(doubled, 2 * ms);
        }
        let calls = (0..50u64).map(|n| urpc::call::<u64>(&peer, "nested", n));
        let all = rt.block_on(futures::future::join_all(calls));
        for (n, answer) in (0..).zip(all) {
            assert_eq!(answer.unwrap(), 2 * n);
        }
        drop((peer, rt));
        second.finish();
        third.finish();
    }
}

#[test]
fn a_client_without_processors_calls_from_block_on() {
    let _watchdog = watchdog();
    for servers in [1, 0] {
        let names = Names::new();
        let (server, name) = start(&names, "server", servers);
        let rt = runtime(0);
        let peer = rt.block_on(urpc::connect(&name)).unwrap();
        for n in 0..500u64 {
            let answer: u64 = rt.block_on(urpc::call(&peer, "double", n)).unwrap();
            assert_eq!(answer, 2 * n);
        }
        let tasks: Vec<_> = (0..500u64)
            .map(|n| rt.spawn(urpc::call::<u64>(&peer, "double", n)))
            .collect();
        rt.block_on(async {
            for (n, task) in (0..).zip(tasks) {
                assert_eq!(task.await.unwrap().unwrap(), 2 * n);
            }
        });
        drop((peer, rt));
        server.finish();
    }
}

#[test]
fn processors_are_lent_and_come_back() {
    let _watchdog = watchdog();
    let names = Names::new();
    let (server, name) = start(&names, "server", 0);
    let rt = runtime(1);
    rt.block_on(async {
        let peer = urpc::connect(&name).await.unwrap();
        for n in 0..1000u64 {
            urpc::call::<u64>(&peer, "double", n).await.unwrap();
        }
        let stats = peer.stats();
        assert!(
            stats.donations_given > 0 && stats.donations_returned > 0,
            "{stats:?}"
        );
        assert!(stats.crossings >= 2 * stats.donations_returned, "{stats:?}");
    });
    drop(rt);
    server.finish();
}

#[test]
fn a_reply_reaches_a_client_whose_only_processor_is_lent_to_another_server() {
    let _watchdog = watchdog();
    let names = Names::new();
    let (blocked, keeps) = start(&names, "keeps", 0);
    let (other, replies) = start(&names, "replies", 1);
    // The grant limit is not what brings the processor back here.
    let long = urpc::Runtime::builder().grant_limit(Duration::from_secs(10));
    let rt = long.processors(1).build().unwrap();
    let round = || {
        rt.block_on(async {
            let keeps = urpc::connect(&keeps).await.unwrap();
            let replies = urpc::connect(&replies).await.unwrap();
            let mut late = Vec::new();
            for _ in 0..21 {
                let kept = urpc::spawn(urpc::call::<()>(&keeps, "block for", 30u64));
                let replied: u64 = urpc::call(&replies, "sleep", 5u64).await.unwrap();
                late.push(Duration::from_nanos(now() - replied));
                kept.await.unwrap().unwrap();
            }
            assert!(keeps.stats().donations_reclaimed > 0, "{:?}", keeps.stats());
            late.sort_unstable();
            late
        })
    };
    // Three rounds, since other programs may have the CPUs; a processor that stays away does so always.
    let mut late = Vec::new();
    let soon = (0..3).any(|_| {
        late = round();
        late[20] < Duration::from_millis(5) && late[10] < Duration::from_millis(1)
    });
    assert!(soon, "replies came late: {late:?}");
    drop(rt);
    blocked.finish();
    other.finish();
}

#[test]
fn a_donor_goes_on_at_the_grant_limit_while_its_handler_blocks() {
    let _watchdog = watchdog();
    let names = Names::new();
    let (mut server, name) = start(&names, "server", 0);
    let rt = runtime(1);
    let peer = rt.block_on(urpc::connect(&name)).unwrap();
    // Once by the limit alone: nothing else happens until the processor is back. (The server may still
    // be up by itself, and so serve a call on no processor of ours.)
    let lent = (0..1000).any(|_| {
        let before = peer.stats().donations_reclaimed;
        let call = rt.spawn(urpc::call::<()>(&peer, "block", ()));
        let lent = server.expect("blocks") == "urpc-landing";
        if lent {
            wait_for("the donor to go on", || {
                peer.stats().donations_reclaimed > before
            });
            assert!(!call.is_finished());
        }
        server.tell("go on");
        rt.block_on(call).unwrap().unwrap();
        lent
    });
    assert!(lent, "{:?}", peer.stats());

    // And another task goes on meanwhile. The limit is 5 ms; what is beyond is other programs on these
    // CPUs, and they are not there every time.
    wait_for(
        "a donor to be back long before its handler has ended",
        || {
            let longest = rt.block_on(async {
                let call = urpc::spawn(urpc::call::<()>(&peer, "block for", 50u64));
                let mut longest = Duration::ZERO;
                while !call.is_finished() {
                    let before = std::time::Instant::now();
                    urpc::time::sleep(Duration::from_millis(1)).await;
                    longest = longest.max(before.elapsed());
                }
                call.await.unwrap().unwrap();
                longest
            });
            longest < Duration::from_millis(40)
        },
    );
    drop((peer, rt));
    server.finish();
}

/// Nanoseconds of CPU time of all threads of a process.
fn cpu_time(process: &Process) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", process.pid())).unwrap();
    let of_task = |task: std::io::Result<std::fs::DirEntry>| {
        let text = std::fs::read_to_string(task.unwrap().path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    };
    tasks.filter_map(of_task).sum()
}

#[test]
fn two_bound_processes_that_idle_use_no_cpu_and_then_go_on() {
    let _watchdog = watchdog();
    let names = Names::new();
    let pairs: Vec<_> = [0, 1]
        .map(|processors| {
            let (server, name) = start(&names, &format!("server{processors}"), processors);
            (server, Process::start("client", &name))
        })
        .into();
    let all = |pairs: &[(Process, Process)]| -> Vec<u64> {
        let both = |(server, client): &(Process, Process)| [cpu_time(server), cpu_time(client)];
        pairs.iter().flat_map(both).collect()
    };
    // Starting up has an end, and so has spinning. What the kernel does in a process's name, such as an
    // interrupt, counts as its time: so one window of several has to be quiet, but that to the end.
    wait_for(
        "two seconds in which no idle process uses a millisecond",
        || {
            let before = all(&pairs);
            std::thread::sleep(Duration::from_secs(2));
            let used = all(&pairs).into_iter().zip(before);
            let most = used
                .map(|(after, before)| after.saturating_sub(before))
                .max();
            most.unwrap() < 1_000_000
        },
    );
    for (server, mut client) in pairs {
        client.tell("21");
        assert_eq!(client.expect("answer"), "42");
        client.finish();
        server.finish();
    }
}

roles! { "server" => server, "client" => client }
