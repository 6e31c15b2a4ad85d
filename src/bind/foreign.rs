//! Descriptors that peers send and nobody asked for. Closing one may take as long as whoever made it likes: a socket that
//! lingers, a file whose file system does not answer. So no thread of ours closes one that others wait for.
//!
//! What comes is looked at before it is read, and is left in the socket if it is not what belongs to a hello. The kernel
//! drops it there with the last reference to that socket, which a thread lets go of that has nothing else to do.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, Shutdown, recv, recvmsg,
    shutdown,
};
use urpc_channel::is_memory;

use super::frames::DESCRIPTORS;
use crate::node::lock;

/// Threads that close: as many closings that never end hold up no other one. Each takes a stack and no descriptor.
const THREADS: usize = 64;
const STACK: usize = 64 * 1024;
/// While so many sockets wait for one of them, nobody is accepted.
const WAITING: usize = 8;

/// Why there are no bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    /// Something else than memory comes with the next ones. They stay where they are, as with those below.
    Foreign,
    /// More descriptors come with them than belong to a hello.
    TooMany,
    /// This process may not have all of the descriptors.
    Cut,
    Failed(Errno),
}

/// Reads up to `bytes.len()` bytes that are there, 0 at the end, and the memory that came with them. One thread at a time.
pub(crate) fn read(socket: impl AsFd, bytes: &mut [u8]) -> Result<(usize, Vec<OwnedFd>), Unread> {
    let (len, fds, is_cut) = receive(&socket, bytes, RecvFlags::PEEK)?;
    let looks = if !fds.iter().all(is_memory) {
        Err(Unread::Foreign)
    } else if fds.len() > DESCRIPTORS {
        Err(Unread::TooMany)
    } else if is_cut {
        Err(Unread::Cut)
    } else {
        Ok(())
    };
    drop(fds); // no last ones: the socket has them still
    looks?;
    if len == 0 {
        return Ok((0, Vec::new()));
    }
    // No more than was looked at.
    match receive(&socket, &mut bytes[..len], RecvFlags::empty())? {
        (len, fds, false) => Ok((len, fds)),
        _ => Err(Unread::Cut),
    }
}

/// How many bytes came, with which descriptors, and whether there was no room for some. Of those that are no hello's, one
/// is enough to know.
fn receive(
    socket: impl AsFd,
    bytes: &mut [u8],
    flags: RecvFlags,
) -> Result<(usize, Vec<OwnedFd>, bool), Unread> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS + 1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = flags | RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let read = recvmsg(&socket, &mut [IoSliceMut::new(bytes)], &mut control, flags);
    let read = read.map_err(Unread::Failed)?;
    let rights = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    let fds = rights.flatten().collect();
    Ok((read.bytes, fds, read.flags.contains(ReturnFlags::CTRUNC)))
}

/// Has no more come in, and lets go of the socket. What has come in is closed with it, or before, and on another thread if
/// that may take long. Nobody else reads.
pub(crate) fn leave(socket: Arc<OwnedFd>) {
    let _ = shutdown(&socket, Shutdown::Read);
    let mut bytes = [0; 4096];
    loop {
        match read(&socket, &mut bytes) {
            Ok((1.., _)) | Err(Unread::Failed(Errno::INTR)) => {}
            Ok(_) | Err(Unread::Failed(_)) => return,
            Err(_) => return close(socket),
        }
    }
}

/// Who closes, and what waits for that.
struct Closer {
    threads: usize,
    waiting: Vec<Arc<OwnedFd>>,
}

static CLOSER: Mutex<Closer> = Mutex::new(Closer {
    threads: 0,
    waiting: Vec::new(),
});

fn close(socket: Arc<OwnedFd>) {
    let mut closer = lock(&CLOSER);
    closer.waiting.push(socket);
    if closer.threads < THREADS {
        let thread = std::thread::Builder::new().name("urpc-close".into());
        // Without one it waits for the next.
        closer.threads += usize::from(thread.stack_size(STACK).spawn(close_all).is_ok());
    }
}

/// The thread: closes what waits, and ends.
fn close_all() {
    loop {
        let mut closer = lock(&CLOSER);
        let Some(socket) = closer.waiting.pop() else {
            closer.threads -= 1;
            return;
        };
        drop(closer);
        // Who shares it would close what is left in it: then it is emptied here, where the kernel finds no room for a
        // descriptor and closes it.
        if let Err(shared) = Arc::try_unwrap(socket) {
            let mut bytes = [0; 4096];
            while let Ok((_, 1..)) | Err(Errno::INTR) =
                recv(&shared, &mut bytes, RecvFlags::DONTWAIT)
            {}
        }
    }
}

/// Whether so much is being closed that nobody may bring more.
pub(crate) fn is_crowded() -> bool {
    lock(&CLOSER).waiting.len() >= WAITING
}
