//! Processes that are stopped or killed while a processor is lent, 200 times each: nobody hangs, the donor
//! goes on, the other peers notice nothing, and no thread, descriptor or binding to a CPU is left behind.
//!
//! Nothing here is left to chance. A handler says that a landing has entered it, and keeps that landing; a
//! donor that has lent its processor then waits for that one.
//!
//! Each test is played in a process of its own, since its threads and descriptors are counted.
#[macro_use]
mod common;
#[path = "signals/state.rs"]
mod state;

use std::sync::mpsc::{TryRecvError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{Names, Process, for_each_line, runtime, say, wait_for, watchdog};
use futures::executor::block_on;
use state::State;
use urpc::{Call, CallErrorKind, Peer, Runtime};

/// How often each of it is done.
const TIMES: u64 = 200;
/// The default, said once more for what is measured.
const GRANT_LIMIT: Duration = Duration::from_millis(5);
/// A grant limit that is not what ends a donation.
const FAR: Duration = Duration::from_secs(600);

/// A server without processors. The argument is its name.
fn donee(name: &str) {
    let (release, released) = channel::<()>();
    let released = Arc::new(Mutex::new(released));
    let rt = runtime(0);
    let _server = rt.block_on(async {
        urpc::serve(name)
            .method("double", |n: u64| async move { 2 * n })
            .method("hold", move |spins: bool| {
                let released = Arc::clone(&released);
                async move {
                    // Only a landing: the one thread that comes up for a ring is there for the others.
                    let landing = std::thread::current().name() == Some("urpc-landing");
                    if landing {
                        let released = released.lock().unwrap();
                        say("inside", "");
                        while spins && released.try_recv() == Err(TryRecvError::Empty) {
                            std::hint::spin_loop();
                        }
                        if !spins {
                            released.recv().unwrap();
                        }
                    }
                    landing
                }
            })
            .bind()
            .unwrap()
    });
    say("ready", "");
    for_each_line(|_| release.send(()).unwrap());
}

/// A client that lends its processor and does not get it back. The argument is `NAME SPINS`.
fn donor(argument: &str) {
    let (name, spins) = argument.split_once(' ').unwrap();
    let spins = spins.parse().unwrap();
    let rt = patient();
    let peer = rt.block_on(urpc::connect(name)).unwrap();
    drop(rt.spawn(until_held(peer.clone(), spins)));
    say("ready", "");
    for_each_line(|_| say("lent", is_lent(&peer)));
}

/// A client's runtime, with one processor and no grant limit to speak of.
fn patient() -> Runtime {
    let builder = urpc::Runtime::builder().processors(1).grant_limit(FAR);
    builder.build().unwrap()
}

/// Ends when a landing that kept our processor was released.
async fn until_held(peer: Peer, spins: bool) -> Result<(), urpc::CallError> {
    loop {
        if urpc::call::<bool>(&peer, "hold", spins).await? {
            return Ok(());
        }
    }
}

/// Whether the processor is lent right now: to the landing that has entered `hold`, since there is one only. (A donor
/// may have been woken by something else before, such as a ring that came late.)
fn is_lent(peer: &Peer) -> bool {
    peer.stats().crossings % 2 == 1
}

fn double(peer: &Peer) -> Call<u64> {
    urpc::call(peer, "double", 21u64)
}

/// Calls until the peer is lent a processor: it is trusted (again), and its landing answers.
fn until_lent(rt: &Runtime, peer: &Peer) {
    let before = peer.stats().donations_given;
    wait_for("a processor to be lent", || {
        assert_eq!(rt.block_on(double(peer)), Ok(42));
        peer.stats().donations_given > before
    });
}

/// Plays `round` until it has hit so many times, and says so each time. Nothing of it stays in these processes.
fn play(processes: &[u32], mut round: impl FnMut(u64) -> bool) {
    // The first one makes what is made once.
    while !round(0) {}
    let states = || processes.iter().filter_map(|&pid| State::of(pid));
    let before: Vec<State> = states().collect();
    assert_eq!(before.len(), processes.len());
    let mut hits = 0;
    while hits < TIMES {
        if round(hits) {
            hits += 1;
            say("hit", "");
        }
    }
    let left = |now: &[State]| {
        !now.iter()
            .zip(&before)
            .all(|(now, before)| now.is_back_at(before))
    };
    let begun = Instant::now();
    let mut now: Vec<State> = states().collect();
    while now.len() < before.len() || left(&now) {
        let late = begun.elapsed() > Duration::from_secs(10);
        assert!(!late, "{before:#?} has become {now:#?}");
        std::thread::sleep(Duration::from_millis(1));
        now = states().collect();
    }
}

/// Donees that are stopped. The argument is a folder for names.
fn stop_donees(folder: &str) {
    let name = format!("{folder}/stopped");
    let mut process = Process::start("donee", &name);
    let other = format!("{folder}/other");
    let others = Process::start("donee", &other);
    let rt = runtime(1);
    let [peer, other] = [name, other].map(|name| rt.block_on(urpc::connect(&name)).unwrap());
    say("ready", "");
    let mut late = Vec::new();
    play(&[std::process::id(), process.pid(), others.pid()], |n| {
        until_lent(&rt, &peer);
        let begun = Instant::now();
        let held = rt.spawn(until_held(peer.clone(), n % 2 == 0));
        process.expect("inside");
        process.stop();
        let reclaimed = || peer.stats().donations_reclaimed;
        let before = reclaimed();
        let hit = is_lent(&peer);
        if hit {
            wait_for("the donor to go on at the grant limit", || {
                reclaimed() > before
            });
            late.push(begun.elapsed());
        }
        assert_eq!(rt.block_on(double(&other)), Ok(42), "of a peer that runs");
        assert!(!held.is_finished());
        process.go_on();
        process.tell("go on");
        rt.block_on(held).unwrap().unwrap();
        hit
    });
    let soon = late
        .iter()
        .filter(|&&late| late <= GRANT_LIMIT + Duration::from_millis(20));
    say(
        "measured",
        format!(
            "{} of {} within the grant limit + 20 ms",
            soon.count(),
            late.len()
        ),
    );
    drop((peer, other, rt));
    process.finish();
    others.finish();
}

/// Donees that are killed. The argument is a folder for names.
fn kill_donees(folder: &str) {
    let name = format!("{folder}/killed");
    let other = format!("{folder}/other");
    let others = Process::start("donee", &other);
    let rt = patient();
    let other = rt.block_on(urpc::connect(&other)).unwrap();
    say("ready", "");
    play(&[std::process::id(), others.pid()], |n| {
        let mut process = Process::start("donee", &name);
        let peer = rt.block_on(urpc::connect(&name)).unwrap();
        let held = rt.spawn(until_held(peer.clone(), n % 2 == 0));
        process.expect("inside");
        let before = peer.stats().donations_reclaimed;
        let hit = is_lent(&peer);
        process.kill();
        let end = block_on(held).unwrap().unwrap_err();
        assert_eq!(end.kind(), CallErrorKind::Closed, "{end}");
        assert_eq!(rt.block_on(double(&other)), Ok(42), "of a peer that lives");
        // The limit is far away: it is its death that has brought the processor back.
        let after = peer.stats();
        let reclaimed = after.donations_reclaimed - before;
        assert!(!hit || reclaimed == 1, "{reclaimed} reclaimed: {after:?}");
        hit
    });
    drop((other, rt));
    others.finish();
}

/// Donors that are killed. The argument is a folder for names.
fn kill_donors(folder: &str) {
    let name = format!("{folder}/donee");
    let mut process = Process::start("donee", &name);
    let rt = runtime(1);
    let peer = rt.block_on(urpc::connect(&name)).unwrap();
    // A thread for the processor, which is otherwise made when it is first missed.
    block_on(rt.spawn(async {})).unwrap();
    say("ready", "");
    play(&[std::process::id(), process.pid()], |n| {
        let mut donor = Process::start("donor", &format!("{name} {}", n % 2 == 0));
        process.expect("inside");
        // It has no other processor, and will not have that one back before the landing is released.
        donor.tell("look");
        let hit = donor.expect("lent") == "true";
        donor.kill();
        assert_eq!(rt.block_on(double(&peer)), Ok(42), "of a client that lives");
        process.tell("go on");
        assert_eq!(rt.block_on(double(&peer)), Ok(42), "of a client that lives");
        hit
    });
    drop((peer, rt));
    process.finish();
}

/// Plays one of these, and waits for each hit.
fn watch(role: &str) -> Process {
    let names = Names::new();
    let mut process = Process::start(role, names.path().to_str().unwrap());
    for _ in 0..TIMES {
        let _watchdog = watchdog();
        process.expect("hit");
    }
    process
}

#[test]
fn a_donor_goes_on_whenever_its_donee_is_stopped() {
    let mut process = watch("stop donees");
    let _watchdog = watchdog();
    println!("donors went on: {}", process.expect("measured"));
    process.finish();
}

#[test]
fn a_donor_goes_on_whenever_its_donee_is_killed() {
    let process = watch("kill donees");
    let _watchdog = watchdog();
    process.finish();
}

#[test]
fn a_donee_serves_others_whenever_its_donor_is_killed() {
    let process = watch("kill donors");
    let _watchdog = watchdog();
    process.finish();
}

roles! {
    "donee" => donee,
    "donor" => donor,
    "stop donees" => stop_donees,
    "kill donees" => kill_donees,
    "kill donors" => kill_donors,
}
