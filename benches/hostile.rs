//! What a hostile client costs the honest ones of the same server.
//!
//! `cargo bench --bench hostile`. An honest client and its server have one CPU to themselves, with all their threads.
//! Another client of that server has the other CPU: it binds and breaks the protocol again and again, or floods the
//! server with doorbells, with wake-ups, or with grants of processors that it does not lend. What is lost is what the
//! server does for it. The base is the same with a process in its place that spins and touches nothing.
//!
//! `rate` is that of null calls one after the other, `p99` that of null calls now and then; S: processors of the
//! server, which runs on its client's if it has none.

mod common;
#[path = "../tests/common/kit.rs"]
mod kit;
#[path = "../tests/common/raw.rs"]
mod raw;

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use clap::Parser;
use common::child::{Child, pin, ready, role, two_cpus};
use common::pair::{WARM_UP, runtime};
use common::report::{Args, Base, Figure, Report};
use hdrhistogram::Histogram;
use kit::{Hostile, REPLY};
use urpc::{Procedure, Runtime};

const ATTACKS: [&str; 5] = ["violations", "bells", "wakes", "grants", "all of it"];
/// Grant words of a channel.
const GRANTS: usize = 8;
/// Between two calls now and then.
const PAUSE: Duration = Duration::from_micros(300);

fn main() {
    if let Some(role) = role()
        && let ["attacker", name, attack, cpu] =
            role.iter().map(String::as_str).collect::<Vec<_>>()[..]
    {
        return attacker(name, attack, cpu.parse().expect("a CPU"));
    }
    if common::played_a_role() {
        return;
    }
    let args = Args::parse();
    let mut report = Report::new(4 * ATTACKS.len());
    let (victims, attackers) = two_cpus();
    if victims == attackers {
        report.note("there is one CPU for all, so the attacker's own time is lost, too");
    }
    pin(victims);
    let time = Duration::from_millis(if args.quick { 150 } else { 400 });
    for processors in [1, 0] {
        let honest = Honest::start(processors, attackers);
        for attack in ATTACKS {
            for (what, unit) in [("rate", "calls/s"), ("p99", "ns")] {
                let name = format!("{what} {attack} S={processors}");
                report.begin(&name);
                if args.wants(&name) {
                    let measure = |attack: &str| honest.beside(attack, time, what == "p99");
                    let figures: Vec<_> = (0..args.rounds())
                        .map(|_| {
                            let before = measure("none");
                            let value = measure(attack);
                            let base = (before + measure("none")) / 2.0;
                            Figure { value, base }
                        })
                        .collect();
                    report.add(&name, unit, Base::Other("spinner"), &figures);
                }
                report.step();
            }
        }
    }
    report.end(&args);
}

/// A client and its server.
struct Honest {
    runtime: Runtime,
    null: Procedure<(), ()>,
    name: String,
    attackers: u32,
    _server: Child,
    _directory: tempfile::TempDir,
}

impl Honest {
    /// The attackers get that CPU.
    fn start(processors: usize, attackers: u32) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let name = directory.path().join("bench.sock").display().to_string();
        let _server = Child::start(&format!("server {name} {processors}"));
        let runtime = runtime(1, 0).build().expect("a runtime");
        let connected = runtime.block_on(async { urpc::connect(&name).await });
        Self {
            null: connected.expect("the server is ready").procedure("null"),
            runtime,
            name,
            attackers,
            _server,
            _directory: directory,
        }
    }

    /// Calls a second while that goes on for so long; or how long the slowest of a hundred takes, in nanoseconds,
    /// with pauses between them.
    fn beside(&self, attack: &str, time: Duration, pauses: bool) -> f64 {
        let _attacker = Child::start(&format!(
            "attacker {} {} {}",
            self.name,
            attack.replace(' ', "-"),
            self.attackers
        ));
        let mut taken = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 2).expect("bounds");
        self.runtime.block_on(async {
            let warm = Instant::now() + WARM_UP;
            while Instant::now() < warm {
                self.null.call(()).await.expect("the server serves");
            }
            let begun = Instant::now();
            while begun.elapsed() < time {
                if pauses {
                    urpc::time::sleep(PAUSE).await;
                }
                let begun = Instant::now();
                self.null.call(()).await.expect("the server serves");
                let nanos = begun.elapsed().as_nanos() as u64;
                taken.record(nanos.max(1)).expect("in range");
            }
        });
        if pauses {
            taken.value_at_quantile(0.99) as f64
        } else {
            taken.len() as f64 / time.as_secs_f64()
        }
    }
}

/// Attacks the server of `name` until it is killed.
fn attacker(name: &str, attack: &str, cpu: u32) {
    pin(cpu);
    if attack == "none" {
        ready();
        loop {
            std::hint::spin_loop();
        }
    }
    let mut hostile = connect(name).expect("it is let in");
    ready();
    for round in 0.. {
        // Whatever it takes to be let in again is part of it.
        while hostile.is_hung_up() {
            match connect(name) {
                Some(fresh) => hostile = fresh,
                None => std::thread::yield_now(),
            }
        }
        match (attack, round % 4) {
            ("violations", _) | ("all-of-it", 0) => violate(&mut hostile),
            ("bells", _) | ("all-of-it", 1) => while hostile.ring() {},
            ("wakes", _) | ("all-of-it", 2) => wake_all(&hostile),
            _ => hostile.grant(GRANTS),
        }
    }
}

fn connect(name: &str) -> Option<Hostile> {
    Hostile::connect_with(name, GRANTS as u32)
}

/// Answers a call that there is not, and waits until it is found out.
fn violate(hostile: &mut Hostile) {
    hostile.forge(REPLY, 0, 0, &[1 << 16]);
    while !hostile.is_hung_up() {
        hostile.ring();
        std::thread::yield_now();
    }
}

/// Wakes who sleeps on a wake word.
fn wake_all(hostile: &Hostile) {
    for k in 0..GRANTS {
        let wakes = [
            hostile.bound.wakes.lent_to_peer(k).grant,
            hostile.bound.wakes.lent_to_us(k).returned,
        ];
        for word in wakes {
            raw::say(word, word, word.load(Relaxed).wrapping_add(1));
        }
    }
}
