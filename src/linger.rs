//! A caller that lingers: for the moment in which the reply is about to come, its task stays where it is (R16).
//!
//! "… the idle loop keeps the caller's context loaded": a worker with nothing else to do looks for the reply
//! without putting the task to sleep, which saves the waking too. Only for a moment, in which the task
//! cannot see anything else that might wake it; after that it sleeps like any other.

use std::cell::Cell;
use std::sync::Arc;
use std::task::Waker;

use urpc_executor::Worker;

use crate::binding::Binding;
use crate::idle::{LOOKS_PER_PAUSE, LOOKS_PER_SILENT, came, scan_one};
use crate::node::Node;

/// Looks for the reply of a lingering call: some 512 × 5 ns, a few warm calls long.
const LOOKS: u32 = 512;

thread_local! {
    /// The call of this thread that has no waker. The pointer is only compared.
    static LINGERS: Cell<Option<(*const Binding, u32)>> = const { Cell::new(None) };
}

/// Whether a call that is polled with `waker` may do without it for now. Followed by [`until_answered`].
#[inline]
pub(crate) fn may(binding: &Arc<Binding>, waker: &Waker) -> bool {
    let may = binding.node.lingers() && urpc_executor::may_linger(waker);
    if may {
        // What is there was left by a poll that ended. (The first call of this poll is the one that lingers: what
        // comes after it has a waker, and must not forget it.)
        LINGERS.set(None);
    }
    may
}

/// Call `id` has no waker.
#[inline]
pub(crate) fn until_answered(binding: &Arc<Binding>, id: u32) {
    LINGERS.set(Some((Arc::as_ptr(binding), id)));
}

impl Node {
    /// See [`Idle::linger`](urpc_executor::Idle::linger).
    pub(crate) fn linger_for_call(&self, worker: &Worker, waker: &Waker) -> bool {
        let Some((binding, id)) = LINGERS.take() else {
            return false; // it could not begin, and waits for that
        };
        // Whoever is called is lively.
        let bindings = self.lively();
        let Some(binding) = bindings
            .iter()
            .find(|other| std::ptr::eq(Arc::as_ptr(other), binding))
        else {
            return true; // the channel is closed
        };
        // Whom nobody runs cannot answer: then this processor has something better to do.
        let looks = if binding.presence().awake() { LOOKS } else { 0 };
        for look in 1..=looks {
            let incoming = binding.channel.has_incoming();
            if incoming && binding.receive_answer(id) {
                came();
                return true;
            }
            let pause = look % LOOKS_PER_PAUSE == 0;
            let mut found = false;
            for other in bindings.iter() {
                // In a pause also the one that is called: more of a large call may have to be sent.
                found |= (incoming || pause || !Arc::ptr_eq(other, binding)) && scan_one(other);
            }
            // Another worker may have found it.
            if (found || pause) && binding.pending.has_answered(id) {
                return true;
            }
            if pause {
                if worker.has_work() {
                    break;
                }
                if look % LOOKS_PER_SILENT == 0 {
                    self.scan_silent();
                }
                std::hint::spin_loop();
            }
        }
        binding.deadline(id);
        !binding.pending.wait_first(id, waker)
    }
}
