//! What every figure stands beside: the raw limits of this machine at this moment.
//!
//! - **raw**: one cache line there and one back between two processes that spin, on two CPUs.
//! - **handover**: a futex wake and a wait there, and the same back, both processes on one CPU. With
//!   [`Ping::Message`] also 64 bytes each way, which is what a kernel-mediated hand-off per call costs
//!   at least; with [`Ping::Socket`] a Unix socket carries them.
//!
//! The other end sleeps on a futex while nothing is measured with it, so it disturbs nobody.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::thread::futex;

use super::child::{Child, cpus, pin, pinned, ready};
use super::shared::{LINE, Shared, WORDS};

/// Lines of the shared memory: what to do, there, back, and the messages.
const MODE: usize = 0;
const THERE: usize = 1;
const BACK: usize = 2;
const REQUEST: usize = 3;
const REPLY: usize = 4;

/// Modes: asleep, or echoing by spinning.
const ASLEEP: u32 = 0;
const SPIN: u32 = 1;
/// A round trip that ends the spinning.
const STOP: u32 = u32::MAX;

/// A time that no measurement with a single CPU should exceed: a spinning round trip then takes two
/// ticks of the scheduler.
const SPINNING: Duration = Duration::from_millis(100);

/// How two processes that sleep are woken.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ping {
    /// Only woken.
    Futex,
    /// Woken, with a message in shared memory each way.
    Message,
    /// Through a Unix socket.
    Socket,
}

impl Ping {
    fn name(self) -> &'static str {
        match self {
            Self::Futex => "futex",
            Self::Message => "message",
            Self::Socket => "socket",
        }
    }
}

/// The cache-line round trip.
pub struct Raw {
    shared: Shared,
    cpu: u32,
    /// Round trips between two looks at the clock.
    at_once: u32,
    _child: Child,
}

impl Raw {
    pub fn start() -> Self {
        let cpus = cpus();
        let other = cpus.get(1).copied().unwrap_or(cpus[0]);
        let (shared, _file, path) = Shared::create();
        let _child = Child::start(&format!("raw {path} {other}"));
        let (cpu, at_once) = (cpus[0], if cpus.len() > 1 { 1000 } else { 1 });
        Self {
            shared,
            cpu,
            at_once,
            _child,
        }
    }

    /// Nanoseconds for one round trip, over at most `rounds`.
    pub fn measure(&self, rounds: u32) -> f64 {
        pinned(self.cpu, || {
            let mode = self.shared.line(MODE);
            mode.store(SPIN, Ordering::Release);
            wake(mode);
            self.round(1); // it is awake
            let begin = Instant::now();
            let mut done = 0;
            while done < rounds && (done % self.at_once != 0 || begin.elapsed() < SPINNING) {
                done += 1;
                self.round(1 + done);
            }
            let taken = begin.elapsed();
            mode.store(ASLEEP, Ordering::Release);
            self.round(STOP);
            self.shared.line(THERE).store(0, Ordering::Relaxed);
            taken.as_nanos() as f64 / f64::from(done)
        })
    }

    fn round(&self, value: u32) {
        self.shared.line(THERE).store(value, Ordering::Release);
        while self.shared.line(BACK).load(Ordering::Acquire) != value {
            std::hint::spin_loop();
        }
    }
}

/// The other end of [`Raw`].
pub fn raw_child(path: &str, cpu: &str) {
    let shared = Shared::open(path);
    pin(cpu.parse().expect("a CPU"));
    ready();
    loop {
        await_change(shared.line(MODE), ASLEEP);
        let mut last = 0;
        while last != STOP {
            let seen = shared.line(THERE).load(Ordering::Acquire);
            if seen != last && seen != 0 {
                shared.line(BACK).store(seen, Ordering::Release);
                last = seen;
            }
            std::hint::spin_loop();
        }
    }
}

/// The bare hand-over, or what is built on it.
pub struct Handover {
    shared: Shared,
    socket: Option<UnixStream>,
    ping: Ping,
    cpu: u32,
    _child: Child,
}

impl Handover {
    /// Both ends on the first allowed CPU.
    pub fn start(ping: Ping) -> Self {
        let cpu = cpus()[0];
        let (shared, _file, path) = Shared::create();
        let directory = tempfile::tempdir().expect("a directory");
        let name = directory.path().join("socket");
        let listener = UnixListener::bind(&name).expect("a socket");
        let kind = ping.name();
        let role = format!("handover {path} {cpu} {kind} {}", name.display());
        let _child = Child::start(&role);
        let socket = (ping == Ping::Socket).then(|| listener.accept().expect("the child").0);
        let mut this = Self {
            shared,
            socket,
            ping,
            cpu,
            _child,
        };
        this.measure(10);
        this
    }

    /// Nanoseconds for one round trip.
    pub fn measure(&mut self, rounds: u32) -> f64 {
        pinned(self.cpu, || {
            let begin = Instant::now();
            (0..rounds).for_each(|_| self.round());
            begin.elapsed().as_nanos() as f64 / f64::from(rounds)
        })
    }

    /// Nanoseconds for a round trip after both have slept for `pause`: the median of some.
    pub fn measure_after(&mut self, pause: Duration, samples: u32) -> f64 {
        pinned(self.cpu, || {
            super::report::median((0..samples).map(|_| {
                std::thread::sleep(pause);
                let begin = Instant::now();
                self.round();
                begin.elapsed().as_nanos() as f64
            }))
        })
    }

    fn round(&mut self) {
        let shared = &self.shared;
        if let Some(socket) = &mut self.socket {
            let mut message = [1; LINE];
            socket.write_all(&message).expect("the child reads");
            socket.read_exact(&mut message).expect("the child answers");
            return;
        }
        let (there, back) = (shared.line(THERE), shared.line(BACK));
        let next = there.load(Ordering::Relaxed).wrapping_add(1);
        if self.ping == Ping::Message {
            write_message(shared, REQUEST, next);
        }
        there.store(next, Ordering::Release);
        wake(there);
        await_change(back, next.wrapping_sub(1));
        if self.ping == Ping::Message {
            assert_eq!(read_message(shared, REPLY), next.wrapping_add(1));
        }
    }
}

/// The other end of [`Handover`].
pub fn handover_child(path: &str, cpu: &str, ping: &str, socket: &str) {
    let shared = Shared::open(path);
    pin(cpu.parse().expect("a CPU"));
    if ping == Ping::Socket.name() {
        let mut socket = UnixStream::connect(socket).expect("the parent listens");
        ready();
        let mut message = [0; LINE];
        while socket.read_exact(&mut message).is_ok() {
            socket.write_all(&message).expect("the parent reads");
        }
        return;
    }
    ready();
    let (there, back) = (shared.line(THERE), shared.line(BACK));
    let mut last = 0;
    loop {
        last = await_change(there, last);
        if ping == Ping::Message.name() {
            let request = read_message(&shared, REQUEST);
            write_message(&shared, REPLY, request.wrapping_add(1));
        }
        back.store(last, Ordering::Release);
        wake(back);
    }
}

fn write_message(shared: &Shared, line: usize, value: u32) {
    for i in 0..WORDS {
        shared.word(line, i).store(value, Ordering::Relaxed);
    }
}

/// The message's last word; all of it is read.
fn read_message(shared: &Shared, line: usize) -> u32 {
    let words = (0..WORDS).map(|i| shared.word(line, i).load(Ordering::Relaxed));
    words.fold(0, |_, word| std::hint::black_box(word))
}

fn wake(word: &AtomicU32) {
    futex::wake(word, futex::Flags::empty(), 1).expect("a futex");
}

/// Sleeps until the word is no longer `old`; what it is then.
fn await_change(word: &AtomicU32, old: u32) -> u32 {
    loop {
        let now = word.load(Ordering::Acquire);
        if now != old {
            return now;
        }
        let _ = futex::wait(word, futex::Flags::empty(), old, None);
    }
}
