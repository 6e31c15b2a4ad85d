//! Several processors lent at once: by one process to one, by one to several, by several to one.
#[macro_use]
mod common;

use std::sync::{Condvar, Mutex};
use std::time::Duration;

use common::{Names, Process, for_each_line, say, wait_for, watchdog};
use urpc::{Peer, Runtime};

/// How often those who hold a processor were told to let it go.
static LET_GO: (Mutex<u32>, Condvar) = (Mutex::new(0), Condvar::new());

/// Serves at `NAME` a procedure that keeps its processor until a line comes in.
fn holder(argument: &str) {
    let rt = Runtime::builder().processors(0).build().unwrap();
    let server = urpc::serve(argument).method("hold", |()| async {
        let times = LET_GO.0.lock().unwrap();
        let before = *times;
        say("held", std::thread::current().name().unwrap());
        drop(LET_GO.1.wait_while(times, |now| *now == before).unwrap());
    });
    let _server = rt.block_on(async { server.bind().unwrap() });
    say("ready", "");
    for_each_line(|_| {
        *LET_GO.0.lock().unwrap() += 1;
        LET_GO.1.notify_all();
    });
}

fn start(names: &Names, name: &str) -> (Process, String) {
    let name = names.name(name);
    (Process::start("holder", &name), name)
}

/// A client that means to wait for its processors.
fn patient(processors: usize) -> Runtime {
    let builder = Runtime::builder().processors(processors);
    let rt = builder
        .grant_limit(Duration::from_secs(20))
        .build()
        .unwrap();
    // Each processor has its thread from here on: none has to be called back for want of one.
    let all = std::sync::Arc::new(std::sync::Barrier::new(processors));
    let threads: Vec<_> = (0..processors)
        .map(|_| {
            let all = all.clone();
            rt.spawn(async move { all.wait().is_leader() })
        })
        .collect();
    for thread in threads {
        futures::executor::block_on(thread).unwrap();
    }
    rt
}

fn connect(rt: &Runtime, name: &str) -> Peer {
    let connecting = rt.spawn(urpc::connect(name));
    futures::executor::block_on(connecting).unwrap().unwrap()
}

/// Two calls, one after the other, that keep what serves them at the same time. Whether that was a processor
/// lent, of each; `at` says which of the servers it is.
fn hold(calls: [(&Runtime, &Peer); 2], servers: &mut [Process], at: [usize; 2]) -> [bool; 2] {
    let mut begun = Vec::new();
    let lent = [0, 1].map(|i| {
        let (rt, peer) = calls[i];
        begun.push(rt.spawn(urpc::call::<()>(peer, "hold", ())));
        servers[at[i]].expect("held") == "urpc-landing"
    });
    for server in servers {
        server.tell("let go");
    }
    for call in begun {
        futures::executor::block_on(call).unwrap().unwrap();
    }
    lent
}

/// Until both were lent, if there are enough CPUs for that at one server: a ring may have been faster.
fn both_are_lent(calls: [(&Runtime, &Peer); 2], servers: &mut [Process], at: [usize; 2]) {
    let cpus = urpc_donate::allowed_cpus();
    let landings = if at[0] == at[1] { cpus.min(2) } else { 2 };
    // Given, once they are back, and returned.
    let counts = || {
        let one_peer = std::ptr::eq(calls[0].1, calls[1].1);
        let peers = calls[usize::from(one_peer)..].iter();
        let stats = peers.map(|(_, peer)| peer.stats());
        stats.fold((0, 0), |sum, stats| {
            (
                sum.0 + stats.donations_given,
                sum.1 + stats.donations_returned,
            )
        })
    };
    for _ in 0..50 {
        let before = counts();
        let lent = hold(calls, servers, at).into_iter().filter(|lent| *lent);
        let lent = lent.count();
        assert!(lent <= landings, "more landings run than there are CPUs");
        if lent == landings {
            let lent = lent as u64;
            wait_for("both to be back", || counts().0 >= before.0 + lent);
            // One is called back if the other was not there yet when the second call was begun.
            if counts().1 >= before.1 + lent {
                return;
            }
        }
    }
    panic!("they were never lent at once: {:?}", counts());
}

#[test]
fn two_processors_of_one_client_are_lent_to_one_server() {
    let _w = watchdog();
    let names = Names::new();
    let (server, name) = start(&names, "s");
    let rt = patient(2);
    let peer = connect(&rt, &name);
    both_are_lent([(&rt, &peer); 2], &mut [server], [0, 0]);
}

#[test]
fn two_processors_of_one_client_are_lent_to_two_servers() {
    let _w = watchdog();
    let names = Names::new();
    let (one, first) = start(&names, "one");
    let (other, second) = start(&names, "other");
    let rt = patient(2);
    let (first, second) = (connect(&rt, &first), connect(&rt, &second));
    both_are_lent([(&rt, &first), (&rt, &second)], &mut [one, other], [0, 1]);
}

#[test]
fn two_clients_lend_to_one_server() {
    let _w = watchdog();
    let names = Names::new();
    let (server, name) = start(&names, "s");
    let (one, other) = (patient(1), patient(1));
    let (first, second) = (connect(&one, &name), connect(&other, &name));
    both_are_lent([(&one, &first), (&other, &second)], &mut [server], [0, 0]);
}

roles! { "holder" => holder }
