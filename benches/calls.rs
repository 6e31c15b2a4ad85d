//! What a call costs, beside the least it can cost: one cache line there and one back.
//!
//! `cargo bench --bench calls`. `T` callers at a time, `C` processors of the client, `S` of the server.
//! Latency is what a caller sees: total time × T / calls (§4.3). A rate's base is the number of raw
//! round trips in a second, so there a higher ratio is better.

mod common;

use clap::Parser;
use common::base::Raw;
use common::child::cpus;
use common::pair::{Pair, Taken};
use common::report::{Args, Base, Figure, Report};

/// Callers at a time.
const CALLERS: [u32; 7] = [1, 2, 4, 8, 16, 64, 128];
/// Processors of client and server.
const PROCESSORS: [(usize, usize); 3] = [(1, 1), (1, 0), (2, 2)];
const CALLS: u32 = 100_000;
/// Round trips of one base measurement.
const RAW: u32 = 100_000;

fn main() {
    if common::played_a_role() {
        return;
    }
    let args = Args::parse();
    let mut report = Report::new(PROCESSORS.len() * CALLERS.len() + 2);
    let raw = Raw::start();
    let cpus = cpus().len();
    if cpus < 2 {
        report
            .note("one CPU only: `raw` takes two ticks of the scheduler, its ratios mean nothing");
    }

    let rounds = 0..args.rounds();
    let figures: Vec<_> = rounds
        .map(|_| {
            let (figure, _) = beside(&raw, &args, |_| raw.measure(args.count(RAW)));
            figure
        })
        .collect();
    report.add("raw", "ns", Base::Raw, &figures);
    report.step();

    for (c, s) in PROCESSORS {
        let pair = Pair::start(c, s);
        let crowd = if c.max(1) + s > cpus {
            " oversubscribed"
        } else {
            ""
        };
        for t in CALLERS {
            let name = format!("null T={t} C={c} S={s}{crowd}");
            point(&mut report, &args, &raw, &name, t, |calls| {
                pair.null(t, calls)
            });
        }
        if (c, s) == (1, 1) {
            let name = format!("typed T=1 C={c} S={s}{crowd}");
            point(&mut report, &args, &raw, &name, 1, |calls| {
                pair.typed(1, calls)
            });
        }
    }
    report.end(&args);
}

/// A value between two measurements of the base; and the base.
fn beside(raw: &Raw, args: &Args, value: impl FnOnce(f64) -> f64) -> (Figure, f64) {
    let before = raw.measure(args.count(RAW));
    let value = value(before);
    let after = raw.measure(args.count(RAW));
    let base = (before + after) / 2.0;
    (Figure { value, base }, base)
}

/// Latency and rate at one point.
fn point(
    report: &mut Report,
    args: &Args,
    raw: &Raw,
    name: &str,
    callers: u32,
    run: impl Fn(u32) -> Taken,
) {
    if !args.wants(name) {
        return report.step();
    }
    report.begin(name);
    let (mut latencies, mut rates) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds() {
        let mut per_call = 0.0;
        let (latency, base) = beside(raw, args, |_| {
            let taken = run(args.count(CALLS));
            per_call = taken.time.as_nanos() as f64 / taken.calls as f64;
            per_call * f64::from(callers)
        });
        latencies.push(latency);
        rates.push(Figure {
            value: 1e9 / per_call,
            base: 1e9 / base,
        });
    }
    report.add(name, "ns", Base::Raw, &latencies);
    report.add(&format!("{name} rate"), "calls/s", Base::Raw, &rates);
    report.step();
}
