//! The parts of a value, decoded within the caps of the whole: elements, entries, variants.

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor,
};

use super::{Careful, Counted};

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Careful<'_, S> {
    type Value = S::Value;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        self.value.deserialize(self.caps.wrap(inner))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Careful<'_, A> {
    type Error = A::Error;

    #[inline]
    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        self.value.next_element_seed(self.caps.wrap(seed))
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.value.size_hint()
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Counted<'_, A> {
    type Error = A::Error;

    #[inline]
    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        let next = self.0.next_element_seed(seed)?;
        if next.is_some() {
            self.0.caps.element()?;
        }
        Ok(next)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.0.caps.hint(self.0.value.size_hint())
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Careful<'_, A> {
    type Error = A::Error;

    #[inline]
    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        self.value.next_key_seed(self.caps.wrap(seed))
    }

    #[inline]
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.value.next_value_seed(self.caps.wrap(seed))
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.value.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Counted<'_, A> {
    type Error = A::Error;

    #[inline]
    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        let next = self.0.next_key_seed(seed)?;
        if next.is_some() {
            self.0.caps.element()?;
        }
        Ok(next)
    }

    #[inline]
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.0.next_value_seed(seed)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.0.caps.hint(self.0.value.size_hint())
    }
}

impl<'c, 'de, A: EnumAccess<'de>> EnumAccess<'de> for Careful<'c, A> {
    type Error = A::Error;
    type Variant = Careful<'c, A::Variant>;

    #[inline]
    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Self::Variant), A::Error> {
        let (value, variant) = self.value.variant_seed(seed)?;
        Ok((value, self.caps.wrap(variant)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Careful<'_, A> {
    type Error = A::Error;

    #[inline]
    fn unit_variant(self) -> Result<(), A::Error> {
        self.value.unit_variant()
    }

    #[inline]
    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.value.newtype_variant_seed(self.caps.wrap(seed))
    }

    #[inline]
    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.value.tuple_variant(len, self.caps.wrap(visitor))
    }

    #[inline]
    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.value.struct_variant(fields, self.caps.wrap(visitor))
    }
}
