//! The atomics and the kernel calls this crate sleeps with, or loom's in their place.
//!
//! A thread sleeps on one word of its own process, on one that a peer changes, or on both or three. The waker changes
//! the word before it wakes, always: the kernel can lose a wake on an unchanged word. On several words a thread sleeps
//! as safely as on its own, but then the kernel takes longer to wake it.

#[cfg(not(all(test, urpc_loom)))]
pub use real::lending_works;
#[cfg(not(all(test, urpc_loom)))]
pub(crate) use real::*;

#[cfg(not(all(test, urpc_loom)))]
mod real {
    pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

    use std::num::NonZeroU32;
    use std::sync::OnceLock;
    use std::time::{Duration, Instant};

    use rustix::thread::futex::{self, Wait, WaitFlags, WaitPtr, WaitvFlags};
    use rustix::thread::{ClockId, Timespec};

    /// Wakes the threads of this process that sleep on `word`.
    pub(crate) fn wake_private(word: &AtomicU32) {
        let _ = futex::wake(word, futex::Flags::PRIVATE, i32::MAX as u32);
    }

    /// Wakes the threads of any process that sleep on `word`.
    pub(crate) fn wake_shared(word: &AtomicU32) {
        let _ = futex::wake(word, futex::Flags::empty(), i32::MAX as u32);
    }

    /// Sleeps while `word` is `expected`, until woken or `until`. May return at any time.
    pub(crate) fn sleep(word: &AtomicU32, expected: u32, until: Option<Instant>) {
        let left = match until.map(remaining) {
            None => None,
            Some(None) => return,
            Some(Some(left)) => Some(timespec(left)),
        };
        let _ = futex::wait(word, futex::Flags::PRIVATE, expected, left.as_ref());
    }

    /// Sleeps while `shared` is what was seen there, until it is woken or `until`. May return at any time, and a peer
    /// can keep it asleep until then.
    pub(crate) fn sleep_on_shared((shared, seen): (&AtomicU32, u32), until: Instant) {
        let deadline = monotonic(until);
        let flags = futex::Flags::empty();
        let _ = futex::wait_bitset(shared, flags, seen, Some(&deadline), NonZeroU32::MAX);
    }

    /// Sleeps while `own` is `expected` *and* each of `shared`, two at most, is what was seen there, until
    /// one of them is woken or `until`. May return at any time.
    pub(crate) fn sleep_on_all(
        own: &AtomicU32,
        expected: u32,
        shared: &[(&AtomicU32, u32)],
        until: Option<Instant>,
    ) {
        let deadline = until.map(monotonic);
        let private = WaitFlags::SIZE_U32 | WaitFlags::PRIVATE;
        let mut words = [entry(own, expected, private), Wait::new(), Wait::new()];
        for (word, (shared, seen)) in words[1..].iter_mut().zip(shared) {
            *word = entry(shared, *seen, WaitFlags::SIZE_U32);
        }
        let _ = futex::waitv(
            &words[..=shared.len()],
            WaitvFlags::empty(),
            deadline.as_ref(),
            ClockId::Monotonic,
        );
    }

    /// Whether this kernel lets a thread sleep on several words. Without it (before Linux 5.16, or in a
    /// sandbox that refuses it) no processor can be lent safely, and peers ring instead.
    #[must_use]
    pub fn lending_works() -> bool {
        let none = futex::waitv(&[], WaitvFlags::empty(), None, ClockId::Monotonic);
        none == Err(rustix::io::Errno::INVAL) // and not "no such system call"
    }

    fn entry(word: &AtomicU32, value: u32, flags: WaitFlags) -> Wait {
        let mut wait = Wait::new();
        wait.val = value.into();
        wait.uaddr = WaitPtr::new(std::ptr::from_ref(word).cast_mut().cast());
        wait.flags = flags;
        wait
    }

    fn remaining(until: Instant) -> Option<Duration> {
        until
            .checked_duration_since(Instant::now())
            .filter(|left| !left.is_zero())
    }

    /// The same moment for the kernel. An `Instant` is of this clock, too, but does not say what it reads; so both
    /// were read once, one after the other, and a donation need not read any.
    fn monotonic(at: Instant) -> Timespec {
        static SAME: OnceLock<(Instant, Timespec)> = OnceLock::new();
        let read = || {
            let instant = Instant::now();
            (instant, rustix::time::clock_gettime(ClockId::Monotonic))
        };
        let (instant, reading) = *SAME.get_or_init(read);
        let later = timespec(at.saturating_duration_since(instant));
        reading.checked_add(later).unwrap_or(Timespec {
            tv_sec: i64::MAX,
            tv_nsec: 0,
        })
    }

    fn timespec(d: Duration) -> Timespec {
        Timespec {
            tv_sec: d.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: d.subsec_nanos().into(),
        }
    }
}

#[cfg(all(test, urpc_loom))]
pub use modelled::lending_works;
#[cfg(all(test, urpc_loom))]
pub(crate) use modelled::*;

/// Under loom a sleep ends when one of its words is woken, and no sooner: so a wake-up that is lost, or one on a word
/// that was not changed before, shows as a deadlock. Time does not pass in a model.
#[cfg(all(test, urpc_loom))]
mod modelled {
    pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
    use loom::sync::{Condvar, Mutex};
    use std::time::Instant;

    /// Who sleeps, as the addresses of the words they sleep on.
    type Sleepers = Vec<Vec<usize>>;

    loom::lazy_static! {
        static ref KERNEL: (Mutex<Sleepers>, Condvar) = (Mutex::new(Sleepers::new()), Condvar::new());
    }

    /// Always so in a model.
    #[must_use]
    pub fn lending_works() -> bool {
        true
    }

    pub(crate) fn wake_private(word: &AtomicU32) {
        let address = std::ptr::from_ref(word).addr();
        let mut sleepers = KERNEL.0.lock().unwrap();
        sleepers.retain(|words| !words.contains(&address));
        KERNEL.1.notify_all();
    }

    pub(crate) fn wake_shared(word: &AtomicU32) {
        wake_private(word);
    }

    pub(crate) fn sleep(word: &AtomicU32, expected: u32, until: Option<Instant>) {
        sleep_on_all(word, expected, &[], until);
    }

    pub(crate) fn sleep_on_shared((shared, seen): (&AtomicU32, u32), until: Instant) {
        sleep(shared, seen, Some(until));
    }

    pub(crate) fn sleep_on_all(
        own: &AtomicU32,
        expected: u32,
        shared: &[(&AtomicU32, u32)],
        until: Option<Instant>,
    ) {
        let all = [&[(own, expected)], shared].concat();
        let mut sleepers = KERNEL.0.lock().unwrap();
        let unchanged = all
            .iter()
            .all(|(word, seen)| word.load(Ordering::Relaxed) == *seen);
        if !unchanged || until.is_some_and(|until| until <= Instant::now()) {
            return;
        }
        // Which are nobody else's: `own` is this thread's.
        let words: Vec<_> = all
            .iter()
            .map(|(word, _)| std::ptr::from_ref(*word).addr())
            .collect();
        sleepers.push(words.clone());
        while sleepers.contains(&words) {
            sleepers = KERNEL.1.wait(sleepers).unwrap();
        }
    }
}
