//! No wake-up is lost, on the real words, between real processes, with processes killed at random.
//!
//! A lost wake-up is not a delay here but a failure: every sleep in these tests has a limit that no
//! machine needs, and who reaches it although it had been called says so. The deaths are at random
//! moments of a seeded sequence. `URPC_STRESS_SECONDS` (2 for each test) and `URPC_STRESS_SEED` choose how
//! long and which.
//!
//! `doorbell`: rest and ring. `lending`: donate, return, reclaim. `calls`: all of it, as the library does it.
#[path = "stress/calls.rs"]
mod calls;
#[macro_use]
mod common;
#[path = "stress/doorbell.rs"]
mod doorbell;
#[path = "stress/lending.rs"]
mod lending;
#[path = "common/raw.rs"]
mod raw;

use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::{Names, Process, say, watchdog};
use raw::{Bound, Random};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, kill_process};
use urpc_channel::{Body, Channel, Kind, Message, OwnPage, PeerPage, WakePage};

/// Longer than any sleep here that is not lost, even on a machine that has much else to do.
const LONG: Duration = Duration::from_secs(10);
/// The steps in the longest life of a process that is to be killed.
const STEPS: u64 = 1000;
/// A word of the presence page that no protocol uses: 1 once its process has failed. The page outlives
/// its maker.
const FAILED: usize = 63;

fn variable(name: &str, default: u64) -> u64 {
    let set = std::env::var(name).ok();
    set.map_or(default, |value| value.parse().expect("a number"))
}

/// One side of a channel, and what goes with it.
struct End {
    channel: Channel,
    socket: UnixStream,
    own: OwnPage,
    peer: PeerPage,
    wakes: WakePage,
    /// The peer's.
    fate: Option<Fate>,
}

impl End {
    fn new(bound: Bound) -> Self {
        let (channel, socket, (own, peer, wakes)) = bound.speak();
        Self {
            channel,
            socket,
            own,
            peer,
            wakes,
            fate: None,
        }
    }

    /// Something was done together.
    fn step(&self) {
        self.fate.iter().for_each(Fate::step);
    }

    fn send(&self, kind: Kind, id: u32) {
        let message = Message {
            kind,
            id,
            procedure: 0,
            deadline_ms: 0,
            body: Body::EMPTY,
        };
        self.channel.send(message).expect("an open channel");
    }

    /// Takes what has come in.
    fn receive(&self, each: impl FnMut(Message)) -> usize {
        let received = self.channel.receive(usize::MAX, each);
        received.expect("the peer keeps to the protocol")
    }

    /// Waits for a ring or the peer's end. False if neither has come within `limit`.
    fn listen(&self, limit: Duration) -> bool {
        let flags = PollFlags::IN | PollFlags::RDHUP;
        let limit = limit.try_into().expect("a short time");
        let ready = poll(&mut [PollFd::new(&self.socket, flags)], Some(&limit));
        ready.expect("poll works") > 0
    }

    /// Takes the rings that have come. False if the peer is gone.
    fn hear(&self) -> bool {
        !raw::is_hung_up(&self.socket)
    }

    /// In a child: plays its part, and lets the other side know if it failed.
    fn play(self, part: impl FnOnce(&End)) {
        let played = catch_unwind(AssertUnwindSafe(|| part(&self)));
        if played.is_err() {
            self.own.word(FAILED).store(1, Ordering::SeqCst);
            std::process::exit(1);
        }
    }

    /// After the child's death.
    fn expect_no_failure(&self) {
        let failed = self.peer.word(FAILED).load(Ordering::Relaxed);
        assert_eq!(failed, 0, "the other process failed before it was killed");
    }
}

/// In a child: binds to its parent. The argument is `SEED PATH`.
fn child(argument: &str) -> (End, Random) {
    let (seed, path) = argument.split_once(' ').unwrap();
    say("ready", "");
    let bound = Bound::connect(path).expect("the parent listens");
    (End::new(bound), Random(seed.parse().unwrap()))
}

/// Does something unimportant for up to some ten microseconds.
fn think(random: &mut Random) {
    let steps = 1 << random.below(12);
    for _ in 0..random.below(steps) {
        std::hint::spin_loop();
    }
}

/// The end of a process after so many steps of what it takes part in, and a moment more: a process that
/// waits for a wake-up that was lost is not helped by another's death.
struct Fate {
    steps: AtomicU64,
    now: Option<Sender<()>>,
    killer: Option<JoinHandle<()>>,
}

impl Fate {
    fn of(process: &Process, random: &mut Random) -> Self {
        let pid = Pid::from_raw(process.pid() as i32).expect("a process");
        let mut moment = Random(random.next());
        let (now, told) = channel::<()>();
        let killer = std::thread::spawn(move || {
            if told.recv().is_ok() {
                think(&mut moment);
                kill_process(pid, Signal::KILL).expect("it is not reaped yet");
            }
        });
        Self {
            steps: AtomicU64::new(random.below(STEPS)),
            now: Some(now),
            killer: Some(killer),
        }
    }

    fn step(&self) {
        if self.steps.fetch_sub(1, Ordering::Relaxed) == 0
            && let Some(now) = &self.now
        {
            now.send(()).expect("the killer listens");
        }
    }
}

impl Drop for Fate {
    fn drop(&mut self) {
        drop(self.now.take());
        if let Some(killer) = self.killer.take() {
            let _ = killer.join();
        }
    }
}

/// Plays round after round until the time is up: a new child in `role`, which is killed at some moment,
/// and `part` here, which has to notice.
fn with_children_that_die(role: &str, mut part: impl FnMut(&End, &mut Random)) {
    let names = Names::new();
    let path = names.name("parent");
    let listener = UnixListener::bind(&path).unwrap();
    let mut random = Random(variable("URPC_STRESS_SEED", 0x9E37_79B9_7F4A_7C15));
    let end = Instant::now() + Duration::from_secs(variable("URPC_STRESS_SECONDS", 2));
    let mut rounds = 0;
    while Instant::now() < end {
        let _w = watchdog();
        let process = Process::start(role, &format!("{} {path}", random.next()));
        let (socket, _) = listener.accept().unwrap();
        let mut here = End::new(Bound::accept(socket, &[]).expect("the child binds"));
        here.fate = Some(Fate::of(&process, &mut random));
        part(&here, &mut random);
        here.expect_no_failure();
        rounds += 1;
    }
    assert!(rounds > 0);
}

#[test]
fn no_ring_is_lost_between_two_processes_that_rest_again_and_again() {
    with_children_that_die("doorbell", doorbell::client);
}

#[test]
fn no_donor_and_no_landing_is_left_asleep_when_landings_die() {
    with_children_that_die("landing", lending::donor);
}

#[test]
fn no_landing_is_left_asleep_when_its_donor_dies() {
    with_children_that_die("donor", lending::landing);
}

#[test]
fn no_call_waits_for_a_limit_when_its_server_has_no_processor() {
    calls::stress(0);
}

#[test]
fn no_call_waits_for_a_limit_when_its_server_has_one_processor() {
    calls::stress(1);
}

fn play_doorbell(argument: &str) {
    let (end, mut random) = child(argument);
    end.play(|end| doorbell::server(end, &mut random));
}

fn play_landing(argument: &str) {
    let (end, mut random) = child(argument);
    end.play(|end| lending::landing(end, &mut random));
}

fn play_donor(argument: &str) {
    let (end, mut random) = child(argument);
    end.play(|end| lending::donor(end, &mut random));
}

roles! {
    "doorbell" => play_doorbell,
    "landing" => play_landing,
    "donor" => play_donor,
    "calls" => calls::server,
}
