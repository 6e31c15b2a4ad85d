//! Waiting until something has become true of what a mutex guards.
//!
//! The waiter is in the line before it lets go of the mutex. Whoever makes the condition true holds the mutex
//! for that, so it does so before the waiter looked, or after the waiter came: no notification falls in
//! between, and none needs a fence of its own.

use std::fmt;
use std::future::poll_fn;

use super::line::{Line, Place};
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
    line: Line,
}

impl Condition {
    /// A condition nobody waits for.
    #[cfg(not(urpc_loom))]
    #[must_use]
    pub const fn new() -> Self {
        let line = Line::new();
        Self { line }
    }

    /// A condition nobody waits for.
    #[cfg(urpc_loom)]
    #[must_use]
    pub fn new() -> Self {
        let line = Line::new();
        Self { line }
    }

    /// Lets go of the mutex, waits for a notification, and takes the mutex again.
    ///
    /// # Cancellation
    /// Dropping the future stops the waiting, and the mutex stays let go of. A notification that it had
    /// received is passed on to another waiter, if there is one.
    pub async fn wait<'a, T: ?Sized>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        let mutex = guard.mutex();
        let mut guard = Some(guard);
        // Dropped from here on, it passes on what it received.
        let mut place = Place::new(&self.line);
        let at_once = poll_fn(|cx| {
            let called = place.poll(cx);
            guard = None;
            called.map(|()| mutex.try_lock())
        })
        .await;
        let guard = match at_once {
            Some(guard) => guard,
            None => mutex.lock().await,
        };
        place.done();
        guard
    }

    /// Wakes one of the waiting tasks, if there is one: each notification another task.
    pub fn notify_one(&self) {
        self.line.call_one();
    }

    /// Wakes all tasks that wait now.
    pub fn notify_all(&self) {
        self.line.call_all();
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
