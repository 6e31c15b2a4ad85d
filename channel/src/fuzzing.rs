//! What a peer can give this crate to read, made of any bytes: slots, indices, descriptors. Whatever the bytes,
//! each ends in messages, in a violation or in a refusal, within a bounded number of steps.
//!
//! The targets under `fuzz/` look for bytes that are new to the code; the tests here make theirs from a seed.

#[cfg(test)]
mod tests;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;

use rustix::fs::{self, FallocateFlags, MemfdFlags, SealFlags};

use crate::channel::{Channel, Limits};
use crate::incoming::Incoming;
use crate::layout::*;
use crate::message::{Arrived, Body, Head, Kind, Large, Message, Sink};
use crate::outbox::{Inbox, Outbox, PeerPage};
use crate::ring::Words;
use crate::sealed::RegionError;

/// Small, so that everything fills up and wraps.
const GEOMETRY: Geometry = Geometry {
    slots: 64,
    arena: 8192,
};
const LIMITS: Limits = Limits {
    calls: 4,
    window: 20_000,
    max_payload: 10_000,
};

/// An outbox, as its maker has it and as its peer does.
fn both_views() -> (Outbox, Inbox) {
    let mut outbox = Outbox::create(&GEOMETRY).expect("a memfd");
    let fd = outbox.take_fd().expect("not taken yet");
    let inbox = Inbox::accept(fd, &GEOMETRY).expect("made by this crate");
    (outbox, inbox)
}

/// Two outboxes of two sides, in one process.
struct Ends {
    hostile: Outbox,
    seen: Inbox,
    own: Outbox,
}

thread_local! {
    static ENDS: Ends = {
        let (hostile, seen) = both_views();
        let (own, _) = both_views();
        Ends { hostile, seen, own }
    };
}

/// Takes what is received, and checks that it is within what was agreed.
struct Taker<'a> {
    own: &'a Outbox,
    messages: usize,
    /// Bytes of admitted calls that are neither received nor withdrawn.
    admitted: u64,
    /// Admits every other large call.
    admits: bool,
}

impl Sink for Taker<'_> {
    fn small(&mut self, _: Head, body: Arrived<'_>) {
        assert!(body.into_body().as_slice().len() <= INLINE);
        self.messages += 1;
    }

    fn large(&mut self, head: Head, Large { bytes, .. }: Large) {
        let len = bytes.len();
        match head.kind {
            Kind::Aborted | Kind::Refused => assert_eq!(len, 0),
            kind => {
                assert!(len > INLINE && len <= LIMITS.max_payload as usize);
                assert!(bytes.capacity() <= 2 * len, "no more than twice what came");
                if kind == Kind::Call {
                    self.admitted -= len as u64;
                }
                self.own.add(FREED_AT, len as u64);
            }
        }
        self.messages += 1;
    }

    fn admits(&mut self, head: &Head, bytes: u32) -> bool {
        self.admits = !self.admits;
        if self.admits && head.kind == Kind::Call {
            self.admitted += u64::from(bytes);
        }
        self.admits
    }

    fn withdrawn(&mut self, bytes: u32) {
        self.admitted -= u64::from(bytes);
    }
}

/// Slots, of 64 bytes each. Their sequence is made right, else they would not be looked at. Says how many were
/// taken, and how many messages they were; then came a violation, or the end.
pub fn slots(bytes: &[u8]) -> (usize, usize) {
    ENDS.with(|ends| {
        let Ends { hostile, seen, own } = ends;
        own.word(FREED_AT).store(0, Ordering::Relaxed);
        let incoming = Incoming::new(GEOMETRY, LIMITS);
        let mut taker = Taker {
            own,
            messages: 0,
            admitted: 0,
            admits: false,
        };
        let mut taken = 0;
        for (index, slot) in (0u64..).zip(bytes.chunks_exact(LINE)) {
            let at = |index: u64| RING_AT + (index % u64::from(GEOMETRY.slots)) as usize * LINE;
            for (i, word) in slot.chunks_exact(8).enumerate().skip(1) {
                let word = u64::from_le_bytes(word.try_into().expect("eight bytes"));
                let place = hostile.word(at(index) + 8 * i);
                place.store(word, Ordering::Relaxed);
            }
            hostile.word(at(index + 1)).store(0, Ordering::Relaxed);
            let tag = u32::from_le_bytes(slot[4..8].try_into().expect("four bytes"));
            let header = u64::from(index as u32 + 1) | u64::from(tag) << 32;
            hostile.word(at(index)).store(header, Ordering::Release);
            assert!(incoming.has_more(seen));
            taken += 1;
            if incoming.receive(own, seen, 2, &mut taker).is_err() {
                break;
            }
            assert!(!incoming.has_more(seen), "each slot is taken once");
            assert!(taker.admitted <= LIMITS.window, "no more than the window");
        }
        (taken, taker.messages)
    })
}

/// What a peer says of our ring and our bytes while we send: an operation and a number each time, of one and eight
/// bytes. Says whether that ended in a violation.
pub fn claims(bytes: &[u8]) -> bool {
    let (hostile, seen) = both_views();
    let (own, _) = both_views();
    let channel = Channel::new(own, seen, LIMITS);
    let (mut sent, mut freed) = (0u64, 0);
    for step in bytes.chunks_exact(9) {
        let number = u64::from_le_bytes(step[1..].try_into().expect("eight bytes"));
        let near = |base: u64| match step[0] >> 4 {
            0 => number,
            1..=3 => base.wrapping_sub(number & 3),
            _ => base.min(number),
        };
        let claim = |at, word| hostile.word(at).store(word, Ordering::Release);
        let body = |len| Body::from_vec(vec![7; len]);
        let message = |kind, body| Message {
            kind,
            id: number as u32,
            procedure: 0,
            deadline_ms: 0,
            body,
        };
        match step[0] & 7 {
            0 => claim(CONSUMED_AT, near(sent)),
            1 => claim(FREED_AT, near(freed)),
            2 => claim(BLOCKED_AT, near(sent + freed)),
            3 => {
                let len = INLINE + 1 + number as usize % (LIMITS.max_payload as usize - INLINE);
                if channel.try_reserve(len) == Ok(true) {
                    let sent_it = channel.send(message(Kind::Call, body(len))).is_ok();
                    freed += if sent_it { len as u64 } else { 0 };
                }
            }
            4 => drop(channel.send(message(Kind::Cancel, Body::EMPTY))),
            _ => sent += u64::from(channel.send(message(Kind::Reply, body(8))).is_ok()),
        }
        channel.announce_blocked();
        channel.refresh_window();
        channel.flush();
        let _ = (
            channel.peer_blocked(),
            channel.peer_progress(),
            channel.unread_by_peer(),
            channel.has_incoming(),
        );
        if channel.receive(1, |_| ()).is_err() {
            assert!(channel.is_closed() && channel.violation().is_some());
            return true;
        }
    }
    false
}

/// A descriptor of some kind, size and seals, with some words at its start, in place of an outbox and of a page.
/// Says whether it was taken; then all of it can be read, but for the annex.
pub fn descriptor(bytes: [u8; 8]) -> bool {
    let [kind, size, seals, hole, word, value, ..] = bytes;
    let there = GEOMETRY.size().expect("checked") as u64;
    let right = there + u64::from(ANNEX);
    let mut outbox = Outbox::create(&GEOMETRY).expect("a memfd");
    let fd: OwnedFd = match kind {
        0..8 => std::fs::File::open("/dev/zero")
            .expect("it is there")
            .into(),
        8..16 => tempfile(right),
        16..24 => huge().unwrap_or_else(|| tempfile(right)),
        24..32 => rustix::pipe::pipe().expect("a pipe").0,
        32..64 => outbox.take_fd().expect("new"),
        _ => {
            let size = match size {
                0..32 => u64::from(size) * 4096,
                32..48 => right - 1 + u64::from(size % 3),
                48..52 => 0,
                52..56 => 1 << 40,
                _ => right,
            };
            let seals = SealFlags::from_bits_truncate(match seals {
                0..64 => seals.into(),
                _ => 0x1f & !0x08, // all but the one that would forbid its maker to write
            });
            memfd(size, seals, hole, (word, value), there).expect("a memfd")
        }
    };
    let as_page = fd.as_fd().try_clone_to_owned().expect("a descriptor");
    let taken = match Inbox::accept(fd, &GEOMETRY) {
        Ok(inbox) => {
            let mut all = Vec::new();
            inbox.copy_out(0, there as usize, &mut all);
            true
        }
        Err(RegionError::Geometry(_)) => panic!("it was checked"),
        Err(_) => false,
    };
    if let Ok(page) = PeerPage::accept(as_page) {
        let _ = (0..PRESENCE_WORDS)
            .map(|i| page.word(i).load(Ordering::Relaxed))
            .max();
    }
    taken
}

fn memfd(
    size: u64,
    seals: SealFlags,
    hole: u8,
    (word, value): (u8, u8),
    there: u64,
) -> rustix::io::Result<OwnedFd> {
    let fd = fs::memfd_create(c"any", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    fs::ftruncate(&fd, size)?;
    if size < 1 << 40 {
        let there = size.min(there);
        let header = [MAGIC, VERSION, GEOMETRY.word()];
        let mut header: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
        if value >= 128 {
            header[usize::from(word) % 24] ^= value & 127;
        }
        if hole >= 32 && there > 0 {
            fs::fallocate(&fd, FallocateFlags::empty(), 0, there)?;
            // Pages that nobody has touched count as holes.
            rustix::io::pwrite(&fd, &vec![0; there as usize], 0)?;
            rustix::io::pwrite(&fd, &header[..header.len().min(there as usize)], 0)?;
        }
        if (32..64).contains(&hole) && there > 4096 {
            let at = (u64::from(hole) * 4096 % there) & !4095;
            let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            fs::fallocate(&fd, punch, at, 4096)?;
        }
    }
    fs::fcntl_add_seals(&fd, seals)?;
    Ok(fd)
}

fn huge() -> Option<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGETLB;
    let fd = fs::memfd_create(c"huge", flags).ok()?;
    fs::ftruncate(&fd, 2 << 20).ok()?;
    Some(fd)
}

fn tempfile(size: u64) -> OwnedFd {
    let flags = fs::OFlags::TMPFILE | fs::OFlags::RDWR | fs::OFlags::CLOEXEC;
    let mode = fs::Mode::RUSR | fs::Mode::WUSR;
    let fd = fs::open(std::env::temp_dir(), flags, mode).expect("a file");
    fs::ftruncate(&fd, size).expect("a size");
    fd
}
