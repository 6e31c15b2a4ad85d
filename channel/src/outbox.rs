//! The regions as the rest of urpc knows them: an [`Outbox`] of our own, the peer's as an [`Inbox`], and
//! the presence pages.
//!
//! Each word has one writing process: the one that made the region. In a forked child, where there are no
//! mappings, the words handed out are dead ones, so that nothing crashes and nobody is told anything.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::layout::*;
use crate::region::Region;
use crate::sealed::RegionError;

/// What a forked child gets in place of its parent's words: one to write, which nobody reads, …
pub(crate) static VOID: AtomicU32 = AtomicU32::new(0);
/// … and one to read, which nobody writes.
static ZERO: AtomicU32 = AtomicU32::new(0);

/// The words of one grant (§3.1). `cpu` and `limit_us` are written before `grant`.
///
/// Of a peer's outbox: Relaxed loads only. That memory is read-only, a store to it is SIGSEGV.
#[derive(Clone, Copy, Debug)]
pub struct GrantWords<'a> {
    /// What is granted, as the `donate` crate encodes it.
    pub grant: &'a AtomicU32,
    /// On which CPU.
    pub cpu: &'a AtomicU32,
    /// For how long, in microseconds.
    pub limit_us: &'a AtomicU32,
}

fn grant_words<'a>(region: &'a Region, k: usize, dead: &'static AtomicU32) -> GrantWords<'a> {
    assert!(k < GRANTS, "grant word {k} of {GRANTS}");
    if region.forked() {
        return GrantWords {
            grant: dead,
            cpu: dead,
            limit_us: dead,
        };
    }
    let at = GRANTS_AT + k * LINE;
    GrantWords {
        grant: region.u32(at),
        cpu: region.u32(at + 4),
        limit_us: region.u32(at + 8),
    }
}

fn word_on_line<'a>(
    region: &'a Region,
    base: usize,
    k: usize,
    count: usize,
    dead: &'static AtomicU32,
) -> &'a AtomicU32 {
    assert!(k < count, "word {k} of {count}");
    if region.forked() {
        dead
    } else {
        region.u32(base + k * LINE)
    }
}

/// All that this process tells one peer: slots, payload, indices, grants and returns.
///
/// ```
/// use urpc_channel::{Geometry, Inbox, Outbox};
/// let geometry = Geometry::default();
/// let mut outbox = Outbox::create(&geometry)?;
/// // Here both ends are in one process; otherwise the descriptor goes through the binding's socket.
/// let fd = outbox.take_fd().expect("not taken yet");
/// let inbox = Inbox::accept(fd, &geometry).expect("made by urpc");
/// assert_eq!(inbox.geometry(), geometry);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Outbox {
    pub(crate) region: Region,
    pub(crate) annex: Region,
    pub(crate) geometry: Geometry,
    fd: Option<OwnedFd>,
}

impl Outbox {
    /// A new one: nothing sent, nothing consumed.
    ///
    /// # Errors
    /// `InvalidInput` for a geometry that cannot be; else what the kernel says.
    pub fn create(geometry: &Geometry) -> io::Result<Outbox> {
        let size = geometry
            .size()
            .map_err(|bad| io::Error::new(io::ErrorKind::InvalidInput, bad))?;
        let (region, annex, fd) = Region::create_with_annex(size, ANNEX as usize)?;
        // Before the descriptor is sent, so the peer sees them without more ado.
        region.u64(MAGIC_AT).store(MAGIC, Ordering::Relaxed);
        region.u64(VERSION_AT).store(VERSION, Ordering::Relaxed);
        region
            .u64(GEOMETRY_AT)
            .store(geometry.word(), Ordering::Relaxed);
        Ok(Outbox {
            region,
            annex,
            geometry: *geometry,
            fd: Some(fd),
        })
    }

    /// The descriptor to send to the peer; `None` once taken. A channel does not need it.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(OwnedFd::as_fd)
    }

    /// Takes the descriptor out; closing it does not matter to this end.
    pub fn take_fd(&mut self) -> Option<OwnedFd> {
        self.fd.take()
    }

    /// How large its parts are.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Grant word `k`, which this process writes. Panics if `k` is not below [`GRANTS`].
    pub fn grant(&self, k: usize) -> GrantWords<'_> {
        grant_words(&self.region, k, &VOID)
    }

    /// Return word `k`, which this process writes. Panics if `k` is not below [`GRANTS`].
    pub fn returned(&self, k: usize) -> &AtomicU32 {
        word_on_line(&self.region, RETURNS_AT, k, GRANTS, &VOID)
    }

    /// Any word, for tests that play a hostile peer.
    #[doc(hidden)]
    pub fn word(&self, offset: usize) -> &AtomicU64 {
        self.region.u64(offset)
    }
}

/// All that one peer tells this process: its [`Outbox`], mapped read-only.
#[derive(Debug)]
pub struct Inbox {
    pub(crate) region: Region,
    pub(crate) annex: Region,
    pub(crate) geometry: Geometry,
}

impl Inbox {
    /// Examines what a peer sent as its outbox, maps it and closes the descriptor.
    ///
    /// # Errors
    /// Says which promise the descriptor does not keep: memory, seals, size, no holes, header.
    pub fn accept(fd: OwnedFd, geometry: &Geometry) -> Result<Inbox, RegionError> {
        let (region, annex) = Region::accept_with_annex(fd, geometry.size()?, ANNEX as usize)?;
        let inbox = Inbox {
            region,
            annex,
            geometry: *geometry,
        };
        inbox.check_header()?;
        Ok(inbox)
    }

    /// Whether the first words are those of such an outbox. Asked by [`accept`](Self::accept).
    #[doc(hidden)]
    pub fn check_header(&self) -> Result<(), RegionError> {
        let header = [
            (MAGIC_AT, MAGIC),
            (VERSION_AT, VERSION),
            (GEOMETRY_AT, self.geometry.word()),
        ];
        for (at, expected) in header {
            let found = self.region.u64(at).load(Ordering::Relaxed);
            if found != expected {
                return Err(RegionError::Header {
                    at,
                    expected,
                    found,
                });
            }
        }
        Ok(())
    }

    /// How large its parts are.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// What any word says, for tests that play a hostile peer.
    #[doc(hidden)]
    pub fn word(&self, offset: usize) -> u64 {
        self.region.u64(offset).load(Ordering::Relaxed)
    }

    /// The peer's grant word `k`: Relaxed loads only, never a store (SIGSEGV). For Acquire, put a
    /// `fence(Acquire)` behind the load. Panics if `k` is not below [`GRANTS`].
    pub fn grant(&self, k: usize) -> GrantWords<'_> {
        grant_words(&self.region, k, &ZERO)
    }

    /// The peer's return word `k`; see [`Inbox::grant`] for what one may do with it.
    pub fn returned(&self, k: usize) -> &AtomicU32 {
        word_on_line(&self.region, RETURNS_AT, k, GRANTS, &ZERO)
    }
}

/// The presence page of this process: what all its peers may know of it. 64 words, a cache line each.
#[derive(Debug)]
pub struct OwnPage {
    region: Region,
    fd: OwnedFd,
}

impl OwnPage {
    /// A new one, all zero.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn create() -> io::Result<OwnPage> {
        let (region, fd) = Region::create(PAGE)?;
        Ok(OwnPage { region, fd })
    }

    /// The descriptor to send to each peer.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Word `i`, which this process writes. Panics if `i` is not below [`PRESENCE_WORDS`].
    pub fn word(&self, i: usize) -> &AtomicU32 {
        word_on_line(&self.region, 0, i, PRESENCE_WORDS, &VOID)
    }
}

/// A peer's presence page, mapped read-only.
#[derive(Debug)]
pub struct PeerPage {
    region: Region,
}

impl PeerPage {
    /// Examines what a peer sent as its presence page, maps it and closes the descriptor.
    ///
    /// # Errors
    /// Says which promise the descriptor does not keep: memory, seals, size, no holes.
    pub fn accept(fd: OwnedFd) -> Result<PeerPage, RegionError> {
        Ok(PeerPage {
            region: Region::accept(fd, PAGE)?,
        })
    }

    /// Word `i`: Relaxed loads only, never a store (SIGSEGV). Panics if `i` is not below
    /// [`PRESENCE_WORDS`].
    pub fn word(&self, i: usize) -> &AtomicU32 {
        word_on_line(&self.region, 0, i, PRESENCE_WORDS, &ZERO)
    }
}
