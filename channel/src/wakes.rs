//! The wake page of a channel: words that threads sleep on until the other process wakes them, or their own.
//!
//! It is the only memory that both processes write, because the kernel puts a thread to sleep sooner on a word that
//! it could write. So **no word here says anything**: what is granted or returned stands in the outboxes. Whoever
//! wakes writes it there first, then changes the wake word, then wakes; whoever sleeps loads the wake word, looks at
//! the outbox, and sleeps while the wake word is what it loaded. A peer that writes here what it likes wakes threads
//! for nothing or leaves them asleep, its own or those that wait for it: of these each has something else to end its
//! sleep.
//!
//! The side that connects makes the page. The other one maps it and then seals it, after which nobody can map it for
//! writing or punch holes into it, so that it is as safe to touch as an outbox. Each side sees for itself that it is
//! sealed: the one when it accepts the page, the other when it hears that the channel is open.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicU32;

use crate::layout::{GRANTS, LINE, PAGE, WAKES};
use crate::outbox::VOID;
use crate::region::Region;
use crate::sealed::{self, RegionError};

/// What wakes those who wait for one processor that is lent, and for its return.
#[derive(Clone, Copy, Debug)]
pub struct WakeWords<'a> {
    /// Changed by the process that lends, and by the other one for threads of its own.
    pub grant: &'a AtomicU32,
    /// The same of the process that returns.
    pub returned: &'a AtomicU32,
}

/// The words of one channel that threads of either process sleep on and the other process wakes. Both can write all
/// of it, so nothing is to be concluded from it.
#[derive(Debug)]
pub struct WakePage {
    region: Region,
    /// Where in it the words begin for what this process lends, and for what is lent to it.
    lent: (usize, usize),
}

/// A page of our own that the peer has yet to map and seal.
#[derive(Debug)]
pub struct UnsealedWakePage {
    region: Region,
    fd: OwnedFd,
}

impl UnsealedWakePage {
    /// A new one.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn create() -> io::Result<UnsealedWakePage> {
        let (region, fd) = Region::create_open(PAGE)?;
        Ok(UnsealedWakePage { region, fd })
    }

    /// The descriptor to send to the peer.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The peer says that it has the page.
    ///
    /// # Errors
    /// If it has not sealed it, or has punched a hole into it before.
    pub fn sealed(self) -> Result<WakePage, RegionError> {
        sealed::examine(&self.fd, PAGE, 0)?;
        Ok(WakePage {
            region: self.region,
            lent: (0, WAKES),
        })
    }
}

impl WakePage {
    /// Maps and seals what a peer sent as the channel's wake page, and closes the descriptor.
    ///
    /// # Errors
    /// Says which promise the descriptor does not keep: memory, seals, size, no holes.
    pub fn accept(fd: OwnedFd) -> Result<WakePage, RegionError> {
        Ok(WakePage {
            region: Region::accept_open(fd, PAGE)?,
            lent: (WAKES, 0),
        })
    }

    /// The words of processor `k` that this process lends. Panics if `k` is not below [`GRANTS`].
    pub fn lent_to_peer(&self, k: usize) -> WakeWords<'_> {
        self.words(self.lent.0, k)
    }

    /// The words of processor `k` that the peer lends. Panics if `k` is not below [`GRANTS`].
    pub fn lent_to_us(&self, k: usize) -> WakeWords<'_> {
        self.words(self.lent.1, k)
    }

    fn words(&self, base: usize, k: usize) -> WakeWords<'_> {
        assert!(k < GRANTS, "wake words {k} of {GRANTS}");
        if self.region.forked() {
            return WakeWords {
                grant: &VOID,
                returned: &VOID,
            };
        }
        let at = base + k * LINE;
        WakeWords {
            grant: self.region.u32(at),
            returned: self.region.u32(at + 4),
        }
    }
}
