//! A hostile peer, on top of `raw.rs`: it binds as the protocol asks, and from then on does as it likes. It writes
//! any word at any time, from another thread if it likes, forges and replays slots, rings without end, stalls,
//! floods, hangs up, and leaves its socket to a child that says nothing.
#![allow(dead_code, unreachable_pub)]

use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Relaxed, Release};

use crate::raw::{self, Bound, GEOMETRY, Shown};

/// The kind byte of a slot that holds a whole call.
pub const CALL: u8 = 1;
/// …a whole reply.
pub const REPLY: u8 = 2;
/// …the first piece of a large call.
pub const FIRST: u8 = 0x81;
/// …one more piece of it.
pub const MORE: u8 = 0x41;
/// …the end of one that was given up.
pub const ABORT: u8 = 0xc1;

/// See the file's comment.
pub struct Hostile {
    pub bound: Bound,
    /// Slots published so far.
    slots: u64,
}

impl From<Bound> for Hostile {
    fn from(bound: Bound) -> Self {
        Self { bound, slots: 0 }
    }
}

impl Hostile {
    /// Binds to the server at `path`. `None` if it is not let in.
    pub fn connect(path: &str) -> Option<Self> {
        Bound::connect(path).map(Self::from)
    }

    /// The same, and says that it has so many processors.
    pub fn connect_with(path: &str, processors: u32) -> Option<Self> {
        let shown = Shown {
            processors,
            ..Shown::new()
        };
        Bound::connect_as(path, shown).map(Self::from)
    }

    fn socket(&self) -> &UnixStream {
        &self.bound.socket
    }

    /// Writes any word of the outbox.
    pub fn write(&self, offset: usize, value: u64) {
        self.bound.shown.outbox.word(offset).store(value, Relaxed);
    }

    /// Where slot `index` lies.
    pub fn slot(index: u64) -> usize {
        4096 + (index % u64::from(GEOMETRY.slots)) as usize * 64
    }

    /// Publishes the next slot: kind, bytes inline, procedure; then the words behind the header.
    pub fn forge(&mut self, kind: u8, len: u8, procedure: u16, words: &[u64]) {
        let at = Self::slot(self.slots);
        for (i, word) in words.iter().enumerate() {
            self.write(at + 8 * (i + 1), *word);
        }
        self.slots += 1;
        let tag = u64::from(kind) | u64::from(len) << 8 | u64::from(procedure) << 16;
        let header = u64::from(self.slots as u32) | tag << 32;
        self.bound.shown.outbox.word(at).store(header, Release);
    }

    /// A small call. `bytes`, as the codec wants them, are 8 at most.
    pub fn call(&mut self, id: u32, procedure: u16, bytes: &[u8]) {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        let words = [id.into(), u64::from_ne_bytes(word)];
        self.forge(CALL, bytes.len() as u8, procedure, &words);
    }

    /// A piece of a large call: how much of it, of how many bytes, beginning where; from the start of the arena.
    pub fn piece(&mut self, id: u32, procedure: u16, (len, total, position): (u32, u32, u32)) {
        let kind = if position == 0 { FIRST } else { MORE };
        let two = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let words = [id.into(), two(0, len), two(total, position)];
        self.forge(kind, 0, procedure, &words);
    }

    /// Publishes once more what was published `ago` slots ago.
    pub fn replay(&mut self, ago: u64) {
        let from = Self::slot(self.slots - ago);
        let word = |i: usize| self.bound.shown.outbox.word(from + 8 * i).load(Relaxed);
        let [_, _, _, _, kind, len, low, high] = word(0).to_le_bytes();
        let rest: Vec<_> = (1..8).map(word).collect();
        self.forge(kind, len, u16::from_le_bytes([low, high]), &rest);
    }

    /// Does `meddle` again and again, from another thread, while `f` runs.
    pub fn meanwhile<R>(&self, mut meddle: impl FnMut(&Shown) + Send, f: impl FnOnce() -> R) -> R {
        let over = AtomicBool::new(false);
        std::thread::scope(|s| {
            s.spawn(|| {
                while !over.load(Relaxed) {
                    meddle(&self.bound.shown);
                }
            });
            let result = f();
            over.store(true, Relaxed);
            result
        })
    }

    /// False if there was no room for it.
    pub fn ring(&self) -> bool {
        raw::ring(self.socket())
    }

    /// Says that it lends so many processors to the server, each time other ones, and wakes their landings.
    pub fn grant(&self, processors: usize) {
        for k in 0..processors {
            let words = self.bound.shown.outbox.grant(k);
            let sequence = words.grant.load(Relaxed) >> 1;
            words.cpu.store(sequence % 2, Relaxed);
            words.limit_us.store(5000, Relaxed);
            let wake = self.bound.wakes.lent_to_peer(k).grant;
            raw::say(words.grant, wake, (sequence + 1) << 1 | 1);
        }
    }

    /// True once the other side has had enough.
    pub fn is_hung_up(&self) -> bool {
        raw::is_hung_up(self.socket())
    }

    /// Slots of ours that the peer has taken.
    pub fn taken(&self) -> u64 {
        self.bound.inbox.word(64)
    }

    /// Leaves the socket open in a child, which says nothing, and ends when the other side closes it. Its
    /// process id.
    pub fn leave_to_a_child(&self) -> u32 {
        let socket = self.socket().try_clone().expect("a descriptor");
        let child = Command::new("cat")
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(socket)))
            .stdout(Stdio::null())
            .spawn();
        let mut child = child.expect("cat");
        let id = child.id();
        std::thread::spawn(move || child.wait());
        id
    }
}
