//! What crosses a channel, as both processes see it in their own memory.
//!
//! Everything here is private memory, copied out of a mapping before anybody looks at it.

use crate::layout::INLINE;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A request; `id` is the caller's.
    Call,
    /// The answer to the peer's call `id`.
    Reply,
    /// An answer without a result: `procedure` carries a status, the body a text.
    Failed,
    /// The caller of `id` is gone. See [`Channel::withdraw`](crate::Channel::withdraw).
    Cancel,
    /// The sender will send no more calls. It leaves after all large messages staged before it.
    Goodbye,
    /// Only received: the peer withdrew its call `id` before all of it had crossed, so it did not run.
    Aborted,
}

/// One whole message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it is.
    pub kind: Kind,
    /// Which call it belongs to: the sender's numbers for calls, the receiver's for replies.
    pub id: u32,
    /// Which procedure is called; of a [`Kind::Failed`], a status.
    pub procedure: u16,
    /// The caller's deadline in milliseconds, 0 for none; what they count from is the caller's and the
    /// server's affair, the channel only carries them.
    pub deadline_ms: u32,
    /// Arguments or results.
    pub body: Body,
}

/// The bytes of a message: up to 48 travel in the slot itself, more through the arena.
///
/// ```
/// use urpc_channel::Body;
/// assert_eq!(Body::from_slice(b"six").window_bytes(), 0);
/// assert_eq!(Body::from_vec(vec![7; 100]).window_bytes(), 100);
/// assert_eq!(Body::from_vec(vec![7; 48]).as_slice(), &[7; 48]);
/// ```
#[derive(Clone, Debug)]
pub enum Body {
    /// At most 48 bytes.
    Inline(Inline),
    /// More. (48 or fewer are sent as if they were inline.)
    Heap(Vec<u8>),
}

/// Up to 48 bytes, in place.
#[derive(Clone, Copy)]
#[repr(align(8))]
pub struct Inline {
    bytes: [u8; INLINE],
    len: u8,
}

impl Inline {
    /// No bytes.
    pub const EMPTY: Inline = Inline {
        bytes: [0; INLINE],
        len: 0,
    };

    /// A copy of `bytes`; `None` if there are more than 48.
    #[inline]
    pub fn new(bytes: &[u8]) -> Option<Inline> {
        let mut inline = Inline::EMPTY;
        inline.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        inline.len = bytes.len() as u8;
        Some(inline)
    }

    /// The bytes.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len).min(INLINE)]
    }

    /// `len` is at most 48; `frame` has checked it.
    #[inline]
    pub(crate) fn from_words(words: &[u64; INLINE / 8], len: u8) -> Inline {
        let mut bytes = [0; INLINE];
        for (eight, word) in bytes.chunks_exact_mut(8).zip(words) {
            eight.copy_from_slice(&word.to_ne_bytes());
        }
        Inline { bytes, len }
    }

    #[inline]
    pub(crate) fn words(&self) -> [u64; INLINE / 8] {
        let mut words = [0; INLINE / 8];
        for (word, eight) in words.iter_mut().zip(self.bytes.as_chunks::<8>().0) {
            *word = u64::from_ne_bytes(*eight);
        }
        words
    }
}

impl std::fmt::Debug for Inline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_bytes().fmt(f)
    }
}

impl Body {
    /// No bytes.
    pub const EMPTY: Body = Body::Inline(Inline::EMPTY);

    /// A copy of `bytes`; allocates only for more than 48.
    #[inline]
    pub fn from_slice(bytes: &[u8]) -> Body {
        Inline::new(bytes).map_or_else(|| Body::Heap(bytes.to_vec()), Body::Inline)
    }

    /// `bytes` themselves, or a copy if they are 48 or fewer.
    #[inline]
    pub fn from_vec(bytes: Vec<u8>) -> Body {
        Inline::new(&bytes).map_or_else(|| Body::Heap(bytes), Body::Inline)
    }

    /// The bytes.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Body::Inline(inline) => inline.as_bytes(),
            Body::Heap(bytes) => bytes,
        }
    }

    /// What this body takes of the window: reserve it before sending, free it after decoding.
    /// 0 for a body that travels in its slot.
    #[inline]
    pub fn window_bytes(&self) -> usize {
        match self {
            Body::Heap(bytes) if bytes.len() > INLINE => bytes.len(),
            _ => 0,
        }
    }
}

impl PartialEq for Body {
    fn eq(&self, other: &Body) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Body {}
