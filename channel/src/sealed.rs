//! Memory that a peer may be given, and may give: a memfd of the agreed size, all there but for an annex behind it, and
//! sealed so that both stays true.
//!
//! No access to such memory raises SIGBUS: it cannot shrink, and no hole can be punched into it, which takes a
//! right to write that nobody can get any more. Who has mapped it for writing before goes on writing.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{self, FallocateFlags, MemfdFlags, SealFlags, SeekFrom};
use rustix::io::Errno;

use crate::layout::BadGeometry;

/// Why a file descriptor from a peer is not a region to be trusted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegionError {
    /// Not memory of the kind that seals protect (a regular file, huge pages, a pipe, …).
    #[error("the peer's descriptor is not a memfd in ordinary memory")]
    NotMemory,
    /// Its maker could still truncate or grow it, or we could be made to write it.
    #[error("the peer's memory lacks the seals {missing:#x} of F_SEAL_*")]
    Unsealed {
        /// Bits of `F_SEAL_*`.
        missing: u32,
    },
    /// Not the agreed number of bytes.
    #[error("the peer's memory has {found} bytes instead of the agreed {expected}")]
    Size {
        /// Bytes, by the agreed geometry.
        expected: u64,
        /// Bytes, by `fstat`.
        found: u64,
    },
    /// Pages that are not there could fail to come when they are first read.
    #[error("the peer's memory is not all there: a hole at byte {at}")]
    Hole {
        /// Offset of the first one; of the end, if the block count alone is short.
        at: u64,
    },
    /// The first words are not those of an outbox of this version and geometry.
    #[error("the peer's outbox says {found:#x} at byte {at} instead of {expected:#x}")]
    Header {
        /// Offset of the word.
        at: usize,
        /// What this version writes there.
        expected: u64,
        /// What the peer wrote.
        found: u64,
    },
    /// The agreed geometry itself cannot be.
    #[error(transparent)]
    Geometry(#[from] BadGeometry),
    /// The kernel refused to look or to map.
    #[error("the peer's memory could not be examined or mapped")]
    Os(#[from] io::Error),
}

impl From<Errno> for RegionError {
    fn from(error: Errno) -> Self {
        RegionError::Os(error.into())
    }
}

const TMPFS_MAGIC: u64 = 0x0102_1994;
/// With these its size is fixed, and nobody can map it for writing any more.
const SEALS: SealFlags = SealFlags::FUTURE_WRITE
    .union(SealFlags::SHRINK)
    .union(SealFlags::GROW)
    .union(SealFlags::SEAL);

/// A memfd of `len` bytes, all zero and all there, and of an `annex` of which nothing is there, without a seal.
pub(crate) fn memfd(len: usize, annex: usize) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = fs::memfd_create(c"urpc", flags | MemfdFlags::NOEXEC_SEAL).or_else(|error| {
        // NOEXEC_SEAL came with Linux 6.3.
        if error == Errno::INVAL {
            fs::memfd_create(c"urpc", flags)
        } else {
            Err(error)
        }
    })?;
    fs::ftruncate(&fd, (len + annex) as u64)?;
    fs::fallocate(&fd, FallocateFlags::empty(), 0, len as u64)?;
    Ok(fd)
}

/// Whoever is to write it has mapped it: seals it for good.
pub(crate) fn seal(fd: impl AsFd) -> io::Result<()> {
    Ok(fs::fcntl_add_seals(fd, SEALS)?)
}

/// Whether this can be sealed, as only memory can. That is asked of no file system, which may be anybody's, and never
/// answer.
pub fn is_memory(fd: impl AsFd) -> bool {
    fs::fcntl_get_seals(fd).is_ok()
}

/// The seals of what can be sealed, which nothing else is that could be mapped: no file, no device, no huge page.
pub(crate) fn seals(fd: impl AsFd) -> Result<SealFlags, RegionError> {
    if !is_memory(&fd) || fs::fstatfs(&fd)?.f_type as u64 != TMPFS_MAGIC {
        return Err(RegionError::NotMemory);
    }
    Ok(fs::fcntl_get_seals(fd)?)
}

/// All that the module promises. True from then on, since it is sealed.
pub(crate) fn examine(fd: impl AsFd, len: usize, annex: usize) -> Result<(), RegionError> {
    let missing = SEALS.difference(seals(&fd)?);
    if !missing.is_empty() {
        return Err(RegionError::Unsealed {
            missing: missing.bits(),
        });
    }
    let stat = fs::fstat(&fd)?;
    let (expected, found) = ((len + annex) as u64, stat.st_size as u64);
    if found != expected {
        return Err(RegionError::Size { expected, found });
    }
    // Blocks can also lie beyond the end, so their number alone does not exclude holes.
    let at = fs::seek(&fd, SeekFrom::Hole(0))?;
    let there = len as u64;
    if at < there || (stat.st_blocks as u64) < there.div_ceil(512) {
        return Err(RegionError::Hole { at });
    }
    Ok(())
}
