//! A fence between one thread that fences often and others that do so rarely: the rare ones pay for both.
//!
//! `often` is an order to the compiler alone; `rarely` asks the kernel to run a full fence on every CPU where
//! a thread of this process runs. So, of two threads that each write a word, fence, and read the other's
//! word, at least one sees what the other wrote, as with two `SeqCst` fences; under loom they are these.

#[cfg(not(urpc_loom))]
mod kernel {
    use std::sync::OnceLock;
    use std::sync::atomic::{Ordering, compiler_fence};

    use rustix::thread::{MembarrierCommand, membarrier};

    /// Whether this process may use `rarely`: the kernel may be old, or a sandbox refuse it.
    pub(crate) fn available() -> bool {
        static REGISTERED: OnceLock<bool> = OnceLock::new();
        *REGISTERED.get_or_init(|| membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok())
    }

    #[inline(always)]
    pub(crate) fn often() {
        compiler_fence(Ordering::SeqCst);
    }

    /// False if the kernel would not do it (any more).
    pub(crate) fn rarely() -> bool {
        membarrier(MembarrierCommand::PrivateExpedited).is_ok()
    }
}

#[cfg(not(urpc_loom))]
pub(crate) use kernel::{available, often, rarely};

#[cfg(urpc_loom)]
pub(crate) fn often() {
    loom::sync::atomic::fence(loom::sync::atomic::Ordering::SeqCst);
}

#[cfg(urpc_loom)]
pub(crate) fn rarely() -> bool {
    often();
    true
}

#[cfg(urpc_loom)]
pub(crate) fn available() -> bool {
    true
}
