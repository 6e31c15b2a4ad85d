//! Why a value cannot cross, said to whoever wrote its type: the codec says only what it met.

use postcard::Error;

/// What is wrong with a value, or with what should be one.
#[cold]
pub(super) fn of(error: &Error) -> String {
    match error {
        Error::WontImplement => {
            "a type in it asks what comes next (serde's `untagged`, `tag`, `flatten`, or `serde_json::Value`), \
             which the encoding does not say: use a plain enum or struct"
                .into()
        }
        Error::SerializeSeqLengthUnknown => {
            "a list or map in it does not say its length first (serde's `flatten` makes one): use a `Vec`, a map \
             of std, or a plain struct"
                .into()
        }
        Error::SerdeSerCustom | Error::CollectStrError => "a `Serialize` in it refuses this value".into(),
        Error::SerdeDeCustom => {
            "a `Deserialize` in it refuses this value, or the sender has another type".into()
        }
        other => format!(
            "the sender has another type, or leaves fields out (serde's `skip_serializing_if`): {other}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU8;

    use serde::de::DeserializeOwned;
    use serde::{Deserialize, Serialize};
    use urpc_channel::Body;

    use crate::wire::{Undecodable, decode, encode};

    /// What is said of `value` as a `U`.
    #[track_caller]
    fn said<U: DeserializeOwned>(value: &impl Serialize) -> String {
        let mut body = Body::EMPTY;
        let encoded = encode(value, &mut body);
        let decoded = encoded
            .map_err(Undecodable::Malformed)
            .and_then(|()| decode::<U>(&mut body, 9));
        match decoded {
            Err(Undecodable::Malformed(why)) => why,
            Err(Undecodable::Surplus(_)) => panic!("surplus"),
            Ok(_) => panic!("it crosses"),
        }
    }

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Untagged {
        Number(u8),
    }

    #[derive(Serialize, Deserialize)]
    #[serde(tag = "kind")]
    enum Tagged {
        Number { number: u8 },
    }

    #[derive(Serialize, Deserialize)]
    struct Flat {
        #[serde(flatten)]
        inner: Skipping,
    }

    #[derive(Serialize, Deserialize)]
    struct Skipping {
        #[serde(skip_serializing_if = "Option::is_none")]
        number: Option<u8>,
    }

    #[test]
    fn a_type_that_wants_to_be_told_what_comes_is_named() {
        let asks = "asks what comes next";
        assert!(said::<Untagged>(&Untagged::Number(1)).contains(asks));
        assert!(said::<Tagged>(&Tagged::Number { number: 1 }).contains(asks));
        assert!(said::<serde_json::Value>(&serde_json::json!([1])).contains(asks));
    }

    #[test]
    fn the_sender_knows_of_what_has_no_length() {
        let inner = Skipping { number: None };
        let mut body = Body::EMPTY;
        let why = encode(&Flat { inner }, &mut body).expect_err("it has no length");
        assert!(why.contains("`flatten`"), "{why}");
    }

    #[test]
    fn bytes_of_another_type_are_called_that() {
        let why = said::<Skipping>(&Skipping { number: None });
        assert!(why.contains("`skip_serializing_if`"), "{why}");
        assert!(said::<Option<u8>>(&7u8).contains("another"));
        assert!(said::<NonZeroU8>(&0u8).contains("refuses"));
    }
}
