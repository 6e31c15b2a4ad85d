//! Descriptors that peers send and nobody asked for. Closing one may take as long as whoever made it likes: a socket that
//! lingers, a file whose file system does not answer. So no thread of ours closes one that others wait for.
//!
//! What comes, all of it [in line](in_line), is looked at before it is read, and what does not belong to a hello is left in
//! the socket. The kernel drops it there with the last reference to that socket, which a thread lets go of that has nothing
//! else to do.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};

use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_oobinline, socket_type};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, Shutdown, SocketType, recv,
    recvmsg, shutdown,
};
use urpc_channel::is_memory;

use super::frames::DESCRIPTORS;
use crate::node::lock;

/// Threads that close: as many closings that never end hold up no other one.
const THREADS: usize = 64;
const STACK: usize = 64 * 1024;
/// While so much waits for one of them, nobody is accepted.
const WAITING: usize = 8;

/// Why there are no bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    /// Descriptors come with them. They stay where they are, as with those below.
    Unasked,
    /// Something else than memory comes with them.
    Foreign,
    /// More descriptors come with them than belong to a hello.
    TooMany,
    /// This process may not have all of the descriptors.
    Cut,
    /// Another process has sent what comes before.
    Mixed,
    Failed(Errno),
}

/// Has what comes out of band come with the rest. Else a look passes it over, and the reading after it closes the
/// descriptors that it has. What is no stream of bytes is an error.
pub(crate) fn in_line(socket: impl AsFd) -> rustix::io::Result<()> {
    if socket_type(&socket)? != SocketType::STREAM {
        return Err(Errno::SOCKTNOSUPPORT);
    }
    set_socket_oobinline(socket, true)
}

/// Reads up to `bytes.len()` bytes that are there, 0 at the end. One thread at a time.
pub(crate) fn read(socket: impl AsFd, bytes: &mut [u8]) -> Result<usize, Unread> {
    match receive(&socket, bytes, RecvFlags::PEEK, 0)? {
        (_, _, true) => Err(Unread::Unasked),
        (0, ..) => Ok(0),
        // No more than was looked at.
        (len, ..) => Ok(receive(&socket, &mut bytes[..len], RecvFlags::empty(), 0)?.0),
    }
}

/// The same, and takes the memory that comes with them.
pub(crate) fn read_hello(
    socket: impl AsFd,
    bytes: &mut [u8],
) -> Result<(usize, Vec<OwnedFd>), Unread> {
    // Of those that are no hello's, one is enough to know.
    let (len, fds, is_cut) = receive(&socket, bytes, RecvFlags::PEEK, DESCRIPTORS + 1)?;
    // The socket has them still; but a file system may want to hear of each that is closed.
    let (memory, foreign): (Vec<_>, Vec<_>) = fds.into_iter().partition(|fd| is_memory(fd));
    if !foreign.is_empty() {
        aside(move || drop(foreign));
        return Err(Unread::Foreign);
    }
    if memory.len() > DESCRIPTORS {
        return Err(Unread::TooMany);
    }
    if is_cut {
        return Err(Unread::Cut);
    }
    if len == 0 {
        return Ok((0, Vec::new()));
    }
    match receive(&socket, &mut bytes[..len], RecvFlags::empty(), DESCRIPTORS)? {
        (len, fds, false) => Ok((len, fds)),
        _ => Err(Unread::Cut),
    }
}

/// How many bytes came, with which descriptors, up to `most` of them, and whether there were others.
fn receive(
    socket: impl AsFd,
    bytes: &mut [u8],
    flags: RecvFlags,
    most: usize,
) -> Result<(usize, Vec<OwnedFd>, bool), Unread> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS + 1))];
    let space = match most {
        0 => &mut [],
        _ => &mut space[..rustix::cmsg_space!(ScmRights(most))],
    };
    let mut control = RecvAncillaryBuffer::new(space);
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

/// Has no more come in, and lets go of the socket: on another thread, if descriptors have come in. Nobody else reads.
pub(crate) fn leave(socket: Arc<OwnedFd>) {
    let _ = shutdown(&socket, Shutdown::Read);
    let mut bytes = [0; 4096];
    loop {
        match read(&socket, &mut bytes) {
            Ok(1..) | Err(Unread::Failed(Errno::INTR)) => {}
            Ok(0) | Err(Unread::Failed(_)) => return,
            Err(_) => return aside(move || close(socket)),
        }
    }
}

/// Closes a socket, with what is in it.
fn close(socket: Arc<OwnedFd>) {
    // Who shares it would close what is left in it: then it is emptied here, where the kernel finds no room for a
    // descriptor and closes it.
    if let Err(shared) = Arc::try_unwrap(socket) {
        let mut bytes = [0; 4096];
        while let Ok((_, 1..)) | Err(Errno::INTR) = recv(&shared, &mut bytes, RecvFlags::DONTWAIT) {
        }
    }
}

type Closing = Box<dyn FnOnce() + Send>;

/// What is to be closed, and the threads that do that.
struct Closings {
    threads: usize,
    waiting: Vec<Closing>,
}

static CLOSINGS: Mutex<Closings> = Mutex::new(Closings {
    threads: 0,
    waiting: Vec::new(),
});

/// Closes something on a thread that has nothing else to do.
fn aside(closing: impl FnOnce() + Send + 'static) {
    let mut closings = lock(&CLOSINGS);
    closings.waiting.push(Box::new(closing));
    closings.begin();
}

impl Closings {
    /// Starts one more thread, if there may be one. Without one, what waits does so until the next time.
    fn begin(&mut self) {
        if self.threads < THREADS {
            let thread = std::thread::Builder::new().name("urpc-close".into());
            self.threads += usize::from(thread.stack_size(STACK).spawn(close_all).is_ok());
        }
    }
}

/// The thread: closes what waits, and ends.
fn close_all() {
    loop {
        let mut closings = lock(&CLOSINGS);
        let Some(closing) = closings.waiting.pop() else {
            closings.threads -= 1;
            return;
        };
        drop(closings);
        closing();
    }
}

/// Whether so much is being closed that nobody may bring more.
pub(crate) fn is_crowded() -> bool {
    let mut closings = lock(&CLOSINGS);
    let is_crowded = closings.waiting.len() >= WAITING;
    if is_crowded {
        closings.begin(); // there may have been no thread to be had, and nobody comes who brings more
    }
    is_crowded
}
