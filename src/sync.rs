//! Locks for tasks (§3.3): a task that has to wait gives its processor to another task.
//!
//! Nothing here spins and nothing blocks a thread, so a lock may be held across an `await`. These locks
//! are for the tasks of one process, whichever runtime they belong to; no word of them is in shared
//! memory, so no peer can hold one.
//!
//! ```
//! use std::sync::Arc;
//! use urpc::sync::{Condition, Mutex};
//!
//! # urpc::block_on(async {
//! let shelf = Arc::new((Mutex::new(Vec::new()), Condition::new()));
//! let producer = urpc::spawn({
//!     let shelf = Arc::clone(&shelf);
//!     async move {
//!         shelf.0.lock().await.push("a message");
//!         shelf.1.notify_one();
//!     }
//! });
//! let (mutex, filled) = &*shelf;
//! let mut messages = mutex.lock().await;
//! while messages.is_empty() {
//!     messages = filled.wait(messages).await;
//! }
//! assert_eq!(messages.pop(), Some("a message"));
//! # drop(messages);
//! # producer.await.unwrap();
//! # });
//! ```

mod condition;
mod event;
mod gate;
mod line;
mod mutex;
mod spot;
#[cfg(all(test, not(urpc_loom)))]
mod tests;

pub use condition::Condition;
pub use mutex::{Mutex, MutexGuard};
