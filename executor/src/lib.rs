//! The user-level scheduler of urpc (§3.3): many tasks on a few processors.
//!
//! A **processor** is the right to run tasks; an [`Executor`] has n of them, and n = 0 is allowed. A
//! **worker** is a kernel thread, and runs tasks only while it holds a processor. A **guest** is a
//! thread that came with a processor of somebody else's ([`Executor::run_while`]). The crate knows
//! nothing of channels or other processes: what a worker does when nothing is ready is the business
//! of an [`Idle`], of which [`Park`] is the plainest.
//!
//! # Where things are
//! | file | promise |
//! | --- | --- |
//! | `worker.rs`, `worker/` | the loop, and its order of search |
//! | `queue.rs` | a processor's ready queue: each task is taken once |
//! | `barrier.rs` | a fence whose cost is on one side only |
//! | `discipline.rs`, `ordered.rs` | the order of tasks, if the application chooses it |
//! | `rest.rs` | no task is lost between a push and a rest |
//! | `processor.rs` | never more than n threads with a processor |
//! | `block_on.rs` | a thread from outside, with or without a processor |
//! | `shared.rs` | who is told of what, and the shutdown |
//! | `task.rs`, `join.rs` | panics, aborts and ends of tasks |
//! | `linger.rs` | a task whose wait is about to end is not put to sleep |
//! | `timers.rs` | what happens later |
//!
//! # Caveats
//! - A task that blocks its thread keeps the processor. What is in that processor's queue can be
//!   stolen, but nobody is woken for the sake of a single task there: it is meant for the worker
//!   itself, next.
//! - With a [`Discipline`], a task's first poll by [`Executor::spawn_eager`] and the future of a `block_on`
//!   still come before all that is ready. A discipline that panics or loses tasks harms its own process.
//! - A task whose wakers are all gone is kept until the shutdown: it is still registered.
//! - [`Executor::shutdown`] waits for polls in progress, however long they take.
//! - Under `panic = "abort"` a task's panic ends the process.

mod barrier;
mod block_on;
mod discipline;
mod executor;
mod idle;
mod join;
mod linger;
mod ordered;
mod park;
mod processor;
mod queue;
mod rest;
mod shared;
mod sync;
mod task;
mod timers;
mod worker;

pub use discipline::{Discipline, Fifo, Lifo, Priorities, Ready};
pub use executor::Executor;
pub use idle::Idle;
pub use join::{JoinError, JoinHandle};
pub use linger::may_linger;
pub use park::Park;
pub use task::{YieldNow, yield_now};
pub use timers::{Elapsed, Sleep, TimerKey, Timers, timeout_at};
pub use worker::{
    Guest, TASKS_PER_SCAN, Worker, look_around_next, on_worker, ready_here, run_next,
};
