//! Every bound this library keeps to, with its default and its reason.

use std::time::Duration;

/// Slots of 64 bytes in each ring. Two laps of the usual 64 calls in flight, both ways.
pub(crate) const RING_SLOTS: u32 = 256;

/// Bytes of each outbox's arena: four pieces of 16 KiB under way.
pub(crate) const ARENA_BYTES: u32 = 64 * 1024;

/// Calls that one side of a channel may have outstanding. Callers beyond it wait at home.
pub(crate) const CALLS: u32 = 1024;

/// The largest encoded arguments or reply.
pub(crate) const MAX_PAYLOAD: u32 = 4 << 20;

/// Bytes of large messages that may be under way each way: two of the largest.
pub(crate) const WINDOW: u64 = 2 * MAX_PAYLOAD as u64;

/// Landings made for one channel at most, however many processors the peer claims to have.
pub(crate) const LANDINGS: u32 = 8;

/// Messages taken from one channel before the others are looked at.
pub(crate) const BATCH: usize = 64;

/// How long a peer may take over the binding handshake.
pub(crate) const HANDSHAKE: Duration = Duration::from_secs(5);

/// Connections that have not finished their handshake.
pub(crate) const UNBOUND: usize = 256;

/// Bytes of one handshake message: the signatures of some thousand procedures.
pub(crate) const HELLO_BYTES: usize = 128 * 1024;

/// The deadline of a call that was given none.
pub(crate) const CALL_DEADLINE: Duration = Duration::from_secs(30);

/// How long a donor waits for its processor before it reclaims it.
pub(crate) const GRANT_LIMIT: Duration = Duration::from_millis(5);

/// How long an idle processor scans before it rests: about what waking it costs.
pub(crate) const SPIN: Duration = Duration::from_micros(50);

/// Own processors of a runtime: as many as there are bits in the mask of those that rest.
pub(crate) const PROCESSORS: usize = 64;
