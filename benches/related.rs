//! The systems that the paper stands beside (§5), each as the little of it that carries a message.
//!
//! `cargo bench --bench related`. First on one CPU, where somebody has to hand it over: each call then costs a
//! crossing there and back, which urpc with several callers shares among their calls. Then on two, where
//! nobody has to, if nothing lies in between. A time is that of a call, or of a record that goes one way; with
//! several callers, of all calls divided by their number.
//!
//! - Yackos (§5.2): a relay process, and Mach by a scheduling hint: `related/polling.rs`.
//! - Mach (§5.4): messages in the kernel, handed over: `related/pipe.rs`.
//! - Camelot (§5.4): one-way queues: `related/queue.rs`.
//! - LRPC (§5.5): the caller's processor crosses at each call, and the message lies in memory that both share: a
//!   futex hand-off with 64 bytes each way (`common/base.rs`). Left out: that the thread itself
//!   crosses, so that there is nobody to be woken, and its caching of domains on idle processors.
//!
//! With one caller on one CPU, all that hand over at each call and decide nothing are faster, LRPC about twice as
//! in the paper (157 against 375 µs): before urpc lends a processor it has scanned, announced that it rests, and asked
//! whether there is anything else to do. With two callers it is level with LRPC, and then ahead, since one donation
//! serves them all (R41). A one-way queue is cheaper than a call in any case: nobody answers.
//!
//! Sylvan (§5.1) needs its coprocessor. Promises (§5.3) are what a call is here, a future.

#![allow(unreachable_pub)] // as in `common`: parts of one program

mod common;
#[path = "related/pipe.rs"]
mod pipe;
#[path = "related/polling.rs"]
mod polling;
#[path = "related/queue.rs"]
mod queue;

use clap::Parser;
use common::base::{Handover, Ping, Raw};
use common::child::{cpus, role};
use common::contest::Place;
use common::pair::Pair;
use common::report::{Args, Base, Figure, Report};

/// Calls in one turn where each is some microseconds, and where it is less.
const CALLS: u32 = 20_000;
const MANY: u32 = 1_000_000;
/// Round trips of one base measurement.
const BASE: u32 = 5_000;

fn main() {
    if played_a_role() {
        return;
    }
    let args = Args::parse();
    let cpus = cpus();
    let one = cpus[0];
    let mut bare = Handover::start(Ping::Futex);
    let mut hand_off = Handover::start(Ping::Message);
    let mut on_one = vec![
        row("one CPU: urpc T=1 S=0", Beside::Base, urpc(1, 0, CALLS)),
        row("one CPU: urpc T=2 S=0", Beside::One, urpc(2, 0, CALLS)),
        row(
            "one CPU: urpc T=32 S=0",
            Beside::One,
            urpc(queue::DEPTH, 0, MANY),
        ),
        row("one CPU: LRPC-like", Beside::One, |args| {
            hand_off.measure(args.count(CALLS))
        }),
        row("one CPU: Mach-like, in the kernel", Beside::One, |args| {
            pipe::measure(args.count(CALLS), Place::Together)
        }),
        row("one CPU: Mach-like, by a hint", Beside::One, move |args| {
            polling::measure(args.count(CALLS), one, one, None)
        }),
        row("one CPU: Yackos-like", Beside::One, move |args| {
            polling::measure(args.count(CALLS), one, one, Some(one))
        }),
        row(
            "one CPU: Camelot-like, one way",
            Beside::Many,
            move |args| queue::measure(args.count(MANY), one, one),
        ),
    ];
    let mut on_two = vec![];
    if let &[one, two, ref more @ ..] = &cpus[..] {
        // The relay keeps a CPU to itself; so does everybody where there are three.
        let third = more.first().copied().unwrap_or(one);
        on_two = vec![
            row("two CPUs: urpc T=1 S=1", Beside::Base, urpc(1, 1, MANY)),
            row("two CPUs: urpc T=2 S=1", Beside::One, urpc(2, 1, MANY)),
            row(
                "two CPUs: urpc T=32 S=1",
                Beside::One,
                urpc(queue::DEPTH, 1, MANY),
            ),
            row("two CPUs: Mach-like, in the kernel", Beside::One, |args| {
                pipe::measure(args.count(CALLS), Place::Free)
            }),
            row("two CPUs: Yackos-like", Beside::One, move |args| {
                polling::measure(args.count(CALLS), one, third, Some(two))
            }),
            row(
                "two CPUs: Camelot-like, one way",
                Beside::Many,
                move |args| queue::measure(args.count(MANY), one, two),
            ),
        ];
    }

    let mut report = Report::new((on_one.len() + on_two.len()) * args.rounds());
    let handover = || bare.measure(args.count(BASE));
    table(&mut report, &args, Base::Handover, handover, &mut on_one);
    if on_two.is_empty() {
        report.note("one CPU only: nothing is measured on two");
    } else {
        let raw = Raw::start();
        let raw = || raw.measure(args.count(MANY));
        table(&mut report, &args, Base::Raw, raw, &mut on_two);
    }
    report.end(&args);
}

/// What a row stands beside.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beside {
    /// The base of the table.
    Base,
    /// urpc with one caller: the first row.
    One,
    /// urpc with as many callers as the queue has slots: the row `MANY_ROW`.
    Many,
}

const MANY_ROW: usize = 2;

struct Row<'a> {
    name: &'static str,
    beside: Beside,
    /// Its turn: a time in nanoseconds.
    turn: Box<dyn FnMut(&Args) -> f64 + 'a>,
    figures: Vec<Figure>,
}

fn row<'a>(name: &'static str, beside: Beside, turn: impl FnMut(&Args) -> f64 + 'a) -> Row<'a> {
    Row {
        name,
        beside,
        turn: Box::new(turn),
        figures: Vec::new(),
    }
}

/// Calls of urpc by `t` callers at a time, to a server with `s` processors.
fn urpc(t: u32, s: usize, calls: u32) -> impl FnMut(&Args) -> f64 {
    move |args| {
        let taken = Pair::start(1, s).null(t, args.count(calls));
        taken.time.as_nanos() as f64 / taken.calls as f64
    }
}

/// Rounds in which everybody has a turn; then their rows.
fn table(
    report: &mut Report,
    args: &Args,
    base: Base,
    mut measure_base: impl FnMut() -> f64,
    rows: &mut [Row],
) {
    for _ in 0..args.rounds() {
        let before = measure_base();
        let mut turns = Vec::new();
        for row in rows.iter_mut() {
            // urpc is measured in any case: the others stand beside it.
            let wanted = args.wants(row.name) || turns.len() <= MANY_ROW;
            report.begin(row.name);
            turns.push(if wanted { (row.turn)(args) } else { f64::NAN });
            report.step();
        }
        let after = measure_base();
        for (row, &value) in rows.iter_mut().zip(&turns) {
            let base = match row.beside {
                Beside::Base => (before + after) / 2.0,
                Beside::One => turns[0],
                Beside::Many => turns[MANY_ROW],
            };
            row.figures.push(Figure { value, base });
        }
    }
    for row in rows.iter().filter(|row| args.wants(row.name)) {
        let base = match row.beside {
            Beside::Base => base,
            Beside::One => Base::Other("urpc T=1"),
            Beside::Many => Base::Other("urpc T=32"),
        };
        report.add(row.name, "ns", base, &row.figures);
    }
}

/// As in `common`, for the roles that only this bench has.
fn played_a_role() -> bool {
    let role = role().unwrap_or_default();
    let words: Vec<&str> = role.iter().map(String::as_str).collect();
    match words[..] {
        ["near-server", path, cpu, looks] => polling::server_child(path, cpu, looks, 0),
        ["far-server", path, cpu, looks] => polling::server_child(path, cpu, looks, 1),
        ["relay", path, cpu, looks] => polling::relay_child(path, cpu, looks),
        ["pipe", there, back, cpu] => pipe::server_child(there, back, cpu),
        ["disk-manager", path, cpu, polls] => queue::manager_child(path, cpu, polls),
        _ => return common::played_a_role(),
    }
    true
}
