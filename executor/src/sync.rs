//! The atomics of the three protocols that loom checks (the local queue, a discipline's count, and rest), from `std` or from
//! loom. Nothing else in the crate uses this: what is not modelled takes `std` directly.

#[cfg(not(urpc_loom))]
pub(crate) use std::sync::atomic::{
    AtomicBool, AtomicIsize, AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence,
};

#[cfg(urpc_loom)]
pub(crate) use loom::sync::atomic::{
    AtomicBool, AtomicIsize, AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence,
};
