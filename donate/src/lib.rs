//! Which address space runs on this processor: processor reallocation (§3.1 of the paper).
//!
//! A process that has nothing to do on a processor can **donate** it to a peer that has messages and no
//! processor for them. The peer's **landing**, a thread asleep until then, runs on that processor, serves
//! the donor's messages and **returns** it, or lends it onwards while what it serves waits for a third process;
//! a donor that waits too long **reclaims** it.
//!
//! This crate knows neither memory mappings nor rings nor tasks: it is handed the shared words as
//! `&AtomicU32`, and asks what it must know through closures. What it promises:
//!
//! * no wake-up is lost between a process that rests and a peer that has just sent ([`Presence`]);
//! * no grant is taken for another ([`Lender`], [`Landing`]);
//! * nothing here sleeps on a peer's goodwill alone: a sleep is timed, or watches a word of this process, too.
#![forbid(unsafe_code)]

mod backoff;
mod cpu;
mod grant;
mod landing;
mod patience;
mod peer;
pub mod policy;
mod presence;
mod seat;
mod signal;
mod streak;
mod sync;

pub use backoff::{Backoff, MOST_STRIKES};
pub use cpu::{Affinity, allowed_cpus, current_cpu};
pub use grant::{Grant, Held, Lender, Outcome, Words};
pub use landing::{Arrival, Landing};
pub use patience::Patience;
pub use peer::{Credentials, PeerProcess};
pub use presence::{Presence, View};
pub use seat::{Seat, Wake};
pub use signal::Signal;
pub use streak::Streak;
pub use sync::lending_works;

#[cfg(all(test, urpc_loom))]
mod loom_models;
