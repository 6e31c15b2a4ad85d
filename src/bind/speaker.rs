//! Who says a hello, where the socket does not tell: of a pair the kernel knows who made it, and not who has an end of it
//! by now. It does put the sender's name to what is sent, if either end asks for that. Here it is asked for only while a
//! hello is sent, and while one is looked at: nothing else that reads has to know of it.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd};

use nix::libc;
use nix::sys::socket::{MsgFlags, recvmsg};
use rustix::io::{Errno, Result};
use rustix::net::sockopt::set_socket_passcred;
use urpc_donate::Credentials;

use crate::allow::UNMAPPED;

/// A header, of which the length comes first; then process, user and group, which is where the room ends. Descriptors
/// find none, and stay in the socket.
const HEADER: usize = size_of::<libc::cmsghdr>();
const ROOM: usize = HEADER + size_of::<libc::ucred>();

/// Whom the kernel shows where nobody has signed.
pub(super) const NOBODY: Credentials = Credentials {
    pid: 0,
    uid: UNMAPPED,
    gid: UNMAPPED,
};

/// Has the kernel sign what `send` sends. Nobody reads from `socket` meanwhile.
pub(super) fn sign<T>(socket: impl AsFd, send: impl FnOnce() -> T) -> Result<T> {
    set_socket_passcred(&socket, true)?;
    let sent = send();
    set_socket_passcred(&socket, false)?;
    Ok(sent)
}

/// Looks at what is there, up to `most` bytes of it that one process has sent: how many, and by whom.
pub(super) fn look(socket: impl AsFd, most: usize) -> Result<(usize, Credentials)> {
    let mut bytes = vec![0; most];
    let mut control = [0; ROOM];
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    set_socket_passcred(&socket, true)?;
    let fd = socket.as_fd().as_raw_fd();
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let looked = recvmsg::<()>(fd, &mut parts, Some(&mut control), flags);
    let looked = looked.map(|message| message.bytes);
    set_socket_passcred(&socket, false)?;
    let len = looked.map_err(|error| Errno::from_raw_os_error(error as i32))?;
    Ok((len, credentials(&control).unwrap_or(NOBODY)))
}

/// (Both libraries would look for descriptors behind it, and one of them cannot hold a process 0.)
fn credentials(control: &[u8; ROOM]) -> Option<Credentials> {
    let word = |at: usize| {
        let bytes = control[at..]
            .first_chunk()
            .expect("it lies within the room");
        i32::from_ne_bytes(*bytes)
    };
    let kind = (word(HEADER - 8), word(HEADER - 4));
    (kind == (libc::SOL_SOCKET, libc::SCM_CREDENTIALS)).then(|| Credentials {
        pid: word(HEADER),
        uid: word(HEADER + 4).cast_unsigned(),
        gid: word(HEADER + 8).cast_unsigned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn who_speaks_is_known_and_what_two_have_sent_is_told_apart() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        assert_eq!(look(&ours, 100), Err(Errno::AGAIN));
        sign(&theirs, || {
            theirs.try_clone().unwrap().write_all(b"hello").unwrap()
        })
        .unwrap();
        theirs.write_all(b" world").unwrap();
        let (len, who) = look(&ours, 100).unwrap();
        assert_eq!(len, 5);
        assert_eq!(who.pid.cast_unsigned(), std::process::id());
        assert_eq!(who.uid, rustix::process::getuid().as_raw());
        assert_eq!(look(&ours, 3), Ok((3, who)));
        ours.read_exact(&mut [0; 5]).unwrap();
        assert_eq!(look(&ours, 100), Ok((6, NOBODY)));
        ours.read_exact(&mut [0; 6]).unwrap();
        drop(theirs);
        assert_eq!(look(&ours, 100).unwrap().0, 0);
    }
}
