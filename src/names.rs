//! Names: where a server of that name listens.
//!
//! `calc` is `$URPC_DIR/calc.sock`, else `$XDG_RUNTIME_DIR/urpc/calc.sock`, else
//! `/tmp/urpc-$UID/calc.sock`; a name with a `/` is a path. A directory of ours is 0700 and must belong
//! to us. A socket file that nobody answers at, left by a killed server, is replaced; also if a child that it has
//! forked keeps the socket itself open.

use std::fs::DirBuilder;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::{Errno, ioctl_fionbio};
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use urpc_donate::Credentials;

use crate::error::{Error, ErrorKind, Result};
use crate::limits;

/// The socket's path has to fit into a `sockaddr_un`.
const LONGEST: usize = 107;

/// What a peer is called that has no name: its socket was made with this process, or given to it.
pub(crate) const INHERITED: &str = "an inherited socket";

/// The path of the socket that serves `name`.
pub(crate) fn path(name: &str) -> Result<PathBuf> {
    let bad = |why: &str| Error::new(ErrorKind::BadName, format!("`{name}` is no name: {why}"));
    if name.is_empty() || name.contains('\0') {
        return Err(bad("it must not be empty, nor contain a NUL"));
    }
    let path = if name.contains('/') {
        PathBuf::from(name)
    } else {
        directory()?.join(format!("{name}.sock"))
    };
    let length = path.as_os_str().len();
    if length > LONGEST {
        return Err(bad(&format!(
            "the path {} has {length} bytes, and a socket's has {LONGEST} at most; choose a shorter \
             name, or set URPC_DIR to a shorter directory",
            path.display()
        )));
    }
    Ok(path)
}

/// The directory of plain names; made if it is not there.
fn directory() -> Result<PathBuf> {
    let of = |variable| std::env::var_os(variable).filter(|value| !value.is_empty());
    if let Some(chosen) = of("URPC_DIR") {
        // Chosen by a person, who may share it with whom they like.
        let chosen = PathBuf::from(chosen);
        make(&chosen)?;
        return Ok(chosen);
    }
    let uid = rustix::process::geteuid().as_raw();
    let dir = match of("XDG_RUNTIME_DIR") {
        Some(runtime) => Path::new(&runtime).join("urpc"),
        None => PathBuf::from(format!("/tmp/urpc-{uid}")),
    };
    make(&dir)?;
    let meta = std::fs::symlink_metadata(&dir)
        .map_err(|error| Error::system(format!("look at {}", dir.display()), error))?;
    if !meta.is_dir() || meta.uid() != uid || meta.mode() & 0o077 != 0 {
        return Err(Error::new(
            ErrorKind::NotAllowed,
            format!(
                "{} is not a directory of user {uid} alone (mode 0700), so names there prove nothing; \
                 remove it, or set URPC_DIR",
                dir.display()
            ),
        ));
    }
    Ok(dir)
}

fn make(dir: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|error| Error::system(format!("make the directory {}", dir.display()), error))
}

/// Connects to whoever serves `name`.
pub(crate) fn connect(name: &str) -> Result<OwnedFd> {
    let path = path(name)?;
    match dial(&path, limits::HANDSHAKE) {
        Ok(socket) => Ok(socket),
        Err(error) => {
            use std::io::ErrorKind as Io;
            let path = path.display();
            Err(match error.kind() {
                Io::NotFound | Io::ConnectionRefused => Error::new(
                    ErrorKind::NoServer,
                    format!("nobody serves `{name}` (at {path}); is its server running?"),
                ),
                Io::PermissionDenied => Error::new(
                    ErrorKind::NotAllowed,
                    format!("the socket of `{name}` ({path}) may not be used by this user"),
                ),
                _ => Error::system(format!("connect to `{name}` at {path}"), error),
            })
        }
    }
}

/// A connected socket. Waits for a crowded server no longer than `limit`, whatever signals come meanwhile.
fn dial(path: &Path, limit: Duration) -> std::io::Result<OwnedFd> {
    let (until, address) = (Instant::now() + limit, SocketAddrUnix::new(path)?);
    let flags = SocketFlags::CLOEXEC;
    let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    loop {
        match until.saturating_duration_since(Instant::now()) {
            Duration::ZERO => ioctl_fionbio(&socket, true)?, // as a time limit it would be none
            left => {
                let send = net::sockopt::Timeout::Send;
                net::sockopt::set_socket_timeout(&socket, send, Some(left))?;
            }
        }
        match net::connect(&socket, &address) {
            Err(Errno::INTR) => {}
            ended => return Ok(ended.map(|()| socket)?),
        }
    }
}

/// Why the file at `path` is not to be replaced. `None` if nobody serves there any more. It waits for nobody, as others
/// wait for the directory.
fn in_use(path: &Path) -> Option<String> {
    use std::io::ErrorKind as Io;
    let served = match dial(path, Duration::ZERO) {
        Ok(socket) => !Credentials::of(&socket).is_ok_and(|server| is_gone(server.pid)),
        Err(error) => match error.kind() {
            Io::ConnectionRefused => false,
            Io::WouldBlock => true, // by a crowded server
            // Anything else than a plain refusal may be a server, or is not ours to remove.
            _ => {
                return Some(format!(
                    "what is there does not let itself be asked: {error}"
                ));
            }
        },
    };
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    match (served, is_socket) {
        (true, _) => Some("somebody serves it already".into()),
        (false, false) => Some("what is there is no socket".into()),
        (false, true) => None,
    }
}

/// The process has ended: what it listened on is open only in a forked child, which serves nobody. One that is not
/// known, of another namespace, may live.
fn is_gone(pid: i32) -> bool {
    let Some(pid) = Pid::from_raw(pid) else {
        return false;
    };
    match pidfd_open(pid, PidfdFlags::empty()) {
        // Ended, but not waited for.
        Ok(process) => {
            let at_once = Timespec::default();
            let ended = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&at_once));
            ended == Ok(1)
        }
        Err(error) => error == Errno::SRCH,
    }
}

/// A listening socket, and its file, which goes when this is dropped.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) socket: UnixListener,
    path: PathBuf,
    /// Device and inode of the file, so that nobody else's is removed.
    file: (u64, u64),
}

/// A locked directory. It is unlocked, and not just closed: a child that is forked meanwhile keeps it open.
struct Locked(OwnedFd);

impl Drop for Locked {
    fn drop(&mut self) {
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

/// Whoever may read a directory can lock it, and keep that up.
fn lock_within(directory: &Path, limit: Duration) -> std::io::Result<Locked> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(directory, flags, Mode::empty())?;
    let until = Instant::now() + limit;
    loop {
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(Errno::WOULDBLOCK) => {
                let why = format!("its directory has been locked (flock) for {limit:?}");
                return Err(std::io::Error::new(std::io::ErrorKind::TimedOut, why));
            }
            Err(Errno::INTR) => {}
            result => return Ok(result.map(|()| Locked(directory))?),
        }
    }
}

/// Listens on `name`. A file that nobody answers at is replaced.
pub(crate) fn listen(name: &str) -> Result<Listening> {
    let path = path(name)?;
    let failed = |error: std::io::Error| {
        Error::system(format!("listen on `{name}` at {}", path.display()), error)
    };
    // Two servers that find the same stale file must not both replace it: the directory is locked,
    // which leaves nothing behind.
    let dir = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let _locked = lock_within(dir, limits::HANDSHAKE).map_err(failed)?;
    let socket = match UnixListener::bind(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            if let Some(why) = in_use(&path) {
                return Err(Error::new(
                    ErrorKind::NameTaken,
                    format!("cannot serve `{name}` at {}: {why}", path.display()),
                ));
            }
            std::fs::remove_file(&path).map_err(failed)?;
            UnixListener::bind(&path)
        }
        other => other,
    }
    .map_err(failed)?;
    let meta = std::fs::symlink_metadata(&path).map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    Ok(Listening {
        socket,
        file: (meta.dev(), meta.ino()),
        path,
    })
}

impl Drop for Listening {
    fn drop(&mut self) {
        let meta = std::fs::symlink_metadata(&self.path);
        if meta.is_ok_and(|meta| (meta.dev(), meta.ino()) == self.file) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_stale_file_is_replaced_and_a_living_server_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let name = dir.path().join("a.sock").to_str().unwrap().to_owned();
        // What a killed server leaves: a bound file without a listener.
        drop(UnixListener::bind(&name).unwrap());
        assert!(Path::new(&name).exists());
        assert_eq!(connect(&name).unwrap_err().kind(), ErrorKind::NoServer);

        let first = listen(&name).unwrap();
        assert_eq!(listen(&name).unwrap_err().kind(), ErrorKind::NameTaken);
        drop(first);
        assert!(!Path::new(&name).exists());
        listen(&name).unwrap();
    }

    #[test]
    fn a_crowded_server_is_a_living_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let crowded = UnixListener::bind(&path).unwrap();
        net::listen(&crowded, 0).unwrap();
        let _crowd = UnixStream::connect(&path).unwrap();
        let error = listen(path.to_str().unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NameTaken);
        // And not that it could not be asked, after a while.
        assert!(error.to_string().contains("serves it already"), "{error}");
    }

    #[test]
    fn a_directory_is_unlocked_although_a_forked_child_has_it_open() {
        let dir = tempfile::tempdir().unwrap();
        let locked = lock_within(dir.path(), Duration::ZERO).unwrap();
        let _childs = locked.0.try_clone().unwrap();
        assert!(lock_within(dir.path(), Duration::ZERO).is_err());
        drop(locked);
        lock_within(dir.path(), Duration::ZERO).unwrap();
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        std::fs::write(&path, "precious").unwrap();
        let error = listen(path.to_str().unwrap()).unwrap_err();
        assert_eq!(std::fs::read(&path).unwrap(), b"precious", "{error}");
    }

    #[test]
    fn a_name_says_why_it_is_none() {
        for name in ["", "a\0b", &"x".repeat(200)] {
            let error = path(name).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BadName, "{error}");
        }
    }
}
