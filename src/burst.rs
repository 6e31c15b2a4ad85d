//! Whether a call may wait for others, which are about to follow it at once.
//!
//! Of tasks that are ready one after the other, each makes its call, as a rule, and if these go into the ring together,
//! each costs less (`channel/src/outgoing/batch.rs`): a fifth less where there are many. They wait for seven tasks at most,
//! and for none once the worker looks around, or rests; and only while such tasks are quick: now and then some are timed.
//! One that blocks its worker after all keeps up to seven calls back, whose callers could not go on meanwhile either.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// So many tasks have to be ready besides the one that calls. With fewer the peer would rather begin at once.
const ENOUGH: usize = 6;
/// Calls that are timed, and from one that begins that to the next.
const TIMED: u32 = 8;
const TURNS: u32 = 128;
/// What these may take together: more, and what waiting costs is more than what it saves.
const QUICK: Duration = Duration::from_micros(4);

thread_local! {
    /// Calls of this thread that others were about to follow.
    static CALLS: Cell<u32> = const { Cell::new(0) };
    static SINCE: Cell<Option<Instant>> = const { Cell::new(None) };
    static IS_QUICK: Cell<bool> = const { Cell::new(false) };
}

/// Whether a call that this worker makes just now may wait.
#[inline]
pub(crate) fn goes_on() -> bool {
    if urpc_executor::ready_here() < ENOUGH {
        return false;
    }
    let turn = CALLS.get() % TURNS;
    CALLS.set(turn + 1);
    if turn == 0 || turn == TIMED {
        look_at_the_clock(turn);
    }
    IS_QUICK.get()
}

#[cold]
fn look_at_the_clock(turn: u32) {
    let now = Instant::now();
    if turn == 0 {
        SINCE.set(Some(now));
    } else if let Some(since) = SINCE.take() {
        IS_QUICK.set(now - since < QUICK);
    }
}
