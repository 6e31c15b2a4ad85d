//! User-level remote procedure call: calls between processes through shared memory, without the kernel.

mod bell;
mod bind;
mod binding;
mod call;
mod caller;
mod connect;
mod entry;
mod error;
mod keeper;
mod landing;
mod limits;
mod names;
mod node;
mod peers;
mod pending;
mod runtime;
mod serve;
mod service;
mod serving;
mod stats;
pub mod sync;
pub mod time;
mod wire;

pub use call::{Call, Peer, Procedure, call};
pub use caller::{Caller, caller};
pub use connect::{Connect, connect, connect_fd};
pub use error::{CallError, CallErrorKind, Error, ErrorKind, Executed, Result};
pub use runtime::{Builder, Runtime, block_on, spawn, stats, unblock};
pub use serve::{Server, ServerBuilder, serve, serve_fd};
pub use service::Service;
pub use stats::Stats;
pub use urpc_donate::Credentials;
pub use urpc_executor::{JoinError, JoinHandle, YieldNow, yield_now};
pub use urpc_macros::{main, service, test};

/// What the macros expand to. Not for use by hand.
#[doc(hidden)]
pub mod __private {
    pub use crate::call::Stub;
    pub use crate::runtime::run;
    pub use crate::service::Procedure;
}
