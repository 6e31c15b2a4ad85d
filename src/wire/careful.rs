//! Decoding with caps: how deep values may lie in one another, and how many elements may be claimed.
//!
//! The codec checks that bytes are there before it takes them. What it does not bound is what a type allows
//! to be said in few bytes: a list in a list in a list, until the stack is full, or 2⁶⁴ elements that take no
//! bytes at all. So every value in a value is counted here, and every element of a list or map. Nothing is
//! allocated for more elements than the message has bytes.

mod parts;

use std::cell::Cell;
use std::fmt;

use serde::Deserializer;
use serde::de::{EnumAccess, Error, MapAccess, SeqAccess, Visitor};

/// Elements that may take no bytes, in one message.
const EMPTY_ELEMENTS: u64 = 4096;

/// What one message may still ask for.
#[derive(Debug)]
pub(super) struct Caps {
    nesting: u32,
    depth: Cell<u32>,
    /// As many as there are bytes, and [`EMPTY_ELEMENTS`].
    elements: Cell<u64>,
    broken: Cell<Option<Excess>>,
}

/// Which cap was exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Excess {
    Depth(u32),
    Elements,
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Depth(levels) => write!(
                f,
                "values lie in one another, more than {levels} levels deep; \
                 `Builder::max_nesting` allows more"
            ),
            Self::Elements => f.write_str("it claims more elements than its bytes can hold"),
        }
    }
}

impl Caps {
    /// For a message of so many bytes.
    pub(super) fn new(bytes: usize, nesting: u32) -> Self {
        Self {
            nesting,
            depth: Cell::new(0),
            elements: Cell::new((bytes as u64).saturating_add(EMPTY_ELEMENTS)),
            broken: Cell::new(None),
        }
    }

    /// `value`, decoded within these caps.
    #[inline]
    pub(super) fn wrap<T>(&self, value: T) -> Careful<'_, T> {
        Careful { value, caps: self }
    }

    /// Which cap ended the decoding, if one did.
    pub(super) fn broken(&self) -> Option<Excess> {
        self.broken.get()
    }

    #[cold]
    fn exceed<E: Error>(&self, what: Excess) -> E {
        self.broken.set(Some(what));
        E::custom(what)
    }

    /// Runs `f` one level deeper.
    #[inline]
    fn deeper<R, E: Error>(&self, f: impl FnOnce() -> Result<R, E>) -> Result<R, E> {
        let depth = self.depth.get();
        if depth >= self.nesting {
            return Err(self.exceed(Excess::Depth(self.nesting)));
        }
        self.depth.set(depth + 1);
        let result = f();
        self.depth.set(depth);
        result
    }

    #[inline]
    fn element<E: Error>(&self) -> Result<(), E> {
        match self.elements.get().checked_sub(1) {
            Some(left) => self.elements.set(left),
            None => return Err(self.exceed(Excess::Elements)),
        }
        Ok(())
    }

    /// How many elements to make room for when so many are claimed.
    fn hint(&self, claimed: Option<usize>) -> Option<usize> {
        let bytes = self.elements.get().saturating_sub(EMPTY_ELEMENTS);
        claimed.map(|claimed| claimed.min(usize::try_from(bytes).unwrap_or(usize::MAX)))
    }
}

/// Part of a decoder, or of what is to be decoded, within caps.
pub(super) struct Careful<'c, T> {
    value: T,
    caps: &'c Caps,
}

/// The same, for what is told a number of elements by the peer.
struct Counted<'c, T>(Careful<'c, T>);

macro_rules! as_it_is {
    ($($method:ident)*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.value.$method(visitor)
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Careful<'_, D> {
    type Error = D::Error;

    // These contain nothing.
    as_it_is! {
        deserialize_bool
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
        deserialize_f32 deserialize_f64 deserialize_char
        deserialize_str deserialize_string deserialize_bytes deserialize_byte_buf
        deserialize_unit deserialize_identifier
    }

    #[inline]
    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.value.deserialize_unit_struct(name, visitor)
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let visitor = Counted(self.caps.wrap(visitor));
        self.value.deserialize_any(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let visitor = Counted(self.caps.wrap(visitor));
        self.value.deserialize_ignored_any(visitor)
    }

    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.value.deserialize_option(self.caps.wrap(visitor))
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let visitor = self.caps.wrap(visitor);
        self.value.deserialize_newtype_struct(name, visitor)
    }

    #[inline]
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let visitor = Counted(self.caps.wrap(visitor));
        self.value.deserialize_seq(visitor)
    }

    #[inline]
    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.value.deserialize_tuple(len, self.caps.wrap(visitor))
    }

    #[inline]
    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let visitor = self.caps.wrap(visitor);
        self.value.deserialize_tuple_struct(name, len, visitor)
    }

    #[inline]
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let visitor = Counted(self.caps.wrap(visitor));
        self.value.deserialize_map(visitor)
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let visitor = self.caps.wrap(visitor);
        self.value.deserialize_struct(name, fields, visitor)
    }

    #[inline]
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let visitor = self.caps.wrap(visitor);
        self.value.deserialize_enum(name, variants, visitor)
    }

    fn is_human_readable(&self) -> bool {
        self.value.is_human_readable()
    }
}

/// How many elements a type has is not the peer's to say.
impl<'de, V: Visitor<'de>> Visitor<'de> for Careful<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.expecting(f)
    }

    #[inline]
    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.value.visit_none()
    }

    #[inline]
    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.value.visit_unit()
    }

    #[inline]
    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        let caps = self.caps;
        caps.deeper(|| self.value.visit_some(caps.wrap(inner)))
    }

    #[inline]
    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        let caps = self.caps;
        caps.deeper(|| self.value.visit_newtype_struct(caps.wrap(inner)))
    }

    #[inline]
    fn visit_seq<A: SeqAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let caps = self.caps;
        caps.deeper(|| self.value.visit_seq(caps.wrap(inner)))
    }

    #[inline]
    fn visit_map<A: MapAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let caps = self.caps;
        caps.deeper(|| self.value.visit_map(caps.wrap(inner)))
    }

    #[inline]
    fn visit_enum<A: EnumAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let caps = self.caps;
        caps.deeper(|| self.value.visit_enum(caps.wrap(inner)))
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Counted<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.value.expecting(f)
    }

    #[inline]
    fn visit_seq<A: SeqAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let Careful { value, caps } = self.0;
        caps.deeper(|| value.visit_seq(Counted(caps.wrap(inner))))
    }

    #[inline]
    fn visit_map<A: MapAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let Careful { value, caps } = self.0;
        caps.deeper(|| value.visit_map(Counted(caps.wrap(inner))))
    }
}
