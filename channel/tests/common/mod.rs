//! What the tests share: two ends in one process over real memfds, and waiting for conditions under a
//! watchdog.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use urpc_channel::{Body, Channel, Geometry, Inbox, Kind, Limits, Message, Outbox};

/// Small enough that everything fills up and wraps.
pub(crate) const TIGHT: Geometry = Geometry {
    slots: 4,
    arena: 4096,
};

/// An outbox and what its peer makes of it.
pub(crate) fn both_views(geometry: &Geometry) -> (Outbox, Inbox) {
    let mut outbox = Outbox::create(geometry).expect("a memfd");
    let fd = outbox.take_fd().expect("not taken yet");
    let inbox = Inbox::accept(fd, geometry).expect("made by this crate");
    (outbox, inbox)
}

/// Two ends of one channel.
pub(crate) fn pair(geometry: &Geometry, limits: Limits) -> (Channel, Channel) {
    let (a, of_a) = both_views(geometry);
    let (b, of_b) = both_views(geometry);
    (Channel::new(a, of_b, limits), Channel::new(b, of_a, limits))
}

/// A channel whose peer is the test itself, writing whatever it likes.
pub(crate) fn victim(geometry: &Geometry, limits: Limits) -> (Outbox, Channel) {
    let (hostile, of_hostile) = both_views(geometry);
    let (own, _) = both_views(geometry);
    (hostile, Channel::new(own, of_hostile, limits))
}

pub(crate) fn call(id: u32, bytes: &[u8]) -> Message {
    message(Kind::Call, id, bytes)
}

pub(crate) fn message(kind: Kind, id: u32, bytes: &[u8]) -> Message {
    Message {
        kind,
        id,
        procedure: 3,
        deadline_ms: 1000,
        body: Body::from_slice(bytes),
    }
}

/// Everything there is to receive now, freed at once.
pub(crate) fn drain(channel: &Channel) -> Vec<Message> {
    let mut got = Vec::new();
    while channel
        .receive(usize::MAX, |message| got.push(message))
        .expect("an honest peer")
        > 0
        || channel.has_incoming()
    {}
    for message in &got {
        channel.freed(message.body.window_bytes());
    }
    got
}

/// Waits for a condition. A test that waits a minute has failed.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "waited too long for {what}"
        );
        std::thread::yield_now();
    }
}

pub(crate) fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Xorshift: the same numbers in every run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) as usize % bound
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.below(256) as u8).collect()
    }
}
