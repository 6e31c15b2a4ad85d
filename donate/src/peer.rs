//! Who the peer is, by the kernel's word: credentials from the socket, a pidfd where there is one.
//!
//! Asked once, at binding (R4, R20). Nothing a peer writes later can change it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{getsockopt, sockopt};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// Who somebody is, by the kernel's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Process id, in this process's namespace; 0 if it is outside of that.
    pub pid: i32,
    /// User id; the effective one at the moment it connected or listened.
    pub uid: u32,
    /// Group id, likewise.
    pub gid: u32,
}

impl Credentials {
    /// Asks the kernel who was at the other end of `socket` when it was connected; of a pair of sockets, who made it. Takes
    /// no descriptor.
    ///
    /// # Errors
    /// If the kernel does not tell: then the peer must not be believed anything.
    pub fn of(socket: impl AsFd) -> std::io::Result<Self> {
        // (rustix has a type for it that cannot be 0.)
        let peer = getsockopt(&socket, sockopt::PeerCredentials)?;
        Ok(Self {
            pid: peer.pid(),
            uid: peer.uid(),
            gid: peer.gid(),
        })
    }
}

/// The process at the other end of a socket.
#[derive(Debug)]
pub struct PeerProcess {
    credentials: Credentials,
    pidfd: Option<OwnedFd>,
}

impl PeerProcess {
    /// The process that `credentials` name, of a socket that is connected still.
    #[must_use]
    pub fn of(credentials: Credentials) -> Self {
        // The socket still being connected does not prove that the pid is not reused; what we use
        // the pidfd for (noticing death, R7) only becomes slower if it names somebody else, since
        // the socket's hang-up is watched as well.
        let pid = Pid::from_raw(credentials.pid);
        let pidfd = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        Self { credentials, pidfd }
    }

    /// The peer's credentials.
    #[must_use]
    pub fn credentials(&self) -> Credentials {
        self.credentials
    }

    /// Readable once the process is dead. `None` where the kernel gave none (another namespace).
    #[must_use]
    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().map(AsFd::as_fd)
    }
}

#[cfg(all(test, not(urpc_loom)))]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn the_kernel_tells_who_is_there() {
        let (a, _b) = UnixStream::pair().unwrap();
        let peer = PeerProcess::of(Credentials::of(&a).unwrap());
        assert_eq!(peer.credentials().pid as u32, std::process::id());
        assert!(peer.pidfd().is_some());
    }
}
