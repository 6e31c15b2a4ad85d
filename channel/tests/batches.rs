//! Small messages that wait for those that follow: what ends the wait, and that nothing overtakes them.

mod common;

use common::*;
use urpc_channel::{Body, Channel, Geometry, Head, Kind, Limits, Sent};

fn head(id: u32) -> Head {
    Head {
        kind: Kind::Call,
        id,
        procedure: 3,
        deadline_ms: 0,
    }
}

/// Posts a call with more to come.
fn post_with_more(channel: &Channel, id: u32) -> bool {
    channel.post_with(head(id), &mut Body::from_slice(&id.to_le_bytes()), true)
}

/// What has come: each with the number that its body should hold.
fn come(channel: &Channel) -> Vec<(Kind, u32)> {
    let messages = drain(channel).into_iter();
    let number = |message: urpc_channel::Message| {
        if message.kind == Kind::Call && message.body.window_bytes() == 0 {
            assert_eq!(message.body.as_slice(), message.id.to_le_bytes());
        }
        (message.kind, message.id)
    };
    messages.map(number).collect()
}

fn calls(ids: impl IntoIterator<Item = u32>) -> Vec<(Kind, u32)> {
    ids.into_iter().map(|id| (Kind::Call, id)).collect()
}

#[test]
fn they_go_with_the_first_that_nothing_follows() {
    let (a, b) = pair(&Geometry::default(), Limits::default());
    assert!((1..=3).all(|id| post_with_more(&a, id)));
    assert!(a.staged() && !b.has_incoming());
    assert_eq!(a.published(), 0);
    assert!(a.post(head(4), &mut Body::from_slice(&4u32.to_le_bytes())));
    assert!(!a.staged());
    assert_eq!(a.published(), 4);
    assert_eq!(come(&b), calls(1..=4));
}

#[test]
fn seven_wait_and_the_eighth_goes_with_them() {
    let (a, b) = pair(&Geometry::default(), Limits::default());
    assert!((1..=7).all(|id| post_with_more(&a, id)));
    assert!(!b.has_incoming());
    assert!(post_with_more(&a, 8));
    assert_eq!(come(&b), calls(1..=8));
    assert!(!a.staged());
}

#[test]
fn a_flush_sends_them() {
    let (a, b) = pair(&Geometry::default(), Limits::default());
    assert!(post_with_more(&a, 1) && a.glance().chores);
    assert!(a.flush() && !a.staged());
    assert_eq!(come(&b), calls([1]));
}

#[test]
fn what_is_said_of_a_call_comes_behind_it() {
    let (a, b) = pair(&Geometry::default(), Limits::default());
    assert!(post_with_more(&a, 1));
    a.withdraw(1);
    assert_eq!(come(&b), [(Kind::Call, 1), (Kind::Cancel, 1)]);
}

#[test]
fn large_ones_do_not_overtake_them() {
    let (a, b) = pair(&Geometry::default(), Limits::default());
    for bytes in [100, 20_000] {
        assert!(post_with_more(&a, 1));
        let body = Body::from_vec(vec![7; bytes]);
        assert_eq!(a.try_reserve(bytes), Ok(true));
        assert_eq!(a.send(head(2).with(body)).expect("open"), Sent::Published);
        assert_eq!(come(&b), calls([1, 2]));
    }
}

#[test]
fn a_large_one_that_waits_as_well_goes_on_waiting() {
    let (a, b) = pair(&TIGHT, Limits::default());
    let body = Body::from_vec(vec![7; 20_000]);
    assert_eq!(a.try_reserve(20_000), Ok(true));
    assert_eq!(a.send(head(9).with(body)).expect("open"), Sent::Staged);
    assert!(post_with_more(&a, 1));
    assert!(a.post(head(2), &mut Body::from_slice(&2u32.to_le_bytes())));
    assert!(a.staged(), "the rest of the large one");
    let mut all = come(&b);
    while a.staged() {
        a.flush();
        all.extend(come(&b));
    }
    assert_eq!(all, calls([1, 2, 9]));
}

#[test]
fn no_more_wait_than_the_ring_has_room_for() {
    let (a, b) = pair(&TIGHT, Limits::default());
    assert!((1..=4).all(|id| post_with_more(&a, id)));
    assert!(!post_with_more(&a, 5));
    assert!(a.flush());
    assert_eq!(come(&b), calls(1..=4));
    let message = head(5).with(Body::from_slice(&5u32.to_le_bytes()));
    assert_eq!(a.send(message).expect("open"), Sent::Published);
    assert_eq!(come(&b), calls([5]));
}

#[test]
fn on_a_closed_channel_they_are_dropped() {
    let (a, b) = pair(&Geometry::default(), Limits::default());
    assert!(post_with_more(&a, 1));
    a.close();
    assert!(!a.staged() && !b.has_incoming());
    assert!(!post_with_more(&a, 2));
}
