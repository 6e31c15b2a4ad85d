//! What a call costs a server without a processor of its own, beside a bare hand-over on one CPU.
//!
//! `cargo bench --bench donation`. A donation and its return are two crossings, for however many calls:
//! with T callers at a time it is 2/T of them a call. Beside it, in the same run, what hands over at
//! every call: a futex with a message in shared memory (as LRPC does), and a Unix socket. And calls that come
//! back to their caller through one or two such servers: its processor goes along.

mod common;

use std::time::Duration;

use clap::Parser;
use common::around::Around;
use common::base::{Handover, Ping};
use common::child::cpus;
use common::contest::{Contestant, Place};
use common::pair::Pair;
use common::report::{Args, Base, Figure, Report};
use common::stopped::Stopped;
use common::tokio::{Echo, Tokio};

/// Callers at a time.
const CALLERS: [u32; 7] = [1, 2, 4, 8, 16, 32, 64];
const CALLS: u32 = 50_000;
/// Round trips of one base measurement.
const ROUNDS: u32 = 5_000;
/// A bare hand-over: one crossing and, for waking and for sleeping, two system calls each way.
const CROSSINGS: f64 = 2.0;
const SYSTEM_CALLS: f64 = 4.0;
/// After so long, a server sleeps, and so does a CPU.
const PAUSE: Duration = Duration::from_millis(10);
/// First calls after a pause, in one round.
const FIRST: u32 = 30;
/// When a donor takes its processor back: the default.
const GRANT_LIMIT: Duration = Duration::from_millis(5);
/// Donees stopped, in one round.
const STOPS: u32 = 100;

fn main() {
    if common::played_a_role() {
        return;
    }
    let args = Args::parse();
    let mut report = Report::new(CALLERS.len() + 7 + usize::from(cpus().len() == 1));
    let mut bare = Handover::start(Ping::Futex);

    let others = [
        ("handover", Ping::Futex),
        ("hand-off per call (futex, 64 bytes)", Ping::Message),
        ("Unix socket ping-pong (64 bytes)", Ping::Socket),
    ];
    for (name, ping) in others.into_iter().filter(|(name, _)| args.wants(name)) {
        report.begin(name);
        let mut other = Handover::start(ping);
        let figures: Vec<_> = (0..args.rounds())
            .map(|_| beside(&mut bare, &args, || other.measure(args.count(ROUNDS))))
            .collect();
        report.add(name, "ns", Base::Handover, &figures);
        report.step();
    }

    let pair = Pair::start(1, 0);
    for t in CALLERS {
        let name = format!("null T={t} C=1 S=0");
        point(&mut report, &args, &mut bare, &pair, (&name, t));
    }
    drop(pair);
    // With a processor of its own; on several CPUs there is no hand-over then.
    if cpus().len() == 1 {
        let pair = Pair::start(1, 1);
        point(
            &mut report,
            &args,
            &mut bare,
            &pair,
            ("null T=1 C=1 S=1", 1),
        );
    }

    // With no processor but the caller's.
    for (name, passers) in [("A-B-A C=1 S=0", 1), ("A-B-C-A C=1 S=0", 2)] {
        if args.wants(name) {
            report.begin(name);
            let around = Around::start(passers);
            let calls = args.count(ROUNDS);
            let figures: Vec<_> = (0..args.rounds())
                .map(|_| beside(&mut bare, &args, || around.measure(calls)))
                .collect();
            report.add(name, "ns", Base::Handover, &figures);
        }
        report.step();
    }

    first_calls(&mut report, &args, &mut bare);
    resumes(&mut report, &args);
    report.end(&args);
}

/// The call after a pause, beside a hand-over after the same pause; and how much longer others take for theirs.
fn first_calls(report: &mut Report, args: &Args, bare: &mut Handover) {
    const HOW: [&str; 4] = ["S=0", "S=1", "tokio pinned", "tokio free"];
    let (ours, others) = (0..2, 2..4);
    let names = HOW.map(|how| format!("first-after-10ms {how}"));
    if !names.iter().any(|name| args.wants(name)) {
        return;
    }
    report.begin("first-after-10ms");
    let pairs = [Pair::start(1, 0), Pair::start(1, 1)];
    let places = [Place::Apart, Place::Free];
    let mut tokios = places.map(|place| Tokio::<Echo>::start("echo", place));
    let mut rounds: [Vec<Figure>; HOW.len()] = Default::default();
    let samples = args.count(FIRST).max(7);
    for _ in 0..args.rounds() {
        for (i, round) in rounds.iter_mut().enumerate() {
            // All the others sleep meanwhile.
            let before = bare.measure_after(PAUSE, samples);
            let value = match pairs.get(i) {
                Some(pair) => pair.first_after(PAUSE, samples),
                None => {
                    let i = i - pairs.len();
                    places[i].of_client(|| tokios[i].first_after(PAUSE, samples))
                }
            };
            let after = bare.measure_after(PAUSE, samples);
            let base = (before + after) / 2.0;
            round.push(Figure { value, base });
        }
    }
    for (name, round) in names.iter().zip(&rounds) {
        report.add(name, "ns", Base::Handover, round);
    }
    for i in others {
        for j in ours.clone() {
            let beside = |(theirs, ours): (&Figure, &Figure)| Figure {
                value: theirs.value,
                base: ours.value,
            };
            let figures: Vec<_> = rounds[i].iter().zip(&rounds[j]).map(beside).collect();
            let name = format!("{} beside {}", names[i], HOW[j]);
            report.add(&name, "ns", Base::Other(HOW[j]), &figures);
        }
    }
    report.step();
}

/// How soon a donor goes on whose donee was stopped: in most cases, and in 99 of 100.
fn resumes(report: &mut Report, args: &Args) {
    let name = "resume after SIGSTOP";
    if !args.wants(name) {
        return;
    }
    report.begin(name);
    let stopped = Stopped::start(GRANT_LIMIT);
    let mut columns: [Vec<Figure>; 2] = Default::default();
    for _ in 0..args.rounds() {
        let mut all: Vec<f64> = (0..args.count(STOPS)).map(|_| stopped.resume()).collect();
        all.sort_by(f64::total_cmp);
        let values = [all[all.len() / 2], all[(all.len() * 99).div_ceil(100) - 1]];
        for (column, value) in columns.iter_mut().zip(values) {
            let base = GRANT_LIMIT.as_nanos() as f64;
            column.push(Figure { value, base });
        }
    }
    for (column, suffix) in columns.iter().zip(["", ", 99 of 100"]) {
        let base = Base::Other("grant limit");
        report.add(&format!("{name}{suffix}"), "ns", base, column);
    }
    report.step();
}

/// A value between two measurements of the base.
fn beside(bare: &mut Handover, args: &Args, value: impl FnOnce() -> f64) -> Figure {
    let rounds = args.count(ROUNDS);
    let before = bare.measure(rounds);
    let value = value();
    let after = bare.measure(rounds);
    let base = (before + after) / 2.0;
    Figure { value, base }
}

/// Latency, rate, crossings and system calls with `t` callers at a time.
fn point(
    report: &mut Report,
    args: &Args,
    bare: &mut Handover,
    pair: &Pair,
    (name, t): (&str, u32),
) {
    if !args.wants(name) {
        return report.step();
    }
    report.begin(name);
    let mut columns: [Vec<Figure>; 4] = Default::default();
    for _ in 0..args.rounds() {
        let mut each = [0.0; 4];
        let latency = beside(bare, args, || {
            let taken = pair.null(t, args.count(CALLS));
            let calls = taken.calls as f64;
            let per_call = taken.time.as_nanos() as f64 / calls;
            let crossings = taken.crossings as f64 / calls;
            let system_calls = taken.system_calls as f64 / calls;
            each = [
                per_call * f64::from(t),
                1e9 / per_call,
                crossings,
                system_calls,
            ];
            each[0]
        });
        let bases = [latency.base, 1e9 / latency.base, CROSSINGS, SYSTEM_CALLS];
        for ((column, value), base) in columns.iter_mut().zip(each).zip(bases) {
            column.push(Figure { value, base });
        }
    }
    let names = ["", " rate", " crossings", " system calls"];
    let units = ["ns", "calls/s", "crossings/call", "calls/call"];
    for ((column, suffix), unit) in columns.iter().zip(names).zip(units) {
        report.add(&format!("{name}{suffix}"), unit, Base::Handover, column);
    }
    report.step();
}
