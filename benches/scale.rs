//! What many clients of one server cost one another.
//!
//! `cargo bench --bench scale`. 1 to 1,024 clients: the null call of one while all the others are silent, beside one
//! whose server has no other client; all of them a little active; memory and CPU of those that do nothing, both
//! sides together, and the time in which they are bound. The silent clients are real channels, 256 of them in a
//! process, whose own memory is not counted. Memory is what the processes have resident, with memfds counted once;
//! what the kernel holds for sockets and for a sleeping thread is not in it.

mod common;

use std::time::{Duration, Instant};

use clap::Parser;
use common::crowd::Crowd;
use common::process::{cpu_time, memory};
use common::report::{Args, Base, Figure, Report};

/// Clients of the server, of which one is active.
const CLIENTS: [usize; 4] = [1, 16, 128, 1024];
const CALLS: u32 = 100_000;
/// Calls a second of all clients together, when all are a little active.
const LITTLE: f64 = 10_000.0;
const KIB: f64 = 1024.0;
/// What an idle client may cost: bytes on both sides together.
const MEMORY: f64 = 256.0;
/// In how many milliseconds 1,024 clients shall be bound.
const BIND: f64 = 2000.0;

fn main() {
    if common::played_a_role() {
        return;
    }
    let args = Args::parse();
    let mut report = Report::new(CLIENTS.len());
    let alone = Crowd::start();
    let mut crowd = Crowd::start();
    let mut before = 1;
    for clients in CLIENTS {
        let name = |what: &str| format!("{what} n={clients}");
        report.begin(&name("null"));
        if clients > before {
            grow(&mut report, &mut crowd, before, clients);
            before = clients;
        }
        let figures: Vec<_> = (0..args.rounds())
            .map(|_| {
                let before = alone.null(args.count(CALLS));
                let value = crowd.null(args.count(CALLS));
                let after = alone.null(args.count(CALLS));
                Figure {
                    value,
                    base: (before + after) / 2.0,
                }
            })
            .collect();
        report.add(&name("null"), "ns", Base::Other("alone"), &figures);
        if clients > 1 {
            idle(&mut report, &args, &crowd, &name("idle CPU"));
            busy(&mut report, &args, &mut crowd, clients);
        }
        report.step();
    }
    report.end(&args);
}

/// Binds more clients. What that takes, and what they hold then.
fn grow(report: &mut Report, crowd: &mut Crowd, before: usize, clients: usize) {
    let fresh = crowd.start_others(clients);
    let mut all = crowd.pids();
    all.extend(fresh.iter().map(|child| child.id()));
    let held = memory(&all);
    let taken = crowd.bind(fresh);
    std::thread::sleep(Duration::from_millis(50)); // the last threads get to where they sleep
    let holds = memory(&all);
    let new = (clients - before) as f64;
    let each = |all: f64, before: f64| (all - before) / new / KIB;
    let limit = Base::Other("limit");
    let figure = |value, base| [Figure { value, base }];
    let private = each(holds.private, held.private);
    let shared = each(holds.shared, held.shared);
    let name = |what: &str| format!("{what} n={clients}");
    report.add(
        &name("idle memory"),
        "KiB/client",
        limit,
        &figure(private + shared, MEMORY),
    );
    report.add(
        &name("idle memory memfd"),
        "KiB/client",
        limit,
        &figure(shared, MEMORY),
    );
    let share = new / 1024.0;
    report.add(
        &name("bind"),
        "ms",
        limit,
        &figure(taken.as_secs_f64() * 1e3, BIND * share),
    );
}

/// What all burn that do nothing.
fn idle(report: &mut Report, args: &Args, crowd: &Crowd, name: &str) {
    std::thread::sleep(Duration::from_millis(100));
    let time = Duration::from_millis(if args.quick { 500 } else { 2000 });
    let (before, begin) = (cpu_time(&crowd.pids()), Instant::now());
    std::thread::sleep(time);
    let burnt = (cpu_time(&crowd.pids()) - before) as f64 / 1e6;
    let value = burnt / begin.elapsed().as_secs_f64();
    report.add(
        name,
        "ms/s",
        Base::Other("a CPU"),
        &[Figure {
            value,
            base: 1000.0,
        }],
    );
}

/// All others call: now and then, and one call after the other.
fn busy(report: &mut Report, args: &Args, crowd: &mut Crowd, clients: usize) {
    let others = (clients - 1) as f64;
    let time = Duration::from_millis(if args.quick { 300 } else { 1000 });
    let pauses = [
        ("a little", Duration::from_secs_f64(others / LITTLE)),
        ("all at once", Duration::ZERO),
    ];
    for (how, pause) in pauses {
        let (mut rates, mut tails) = (Vec::new(), Vec::new());
        for _ in 0..args.rounds() {
            let calls = crowd.all_call(pause, time);
            rates.push(Figure {
                value: calls.rate,
                base: LITTLE,
            });
            tails.push(Figure {
                value: calls.p99,
                base: 1e6,
            });
        }
        let name = |what: &str| format!("{how}{what} n={clients}");
        report.add(&name(" rate"), "calls/s", Base::Other("asked for"), &rates);
        report.add(&name(" p99"), "ns", Base::Other("1 ms"), &tails);
    }
}
