//! What storms cost those who are not meant: calls of a stopped process, the others meanwhile, and ten times as many
//! calls as can be served.
//!
//! `cargo bench --bench storm`. *late* is how long after its deadline a call to a stopped process ends, in the middle
//! and at most, beside the 20 ms it may take. *others* is the throughput of a client while another client of its
//! server is stopped, beside the same while that one is silent; *elsewhere* that of one client's calls to a server
//! while another of its servers is stopped in the midst of its calls. *goodput* is what is served of ten times as many
//! calls as can be, beside the most that is ever served; *refusal* what a call takes that is too many.

mod common;

use std::time::Duration;

use clap::Parser;
use common::report::{Args, Base, Figure, Report};
use common::storm::{Flood, Halted, Others};

/// How often a process is stopped, in one round.
const STOPS: u32 = 40;
/// After so long beyond its deadline a call has to end.
const LATE: f64 = 20e6;
/// For so long calls are offered, in one round.
const FLOOD: Duration = Duration::from_millis(1000);
/// Times the most that can be served.
const OVERLOAD: f64 = 10.0;

fn main() {
    if common::played_a_role() {
        return;
    }
    let args = Args::parse();
    let mut report = Report::new(6);
    for processors in [1, 0] {
        halted(&mut report, &args, processors);
        others(&mut report, &args, processors);
    }
    flood(&mut report, &args);
    report.end(&args);
}

fn halted(report: &mut Report, args: &Args, processors: usize) {
    let name = format!("stopped server S={processors}");
    if !args.wants(&name) {
        return report.step();
    }
    report.begin(&name);
    let halted = Halted::start(processors);
    let (mut columns, mut kept): ([Vec<Figure>; 2], Vec<Figure>) = Default::default();
    for _ in 0..args.rounds() {
        let taken = halted.measure(args.count(STOPS));
        let mut late = taken.late;
        late.sort_by(f64::total_cmp);
        for (column, value) in columns
            .iter_mut()
            .zip([late[late.len() / 2], late[late.len() - 1]])
        {
            column.push(Figure { value, base: LATE });
        }
        let (value, base) = (taken.elsewhere, taken.before);
        kept.push(Figure { value, base });
    }
    for (column, suffix) in columns.iter().zip(["late", "late at most"]) {
        report.add(
            &format!("{name} {suffix}"),
            "ns",
            Base::Other("20 ms"),
            column,
        );
    }
    report.add(
        &format!("{name} elsewhere"),
        "calls/s",
        Base::Other("running"),
        &kept,
    );
    report.step();
}

fn others(report: &mut Report, args: &Args, processors: usize) {
    let name = format!("stopped client S={processors} others");
    if !args.wants(&name) {
        return report.step();
    }
    report.begin(&name);
    let mut others = Others::start(processors);
    let rounds = (0..args.rounds()).map(|_| {
        let (value, base) = others.measure(args.count(STOPS));
        Figure { value, base }
    });
    let figures: Vec<_> = rounds.collect();
    report.add(&name, "calls/s", Base::Other("silent"), &figures);
    report.step();
}

fn flood(report: &mut Report, args: &Args) {
    let name = "overload 10x";
    if !args.wants(name) {
        return report.step();
    }
    report.begin(name);
    let flood = Flood::start();
    let time = if args.quick { FLOOD / 4 } else { FLOOD };
    let (mut goodput, mut offered, mut refusals) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..args.rounds() {
        let before = flood.peak(time);
        let taken = flood.offer(before * OVERLOAD, time);
        let peak = (before + flood.peak(time)) / 2.0;
        let beside = |value| Figure { value, base: peak };
        goodput.push(beside(taken.served));
        offered.push(beside(taken.offered));
        refusals.push(Figure {
            value: taken.refusal,
            base: 1e6,
        });
    }
    let peak = Base::Other("peak");
    report.add("overload 10x goodput", "calls/s", peak, &goodput);
    report.add("overload 10x offered", "calls/s", peak, &offered);
    report.add("overload 10x refusal", "ns", Base::Other("1 ms"), &refusals);
    report.step();
}
