//! Two honest ends: what is sent arrives, once, in order, whatever fills up on the way.

mod common;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use common::*;
use urpc_channel::{Body, Channel, Closed, Geometry, Kind, Limits, Message, SendError, Sent, Why};

const SMALL_WINDOW: Limits = Limits {
    calls: 8,
    window: 10_000,
    max_payload: 10_000,
};

fn send_large(channel: &Channel, message: Message) -> Sent {
    assert_eq!(channel.try_reserve(message.body.window_bytes()), Ok(true));
    channel.send(message).expect("open")
}

fn ids(messages: &[Message]) -> Vec<(Kind, u32)> {
    messages
        .iter()
        .map(|message| (message.kind, message.id))
        .collect()
}

#[test]
fn every_kind_crosses_with_all_its_fields() {
    let (a, b) = pair(&Geometry::default(), Limits::default());
    for kind in [
        Kind::Call,
        Kind::Reply,
        Kind::Failed,
        Kind::Cancel,
        Kind::Goodbye,
    ] {
        let mut sent = Message {
            kind,
            id: u32::MAX,
            procedure: 65535,
            deadline_ms: 7,
            body: Body::EMPTY,
        };
        if kind == Kind::Cancel {
            (sent.procedure, sent.deadline_ms) = (0, 0);
        } else {
            sent.body = Body::from_slice(&[5; 48]);
        }
        assert_eq!(a.send(sent.clone()).expect("open"), Sent::Published);
        assert!(a.unread_by_peer() && b.has_incoming());
        assert_eq!(drain(&b), [sent]);
        assert!(!a.unread_by_peer() && !b.has_incoming());
    }
}

#[test]
fn a_large_message_crosses_whole_at_every_awkward_size() {
    for geometry in [TIGHT, Geometry::default()] {
        let (a, b) = pair(&geometry, Limits::default());
        let mut random = Random(1);
        for len in [
            49,
            127,
            128,
            4095,
            4096,
            4097,
            16384,
            16385,
            65536,
            65537,
            1 << 22,
        ] {
            let sent = call(len as u32, &random.bytes(len));
            let mut outcome = send_large(&a, sent.clone());
            let mut got = Vec::new();
            until("all pieces", || {
                b.receive(1, |message| got.push(message))
                    .expect("an honest peer");
                if a.flush() {
                    outcome = Sent::Published;
                }
                !got.is_empty()
            });
            assert_eq!((outcome, a.staged()), (Sent::Published, false));
            assert!(got == [sent], "{len} bytes differ");
            b.freed(len);
        }
    }
}

#[test]
fn a_full_ring_stages_and_a_later_flush_publishes_in_order() {
    let (a, b) = pair(&TIGHT, Limits::default());
    for id in 0..10 {
        let sent = a.send(call(id, b"x")).expect("open");
        assert_eq!(
            sent,
            if id < 4 {
                Sent::Published
            } else {
                Sent::Staged
            }
        );
    }
    assert!(a.staged() && !a.flush(), "the ring is full");
    let mut got = Vec::new();
    while got.len() < 10 {
        let batch = drain(&b);
        assert!(!batch.is_empty(), "stuck after {} messages", got.len());
        got.extend(batch);
        a.flush();
    }
    assert_eq!(
        ids(&got),
        (0..10).map(|id| (Kind::Call, id)).collect::<Vec<_>>()
    );
    assert!(!a.staged() && a.flush());
}

#[test]
fn a_staged_message_waits_for_a_flush_and_keeps_its_place() {
    let (a, b) = pair(&Geometry::default(), Limits::default());
    assert_eq!(a.stage(call(1, b"")).expect("open"), Sent::Staged);
    assert!(a.staged() && !b.has_incoming());
    assert_eq!(a.send(call(2, b"")).expect("open"), Sent::Published);
    assert_eq!(ids(&drain(&b)), [(Kind::Call, 1), (Kind::Call, 2)]);
    let _ = a.stage(call(3, b"")).expect("open");
    assert!(a.flush() && !a.staged());
    assert_eq!(ids(&drain(&b)), [(Kind::Call, 3)]);
}

#[test]
fn a_receive_takes_no_more_than_asked_and_frees_what_it_took() {
    let (a, b) = pair(&TIGHT, Limits::default());
    for id in 0..4 {
        let _ = a.send(call(id, b"")).expect("open");
    }
    let mut got = Vec::new();
    assert_eq!(b.receive(3, |message| got.push(message.id)), Ok(3));
    assert_eq!(got, [0, 1, 2]);
    assert!(b.has_incoming() && a.unread_by_peer());
    for id in 4..7 {
        assert_eq!(a.send(call(id, b"")).expect("open"), Sent::Published);
    }
    assert_eq!(a.send(call(7, b"")).expect("open"), Sent::Staged);
}

#[test]
fn a_large_message_does_not_hold_up_a_small_one_and_two_take_turns() {
    let (a, b) = pair(
        &Geometry {
            slots: 64,
            arena: 4096,
        },
        Limits::default(),
    );
    assert_eq!(send_large(&a, call(1, &[1; 40_000])), Sent::Staged);
    assert_eq!(send_large(&a, call(2, &[2; 10_000])), Sent::Staged);
    assert_eq!(a.send(call(3, b"small")).expect("open"), Sent::Published);
    let mut got = Vec::new();
    until("all three", || {
        got.extend(drain(&b));
        a.flush();
        got.len() == 3
    });
    assert_eq!(
        ids(&got),
        [(Kind::Call, 3), (Kind::Call, 2), (Kind::Call, 1)]
    );
}

#[test]
fn a_call_and_a_reply_with_one_id_are_two_messages() {
    let (a, b) = pair(&TIGHT, Limits::default());
    let (one, other) = (
        message(Kind::Call, 5, &[1; 9000]),
        message(Kind::Reply, 5, &[2; 9000]),
    );
    send_large(&a, one.clone());
    send_large(&a, other.clone());
    let mut got = Vec::new();
    until("both", || {
        got.extend(drain(&b));
        a.flush();
        got.len() == 2
    });
    assert_eq!(got, [one, other]);
}

#[test]
fn a_goodbye_overtakes_nothing() {
    let (a, b) = pair(&TIGHT, Limits::default());
    send_large(&a, call(1, &[1; 30_000]));
    assert_eq!(
        a.send(message(Kind::Goodbye, 0, b"done")).expect("open"),
        Sent::Staged
    );
    let mut got = Vec::new();
    until("both", || {
        got.extend(drain(&b));
        a.flush();
        got.len() == 2
    });
    assert_eq!(ids(&got), [(Kind::Call, 1), (Kind::Goodbye, 0)]);
}

#[test]
fn random_messages_of_many_threads_arrive_once_and_in_the_order_of_each() {
    const THREADS: usize = 3;
    const EACH: u32 = 3_000;
    for geometry in [
        TIGHT,
        Geometry {
            slots: 16,
            arena: 8192,
        },
    ] {
        let limits = Limits {
            calls: 8,
            window: 64 << 10,
            max_payload: 20_000,
        };
        let (a, b) = pair(&geometry, limits);
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let a = &a;
                scope.spawn(move || {
                    let mut random = Random(thread as u64 + 77);
                    for i in 0..EACH {
                        let len = random.below(if i % 10 == 0 { 20_000 } else { 49 });
                        let message = call(thread as u32 * EACH + i, &random.bytes(len));
                        until("window", || {
                            a.flush();
                            a.try_reserve(message.body.window_bytes()).expect("open")
                        });
                        let _ = a.send(message).expect("open");
                        std::sync::atomic::fence(Ordering::SeqCst);
                        a.flush();
                    }
                    until("all published", || a.flush() && !a.staged());
                });
            }
            let mut expected: Vec<Random> = (0..THREADS).map(|t| Random(t as u64 + 77)).collect();
            let mut seen = vec![false; THREADS * EACH as usize];
            let mut next_small = [0; THREADS];
            let mut bodies: Vec<Vec<Vec<u8>>> = Vec::new();
            for random in &mut expected {
                let lens = (0..EACH).map(|i| {
                    let len = random.below(if i % 10 == 0 { 20_000 } else { 49 });
                    random.bytes(len)
                });
                bodies.push(lens.collect());
            }
            let mut count = 0;
            until("all messages", || {
                for message in drain(&b) {
                    let (thread, i) = (message.id / EACH, message.id % EACH);
                    assert!(
                        !std::mem::replace(&mut seen[message.id as usize], true),
                        "twice"
                    );
                    assert!(
                        message.body.as_slice() == bodies[thread as usize][i as usize],
                        "bytes differ"
                    );
                    if message.body.window_bytes() == 0 {
                        let next = &mut next_small[thread as usize];
                        assert!(i >= *next, "{i} after {next} of thread {thread}");
                        *next = i + 1;
                    }
                    count += 1;
                }
                count == THREADS * EACH as usize
            });
        });
        assert!(!a.staged() && drain(&b).is_empty());
    }
}

#[test]
fn a_withdrawn_small_call_is_cancelled_behind_itself() {
    let (a, b) = pair(&TIGHT, Limits::default());
    for id in 0..6 {
        let _ = a.send(call(id, b"")).expect("open");
    }
    a.withdraw(5); // still staged
    a.withdraw(0); // long in the ring
    let mut got = Vec::new();
    until("all", || {
        got.extend(drain(&b));
        a.flush();
        got.len() == 8
    });
    assert_eq!(
        ids(&got)[5..],
        [(Kind::Call, 5), (Kind::Cancel, 5), (Kind::Cancel, 0)]
    );
}

#[test]
fn a_large_call_withdrawn_half_way_is_aborted_and_its_bytes_come_back() {
    let (a, b) = pair(&TIGHT, SMALL_WINDOW);
    send_large(&a, call(1, &[1; 10_000]));
    assert!(drain(&b).is_empty(), "one piece of 4096 is no message");
    a.flush();
    a.withdraw(1);
    assert_eq!(ids(&drain(&b)), [(Kind::Aborted, 1)]);
    assert!(a.flush() && !a.staged(), "the rest is dropped");
    assert_eq!(a.try_reserve(10_000), Ok(true), "the receiver freed it");
    let _ = a.send(call(1, &[2; 10_000])).expect("open");
    until("the second", || {
        a.flush();
        !drain(&b).is_empty()
    });
}

#[test]
fn a_large_call_withdrawn_before_its_first_piece_is_aborted_and_its_bytes_come_back() {
    let (a, b) = pair(&TIGHT, SMALL_WINDOW);
    for id in 0..4 {
        let _ = a.send(call(id, b"")).expect("open");
    }
    assert_eq!(send_large(&a, call(9, &[1; 10_000])), Sent::Staged);
    assert_eq!(a.try_reserve(1), Ok(false));
    a.withdraw(9);
    let mut got = drain(&b);
    assert!(a.flush());
    got.extend(drain(&b));
    assert_eq!(ids(&got)[3..], [(Kind::Call, 3), (Kind::Aborted, 9)]);
    assert_eq!(a.try_reserve(10_000), Ok(true));
}

#[test]
fn a_large_call_withdrawn_after_its_last_piece_is_cancelled() {
    let (a, b) = pair(&Geometry::default(), SMALL_WINDOW);
    assert_eq!(send_large(&a, call(1, &[1; 10_000])), Sent::Published);
    a.withdraw(1);
    assert_eq!(ids(&drain(&b)), [(Kind::Call, 1), (Kind::Cancel, 1)]);
}

/// Counts how often it is woken.
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_full_window_makes_reserve_wait_until_the_peer_has_freed() {
    let (a, b) = pair(&Geometry::default(), SMALL_WINDOW);
    send_large(&a, call(1, &[1; 6_000]));
    assert_eq!(a.try_reserve(5_000), Ok(false));
    let (mut first, mut second) = (pin!(a.reserve(9_000)), pin!(a.reserve(100)));
    let wakes = Arc::new(Wakes(AtomicUsize::new(0)));
    let waker = Waker::from(wakes.clone());
    assert!(
        first
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_pending()
    );
    assert!(
        poll(second.as_mut()).is_pending(),
        "first come, first served"
    );
    assert_eq!(a.try_reserve(1), Ok(false), "nor does trying overtake");
    assert!(a.announce_blocked() && !b.peer_blocked(), "nothing new yet");

    let mut got = Vec::new();
    b.receive(8, |message| got.push(message))
        .expect("an honest peer");
    a.refresh_window();
    assert_eq!(wakes.0.load(Ordering::SeqCst), 0, "received is not freed");
    b.freed(got[0].body.window_bytes());
    assert!(b.peer_blocked(), "now the sender deserves a ring");
    a.refresh_window();
    assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
    assert_eq!(poll(first.as_mut()), Poll::Ready(Ok(())));
    assert_eq!(poll(second.as_mut()), Poll::Ready(Ok(())));
    assert!(!a.announce_blocked() && !b.peer_blocked());
    a.unreserve(9_000);
    a.unreserve(100);
    assert_eq!(a.try_reserve(10_000), Ok(true));
}

#[test]
fn a_dropped_reserve_takes_nothing_and_lets_the_next_one_in() {
    let (a, _b) = pair(&Geometry::default(), SMALL_WINDOW);
    assert_eq!(a.try_reserve(5_000), Ok(true));
    let mut second = pin!(a.reserve(4_000));
    {
        let mut first = pin!(a.reserve(9_000));
        assert!(poll(first.as_mut()).is_pending());
        assert!(poll(second.as_mut()).is_pending());
    }
    assert_eq!(poll(second.as_mut()), Poll::Ready(Ok(())));
    assert_eq!(a.try_reserve(1_000), Ok(true));
    assert_eq!(a.try_reserve(1), Ok(false));
}

#[test]
fn a_sender_without_room_announces_it_and_a_peer_that_consumed_owes_a_ring() {
    let (a, b) = pair(&TIGHT, Limits::default());
    assert!(!a.announce_blocked());
    for id in 0..5 {
        let _ = a.send(call(id, b"")).expect("open");
    }
    assert!(a.announce_blocked() && !b.peer_blocked());
    drain(&b);
    assert!(b.peer_blocked());
    assert!(a.flush() && !a.announce_blocked());
    assert!(!b.peer_blocked());
}

#[test]
fn a_closed_channel_gives_messages_back_and_still_receives() {
    let (a, b) = pair(&TIGHT, SMALL_WINDOW);
    for id in 0..6 {
        let _ = b.send(call(id, b"")).expect("open");
    }
    let mut waits = pin!(b.reserve(10_000));
    assert_eq!(b.try_reserve(1), Ok(true));
    assert!(poll(waits.as_mut()).is_pending());
    b.close();
    assert_eq!(poll(waits.as_mut()), Poll::Ready(Err(Closed)));
    assert!(b.is_closed() && !b.staged() && b.violation().is_none());
    let refused = call(9, b"mine");
    let Err(SendError(back, why)) = b.send(refused.clone()) else {
        panic!("sent on a closed channel")
    };
    assert_eq!((back, why), (refused, Why::Closed));
    assert_eq!(b.try_reserve(1), Err(Closed));

    let _ = a.send(call(3, b"last words")).expect("this end is open");
    a.close();
    assert_eq!(drain(&b).len(), 1);
    assert_eq!(drain(&a).len(), 4, "what was published before the close");
}

#[test]
fn what_is_too_large_comes_back_untouched() {
    let (a, b) = pair(&Geometry::default(), SMALL_WINDOW);
    let huge = call(1, &[1; 10_001]);
    let Err(SendError(back, why)) = a.send(huge.clone()) else {
        panic!("sent")
    };
    assert_eq!(
        (back, why),
        (
            huge,
            Why::TooLarge {
                len: 10_001,
                max: 10_000
            }
        )
    );
    let Err(SendError(_, why)) = a.send(message(Kind::Goodbye, 0, &[0; 49])) else {
        panic!("sent")
    };
    assert_eq!(why, Why::TooLarge { len: 49, max: 48 });
    assert!(!b.has_incoming());
}

#[test]
fn a_short_body_on_the_heap_travels_in_its_slot() {
    let (a, b) = pair(&Geometry::default(), SMALL_WINDOW);
    let mut short = call(1, b"");
    short.body = Body::Heap(vec![7; 48].into());
    assert_eq!(short.body.window_bytes(), 0);
    assert_eq!(a.send(short).expect("open"), Sent::Published);
    assert!(matches!(drain(&b)[0].body, Body::Inline(_)));
}

#[test]
#[should_panic(expected = "49 bytes used with only 48 reserved")]
fn sending_more_than_was_reserved_is_a_mistake() {
    let (a, _b) = pair(&Geometry::default(), Limits::default());
    assert_eq!(a.try_reserve(48), Ok(true));
    let _ = a.send(call(1, &[0; 49]));
}

#[test]
#[should_panic(expected = "10001 bytes can never be reserved: the window has 10000")]
fn reserving_more_than_the_window_is_a_mistake() {
    let (a, _b) = pair(&Geometry::default(), SMALL_WINDOW);
    let _ = a.try_reserve(10_001);
}

#[test]
#[should_panic(expected = "Aborted is only received")]
fn sending_an_abort_is_a_mistake() {
    let (a, _b) = pair(&Geometry::default(), SMALL_WINDOW);
    let _ = a.send(message(Kind::Aborted, 1, b""));
}

#[test]
fn a_message_sent_out_of_a_sink_goes_its_way() {
    let (a, b) = pair(&Geometry::default(), Limits::default());
    let _ = a.send(call(1, b"ping")).expect("open");
    let answered = b.receive(8, |got| {
        let _ = b
            .send(Message {
                kind: Kind::Reply,
                ..got
            })
            .expect("open");
        assert_eq!(b.receive(8, |_| ()), Ok(0), "the end is taken");
    });
    assert_eq!(answered, Ok(1));
    assert_eq!(ids(&drain(&a)), [(Kind::Reply, 1)]);
}

#[test]
fn grants_returns_and_presence_are_seen_by_the_peer() {
    let (a, b) = pair(&Geometry::default(), Limits::default());
    for k in 0..urpc_channel::layout::GRANTS {
        let words = a.outbox().grant(k);
        words.cpu.store(k as u32 + 1, Ordering::Relaxed);
        words.limit_us.store(k as u32 + 2, Ordering::Relaxed);
        words.grant.store(k as u32 + 3, Ordering::Release);
        a.outbox()
            .returned(k)
            .store(k as u32 + 4, Ordering::Release);
    }
    for k in 0..urpc_channel::layout::GRANTS {
        let words = b.inbox().grant(k);
        let seen = [
            words.cpu,
            words.limit_us,
            words.grant,
            b.inbox().returned(k),
        ];
        let seen = seen.map(|word| word.load(Ordering::Relaxed) - k as u32);
        assert_eq!(seen, [1, 2, 3, 4]);
    }
    let own = urpc_channel::OwnPage::create().expect("a memfd");
    let fd = own.fd().try_clone_to_owned().expect("a descriptor");
    let peer = urpc_channel::PeerPage::accept(fd).expect("made by this crate");
    own.word(63).store(64, Ordering::Relaxed);
    assert_eq!(
        (
            peer.word(63).load(Ordering::Relaxed),
            peer.word(0).load(Ordering::Relaxed)
        ),
        (64, 0)
    );
}
