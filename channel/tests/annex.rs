//! The annexes: a second, larger place for large messages, without memory until both processes have opened theirs.

mod common;

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use common::*;
use rustix::fs::fstat;
use urpc_channel::{ANNEX, Body, Channel, Geometry, Inbox, Kind, Limits, Outbox, Violation};

/// Where an outbox says that the peer may use its annex.
const OPEN_AT: usize = 24;
const RING_AT: usize = 4096;

/// Sends `message`, in as many steps as it takes, and returns what comes, and where its last piece lay.
fn cross(from: &Channel, to: &Channel, bytes: &[u8]) -> (Body, u32) {
    assert_eq!(from.try_reserve(bytes.len()), Ok(true));
    from.send(message(Kind::Call, 1, bytes)).expect("open");
    let mut come = None;
    until("all pieces", || {
        to.receive(1, |message| come = Some(message.body))
            .expect("an honest peer");
        from.flush();
        come.is_some()
    });
    to.freed(bytes.len());
    let slots = u64::from(from.outbox().geometry().slots);
    let last = (from.published() - 1) % slots;
    let place = to.inbox().word(RING_AT + 64 * last as usize + 16);
    (come.expect("it has come"), place as u32)
}

#[test]
fn large_messages_go_through_an_annex_once_both_sides_want_that() {
    let geometry = Geometry::default();
    let (a, b) = pair(&geometry, Limits::default());
    let mut random = Random(7);
    let bytes = random.bytes(100_000);
    let lies_in_annex = |from: &Channel, to: &Channel| {
        let (come, place) = cross(from, to, &bytes);
        assert!(come.as_slice() == bytes, "the bytes differ");
        place >= geometry.arena
    };
    assert!(!lies_in_annex(&a, &b));
    assert!(a.open_annex());
    assert!(!lies_in_annex(&a, &b) && !lies_in_annex(&b, &a));
    assert!(b.open_annex());
    assert!(lies_in_annex(&a, &b) && lies_in_annex(&b, &a));
    // Some laps, of messages in several pieces and in one.
    let mut places = [0; 2];
    for _ in 0..200 {
        let bytes = random.bytes(1 + 40_000);
        let (come, place) = cross(&a, &b, &bytes[..49 + random.below(39_000)]);
        assert!(bytes.starts_with(come.as_slice()), "the bytes differ");
        places[usize::from(place >= geometry.arena)] += 1;
    }
    assert!(places.iter().all(|&count| count > 10), "{places:?}");
}

#[test]
fn an_annex_has_no_memory_before_the_peer_opens_it() {
    let geometry = Geometry::default();
    let mut outbox = Outbox::create(&geometry).expect("a memfd");
    let fd = outbox.take_fd().expect("new");
    let seen = fd.as_fd().try_clone_to_owned().expect("a descriptor");
    let bytes = || 512 * fstat(&seen).expect("it is ours").st_blocks as usize;
    let inbox = Inbox::accept(fd, &geometry).expect("made by urpc");
    let there = geometry.size().expect("the default");
    assert_eq!(bytes(), there);
    let (own, _) = both_views(&geometry);
    let channel = Channel::new(own, inbox, Limits::default());
    assert!(channel.open_annex());
    assert_eq!(bytes(), there + ANNEX as usize);
}

#[test]
fn a_peer_that_says_so_alone_does_not_open_our_annex() {
    let geometry = Geometry::default();
    let (hostile, channel) = victim(&geometry, Limits::default());
    hostile.word(OPEN_AT).store(1, Ordering::Relaxed);
    assert_eq!(channel.try_reserve(20_000), Ok(true));
    channel.send(call(1, &[1; 20_000])).expect("open");
    let own = channel.outbox();
    let place = own.word(RING_AT + 16).load(Ordering::Relaxed) as u32;
    assert!(place < geometry.arena, "{place}");
}

#[test]
fn a_piece_beyond_what_is_open_is_a_violation() {
    let geometry = Geometry::default();
    let arena = geometry.arena;
    let verdict = |opened: bool, offset: u32, len: u32| {
        let (hostile, channel) = victim(&geometry, Limits::default());
        if opened {
            assert!(channel.open_annex());
            assert_eq!(channel.outbox().word(OPEN_AT).load(Ordering::Relaxed), 1);
        }
        let words = [
            (8, 1u64),
            (16, u64::from(offset) | u64::from(len) << 32),
            (24, 20_000),
        ];
        for (at, word) in words {
            hostile.word(RING_AT + at).store(word, Ordering::Relaxed);
        }
        // Sequence 1, the first piece of a call.
        let header = 1 | 0x81 << 32;
        hostile.word(RING_AT).store(header, Ordering::Release);
        channel.receive(1, |_| ())
    };
    let outside = |opened, offset, len, all| {
        let violation = Violation::Outside {
            offset,
            len,
            arena: all,
        };
        assert_eq!(verdict(opened, offset, len), Err(violation));
    };
    assert_eq!(verdict(false, arena - 64, 64), Ok(0));
    outside(false, arena, 64, arena);
    outside(false, arena - 64, 128, arena);
    let all = arena + ANNEX;
    assert_eq!(verdict(true, arena - 64, 64), Ok(0));
    assert_eq!(verdict(true, arena, 64), Ok(0));
    assert_eq!(verdict(true, all - 64, 64), Ok(0));
    outside(true, arena - 64, 128, all); // it would be in two regions
    outside(true, all - 64, 65, all);
    outside(true, all, 64, all);
    outside(true, u32::MAX - 63, 64, all);
}
