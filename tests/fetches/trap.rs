//! Sees every read of a peer's memory, as the processor makes it, and changes what was read right afterwards.
//!
//! The pages are taken away; the instruction that reads them faults, gets them for one step, and traps; then the
//! words are changed through their maker's mapping, and the pages are away again. So the code under test is the one
//! that its users have, and nothing in it knows of this.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// The pages that are watched, and their maker's view of the same.
static WATCHED: AtomicUsize = AtomicUsize::new(0);
static LENGTH: AtomicUsize = AtomicUsize::new(0);
static MAKERS: AtomicUsize = AtomicUsize::new(0);
/// The reads so far: offsets, in their order.
static READS: [AtomicU64; MOST] = [const { AtomicU64::new(0) }; MOST];
static COUNT: AtomicUsize = AtomicUsize::new(0);
const MOST: usize = 1024;
/// What is read as one field: its first byte and its bytes, for an offset within it.
static FIELD: AtomicUsize = AtomicUsize::new(0);
/// The trap flag of x86.
const TRAP: i64 = 0x100;

fn protect(protection: i32) {
    let (start, length) = (WATCHED.load(Relaxed), LENGTH.load(Relaxed));
    // SAFETY: the range is a whole mapping, of which `watch` holds a borrow.
    let failed = unsafe { libc::mprotect(start as *mut _, length, protection) };
    if failed != 0 {
        std::process::abort();
    }
}

extern "C" fn on_fault(_: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel calls this with both, for the time of the call.
    let (at, context) = unsafe {
        let context = &mut *context.cast::<libc::ucontext_t>();
        ((*info).si_addr() as usize, context)
    };
    let offset = at.wrapping_sub(WATCHED.load(Relaxed));
    let count = COUNT.load(Relaxed);
    if offset >= LENGTH.load(Relaxed) || count >= MOST {
        std::process::abort();
    }
    READS[count].store(offset as u64, Relaxed);
    COUNT.store(count + 1, Relaxed);
    protect(libc::PROT_READ);
    context.uc_mcontext.gregs[libc::REG_EFL as usize] |= TRAP;
}

extern "C" fn on_step(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: as in `on_fault`.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    context.uc_mcontext.gregs[libc::REG_EFL as usize] &= !TRAP;
    let offset = READS[COUNT.load(Relaxed) - 1].load(Relaxed) as usize;
    let to = FIELD.load(Relaxed);
    // SAFETY: only `watch` stores it, from such a function.
    let field: fn(usize) -> (usize, usize) = unsafe { std::mem::transmute(to) };
    let (start, bytes) = field(offset);
    for at in start..start + bytes {
        // SAFETY: the maker's mapping is as long as the watched one, and writable.
        unsafe {
            let byte = (MAKERS.load(Relaxed) as *mut u8).add(at);
            byte.write_volatile(!byte.read_volatile());
        }
    }
    protect(libc::PROT_NONE);
}

fn install(signal: i32, handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void)) {
    // SAFETY: both handlers call nothing but `mprotect` and `abort`, which may be called at any time.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO;
        assert_eq!(libc::sigaction(signal, &action, std::ptr::null_mut()), 0);
    }
}

/// Runs `decide` while the mapping at `watched` cannot be read unseen. `field` says which bytes are one field with
/// an offset; all of them are changed after a read. Returns how often each offset was read.
pub(crate) fn watch<R>(
    (watched, makers, length): (usize, usize, usize),
    field: fn(usize) -> (usize, usize),
    decide: impl FnOnce() -> R,
) -> (R, BTreeMap<usize, usize>) {
    for (place, value) in [
        (&WATCHED, watched),
        (&MAKERS, makers),
        (&LENGTH, length),
        (&FIELD, field as usize),
        (&COUNT, 0),
    ] {
        place.store(value, Relaxed);
    }
    install(libc::SIGSEGV, on_fault);
    install(libc::SIGTRAP, on_step);
    protect(libc::PROT_NONE);
    let result = decide();
    protect(libc::PROT_READ);
    let mut reads = BTreeMap::new();
    for offset in &READS[..COUNT.load(Relaxed)] {
        *reads.entry(offset.load(Relaxed) as usize).or_default() += 1;
    }
    (result, reads)
}

/// Where the region with this inode is mapped, read-only and writable, and how long it is; without its annex.
pub(crate) fn mapped(inode: u64) -> (usize, usize, usize) {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("it is there");
    let (mut seen, mut makers, mut length) = (0, 0, 0);
    for line in maps.lines() {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let offset = u64::from_str_radix(fields[2], 16).expect("hex");
        if fields[4] != inode.to_string() || offset != 0 {
            continue;
        }
        let (start, end) = fields[0].split_once('-').expect("a range");
        let [start, end] = [start, end].map(|at| usize::from_str_radix(at, 16).expect("hex"));
        length = end - start;
        *(if fields[1].starts_with("rw") {
            &mut makers
        } else {
            &mut seen
        }) = start;
    }
    assert!(seen != 0 && makers != 0, "both are mapped");
    (seen, makers, length)
}
