//! What can go wrong, said so that a person knows what to do: what failed, on which name, why.
//!
//! Every error of a call answers one question above all: *can it have run?* ([`Executed`]). A call is
//! never sent a second time behind its caller's back.

use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use urpc_executor::{Elapsed, JoinError};

/// The result of everything but a call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Whether the procedure can have run, although its call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Executed {
    /// It has not run and will not.
    No,
    /// Nobody can tell: the request had left, and no answer came.
    Maybe,
    /// It has run, or at least begun to.
    Yes,
}

/// What kind of failure a [`CallError`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CallErrorKind {
    /// The channel is closed: the peer died, left, or broke the protocol.
    Closed,
    /// The call's deadline passed.
    Deadline,
    /// The encoded arguments exceed what the two sides agreed on. Nothing was sent.
    TooLarge,
    /// The peer offers no procedure of this name.
    UnknownProcedure,
    /// The peer's procedure has another signature than this client was built for.
    SignatureMismatch,
    /// The arguments, or the result, could not be encoded.
    Encode,
    /// The peer could not decode the arguments.
    UndecodableArguments,
    /// The peer decoded the arguments and bytes were left over: it expects other types.
    SurplusBytes,
    /// The reply could not be decoded as the expected type.
    UndecodableReply,
    /// The handler panicked.
    Panicked,
    /// The reply was larger than the two sides agreed on.
    ReplyTooLarge,
    /// The peer gave the call up: its task was dropped.
    Abandoned,
    /// The peer is shutting down and takes no more calls.
    ShuttingDown,
    /// This process was forked off the one that owns the channel.
    Forked,
    /// The peer has as much to do, or holds as many replies, as it allows, for this client or for all of them.
    Overloaded,
}

/// A call that failed. See [`executed`](Self::executed) first.
///
/// ```
/// # fn show(error: urpc::CallError) {
/// use urpc::Executed;
/// match error.executed() {
///     Executed::No => println!("safe to try again: {error}"),
///     Executed::Maybe | Executed::Yes => println!("look before trying again: {error}"),
/// }
/// # }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct CallError(Box<Inner>);

#[derive(Clone, PartialEq, Eq)]
struct Inner {
    kind: CallErrorKind,
    executed: Executed,
    procedure: String,
    peer: String,
    why: String,
}

impl CallError {
    pub(crate) fn new(kind: CallErrorKind, executed: Executed, why: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            executed,
            procedure: String::new(),
            peer: String::new(),
            why: why.into(),
        }))
    }

    /// Says which call of which peer it was, unless that is known.
    pub(crate) fn of(mut self, procedure: &str, peer: &str) -> Self {
        if !self.0.procedure.is_empty() {
            return self;
        }
        self.0.procedure = procedure.into();
        self.0.peer = peer.into();
        self
    }

    pub(crate) fn deadline(after: Duration, sent: bool) -> Self {
        let executed = if sent { Executed::Maybe } else { Executed::No };
        let doing = if sent { "no reply" } else { "no room to send" };
        let why =
            format!("{doing} within {after:?}; raise it with `.timeout(…)` if that is too short");
        Self::new(CallErrorKind::Deadline, executed, why)
    }

    /// The deadline was that of the call that is being served.
    pub(crate) fn inherited_deadline(sent: bool) -> Self {
        let executed = if sent { Executed::Maybe } else { Executed::No };
        let why = "the call that is being served has a deadline, which has passed";
        Self::new(CallErrorKind::Deadline, executed, why)
    }

    pub(crate) fn forked() -> Self {
        Self::new(
            CallErrorKind::Forked,
            Executed::No,
            "this process was forked after the channel was bound, and channels are not inherited; \
             start the child with `exec`, and connect there",
        )
    }

    /// Whether the procedure can have run.
    #[must_use]
    pub fn executed(&self) -> Executed {
        self.0.executed
    }

    /// The kind of failure, for programs.
    #[must_use]
    pub fn kind(&self) -> CallErrorKind {
        self.0.kind
    }

    /// The procedure that was called.
    #[must_use]
    pub fn procedure(&self) -> &str {
        &self.0.procedure
    }

    /// The name of the peer it was called on.
    #[must_use]
    pub fn peer(&self) -> &str {
        &self.0.peer
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner {
            executed,
            procedure,
            peer,
            why,
            ..
        } = &*self.0;
        let ran = match executed {
            Executed::No => "it has not run",
            Executed::Maybe => "it may have run",
            Executed::Yes => "it has run",
        };
        write!(f, "call of `{procedure}` on `{peer}` failed: {why} ({ran})")
    }
}

impl fmt::Debug for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for CallError {}

/// What kind of failure an [`Error`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Nobody serves this name.
    NoServer,
    /// Somebody serves this name already.
    NameTaken,
    /// The name cannot be one.
    BadName,
    /// The peer speaks another version of the protocol.
    Version,
    /// The peer is not one that may be spoken with.
    NotAllowed,
    /// The peer did not keep to the binding protocol, or not in time.
    Handshake,
    /// The peer's procedures are not those this client was built for.
    SignatureMismatch,
    /// The operating system refused something.
    System,
    /// A call failed; [`Error::call`] has it.
    Call,
    /// A task panicked or was aborted.
    Join,
    /// The server was shut down before everything was done.
    Shutdown,
    /// A [time limit](crate::time::timeout) was over.
    Elapsed,
    /// An error of the program's own, which `?` has brought here; [`source`](std::error::Error::source) has it.
    Io,
    /// There are as many channels or unfinished handshakes as are allowed, or the system has nothing left for
    /// one more.
    Overloaded,
}

/// Binding, serving, or, by way of `?`, a call failed. Its `Debug` is its message, so that a `main`
/// which returns it prints something readable.
#[derive(Clone)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    cause: Option<Cause>,
}

/// What an [`Error`] was made of.
#[derive(Clone)]
enum Cause {
    Call(CallError),
    Io(Arc<io::Error>),
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            cause: None,
        }
    }

    pub(crate) fn system(doing: impl fmt::Display, why: impl fmt::Display) -> Self {
        Self::new(ErrorKind::System, format!("cannot {doing}: {why}"))
    }

    /// Like [`system`](Self::system), where what is missing may be there again later.
    pub(crate) fn scarce(doing: impl fmt::Display, why: io::Error) -> Self {
        let kind = if lacks_resources(&why) {
            ErrorKind::Overloaded
        } else {
            ErrorKind::System
        };
        Self::new(kind, format!("cannot {doing}: {why}"))
    }

    /// Says which name it was about.
    pub(crate) fn about(mut self, name: &str) -> Self {
        self.message = format!("cannot bind to `{name}`: {}", self.message);
        self
    }

    /// The kind of failure, for programs.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The call that failed, if it was one.
    #[must_use]
    pub fn call(&self) -> Option<&CallError> {
        match &self.cause {
            Some(Cause::Call(call)) => Some(call),
            _ => None,
        }
    }

    /// Whether anything can have run: nothing has where binding failed.
    #[must_use]
    pub fn executed(&self) -> Executed {
        use ErrorKind::{Elapsed, Io, Join, Shutdown};
        match (self.call(), self.kind) {
            (Some(call), _) => call.executed(),
            (None, Join | Shutdown | Elapsed | Io) => Executed::Maybe,
            _ => Executed::No,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.cause {
            Some(Cause::Call(call)) => Some(call),
            Some(Cause::Io(error)) => Some(&**error),
            None => None,
        }
    }
}

impl From<CallError> for Error {
    fn from(call: CallError) -> Self {
        Self {
            kind: ErrorKind::Call,
            message: call.to_string(),
            cause: Some(Cause::Call(call)),
        }
    }
}

impl From<JoinError> for Error {
    fn from(error: JoinError) -> Self {
        Self::new(ErrorKind::Join, error.to_string())
    }
}

impl From<Elapsed> for Error {
    fn from(error: Elapsed) -> Self {
        Self::new(ErrorKind::Elapsed, error.to_string())
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self {
            kind: ErrorKind::Io,
            message: error.to_string(),
            cause: Some(Cause::Io(Arc::new(error))),
        }
    }
}

/// Whether the system has no more descriptors, memory or threads for this process.
pub(crate) fn lacks_resources(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let scarce = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOMEM,
        Errno::NOSPC,
        Errno::NOBUFS,
    ];
    Errno::from_io_error(error).is_some_and(|error| scarce.contains(&error))
}
