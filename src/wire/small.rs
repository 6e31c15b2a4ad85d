//! Encoding where a small message lies, a word at a time.
//!
//! The bytes are copied into the ring at once. A processor that has stored them one by one has to wait for all of
//! these stores before it can load a word of them, and the peer waits meanwhile; what was stored as a word is there.

use postcard::ser_flavors::Flavor;
use postcard::{Error, Result, serialize_with_flavor};
use serde::Serialize;
use urpc_channel::INLINE;

/// What is longer is copied, what is not is put into words.
const SHORT: usize = 10; // the longest number

/// Encodes `value`, and returns how many bytes it takes.
#[inline]
pub(super) fn encode<T: Serialize + ?Sized>(value: &T, bytes: &mut [u8; INLINE]) -> Result<usize> {
    let (len, word) = (0, 0);
    serialize_with_flavor(value, Small { bytes, len, word })
}

struct Small<'b> {
    bytes: &'b mut [u8; INLINE],
    len: usize,
    /// The word that `len` lies in, as far as it is full, else zeros.
    word: u64,
}

impl Flavor for Small<'_> {
    type Output = usize;

    #[inline(always)]
    fn try_push(&mut self, byte: u8) -> Result<()> {
        let (at, shift) = (self.len & !7, 8 * (self.len & 7));
        let place = self.bytes.get_mut(at..at + 8);
        let place = place.ok_or(Error::SerializeBufferFull)?;
        let word = self.word | u64::from(byte) << shift;
        place.copy_from_slice(&word.to_le_bytes());
        self.word = if shift == 56 { 0 } else { word };
        self.len += 1;
        Ok(())
    }

    #[inline(always)]
    fn try_extend(&mut self, data: &[u8]) -> Result<()> {
        if data.len() <= SHORT {
            return data.iter().try_for_each(|&byte| self.try_push(byte));
        }
        self.copy(data)
    }

    #[inline(always)]
    fn finalize(self) -> Result<usize> {
        Ok(self.len)
    }
}

impl Small<'_> {
    #[inline(never)]
    fn copy(&mut self, data: &[u8]) -> Result<()> {
        let place = self.bytes[self.len..].get_mut(..data.len());
        let place = place.ok_or(Error::SerializeBufferFull)?;
        place.copy_from_slice(data);
        self.len += data.len();
        let full = &self.bytes[self.len & !7..self.len];
        self.word = full
            .iter()
            .rfold(0, |word, &byte| word << 8 | u64::from(byte));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_the_codec_makes_of_it() {
        let texts = (0..=INLINE).map(|len| "123456789".repeat(6)[..len].to_string());
        for text in texts {
            for value in [
                (1u8, text.as_str(), u64::MAX, 2u8),
                (200, &text, 3, 4),
                (7, &text, 1 << 40, 255),
            ] {
                let mut bytes = [0xAA; INLINE];
                let expected = postcard::to_allocvec(&value).unwrap();
                match encode(&value, &mut bytes) {
                    Ok(len) => assert_eq!(bytes[..len], expected),
                    Err(error) => {
                        assert_eq!(error, Error::SerializeBufferFull);
                        assert!(expected.len() > INLINE, "{expected:?}");
                    }
                }
            }
        }
    }
}
