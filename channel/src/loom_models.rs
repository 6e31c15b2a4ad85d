//! The protocols of a channel under loom: the real ends, on a ring of two slots in loom's memory.
//!
//! Run them with `RUSTFLAGS="--cfg urpc_loom" cargo test --release -p urpc-channel --lib loom`. A peer that
//! breaks the rules is no part of these models; the bytes of large payload neither. Two things loom cannot show: it runs
//! loads in order, so it does not need the Release of `consumed`, which keeps copies out of a slot before
//! it; and it has fences in place of SeqCst accesses, so it does not need `End::pass`.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering::*, fence};
use loom::thread;

use crate::channel::Limits;
use crate::fate::Fate;
use crate::frame;
use crate::incoming::Incoming;
use crate::layout::*;
use crate::message::{Arrived, Body, Head, InRing, Inline, Kind, Large, Message, Payload, Sink};
use crate::outgoing::{Item, Outgoing, Sent, Wire};
use crate::ring::{Consumer, Producer, SlotWords, Words};
use crate::window::Window;

const SLOTS: u32 = 2;
const GEOMETRY: Geometry = Geometry {
    slots: SLOTS,
    arena: 4096,
};

/// Bytes of a message in two pieces.
const LARGE: u32 = 8192;

/// One outbox, without its arena.
struct Memory {
    open: AtomicU64,
    consumed: AtomicU64,
    freed: AtomicU64,
    slots: Vec<AtomicU64>,
}

impl Memory {
    fn new() -> Memory {
        let slots = (0..SLOTS * 8).map(|_| AtomicU64::new(0)).collect();
        let [open, consumed, freed] = std::array::from_fn(|_| AtomicU64::new(0));
        Memory {
            open,
            consumed,
            freed,
            slots,
        }
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        match at {
            OPEN_AT => &self.open,
            CONSUMED_AT => &self.consumed,
            FREED_AT => &self.freed,
            _ => &self.slots[(at - RING_AT) / 8],
        }
    }
}

/// A slot in a [`Memory`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct MemorySlot<'a>(&'a [AtomicU64]);

impl SlotWords for MemorySlot<'_> {
    fn header(&self) -> u64 {
        self.0[0].load(Relaxed)
    }
    fn word(&self) -> u64 {
        self.0[1].load(Relaxed)
    }
    fn payload(&self) -> InRing<'_> {
        // One word of the six is enough to see a torn slot, and keeps the models small; a piece has two.
        let second = match is_piece(self.header()) {
            true => self.0[3].load(Relaxed),
            false => 0,
        };
        InRing::Copied(Payload::of_words([self.0[2].load(Relaxed), second]))
    }
    fn publish(&self, header: u64, word: u64, payload: &Payload) {
        self.0[1].store(word, Relaxed);
        self.0[2].store(payload.words()[0], Relaxed);
        if is_piece(header) {
            self.0[3].store(payload.words()[1], Relaxed);
        }
        self.0[0].store(header, Release);
    }
}

fn is_piece(header: u64) -> bool {
    header >> 32 & 0xC0 != 0
}

impl Words for Memory {
    type Slot<'a> = MemorySlot<'a>;

    fn load(&self, at: usize) -> u64 {
        self.word(at).load(Relaxed)
    }
    fn publish(&self, at: usize, word: u64) {
        self.word(at).store(word, Release);
    }
    fn add(&self, at: usize, amount: u64) {
        self.word(at).fetch_add(amount, Release);
    }
    fn slot(&self, at: usize) -> MemorySlot<'_> {
        MemorySlot(&self.slots[(at - RING_AT) / 8..][..8])
    }
    fn copy_in(&self, _: usize, _: &[u8], _: bool) {}
    fn copy_out(&self, _: usize, len: usize, out: &mut Vec<u8>) {
        out.resize(out.len() + len, 0);
    }
    fn fill_annex(&self, _: bool) -> bool {
        true
    }
    fn prefetch(&self, _: usize, _: bool) {}
}

/// Which messages came.
struct Ids(Vec<u32>);

impl Sink for Ids {
    fn small(&mut self, head: Head, _: Arrived<'_>) {
        self.0.push(head.id);
    }
    fn large(&mut self, head: Head, _: Large) {
        self.0.push(head.id);
    }
}

fn message(id: u32) -> Message {
    let body = Body::Inline(Inline::new(&u64::from(id).to_ne_bytes()).expect("short"));
    Head {
        kind: Kind::Call,
        id,
        procedure: 0,
        deadline_ms: 0,
    }
    .with(body)
}

fn publish(producer: &mut Producer, own: &Memory, id: u32) {
    let message = message(id);
    let Body::Inline(body) = &message.body else {
        unreachable!("it is short")
    };
    let words = frame::whole(&message.head(), body.len());
    producer.publish(own, words, body.payload());
}

fn take(consumer: &mut Consumer, peer: &Memory) -> Option<u32> {
    let slot = consumer.take(peer)?.copied();
    let (head, len) = frame::message(slot.tag, slot.word).expect("an honest peer");
    let payload = InRing::Copied(slot.payload);
    let got = head.with(Arrived { payload, len }.into_body());
    assert_eq!(got, message(got.id), "the slot is torn");
    Some(got.id)
}

#[test]
fn a_slot_is_published_whole() {
    loom::model(|| {
        let memory = Arc::new(Memory::new());
        let producer = thread::spawn({
            let memory = memory.clone();
            move || publish(&mut Producer::new(SLOTS), &memory, 7)
        });
        let mut consumer = Consumer::new(SLOTS);
        assert!(matches!(take(&mut consumer, &memory), None | Some(7)));
        producer.join().expect("no panic");
        if consumer.next() == 0 {
            assert_eq!(take(&mut consumer, &memory), Some(7));
        }
        assert_eq!(take(&mut consumer, &memory), None);
    });
}

#[test]
fn a_ring_wraps_without_losing_or_repeating() {
    loom::model(|| {
        let (ring, back) = (Arc::new(Memory::new()), Arc::new(Memory::new()));
        let producer = thread::spawn({
            let (ring, back) = (ring.clone(), back.clone());
            move || {
                let mut producer = Producer::new(SLOTS);
                for id in 1..=3 {
                    while !producer.has_room() {
                        producer.refresh(&*back).expect("an honest peer");
                        thread::yield_now();
                    }
                    publish(&mut producer, &ring, id);
                }
            }
        });
        let mut consumer = Consumer::new(SLOTS);
        for id in 1..=3 {
            let got = loop {
                match take(&mut consumer, &ring) {
                    Some(id) => break id,
                    None => thread::yield_now(),
                }
            };
            assert_eq!(got, id);
            consumer.tell(&*back);
        }
        producer.join().expect("no panic");
        assert_eq!(take(&mut consumer, &ring), None);
    });
}

/// For models in which the end changes its owner: all orders with up to four preemptions, in which mistakes
/// show. All orders are too many.
fn bounded_model(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(4);
    builder.check(model);
}

/// One process's sending end, with the memory it needs.
struct Process {
    own: Memory,
    peer: Memory,
    outgoing: Outgoing,
    window: Window,
    fate: Fate,
}

impl Process {
    fn new() -> Process {
        let (own, peer) = (Memory::new(), Memory::new());
        Process {
            own,
            peer,
            outgoing: Outgoing::new(GEOMETRY),
            window: Window::new(u64::from(LARGE)),
            fate: Fate::new(),
        }
    }

    fn wire(&self) -> Wire<'_, Memory, Memory> {
        Wire {
            own: &self.own,
            peer: &self.peer,
            window: &self.window,
            fate: &self.fate,
        }
    }

    fn send(&self, id: u32) -> Result<Sent, Item> {
        self.send_with(id, false)
    }

    fn send_with(&self, id: u32, more: bool) -> Result<Sent, Item> {
        let message = message(id);
        if let Body::Inline(body) = &message.body
            && (self.outgoing).post(&self.wire(), &message.head(), body, more)
        {
            return Ok(Sent::Published);
        }
        self.outgoing
            .submit(&self.wire(), Item::Message(message), true)
    }

    /// What every thread does before it rests.
    fn rest(&self) {
        fence(SeqCst);
        assert!(
            self.outgoing.flush(&self.wire()),
            "the ring has room for all"
        );
    }

    /// All threads rest: nothing is staged, and these are in the ring, in some order.
    fn has_published(&self, expected: [u32; 2]) {
        assert!(!self.outgoing.is_staged(), "nobody will look again");
        let mut consumer = Consumer::new(SLOTS);
        let mut ids: Vec<_> = std::iter::from_fn(|| take(&mut consumer, &self.own)).collect();
        ids.sort_unstable();
        assert_eq!(ids, expected);
    }
}

#[test]
fn a_message_handed_over_is_never_lost() {
    bounded_model(|| {
        let process = Arc::new(Process::new());
        let other = thread::spawn({
            let process = process.clone();
            move || {
                if process.send(1).expect("open") == Sent::Published {
                    process.rest();
                } // else it has not held the end, and owes nothing
            }
        });
        let _ = process.send(2).expect("open");
        process.rest();
        other.join().expect("no panic");
        process.has_published([1, 2]);
    });
}

/// It waits for more, and it is the rest, or what another thread sends, that publishes it.
#[test]
fn a_message_that_waits_for_others_is_never_lost() {
    bounded_model(|| {
        let process = Arc::new(Process::new());
        let other = thread::spawn({
            let process = process.clone();
            move || {
                if process.send_with(1, true).expect("open") == Sent::Published {
                    process.rest();
                }
            }
        });
        let _ = process.send_with(2, true).expect("open");
        process.rest();
        other.join().expect("no panic");
        process.has_published([1, 2]);
    });
}

/// The end is taken by a flush, after which nobody but that flush looks again.
#[test]
fn a_message_handed_over_during_a_flush_is_never_lost() {
    bounded_model(|| {
        let process = Arc::new(Process::new());
        let staged = process
            .outgoing
            .submit(&process.wire(), Item::Message(message(1)), false);
        assert!(matches!(staged, Ok(Sent::Staged)));
        let other = thread::spawn({
            let process = process.clone();
            move || {
                if process.send(2).expect("open") == Sent::Published {
                    process.rest();
                }
            }
        });
        process.rest();
        other.join().expect("no panic");
        process.has_published([1, 2]);
    });
}

/// The ring is full. The peer makes room when one thread is in its last flush, and another one, which was rung for that,
/// finds the end taken.
#[test]
fn room_that_comes_during_a_flush_is_used() {
    bounded_model(|| {
        let process = Arc::new(Process::new());
        for id in 1..=SLOTS {
            assert_eq!(process.send(id).expect("open"), Sent::Published);
        }
        assert_eq!(process.send(SLOTS + 1).expect("open"), Sent::Staged);
        let rung = thread::spawn({
            let process = process.clone();
            move || {
                process.peer.publish(CONSUMED_AT, 1);
                fence(SeqCst);
                process.outgoing.flush(&process.wire());
            }
        });
        fence(SeqCst);
        process.outgoing.flush(&process.wire());
        rung.join().expect("no panic");
        assert!(!process.outgoing.is_staged(), "nobody will look again");
    });
}

/// The thread that opens the annex is another one than the one that takes the first piece out of it.
#[test]
fn whoever_takes_a_piece_out_of_an_annex_knows_that_it_is_open() {
    bounded_model(|| {
        // The process that sends, and the receiving end of the other one, with the words of both.
        let sends = Arc::new(Process::new());
        let limits = Limits {
            calls: 1,
            window: LARGE.into(),
            max_payload: LARGE,
        };
        let incoming = Arc::new(Incoming::new(GEOMETRY, limits));
        let opens = thread::spawn({
            let (sends, incoming) = (sends.clone(), incoming.clone());
            move || {
                incoming.open_annex();
                sends.peer.publish(OPEN_AT, 1);
            }
        });
        let other = thread::spawn({
            let sends = sends.clone();
            move || {
                sends.outgoing.want_annex();
                let reserved = sends
                    .window
                    .try_reserve(LARGE as usize, &sends.peer, &sends.fate);
                assert_eq!(reserved, Ok(true));
                let body = Body::from_vec(vec![0; LARGE as usize]);
                let item = Item::Message(message(1).head().with(body));
                assert!(sends.outgoing.submit(&sends.wire(), item, true).is_ok());
            }
        });
        let mut ids = Ids(Vec::new());
        let mut receive = || {
            let received = incoming.receive(&sends.peer, &sends.own, 2, &mut ids);
            received.expect("an honest peer");
        };
        receive();
        opens.join().expect("no panic");
        other.join().expect("no panic");
        // The arena has room for one piece at a time.
        receive();
        sends.rest();
        receive();
        assert_eq!(ids.0, [1]);
    });
}

#[test]
fn a_close_is_seen_or_the_message_is() {
    bounded_model(|| {
        let process = Arc::new(Process::new());
        // Stands for the entry of a call in the table of those to be failed by whoever closes.
        let entered = Arc::new(AtomicBool::new(false));
        let caller = thread::spawn({
            let (process, entered) = (process.clone(), entered.clone());
            move || {
                entered.store(true, Relaxed);
                process.send(1).is_ok()
            }
        });
        // Another sender makes the end taken at times, so that the hand-over is closed as well.
        let _ = process.send(2);
        process.outgoing.close(&process.fate);
        let seen = entered.load(Relaxed);
        let sent = caller.join().expect("no panic");
        assert!(
            seen || !sent,
            "sent to nobody: the closer has not seen the call, nor the caller the close"
        );
    });
}

#[test]
fn two_receivers_take_each_message_once() {
    loom::model(|| {
        let (ring, back) = (Arc::new(Memory::new()), Arc::new(Memory::new()));
        let mut producer = Producer::new(SLOTS);
        publish(&mut producer, &ring, 1);
        publish(&mut producer, &ring, 2);
        let limits = Limits {
            calls: 2,
            window: 4096,
            max_payload: 4096,
        };
        let incoming = Arc::new(Incoming::new(GEOMETRY, limits));
        let receive = |incoming: &Incoming, back: &Memory, ring: &Memory| {
            let mut ids = Ids(Vec::new());
            incoming
                .receive(back, ring, 2, &mut ids)
                .expect("an honest peer");
            ids.0
        };
        let other = thread::spawn({
            let (incoming, ring, back) = (incoming.clone(), ring.clone(), back.clone());
            move || receive(&incoming, &back, &ring)
        });
        let mut ids = receive(&incoming, &back, &ring);
        ids.extend(other.join().expect("no panic"));
        assert_eq!(ids, [1, 2]);
        assert_eq!(back.load(CONSUMED_AT), 2);
    });
}

/// Mutual announcement of `blocked` and `consumed`, as `Channel` has them, around the real ring.
#[test]
fn a_blocked_sender_sees_room_or_is_seen() {
    loom::model(|| {
        let (ring, back) = (Arc::new(Memory::new()), Arc::new(Memory::new()));
        let blocked = Arc::new(AtomicU64::new(0));
        let mut producer = Producer::new(SLOTS);
        publish(&mut producer, &ring, 1);
        publish(&mut producer, &ring, 2);
        let sender = thread::spawn({
            let (back, blocked) = (back.clone(), blocked.clone());
            move || {
                blocked.store(1 + back.load(CONSUMED_AT), Release);
                fence(SeqCst);
                producer.refresh(&*back).expect("an honest peer");
                producer.has_room()
            }
        });
        let mut consumer = Consumer::new(SLOTS);
        assert_eq!(take(&mut consumer, &ring), Some(1));
        consumer.tell(&*back);
        fence(SeqCst);
        let seen = blocked.load(Relaxed);
        let rung = seen != 0 && consumer.next() + 1 > seen;
        let room = sender.join().expect("no panic");
        assert!(room || rung, "the sender rests for ever: blocked {seen}");
    });
}
