//! What a peer can do wrong, in words: each ends the channel, none touches our memory.

/// Why a peer is not spoken to any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// Not the peer's doing: this process is a forked child and has no part in the channel.
    #[error("this process is a fork of the one the channel belongs to")]
    Forked,
    /// A header with a kind, or a part of a kind, that does not exist.
    #[error("the peer sent a slot of the unknown kind {0:#04x}")]
    UnknownKind(u8),
    /// More bytes inline than a slot has, or some where there can be none.
    #[error("the peer sent a slot with {0} bytes inline")]
    Length(u8),
    /// A large message that is too small, or larger than was agreed.
    #[error("the peer announced a message of {total} bytes; large ones have 49 to {max}")]
    Total {
        /// Bytes announced.
        total: u32,
        /// Bytes allowed.
        max: u32,
    },
    /// A piece that is empty, too long, not at a multiple of 64, or not within the arena or its annex.
    #[error("the peer sent a piece of {len} bytes at {offset}, in an arena of {arena}")]
    Outside {
        /// Where in the arena.
        offset: u32,
        /// Bytes.
        len: u32,
        /// Bytes of the arena, and of the annex if that is open.
        arena: u32,
    },
    /// A piece that does not continue what came before.
    #[error(
        "the peer sent bytes {position}.. of {total} for message {id}; expected {expected}.. of {expected_total}"
    )]
    Position {
        /// Of the message.
        id: u32,
        /// Where the piece claims to begin.
        position: u32,
        /// Bytes that it claims for the whole.
        total: u32,
        /// Where it should begin.
        expected: u32,
        /// Bytes of the whole, as first announced.
        expected_total: u32,
    },
    /// A piece of a message that was never begun.
    #[error("the peer sent a piece of message {0}, of which there is no first one")]
    Orphan(u32),
    /// A message begun a second time before it was whole.
    #[error("the peer began message {0} twice")]
    Repeated(u32),
    /// More bytes outstanding than the window allows.
    #[error(
        "the peer announced {total} bytes beyond the {held} it has outstanding; the window is {window}"
    )]
    Window {
        /// Bytes announced.
        total: u32,
        /// Bytes announced before and not freed yet.
        held: u64,
        /// Bytes allowed.
        window: u64,
    },
    /// More half-sent messages than there can be calls.
    #[error("the peer has begun {0} messages without finishing one")]
    Partials(usize),
    /// Its index of our ring went back, or beyond what we published.
    #[error(
        "the peer claims to have consumed {claimed} slots; {published} are published, {known} were consumed"
    )]
    Consumed {
        /// Now.
        claimed: u64,
        /// Before.
        known: u64,
        /// By us.
        published: u64,
    },
    /// Its count of our payload went back, or beyond what we announced.
    #[error(
        "the peer claims to have freed {claimed} bytes; {declared} are announced, {known} were freed"
    )]
    Freed {
        /// Now.
        claimed: u64,
        /// Before.
        known: u64,
        /// By us.
        declared: u64,
    },
}
