//! What large messages look like: the first large bytes or text lie at the start, so that they become the
//! receiver's without being copied once more.
//!
//! ```text
//! as encoded     before | large bytes | after
//! as it crosses  large bytes | after | before          `lead` says how many bytes `before` has
//! ```
//!
//! So whoever decodes an owned byte buffer or a `String` is given the vector into which the message was copied out
//! of shared memory. Whatever else a type makes of these bytes is decoded from a copy in the order of encoding.

use std::cell::Cell;

use postcard::{de_flavors, ser_flavors};
use serde::Serialize;
use serde::de::DeserializeOwned;
use urpc_channel::{Large, keep_buffer, take_buffer};

use super::Undecodable;
use super::careful::Caps;
use super::taking::Taking;

/// Bytes worth the trouble.
const WORTH: usize = 256;
/// What is longer is copied, what is not goes byte by byte: the longest number.
const SHORT: usize = 10;
/// Bytes before the large ones at most: what the channel can say.
const LEAD: usize = 48;

/// Encodes `value`, into a buffer that is used again.
pub(super) fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Large, postcard::Error> {
    let output = Sorted {
        bytes: take_buffer(),
        lead: [0; LEAD],
        leading: 0,
        is_leading: true,
    };
    postcard::serialize_with_flavor(value, output)
}

/// Puts what comes before the first large bytes behind all the rest.
struct Sorted {
    bytes: Vec<u8>,
    lead: [u8; LEAD],
    leading: usize,
    /// No large bytes have come yet, and there is still room before them.
    is_leading: bool,
}

impl Sorted {
    /// Takes bytes before which no large ones have come.
    fn lead(&mut self, bytes: &[u8]) {
        let end = self.leading + bytes.len();
        if bytes.len() >= WORTH {
            self.bytes.reserve(bytes.len() + LEAD);
            self.is_leading = false;
        } else if let Some(place) = self.lead.get_mut(self.leading..end) {
            place.copy_from_slice(bytes);
            self.leading = end;
            return;
        } else {
            self.give_up();
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The bytes are to lie as they come.
    fn give_up(&mut self) {
        self.bytes.extend_from_slice(&self.lead[..self.leading]);
        (self.leading, self.is_leading) = (0, false);
    }
}

impl ser_flavors::Flavor for Sorted {
    type Output = Large;

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.try_extend(&[byte])
    }

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        if self.is_leading {
            self.lead(bytes);
        } else if bytes.len() <= SHORT {
            bytes.iter().for_each(|&byte| self.bytes.push(byte));
        } else {
            self.bytes.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn finalize(mut self) -> postcard::Result<Large> {
        if self.is_leading {
            self.give_up();
        }
        self.bytes.extend_from_slice(&self.lead[..self.leading]);
        let lead = self.leading as u8; // at most `LEAD`
        Ok(Large {
            bytes: self.bytes,
            lead,
        })
    }
}

/// Decodes all of a large message.
pub(super) fn decode<T: DeserializeOwned>(large: Large, nesting: u32) -> Result<T, Undecodable> {
    let Large { mut bytes, lead } = large;
    let lead = usize::from(lead);
    if lead == 0 {
        let decoded = super::decode_slice(&bytes, nesting);
        keep_buffer(bytes);
        return decoded;
    }
    // Both are claims.
    let Some(start) = bytes.len().checked_sub(lead).filter(|_| lead <= LEAD) else {
        return Err(Undecodable::Malformed("its parts do not fit".into()));
    };
    let mut before = [0; LEAD];
    before[..lead].copy_from_slice(&bytes[start..]);
    let before = &before[..lead];
    // Shorter ones are never moved. (And a decoder that wants a number gets none of them for its bytes.)
    let is_moved = |length: &usize| (WORTH..=start).contains(length);
    if let Some(length) = length_at_end_of(before).filter(is_moved) {
        let after = bytes[length..start].to_vec();
        bytes.truncate(length);
        let owned = Owned {
            length,
            bytes: Cell::new(Some(bytes)),
            is_next: Cell::new(false),
        };
        let decoded = decode_taking(before, &after, &owned, nesting);
        bytes = match owned.bytes.into_inner() {
            None => return decoded,
            Some(bytes) => bytes,
        };
        // The type wanted something else than a buffer: then in the usual order.
        bytes.extend_from_slice(&after);
    } else {
        bytes.truncate(start);
    }
    let whole = [before, &bytes].concat();
    keep_buffer(bytes);
    super::decode_slice(&whole, nesting)
}

fn decode_taking<'de, T: DeserializeOwned>(
    before: &'de [u8],
    after: &'de [u8],
    owned: &'de Owned,
    nesting: u32,
) -> Result<T, Undecodable> {
    let input = InOrder {
        before,
        owned: Some(owned),
        after,
    };
    let caps = Caps::new(before.len() + owned.length + after.len(), nesting);
    let mut decoder = postcard::Deserializer::from_flavor(input);
    let decoded = T::deserialize(caps.wrap(Taking {
        inner: &mut decoder,
        owned,
    }));
    let malformed = |error: postcard::Error| super::malformed(&caps, &error);
    let value = decoded.map_err(malformed)?;
    match decoder.finalize().map_err(malformed)? {
        0 => Ok(value),
        surplus => Err(Undecodable::Surplus(surplus)),
    }
}

/// The number whose encoding (seven bits a byte, the last byte below 128) `bytes` seem to end with.
fn length_at_end_of(bytes: &[u8]) -> Option<usize> {
    let (&last, others) = bytes.split_last()?;
    let more = others
        .iter()
        .rev()
        .take_while(|&&byte| byte >= 0x80)
        .count();
    let digits = others[others.len() - more..].iter().map(|byte| byte & 0x7F);
    let mut digits = digits.chain([last]).rev();
    let number = |sum: usize, digit: u8| sum.checked_mul(128)?.checked_add(digit.into());
    (last < 0x80).then(|| digits.try_fold(0, number))?
}

/// The large bytes, until somebody takes them.
pub(super) struct Owned {
    length: usize,
    bytes: Cell<Option<Vec<u8>>>,
    /// The decoder has just come to them.
    is_next: Cell<bool>,
}

impl Owned {
    /// The bytes, if they are what comes next.
    pub(super) fn take(&self) -> Option<Vec<u8>> {
        self.is_next.take().then(|| self.bytes.take())?
    }
}

/// The message in the order of encoding, with a gap where the large bytes are: they can only be taken whole.
struct InOrder<'de> {
    before: &'de [u8],
    /// Until they are passed.
    owned: Option<&'de Owned>,
    after: &'de [u8],
}

impl<'de> InOrder<'de> {
    fn part(&mut self) -> &mut &'de [u8] {
        match self.owned {
            Some(_) => &mut self.before,
            None => &mut self.after,
        }
    }
}

impl<'de> de_flavors::Flavor<'de> for InOrder<'de> {
    /// Bytes left over.
    type Remainder = usize;
    type Source = &'de [u8];

    fn pop(&mut self) -> postcard::Result<u8> {
        let byte = self.part().split_off_first();
        byte.copied()
            .ok_or(postcard::Error::DeserializeUnexpectedEnd)
    }

    fn size_hint(&self) -> Option<usize> {
        let owned = self.owned.map_or(0, |owned| owned.length);
        Some(self.before.len() + owned + self.after.len())
    }

    fn try_take_n(&mut self, count: usize) -> postcard::Result<&'de [u8]> {
        if let Some(owned) = self.owned
            && self.before.is_empty()
            && count == owned.length
        {
            self.owned = None;
            owned.is_next.set(true);
            return Ok(&[]);
        }
        let bytes = self.part().split_off(..count);
        bytes.ok_or(postcard::Error::DeserializeUnexpectedEnd)
    }

    fn finalize(self) -> postcard::Result<usize> {
        Ok(self.before.len() + self.owned.map_or(0, |owned| owned.length) + self.after.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_bytes::ByteBuf;

    #[derive(Serialize, Deserialize, Debug, PartialEq, Clone)]
    enum Shape {
        Empty,
        One(ByteBuf),
        Named {
            number: u64,
            text: String,
            more: Option<ByteBuf>,
        },
    }

    fn there_and_back<T, U>(value: &T) -> Result<U, Undecodable>
    where
        T: Serialize,
        U: DeserializeOwned,
    {
        decode(encode(value).expect("plain data"), 9)
    }

    #[test]
    fn what_is_encoded_is_decoded_whatever_surrounds_the_large_bytes() {
        let bytes = || ByteBuf::from((0..1000u32).map(|n| n as u8).collect::<Vec<_>>());
        let text = "large ".repeat(100);
        let named = Shape::Named {
            number: u64::MAX,
            text: text.clone(),
            more: Some(bytes()),
        };
        for shape in [Shape::One(bytes()), named.clone()] {
            assert_eq!(there_and_back(&shape), Ok(shape));
        }
        let many = (
            1u8,
            -1.5f64,
            vec![Shape::Empty, named],
            Some(text),
            bytes(),
            [0xFFu8; 3],
        );
        assert_eq!(there_and_back(&many), Ok(many));
        let long_before = ("before ".repeat(30), bytes());
        assert_eq!(there_and_back(&long_before), Ok(long_before));
        let result: Result<ByteBuf, String> = Ok(bytes());
        assert_eq!(there_and_back(&result), Ok(result));
    }

    #[test]
    fn an_owned_buffer_is_the_vector_that_came_in() {
        let value = (7u32, ByteBuf::from(vec![9; 5000]), "and more".to_string());
        let large = encode(&value).expect("plain data");
        let place = large.bytes.as_ptr();
        let (_, bytes, _): (u32, ByteBuf, String) = decode(large, 9).expect("as encoded");
        assert_eq!(bytes.as_ptr(), place);
        let large = encode(&"text ".repeat(100)).expect("plain data");
        let place = large.bytes.as_ptr();
        let text: String = decode(large, 9).expect("as encoded");
        assert_eq!(text.as_ptr(), place);
    }

    #[test]
    fn another_type_of_the_same_encoding_is_decoded_as_ever() {
        let bytes: Vec<u8> = (0..1000u32).map(|n| n as u8).collect();
        assert_eq!(
            there_and_back(&ByteBuf::from(bytes.clone())),
            Ok(bytes.clone())
        );
        assert_eq!(there_and_back(&bytes), Ok(ByteBuf::from(bytes.clone())));
        // Its last byte before the length looks like a part of that.
        let value = (0xFFu8, ByteBuf::from(bytes.clone()));
        assert_eq!(there_and_back(&value), Ok(value));
        let longer = (ByteBuf::from(bytes), 1u8, 2u8);
        assert_eq!(
            there_and_back::<_, ByteBuf>(&longer),
            Err(Undecodable::Surplus(2))
        );
        let not_text = ByteBuf::from(vec![0xFF; 300]);
        let decoded: Result<String, _> = there_and_back(&not_text);
        assert!(matches!(decoded, Err(Undecodable::Malformed(_))));
    }

    #[test]
    fn no_claim_about_the_parts_makes_decoding_panic() {
        let value = (1u32, ByteBuf::from(vec![9; 300]), 3u32);
        let honest = encode(&value).expect("plain data");
        for lead in 0..=u8::MAX {
            for len in [0, 1, 2, 47, 48, 49, honest.bytes.len()] {
                let bytes = honest.bytes[honest.bytes.len() - len..].to_vec();
                let decoded = decode::<(u32, ByteBuf, u32)>(Large { bytes, lead }, 9);
                let is_honest = lead == honest.lead && len == honest.bytes.len();
                assert_eq!(
                    decoded.ok() == Some(value.clone()),
                    is_honest,
                    "{lead} of {len}"
                );
            }
        }
    }

    /// What comes next is a number of as many bytes as are claimed to be large.
    #[test]
    fn a_number_is_not_taken_out_of_the_large_bytes() {
        for claimed in [4, 8, 16] {
            let bytes = [vec![0; 100], vec![claimed]].concat();
            let large = || Large {
                bytes: bytes.clone(),
                lead: 1,
            };
            assert!(decode::<Vec<f64>>(large(), 9).is_err());
            assert!(decode::<Vec<f32>>(large(), 9).is_err());
            assert!(decode::<(u8, char)>(large(), 9).is_err());
            assert!(decode::<(u8, [u8; 16])>(large(), 9).is_err());
        }
    }
}
