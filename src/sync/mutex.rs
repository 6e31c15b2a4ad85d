//! A mutex for tasks. The unsafe code of this module is here: access to the value, by who holds the gate.

use std::cell::UnsafeCell;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use super::gate::Gate;

/// A value that one task at a time may touch. Tasks get it in the order in which they came.
///
/// Locking and unlocking cost one locked instruction each if nobody waits. It does not keep the memory of
/// a panic: what a panicking holder left is what the next one finds.
///
/// ```
/// # urpc::block_on(async {
/// let sum = urpc::sync::Mutex::new(2);
/// *sum.lock().await += 3;
/// assert_eq!(sum.into_inner(), 5);
/// # });
/// ```
pub struct Mutex<T: ?Sized> {
    gate: Gate,
    value: UnsafeCell<T>,
}

// SAFETY: a shared reference gives access to the value only through a guard, and there is one guard at a
// time; so it moves between threads, as `T: Send` allows, and is never shared by two.
unsafe impl<T: ?Sized + Send> Sync for Mutex<T> {}

impl<T> Mutex<T> {
    /// A free mutex with `value`.
    #[cfg(not(urpc_loom))]
    #[must_use]
    pub const fn new(value: T) -> Self {
        Self {
            gate: Gate::new(),
            value: UnsafeCell::new(value),
        }
    }

    /// A free mutex with `value`.
    #[cfg(urpc_loom)]
    #[must_use]
    pub fn new(value: T) -> Self {
        Self {
            gate: Gate::new(),
            value: UnsafeCell::new(value),
        }
    }

    /// The value, without its mutex.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Waits until it is this task's turn. The value is free again when the guard is dropped.
    ///
    /// # Cancellation
    /// Dropping the future gives up its place in the queue.
    #[inline]
    pub async fn lock(&self) -> MutexGuard<'_, T> {
        if let Some(guard) = self.try_lock() {
            return guard;
        }
        self.gate.wait().await;
        self.guard()
    }

    /// The value, if it is free and no task waits for it.
    #[inline]
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.gate.try_enter().then(|| self.guard())
    }

    /// The value, which nobody else can reach now.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    /// For who has just entered the gate.
    #[inline]
    fn guard(&self) -> MutexGuard<'_, T> {
        MutexGuard {
            mutex: self,
            _like: PhantomData,
        }
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> From<T> for Mutex<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Mutex");
        match self.try_lock() {
            Some(value) => shown.field("value", &&*value).finish(),
            None => shown.finish_non_exhaustive(),
        }
    }
}

/// The value of a [`Mutex`], for as long as this lives. It may be held across an `await`.
#[must_use = "the mutex is free again once the guard is dropped"]
pub struct MutexGuard<'a, T: ?Sized> {
    mutex: &'a Mutex<T>,
    /// To other threads it is like this reference: `Send` if `T` is, `Sync` if `T` is.
    _like: PhantomData<&'a mut T>,
}

impl<'a, T: ?Sized> MutexGuard<'a, T> {
    pub(super) fn mutex(&self) -> &'a Mutex<T> {
        self.mutex
    }
}

impl<T: ?Sized> Drop for MutexGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.mutex.gate.leave();
    }
}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: a guard is made by who entered the gate, and leaves it when dropped: it is the only one,
        // and the reference cannot outlive it.
        unsafe { &*self.mutex.value.get() }
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the only guard, as in `deref`, and it is borrowed mutably.
        unsafe { &mut *self.mutex.value.get() }
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Display> fmt::Display for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
