//! What a peer can say at binding, and as arguments, made of any bytes: each ends in a value, in an error or in a
//! refusal, within a bounded number of steps.
//!
//! The targets under `fuzz/` look for bytes that are new to the code; the tests here make theirs from a seed.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::io::{IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::{Deserialize, Serialize};
use urpc_channel::{Body, Large};

use crate::bind::Received;
use crate::wire;

thread_local! {
    static NULL: std::fs::File = std::fs::File::open("/dev/null").expect("it is there");
}

/// A message of the handshake, sent in pieces of so many bytes (all at once, if 0), with so many descriptors.
/// Says whether it was a hello.
pub fn handshake(message: &[u8], piece: u8, descriptors: u8) -> bool {
    let (ours, theirs) = UnixStream::pair().expect("two sockets");
    let mut received = Received::default();
    let size = match usize::from(piece) {
        0 => message.len().max(1),
        piece => piece,
    };
    for (nth, piece) in message.chunks(size).enumerate() {
        if nth == 0 && descriptors > 0 {
            NULL.with(|null| send(&theirs, piece, &vec![null.as_fd(); descriptors.into()]));
        } else if (&theirs).write_all(piece).is_err() {
            return false;
        }
        match received.advance(&ours) {
            Ok(false) => {}
            Ok(true) => return received.into_hello(),
            Err(_) => return false,
        }
    }
    drop(theirs);
    // The end of it, or bytes that were not read yet.
    matches!(received.advance(&ours), Ok(true)) && received.into_hello()
}

fn send(socket: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(255))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
    let _ = sendmsg(
        socket,
        &[IoSlice::new(bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    );
}

/// Values of many kinds, and values in values.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Value {
    Nothing,
    Unit(()),
    Number(i64),
    Text(String),
    Pair(Box<Value>, Option<Box<Value>>),
    Many(Vec<Value>),
    Named {
        name: char,
        values: BTreeMap<u16, Value>,
    },
    Empty(Vec<()>),
}

/// Arguments of several types. Says how many of them these bytes are.
pub fn arguments(bytes: &[u8]) -> usize {
    const NESTING: u32 = 32;
    let values = [
        again::<Value>(bytes, NESTING),
        again::<Vec<Vec<String>>>(bytes, NESTING),
        again::<(u8, i128, f64, Option<bool>, [u16; 4])>(bytes, NESTING),
        again::<Vec<()>>(bytes, NESTING),
        wire::decode_slice::<HashMap<String, Vec<u64>>>(bytes, NESTING).is_ok(),
        in_parts::<(u32, String, Vec<Value>)>(bytes, NESTING),
        in_parts::<(u8, Vec<f64>, f32, char, [u8; 4])>(bytes, NESTING),
    ];
    values.into_iter().filter(|value| *value).count()
}

/// Decodes a large value, of which the first byte claims how many of the last ones are to be read first.
fn in_parts<T: for<'de> Deserialize<'de>>(bytes: &[u8], nesting: u32) -> bool {
    bytes.split_first().is_some_and(|(&lead, bytes)| {
        let bytes = bytes.to_vec();
        let mut body = Body::Heap(Large { bytes, lead });
        wire::decode::<T>(&mut body, nesting).is_ok()
    })
}

/// Decodes a value. If there is one, it is the same once more after encoding.
fn again<T: Serialize + for<'de> Deserialize<'de>>(bytes: &[u8], nesting: u32) -> bool {
    let Ok(value) = wire::decode_slice::<T>(bytes, nesting) else {
        return false;
    };
    let encoded = postcard::to_allocvec(&value).expect("it was decoded");
    let decoded = wire::decode_slice::<T>(&encoded, nesting);
    let twice = decoded.map(|value| postcard::to_allocvec(&value).expect("the same"));
    assert_eq!(twice, Ok(encoded));
    true
}
