//! One processor in all, and calls that go through several processes and come back to the first: it goes where
//! the call goes, and nobody waits for a grant limit. The limits here are so long that the watchdog would notice a
//! single wait for one.
#[macro_use]
mod common;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use common::{Names, Process, for_each_line, say, until_told_to_end, wait_for, watchdog};
use urpc::{Peer, Runtime, Stats};

const CALLS: u64 = 1_000;

fn patient(processors: usize) -> Runtime {
    let builder = Runtime::builder().processors(processors);
    let patient = builder.grant_limit(Duration::from_secs(500));
    patient.build().unwrap()
}

/// `NAME NEXT`: passes calls on to whoever serves `NEXT`, or, with `-`, back to the caller.
fn passer(argument: &str) {
    let (name, next) = argument.split_once(' ').unwrap();
    patient(0).block_on(async {
        let next = match next {
            "-" => None,
            next => Some(urpc::connect(next).await.unwrap()),
        };
        let _server = urpc::serve(name)
            .method("through", move |n: u64| {
                let caller = || urpc::caller().expect("this is a handler").peer();
                let next = next.clone().unwrap_or_else(caller);
                async move {
                    Some(
                        urpc::call::<Option<u64>>(&next, "through", n)
                            .await
                            .ok()??
                            + 1,
                    )
                }
            })
            .method("lent", |()| async {
                let stats = urpc::stats();
                let given = stats.donations_given;
                (given, stats.donations_reclaimed, stats.donations_received)
            })
            .bind()
            .unwrap();
        say("ready", "");
        urpc::unblock(until_told_to_end).await;
    });
}

/// How many processors it has lent, reclaimed and been lent.
async fn lent(peer: &Peer) -> (u64, u64, u64) {
    urpc::call(peer, "lent", ()).await.unwrap()
}

/// Calls through `peer`, one call after the other, then many at once. What that took.
async fn calls(peer: &Peer, passed: u64) -> Stats {
    let through = |n| urpc::call::<Option<u64>>(peer, "through", n);
    for n in 0..CALLS {
        assert_eq!(through(n).await, Ok(Some(n + passed)));
    }
    let one_by_one = peer.stats();
    let all = futures::future::join_all((0..200).map(through)).await;
    for (n, result) in (0..).zip(all) {
        assert_eq!(result, Ok(Some(n + passed)));
    }
    one_by_one
}

#[test]
fn a_call_that_is_called_back_needs_no_more_than_the_callers_processor() {
    let _w = watchdog();
    let names = Names::new();
    let name = names.name("b");
    let process = Process::start("passer", &format!("{name} -"));
    let rt = patient(1);
    rt.block_on(async {
        let connect = urpc::connect(&name).method("through", |n: u64| async move { Some(n) });
        let peer = connect.await.unwrap();
        let stats = calls(&peer, 1).await;
        // There, back for the callback, there again with its reply, and back.
        assert!(stats.donations_given <= 2 * CALLS, "{stats:?}");
        assert!(stats.donations_given > CALLS, "{stats:?}");
        assert!(stats.donations_reclaimed < CALLS / 10, "{stats:?}");
        let (given, _, received) = lent(&peer).await;
        assert!(given == 0 && received > CALLS, "{given} {received}");
    });
    drop(rt);
    process.finish();
}

#[test]
fn a_call_around_three_processes_takes_the_callers_processor_with_it() {
    let _w = watchdog();
    let names = Names::new();
    let [a, b, c] = ["a", "b", "c"].map(|name| names.name(name));
    let rt = patient(1);
    rt.block_on(async {
        let serve = urpc::serve(&a).method("through", |n: u64| async move { Some(n) });
        let _server = serve.bind().unwrap();
        let last = Process::start("passer", &format!("{c} {a}"));
        let middle = Process::start("passer", &format!("{b} {c}"));
        let peer = urpc::connect(&b).await.unwrap();
        let stats = calls(&peer, 2).await;
        // Once around: it comes back the way it went.
        assert!(stats.donations_given <= 2 * CALLS, "{stats:?}");
        assert!(stats.donations_reclaimed < CALLS / 10, "{stats:?}");
        let (given, reclaimed, received) = lent(&peer).await;
        assert!(
            given > CALLS / 2 && received > CALLS / 2,
            "{given} {received}"
        );
        assert!(reclaimed < CALLS / 10, "{reclaimed}");
        let landed = rt.stats().donations_received;
        assert!(landed > CALLS / 2, "it came back as a donation: {landed}");
        drop(peer);
        middle.finish();
        last.finish();
    });
}

/// `NAME`: the end of a row. Each call keeps what serves it until a line comes in.
fn holder(argument: &str) {
    let (let_go, told) = mpsc::channel::<()>();
    let told = Arc::new(Mutex::new(told));
    let rt = patient(0);
    let server = urpc::serve(argument).method("through", move |n: u64| {
        let told = told.clone();
        async move {
            say("held", std::thread::current().name().unwrap());
            told.lock().unwrap().recv().unwrap();
            Some(n)
        }
    });
    let _server = rt.block_on(async { server.bind().unwrap() });
    say("ready", "");
    for_each_line(|_| let_go.send(()).unwrap());
}

/// `NAME`: calls through it whenever it is told to.
fn caller(argument: &str) {
    let rt = patient(1);
    let peer = rt.block_on(urpc::connect(argument)).unwrap();
    say("ready", "");
    for_each_line(|_| {
        let _ = rt.block_on(urpc::call::<Option<u64>>(&peer, "through", 1u64));
        say("done", "");
    });
}

/// Two servers in a row; the last one holds what it gets.
fn row(names: &Names) -> (Process, Process, String) {
    let [middle, last] = ["middle", "last"].map(|name| names.name(name));
    let holder = Process::start("holder", &last);
    let passer = Process::start("passer", &format!("{middle} {last}"));
    (passer, holder, middle)
}

/// The threads that are landings.
fn landings(process: &Process) -> BTreeSet<PathBuf> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", process.pid())).unwrap();
    let tasks = tasks.map(|task| task.unwrap().path());
    // A thread that has just ended has no name.
    let name = |task: &PathBuf| std::fs::read_to_string(task.join("comm")).unwrap_or_default();
    tasks
        .filter(|task| name(task) == "urpc-landing\n")
        .collect()
}

/// Begins calls until one has taken the processor of `rt` all the way.
fn lend_along(rt: &Runtime, peer: &Peer, holder: &mut Process) -> urpc::JoinHandle<Through> {
    loop {
        let call = rt.spawn(urpc::call::<Option<u64>>(peer, "through", 1u64));
        if holder.expect("held") == "urpc-landing" {
            return call;
        }
        holder.tell("let go");
        futures::executor::block_on(call).unwrap().unwrap();
    }
}

type Through = Result<Option<u64>, urpc::CallError>;

#[test]
fn a_processor_lent_onwards_comes_back_when_its_owner_is_woken() {
    let _w = watchdog();
    let names = Names::new();
    let (passer, mut holder, name) = row(&names);
    let rt = patient(1);
    let peer = rt.block_on(urpc::connect(&name)).unwrap();
    let call = lend_along(&rt, &peer, &mut holder);
    let before = peer.stats();
    // Its own process has something to do: the grant is void, and so is the one that was made of it.
    let (_, reclaimed, _) = rt.block_on(lent(&peer));
    if reclaimed == 0 {
        wait_for("the onward grant to end", || rt.block_on(lent(&peer)).1 > 0);
    }
    assert!(peer.stats().donations_reclaimed > before.donations_reclaimed);
    // And the landing in the middle takes the next one.
    let given = peer.stats().donations_given;
    wait_for("the next processor to be lent", || {
        rt.block_on(lent(&peer));
        peer.stats().donations_given > given
    });
    holder.tell("let go");
    assert_eq!(futures::executor::block_on(call).unwrap(), Ok(Some(2)));
    drop((peer, rt));
    passer.finish();
    holder.finish();
}

#[test]
fn a_processor_lent_onwards_comes_back_when_that_process_dies() {
    let _w = watchdog();
    let names = Names::new();
    let (passer, mut holder, name) = row(&names);
    let rt = patient(1);
    let peer = rt.block_on(urpc::connect(&name)).unwrap();
    let call = lend_along(&rt, &peer, &mut holder);
    holder.kill();
    assert_eq!(
        futures::executor::block_on(call).unwrap(),
        Ok(None),
        "its call failed"
    );
    drop((peer, rt));
    passer.finish();
}

#[test]
fn a_landing_that_has_lent_onwards_ends_when_its_donor_dies() {
    let _w = watchdog();
    let names = Names::new();
    let (passer, mut holder, name) = row(&names);
    let mut donor = Process::start("caller", &name);
    loop {
        donor.tell("call");
        if holder.expect("held") == "urpc-landing" {
            break;
        }
        holder.tell("let go");
        donor.expect("done");
    }
    let with_the_donor = landings(&passer);
    donor.kill();
    // The others stay, as their channel does.
    wait_for("the landing to end", || {
        !landings(&passer).is_superset(&with_the_donor)
    });
    holder.tell("let go");
    // Who comes next is served.
    let rt = patient(1);
    let peer = rt.block_on(urpc::connect(&name)).unwrap();
    let call = rt.spawn(urpc::call::<Option<u64>>(&peer, "through", 1u64));
    holder.expect("held");
    holder.tell("let go");
    assert_eq!(futures::executor::block_on(call).unwrap(), Ok(Some(2)));
    drop((peer, rt));
    passer.finish();
    holder.finish();
}

roles! { "passer" => passer, "holder" => holder, "caller" => caller }
