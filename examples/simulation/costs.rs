//! What things cost in the simulation: nanoseconds, with where they come from.
//!
//! All were measured on a small virtual machine, where an idle CPU really halts (`cargo bench --bench donation`
//! and `--bench calls` there). What the simulation says of 64 CPUs holds for CPUs like these: on bare metal with
//! shallow idle states a waking costs less, and so everything that avoids one wins less.

/// Nanoseconds.
pub(crate) type Time = u64;

pub(crate) const US: Time = 1_000;
pub(crate) const MS: Time = 1_000_000;

/// A caller begins a call: arguments encoded, a slot published.
pub(crate) const START: Time = 40;

/// A caller has its reply. With [`START`], [`RECEIVE`] twice and [`SERVE`] some 160 ns a null call, which is what
/// 64 calls in flight on one CPU cost beside their hand-over.
pub(crate) const FINISH: Time = 30;

/// A message is copied out, checked and sorted.
pub(crate) const RECEIVE: Time = 20;

/// A request is decoded, a handler that does nothing is polled, its reply is written.
pub(crate) const SERVE: Time = 50;

/// From a store to the CPU that looks for it: a cache line. A message between spinning processors takes 0.2 to
/// 0.5 µs with what is done before and after.
pub(crate) const CACHE_LINE: Time = 150;

/// A futex wake, for the waker. With a switch to a warm thread a hand-over: 2.4 µs, half of the 4.3 µs to 4.8 µs
/// that one there and back takes.
pub(crate) const WAKE: Time = 800;

/// A byte sent on a socket, which wakes its reader.
pub(crate) const RING: Time = 1_500;

/// The one at the bell reads what was rung.
pub(crate) const ANSWER: Time = 1_000;

/// The keeper hears the bell, and wakes somebody.
pub(crate) const KEEPER: Time = 2_000;

/// Before a rest: announce, fence, look at everything.
pub(crate) const ANNOUNCE: Time = 400;

/// Still nothing: ask the policy, and retract the rest when it is over. A null call of one caller at S = 0 takes 6.9 µs,
/// 2.4 µs more than its two hand-overs; the rest of that is [`LEAVE`].
pub(crate) const DECIDE: Time = 800;

/// The same for a thread that gives back what it was lent.
pub(crate) const LEAVE: Time = 900;

/// A fence, and what belongs to it.
pub(crate) const FENCE: Time = 40;

/// One more channel to look at before a rest.
pub(crate) const VIEW: Time = 15;

/// A thread moves itself to another CPU.
pub(crate) const MOVE_ITSELF: Time = 3_500;

/// A sleeping thread of the same user is given another CPU.
pub(crate) const MOVE_OTHER: Time = 700;

/// A thread that shares its CPU with others may run so long: a scheduler tick.
pub(crate) const SLICE: Time = 4 * MS;

/// No cost is always the same: each step takes up to so much more or less, of a hundred. Without that, threads
/// keep in step with one another as they never do in reality.
pub(crate) const SPREAD: Time = 10;

/// The defaults of the library: how long an idle worker scans, how often that is halved at most, and how long a
/// processor stays away. Tasks between two looks around are [`TASKS_PER_SCAN`], messages taken from one channel at
/// once [`BATCH`], landings of one channel [`LANDINGS`] at most.
pub(crate) const SPIN: Time = 50 * US;
pub(crate) const MOST_HALVINGS: u32 = 5;
pub(crate) const GRANT_LIMIT: Time = 5 * MS;
pub(crate) const TASKS_PER_SCAN: u32 = 61;
pub(crate) const BATCH: usize = 64;
pub(crate) const LANDINGS: u32 = 8;

/// From a wake to the first instruction on a CPU that was idle for so long: 28 µs after 50 µs of it, 52 µs after
/// 1 ms, 98 µs after 10 ms.
pub(crate) fn from_idle(idle: Time) -> Time {
    between(idle, [28 * US, 52 * US, 98 * US])
}

/// A switch from a thread that sleeps to the next one on the same CPU, the first one since that CPU was idle for so
/// long: with [`WAKE`] 2.4 µs, 8 µs and 17 µs, after the same times.
pub(crate) fn switch(idled: Time) -> Time {
    between(idled, [2_400, 8 * US, 17 * US]) - WAKE
}

/// By the logarithm between what was measured after 50 µs, 1 ms and 10 ms, and no further than these.
fn between(time: Time, costs: [Time; 3]) -> Time {
    const AFTER: [Time; 3] = [50 * US, MS, 10 * MS];
    let time = time.clamp(AFTER[0], AFTER[2]);
    let i = usize::from(time > AFTER[1]);
    let share = (time as f64 / AFTER[i] as f64).ln() / (AFTER[i + 1] as f64 / AFTER[i] as f64).ln();
    costs[i] + (share * (costs[i + 1] - costs[i]) as f64) as Time
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_measured_is_what_is_charged() {
        assert_eq!(from_idle(50 * US), 28 * US);
        assert_eq!(from_idle(MS), 52 * US);
        assert_eq!(from_idle(60 * MS), 98 * US);
        assert_eq!(switch(0) + WAKE, 2_400);
        assert_eq!(switch(MS) + WAKE, 8 * US);
        assert!((28 * US..52 * US).contains(&from_idle(200 * US)));
    }
}
