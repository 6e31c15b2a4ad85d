//! The file cache manager: reads files from disk once, and serves ranges of them from memory.
//!
//! It has no processor of its own. A range is served at once, on the processor of whoever asked. Reading
//! from disk may block, so it happens off the processors: meanwhile a lent one goes back.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::OFlags;
use serde_bytes::ByteBuf;

use crate::process;
use crate::protocol::{FileCache, FileCacheServer, FileError, Opened};

/// Larger files are refused: one of them must not push out all others.
const LARGEST: u64 = 64 << 20;

/// Bytes kept for files that nobody has open.
const KEPT: u64 = 4 * LARGEST;

/// What one call can ask for.
const LONGEST_RANGE: u64 = 1 << 20;

/// The process.
pub(crate) fn run() -> urpc::Result<()> {
    process::serve(0, FileCacheServer::new(Cache::default()))
}

#[derive(Default)]
struct Cache(Mutex<State>);

#[derive(Default)]
struct State {
    by_path: HashMap<PathBuf, Arc<Cached>>,
    open: HashMap<u32, Arc<Cached>>,
    last: u32,
}

/// A file as it was when it was read.
struct Cached {
    stamp: Stamp,
    bytes: Vec<u8>,
}

/// What changes with a file's content, as far as the file system tells.
#[derive(PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileCache for Cache {
    async fn open(&self, path: ByteBuf) -> Result<Opened, FileError> {
        let path = PathBuf::from(OsString::from_vec(path.into_vec()));
        let known = self.state().by_path.get(&path).cloned();
        let (path, cached) =
            urpc::unblock(move || load(&path, known).map(|cached| (path, cached))).await?;
        let mut state = self.state();
        state.keep(path, &cached);
        Ok(state.open(cached))
    }

    async fn read(&self, file: u32, offset: u64, length: u32) -> Result<ByteBuf, FileError> {
        let cached = self.state().open.get(&file).cloned();
        let cached = cached.ok_or(FileError::NotOpen)?;
        let size = cached.bytes.len() as u64;
        let begin = offset.min(size);
        let end = size.min(begin + u64::from(length).min(LONGEST_RANGE));
        Ok(ByteBuf::from(&cached.bytes[begin as usize..end as usize]))
    }

    async fn close(&self, file: u32) {
        self.state().open.remove(&file);
    }
}

impl Cache {
    /// Never held across an await: a handler may go on in another thread.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn open(&mut self, cached: Arc<Cached>) -> Opened {
        let size = cached.bytes.len() as u64;
        while self.open.contains_key(&self.last) {
            self.last = self.last.wrapping_add(1);
        }
        let file = self.last;
        self.last = self.last.wrapping_add(1);
        self.open.insert(file, cached);
        Opened { file, size }
    }

    /// Remembers a file by its path, and forgets closed ones if it gets too much.
    fn keep(&mut self, path: PathBuf, cached: &Arc<Cached>) {
        self.by_path.insert(path, Arc::clone(cached));
        let all = self.by_path.values();
        if all.map(|cached| cached.bytes.len() as u64).sum::<u64>() > KEPT {
            // One count is the map's own.
            self.by_path
                .retain(|_, cached| Arc::strong_count(cached) > 1);
        }
    }
}

/// Reads the file at `path`, unless `known` still is what is there.
fn load(path: &Path, known: Option<Arc<Cached>>) -> Result<Arc<Cached>, FileError> {
    // Not waiting: opening a pipe waits for its writer.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed())
        .open(path)
        .map_err(|error| why(&error))?;
    let meta = file.metadata().map_err(|error| why(&error))?;
    if meta.is_dir() {
        return Err(FileError::Directory);
    }
    if !meta.is_file() {
        return Err(FileError::NoFile);
    }
    let stamp = Stamp::of(&meta);
    match known {
        // What the kernel makes up at each reading has size 0.
        Some(known) if stamp.size > 0 && known.stamp == stamp => Ok(known),
        _ => {
            let bytes = read(file, stamp.size)?;
            Ok(Arc::new(Cached { stamp, bytes }))
        }
    }
}

fn read(file: File, size: u64) -> Result<Vec<u8>, FileError> {
    let too_large = FileError::TooLarge { limit: LARGEST };
    if size > LARGEST {
        return Err(too_large);
    }
    let mut bytes = Vec::with_capacity(size as usize);
    // It may have grown meanwhile, and sizes in /proc say nothing.
    let mut bounded = file.take(LARGEST + 1);
    bounded
        .read_to_end(&mut bytes)
        .map_err(|error| why(&error))?;
    if bytes.len() as u64 > LARGEST {
        return Err(too_large);
    }
    Ok(bytes)
}

impl Stamp {
    fn of(meta: &Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

fn why(error: &io::Error) -> FileError {
    match error.kind() {
        io::ErrorKind::NotFound => FileError::NotFound,
        io::ErrorKind::PermissionDenied => FileError::Denied,
        io::ErrorKind::IsADirectory => FileError::Directory,
        _ => FileError::Unreadable(error.to_string()),
    }
}
