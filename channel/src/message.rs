//! What crosses a channel, as both processes see it in their own memory.
//!
//! Everything here is private memory, copied out of a mapping before anybody looks at it.

use crate::buffers::keep_buffer;
use crate::layout::INLINE;
use crate::region::Line;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Kind {
    /// A request; `id` is the caller's.
    Call = 1, // `frame` knows these numbers
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
    /// Only received: a large message of the peer whose bytes were [not admitted](Sink::admits).
    Refused,
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

/// A message without its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// What it is.
    pub kind: Kind,
    /// As [`Message::id`].
    pub id: u32,
    /// As [`Message::procedure`].
    pub procedure: u16,
    /// As [`Message::deadline_ms`].
    pub deadline_ms: u32,
}

impl Head {
    /// The message with this body.
    #[inline(always)]
    pub fn with(self, body: Body) -> Message {
        let Head {
            kind,
            id,
            procedure,
            deadline_ms,
        } = self;
        Message {
            kind,
            id,
            procedure,
            deadline_ms,
            body,
        }
    }
}

impl Message {
    /// All but the body.
    #[inline(always)]
    pub fn head(&self) -> Head {
        let &Message {
            kind,
            id,
            procedure,
            deadline_ms,
            ..
        } = self;
        Head {
            kind,
            id,
            procedure,
            deadline_ms,
        }
    }
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
    Heap(Large),
}

/// The bytes of a large message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Large {
    /// The bytes, as they cross.
    pub bytes: Vec<u8>,
    /// So many of them, at the end, are meant to be read first. The channel only carries this number, of a peer's
    /// it is a claim. (So what is large can lie at the start of a vector, and become the receiver's as it is.)
    pub lead: u8,
}

impl From<Vec<u8>> for Large {
    fn from(bytes: Vec<u8>) -> Large {
        Large { bytes, lead: 0 }
    }
}

impl Large {
    /// As one that may cross in a slot, if it is small and read from its start.
    pub(crate) fn inline(&self) -> Option<Inline> {
        self.fits_inline().then(|| Inline::new(&self.bytes))?
    }

    pub(crate) fn fits_inline(&self) -> bool {
        self.lead == 0 && self.bytes.len() <= INLINE
    }
}

/// Up to 48 bytes, in place.
#[derive(Clone, Copy)]
pub struct Inline {
    payload: Payload,
    /// As wide as it is read, with the padding that there would be.
    len: u32,
}

/// The payload of a slot, in private memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(align(8))]
pub(crate) struct Payload(pub(crate) [u8; INLINE]);

impl Inline {
    /// No bytes.
    pub const EMPTY: Inline = Inline {
        payload: Payload::ZERO,
        len: 0,
    };

    /// A copy of `bytes`; `None` if there are more than 48.
    #[inline]
    pub fn new(bytes: &[u8]) -> Option<Inline> {
        let mut inline = Inline::EMPTY;
        let place = inline.payload.0.get_mut(..bytes.len())?;
        place.copy_from_slice(bytes);
        inline.len = bytes.len() as u32;
        Some(inline)
    }

    /// The bytes.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.payload.0[..(self.len as usize).min(INLINE)]
    }

    #[inline(always)]
    pub(crate) fn payload(&self) -> &Payload {
        &self.payload
    }

    #[inline(always)]
    pub(crate) fn len(&self) -> u8 {
        self.len as u8
    }
}

impl Payload {
    pub(crate) const ZERO: Payload = Payload([0; INLINE]);

    /// All of its words.
    #[inline(always)]
    pub(crate) fn words(&self) -> [u64; INLINE / 8] {
        let (words, _) = self.0.as_chunks();
        std::array::from_fn(|i| u64::from_ne_bytes(words[i]))
    }

    /// With these two words first, and zeros.
    pub(crate) fn of_words(words: [u64; 2]) -> Payload {
        let mut payload = Payload::ZERO;
        for (place, word) in payload.0.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        payload
    }
}

/// Takes whole messages as they come in. It runs under the end's lock: it must be short, and what it sends it
/// sends by the other end.
pub trait Sink {
    /// A message that fits into its slot.
    fn small(&mut self, head: Head, body: Arrived<'_>);

    /// One that came in pieces, or of which the rest was withdrawn ([`Kind::Aborted`]), or that was not admitted
    /// ([`Kind::Refused`]).
    fn large(&mut self, head: Head, body: Large);

    /// Whether to hold the `bytes` of a large message whose first piece has come. If not, none is kept.
    fn admits(&mut self, head: &Head, bytes: u32) -> bool {
        let _ = (head, bytes);
        true
    }

    /// A call of so many bytes that was admitted has been withdrawn; [`Kind::Aborted`] follows.
    fn withdrawn(&mut self, bytes: u32) {
        let _ = bytes;
    }
}

/// The bytes of a small message that has just come in. They still lie in the ring, where the peer may change them
/// at any time: they are copied once, to where they are to stay, and only then looked at.
#[derive(Clone, Copy, Debug)]
pub struct Arrived<'a> {
    pub(crate) payload: InRing<'a>,
    /// At most 48; `frame` has checked it.
    pub(crate) len: u8,
}

/// A payload in the peer's ring.
#[derive(Clone, Copy, Debug)]
pub(crate) enum InRing<'a> {
    Slot(Line<'a>),
    /// The rings of models are elsewhere.
    #[cfg(test)]
    Copied(Payload),
}

impl InRing<'_> {
    #[inline(always)]
    pub(crate) fn copy(&self, to: &mut Payload) {
        match self {
            InRing::Slot(line) => line.load_payload(to),
            #[cfg(test)]
            InRing::Copied(payload) => *to = *payload,
        }
    }
}

impl Arrived<'_> {
    /// Puts the bytes in the place of `body`'s.
    #[inline(always)]
    pub fn read_into(self, body: &mut Body) {
        if let Body::Heap(large) = body {
            drop_heap(large);
            *body = Body::EMPTY;
        }
        if let Body::Inline(inline) = body {
            self.payload.copy(&mut inline.payload);
            inline.len = self.len.into();
        }
    }

    /// The bytes as a body of their own.
    #[inline]
    pub fn into_body(self) -> Body {
        let mut body = Body::EMPTY;
        self.read_into(&mut body);
        body
    }
}

/// Out of the way of those that have none.
#[cold]
fn drop_heap(large: &mut Large) {
    keep_buffer(std::mem::take(large).bytes);
}

impl std::fmt::Debug for Inline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_bytes().fmt(f)
    }
}

impl Body {
    /// No bytes.
    pub const EMPTY: Body = Body::Inline(Inline::EMPTY);

    /// Makes this the empty body.
    #[inline]
    pub fn clear(&mut self) {
        match self {
            Body::Inline(inline) => inline.len = 0,
            Body::Heap(large) => {
                drop_heap(large);
                *self = Body::EMPTY;
            }
        }
    }

    /// The body, of which this keeps nothing.
    pub fn take(&mut self) -> Body {
        std::mem::replace(self, Body::EMPTY)
    }

    /// Makes this a body of 48 bytes at most, which `write` fills where they are; it says how many count.
    ///
    /// # Errors
    /// Those of `write`; what the body is then is unspecified.
    #[inline]
    pub fn write<E>(
        &mut self,
        write: impl FnOnce(&mut [u8; INLINE]) -> Result<usize, E>,
    ) -> Result<(), E> {
        if let Body::Heap(_) = self {
            *self = Body::EMPTY;
        }
        if let Body::Inline(inline) = self {
            inline.len = write(&mut inline.payload.0)?.min(INLINE) as u32;
        }
        Ok(())
    }

    /// A copy of `bytes`; allocates only for more than 48.
    #[inline]
    pub fn from_slice(bytes: &[u8]) -> Body {
        Inline::new(bytes).map_or_else(|| Body::Heap(bytes.to_vec().into()), Body::Inline)
    }

    /// `bytes` themselves, or a copy if they are 48 or fewer.
    #[inline]
    pub fn from_vec(bytes: Vec<u8>) -> Body {
        Inline::new(&bytes).map_or_else(|| Body::Heap(bytes.into()), Body::Inline)
    }

    /// The bytes.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Body::Inline(inline) => inline.as_bytes(),
            Body::Heap(large) => &large.bytes,
        }
    }

    /// What this body takes of the window: reserve it before sending, free it after decoding.
    /// 0 for a body that travels in its slot.
    #[inline]
    pub fn window_bytes(&self) -> usize {
        match self {
            Body::Heap(large) if large.bytes.len() > INLINE => large.bytes.len(),
            _ => 0,
        }
    }
}

impl Default for Body {
    fn default() -> Self {
        Body::EMPTY
    }
}

impl PartialEq for Body {
    fn eq(&self, other: &Body) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Body {}
