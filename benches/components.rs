//! Table II of the paper: what a null call is made of, at the client and at the server; and whether that
//! explains how long one takes between two processes.
//!
//! `cargo bench --bench components`. *Send*, *poll* and *receive* are those of two ends of a channel, used by
//! one thread, so that no cache line travels. *Dispatch* is what a whole call costs besides, caller and server
//! being tasks of one process and one processor, bound to one another as any two processes are. Of that, the
//! client's part is what a caller costs that is put to sleep and woken, rather than keeping its context
//! loaded (footnote 1 of the paper).

mod common;

use std::hint::black_box;
use std::time::Instant;

use clap::Parser;
use common::base::Raw;
use common::child::{cpus, pinned};
use common::oneself::Oneself;
use common::pair::Pair;
use common::report::{Args, Base, Figure, Report, median};
use common::table::Table;
use urpc_channel::{
    Arrived, Body, Channel, Geometry, Head, Inbox, Kind, Large, Limits, Outbox, Sent, Sink,
};

/// Messages that are in a ring at a time, and how often it is filled so.
const BATCH: u32 = 64;
const BATCHES: u32 = 4_000;
const CALLS: u32 = 200_000;
const RAW: u32 = 100_000;

/// The parts, by the paper's names and in its order, and what they took there: µs of client and server.
const PARTS: [(&str, [f64; 2]); 4] = [
    ("send", [18.0, 13.0]),
    ("poll", [6.0, 6.0]),
    ("receive", [10.0, 9.0]),
    ("dispatch", [20.0, 25.0]),
];
const TOTALS: [f64; 2] = [54.0, 53.0];
const WHOLE: &str = "null T=1 C=1 S=1";
const SIDES: [&str; 2] = ["client", "server"];

fn main() {
    if common::played_a_role() {
        return;
    }
    let args = Args::parse();
    let report = Report::new(args.rounds());
    if cpus().len() < 2 {
        report.note("one CPU only: `raw` takes two ticks of the scheduler, and so does a call");
    }
    let raw = Raw::start();
    let [kept, woken] = [true, false].map(Oneself::start);
    let pair = Pair::start(1, 1);
    let mut rounds = Vec::new();
    for _ in 0..args.rounds() {
        report.begin("the parts of a null call");
        let before = raw.measure(args.count(RAW));
        let ends = pinned(cpus()[0], || ends(args.count(BATCHES)));
        let calls = args.count(CALLS);
        let (kept, woken) = (kept.measure(calls), woken.measure(calls));
        let taken = pair.null(1, args.count(CALLS));
        let latency = taken.time.as_nanos() as f64 / taken.calls as f64;
        let raw = (before + raw.measure(args.count(RAW))) / 2.0;
        rounds.push(Round::new(ends, kept, woken, latency, raw));
        report.step();
    }
    show(report, &args, &rounds);
}

/// What was measured in one round, ns.
struct Round {
    /// By part and side.
    parts: [[f64; 2]; 4],
    /// The call between two processes, and what the parts make one expect.
    latency: f64,
    expected: f64,
    raw: f64,
}

impl Round {
    fn new(ends: [[f64; 2]; 3], kept: f64, woken: f64, latency: f64, raw: f64) -> Self {
        let [send, poll, receive] = ends;
        let at_the_ends: f64 = ends.iter().flatten().sum();
        let dispatch = [woken - kept, kept - at_the_ends];
        Self {
            parts: [send, poll, receive, dispatch],
            latency,
            // The caller keeps its context loaded, and each side polls while the other one's line is on its
            // way, which `raw` has in it.
            expected: kept - poll[0] - poll[1] + raw,
            raw,
        }
    }

    fn total(&self, side: usize) -> f64 {
        self.parts.iter().map(|part| part[side]).sum()
    }
}

fn show(mut report: Report, args: &Args, rounds: &[Round]) {
    let mut table = Table::new(
        "ns",
        ["client", "server", "client 1991, µs", "server 1991, µs"],
    );
    let beside_raw = |value: &dyn Fn(&Round) -> f64| -> Vec<_> {
        let figure = |round| Figure {
            value: value(round),
            base: round.raw,
        };
        rounds.iter().map(figure).collect()
    };
    let middle = |value: &dyn Fn(&Round) -> f64| Some(median(rounds.iter().map(value)));
    for (i, (part, paper)) in PARTS.into_iter().enumerate() {
        for (j, side) in SIDES.into_iter().enumerate() {
            let figures = beside_raw(&|round| round.parts[i][j]);
            let name = format!("{part}, {side}");
            report.paper(&name, &format!("{} µs", paper[j]));
            report.add(&name, "ns", Base::Raw, &figures);
        }
        let sides = [0, 1].map(|j| middle(&|round| round.parts[i][j]));
        table.row(part, sides.into_iter().chain(paper.map(Some)));
    }
    for (j, side) in SIDES.into_iter().enumerate() {
        let figures = beside_raw(&|round| round.total(j));
        let name = format!("total, {side}");
        report.paper(&name, &format!("{} µs", TOTALS[j]));
        report.add(&name, "ns", Base::Raw, &figures);
    }
    let totals = [0, 1].map(|j| middle(&|round| round.total(j)));
    table.row("total", totals.into_iter().chain(TOTALS.map(Some)));
    let explained = |round: &Round| Figure {
        value: round.latency,
        base: round.expected,
    };
    let figures: Vec<_> = rounds.iter().map(explained).collect();
    report.paper(WHOLE, "93 µs; expected 107 µs");
    report.add(WHOLE, "ns", Base::Other("expected"), &figures);
    report.end(args);

    println!("\n{table}");
    let value = |value: &dyn Fn(&Round) -> f64| middle(value).unwrap_or_default();
    println!(
        "the sum {:.0} ns, less the client's dispatch (its context stays loaded) and both polls (they go on \
         while a line travels), and a line there and back, {:.0} ns: {:.0} ns; measured {:.0} ns\n\
         the paper: 54 + 53 = 107 µs, measured 93 µs, 14 µs less because the context stays loaded",
        value(&|round| round.total(0) + round.total(1)),
        value(&|round| round.raw),
        value(&|round| round.expected),
        value(&|round| round.latency),
    );
}

/// Two ends of a channel in one process: send, poll and receive, of client and server.
fn ends(batches: u32) -> [[f64; 2]; 3] {
    let geometry = Geometry::default();
    let [mut a, mut b] = [(); 2].map(|()| Outbox::create(&geometry).expect("a memfd"));
    let [of_a, of_b] = [&mut a, &mut b].map(|outbox| {
        let memfd = outbox.take_fd().expect("a new one has it");
        Inbox::accept(memfd, &geometry).expect("made by this process")
    });
    let client = Channel::new(a, of_b, Limits::default());
    let server = Channel::new(b, of_a, Limits::default());

    let mut nanos = [[0.0; 2]; 3];
    let mut timed = |part: usize, side: usize, batch: &mut dyn FnMut()| {
        let begin = Instant::now();
        batch();
        nanos[part][side] += begin.elapsed().as_nanos() as f64;
    };
    for _ in 0..batches {
        timed(1, 0, &mut || polls(&client));
        timed(0, 0, &mut || sends(&client, Kind::Call));
        timed(2, 1, &mut || {
            let mut last = Last(Body::EMPTY);
            for _ in 0..BATCH {
                assert_eq!(server.receive_into(1, &mut last), Ok(1));
            }
            black_box(&last.0);
        });
        timed(1, 1, &mut || polls(&server));
        timed(0, 1, &mut || sends(&server, Kind::Reply));
        timed(2, 0, &mut || {
            let mut body = Body::EMPTY;
            for id in 0..BATCH {
                assert!(client.receive_answer(id, |arrived| arrived.read_into(&mut body)));
            }
            black_box(&body);
        });
    }
    let all = f64::from(batches) * f64::from(BATCH);
    nanos.map(|sides| sides.map(|sum| sum / all))
}

/// Keeps the body of what came last, where the one before was.
struct Last(Body);

impl Sink for Last {
    fn small(&mut self, _: Head, body: Arrived<'_>) {
        body.read_into(&mut self.0);
    }

    fn large(&mut self, _: Head, body: Large) {
        self.0 = Body::Heap(body);
    }
}

fn sends(end: &Channel, kind: Kind) {
    let mut nothing = Body::EMPTY;
    for id in 0..BATCH {
        let head = Head {
            kind,
            id,
            procedure: 0,
            deadline_ms: 0,
        };
        // Once a lap the short way leads to the look at how far the peer is.
        if !end.post(head, &mut nothing) {
            let sent = end.send(head.with(Body::EMPTY));
            assert_eq!(sent.expect("open"), Sent::Published);
        }
    }
}

/// Looks at an end where nothing has come in.
fn polls(end: &Channel) {
    for _ in 0..BATCH {
        assert!(!black_box(end).has_incoming());
    }
}
