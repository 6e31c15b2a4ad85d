//! A runtime's policy can be replaced, and does no harm to others whatever it says: calls are served, with
//! a processor here, there, or nowhere but in a third place.
#[macro_use]
mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::{Names, Process, say, watchdog};
use urpc::policy::{Action, Here, Optimistic, PeerView, Policy};

/// Answers that are no good.
const STUBBORN: [(&str, Action); 9] = [
    ("run", Action::Run),
    ("scan", Action::Scan),
    ("return", Action::Return),
    ("rest", Action::Rest(None)),
    ("rest a little", Action::Rest(Some(Duration::ZERO))),
    ("ring", Action::Ring(0)),
    ("ring nobody", Action::Ring(usize::MAX)),
    ("donate", Action::Donate { to: 0, ring: true }),
    (
        "donate to nobody",
        Action::Donate {
            to: usize::MAX,
            ring: false,
        },
    ),
];

/// Always says the same.
struct Stubborn(Action);

impl Policy for Stubborn {
    fn decide(&self, _: &Here, _: &[PeerView]) -> Action {
        self.0
    }
}

/// The paper's policy, and counts what it said.
#[derive(Clone, Default)]
struct Counted(Arc<[AtomicU64; 3]>);

impl Policy for Counted {
    fn decide(&self, here: &Here, peers: &[PeerView]) -> Action {
        let action = Optimistic.decide(here, peers);
        match action {
            Action::Donate { .. } if here.ready => self.0[0].fetch_add(1, Ordering::Relaxed),
            Action::Donate { .. } => self.0[1].fetch_add(1, Ordering::Relaxed),
            _ => self.0[2].fetch_add(1, Ordering::Relaxed),
        };
        action
    }
}

/// Never lends.
struct Miser;

impl Policy for Miser {
    fn decide(&self, here: &Here, peers: &[PeerView]) -> Action {
        let here = Here {
            may_lend: false,
            ..*here
        };
        Optimistic.decide(&here, peers)
    }
}

/// The argument is `PROCESSORS NAME POLICY`; the last may be empty.
fn server(argument: &str) {
    let mut words = argument.splitn(3, ' ');
    let processors = words.next().unwrap().parse().unwrap();
    let name = words.next().unwrap();
    let mut builder = urpc::Runtime::builder().processors(processors);
    let said = words.next().unwrap();
    if let Some((_, action)) = STUBBORN.iter().find(|(word, _)| *word == said) {
        builder = builder.policy(Stubborn(*action));
    }
    builder.build().unwrap().block_on(async {
        let _server = urpc::serve(name)
            .method("double", |n: u64| async move { 2 * n })
            .method("late", |n: u64| async move {
                urpc::time::sleep(Duration::from_millis(1)).await;
                2 * n
            })
            .bind()
            .unwrap();
        say("ready", "");
        urpc::unblock(common::until_told_to_end).await;
    });
}

fn start(names: &Names, processors: usize, policy: &str) -> (Process, String) {
    let name = names.name("s");
    let process = Process::start("server", &format!("{processors} {name} {policy}"));
    (process, name)
}

/// Calls one by one, and many at once.
fn call(rt: &urpc::Runtime, name: &str) -> urpc::Stats {
    rt.block_on(async {
        let peer = urpc::connect(name).await.unwrap();
        for n in 0..20u64 {
            assert_eq!(urpc::call(&peer, "double", n).await, Ok(2 * n));
        }
        let late = (0..20u64).map(|n| urpc::spawn(urpc::call::<u64>(&peer, "late", n)));
        for (n, call) in (0..).zip(late.collect::<Vec<_>>()) {
            assert_eq!(call.await.unwrap(), Ok(2 * n));
        }
        peer.stats()
    })
}

#[test]
fn a_client_whose_policy_is_no_good_is_served_all_the_same() {
    let _watchdog = watchdog();
    for processors in [0, 1] {
        let names = Names::new();
        let (server, name) = start(&names, processors, "");
        for (_, action) in STUBBORN {
            let builder = urpc::Runtime::builder().policy(Stubborn(action));
            call(&builder.build().unwrap(), &name);
        }
        server.finish();
    }
}

#[test]
fn a_server_whose_policy_is_no_good_serves_all_the_same() {
    let _watchdog = watchdog();
    for processors in [0, 1] {
        for (policy, _) in STUBBORN {
            let names = Names::new();
            let (server, name) = start(&names, processors, policy);
            call(&common::runtime(1), &name);
            server.finish();
        }
    }
}

#[test]
fn a_policy_is_asked_before_a_processor_is_lent() {
    let _watchdog = watchdog();
    let names = Names::new();
    let (server, name) = start(&names, 0, "");
    let counted = Counted::default();
    let builder = urpc::Runtime::builder().policy(counted.clone());
    // Not each time: the server may still be up from the last ring, and faster.
    let rt = builder.build().unwrap();
    while call(&rt, &name).donations_given == 0 {}
    let said = counted.0.each_ref().map(|n| n.load(Ordering::Relaxed));
    assert_eq!(said[0], 0, "tasks were ready, and nothing was urgent");
    assert!(said[1] >= rt.stats().donations_given);
    assert!(said[2] > 0);
    drop(rt);

    let miser = urpc::Runtime::builder().policy(Miser).build().unwrap();
    while call(&miser, &name).rings == 0 {}
    assert_eq!(miser.stats().donations_given, 0);
    drop(miser);
    server.finish();
}

#[test]
fn every_call_of_an_urgent_runtime_is_urgent() {
    let _watchdog = watchdog();
    let names = Names::new();
    let (server, name) = start(&names, 0, "");
    let counted = Counted::default();
    let builder = urpc::Runtime::builder().policy(counted.clone());
    let rt = builder.urgent(true).build().unwrap();
    rt.block_on(async {
        let peer = urpc::connect(&name).await.unwrap();
        let busy = urpc::spawn(async {
            loop {
                urpc::yield_now().await;
            }
        });
        // Not each one: the server may still be up from the last ring, and faster.
        while counted.0[0].load(Ordering::Relaxed) == 0 || peer.stats().donations_given == 0 {
            assert_eq!(urpc::call(&peer, "double", 4u64).await, Ok(8u64));
        }
        drop(busy);
    });
    drop(rt);
    server.finish();
}

roles! { "server" => server }
