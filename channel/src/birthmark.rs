//! Telling a process from its forked children, which have no part in its channels.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::mm::{self, Advice, MapFlags, ProtFlags};

use crate::layout::PAGE;

/// The process in which something was made, as opposed to its forked children.
///
/// Costs one relaxed load to check. It lives in a page that the kernel wipes in a child
/// (`MADV_WIPEONFORK`), so neither a process id can be reused nor a fork go unseen.
///
/// ```
/// let born = urpc_channel::Birthmark::take()?;
/// assert!(!born.forked());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Birthmark {
    page: &'static AtomicU32,
    mark: u32,
}

static PAGE_OF_BIRTH: OnceLock<&'static AtomicU32> = OnceLock::new();
/// The last mark given. An ordinary static: a child goes on counting where its parent was.
static LAST_MARK: AtomicU32 = AtomicU32::new(0);

impl Birthmark {
    /// The mark of this process; a child that takes one becomes a process in its own right.
    ///
    /// # Errors
    /// No memory for the page, or a kernel before 4.14.
    pub fn take() -> io::Result<Birthmark> {
        let page = match PAGE_OF_BIRTH.get() {
            Some(page) => page,
            None => {
                let page = wiped_on_fork()?;
                // Whoever comes second leaves a page of memory behind, once in a process's life.
                PAGE_OF_BIRTH.get_or_init(|| page)
            }
        };
        // Relaxed: the mark means nothing but itself, and a fork is not concurrent to what a thread of the
        // child does.
        let mut mark = page.load(Ordering::Relaxed);
        if mark == 0 {
            let fresh = LAST_MARK
                .fetch_add(1, Ordering::Relaxed)
                .wrapping_add(1)
                .max(1);
            let first = page.compare_exchange(0, fresh, Ordering::Relaxed, Ordering::Relaxed);
            mark = first.err().unwrap_or(fresh);
        }
        Ok(Birthmark { page, mark })
    }

    /// Whether this is another process than the one that took the mark.
    #[inline(always)]
    pub fn forked(&self) -> bool {
        self.page.load(Ordering::Relaxed) != self.mark
    }
}

/// Whether this process is the child of one that used this crate, and has not used it itself.
pub fn forked() -> bool {
    PAGE_OF_BIRTH
        .get()
        .is_some_and(|page| page.load(Ordering::Relaxed) == 0)
}

fn wiped_on_fork() -> io::Result<&'static AtomicU32> {
    let len = PAGE; // the kernel rounds up where pages are larger
    let prot = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: the kernel chooses the place, so no memory of ours is replaced.
    let page = unsafe { mm::mmap_anonymous(std::ptr::null_mut(), len, prot, MapFlags::PRIVATE) }?;
    // SAFETY: the range is the mapping just made, and holds nothing yet.
    if let Err(error) = unsafe { mm::madvise(page, len, Advice::LinuxWipeOnFork) } {
        // SAFETY: as above; nobody else knows of it.
        unsafe { mm::munmap(page, len) }?;
        return Err(error.into());
    }
    // SAFETY: the page is never unmapped, begins with a zeroed, aligned word, and is reached only through
    // this reference.
    Ok(unsafe { &*page.cast::<AtomicU32>() })
}
