//! Processes that look into shared memory for messages of a cache line, and let the kernel run somebody else
//! (`sched_yield`) when they found none for a while.
//!
//! - **Yackos-like** (§5.2): client and server have no line of the memory in common; a relay process looks at
//!   everybody's, and copies each message on. Left out: a memory for each pair (all map the same), the squads of
//!   servers among which the relay chooses, and any queue: one call is under way.
//! - **Mach-like, by a scheduling hint** (§5.4, Black 1990): without the relay, on one CPU, with a hint at each
//!   look: the waiting thread offers its processor. Left out: naming the thread that is to have it
//!   (`thread_switch`), for which Linux has no call; with two threads on the CPU nobody else can get it.

use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::common::child::{Child, pin, pinned, ready};
use crate::common::shared::{Shared, WORDS};

/// Lines of the shared memory: to the server or the relay, and from there on; and back.
const THERE: [usize; 2] = [0, 1];
const BACK: [usize; 2] = [2, 3];

/// A message, and before it the number that publishes it.
type Message = [u32; WORDS - 1];

/// Sends, waits, and looks so often before it yields.
struct Line<'a> {
    shared: &'a Shared,
    looks: u32,
}

impl Line<'_> {
    fn put(&self, line: usize, number: u32, message: Message) {
        for (i, word) in message.into_iter().enumerate() {
            let at = self.shared.word(line, 1 + i);
            at.store(word, Ordering::Relaxed);
        }
        self.shared.line(line).store(number, Ordering::Release);
    }

    fn take(&self, line: usize, number: u32) -> Option<Message> {
        let came = self.shared.line(line).load(Ordering::Acquire) == number;
        let word = |i| self.shared.word(line, 1 + i).load(Ordering::Relaxed);
        came.then(|| std::array::from_fn(word))
    }

    fn wait(&self, line: usize, number: u32) -> Message {
        loop {
            for _ in 0..self.looks {
                if let Some(message) = self.take(line, number) {
                    return message;
                }
                std::hint::spin_loop();
            }
            rustix::thread::sched_yield();
        }
    }
}

/// Nanoseconds of a call, of so many. One CPU for the client, one for the server, and for the relay if there is
/// to be one.
pub fn measure(calls: u32, client: u32, server: u32, relay: Option<u32>) -> f64 {
    let cpus = [Some(client), Some(server), relay];
    let looks = |cpu| looks(cpus.iter().filter(|&&other| other == Some(cpu)).count());
    let (shared, _file, path) = Shared::create();
    let start = |role, cpu| Child::start(&format!("{role} {path} {cpu} {}", looks(cpu)));
    let _relay = relay.map(|cpu| start("relay", cpu));
    let far = if relay.is_some() { 1 } else { 0 };
    let _server = start(["near-server", "far-server"][far], server);
    let looks = looks(client);
    let line = Line {
        shared: &shared,
        looks,
    };
    pinned(client, || {
        let mut number = 0;
        let mut run = |calls| {
            let begin = Instant::now();
            for _ in 0..calls {
                number += 1;
                line.put(THERE[0], number, [number; WORDS - 1]);
                assert_eq!(line.wait(BACK[0], number), [!number; WORDS - 1]);
            }
            begin.elapsed().as_nanos() as f64 / f64::from(calls)
        };
        run(calls / 10 + 1);
        run(calls)
    })
}

/// Who has a CPU of its own looks on for a while; who shares one lets the others look first.
fn looks(on_this_cpu: usize) -> u32 {
    if on_this_cpu == 1 { 1000 } else { 1 }
}

/// The server's process: its answer is the complement of what it was asked.
pub fn server_child(path: &str, cpu: &str, looks: &str, hop: usize) {
    serve(path, cpu, looks, |line| {
        for number in 1.. {
            let message = line.wait(THERE[hop], number);
            line.put(BACK[hop], number, message.map(|word| !word));
        }
    });
}

/// The relay's process.
pub fn relay_child(path: &str, cpu: &str, looks: &str) {
    serve(path, cpu, looks, |line| {
        for number in 1.. {
            line.put(THERE[1], number, line.wait(THERE[0], number));
            line.put(BACK[0], number, line.wait(BACK[1], number));
        }
    });
}

fn serve(path: &str, cpu: &str, looks: &str, f: impl FnOnce(Line)) {
    let shared = Shared::open(path);
    pin(cpu.parse().expect("a CPU"));
    let looks = looks.parse().expect("a number");
    ready();
    f(Line {
        shared: &shared,
        looks,
    });
}
