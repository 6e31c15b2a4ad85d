//! What the bytes of a call cost, beside the least they can cost: copied in and out of shared memory.
//!
//! `cargo bench --bench payload`. An echo of 0 bytes to 16 MiB: typed (a service with `serde_bytes::ByteBuf`)
//! and borrowed (a free-form call with `serde_bytes::Bytes`). Its base, `bare`, are two processes that spin on a
//! flag, and copy in and out, each way. A message has 4 MiB at most: 16 MiB are eight calls at a time. `word` is
//! what each word of arguments and reply adds to an empty call (R9); `faults` are page faults of both processes.

mod common;

use clap::Parser;
use common::bulk::{Bare, Bulk, Form, Taken};
use common::report::{Args, Base, Figure, Report};

/// Bytes each way.
const SIZES: [(usize, &str); 8] = [
    (0, "0 B"),
    (8, "8 B"),
    (64, "64 B"),
    (1 << 10, "1 KiB"),
    (4 << 10, "4 KiB"),
    (64 << 10, "64 KiB"),
    (1 << 20, "1 MiB"),
    (16 << 20, "16 MiB"),
];
const FORMS: [(Form, &str); 2] = [(Form::Typed, "typed"), (Form::Borrowed, "borrowed")];
/// A word of arguments.
const WORD: f64 = 8.0;
const PAGE: f64 = 4096.0;
const BARE: Base = Base::Other("bare");

/// So many echoes take some 20 ms.
fn count(args: &Args, bytes: usize) -> u32 {
    let full = 20_000_000 / (500 + bytes as u32 / 4);
    args.count(full).max(3)
}

fn main() {
    if common::played_a_role() {
        return;
    }
    let args = Args::parse();
    let mut report = Report::new(SIZES.len() * FORMS.len());
    let mut bare = Bare::start();
    let bulk = Bulk::start();
    for (form, form_name) in FORMS {
        // Of each round: what an empty call took.
        let mut empty: Vec<Figure> = Vec::new();
        for (bytes, size) in SIZES {
            let name = format!("{form_name} {size}");
            // The words are counted from the empty call.
            if !args.wants(&name) && bytes != 0 {
                report.step();
                continue;
            }
            report.begin(&name);
            let rounds: Vec<_> = (0..args.rounds())
                .map(|_| beside(&mut bare, &args, bytes, |n| bulk.measure(form, bytes, n)))
                .collect();
            let figures: Vec<_> = rounds.iter().map(|(figure, _)| *figure).collect();
            report.add(&name, "ns", BARE, &figures);
            if bytes == 0 {
                empty = figures;
            } else {
                let words = bytes as f64 / WORD;
                let more = figures.iter().zip(&empty).map(|(full, empty)| Figure {
                    value: (full.value - empty.value) / words,
                    base: (full.base - empty.base) / words,
                });
                let more: Vec<_> = more.collect();
                report.add(&format!("{name} word"), "ns/word", BARE, &more);
            }
            let faults = rounds.iter().map(|&(_, value)| Figure {
                value,
                base: (bytes as f64 / PAGE).ceil().max(1.0),
            });
            let faults: Vec<_> = faults.collect();
            report.add(
                &format!("{name} faults"),
                "faults/call",
                Base::Other("pages"),
                &faults,
            );
            report.step();
        }
    }
    report.end(&args);
}

/// What an echo takes, between two measurements of the base; and its page faults.
fn beside(
    bare: &mut Bare,
    args: &Args,
    bytes: usize,
    value: impl FnOnce(u32) -> Taken,
) -> (Figure, f64) {
    let count = count(args, bytes);
    let before = bare.measure(bytes, count);
    let taken = value(count);
    let after = bare.measure(bytes, count);
    let base = (before + after) / 2.0;
    (
        Figure {
            value: taken.nanoseconds,
            base,
        },
        taken.faults,
    )
}
