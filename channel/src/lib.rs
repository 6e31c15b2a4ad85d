//! Pair-wise shared memory between two processes: the data transfer of urpc (Bershad et al. 1991, §3.2).
//!
//! Two address spaces that trust one another with nothing but messages share two *outboxes*, each written
//! by one process and mapped read-only by the other. A [`Channel`] moves whole [`Message`]s through them:
//! small ones in one cache line, large ones in pieces, neither with a system call. This crate knows nothing
//! of tasks, processors or sockets; who sleeps and who is woken is decided elsewhere, by what
//! [`Channel::unread_by_peer`] and [`Channel::peer_blocked`] tell.
//!
//! - `layout`: every byte a peer sees.
//! - `sealed`: memory that a peer may be given. `region`: such memory, mapped, and nearly all `unsafe`.
//! - `outbox`: the regions by name. `wakes`: the one page that both write, of words that only wake.
//! - `ring`, `arena`: where messages lie. `frame`: what a slot claims, checked.
//! - `outgoing`, `incoming`: the two ends, each behind a lock that never waits (`end`, R6).
//! - `window`: how many bytes may be under way. `fate`, `violation`: how a channel ends.
//! - `channel`: all of it together.

mod arena;
mod birthmark;
mod buffers;
mod channel;
mod end;
mod fate;
mod frame;
#[cfg(any(fuzzing, all(test, not(urpc_loom))))]
#[doc(hidden)]
pub mod fuzzing;
mod incoming;
pub mod layout;
#[cfg(all(test, urpc_loom))]
mod loom_models;
mod message;
mod outbox;
mod outgoing;
#[cfg(all(test, not(urpc_loom)))]
mod plain;
mod region;
mod ring;
mod sealed;
mod sync;
mod violation;
mod wakes;
mod window;

pub use birthmark::{Birthmark, forked};
pub use buffers::{keep_buffer, let_go_of_buffers, take_buffer};
pub use channel::{Channel, Glance, Limits, SendError, Standing, Why};
pub use fate::Closed;
pub use layout::{ANNEX, BadGeometry, Geometry, INLINE};
pub use message::{Arrived, Body, Head, Inline, Kind, Large, Message, Sink};
pub use outbox::{GrantWords, Inbox, Outbox, OwnPage, PeerPage};
pub use outgoing::Sent;
pub use sealed::{RegionError, is_memory};
pub use violation::Violation;
pub use wakes::{UnsealedWakePage, WakePage, WakeWords};
