//! The bell: where a process is rung while its processors rest.
//!
//! An epoll of its own, with the peers' sockets (a ring is a byte there) and an eventfd for wakes from
//! within. One resting worker at a time sits at it; while nobody does, the keeper hears it, whose epoll
//! the bell is nested in. The sitter masks it there, so that a ring does not wake both.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};

/// The token of the eventfd; sockets have the keys of their bindings.
const LOCAL: u64 = u64::MAX;

/// See the [module's documentation](self).
#[derive(Debug)]
pub(crate) struct Bell {
    epoll: OwnedFd,
    local: OwnedFd,
    taken: AtomicBool,
    /// The keeper's epoll, and the bell's token there.
    outer: (OwnedFd, u64),
}

impl Bell {
    /// A bell nested in `outer` under `token`.
    pub(crate) fn new(outer: OwnedFd, token: u64) -> std::io::Result<Self> {
        let inner = epoll::create(CreateFlags::CLOEXEC)?;
        let local = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        // Edge-triggered: nobody has to read it.
        let flags = EventFlags::IN | EventFlags::ET;
        epoll::add(&inner, &local, EventData::new_u64(LOCAL), flags)?;
        epoll::add(&outer, &inner, EventData::new_u64(token), EventFlags::IN)?;
        Ok(Self {
            epoll: inner,
            local,
            taken: AtomicBool::new(false),
            outer: (outer, token),
        })
    }

    /// Listens to a peer's socket.
    pub(crate) fn add(&self, socket: impl AsFd, key: u64) -> std::io::Result<()> {
        let data = EventData::new_u64(key);
        Ok(epoll::add(&self.epoll, socket, data, EventFlags::IN)?)
    }

    /// Listens to a peer's socket again, or does not for now.
    pub(crate) fn listen(&self, socket: impl AsFd, key: u64, on: bool) {
        let flags = if on {
            EventFlags::IN
        } else {
            EventFlags::empty()
        };
        // It may have been removed meanwhile.
        let _ = epoll::modify(&self.epoll, socket, EventData::new_u64(key), flags);
    }

    pub(crate) fn remove(&self, socket: impl AsFd) {
        let _ = epoll::delete(&self.epoll, socket);
    }

    /// Wakes who sits at the bell.
    pub(crate) fn ring(&self) {
        let _ = rustix::io::write(&self.local, &1u64.to_ne_bytes());
    }

    /// Takes the seat, if it is free, and masks the bell for the keeper.
    pub(crate) fn sit(&self) -> Option<Sitting<'_>> {
        if self.taken.swap(true, Ordering::Acquire) {
            return None;
        }
        self.listen_outside(false);
        Some(Sitting(self))
    }

    /// The keys that have been rung by now. For the keeper, who may come a moment late.
    pub(crate) fn heard(&self, each: impl FnMut(u64)) {
        let woken = self.wait(Some(Timespec::default()), each);
        // That wake was taken from who sat down since the keeper was told: it has claimed its one rest
        // already, so nobody would wake it again.
        if woken && self.taken.load(Ordering::Acquire) {
            self.ring();
        }
    }

    fn listen_outside(&self, on: bool) {
        let flags = if on {
            EventFlags::IN
        } else {
            EventFlags::empty()
        };
        let data = EventData::new_u64(self.outer.1);
        let _ = epoll::modify(&self.outer.0, &self.epoll, data, flags);
    }

    /// True if there was a wake from within.
    fn wait(&self, timeout: Option<Timespec>, mut each: impl FnMut(u64)) -> bool {
        let mut woken = false;
        let mut buffer = [MaybeUninit::uninit(); 16];
        if let Ok((events, _)) = epoll::wait(&self.epoll, &mut buffer, timeout.as_ref()) {
            for event in events {
                match event.data.u64() {
                    LOCAL => woken = true,
                    key => each(key),
                }
            }
        }
        woken
    }
}

/// The seat at the bell.
pub(crate) struct Sitting<'a>(&'a Bell);

impl Sitting<'_> {
    /// Sleeps until the bell is rung, or until `until`. Names the keys of the peers that rang.
    pub(crate) fn sleep(&self, until: Option<Instant>, each: impl FnMut(u64)) {
        self.0.wait(timeout(until), each);
    }
}

impl Drop for Sitting<'_> {
    fn drop(&mut self) {
        // Unmasked while the seat is still ours, so that the next sitter's mask comes later.
        self.0.listen_outside(true);
        self.0.taken.store(false, Ordering::Release);
    }
}

/// What the kernel wants to know of `until`.
pub(crate) fn timeout(until: Option<Instant>) -> Option<Timespec> {
    let left = until?.saturating_duration_since(Instant::now());
    Some(Timespec {
        tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: left.subsec_nanos().into(),
    })
}
