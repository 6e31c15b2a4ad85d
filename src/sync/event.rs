//! What a waiting task listens to: event-listener, or under loom a stand-in of the same meaning, since
//! loom cannot look into a crate that was not built for it.

#[cfg(not(urpc_loom))]
pub(super) use event_listener::{Event, listener};

#[cfg(urpc_loom)]
pub(super) use modelled::{Event, listener};

#[cfg(urpc_loom)]
mod modelled {
    use std::collections::VecDeque;
    use std::future::Future;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use loom::sync::{Arc, Mutex};

    /// Listeners in order; `true` once notified. Wakers are not modelled: a task under loom is polled
    /// again and again, so a lost notification is a task that never goes on.
    pub(crate) struct Event(Mutex<VecDeque<Arc<Mutex<bool>>>>);

    impl Event {
        pub(crate) fn new() -> Self {
            Self(Mutex::new(VecDeque::new()))
        }

        pub(crate) fn listen(&self) -> Listener<'_> {
            let entry = Arc::new(Mutex::new(false));
            self.0.lock().unwrap().push_back(Arc::clone(&entry));
            Listener { event: self, entry }
        }

        /// Sees to it that `n` listeners are notified.
        pub(crate) fn notify(&self, n: usize) {
            let list = self.0.lock().unwrap();
            for entry in list.iter().take(n) {
                *entry.lock().unwrap() = true;
            }
        }

        /// Notifies `n` more listeners.
        pub(crate) fn notify_additional_relaxed(&self, n: usize) {
            let list = self.0.lock().unwrap();
            let silent = list.iter().filter(|entry| !*entry.lock().unwrap());
            for entry in silent.take(n) {
                *entry.lock().unwrap() = true;
            }
        }
    }

    pub(crate) struct Listener<'a> {
        event: &'a Event,
        entry: Arc<Mutex<bool>>,
    }

    impl Listener<'_> {
        /// Leaves the list. True if it was notified.
        fn leave(&self) -> bool {
            let mut list = self.event.0.lock().unwrap();
            list.retain(|entry| !Arc::ptr_eq(entry, &self.entry));
            std::mem::take(&mut *self.entry.lock().unwrap())
        }
    }

    impl Future for Listener<'_> {
        type Output = ();

        fn poll(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<()> {
            if !*self.entry.lock().unwrap() {
                return Poll::Pending;
            }
            self.leave();
            Poll::Ready(())
        }
    }

    /// As the real one does, a listener that goes away notified passes that on.
    impl Drop for Listener<'_> {
        fn drop(&mut self) {
            if self.leave() {
                self.event.notify_additional_relaxed(1);
            }
        }
    }

    macro_rules! listener {
        ($event:expr => $name:ident) => {
            let $name = $event.listen();
        };
    }
    pub(crate) use listener;
}
