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
use common::pair::Pair;
use common::report::{Args, Base, Figure, Report};

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

fn main() {
    if common::played_a_role() {
        return;
    }
    let args = Args::parse();
    let mut report = Report::new(CALLERS.len() + 7);
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
        point(&mut report, &args, &mut bare, &pair, t);
    }
    drop(pair);

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

    for s in [0, 1] {
        let name = format!("first-after-10ms S={s}");
        if !args.wants(&name) {
            continue;
        }
        report.begin(&name);
        let pair = Pair::start(1, s);
        pair.first_after(PAUSE, 3);
        let samples = args.count(FIRST).max(7);
        let figures: Vec<_> = (0..args.rounds())
            .map(|_| {
                let before = bare.measure_after(PAUSE, samples);
                let value = pair.first_after(PAUSE, samples);
                let after = bare.measure_after(PAUSE, samples);
                let base = (before + after) / 2.0;
                Figure { value, base }
            })
            .collect();
        report.add(&name, "ns", Base::Handover, &figures);
        report.step();
    }
    report.end(&args);
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
fn point(report: &mut Report, args: &Args, bare: &mut Handover, pair: &Pair, t: u32) {
    let name = format!("null T={t} C=1 S=0");
    if !args.wants(&name) {
        return report.step();
    }
    report.begin(&name);
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
