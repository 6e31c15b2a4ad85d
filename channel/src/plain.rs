//! The real ends on a ring in private memory whose payload is copied plainly: then it is a mistake, which a
//! sanitizer sees, if a slot or a block of the arena is written while the other side still copies it.
//!
//! `.ci/tsan` runs this under ThreadSanitizer. That knows no fences on their own, so here the words which the protocol
//! is about are loaded with Acquire, and not with Relaxed and a fence behind it; and no thread owns an end, since
//! owning one takes fences of the kernel's (`--cfg urpc_plain`).

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::*};
use std::thread::{scope, yield_now};

use crate::channel::Limits;
use crate::fate::Fate;
use crate::incoming::Incoming;
use crate::layout::*;
use crate::message::{Arrived, Body, Head, InRing, Kind, Large, Message, Payload, Sink};
use crate::outgoing::{Item, Outgoing, Wire};
use crate::ring::{SlotWords, Words};
use crate::window::Window;

const GEOMETRY: Geometry = Geometry {
    slots: 4,
    arena: 4096,
};
const LIMITS: Limits = Limits {
    calls: 64,
    window: 8192,
    max_payload: 3000,
};
/// Messages of each thread that sends.
const EACH: u32 = if cfg!(urpc_plain) { 20_000 } else { 2_000 };
const SENDERS: u32 = 2;

/// One outbox.
struct Memory(Box<[UnsafeCell<u64>]>);

// SAFETY: that no word is read plainly while it is written is what the protocol promises, and what is tried here.
unsafe impl Sync for Memory {}

impl Memory {
    fn new() -> Memory {
        let words = GEOMETRY.size().expect("it can be") / 8;
        Memory((0..words).map(|_| UnsafeCell::new(0)).collect())
    }

    /// A word of the protocol.
    fn word(&self, at: usize) -> &AtomicU64 {
        // SAFETY: aligned and alive, as an element of the box; such a word is only accessed like this.
        unsafe { AtomicU64::from_ptr(self.0[at / 8].get()) }
    }
}

fn read(word: &UnsafeCell<u64>) -> u64 {
    // SAFETY: it is an element of the box; nobody writes it now, if the protocol is right.
    unsafe { *word.get() }
}

fn write(word: &UnsafeCell<u64>, value: u64) {
    // SAFETY: as in `read`, and nobody reads it, either.
    unsafe { *word.get() = value };
}

struct Slot<'a>(&'a Memory, usize);

impl Slot<'_> {
    fn words(&self) -> &[UnsafeCell<u64>] {
        &self.0.0[self.1 / 8..][1..LINE / 8]
    }
}

impl SlotWords for Slot<'_> {
    fn header(&self) -> u64 {
        self.0.word(self.1).load(Acquire)
    }
    fn word(&self) -> u64 {
        read(&self.words()[0])
    }
    fn payload(&self) -> InRing<'_> {
        let mut payload = Payload::ZERO;
        for (to, word) in payload.0.chunks_exact_mut(8).zip(&self.words()[1..]) {
            to.copy_from_slice(&read(word).to_ne_bytes());
        }
        InRing::Copied(payload)
    }
    fn publish(&self, header: u64, word: u64, payload: &Payload) {
        write(&self.words()[0], word);
        for (from, word) in payload.0.chunks_exact(8).zip(&self.words()[1..]) {
            write(word, u64::from_ne_bytes(from.try_into().expect("eight")));
        }
        self.0.word(self.1).store(header, Release);
    }
}

impl Words for Memory {
    type Slot<'a> = Slot<'a>;

    fn load(&self, at: usize) -> u64 {
        self.word(at).load(Acquire)
    }
    fn publish(&self, at: usize, word: u64) {
        self.word(at).store(word, Release);
    }
    fn add(&self, at: usize, amount: u64) {
        self.word(at).fetch_add(amount, Release);
    }
    fn slot(&self, at: usize) -> Slot<'_> {
        Slot(self, at)
    }
    fn copy_in(&self, at: usize, bytes: &[u8], _: bool) {
        for (eight, word) in bytes.chunks(8).zip(&self.0[at / 8..]) {
            let mut whole = [0; 8];
            whole[..eight.len()].copy_from_slice(eight);
            write(word, u64::from_ne_bytes(whole));
        }
    }
    fn copy_out(&self, at: usize, len: usize, out: &mut Vec<u8>) {
        let end = out.len() + len;
        for word in &self.0[at / 8..][..len.div_ceil(8)] {
            let eight = read(word).to_ne_bytes();
            out.extend_from_slice(&eight[..(end - out.len()).min(8)]);
        }
    }
    fn fill_annex(&self, _: bool) -> bool {
        true
    }
    fn prefetch(&self, _: usize, _: bool) {}
}

/// As many bytes as it says, all of them the same.
fn bytes(id: u32) -> Vec<u8> {
    let len = [0, 48, 100, 3000][id as usize % 4];
    vec![id as u8; len]
}

/// Checks what comes.
struct Checked<'a> {
    own: &'a Memory,
    come: &'a AtomicU32,
}

impl Checked<'_> {
    fn check(&self, head: Head, body: &[u8]) {
        assert_eq!(body, bytes(head.id), "message {} is torn", head.id);
        self.come.fetch_add(1, Relaxed);
    }
}

impl Sink for Checked<'_> {
    fn small(&mut self, head: Head, body: Arrived<'_>) {
        self.check(head, body.into_body().as_slice());
    }
    fn large(&mut self, head: Head, body: Large) {
        self.check(head, &body.bytes);
        self.own.add(FREED_AT, body.bytes.len() as u64);
    }
}

#[test]
fn what_is_copied_plainly_is_never_written_meanwhile() {
    let (sending, receiving) = (Memory::new(), Memory::new());
    let (outgoing, incoming) = (Outgoing::new(GEOMETRY), Incoming::new(GEOMETRY, LIMITS));
    let (window, fate) = (Window::new(LIMITS.window), Fate::new());
    let wire = || Wire {
        own: &sending,
        peer: &receiving,
        window: &window,
        fate: &fate,
    };
    let come = AtomicU32::new(0);
    let all = || come.load(Relaxed) == SENDERS * EACH;
    let send = |first: u32| {
        for id in first..first + EACH {
            let head = Head {
                kind: Kind::Reply,
                id,
                procedure: 0,
                deadline_ms: 0,
            };
            let message: Message = head.with(Body::from_slice(&bytes(id)));
            let len = message.body.window_bytes();
            while !window
                .try_reserve(len, &receiving, &fate)
                .expect("it is open")
            {
                outgoing.flush(&wire());
                yield_now();
            }
            let posted = match &message.body {
                Body::Inline(body) => outgoing.post(&wire(), &head, body, id % 3 == 0),
                Body::Heap(large) => outgoing.post_large(&wire(), &head, large),
            };
            if !posted {
                let sent = outgoing.submit(&wire(), Item::Message(message), true);
                assert!(sent.is_ok(), "it is open");
            }
            // Not everything at once: what is staged takes memory.
            while outgoing.backlog() > 16 {
                outgoing.flush(&wire());
                yield_now();
            }
        }
        while !all() {
            outgoing.flush(&wire());
            yield_now();
        }
    };
    let receive = || {
        let (own, come) = (&receiving, &come);
        while !all() {
            let mut sink = Checked { own, come };
            let received = incoming.receive(&receiving, &sending, 8, &mut sink);
            if received.expect("an honest peer") == 0 {
                yield_now();
            }
        }
    };
    scope(|s| {
        let (send, receive) = (&send, &receive);
        let senders = (0..SENDERS).map(|n| s.spawn(move || send(n * EACH)));
        // Two that receive, in turns: an end is private state, too.
        let receivers = (0..2).map(|_| s.spawn(receive));
        let threads: Vec<_> = senders.chain(receivers).collect();
        for thread in threads {
            thread.join().expect("no panic"); // the sanitizer sees this, but not how a scope ends
        }
    });
}
