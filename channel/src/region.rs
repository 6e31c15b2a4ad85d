//! Shared memory, which as a rule only its maker can write: a sealed memfd, mapped, reached one word at a time.
//!
//! Nearly all `unsafe` of this crate is here. What always holds: a mapping has exactly the agreed size and
//! no hole, and neither side can change that (`sealed.rs`), so no access raises SIGBUS. There is never a slice or
//! struct reference into a mapping, only references to single atomics; every word has one access size. An annex is a
//! region of which nothing is there at first: it is not touched before [`Region::fill`].
//! A peer's region is mapped read-only, where Rust allows only Relaxed loads; whoever needs Acquire puts a
//! `fence(Acquire)` behind the load. Payload is copied out once, and only then looked at. Regions that both sides
//! write hold wake words only (`wakes.rs`).
//!
//! After `fork()` the child has no mappings (`MADV_DONTFORK`); a [`Birthmark`] tells it so.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use rustix::io::Errno;
use rustix::mm::{self, Advice, MapFlags, ProtFlags};

use crate::birthmark::Birthmark;
use crate::layout::{INLINE, LINE, PAYLOAD_AT};
use crate::message::Payload;
use crate::sealed::{self, RegionError};

/// What a copy by the machine moves at once. It beats a loop of words from one of these on.
const BLOCK: usize = LINE;

/// POPULATE: the pages of an allocated memfd count as holes until somebody has touched them, and the first calls should
/// not meet page faults.
const THERE: MapFlags = MapFlags::SHARED.union(MapFlags::POPULATE);
const BOTH: ProtFlags = ProtFlags::READ.union(ProtFlags::WRITE);

/// A mapping of a memfd, or of its annex.
#[derive(Debug)]
pub(crate) struct Region {
    base: NonNull<u8>,
    len: usize,
    born: Birthmark,
}

// SAFETY: `base` is a mapping of ours until `drop`; everything behind it is reached through atomics, or
// through copies into blocks that the protocol gives to one thread at a time.
unsafe impl Send for Region {}
// SAFETY: as for `Send`.
unsafe impl Sync for Region {}

impl Region {
    /// Makes a region of `len` bytes, all zero, all there, writable for this mapping alone. The descriptor
    /// is for the peer.
    pub(crate) fn create(len: usize) -> io::Result<(Region, OwnedFd)> {
        let (region, fd) = Region::create_open(len)?;
        sealed::seal(&fd)?;
        Ok((region, fd))
    }

    /// The same with an annex of `annex` bytes.
    pub(crate) fn create_with_annex(
        len: usize,
        annex: usize,
    ) -> io::Result<(Region, Region, OwnedFd)> {
        let fd = sealed::memfd(len, annex)?;
        let (region, annex) = Region::map_both(&fd, len, annex, BOTH)?;
        sealed::seal(&fd)?;
        Ok((region, annex, fd))
    }

    /// Maps what a peer made, read-only, if it is what [`Region::create`] makes. Closes the descriptor.
    pub(crate) fn accept(fd: OwnedFd, len: usize) -> Result<Region, RegionError> {
        sealed::examine(&fd, len, 0)?;
        Ok(Region::map(&fd, 0, len, ProtFlags::READ, THERE)?)
    }

    /// The same for what [`Region::create_with_annex`] makes.
    pub(crate) fn accept_with_annex(
        fd: OwnedFd,
        len: usize,
        annex: usize,
    ) -> Result<(Region, Region), RegionError> {
        sealed::examine(&fd, len, annex)?;
        Ok(Region::map_both(&fd, len, annex, ProtFlags::READ)?)
    }

    /// Makes a region as [`Region::create`] does, but leaves it to the peer to seal it, so that the peer can
    /// map it for writing as well.
    pub(crate) fn create_open(len: usize) -> io::Result<(Region, OwnedFd)> {
        let fd = sealed::memfd(len, 0)?;
        let region = Region::map(&fd, 0, len, BOTH, THERE)?;
        Ok((region, fd))
    }

    /// Maps what a peer made with [`Region::create_open`], for writing, and seals it. Closes the descriptor.
    pub(crate) fn accept_open(fd: OwnedFd, len: usize) -> Result<Region, RegionError> {
        sealed::seals(&fd)?; // so it may be mapped
        let region = Region::map(&fd, 0, len, BOTH, THERE)?;
        // What cannot be sealed is named by the look that follows. Before, the peer could have changed it behind
        // the look.
        let _ = sealed::seal(&fd);
        sealed::examine(&fd, len, 0)?;
        Ok(region)
    }

    fn map_both(
        fd: &OwnedFd,
        len: usize,
        annex: usize,
        prot: ProtFlags,
    ) -> io::Result<(Region, Region)> {
        let region = Region::map(fd, 0, len, prot, THERE)?;
        let annex = Region::map(fd, len, annex, prot, MapFlags::SHARED)?;
        Ok((region, annex))
    }

    /// Maps `len` bytes from `offset` on.
    fn map(
        fd: impl AsFd,
        offset: usize,
        len: usize,
        prot: ProtFlags,
        flags: MapFlags,
    ) -> io::Result<Region> {
        let born = Birthmark::take()?;
        // SAFETY: the kernel chooses the place, so no memory of ours is replaced.
        let base = unsafe { mm::mmap(std::ptr::null_mut(), len, prot, flags, fd, offset as u64) }?;
        let base = NonNull::new(base.cast()).ok_or(Errno::NOMEM)?;
        let region = Region { base, len, born };
        assert!(
            len >= LINE,
            "a region of {len} bytes has no room for a line"
        );
        // SAFETY: the range is the mapping just made; only children lose it.
        unsafe { mm::madvise(base.as_ptr().cast(), len, Advice::LinuxDontFork) }?;
        Ok(region)
    }

    /// Sees to it that all of an annex is there, for good: so that it can be read or, if it is ours, written. False if
    /// the system cannot do that, or has no memory.
    pub(crate) fn fill(&self, to_write: bool) -> bool {
        let advice = if to_write {
            Advice::LinuxPopulateWrite
        } else {
            Advice::LinuxPopulateRead
        };
        // SAFETY: the range is our mapping, of which no byte changes.
        let fill = || unsafe { mm::madvise(self.base.as_ptr().cast(), self.len, advice) };
        !self.forked() && fill().is_ok()
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether this process is a child of the one that mapped it, and so has no mapping here.
    #[inline(always)]
    pub(crate) fn forked(&self) -> bool {
        self.born.forked()
    }

    /// The start of `len` bytes at `offset`. Panics beyond the end, before anything is touched.
    #[inline(always)]
    fn at(&self, offset: usize, len: usize) -> NonNull<u8> {
        // `map` has seen to it that a line fits, so for a word the first half folds away.
        if len > LINE && len > self.len || offset > self.len - len {
            outside(offset, len, self.len);
        }
        // SAFETY: the mapping has `self.len` bytes, and the check leaves `offset` within it.
        unsafe { self.base.add(offset) }
    }

    /// The line at `offset`, a multiple of 64.
    #[inline(always)]
    pub(crate) fn line(&self, offset: usize) -> Line<'_> {
        debug_assert!(offset.is_multiple_of(LINE));
        Line {
            start: self.at(offset, LINE),
            _of: PhantomData,
        }
    }

    /// The word at `offset`, a multiple of 8 that `layout` gives this size. A peer's: Relaxed loads only.
    #[inline(always)]
    pub(crate) fn u64(&self, offset: usize) -> &AtomicU64 {
        debug_assert!(offset.is_multiple_of(8));
        // SAFETY: `at` keeps it within the mapping, which lives as long as `self` and begins at a page, so
        // that the word is aligned; other processes reach it by atomic accesses of 8 bytes, or spoil
        // only the number they wanted to tell us.
        unsafe { self.at(offset, 8).cast().as_ref() }
    }

    /// The word at `offset`, a multiple of 4 that `layout` gives this size. A peer's: Relaxed loads only.
    #[inline(always)]
    pub(crate) fn u32(&self, offset: usize) -> &AtomicU32 {
        debug_assert!(offset.is_multiple_of(4));
        // SAFETY: as in `u64`, with 4 bytes.
        unsafe { self.at(offset, 4).cast().as_ref() }
    }

    /// Copies `bytes` to `offset`, a multiple of 64, of a region of our own; `past_caches`, if the peer is to find
    /// them in memory. The block is rounded up to whole words.
    pub(crate) fn copy_in(&self, offset: usize, bytes: &[u8], past_caches: bool) {
        debug_assert!(offset.is_multiple_of(LINE));
        #[cfg(target_arch = "x86_64")]
        if bytes.len() >= BLOCK {
            let len = bytes.len();
            let (from, to) = (bytes.as_ptr(), self.at(offset, len).as_ptr());
            // SAFETY: `at` keeps the target within our writable mapping, where it begins at a line; no Rust reference
            // to it exists, and it is private memory that we read. Both have a block before their end.
            unsafe {
                bulk_copy(from, to, len - len % BLOCK, past_caches);
                if !len.is_multiple_of(BLOCK) {
                    let last = len - BLOCK;
                    bulk_copy(from.add(last), to.add(last), BLOCK, false);
                }
            }
            return;
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = past_caches;
        for (i, eight) in bytes.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..eight.len()].copy_from_slice(eight);
            self.u64(offset + 8 * i)
                .store(u64::from_ne_bytes(word), Ordering::Relaxed);
        }
    }

    /// Appends the `len` bytes at `offset`, a multiple of 64, to `out`. The line in which they end is read to its end.
    pub(crate) fn copy_out(&self, offset: usize, len: usize, out: &mut Vec<u8>) {
        debug_assert!(offset.is_multiple_of(LINE));
        #[cfg(target_arch = "x86_64")]
        if len >= BLOCK {
            let (whole, rest) = (len - len % BLOCK, len % BLOCK);
            out.reserve(len);
            let (from, old) = (self.at(offset, len.next_multiple_of(BLOCK)), out.len());
            let mut last = [0; BLOCK];
            // SAFETY: `at` keeps the source within the mapping, `reserve` has made room behind the vector's
            // bytes for the target, and the copy initialises all that `set_len` adds. The peer may write
            // meanwhile: the copy is done by the machine, not by Rust, and gives some bytes or others.
            unsafe {
                bulk_copy(from.as_ptr(), out.as_mut_ptr().add(old), whole, false);
                out.set_len(old + whole);
                if rest != 0 {
                    bulk_copy(from.add(whole).as_ptr(), last.as_mut_ptr(), BLOCK, false);
                }
            }
            out.extend_from_slice(&last[..rest]);
            return;
        }
        let end = out.len() + len;
        for i in 0..len.div_ceil(8) {
            let word = self
                .u64(offset + 8 * i)
                .load(Ordering::Relaxed)
                .to_ne_bytes();
            out.extend_from_slice(&word[..(end - out.len()).min(8)]);
        }
    }

    /// Asks for the line at `offset` before it is needed; `write`: alone.
    #[inline(always)]
    pub(crate) fn prefetch(&self, offset: usize, write: bool) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let line = self.base.as_ptr().wrapping_add(offset);
            if write {
                // SAFETY: a prefetch changes nothing, wherever it points; processors that do not know this
                // one ignore it.
                unsafe {
                    std::arch::asm!("prefetchw [{}]", in(reg) line,
                        options(nostack, preserves_flags, readonly));
                }
            } else {
                // SAFETY: every x86_64 has SSE, and a prefetch changes nothing, wherever it points.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) };
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (offset, write);
    }
}

/// One line of a region: a slot of a ring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line<'a> {
    /// Of `LINE` bytes within the mapping of `_of`.
    start: NonNull<u8>,
    _of: PhantomData<&'a Region>,
}

impl Line<'_> {
    /// Word `N`. A peer's: Relaxed loads only.
    #[inline(always)]
    pub(crate) fn word_at<const N: usize>(&self) -> &AtomicU64 {
        const { assert!(N < LINE / 8) };
        // SAFETY: as in `Region::u64`: `line` has checked that all of it is within the mapping, which outlives
        // the borrow, and begins at a multiple of 64.
        unsafe { self.start.cast::<AtomicU64>().add(N).as_ref() }
    }

    /// Copies the payload of the slot out. Its header has been looked at before, and decides whether this means
    /// anything.
    #[inline(always)]
    pub(crate) fn load_payload(&self, to: &mut Payload) {
        // SAFETY: `line` has checked the source, and the target is ours.
        unsafe { copy_payload(self.start.add(PAYLOAD_AT).as_ptr(), to.0.as_mut_ptr()) };
    }

    /// Stores the payload of the slot, in a region of our own: word by word, as it was encoded, since a wider load
    /// would have to wait for the stores before it.
    #[inline(always)]
    pub(crate) fn store_payload(&self, payload: &Payload) {
        const { assert!(INLINE == 48 && PAYLOAD_AT == 16) };
        let [a, b, c, d, e, f] = payload.words();
        self.word_at::<2>().store(a, Ordering::Relaxed);
        self.word_at::<3>().store(b, Ordering::Relaxed);
        self.word_at::<4>().store(c, Ordering::Relaxed);
        self.word_at::<5>().store(d, Ordering::Relaxed);
        self.word_at::<6>().store(e, Ordering::Relaxed);
        self.word_at::<7>().store(f, Ordering::Relaxed);
    }
}

/// Takes its numbers by value, so that the callers need not have them in memory.
#[cold]
#[inline(never)]
fn outside(offset: usize, len: usize, size: usize) -> ! {
    panic!("{len} bytes at {offset} of {size}")
}

impl Drop for Region {
    fn drop(&mut self) {
        if !self.forked() {
            // SAFETY: the mapping is ours and whole, and every reference into it borrowed `self`. In a
            // child something else may lie there by now, so there it is left alone.
            let unmapped = unsafe { mm::munmap(self.base.as_ptr().cast(), self.len) };
            debug_assert!(unmapped.is_ok(), "{unmapped:?}");
        }
    }
}

/// Copies the payload of a slot out of shared memory: three loads and three stores, done by the machine, not by
/// Rust. Should the peer write meanwhile, some bytes or others are copied.
///
/// # Safety
/// `from` is readable and `to` writable for `INLINE` bytes, and they do not overlap.
#[inline(always)]
unsafe fn copy_payload(from: *const u8, to: *mut u8) {
    const { assert!(INLINE == 48) };
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller vouches for both ranges; every x86_64 has these registers.
    unsafe {
        std::arch::asm!(
            "movups {a}, [{from}]",
            "movups {b}, [{from} + 16]",
            "movups {c}, [{from} + 32]",
            "movups [{to}], {a}",
            "movups [{to} + 16], {b}",
            "movups [{to} + 32], {c}",
            from = in(reg) from, to = in(reg) to,
            a = out(xmm_reg) _, b = out(xmm_reg) _, c = out(xmm_reg) _,
            options(nostack, preserves_flags));
    }
    #[cfg(not(target_arch = "x86_64"))]
    for i in 0..INLINE / 8 {
        // SAFETY: the caller vouches for both ranges, of which one is shared words and the other ours, and
        // both are aligned to 8.
        unsafe {
            let word = (*from.cast::<AtomicU64>().add(i)).load(Ordering::Relaxed);
            (*to.cast::<AtomicU64>().add(i)).store(word, Ordering::Relaxed);
        }
    }
}

/// Copies whole blocks; `$store` writes half a block.
#[cfg(target_arch = "x86_64")]
macro_rules! copy_blocks {
    ($from:ident, $to:ident, $bytes:expr, $store:literal) => {
        std::arch::asm!(
            "2:",
            "vmovups ymm0, [{from}]",
            "vmovups ymm1, [{from} + 32]",
            concat!($store, " [{to}], ymm0"),
            concat!($store, " [{to} + 32], ymm1"),
            "add {from}, 64",
            "add {to}, 64",
            "sub {left}, 64",
            "jne 2b",
            "vzeroupper",
            from = inout(reg) $from => _, to = inout(reg) $to => _, left = inout(reg) $bytes => _,
            // `vzeroupper` is for all of them.
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _,
            out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
            out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
            options(nostack))
    };
}

/// Copies `len` bytes, whole blocks, as fast as the machine can. Each is read once. `past_caches`: no line is left in
/// ours.
///
/// # Safety
/// `from` is readable and `to` writable for `len` bytes, a multiple of `BLOCK` and not 0, and they do not overlap. If
/// they go past the caches, `to` is a multiple of 64.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn bulk_copy(from: *const u8, to: *mut u8, len: usize, past_caches: bool) {
    debug_assert!(len > 0 && len.is_multiple_of(BLOCK));
    if !std::arch::is_x86_feature_detected!("avx") {
        // SAFETY: the caller vouches for both ranges; the direction flag is clear by the calling convention. Later
        // stores, such as a slot's header, are not seen before those of a string copy.
        unsafe {
            std::arch::asm!("rep movsb", inout("rcx") len => _, inout("rsi") from => _,
                inout("rdi") to => _, options(nostack, preserves_flags));
        }
        return;
    }
    // SAFETY: the caller vouches for the ranges and the alignment, and the processor has these instructions. Stores past
    // the caches are ordered by the fence.
    unsafe {
        if past_caches {
            copy_blocks!(from, to, len, "vmovntps");
            std::arch::x86_64::_mm_sfence();
        } else {
            copy_blocks!(from, to, len, "vmovups");
        }
    }
}

#[cfg(all(test, not(urpc_loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out_at_every_length_and_disturbs_no_neighbour() {
        let (own, fd) = Region::create(3 * 4096).expect("a memfd");
        let peer = Region::accept(fd, 3 * 4096).expect("our own region");
        for len in (0..300_usize).chain([4000, 4096]) {
            let bytes: Vec<u8> = (0..len).map(|i| (i * 7 + len) as u8).collect();
            let end = (64 + len).next_multiple_of(8);
            own.u64(56).store(1, Ordering::Relaxed);
            own.u64(end).store(2, Ordering::Relaxed);
            own.copy_in(64, &bytes, len.is_multiple_of(2));
            let mut out = vec![9];
            peer.copy_out(64, len, &mut out);
            assert_eq!((out[0], &out[1..]), (9, &bytes[..]), "{len} bytes");
            let around = (
                peer.u64(56).load(Ordering::Relaxed),
                peer.u64(end).load(Ordering::Relaxed),
            );
            assert_eq!(around, (1, 2), "{len} bytes");
        }
    }

    #[test]
    #[should_panic(expected = "8 bytes at 4096 of 4096")]
    fn a_word_beyond_the_end_is_a_panic_and_no_access() {
        let (own, _fd) = Region::create(4096).expect("a memfd");
        own.u64(4096);
    }
}
