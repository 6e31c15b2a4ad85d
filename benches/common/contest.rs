//! Four measurements, the same for whatever carries calls between two processes.
//!
//! - **null**: a call without arguments, one in flight; and **64 in flight**, calls a second.
//! - **first after 10 ms**: a call after a pause in which nobody does anything.
//! - **idle**: CPU that both processes burn while nobody calls.
//!
//! In each round everybody has a turn, alone: started for it and ended after it, so that no one is disturbed by
//! another that polls. Where two processes run matters more than how they talk, and differently for each
//! line. So each but urpc is measured in several places, and a line shows it where it did best. Beside whoever
//! polls stands a urpc that polls, too: both burn a CPU so that nobody has to be woken.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::time::ClockId;
use nix::unistd::Pid;

use super::base::{Handover, Ping, Raw};
use super::child::{Child, pin, pinned, ready, two_cpus, until_told_to_end};
use super::pair::Pair;
use super::report::{Args, Base, Figure, Report, median};
use super::shared::Shared;

const IN_FLIGHT: u32 = 64;
/// After so long a server sleeps, and so does a CPU.
const PAUSE: Duration = Duration::from_millis(10);
/// First calls after a pause, in one turn.
const FIRST: u32 = 25;
/// So long calls are made before they are measured, and so long while they are.
const WARM_UP: Duration = Duration::from_millis(20);
const MEASURED: Duration = Duration::from_millis(100);
const IDLE_TIME: Duration = Duration::from_millis(500);
/// Round trips of one base measurement.
const RAW: u32 = 100_000;

/// The lines of the table, each with its unit.
const LINES: [(&str, &str); 4] = [
    ("null", "ns"),
    ("64 in flight", "calls/s"),
    ("first after 10 ms", "ns"),
    ("idle", "ms CPU/s"),
];
/// The line that is a rate; it is measured as nanoseconds too.
const RATE: usize = 1;
/// The line whose base is a CPU.
const IDLE: usize = 3;
const ONE_CPU: Base = Base::Other("one CPU");
/// Less than a thousandth of a CPU is nothing: who burns less of it is not ahead.
const NOTHING: f64 = 1.0;

/// What one turn brought for each line: less is better.
type Turn = [f64; LINES.len()];

/// Where a client and its server run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Where the kernel likes.
    Free,
    /// Both on one CPU.
    Together,
    /// Each on a CPU of its own.
    Apart,
}

impl Place {
    pub const ALL: &'static [Self] = &[Self::Free, Self::Together, Self::Apart];

    fn name(self) -> &'static str {
        match self {
            Self::Free => "where the kernel likes",
            Self::Together => "on one CPU",
            Self::Apart => "on a CPU each",
        }
    }

    /// Runs `f` on the client's CPU.
    pub fn of_client<T>(self, f: impl FnOnce() -> T) -> T {
        match self {
            Self::Free => f(),
            _ => pinned(two_cpus().0, f),
        }
    }

    /// The server's CPU, as an argument of its role.
    pub fn of_server(self) -> String {
        match self {
            Self::Free => "any".to_owned(),
            Self::Together => two_cpus().0.to_string(),
            Self::Apart => two_cpus().1.to_string(),
        }
    }
}

/// In a server's process, before it starts a thread.
pub fn take_place(cpu: &str) {
    if cpu != "any" {
        pin(cpu.parse().expect("a CPU"));
    }
}

/// A client in this process and a server in another, bound to one another.
pub trait Contestant {
    /// Makes about so many calls, with so many in flight. Nanoseconds for each: time divided by calls.
    fn calls(&mut self, in_flight: u32, calls: u32) -> f64;
    /// Nanoseconds of a call after a pause: the median of some.
    fn first_after(&mut self, pause: Duration, samples: u32) -> f64;
    /// Waits, ready to go on.
    fn idle(&mut self, time: Duration);
    /// The server's process.
    fn server(&self) -> u32;
}

impl Contestant for Pair {
    fn calls(&mut self, in_flight: u32, calls: u32) -> f64 {
        let taken = self.null(in_flight, calls);
        taken.time.as_nanos() as f64 / taken.calls as f64
    }

    fn first_after(&mut self, pause: Duration, samples: u32) -> f64 {
        Pair::first_after(self, pause, samples)
    }

    fn idle(&mut self, time: Duration) {
        Pair::idle(self, time);
    }

    fn server(&self) -> u32 {
        Pair::server(self)
    }
}

/// Somebody to be measured.
pub struct Entry {
    pub name: &'static str,
    pub places: &'static [Place],
    pub start: fn(Place) -> Box<dyn Contestant>,
}

/// With a processor for each side: what all others are compared with, and measured in this one place.
const URPC: Entry = Entry {
    name: "urpc",
    places: &[Place::Apart],
    start: |_| Box::new(Pair::start(1, 1)),
};
/// With a server that has no processor of its own; and one whose processor never rests, as others poll.
const OURS: [Entry; 2] = [
    Entry {
        name: "urpc S=0",
        places: &[Place::Apart],
        start: |_| Box::new(Pair::start(1, 0)),
    },
    Entry {
        name: "urpc polling",
        places: &[Place::Apart],
        start: |_| Box::new(Pair::start_polling(1, 1)),
    },
];

/// Measures urpc, and the `others` that were asked for; reports; and says who is ahead of urpc.
pub fn run(args: &Args, others: &[Entry]) {
    let wanted = |entry: &&Entry| LINES.iter().any(|(line, _)| args.wants(&row(line, entry)));
    let others = OURS.iter().chain(others).filter(wanted);
    let mut others: Vec<_> = others.map(Contender::new).collect();
    let places: usize = others.iter().map(|other| other.turns.len()).sum();
    let mut report = Report::new((1 + places) * args.rounds());
    let mut bases = Bases::start();
    let (mut base, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds() {
        let before = bases.turn(args);
        ours.push(turn(&report, args, &URPC, Place::Apart));
        let after = bases.turn(args);
        base.push(std::array::from_fn(|i| (before[i] + after[i]) / 2.0));
        for Contender { entry, turns } in &mut others {
            for (turns, &place) in turns.iter_mut().zip(entry.places) {
                turns.push(turn(&report, args, entry, place));
            }
        }
    }

    let mut ahead = Vec::new();
    for (i, (line, unit)) in LINES.into_iter().enumerate() {
        let to = [Base::Raw, Base::Raw, Base::Handover, ONE_CPU][i];
        report.add(&row(line, &URPC), unit, to, &figures(i, &ours, &base));
        let mut stood = Vec::new();
        for other in &others {
            let name = row(line, other.entry);
            if !args.wants(&name) {
                continue;
            }
            let (place, turns) = other.best(i, &ours);
            let (to, beside) = match i {
                IDLE => (ONE_CPU, &base),
                _ => (Base::Other("urpc"), &ours),
            };
            report.add(&name, unit, to, &figures(i, turns, beside));
            if other.turns.len() > 1 {
                stood.push(format!("{} {}", other.entry.name, place.name()));
            }
            let times = times(i, turns, &ours);
            if times < 1.0 && !OURS.iter().any(|ours| ours.name == other.entry.name) {
                ahead.push(format!("{name} ({times:.2} x the time)"));
            }
        }
        if !stood.is_empty() && i != IDLE {
            report.note(&format!("did best: {}", stood.join(", ")));
        }
    }
    report.note(&match &ahead[..] {
        [] => "nobody is ahead of urpc in any line".to_owned(),
        lines => format!("ahead of urpc: {}", lines.join("; ")),
    });
    report.end(args);
}

/// Who is compared with urpc, and its turns in each of its places.
struct Contender<'a> {
    entry: &'a Entry,
    turns: Vec<Vec<Turn>>,
}

impl<'a> Contender<'a> {
    fn new(entry: &'a Entry) -> Self {
        let turns = vec![Vec::new(); entry.places.len()];
        Self { entry, turns }
    }

    /// Where it did best in this line, and its turns there.
    fn best(&self, line: usize, ours: &[Turn]) -> (Place, &[Turn]) {
        let places = self.entry.places.iter().zip(&self.turns);
        let best = places.min_by(|a, b| times(line, a.1, ours).total_cmp(&times(line, b.1, ours)));
        let (place, turns) = best.expect("a place");
        (*place, turns)
    }
}

/// How many times longer than urpc it takes.
fn times(line: usize, theirs: &[Turn], ours: &[Turn]) -> f64 {
    let least = if line == IDLE { NOTHING } else { 0.0 };
    let taken = |turn: &Turn| turn[line].max(least);
    median(
        theirs
            .iter()
            .zip(ours)
            .map(|(their, our)| taken(their) / taken(our)),
    )
}

fn row(line: &str, entry: &Entry) -> String {
    format!("{line}, {}", entry.name)
}

/// A line's values beside their bases, as they are shown.
fn figures(line: usize, turns: &[Turn], bases: &[Turn]) -> Vec<Figure> {
    let shown = |taken: f64| if line == RATE { 1e9 / taken } else { taken };
    let both = turns.iter().zip(bases);
    both.map(|(turn, base)| Figure {
        value: shown(turn[line]),
        base: shown(base[line]),
    })
    .collect()
}

/// One turn of one contestant, alone.
fn turn(report: &Report, args: &Args, entry: &Entry, place: Place) -> Turn {
    report.begin(&format!("{} {}", entry.name, place.name()));
    let mut contestant = (entry.start)(place);
    let time = |full: Duration| if args.quick { full / 4 } else { full };
    let turn = place.of_client(|| {
        let mut calls = |in_flight| {
            let begin = Instant::now();
            let mut taken = contestant.calls(in_flight, in_flight);
            while begin.elapsed() < WARM_UP {
                taken = contestant.calls(in_flight, 4 * in_flight);
            }
            let count = time(MEASURED).as_nanos() as f64 / taken;
            contestant.calls(in_flight, count as u32 + 1)
        };
        let (null, flight) = (calls(1), calls(IN_FLIGHT));
        let first = contestant.first_after(PAUSE, args.count(FIRST).max(7));
        // Nobody burns more or less of a CPU because it is another one.
        let idle = match place == entry.places[0] {
            true => burned(&mut *contestant, time(IDLE_TIME)),
            false => f64::INFINITY,
        };
        [null, flight, first, idle]
    });
    report.step();
    turn
}

/// Milliseconds of CPU that both processes use in a second without calls. A third one reads their clocks, so
/// that nothing of theirs wakes for it.
fn burned(contestant: &mut dyn Contestant, time: Duration) -> f64 {
    let (shared, _file, path) = Shared::create();
    let (client, server) = (std::process::id(), contestant.server());
    let word = shared.line(0);
    word.store(UNREAD, Ordering::Relaxed);
    let _meter = Child::start(&format!(
        "meter {path} {} {client} {server}",
        time.as_millis()
    ));
    contestant.idle(time + 4 * PAUSE);
    while word.load(Ordering::Acquire) == UNREAD {
        contestant.idle(PAUSE);
    }
    f64::from(word.load(Ordering::Acquire)) / 1e3 / time.as_secs_f64()
}

/// Until the meter has read the clocks twice.
const UNREAD: u32 = u32::MAX;

/// The meter's process: microseconds of CPU that the processes use in so many milliseconds.
pub fn meter_child(path: &str, time: &str, processes: &[&str]) {
    let shared = Shared::open(path);
    let time = Duration::from_millis(time.parse().expect("milliseconds"));
    let clock = |pid: &&str| {
        let pid = Pid::from_raw(pid.parse().expect("a process"));
        ClockId::pid_cpu_clock_id(pid).expect("a process")
    };
    let clocks: Vec<_> = processes.iter().map(clock).collect();
    let used = || -> Duration {
        let each = clocks.iter().map(|clock| clock.now().expect("a clock"));
        each.map(Duration::from).sum()
    };
    ready();
    std::thread::sleep(2 * PAUSE); // the client has gone to sleep
    let before = used();
    std::thread::sleep(time);
    let used = (used() - before).as_micros() as u32;
    shared.line(0).store(used, Ordering::Release);
    until_told_to_end();
}

/// What urpc stands beside.
struct Bases {
    raw: Raw,
    bare: Handover,
}

impl Bases {
    fn start() -> Self {
        Self {
            raw: Raw::start(),
            bare: Handover::start(Ping::Futex),
        }
    }

    fn turn(&mut self, args: &Args) -> Turn {
        let raw = self.raw.measure(args.count(RAW));
        [
            raw,
            raw,
            self.bare.measure_after(PAUSE, args.count(FIRST).max(7)),
            1e3,
        ]
    }
}
