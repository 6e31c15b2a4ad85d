//! Counters: what the library did, by channel and in all. Counting costs nothing on a warm call; the
//! counts of calls come from words that are written anyway.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counts since the start of a runtime ([`stats`](crate::stats)) or of a channel
        /// ([`Peer::stats`](crate::Peer::stats)).
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Stats {
            /// Calls made.
            pub calls: u64,
            /// Calls received.
            pub served: u64,
            $($(#[$doc])* pub $name: u64,)*
        }

        /// The counters behind [`Stats`].
        #[derive(Debug, Default)]
        pub(crate) struct Counters { $(pub(crate) $name: AtomicU64,)* }

        impl Counters {
            pub(crate) fn read(&self) -> Stats {
                Stats {
                    calls: 0,
                    served: 0,
                    $($name: self.$name.load(Ordering::Relaxed),)*
                }
            }
        }

        impl std::ops::AddAssign for Stats {
            fn add_assign(&mut self, other: Self) {
                self.calls += other.calls;
                self.served += other.served;
                $(self.$name += other.$name;)*
            }
        }
    };
}

counters! {
    /// Rests of a processor: it went to sleep, or was lent.
    rests,
    /// Doorbells rung at peers.
    rings,
    /// Processors lent to peers (§3.1), and back by now.
    donations_given,
    /// Donations that ended with the peer's return.
    donations_returned,
    /// Donations that ended otherwise: at the grant limit, or by a wake of the donor.
    donations_reclaimed,
    /// Processors that peers lent to this process.
    donations_received,
    /// Hand-overs of a processor: a donation and its end are two, each counted when it happens.
    crossings,
    /// System calls made to sleep, wake, ring and lend.
    system_calls,
}

/// Adds to a counter.
pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}
