//! The future that a call is (§2.1, R10, R11).
//!
//! Beneath the procedure call everything is asynchronous: a call is a message in a ring and an entry
//! where its reply will be found; waiting is being not ready, like any other wait of a task.

mod crowded;
mod raw;

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{CallError, CallErrorKind, Executed};
use crate::peer::Peer;
use crate::spare;
use crate::wire;
use raw::{Rare, Stage};

pub(crate) use raw::RawCall;

/// Calls the procedure `name` of `peer`. A tuple is a list of arguments; anything else is one argument.
///
/// ```no_run
/// # async fn show(peer: urpc::Peer) -> urpc::Result<()> {
/// let six: i64 = urpc::call(&peer, "mul", (2i64, 3i64)).await?;
/// # Ok(()) }
/// ```
pub fn call<R: DeserializeOwned>(peer: &Peer, name: &str, arguments: impl Serialize) -> Call<R> {
    peer.start(peer.binding().offered.find(name), name, &arguments)
}

/// A call: a future of its reply.
///
/// It is lazy: nothing is sent before its first poll. Without [`timeout`](Self::timeout) it has the
/// deadline of its runtime (30 s unless chosen otherwise), or that of the call being served, if that is
/// earlier.
///
/// # Errors
/// A [`CallError`], which says whether the procedure can have run.
///
/// # Cancellation
/// Dropping it cancels the call and never waits: a handler that has begun is dropped at its next await,
/// one that has not is never started.
#[must_use = "a call does nothing unless it is awaited"]
pub struct Call<R> {
    /// A pointer, so that a call is cheap to move, and used again. `None` only in `drop`.
    raw: Option<Box<RawCall>>,
    _reply: PhantomData<fn() -> R>,
}

impl<R> Call<R> {
    /// Fails the call if no reply has come `after` its first poll. The handler sees this deadline, and
    /// the calls it makes inherit it.
    pub fn timeout(mut self, after: Duration) -> Self {
        self.raw_mut().timeout = Some(after);
        self
    }

    /// Gives the peer a processor at once if it has none awake, although tasks are ready here: for
    /// programs with a single task, for real-time calls, and to start long I/O early (§3.1.1, R24).
    pub fn urgent(mut self) -> Self {
        self.raw_mut().urgent = true;
        self
    }

    #[inline]
    fn raw(&self) -> &RawCall {
        self.raw.as_ref().expect("not dropped")
    }

    #[inline]
    fn raw_mut(&mut self) -> &mut RawCall {
        self.raw.as_mut().expect("not dropped")
    }
}

impl Peer {
    /// A call of procedure `number`; `None` is a name the peer has nothing of.
    #[inline]
    pub(crate) fn start<A: Serialize + ?Sized, R>(
        &self,
        number: Option<u16>,
        name: &str,
        arguments: &A,
    ) -> Call<R> {
        let Some(number) = number else {
            let error = CallError::new(
                CallErrorKind::UnknownProcedure,
                Executed::No,
                "the peer offers no procedure of this name",
            );
            return self.failed(name, error);
        };
        let mut call = self.lazy(number);
        if let Err(why) = wire::encode(arguments, &mut call.raw_mut().body) {
            let why = format!("its arguments could not be encoded: {why}");
            let error = CallError::new(CallErrorKind::Encode, Executed::No, why);
            return self.failed(name, error);
        }
        call
    }

    #[cold]
    pub(crate) fn failed<R>(&self, name: &str, error: CallError) -> Call<R> {
        let mut call = self.lazy(0);
        let raw = call.raw_mut();
        raw.stage = Stage::Rare;
        raw.rare = Some(Box::new(Rare::Failed(error.of(name, self.name()))));
        call
    }

    #[inline]
    fn lazy<R>(&self, procedure: u16) -> Call<R> {
        let mut raw = spare::take(self);
        raw.procedure = procedure;
        raw.stage = Stage::Lazy;
        Call {
            raw: Some(raw),
            _reply: PhantomData,
        }
    }
}

impl<R: DeserializeOwned> Future for Call<R> {
    type Output = Result<R, CallError>;

    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let raw = self.raw_mut();
        match raw.stage {
            Stage::Sent => raw.look(cx),
            _ => raw.go_on(cx).map(Err),
        }
    }
}

impl<R> Drop for Call<R> {
    #[inline]
    fn drop(&mut self) {
        if let Some(mut raw) = self.raw.take() {
            raw.end();
            spare::keep(raw);
        }
    }
}

impl<R> fmt::Debug for Call<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("procedure", &self.raw().name())
            .field("peer", &self.raw().peer().name())
            .finish_non_exhaustive()
    }
}
