//! The messages of a handshake, as they cross the socket.
//!
//! ```text
//! "urpc" | version u16 | kind u8 | reason u8 | length u32 | body (postcard) + 2 or 3 descriptors with a hello
//! ```

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use urpc_donate::Credentials;

use super::foreign::{self, Unread};
use super::{handshake, speaker};
use crate::error::{Error, ErrorKind, Result};
use crate::limits;

const MAGIC: [u8; 4] = *b"urpc";
/// Changes with every change of what crosses a channel or this handshake.
pub(crate) const VERSION: u16 = 5;
const HEADER: usize = 12;
pub(super) const HELLO: u8 = 1;
pub(super) const REFUSAL: u8 = 2;
/// The reason of a refusal, if it is that there are too many; else 0.
pub(super) const OVERLOADED: u8 = 1;
/// Outbox and presence page; and the wake page of who connects.
pub(super) const DESCRIPTORS: usize = 3;
pub(super) const TOO_MANY: &str = "it sent more descriptors than belong to a hello";

/// What one side says of itself.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) slots: u32,
    pub(super) arena: u32,
    pub(super) calls: u32,
    pub(super) window: u64,
    pub(super) max_payload: u32,
    /// Own processors: how many landings may be of use to it.
    pub(super) processors: u32,
    /// Name and signature of each procedure, in the order of their numbers.
    pub(super) offer: Vec<(String, String)>,
}

/// One message of the handshake, as far as it has come.
#[derive(Debug, Default)]
pub(crate) struct Received {
    bytes: Vec<u8>,
    /// Memory.
    fds: Vec<OwnedFd>,
    /// Who says it, if that has to be told by the message itself.
    speaker: Option<Credentials>,
}

/// A hello, and what came with it.
pub(crate) struct Said {
    pub(super) hello: Hello,
    pub(super) fds: Vec<OwnedFd>,
    /// Who has said it, if that was asked for.
    pub(crate) speaker: Option<Credentials>,
}

impl Received {
    /// One that tells who says it.
    pub(crate) fn signed() -> Self {
        Self {
            speaker: Some(speaker::NOBODY),
            ..Self::default()
        }
    }

    /// Reads what is there. True once the message is whole.
    ///
    /// # Errors
    /// If the peer is gone, or what it sends is no such message; `WouldBlock` if there is nothing.
    pub(crate) fn advance(&mut self, socket: impl AsFd) -> Result<bool> {
        loop {
            let missing = self.missing()?;
            if missing == 0 {
                return Ok(true);
            }
            let start = self.bytes.len();
            // Grown as it comes: a length is a claim.
            self.bytes.resize(start + missing.min(4096), 0);
            let read = self.read_part(&socket, start);
            let bytes = read.as_ref().map_or(0, |(bytes, _)| *bytes);
            self.bytes.truncate(start + bytes);
            match read {
                Ok((0, _)) => return Err(handshake("it hung up")),
                Ok((_, fds)) => self.fds.extend(fds),
                Err(Unread::Failed(Errno::INTR)) => {}
                Err(Unread::Failed(Errno::AGAIN)) => return Ok(false),
                Err(Unread::Failed(error)) => {
                    return Err(handshake(format!("its connection failed: {error}")));
                }
                Err(Unread::Foreign | Unread::Unasked) => {
                    let why = "what it sends along is not a memfd in ordinary memory";
                    return Err(handshake(why));
                }
                Err(Unread::Mixed) => return Err(handshake("its hello is of several processes")),
                Err(Unread::TooMany) => return Err(handshake(TOO_MANY)),
                Err(Unread::Cut) => {
                    let why = "there are no descriptors left for its memory";
                    return Err(Error::new(ErrorKind::Overloaded, why));
                }
            }
            if self.fds.len() > DESCRIPTORS {
                return Err(handshake(TOO_MANY));
            }
        }
    }

    /// Reads what one process has sent, from place `start` on.
    fn read_part(
        &mut self,
        socket: impl AsFd,
        start: usize,
    ) -> Result<(usize, Vec<OwnedFd>), Unread> {
        let mut part = &mut self.bytes[start..];
        if let Some(speaker) = &mut self.speaker {
            let (len, now) = speaker::look(&socket, part.len()).map_err(Unread::Failed)?;
            let before = std::mem::replace(speaker, now);
            if start > 0 && len > 0 && before != now {
                return Err(Unread::Mixed);
            }
            part = &mut part[..len];
        }
        foreign::read_hello(&socket, part)
    }

    fn missing(&self) -> Result<usize> {
        if self.bytes.len() < HEADER {
            return Ok(HEADER - self.bytes.len());
        }
        if self.bytes[..4] != MAGIC {
            return Err(handshake("what it sends is not this protocol"));
        }
        let length = u32::from_le_bytes(self.bytes[8..12].try_into().expect("four bytes"));
        if length as usize > limits::HELLO_BYTES {
            return Err(handshake(format!("its hello claims {length} bytes")));
        }
        Ok(HEADER + length as usize - self.bytes.len())
    }

    /// What a whole message says: a hello, or, as an error, why it is none.
    pub(crate) fn said(self) -> Result<Said> {
        let version = u16::from_le_bytes(self.bytes[4..6].try_into().expect("two bytes"));
        let kind = self.bytes[6];
        let body = &self.bytes[HEADER..];
        // A refusal is a text in every version.
        if kind == REFUSAL {
            let text = crate::wire::printable(&String::from_utf8_lossy(body));
            // Whatever it says: with another version there is nothing to be had.
            let kind = if version != VERSION {
                ErrorKind::Version
            } else if self.bytes[7] == OVERLOADED {
                ErrorKind::Overloaded
            } else {
                ErrorKind::Handshake
            };
            return Err(Error::new(kind, format!("it refused: {text}")));
        }
        if version != VERSION {
            return Err(Error::new(
                ErrorKind::Version,
                format!(
                    "it speaks version {version} of the protocol, this side version {VERSION}; \
                     build both with the same urpc"
                ),
            ));
        }
        if kind != HELLO {
            return Err(handshake(format!("message kind {kind} is none")));
        }
        let hello = crate::wire::decode_slice(body, limits::HELLO_NESTING)
            .map_err(|error| handshake(format!("its hello is not one: {error:?}")))?;
        let Self { fds, speaker, .. } = self;
        Ok(Said {
            hello,
            fds,
            speaker,
        })
    }
}

#[cfg(any(fuzzing, all(test, not(urpc_loom))))]
impl Received {
    /// Whether a whole message is a hello that could lead to a binding, its regions aside.
    pub(crate) fn into_hello(self) -> bool {
        let Ok(Said { hello, .. }) = self.said() else {
            return false;
        };
        let Hello { slots, arena, .. } = hello;
        urpc_channel::Geometry { slots, arena }.check().is_ok()
            && crate::offered::Offered::new(hello.offer).is_some()
    }
}

/// A message of this kind.
pub(super) fn frame(kind: u8, reason: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend([kind, reason]);
    bytes.extend((body.len() as u32).to_le_bytes());
    bytes.extend(body);
    bytes
}
