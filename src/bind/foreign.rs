//! Descriptors that peers send and nobody asked for. Closing one may take as long as whoever made it likes: a socket that
//! lingers, a file whose file system does not answer. So no thread of ours closes one that others wait for.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::io::Errno;
use rustix::net::sockopt::set_socket_linger;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, Shutdown, recvmsg, shutdown,
};

/// The kernel sends no more of them at once (SCM_MAX_FD). What there were no room for, it would close itself.
const MOST: usize = 253;
/// While so many threads close such descriptors, nothing is taken of a client that broke the protocol before.
const CLOSERS: usize = 2;

static CLOSING: AtomicUsize = AtomicUsize::new(0);

/// Closes them on a thread that ends with that.
pub(crate) fn close(fds: Vec<OwnedFd>) {
    if fds.is_empty() {
        return;
    }
    for fd in &fds {
        let _ = set_socket_linger(fd, None); // most are no sockets
    }
    CLOSING.fetch_add(1, Ordering::Relaxed);
    let thread = std::thread::Builder::new().name("urpc-close".into());
    let started = thread.spawn(move || {
        drop(fds);
        CLOSING.fetch_sub(1, Ordering::Relaxed);
    });
    if started.is_err() {
        CLOSING.fetch_sub(1, Ordering::Relaxed); // they are closed by now, on this thread
    }
}

/// Whether enough is being closed already.
pub(crate) fn is_crowded() -> bool {
    CLOSING.load(Ordering::Relaxed) >= CLOSERS
}

/// What was read.
pub(crate) struct Read {
    /// 0 at the end.
    pub(crate) bytes: usize,
    pub(crate) fds: Vec<OwnedFd>,
    /// This process may not have all of the descriptors.
    pub(crate) is_cut: bool,
}

/// Reads up to `bytes.len()` bytes that are there, and what came with them.
pub(crate) fn read(socket: impl AsFd, bytes: &mut [u8]) -> Result<Read, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let read = recvmsg(&socket, &mut [IoSliceMut::new(bytes)], &mut control, flags)?;
    let rights = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    Ok(Read {
        bytes: read.bytes,
        fds: rights.flatten().collect(),
        is_cut: read.flags.contains(ReturnFlags::CTRUNC),
    })
}

/// Has no more come in, and takes what has, so that it is not closed with the socket.
pub(crate) fn empty(socket: impl AsFd) {
    let _ = shutdown(&socket, Shutdown::Read);
    let mut bytes = [0; 4096];
    while let Ok(Read {
        bytes: 1.., fds, ..
    }) = read(&socket, &mut bytes)
    {
        close(fds);
    }
}
