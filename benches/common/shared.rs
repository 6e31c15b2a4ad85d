//! A few words that two processes share: what the bases are measured with.
//!
//! Unsafe code of the benches is here and in `bulk.rs` only. Each word has a cache line of its own.

use std::fs::File;
use std::sync::atomic::AtomicU32;

use memmap2::MmapRaw;
use rustix::fs::MemfdFlags;

/// Bytes of a cache line, and of a message in a slot of a ring.
pub const LINE: usize = 64;
const LINES: usize = 64;
/// Words in a line.
pub const WORDS: usize = LINE / size_of::<AtomicU32>();

/// New memory of so many bytes, full of zeros, and the path by which a child can open it.
pub fn create_memfd(bytes: usize) -> (File, String) {
    let memfd = rustix::fs::memfd_create("urpc-bench", MemfdFlags::CLOEXEC).expect("a memfd");
    let file = File::from(memfd);
    file.set_len(bytes as u64).expect("room");
    let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
    let path = format!("/proc/{}/fd/{fd}", std::process::id());
    (file, path)
}

/// All of that memory.
pub fn map(file: &File) -> MmapRaw {
    MmapRaw::map_raw(file).expect("a mapping")
}

/// Shared memory of `LINES` lines.
pub struct Shared(MmapRaw);

impl Shared {
    /// New memory, full of zeros, and the path by which a child can open it.
    pub fn create() -> (Self, File, String) {
        let (file, path) = create_memfd(LINE * LINES);
        (Self(map(&file)), file, path)
    }

    /// The memory that the parent made.
    pub fn open(path: &str) -> Self {
        let file = File::options().read(true).write(true).open(path);
        Self(map(&file.expect("the parent's memfd")))
    }

    /// The first word of a line.
    pub fn line(&self, line: usize) -> &AtomicU32 {
        self.word(line, 0)
    }

    /// A word of a line.
    pub fn word(&self, line: usize, word: usize) -> &AtomicU32 {
        assert!(line < LINES && word < WORDS);
        // SAFETY: the file has `LINE * LINES` bytes, which nobody shrinks, mapped page-aligned for as
        // long as `self` lives; the assertion keeps the word in bounds, and both processes access it
        // only as this one atomic.
        unsafe {
            &*self
                .0
                .as_mut_ptr()
                .add(line * LINE + word * 4)
                .cast::<AtomicU32>()
        }
    }
}
