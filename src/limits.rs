//! Every bound this library keeps to, with its default and its reason.

use std::time::Duration;

/// What peers may make this process hold. `Builder` has a method for each, with the reason.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caps {
    // Of one channel.
    /// Calls that one side may have outstanding. Callers beyond it wait at home.
    pub(crate) calls: u32,
    /// The largest encoded arguments or reply.
    pub(crate) payload: u32,
    /// Bytes of large messages that may be under way each way.
    pub(crate) window: u64,
    /// How deep values of a message may lie in one another.
    pub(crate) nesting: u32,

    // Of all clients together.
    pub(crate) clients: usize,
    /// Connections that have not finished their handshake.
    pub(crate) unbound: usize,
    /// Handlers that were not done at once.
    pub(crate) serving: usize,
    /// Bytes of large calls, from their first piece to their answer.
    pub(crate) bytes: u64,
    /// How much of each of these is for any one client, in percent.
    pub(crate) share: u8,
}

impl Default for Caps {
    fn default() -> Self {
        let payload = 4 << 20;
        Self {
            calls: 1024,
            payload,
            window: 2 * u64::from(payload),
            nesting: 128,
            clients: 4096,
            unbound: 256,
            serving: 64 * 1024,
            bytes: 1 << 30,
            share: 50,
        }
    }
}

/// Descriptors that are not for clients: a runtime's own, and some for the rest of the process.
const OWN_DESCRIPTORS: usize = 32;
/// What a bound client takes for good (its socket and its pidfd), and as much again in reserve.
const DESCRIPTORS_EACH: usize = 4;
/// What an unbound one takes is about the same, and together they take a quarter of all.
const DESCRIPTORS_UNBOUND: usize = 4 * DESCRIPTORS_EACH;

impl Caps {
    /// These, as far as `descriptors` (RLIMIT_NOFILE) are enough for them.
    pub(crate) fn within(self, descriptors: usize) -> Self {
        let clients = descriptors.saturating_sub(OWN_DESCRIPTORS) / DESCRIPTORS_EACH;
        Self {
            clients: self.clients.min(clients.max(1)),
            unbound: self.unbound.min((descriptors / DESCRIPTORS_UNBOUND).max(1)),
            // A message that never fits into the window could never be sent.
            window: self.window.max(self.payload.into()),
            ..self
        }
    }
}

/// Slots of 64 bytes in each ring. Two laps of the usual 64 calls in flight, both ways.
pub(crate) const RING_SLOTS: u32 = 256;

/// Bytes of each outbox's arena: four pieces of 16 KiB under way.
pub(crate) const ARENA_BYTES: u32 = 64 * 1024;

/// Bytes of the smallest message that crosses in several pieces.
pub(crate) const LARGE: usize = 8 * 1024;

/// When so many bytes have crossed a channel in large messages, it gets its annexes: what those cost, as many bytes save
/// again.
pub(crate) const ANNEX_FROM: u64 = 1 << 20;

/// What a large message is waited for longer: some times what copying it takes.
pub(crate) const BYTES_PER_MICROSECOND: u32 = 4096;

/// Landings made for one channel at most, however many processors the peer claims to have.
pub(crate) const LANDINGS: u32 = 8;

/// Messages taken from one channel before the others are looked at.
pub(crate) const BATCH: usize = 64;

/// How long a peer may take over the binding handshake.
pub(crate) const HANDSHAKE: Duration = Duration::from_secs(5);

/// Bytes of one handshake message: the signatures of some thousand procedures.
pub(crate) const HELLO_BYTES: usize = 128 * 1024;

/// Procedures that one side of a channel offers: a hello says one in a few bytes, and a list of them takes many.
pub(crate) const PROCEDURES: usize = 4096;

/// How deep the values of a hello lie in one another.
pub(crate) const HELLO_NESTING: u32 = 4;

/// How long a client that broke the protocol again and again waits for its next channel, at most: making one and
/// taking it down costs a fraction of a millisecond, and so no more than one call in a hundred is disturbed.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_millis(64);

/// Beyond so many clients of that kind, those are forgotten that need not wait any more.
pub(crate) const OFFENDERS: usize = 1024;

/// How long the keeper leaves alone what the system has no means for: its own wait, a ring, a crowd at the door that cannot
/// even be turned away.
pub(crate) const RESPITE: Duration = Duration::from_millis(10);

/// The deadline of a call that was given none.
pub(crate) const CALL_DEADLINE: Duration = Duration::from_secs(30);

/// How long a donor waits for its processor before it reclaims it.
pub(crate) const GRANT_LIMIT: Duration = Duration::from_millis(5);

/// How long an idle processor scans before it rests: about what waking it costs.
pub(crate) const SPIN: Duration = Duration::from_micros(50);

/// Own processors of a runtime: as many as there are bits in the mask of those that rest.
pub(crate) const PROCESSORS: usize = 64;
