//! User-level remote procedure call: calls between processes through shared memory, without the kernel.
//!
//! A call is an `async fn` of another process. Its message goes through memory that both map; while the
//! caller waits, its processor runs other tasks; when it has none left, it is lent to the server that has
//! messages and no processor for them (Bershad, Anderson, Lazowska and Levy, ACM TOCS 9(2), 1991).
//!
//! ```
//! use std::time::Duration;
//!
//! /// Both processes are built from this trait.
//! #[urpc::service]
//! trait Calc {
//!     async fn add(&self, a: i64, b: i64) -> i64;
//!     async fn div(&self, a: i64, b: i64) -> Result<i64, String>;
//! }
//!
//! struct Sums;
//!
//! impl Calc for Sums {
//!     async fn add(&self, a: i64, b: i64) -> i64 {
//!         a + b
//!     }
//!     async fn div(&self, a: i64, b: i64) -> Result<i64, String> {
//!         a.checked_div(b).ok_or_else(|| format!("{a} / {b} is no number"))
//!     }
//! }
//!
//! #[urpc::main]
//! async fn main() -> urpc::Result<()> {
//! #   let dir = std::env::temp_dir().join(format!("urpc-tour-{}", std::process::id()));
//! #   std::fs::create_dir_all(&dir)?;
//! #   let calc = dir.join("calc.sock"); let calc = calc.to_str().unwrap();
//!     // The server, here in the same process; usually `server.run().await` in one of its own.
//! #   let server = urpc::serve(calc)
//! #       .method("mul", |(a, b): (i64, i64)| async move { a * b })
//! #       .add(CalcServer::new(Sums))
//! #       .bind()?;
//! #   #[cfg(any())]
//!     let server = urpc::serve("calc")
//!         .method("mul", |(a, b): (i64, i64)| async move { a * b })
//!         .add(CalcServer::new(Sums))
//!         .bind()?; // listening from here on
//!
//!     // A client.
//! #   let calc = CalcClient::connect(calc).await?;
//! #   #[cfg(any())]
//!     let calc = CalcClient::connect("calc").await?;
//!     let sum = urpc::spawn(calc.add(2, 3)); // runs while this task goes on
//!     let none = calc.div(1, 0).timeout(Duration::from_millis(50)).await?;
//!     assert_eq!(none, Err("1 / 0 is no number".to_owned()));
//!     assert_eq!(sum.await??, 5);
//!
//!     // The same channel, without the trait.
//!     let six: i64 = urpc::call(calc.peer(), "mul", (2i64, 3i64)).await?;
//!     assert_eq!(six, 6);
//!
//!     server.shutdown(Duration::from_secs(1)).await?;
//! #   std::fs::remove_dir(&dir)?;
//!     Ok(())
//! }
//! ```
//!
//! # Where to look
//! - **What can be called**: [`service`] makes a trait callable; [`ServerBuilder::method`] offers a single
//!   closure. [`serve`] and [`serve_fd`] publish them, [`caller`] tells a handler who calls.
//! - **Calling**: [`connect`] and [`connect_fd`] give a [`Peer`]; a client of a service, [`call`] and
//!   [`Procedure`] make [`Call`]s, which are lazy futures. Dropping one cancels it.
//! - **Failing**: a [`CallError`] says first of all whether the procedure can have run ([`Executed`]).
//! - **Processors**: a [`Runtime`] has as many as it is told; the default is one, and none is allowed. Most
//!   programs need only [`main`](macro@main) and [`spawn`]. The order of ready tasks can be replaced
//!   ([`Builder::discipline`]). Work that blocks goes to [`unblock`], waiting
//!   to [`time`] and [`sync`]. A client works under any executor: the default runtime starts by itself.
//! - **Who gets a processor**: [`policy`] is §3.1 of the paper as a function of what a worker sees, and can
//!   be replaced.
//! - **What peers may make this process hold**: [`Builder::max_clients`] and those beside it.
//! - **What it did**: [`stats`] and [`Peer::stats`] count calls, processors lent and kernel crossings. With
//!   the feature `trace`, `urpc::trace` records each of these with its time.
//!
//! # Caveats
//! - Signatures are compared as text. The fields inside your own types are no part of it.
//! - Values cross in a format that does not describe itself: serde's `untagged`, `tag`, `flatten` and
//!   `skip_serializing_if` cannot cross, and many bytes are fast only as `serde_bytes` ([`service`] says more).
//! - A handler that blocks its thread keeps the processor it runs on: its own, or its caller's.
//! - Calls that wait for calls, nested deeper than one side may have outstanding ([`Builder::max_calls`]), end
//!   at their deadline.
//! - A channel checks what a peer says through it. It does not keep a process of the same user from
//!   debugging this one; [`Builder::undumpable`] does.
//! - Linux 5.16 or newer.

mod allow;
mod bell;
mod bind;
mod binding;
mod burst;
mod call;
mod caller;
mod cell;
mod connect;
mod discipline;
mod entry;
mod error;
#[cfg(any(fuzzing, all(test, not(urpc_loom))))]
#[doc(hidden)]
pub mod fuzzing;
mod idle;
mod keeper;
mod landing;
mod limits;
mod linger;
mod names;
mod node;
mod note;
mod offered;
mod peer;
mod pending;
mod quota;
mod runtime;
mod serve;
mod service;
mod serving;
mod spare;
mod stats;
mod stub;
pub mod sync;
mod table;
pub mod time;
#[cfg(feature = "trace")]
pub mod trace;
mod wire;
mod woken;

pub use call::{Call, call};
pub use caller::{Caller, caller};
pub use connect::{Connect, connect, connect_fd};
pub use error::{CallError, CallErrorKind, Error, ErrorKind, Executed, Result};
pub use peer::{Peer, Procedure};
pub use runtime::{Builder, Runtime, block_on, spawn, spawn_eager, spawn_with, stats, unblock};
pub use serve::{Server, ServerBuilder, serve, serve_fd};
pub use service::Service;
pub use stats::Stats;
pub use urpc_donate::{Credentials, policy};
pub use urpc_executor::{Discipline, Fifo, Lifo, Priorities, Ready};
pub use urpc_executor::{JoinError, JoinHandle, YieldNow, yield_now};
pub use urpc_macros::{main, service, test};

/// What the macros expand to. Not for use by hand.
#[doc(hidden)]
pub mod __private {
    pub use crate::runtime::run;
    pub use crate::service::Procedure;
    pub use crate::stub::Stub;
}

/// The examples of the README are compiled with the documentation's.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
