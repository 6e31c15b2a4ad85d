//! Channels that are closed, of which the peer has not read yet what was sent to it.
//!
//! The two descriptors of a greeting are on their way until it is read, and count for our user: beyond RLIMIT_NOFILE the
//! kernel sends no more for that. So such a channel keeps its place among those of its client, until the peer has read
//! all or has closed its socket, with which the kernel drops what is left there.

use std::collections::btree_map::{BTreeMap, Entry};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use nix::libc;
use nix::sys::socket::{getsockopt, sockopt::GetStruct};
use rustix::event::epoll::{self, EventFlags};

use super::Token;
use crate::node::lock;
use crate::quota::Place;

/// Bytes of memory of any one message. While it tells of a reading, the kernel keeps one byte of it.
const MESSAGE: u32 = 256;

/// SO_MEMINFO, as far as what was sent and not read, which comes third.
#[derive(Clone, Copy)]
struct Memory;
nix::getsockopt_impl!(
    Memory,
    libc::SOL_SOCKET,
    libc::SO_MEMINFO,
    [u32; 3],
    GetStruct<[u32; 3]>
);

/// Also where the kernel does not say: else no place would ever be given back.
fn is_read(socket: impl AsFd) -> bool {
    getsockopt(&socket, Memory).map_or(true, |[_, _, sent]| sent < MESSAGE)
}

/// See the [module's documentation](self).
#[derive(Default)]
pub(super) struct Unread {
    /// By a key that is never used again: an event that comes late names nobody else.
    places: Mutex<BTreeMap<u64, (Arc<OwnedFd>, Place)>>,
    next_key: AtomicU64,
}

impl Unread {
    /// Keeps `place` until all is read that was sent. Nothing more can be sent on `socket`.
    pub(super) fn keep(&self, epoll: &OwnedFd, socket: &Arc<OwnedFd>, place: Place) {
        if is_read(socket) {
            return;
        }
        let key = self.next_key.fetch_add(1, Ordering::Relaxed);
        lock(&self.places).insert(key, (Arc::clone(socket), place));
        // Each reading is an event, and so is the beginning: what was read before is not missed.
        let flags = EventFlags::OUT | EventFlags::ET;
        if epoll::add(epoll, socket, Token::Unread(key).pack(), flags).is_err() {
            lock(&self.places).remove(&key);
        }
    }

    /// The peer of one has read something, or is gone.
    pub(super) fn look(&self, epoll: &OwnedFd, key: u64) {
        if let Entry::Occupied(entry) = lock(&self.places).entry(key)
            && is_read(&entry.get().0)
        {
            let (socket, _place) = entry.remove();
            let _ = epoll::delete(epoll, &socket);
        }
    }

    /// Nobody counts any more: the runtime has ended.
    pub(super) fn clear(&self) {
        lock(&self.places).clear();
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_was_sent_counts_until_it_is_read_and_not_at_all_where_the_kernel_does_not_say() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        assert!(is_read(&ours));
        ours.write_all(b"hello").unwrap();
        assert!(!is_read(&ours));
        theirs.read_exact(&mut [0; 5]).unwrap();
        assert!(is_read(&ours));
        let no_socket = std::fs::File::open("/dev/null").unwrap();
        assert!(is_read(&no_socket));
    }
}
