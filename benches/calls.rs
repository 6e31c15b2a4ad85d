//! What a call costs, beside the least it can cost: one cache line there and one back. Figures 3 and 4.
//!
//! `cargo bench --bench calls`. `T` callers at a time, `C` processors of the client, `S` of the server.
//! Latency is what a caller sees: total time × T / calls (§4.3). A rate's base is the number of raw
//! round trips in a second, so there a higher ratio is better.

mod common;

use clap::Parser;
use common::base::Raw;
use common::child::cpus;
use common::curves::{Curve, Point, picture};
use common::pair::{Pair, Taken};
use common::report::{Args, Base, Figure, Report};

/// Callers at a time.
const CALLERS: [u32; 9] = [1, 2, 3, 4, 8, 16, 32, 64, 128];
/// Processors of client and server, as in the paper.
const PROCESSORS: [(usize, usize); 5] = [(1, 0), (1, 1), (2, 0), (2, 1), (2, 2)];
const CALLS: u32 = 100_000;
/// Round trips of one base measurement.
const RAW: u32 = 100_000;

fn main() {
    if common::played_a_role() {
        return;
    }
    let args = Args::parse();
    let mut report = Report::new((PROCESSORS.len() * CALLERS.len() + 1) * args.rounds() + 1);
    let raw = Raw::start();
    let cpus = cpus().len();
    if cpus < 2 {
        report
            .note("one CPU only: `raw` takes two ticks of the scheduler, its ratios mean nothing");
    }

    let rounds = 0..args.rounds();
    let figures = rounds.map(|_| beside(&raw, &args, || raw.measure(args.count(RAW))));
    let figures: Vec<_> = figures.collect();
    report.add("raw", "ns", Base::Raw, &figures);
    report.step();

    let mut curves = Vec::new();
    for (c, s) in PROCESSORS {
        let pair = Pair::start(c, s);
        let oversubscribed = c + s > cpus;
        let crowd = if oversubscribed {
            " oversubscribed"
        } else {
            ""
        };
        let name = |what: &str, t: u32| format!("{what} T={t} C={c} S={s}{crowd}");
        let wanted = |t: &u32| args.wants(&name("null", *t));
        let callers: Vec<_> = CALLERS.into_iter().filter(wanted).collect();
        let points = sweep(&report, &args, &raw, &callers, |t, calls| {
            pair.null(t, calls)
        });
        for point in &points {
            add(&mut report, &name("null", point.callers), point);
        }
        curves.push(Curve {
            c,
            s,
            oversubscribed,
            points,
        });

        let typed = name("typed", 1);
        if (c, s) == (1, 1) && args.wants(&typed) {
            let points = sweep(&report, &args, &raw, &[1], |t, calls| pair.typed(t, calls));
            add(&mut report, &typed, &points[0]);
        }
    }
    if args.wants_all() {
        curves
            .iter()
            .for_each(|curve| report.note(&curve.verdict()));
        report.picture(picture::CAPTION, picture::latency(&curves));
        report.picture(picture::CAPTION, picture::throughput(&curves));
    }
    report.end(&args);
}

/// A value between two measurements of the base.
fn beside(raw: &Raw, args: &Args, value: impl FnOnce() -> f64) -> Figure {
    let before = raw.measure(args.count(RAW));
    let value = value();
    let after = raw.measure(args.count(RAW));
    let base = (before + after) / 2.0;
    Figure { value, base }
}

/// The rates with so many callers. Each round has all of them in a row, so that they can be compared.
fn sweep(
    report: &Report,
    args: &Args,
    raw: &Raw,
    callers: &[u32],
    run: impl Fn(u32, u32) -> Taken,
) -> Vec<Point> {
    let none = |&callers: &u32| Point {
        callers,
        rates: Vec::new(),
    };
    let mut points: Vec<_> = callers.iter().map(none).collect();
    for _ in 0..args.rounds() {
        for point in &mut points {
            let per_call = beside(raw, args, || {
                let taken = run(point.callers, args.count(CALLS));
                taken.time.as_nanos() as f64 / taken.calls as f64
            });
            point.rates.push(Figure {
                value: 1e9 / per_call.value,
                base: 1e9 / per_call.base,
            });
            report.step();
        }
    }
    points
}

/// Latency and rate at one point.
fn add(report: &mut Report, name: &str, point: &Point) {
    let latency = |rate: &Figure| Figure {
        value: f64::from(point.callers) * 1e9 / rate.value,
        base: 1e9 / rate.base,
    };
    let latencies: Vec<_> = point.rates.iter().map(latency).collect();
    report.add(name, "ns", Base::Raw, &latencies);
    report.add(&format!("{name} rate"), "calls/s", Base::Raw, &point.rates);
}
