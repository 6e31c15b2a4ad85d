//! Who should get an idle processor? Six answers, simulated on up to 64 CPUs and 1,000 address spaces.
//!
//! A deterministic simulation: the same seed gives the same numbers on every machine. The policy in it is the real
//! one (`urpc::policy`), as are its back-off and its bounds; what things cost was measured (`costs.rs`); threads
//! spin, rest, ring, lend and return as in the library (`thread.rs`, `reallocate.rs`), on a kernel that never leaves
//! a CPU idle beside a ready thread (`kernel.rs`).
//!
//! ```text
//! cargo run --release --example simulation
//! cargo run --release --example simulation -- --quick --svg out.svg --json out.json
//! ```

mod contenders;
mod costs;
mod kernel;
mod load;
mod look;
mod plot;
mod reallocate;
mod report;
mod scenarios;
mod signals;
mod space;
mod tally;
mod tasks;
#[cfg(test)]
mod tests;
mod thread;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

use scenarios::Scenario;
use tally::Tally;
use world::World;

/// Compares ways to give an idle processor to who needs one, in a simulation of up to 64 CPUs and 1,000 address
/// spaces.
#[derive(Debug, Parser)]
#[command(name = "simulation", version)]
struct Options {
    /// What everything random follows from
    #[arg(long, default_value_t = 1991)]
    seed: u64,

    /// A tenth of the time, for a first look
    #[arg(long)]
    quick: bool,

    /// Has every switch to a thread that slept for long cost as much as on a CPU that was idle as long: that was not
    /// measured, and is the worst that can be assumed
    #[arg(long)]
    cold_threads: bool,

    /// Writes all results as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Draws the main results
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("simulation: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let mut scenarios = scenarios::all(options.seed, options.quick);
    for scenario in &mut scenarios {
        scenario.load.cold_threads = options.cold_threads;
    }
    let results = simulate(&scenarios, options.seed);
    print!("{}", report::table(&results));
    if let Some(path) = &options.json {
        let json = serde_json::to_vec_pretty(&report::json(&results, options.seed))?;
        write(path, &json)?;
    }
    if let Some(path) = &options.svg {
        write(path, plot::svg(&results)?.as_bytes())?;
    }
    Ok(())
}

fn write(path: &PathBuf, bytes: &[u8]) -> Result<(), String> {
    std::fs::write(path, bytes).map_err(|error| format!("{}: {error}", path.display()))
}

/// Every scenario with every policy, on all CPUs of this machine.
fn simulate(scenarios: &[Scenario], seed: u64) -> Vec<(&Scenario, Vec<Tally>)> {
    let policies = contenders::ALL.len();
    let runs = scenarios.len() * policies;
    let style = "{bar:40} {pos}/{len} runs, {eta} to go";
    // The template is fixed, so it can be read.
    let style =
        ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(runs as u64).with_style(style);
    let tallies: Vec<Mutex<Option<Tally>>> = (0..runs).map(|_| Mutex::new(None)).collect();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                // The longest come last in the list.
                while let Some(run) = runs.checked_sub(1 + next.fetch_add(1, Ordering::Relaxed)) {
                    let (scenario, policy) = (&scenarios[run / policies], run % policies);
                    let mut world = World::new(&scenario.load, &contenders::ALL[policy], seed);
                    world.run();
                    *lock(&tallies[run]) = Some(world.tally);
                    bar.inc(1);
                }
            });
        }
    });
    bar.finish_and_clear();
    let tally = |run: usize| lock(&tallies[run]).take().expect("all runs are done");
    let of = |i: usize| {
        (0..policies)
            .map(|policy| tally(i * policies + policy))
            .collect()
    };
    (scenarios.iter().enumerate())
        .map(|(i, scenario)| (scenario, of(i)))
        .collect()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
