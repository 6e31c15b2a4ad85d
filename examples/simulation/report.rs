//! The results, for people and as JSON.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::contenders;
use crate::kernel::Use;
use crate::scenarios::{Kind, Scenario};
use crate::tally::Tally;

/// One scenario with what each of [`contenders::ALL`] made of it.
pub(crate) type Results<'a> = [(&'a Scenario, Vec<Tally>)];

/// What counts: a name, how it is read, and whether more is better.
type Column = (&'static str, fn(&Tally) -> f64, bool);

const COLUMNS: [Column; 6] = [
    ("mean µs", Tally::mean_us, false),
    ("p99 µs", |tally| tally.quantile_us(0.99), false),
    ("p99.9 µs", |tally| tally.quantile_us(0.999), false),
    ("calls/ms", Tally::rate, true),
    ("crossings", |tally| tally.per_call(tally.crossings), false),
    ("wasted %", Tally::wasted_share, false),
];

/// As good as the best, for the star.
const CLOSE: f64 = 1.02;

/// The table. A star marks the best of a scenario in each column, and what comes close.
pub(crate) fn table(results: &Results<'_>) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write_table(&mut out, results);
    out
}

fn write_table(out: &mut String, results: &Results<'_>) -> std::fmt::Result {
    for kind in Kind::ALL {
        writeln!(out, "\n{}", kind.title())?;
        write!(out, "{:<14}", "")?;
        for (name, ..) in COLUMNS {
            write!(out, "{name:>11} ")?;
        }
        writeln!(out, "  work/system/spin/idle %")?;
        for (scenario, tallies) in results {
            if scenario.kind == kind && scenario.listed {
                writeln!(out, "{}", scenario.name)?;
                write_rows(out, tallies)?;
            }
        }
    }
    writeln!(out)?;
    for contender in &contenders::ALL {
        writeln!(out, "{:<14}{}", contender.name, contender.about)?;
    }
    writeln!(
        out,
        "{:<14}CPUs that idle or spin beside an address space that has work and no CPU, of all CPUs\n\
         {:<14}processors handed over, or woken, for another address space, for each call\n\
         {:<14}the best of its column, or within 2 % of it",
        "wasted", "crossings", "*"
    )
}

fn write_rows(out: &mut String, tallies: &[Tally]) -> std::fmt::Result {
    for (contender, tally) in contenders::ALL.iter().zip(tallies) {
        write!(out, "  {:<12}", contender.name)?;
        for (_, of, more) in COLUMNS {
            let star = if is_best(of(tally), tallies.iter().map(of), more) {
                '*'
            } else {
                ' '
            };
            write!(out, "{:>11.*}{star}", decimals(of(tally)), of(tally))?;
        }
        let [work, system, spin, idle] =
            [Use::Work, Use::System, Use::Spin, Use::Idle].map(|what| tally.share(what));
        writeln!(out, "  {work:>3.0} {system:>3.0} {spin:>3.0} {idle:>3.0}")?;
    }
    Ok(())
}

fn decimals(value: f64) -> usize {
    match value {
        value if value >= 100.0 => 0,
        value if value >= 10.0 => 1,
        _ => 2,
    }
}

fn is_best(value: f64, all: impl Iterator<Item = f64>, more: bool) -> bool {
    if more {
        value * CLOSE >= all.fold(0.0, f64::max)
    } else {
        value <= all.fold(f64::INFINITY, f64::min) * CLOSE
    }
}

pub(crate) fn json(results: &Results<'_>, seed: u64) -> Value {
    let runs = results.iter().flat_map(|(scenario, tallies)| {
        contenders::ALL
            .iter()
            .zip(tallies)
            .map(|(contender, tally)| {
                json!({
                    "kind": format!("{:?}", scenario.kind),
                    "scenario": scenario.name,
                    "policy": contender.name,
                    "results": tally.json(),
                })
            })
    });
    json!({ "seed": seed, "runs": runs.collect::<Vec<_>>() })
}
