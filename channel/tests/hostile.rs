//! A peer that breaks the rules: every violation is noticed, named, and the end of the channel; none is a
//! crash. The test plays the peer by writing words into an outbox of its own.

mod common;

use std::sync::atomic::Ordering;

use common::*;
use urpc_channel::{Channel, Closed, Geometry, Kind, Limits, Outbox, SendError, Violation, Why};

const LIMITS: Limits = Limits {
    calls: 2,
    window: 10_000,
    max_payload: 8_000,
};
const FIRST: u8 = 0x80;
const MORE: u8 = 0x40;
const ABORT: u8 = 0xc0;
const CALL: u8 = 1;

/// Publishes a slot by hand.
fn write(hostile: &Outbox, index: u64, kind: u8, len: u8, words: &[u64]) {
    let slots = u64::from(hostile.geometry().slots);
    let at = 4096 + (index % slots) as usize * 64;
    for (i, word) in words.iter().enumerate() {
        hostile
            .word(at + 8 * (i + 1))
            .store(*word, Ordering::Relaxed);
    }
    let header = u64::from(index as u32 + 1) | u64::from(kind) << 32 | u64::from(len) << 40;
    hostile.word(at).store(header, Ordering::Release);
}

fn two(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

/// Publishes a piece by hand: its place in the arena and its share of the message.
fn piece(hostile: &Outbox, index: u64, part: u8, id: u32, place: (u32, u32), share: (u32, u32)) {
    write(
        hostile,
        index,
        part | CALL,
        0,
        &[id.into(), two(place.0, place.1), two(share.0, share.1)],
    );
}

/// What `receive` says about `write`, and that it stays so.
fn verdict(write: impl FnOnce(&Outbox)) -> Violation {
    let (hostile, channel) = victim(&Geometry::default(), LIMITS);
    write(&hostile);
    let violation = channel
        .receive(100, |_| ())
        .expect_err("the peer broke the rules");
    is_condemned(&channel, violation);
    violation
}

fn is_condemned(channel: &Channel, violation: Violation) {
    assert_eq!(channel.receive(100, |_| ()), Err(violation));
    assert_eq!(channel.violation(), Some(violation));
    assert!(channel.is_closed() && !channel.has_incoming() && !channel.staged());
    let Err(SendError(_, why)) = channel.send(call(1, b"")) else {
        panic!("sent to an enemy")
    };
    assert_eq!(why, Why::Closed);
    assert_eq!(channel.try_reserve(1), Err(Closed));
}

#[test]
fn a_kind_that_does_not_exist_is_a_violation() {
    for kind in [
        0,
        6,
        0x3f,
        0x40,
        0x80,
        0xc0,
        FIRST | 4,
        MORE | 5,
        0xc2,
        0xc3,
    ] {
        assert_eq!(
            verdict(|h| write(h, 0, kind, 0, &[])),
            Violation::UnknownKind(kind)
        );
    }
}

#[test]
fn more_bytes_than_a_slot_has_are_a_violation() {
    assert_eq!(
        verdict(|h| write(h, 0, CALL, 49, &[])),
        Violation::Length(49)
    );
    let first = verdict(|h| write(h, 0, FIRST | CALL, 49, &[1, two(0, 64), two(64, 0)]));
    assert_eq!(first, Violation::Length(49));
    let abort = verdict(|h| write(h, 0, ABORT | CALL, 1, &[1]));
    assert_eq!(abort, Violation::Length(1));
}

#[test]
fn a_total_that_is_not_large_or_too_large_is_a_violation() {
    for total in [0, 48, 8_001, u32::MAX] {
        let found = verdict(|h| piece(h, 0, FIRST, 1, (0, 48), (total, 0)));
        assert_eq!(found, Violation::Total { total, max: 8_000 });
    }
}

#[test]
fn a_piece_outside_the_arena_is_a_violation() {
    let arena = Geometry::default().arena;
    let bad = [
        (0, 0),
        (arena, 1),
        (arena - 64, 65),
        (u32::MAX - 63, 64),
        (63, 64),
        (0, 16_385),
    ];
    for (offset, len) in bad {
        let found = verdict(|h| piece(h, 0, FIRST, 1, (offset, len), (8_000, 0)));
        assert_eq!(found, Violation::Outside { offset, len, arena });
    }
}

#[test]
fn a_piece_that_does_not_continue_its_message_is_a_violation() {
    let wrong = [(100, 50), (100, 65), (101, 64)];
    for (total, position) in wrong {
        let found = verdict(|h| {
            piece(h, 0, FIRST, 1, (0, 64), (100, 0));
            piece(h, 1, MORE, 1, (64, 10), (total, position));
        });
        let (expected, expected_total) = (64, 100);
        assert_eq!(
            found,
            Violation::Position {
                id: 1,
                position,
                total,
                expected,
                expected_total
            }
        );
    }
    for (part, len, position) in [
        (FIRST, 10, 64),
        (MORE, 10, 0),
        (MORE, 37, 64),
        (MORE, 9, u32::MAX),
    ] {
        let found = verdict(|h| piece(h, 0, part, 1, (0, len), (100, position)));
        assert!(
            matches!(found, Violation::Position { id: 1, .. }),
            "{found}"
        );
    }
}

#[test]
fn a_piece_without_a_first_one_is_a_violation() {
    assert_eq!(
        verdict(|h| piece(h, 0, MORE, 9, (0, 10), (100, 64))),
        Violation::Orphan(9)
    );
}

#[test]
fn a_message_begun_twice_is_a_violation() {
    let found = verdict(|h| {
        piece(h, 0, FIRST, 9, (0, 64), (100, 0));
        piece(h, 1, FIRST, 9, (0, 64), (100, 0));
    });
    assert_eq!(found, Violation::Repeated(9));
}

#[test]
fn more_bytes_than_the_window_are_a_violation_and_freed_ones_do_not_count() {
    let found = verdict(|h| {
        piece(h, 0, FIRST, 1, (0, 64), (8_000, 0));
        piece(h, 1, FIRST, 2, (0, 64), (2_001, 0));
    });
    assert_eq!(
        found,
        Violation::Window {
            total: 2_001,
            held: 8_000,
            window: 10_000
        }
    );

    let (hostile, channel) = victim(&Geometry::default(), LIMITS);
    for round in 0..10 {
        piece(&hostile, round, FIRST, 1, (0, 8_000), (8_000, 0));
        assert_eq!(
            channel.receive(1, |message| channel.freed(message.body.window_bytes())),
            Ok(1)
        );
    }
    piece(&hostile, 10, FIRST, 1, (0, 8_000), (8_000, 0));
    assert_eq!(channel.receive(1, |_| ()), Ok(1), "received, but kept");
    piece(&hostile, 11, FIRST, 1, (0, 8_000), (8_000, 0));
    let found = channel.receive(1, |_| ());
    assert_eq!(
        found,
        Err(Violation::Window {
            total: 8_000,
            held: 8_000,
            window: 10_000
        })
    );
}

#[test]
fn more_half_sent_messages_than_twice_the_calls_are_a_violation() {
    let found = verdict(|h| (0..5).for_each(|id| piece(h, id.into(), FIRST, id, (0, 49), (50, 0))));
    assert_eq!(found, Violation::Partials(4));
}

#[test]
fn an_abort_of_nothing_is_no_violation() {
    let (hostile, channel) = victim(&Geometry::default(), LIMITS);
    write(&hostile, 0, 0xc1, 0, &[7]);
    let mut got = Vec::new();
    assert_eq!(
        channel.receive(1, |message| got.push((message.kind, message.id))),
        Ok(1)
    );
    assert_eq!(got, [(Kind::Aborted, 7)]);
}

#[test]
fn an_index_beyond_what_we_published_or_before_what_it_was_is_a_violation() {
    for (honest, claimed) in [(0, 5), (0, u64::MAX), (3, 2)] {
        let (hostile, channel) = victim(&TIGHT, LIMITS);
        let consumed = hostile.word(64);
        let mut next = 0;
        let mut fill = || {
            while !channel.staged() && !channel.is_closed() {
                let _ = channel.send(call(next, b"")).expect("open");
                next += 1;
            }
        };
        fill();
        consumed.store(honest, Ordering::Release);
        channel.flush();
        fill();
        consumed.store(claimed, Ordering::Release);
        let published = 4 + honest;
        channel.flush();
        assert!(
            channel.has_incoming(),
            "there is a violation to be received"
        );
        let violation = Violation::Consumed {
            claimed,
            known: honest,
            published,
        };
        assert_eq!(channel.receive(1, |_| ()), Err(violation));
        is_condemned(&channel, violation);
    }
}

#[test]
fn bytes_freed_that_we_never_sent_are_a_violation() {
    let (hostile, channel) = victim(&Geometry::default(), LIMITS);
    assert_eq!(channel.try_reserve(8_000), Ok(true));
    let _ = channel.send(call(1, &[1; 8_000])).expect("open");
    hostile.word(128).store(8_001, Ordering::Release);
    assert_eq!(channel.try_reserve(8_000), Err(Closed));
    let violation = Violation::Freed {
        claimed: 8_001,
        known: 0,
        declared: 8_000,
    };
    assert_eq!(channel.receive(1, |_| ()), Err(violation));
    is_condemned(&channel, violation);
}

#[test]
fn bytes_freed_that_are_taken_back_are_a_violation() {
    let (hostile, channel) = victim(&Geometry::default(), LIMITS);
    assert_eq!(channel.try_reserve(8_000), Ok(true));
    let _ = channel.send(call(1, &[1; 8_000])).expect("open");
    hostile.word(128).store(6_000, Ordering::Release);
    assert_eq!(channel.try_reserve(8_000), Ok(true));
    hostile.word(128).store(5_999, Ordering::Release);
    assert_eq!(channel.try_reserve(8_000), Err(Closed));
    let violation = Violation::Freed {
        claimed: 5_999,
        known: 6_000,
        declared: 8_000,
    };
    is_condemned_by_then(&channel, violation);
}

fn is_condemned_by_then(channel: &Channel, violation: Violation) {
    assert_eq!(channel.receive(1, |_| ()), Err(violation));
    is_condemned(channel, violation);
}

#[test]
fn stale_slots_of_another_lap_are_nothing() {
    let (hostile, channel) = victim(&TIGHT, LIMITS);
    for lap in [1, 2, 1 << 20] {
        write(&hostile, 4 * lap, CALL, 0, &[]);
        assert!(!channel.has_incoming());
        assert_eq!(channel.receive(1, |_| ()), Ok(0));
    }
}

#[test]
fn random_words_everywhere_end_in_a_violation_or_in_messages_but_never_in_a_crash() {
    let mut random = Random(5);
    let (mut violations, mut messages) = (0, 0);
    for _ in 0..300 {
        let (hostile, channel) = victim(&TIGHT, LIMITS);
        for index in 0..40 {
            let parts = [CALL, 2, 3, 4, 5, FIRST | CALL, MORE | CALL, 0xc1, FIRST | 2];
            let kind = if random.below(50) == 0 {
                random.below(256)
            } else {
                parts[random.below(9)].into()
            };
            let mut near = || (random.below(70) * if random.below(2) == 0 { 64 } else { 1 }) as u32;
            let words = [near().into(), two(near(), near()), two(near(), near())];
            write(&hostile, index, kind as u8, 0, &words);
            hostile
                .word(64)
                .store(random.below(3) as u64, Ordering::Relaxed);
            hostile
                .word(128)
                .store(random.below(3) as u64, Ordering::Relaxed);
            let _ = channel.send(call(1, b"x"));
            channel.refresh_window();
            channel.announce_blocked();
            channel.flush();
            match channel.receive(10, |_| messages += 1) {
                Ok(_) => {}
                Err(violation) => {
                    is_condemned(&channel, violation);
                    violations += 1;
                    break;
                }
            }
        }
    }
    assert!(
        violations > 100 && messages > 100,
        "{violations} violations and {messages} messages say nothing"
    );
}
