//! A client can be underpowered, too (R23): whoever has messages for it and nothing to do lends it a processor,
//! whichever side connected. Grant limits are so long here that the watchdog would notice a wait for one.
#[macro_use]
mod common;

use std::time::Duration;

use common::{Names, Process, for_each_line, say, watchdog};
use urpc::{Peer, Runtime, Stats};

fn patient(processors: usize) -> Runtime {
    let builder = Runtime::builder().processors(processors);
    let patient = builder.grant_limit(Duration::from_secs(20));
    patient.build().unwrap()
}

async fn double(n: u64) -> u64 {
    2 * n
}

/// So many tasks that call at the same time, so many times each.
fn call(rt: &Runtime, peer: &Peer, tasks: u64, calls: u64) {
    let task = |_| {
        let peer = peer.clone();
        rt.spawn(async move {
            for n in 0..calls {
                assert_eq!(urpc::call(&peer, "double", n).await, Ok(2 * n));
            }
        })
    };
    let tasks: Vec<_> = (0..tasks).map(task).collect();
    for task in tasks {
        rt.block_on(task).unwrap();
    }
}

/// `PROCESSORS NAME`: connects, offers `double`, and calls when it is told `TASKS CALLS`.
fn client(argument: &str) {
    let (processors, name) = argument.split_once(' ').unwrap();
    let rt = patient(processors.parse().unwrap());
    let peer = rt.block_on(urpc::connect(name).method("double", double));
    let peer = peer.unwrap();
    rt.block_on(urpc::call::<()>(&peer, "here", ())).unwrap();
    say("ready", "");
    for_each_line(|line| {
        let (tasks, calls) = line.split_once(' ').unwrap();
        call(&rt, &peer, tasks.parse().unwrap(), calls.parse().unwrap());
        let Stats {
            donations_given,
            donations_received,
            donations_reclaimed,
            ..
        } = rt.stats();
        say(
            "lent",
            format!("{donations_given} {donations_received} {donations_reclaimed}"),
        );
    });
}

/// A server in this process, whose client is another one. The client as a peer is what it calls back.
fn with_client(
    processors: usize,
    clients: usize,
    part: impl FnOnce(&Runtime, &Peer, &mut Process),
) {
    let names = Names::new();
    let name = names.name("s");
    let rt = patient(processors);
    let (sender, receiver) = std::sync::mpsc::channel();
    let server = urpc::serve(&name)
        .method("double", double)
        .method("here", move |()| {
            let _ = sender.send(urpc::caller().unwrap().peer());
            async {}
        });
    let _server = rt.block_on(async { server.bind().unwrap() });
    let mut process = Process::start("client", &format!("{clients} {name}"));
    let peer = receiver.recv().unwrap();
    part(&rt, &peer, &mut process);
    drop(rt);
    process.finish();
}

#[test]
fn a_client_without_processors_is_lent_one_for_replies_and_for_calls() {
    let _w = watchdog();
    with_client(1, 0, |rt, peer, client| {
        client.tell("1 300");
        client.expect("lent");
        let for_replies = rt.stats();
        assert!(for_replies.donations_given > 0, "{for_replies:?}");
        call(rt, peer, 1, 300);
        let stats = rt.stats();
        assert!(
            stats.donations_given > for_replies.donations_given,
            "{stats:?}"
        );
        assert!(stats.donations_reclaimed < 50, "{stats:?}");
        assert_eq!(peer.stats().donations_received, 0, "it has none to lend");
    });
}

#[test]
fn one_processor_serves_all_replies_that_wait_for_a_client() {
    let _w = watchdog();
    with_client(1, 0, |rt, _, client| {
        client.tell("64 200");
        client.expect("lent");
        let stats = rt.stats();
        assert!(stats.donations_given > 0, "{stats:?}");
        assert!(stats.donations_given < stats.served / 8, "{stats:?}");
    });
}

#[test]
fn a_client_whose_processors_rest_is_lent_one_when_it_is_called() {
    let _w = watchdog();
    with_client(1, 1, |rt, peer, client| {
        // Not while a processor of its own is awake from the last time; and one that is lent may be back before
        // it has arrived.
        let mut received = String::from("0");
        while received == "0" {
            std::thread::sleep(Duration::from_millis(1));
            call(rt, peer, 1, 1);
            client.tell("1 1");
            let lent = client.expect("lent"); // given, received, reclaimed
            received = lent.split(' ').nth(1).unwrap().to_owned();
        }
        assert!(rt.stats().donations_given > 0);
    });
}

#[test]
fn two_that_lend_to_each_other_at_once_both_go_on() {
    let _w = watchdog();
    for tasks in [1, 8, 64] {
        with_client(1, 1, |rt, peer, client| {
            // One waits for the other's processor, which waits for the first one's: at some of these calls.
            client.tell(&format!("{tasks} 300"));
            call(rt, peer, tasks, 300);
            let lent = client.expect("lent");
            let stats = rt.stats();
            let ends = stats.donations_returned + stats.donations_reclaimed;
            assert_eq!(stats.donations_given, ends);
            assert!(
                stats.donations_given <= 2 * (stats.calls + stats.served),
                "{stats:?} {lent}"
            );
        });
    }
}

#[test]
fn a_full_ring_is_a_reason_to_lend_a_processor_both_ways() {
    let _w = watchdog();
    // Three laps of a ring at a time, with replies that fill the other one. Where the ringing of a busy worker comes
    // first, the peer serves them on its own; so it is tried until processors were lent.
    with_client(1, 0, |rt, peer, client| {
        let lent = |part: &mut dyn FnMut()| {
            let before = rt.stats();
            loop {
                part();
                let after = rt.stats();
                let given = after.donations_given - before.donations_given;
                let calls = after.calls + after.served - before.calls - before.served;
                assert!(given < calls / 4, "{before:?} {after:?}");
                if given >= 3 {
                    break;
                }
            }
        };
        lent(&mut || call(rt, peer, 768, 4));
        lent(&mut || {
            client.tell("768 4");
            client.expect("lent");
        });
    });
}

roles! { "client" => client }
