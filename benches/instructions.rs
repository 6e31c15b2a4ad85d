//! How many instructions a warm call takes, client and server together: all, locked ones, and fences; and that it
//! allocates nothing and makes no system call.
//!
//! `cargo bench --bench instructions`. One thread is both ends by turns, so that nobody spins; callgrind counts what
//! it executes. Of two runs with different numbers of calls only the difference counts. Without valgrind there is
//! nothing to see.

mod common;

use clap::Parser;
use common::callgrind::{self, Profile, Site};
use common::report::{Args, Base, Figure, Report};
use urpc_executor::TASKS_PER_SCAN;

/// Calls of the shorter run, and how many more the longer one makes.
const FEW: u32 = 1_000;
const MORE: u32 = 20_000;
/// Locked instructions that a call may have beside those of the `async-task` crate.
const LOCKED: f64 = 4.0;
/// What happens less often than this in a call is no part of it.
const PART: f64 = 5e-3;
/// Functions with a smaller share are not shown.
const SHOWN: f64 = 0.01;

fn main() {
    if common::played_a_role() {
        return;
    }
    let args = Args::parse();
    if !callgrind::is_there() {
        println!("There is no valgrind here for this machine's processor: nothing is counted.");
        return;
    }
    let mut report = Report::new(2);
    for kind in ["null", "typed"] {
        if args.wants(kind) {
            report.begin(kind);
            let profile = Profile::of(kind, FEW, args.count(MORE));
            show(&mut report, kind, &profile);
        }
        report.step();
    }
    report.end(&args);
}

fn show(report: &mut Report, kind: &str, profile: &Profile) {
    let sum = |of: &dyn Fn(&Site) -> f64| profile.sites.iter().map(of).sum::<f64>();
    let all = sum(&|site| site.instructions);
    let tasks = sum(&|site| site.locked * f64::from(u8::from(site.owner == "async-task")));
    let others = sum(&|site| site.locked) - tasks;
    let fences = sum(&|site| site.instructions * f64::from(u8::from(site.is_fence)));
    let part = |value: f64| if value < PART { 0.0 } else { value };

    let mut add = |name: &str, value: f64, base: (&'static str, f64)| {
        let (base_name, base) = base;
        let figure = Figure { value, base };
        let name = format!("{kind}: {name}");
        report.add(&name, "a call", Base::Other(base_name), &[figure]);
    };
    let each = ("one a call", 1.0);
    add("instructions", all, ("all", all));
    add("locked, async-task's", tasks, each);
    add("locked, all others", others, ("limit", LOCKED));
    add("fences", part(fences), each);
    add("allocations", part(profile.allocations), each);
    add("looks at the clock", part(profile.clocks), each);
    add("system calls", part(profile.system_calls), each);
    for (owner, count) in profile.by(|site| &site.owner) {
        if count >= 1.0 {
            add(&format!("in {owner}"), count, ("all", all));
        }
    }
    for (place, count) in profile.by(|site| &site.place) {
        if count >= all * SHOWN {
            add(&format!("in {place}"), count, ("all", all));
        }
    }

    let met = |met: bool| if met { "met" } else { "NOT met" };
    report.note(&format!(
        "{kind}: at most {LOCKED} locked instructions beside async-task's: {}; no fence but in the scan after \
         {TASKS_PER_SCAN} tasks: {}; no allocation: {}; no system call: {}",
        met(others <= LOCKED + PART),
        met(fences * f64::from(TASKS_PER_SCAN) < 1.1),
        met(part(profile.allocations) == 0.0),
        met(part(profile.system_calls) == 0.0),
    ));
    for site in &profile.sites {
        let what = if site.is_fence { "fence" } else { "locked" };
        if site.instructions >= PART && (site.is_fence || site.locked > 0.0) {
            let (count, place, line) = (site.instructions, &site.place, site.line);
            report.note(&format!("{kind}: {count:.3} × {what}: {place}:{line}"));
        }
    }
}
