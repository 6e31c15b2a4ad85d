//! What the three processes say to one another: typed services, and the values that cross.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use urpc::trace::Event;

/// The file cache manager's service.
#[urpc::service]
pub(crate) trait FileCache {
    /// Opens the file at `path`: reads it from disk, unless it is cached and has not changed since.
    async fn open(&self, path: ByteBuf) -> Result<Opened, FileError>;
    /// The bytes of an open file from `offset` on: `length` of them, or fewer where it ends.
    async fn read(&self, file: u32, offset: u64, length: u32) -> Result<ByteBuf, FileError>;
    /// The file stays cached, but its number means nothing any more.
    async fn close(&self, file: u32);
}

/// A file that is open at the file cache manager.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Opened {
    pub(crate) file: u32,
    pub(crate) size: u64,
}

/// Why a file cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FileError {
    NotFound,
    Denied,
    Directory,
    /// A pipe, a device, a socket: nothing that can be kept.
    NoFile,
    TooLarge {
        limit: u64,
    },
    /// What the system says.
    Unreadable(String),
    /// No open file has this number.
    NotOpen,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("there is no such file"),
            Self::Denied => f.write_str("permission to read it is denied"),
            Self::Directory => f.write_str("this is a directory"),
            Self::NoFile => f.write_str("this is no regular file"),
            Self::TooLarge { limit } => {
                write!(
                    f,
                    "it is larger than the {} MiB that are cached",
                    limit >> 20
                )
            }
            Self::Unreadable(why) => write!(f, "it cannot be read: {why}"),
            Self::NotOpen => f.write_str("it is not open"),
        }
    }
}

/// The window manager's service.
#[urpc::service]
pub(crate) trait Windows {
    /// A new window, `width` columns wide, that remembers its first `preview` rows.
    async fn open(&self, width: u32, preview: u32) -> u32;
    /// Adds the next part of the text. False if there is no such window.
    async fn show(&self, window: u32, part: ByteBuf) -> bool;
    /// Closes the window, and says what was in it.
    async fn close(&self, window: u32) -> Option<Layout>;
}

/// What a text became in its window.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Layout {
    pub(crate) lines: u64,
    pub(crate) words: u64,
    /// Lines after wrapping.
    pub(crate) rows: u64,
    /// The first byte that is not UTF-8; such bytes are shown as U+FFFD.
    pub(crate) invalid_at: Option<u64>,
    /// The first rows, if they were asked for.
    pub(crate) preview: Vec<String>,
}

/// What every process started by the editor offers besides its service, on the same channel.
#[urpc::service]
pub(crate) trait Report {
    /// The counters of its runtime.
    async fn counts(&self) -> Counts;
    /// The next of the events that it has recorded; none after the last. Recording ends with this.
    async fn events(&self) -> Vec<Event>;
}

/// Some of [`urpc::Stats`].
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) served: u64,
    pub(crate) donations_received: u64,
    pub(crate) rings: u64,
    pub(crate) system_calls: u64,
}
