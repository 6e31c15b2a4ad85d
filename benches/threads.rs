//! Table I of the paper: what it costs to manage a task, beside other executors and kernel threads.
//!
//! `cargo bench --bench threads`. All of it on one CPU, each with one processor, in rounds in which everybody
//! has a turn. A contender's base is urpc in the same round, so its ratio is how many times longer it
//! takes; the base of urpc is the *floor*: what async-task costs with nothing around it but a `VecDeque`.

#![allow(unreachable_pub)] // as in `common`: parts of one program

mod common;
#[path = "threads/contenders.rs"]
mod contenders;
#[path = "threads/floor.rs"]
mod floor;
#[path = "threads/kernel.rs"]
mod kernel;
#[path = "threads/rows.rs"]
mod rows;

use clap::Parser;
use common::child::{cpus, pin};
use common::report::{Args, Base, Figure, Report, median};
use common::table::Table;
use contenders::{AsyncExecutor, Tokio, Urpc};
use floor::Floor;
use kernel::KernelThreads;
use rows::{Contender, ROWS};

fn main() {
    let args = Args::parse();
    // Before any thread is started: all of them are to share one CPU.
    pin(cpus()[0]);
    let contenders: [Box<dyn Contender>; 7] = [
        Box::new(Urpc::start(1)),
        Box::new(Tokio::current_thread()),
        Box::new(Tokio::multi_thread()),
        Box::new(AsyncExecutor),
        Box::new(KernelThreads),
        Box::new(Urpc::start(2)),
        Box::new(Floor),
    ];
    let [ours, .., floor] = &contenders;
    let names = contenders.iter().map(|contender| contender.name());
    let paper = ["FastThreads 1991, µs", "Taos 1991, µs"];
    let mut table = Table::new("ns, one CPU", names.chain(paper));
    let mut report = Report::new(ROWS.len());
    for row in ROWS.into_iter().filter(|row| args.wants(row.name())) {
        report.begin(row.name());
        let rounds: Vec<Vec<Option<f64>>> = (0..args.rounds())
            .map(|_| {
                let each = contenders.iter();
                each.map(|contender| contender.measure(row, &args))
                    .collect()
            })
            .collect();
        let of = |i: usize| rounds.iter().filter_map(move |round| round[i]);
        for (i, contender) in contenders.iter().enumerate() {
            let (base, at) = match i {
                0 => (floor.name(), contenders.len() - 1),
                _ => (ours.name(), 0),
            };
            let figures: Vec<_> = of(i)
                .zip(of(at))
                .map(|(value, base)| Figure { value, base })
                .collect();
            if !figures.is_empty() {
                let name = format!("{}: {}", row.name(), contender.name());
                if let (0, [Some(fast_threads), Some(taos)]) = (i, row.paper()) {
                    report.paper(&name, &format!("{fast_threads} µs; Taos {taos} µs"));
                }
                report.add(&name, "ns", Base::Other(base), &figures);
            }
        }
        let medians = (0..contenders.len()).map(|i| (of(i).count() > 0).then(|| median(of(i))));
        table.row(row.name(), medians.chain(row.paper()));
        report.step();
    }
    report.end(&args);
    println!("\n{table}");
}
