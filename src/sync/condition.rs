//! Waiting until something has become true of what a mutex guards.
//!
//! The waiter listens before it lets go of the mutex. Whoever makes the condition true holds the mutex
//! for that, so it does so before the waiter looked, or after the waiter listened: no notification falls
//! in between, and none needs a fence of its own.

use std::fmt;

use super::event::{Event, listener};
use super::mutex::MutexGuard;

/// Where tasks wait for a condition on the value of a [`Mutex`](super::Mutex). As with every condition
/// variable, look at the condition again after each wait.
///
/// Change what the condition depends on while holding the mutex; notify then, or after letting go of it.
///
/// ```
/// use std::sync::Arc;
/// use urpc::sync::{Condition, Mutex};
///
/// # urpc::block_on(async {
/// let door = Arc::new((Mutex::new(false), Condition::new()));
/// let opener = Arc::clone(&door);
/// let opened = urpc::spawn(async move {
///     *opener.0.lock().await = true;
///     opener.1.notify_all();
/// });
/// let mut open = door.0.lock().await;
/// while !*open {
///     open = door.1.wait(open).await;
/// }
/// # drop(open);
/// # opened.await.unwrap();
/// # });
/// ```
pub struct Condition {
    event: Event,
}

impl Condition {
    /// A condition nobody waits for.
    #[cfg(not(urpc_loom))]
    #[must_use]
    pub const fn new() -> Self {
        let event = Event::new();
        Self { event }
    }

    /// A condition nobody waits for.
    #[cfg(urpc_loom)]
    #[must_use]
    pub fn new() -> Self {
        let event = Event::new();
        Self { event }
    }

    /// Lets go of the mutex, waits for a notification, and takes the mutex again.
    ///
    /// # Cancellation
    /// Dropping the future stops the waiting, and the mutex stays let go of. A notification that it had
    /// received is passed on to another waiter, if there is one.
    pub async fn wait<'a, T: ?Sized>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        let mutex = guard.mutex();
        listener!(self.event => listener);
        drop(guard);
        // Dropped while it waits, the listener passes on what it received.
        listener.await;
        let received = Received(self);
        let guard = mutex.lock().await;
        std::mem::forget(received);
        guard
    }

    /// Wakes one of the waiting tasks, if there is one: each notification another task.
    pub fn notify_one(&self) {
        self.event.notify_additional_relaxed(1);
    }

    /// Wakes all tasks that wait now.
    pub fn notify_all(&self) {
        self.event.notify_additional_relaxed(usize::MAX);
    }
}

/// A notification that its receiver has not acted on yet.
struct Received<'a>(&'a Condition);

impl Drop for Received<'_> {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl Default for Condition {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Condition").finish_non_exhaustive()
    }
}
