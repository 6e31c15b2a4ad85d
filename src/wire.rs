//! What a message means: the codec of arguments and replies, the status of a failed call, and time.
//!
//! The codec is postcard, behind the two functions [`encode`] and [`decode`]; nothing else outside of this folder
//! knows it. Decoding never reads beyond the bytes received, has caps (`careful.rs`), and bytes left over are an error.

mod careful;
mod large;
mod small;
mod taking;
mod why;

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use urpc_channel::{Body, Large};

use crate::error::{CallError, CallErrorKind, Executed};

/// Encodes `value` as `body`; a small one without allocating.
#[inline]
pub(crate) fn encode<T: Serialize + ?Sized>(value: &T, body: &mut Body) -> Result<(), String> {
    match body.write(|bytes| small::encode(value, bytes)) {
        Ok(()) => Ok(()),
        Err(postcard::Error::SerializeBufferFull) => encode_large(value, body),
        Err(error) => Err(why::of(&error)),
    }
}

#[cold]
fn encode_large<T: Serialize + ?Sized>(value: &T, body: &mut Body) -> Result<(), String> {
    *body = Body::Heap(large::encode(value).map_err(|error| why::of(&error))?);
    Ok(())
}

/// Why bytes are not a value.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Undecodable {
    Malformed(String),
    Surplus(usize),
}

/// Decodes all of `body`, in which values lie at most `nesting` levels deep in one another. What it had on the heap
/// may be the value's now; nothing is left of it.
#[inline]
pub(crate) fn decode<T: DeserializeOwned>(body: &mut Body, nesting: u32) -> Result<T, Undecodable> {
    match body {
        Body::Inline(bytes) => decode_slice(bytes.as_bytes(), nesting),
        Body::Heap(large) => decode_large(std::mem::take(large), nesting),
    }
}

#[cold]
fn decode_large<T: DeserializeOwned>(large: Large, nesting: u32) -> Result<T, Undecodable> {
    large::decode(large, nesting)
}

/// Decodes all of `bytes`.
#[inline]
pub(crate) fn decode_slice<T: DeserializeOwned>(
    bytes: &[u8],
    nesting: u32,
) -> Result<T, Undecodable> {
    let caps = careful::Caps::new(bytes.len(), nesting);
    let mut decoder = postcard::Deserializer::from_bytes(bytes);
    let decoded = T::deserialize(caps.wrap(&mut decoder));
    match decoded.and_then(|value| Ok((value, decoder.finalize()?))) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(Undecodable::Surplus(rest.len())),
        Err(error) => Err(malformed(&caps, &error)),
    }
}

#[cold]
fn malformed(caps: &careful::Caps, error: &postcard::Error) -> Undecodable {
    let why = caps.broken().map(|excess| excess.to_string());
    Undecodable::Malformed(why.unwrap_or_else(|| why::of(error)))
}

/// What a peer said, as it may be shown: without anything that a terminal could obey.
pub(crate) fn printable(text: &str) -> String {
    let shown = |c: char| match c {
        '"' | '\'' | '\\' => c.into(),
        _ => c.escape_debug().to_string(),
    };
    text.chars().map(shown).collect()
}

/// Why a call failed, as the peer that should have run it says. The number crosses in the slot's
/// procedure field, a text in its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Status {
    UnknownProcedure = 1,
    Undecodable = 2,
    Surplus = 3,
    Panicked = 4,
    ReplyTooLarge = 5,
    Unencodable = 6,
    /// The handler's task was dropped: cancelled, or its runtime ended.
    Abandoned = 7,
    /// It was never started.
    NotStarted = 8,
    ShuttingDown = 9,
    /// It was never started: the peer, or this client of it, has as much to do as is allowed.
    Overloaded = 10,
    /// It was never started: it came after its deadline.
    Late = 11,
    /// It has run, and its reply cannot be held until there is room for it.
    NoRoom = 12,
}

impl Status {
    fn from_code(code: u16) -> Option<Self> {
        use Status::*;
        [
            UnknownProcedure,
            Undecodable,
            Surplus,
            Panicked,
            ReplyTooLarge,
            Unencodable,
            Abandoned,
            NotStarted,
            ShuttingDown,
            Overloaded,
            Late,
            NoRoom,
        ]
        .into_iter()
        .find(|status| *status as u16 == code)
    }

    /// The error a caller gets. `None` if there is no such status: a violation.
    pub(crate) fn into_error(code: u16, text: &[u8]) -> Option<CallError> {
        use CallErrorKind as Kind;
        let (kind, executed) = match Self::from_code(code)? {
            Self::UnknownProcedure => (Kind::UnknownProcedure, Executed::No),
            Self::Undecodable => (Kind::UndecodableArguments, Executed::No),
            Self::Surplus => (Kind::SurplusBytes, Executed::No),
            Self::Panicked => (Kind::Panicked, Executed::Yes),
            Self::ReplyTooLarge => (Kind::ReplyTooLarge, Executed::Yes),
            Self::Unencodable => (Kind::Encode, Executed::Yes),
            Self::Abandoned => (Kind::Abandoned, Executed::Maybe),
            Self::NotStarted => (Kind::Abandoned, Executed::No),
            Self::ShuttingDown => (Kind::ShuttingDown, Executed::No),
            Self::Overloaded => (Kind::Overloaded, Executed::No),
            Self::Late => (Kind::Deadline, Executed::No),
            Self::NoRoom => (Kind::Overloaded, Executed::Yes),
        };
        // Any bytes are a text to us, if not a pretty one, and as many as a person reads.
        let text = String::from_utf8_lossy(&text[..text.len().min(MAX_TEXT)]);
        Some(CallError::new(kind, executed, printable(&text)))
    }
}

/// The text of a failure is cut after so many bytes: it is for a person, who has read enough by then.
pub(crate) const MAX_TEXT: usize = 1024;

/// A point of CLOCK_MONOTONIC in nanoseconds: the same for all processes of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Nanos(pub(crate) u64);

impl Nanos {
    pub(crate) const NEVER: Nanos = Nanos(u64::MAX);

    pub(crate) fn now() -> Self {
        Self::read(rustix::time::ClockId::Monotonic)
    }

    /// A few nanoseconds to read, some milliseconds late.
    pub(crate) fn coarse() -> Self {
        Self::read(rustix::time::ClockId::MonotonicCoarse)
    }

    fn read(clock: rustix::time::ClockId) -> Self {
        let t = rustix::time::clock_gettime(clock);
        Self(t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64)
    }

    pub(crate) fn after(self, d: Duration) -> Self {
        Self(
            self.0
                .saturating_add(d.as_nanos().try_into().unwrap_or(u64::MAX)),
        )
    }

    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// How a deadline travels that is seen `now`: milliseconds, modulo 2³² (49 days), and rather a moment late than
    /// early; 0 is none, and one so far away that the other side could take it for the past.
    pub(crate) fn to_wire(self, now: Self) -> u32 {
        const FARTHEST: Duration = Duration::from_hours(24 * 24);
        if self.since(now) > FARTHEST {
            return 0;
        }
        (self.0.div_ceil(1_000_000) as u32).max(1)
    }

    /// The deadline `wire` means, seen from `self`. What lies more than half the range back or ahead
    /// is the other way round: a claim about time can shorten a call, never lengthen it beyond that.
    pub(crate) fn deadline(self, wire: u32) -> Self {
        if wire == 0 {
            return Self::NEVER;
        }
        let now_ms = self.0 / 1_000_000;
        let ahead = wire.wrapping_sub(now_ms as u32) as i32;
        Self(
            now_ms
                .saturating_add_signed(ahead.into())
                .saturating_mul(1_000_000),
        )
    }

    pub(crate) fn to_instant(self) -> Option<std::time::Instant> {
        (self != Self::NEVER).then(|| std::time::Instant::now() + self.since(Self::now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded_and_surplus_is_counted() {
        let mut body = Body::EMPTY;
        encode(&(2i64, "three"), &mut body).unwrap();
        let decoded = decode(&mut body, 1);
        assert_eq!(decoded, Ok((2i64, "three".to_string())));
        let decoded = decode::<i64>(&mut body, 0);
        assert_eq!(decoded, Err(Undecodable::Surplus(6)));
        encode(&vec![7u8; 1000], &mut body).unwrap();
        assert_eq!(decode(&mut body, 1), Ok(vec![7u8; 1000]));
    }

    fn why<T: DeserializeOwned + std::fmt::Debug>(bytes: &[u8], nesting: u32) -> String {
        match decode_slice::<T>(bytes, nesting) {
            Err(Undecodable::Malformed(why)) => why,
            other => panic!("it is malformed: {other:?}"),
        }
    }

    #[test]
    fn half_a_value_is_malformed() {
        why::<(u8, u8)>(&[1], 9);
    }

    /// Lists in lists.
    #[derive(Debug, PartialEq, Serialize, serde::Deserialize)]
    struct Tree(Vec<Tree>);

    #[test]
    fn values_that_lie_too_deep_in_one_another_are_malformed_before_the_stack_is_full() {
        // A million lists of one list each.
        let said = why::<Tree>(&[1; 1 << 20], 128);
        assert!(said.contains("more than 128 levels"), "{said}");
        // Each takes a level as a struct, and one as a list.
        let deep = |lists: usize| [vec![1; lists - 1], vec![0]].concat();
        assert!(decode_slice::<Tree>(&deep(64), 128).is_ok());
        why::<Tree>(&deep(65), 128);
        let wide = [vec![100], vec![0; 100]].concat();
        assert!(decode_slice::<Tree>(&wide, 4).is_ok());
    }

    #[test]
    fn every_kind_of_value_that_has_values_in_it_counts_as_a_level() {
        #[derive(Debug, serde::Deserialize)]
        enum List {
            End,
            #[expect(dead_code)]
            More {
                next: Box<List>,
            },
        }
        #[derive(Debug, serde::Deserialize)]
        #[expect(dead_code)]
        struct Chain(Option<Box<Chain>>);
        type Maps = std::collections::BTreeMap<u8, (u8, Option<[u8; 1]>)>;
        why::<List>(&[1; 1 << 20], 100);
        why::<Chain>(&[1; 1 << 20], 100);
        assert!(decode_slice::<List>(&[1, 1, 0], 5).is_ok());
        why::<List>(&[1, 1, 0], 4);
        assert!(decode_slice::<Chain>(&[1, 0], 3).is_ok());
        assert!(decode_slice::<Maps>(&[1, 1, 1, 1, 1], 4).is_ok());
        why::<Maps>(&[1, 1, 1, 1, 1], 3);
    }

    #[test]
    fn elements_without_bytes_are_counted() {
        let claims = postcard::to_allocvec(&u64::MAX).unwrap();
        why::<Vec<()>>(&claims, 9);
        why::<Vec<Vec<u64>>>(&claims, 9);
        why::<std::collections::HashMap<(), ()>>(&claims, 9);
        assert_eq!(decode_slice(&[100], 1), Ok(vec![(); 100]));
    }

    #[test]
    fn what_a_peer_said_is_shown_as_it_is_but_for_what_a_terminal_obeys() {
        assert_eq!(printable("can't open \"ü\""), "can't open \"ü\"");
        assert_eq!(printable("\u{1b}[2J\n"), "\\u{1b}[2J\\n");
    }

    #[test]
    fn an_unknown_status_is_no_error_but_a_violation() {
        assert!(Status::into_error(0, b"").is_none());
        assert!(Status::into_error(99, b"").is_none());
        let error = |text: &[u8]| Status::into_error(Status::Panicked as u16, text).unwrap();
        assert_eq!(error(&[0xFF, b'!']).executed(), Executed::Yes);
        let long = error(&[b'x'; 1 << 20]).to_string();
        assert!((MAX_TEXT..2 * MAX_TEXT).contains(&long.len()));
    }

    #[test]
    fn a_deadline_survives_the_wire_across_a_wrap() {
        for start in [0, 5, u64::from(u32::MAX), 1 << 40] {
            let now = Nanos(start * 1_000_000);
            let at = now.after(Duration::from_secs(30));
            assert_eq!(now.deadline(at.to_wire(now)), at);
            // What is too far away to be told is none there.
            for days in [25, 30, 49, 365] {
                let at = now.after(Duration::from_hours(24 * days));
                assert_eq!(now.deadline(at.to_wire(now)), Nanos::NEVER);
            }
            assert_eq!(now.deadline(Nanos::NEVER.to_wire(now)), Nanos::NEVER);
        }
    }
}
