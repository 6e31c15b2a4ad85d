//! What a peer may change at any time is read once for each decision, and decided on the copy: each field changes
//! right after it was read, and nothing comes of that.
//!
//! The list of fields is that of `channel/src/layout.rs`: one that nobody watches here is a failure.
#![cfg(target_arch = "x86_64")]

#[path = "fetches/trap.rs"]
mod trap;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::fs::fstat;
use urpc_channel::{
    Body, Channel, Geometry, Inbox, Kind, Limits, Message, Outbox, OwnPage, PeerPage,
};
use urpc_donate::{
    Arrival, Landing, Lender, Outcome, Presence, Seat, Signal, View, Words, lending_works,
};

const GEOMETRY: Geometry = Geometry {
    slots: 4,
    arena: 4096,
};
const LIMITS: Limits = Limits {
    calls: 8,
    window: 200,
    max_payload: 150,
};
const RING: usize = 4096;
const ARENA: usize = 8192;

/// One watches at a time: signals are of the whole process.
static ONE: Mutex<()> = Mutex::new(());

/// The names of all offsets in the layout, and the fields that were read by a decision, by the same names.
fn listed() -> BTreeSet<&'static str> {
    let layout = include_str!("../channel/src/layout.rs");
    let constants = layout.lines().filter_map(|line| {
        let (_, after) = line.split_once("const ")?;
        let (name, _) = after.split_once(": usize")?;
        name.strip_suffix("_AT")
    });
    constants.collect()
}

/// The name in the layout for what lies at an offset of an outbox, with the field's first byte and its bytes.
fn named(offset: usize) -> (&'static str, usize, usize) {
    let (name, bytes) = match offset {
        0 => ("MAGIC", 8),
        8 => ("VERSION", 8),
        16 => ("GEOMETRY", 8),
        24 => ("OPEN", 8),
        64 => ("CONSUMED", 8),
        128 => ("FREED", 8),
        192 => ("BLOCKED", 8),
        256..768 if offset % 64 <= 8 && offset.is_multiple_of(4) => ("GRANTS", 4),
        768..1280 if offset.is_multiple_of(64) => ("RETURNS", 4),
        RING..ARENA if offset % 64 < 16 && offset.is_multiple_of(8) => ("RING", 8),
        RING..ARENA if offset % 64 >= 16 && offset.is_multiple_of(16) => ("PAYLOAD", 16),
        ARENA.. => ("the arena", 1),
        _ => ("nothing that has a name", 0),
    };
    (name, offset, bytes)
}

fn field(offset: usize) -> (usize, usize) {
    let (_, start, bytes) = named(offset);
    (start, bytes)
}

/// A hostile side and one that watches what it reads of it.
struct Sides {
    hostile: Outbox,
    seen: Option<Inbox>,
    place: (usize, usize, usize),
    covered: BTreeSet<&'static str>,
}

impl Sides {
    fn new() -> Self {
        let mut hostile = Outbox::create(&GEOMETRY).unwrap();
        let fd = hostile.take_fd().unwrap();
        let inode = fstat(&fd).unwrap().st_ino;
        let seen = Inbox::accept(fd, &GEOMETRY).unwrap();
        Self {
            hostile,
            seen: Some(seen),
            place: trap::mapped(inode),
            covered: BTreeSet::new(),
        }
    }

    /// A channel to the hostile side.
    fn channel(&mut self) -> Channel {
        let own = Outbox::create(&GEOMETRY).unwrap();
        Channel::new(own, self.seen.take().unwrap(), LIMITS)
    }

    /// Runs one decision: nothing is read twice, and only what has a name is read at all.
    fn decide<R>(&mut self, what: &str, decide: impl FnOnce() -> R) -> R {
        let (result, reads) = trap::watch(self.place, field, decide);
        assert!(!reads.is_empty(), "{what} reads nothing");
        for (&offset, &times) in &reads {
            let (name, _, bytes) = named(offset);
            assert_ne!(bytes, 0, "{what} reads {name}, at {offset}");
            assert_eq!(times, 1, "{what} reads {name}, at {offset}, {times} times");
            self.covered.insert(name);
        }
        result
    }

    /// Publishes a slot.
    fn publish(&self, index: usize, tag: u64, words: &[u64]) {
        let at = RING + index * 64;
        for (i, word) in words.iter().enumerate() {
            self.hostile.word(at + 8 * (i + 1)).store(*word, Relaxed);
        }
        let header = (index as u64 + 1) | tag << 32;
        self.hostile.word(at).store(header, Relaxed);
    }
}

fn two(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

fn message(kind: Kind, id: u32, bytes: &[u8]) -> Message {
    Message {
        kind,
        id,
        procedure: 5,
        deadline_ms: 9,
        body: Body::from_slice(bytes),
    }
}

fn receive(channel: &Channel) -> Vec<Message> {
    let mut got = Vec::new();
    let received = channel.receive(1, |message| got.push(message));
    assert!(received.is_ok(), "{received:?}");
    got
}

/// Slots, whole and in pieces, and their bytes.
fn messages() -> BTreeSet<&'static str> {
    let mut sides = Sides::new();
    let channel = sides.channel();
    let bytes = [7, 8, 9, 10, 11, 12].map(|n: u64| n * 0x0101_0101_0101_0101);
    let payload: Vec<u8> = bytes.iter().flat_map(|word| word.to_le_bytes()).collect();
    let whole = |kind: u64| kind | 48 << 8 | 5 << 16;
    let id = 3;
    let words = [&[two(id, 9)], &bytes[..]].concat();

    sides.publish(0, whole(1), &words);
    let call = sides.decide("a call", || receive(&channel));
    assert_eq!(call, [message(Kind::Call, id, &payload)]);

    sides.publish(1, whole(2), &words);
    let mut reply = Body::EMPTY;
    let taken = sides.decide("the answer to a call", || {
        channel.receive_answer(id, |body| body.read_into(&mut reply))
    });
    assert!(taken);
    assert_eq!(reply.as_slice(), payload);

    // Of 149 bytes, as many in the second piece as are copied by one instruction.
    let all: Vec<u8> = (0..149).collect();
    for (i, eight) in all.chunks(8).enumerate() {
        let mut word = [0; 8];
        word[..eight.len()].copy_from_slice(eight);
        let at = ARENA + if i < 2 { 0 } else { 48 } + 8 * i;
        sides
            .hostile
            .word(at)
            .store(u64::from_le_bytes(word), Relaxed);
    }
    sides.publish(2, 0x81, &[id.into(), two(0, 16), two(149, 0)]);
    let begun = sides.decide("the first piece", || receive(&channel));
    assert_eq!(begun, []);
    sides.publish(3, 0x41, &[two(id, 9), two(64, 133), two(149, 16)]);
    let large = sides.decide("the last piece", || receive(&channel));
    let [
        Message {
            body: Body::Heap(bytes),
            ..
        },
    ] = &large[..]
    else {
        panic!("{large:?} is no large message")
    };
    assert_eq!(bytes.bytes, all);

    sides.publish(0, 0, &[]);
    let next = RING;
    sides.hostile.word(next).store(5 | 0xc1 << 32, Relaxed);
    let given_up = sides.decide("an abort", || receive(&channel));
    assert_eq!(given_up[0].kind, Kind::Aborted);
    assert!(!sides.decide("a look at the next slot", || channel.has_incoming()));
    sides.covered
}

/// What the peer says of our own ring.
fn indices() -> BTreeSet<&'static str> {
    let mut sides = Sides::new();
    let channel = sides.channel();
    while !channel.staged() {
        let _ = channel.send(message(Kind::Reply, 1, b"x")).unwrap();
    }
    sides.hostile.word(64).store(2, Relaxed);
    assert!(channel.open_annex());
    sides.hostile.word(24).store(1, Relaxed);
    assert!(sides.decide("a flush", || channel.flush()));
    assert!(!channel.is_closed(), "what it says now was not looked at");
    sides.hostile.word(64).store(2, Relaxed);
    assert!(sides.decide("who has read what", || channel.unread_by_peer()));
    sides.hostile.word(64).store(2, Relaxed);
    sides.decide("how far it has come", || channel.peer_progress());
    sides.hostile.word(64).store(2, Relaxed);
    sides.hostile.word(192).store(1, Relaxed);
    let standing = sides.decide("where it stands", || channel.standing());
    assert!(standing.wants_attention);
    sides.hostile.word(192).store(0, Relaxed);
    sides.hostile.word(64).store(2, Relaxed);

    let large = || message(Kind::Call, 2, &[7; 150]);
    assert_eq!(channel.try_reserve(150), Ok(true));
    let _ = channel.send(large()).unwrap();
    sides.hostile.word(128).store(150, Relaxed);
    let reserved = sides.decide("room in the window", || channel.try_reserve(150));
    assert_eq!(reserved, Ok(true));
    sides.hostile.word(128).store(150, Relaxed);
    sides.hostile.word(64).store(2, Relaxed);
    while !channel.staged() {
        let _ = channel.send(message(Kind::Reply, 1, b"x")).unwrap();
    }
    assert!(sides.decide("saying what we wait for", || channel.announce_blocked()));
    sides.hostile.word(192).store(1, Relaxed);
    sides.decide("who waits for us", || channel.peer_blocked());
    sides.covered
}

/// An outbox that says what it is.
fn header() -> BTreeSet<&'static str> {
    let mut sides = Sides::new();
    let seen = sides.seen.take().unwrap();
    let checked = sides.decide("what it is", || seen.check_header());
    assert!(checked.is_ok(), "{checked:?}");
    assert!(seen.check_header().is_err(), "it has changed since");
    sides.covered
}

/// Grants and returns.
fn processors() -> BTreeSet<&'static str> {
    let mut sides = Sides::new();
    let seen = sides.seen.take().unwrap();
    // Words of our own, and wake words, in which nothing is said.
    let own: [AtomicU32; 6] = Default::default();
    let [grant, cpu, limit_us, returned, wake, wake_back] = &own;
    let signal = |says, wake| Signal { says, wake };
    let theirs = seen.grant(0);
    let granted = Words {
        grant: signal(theirs.grant, wake),
        cpu: theirs.cpu,
        limit_us: theirs.limit_us,
        returned: signal(returned, wake_back),
        name: 0,
    };
    let ours = Words {
        grant: signal(grant, wake),
        cpu,
        limit_us,
        returned: signal(seen.returned(0), wake_back),
        name: 0,
    };

    let mut landing = Landing::open(granted);
    let seat = Seat::new();
    let words = sides.hostile.grant(0);
    words.cpu.store(1, Relaxed);
    words.limit_us.store(77, Relaxed);
    words.grant.store(9 << 1 | 1, Relaxed);
    let ticket = seat.ticket();
    let arrival = sides.decide("a landing", || landing.wait(granted, &seat, ticket));
    let expected = Arrival::Granted {
        sequence: 9,
        live: true,
        cpu: 1,
        limit_us: 77,
    };
    assert_eq!(arrival, expected);
    let words = sides.hostile.grant(0);
    words.grant.store(9 << 1 | 1, Relaxed);
    assert!(sides.decide("whether it is held", || Landing::holds(granted, 9)));
    let words = sides.hostile.grant(0);
    words.grant.store(9 << 1 | 1, Relaxed);
    assert!(sides.decide("whether it lends", || granted.lends()));
    let words = sides.hostile.grant(0);
    words.grant.store(9 << 1, Relaxed);
    words.cpu.store(1, Relaxed);
    assert!(sides.decide("which CPU it has lent", || granted.has_lent(1)));
    landing.give_back(granted, 9);

    let lender = Lender::new();
    let answer = |sides: &Sides, sequence| sides.hostile.returned(0).store(sequence, Relaxed);
    answer(&sides, 1);
    assert!(sides.decide("whether a landing waits", || {
        lender.is_free(ours.returned.says)
    }));
    answer(&sides, 1);
    let lent = sides.decide("lending", || lender.lend(ours, 0, Duration::ZERO));
    answer(&sides, grant.load(Relaxed) >> 1);
    let (donor, until) = (Seat::new(), Instant::now() + Duration::from_secs(9));
    let ticket = donor.ticket();
    let outcome = sides.decide("a donor", || {
        lender.wait(lent.unwrap(), ours, &donor, ticket, until)
    });
    assert_eq!(outcome, Outcome::Returned);
    sides.covered
}

/// How many processors a peer has, by its presence page.
fn presence() -> BTreeMap<usize, usize> {
    let own = OwnPage::create().unwrap();
    let inode = fstat(own.fd()).unwrap().st_ino;
    let page = PeerPage::accept(own.fd().try_clone_to_owned().unwrap()).unwrap();
    for (i, value) in [7, 2, 1].into_iter().enumerate() {
        own.word(i).store(value, Relaxed);
    }
    let presence = Presence {
        processors: page.word(0),
        resting: page.word(1),
        unheld: page.word(2),
    };
    let place = trap::mapped(inode);
    let (view, reads) = trap::watch(place, |offset| (offset, 4), || View::read(&presence));
    assert_eq!((view.processors, view.resting), (7, 3));
    reads
}

#[test]
fn what_changes_right_after_it_was_read_is_not_read_again() {
    let _one = ONE.lock().unwrap();
    assert!(lending_works());
    let mut covered = header();
    covered.extend(messages());
    covered.extend(indices());
    covered.extend(processors());
    assert!(covered.remove("the arena"), "bytes of large messages");
    assert_eq!(covered, listed(), "each field of the layout is watched");
    assert_eq!(presence(), BTreeMap::from([(0, 1), (64, 1), (128, 1)]));
}

#[test]
fn a_second_read_is_seen() {
    let _one = ONE.lock().unwrap();
    let sides = Sides::new();
    let seen = sides.seen.as_ref().unwrap();
    sides.hostile.word(64).store(1, Relaxed);
    let (read, reads) = trap::watch(sides.place, field, || (seen.word(64), seen.word(64)));
    assert_eq!(read, (1, !1), "it changes in between");
    assert_eq!(reads, BTreeMap::from([(64, 2)]));
}
