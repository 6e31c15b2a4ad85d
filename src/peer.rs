//! A peer and its procedures, as users hold them.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use urpc_donate::Credentials;

use crate::binding::Binding;
use crate::call::Call;
use crate::spare;
use crate::stats::Stats;

/// A process that is bound to this one. Cheap to clone; a client's channel closes when the last clone
/// and the last call are gone, or when the peer goes.
#[derive(Clone)]
pub struct Peer(Arc<Handle>);

struct Handle {
    binding: Arc<Binding>,
    /// A client's channel lives as long as its handles; a server's as long as its client.
    holds: bool,
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.holds {
            self.binding.close("this side has let go of it");
        }
    }
}

impl Peer {
    /// Whether both are handles of one peer.
    #[inline]
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// How many handles there are of this peer.
    #[inline]
    pub(crate) fn handles(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    /// A peer that stays bound without this handle.
    pub(crate) fn new(binding: Arc<Binding>) -> Self {
        let holds = false;
        Self(Arc::new(Handle { binding, holds }))
    }

    /// A peer that is bound for as long as this handle or a clone of it lives.
    pub(crate) fn holding(binding: Arc<Binding>) -> Self {
        let holds = true;
        Self(Arc::new(Handle { binding, holds }))
    }

    pub(crate) fn binding(&self) -> &Arc<Binding> {
        &self.0.binding
    }

    /// The name it was connected by; of a caller, its process.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.binding().name
    }

    /// Process, user and group of the peer, as the kernel vouched for them at binding (R4). Without a
    /// name, of whoever says the hello: see [`serve_fd`](crate::serve_fd).
    #[must_use]
    pub fn credentials(&self) -> Credentials {
        self.binding().process.credentials()
    }

    /// What the peer offers: names and signatures. A signature is empty if the procedure is free-form.
    pub fn procedures(&self) -> impl Iterator<Item = (&str, &str)> {
        self.binding().offered.iter()
    }

    /// A procedure by its name, looked up once. That the peer has none of this name is said by the
    /// first call.
    ///
    /// ```no_run
    /// # async fn show(peer: urpc::Peer) -> urpc::Result<()> {
    /// let mul = peer.procedure::<(i64, i64), i64>("mul");
    /// assert_eq!(mul.call((2, 3)).await?, 6);
    /// # Ok(()) }
    /// ```
    pub fn procedure<A, R>(&self, name: &str) -> Procedure<A, R>
    where
        A: Serialize,
        R: DeserializeOwned,
    {
        Procedure {
            peer: self.clone(),
            name: name.into(),
            number: self.binding().offered.find(name),
            _types: PhantomData,
        }
    }

    /// True once the channel is closed: every call fails from then on.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.binding().is_closed()
    }

    /// Waits until the channel is closed.
    ///
    /// # Cancellation
    /// Nothing happens; it may be asked again.
    pub async fn closed(&self) {
        loop {
            let listener = self.binding().ended.listen();
            if self.binding().is_closed() {
                return;
            }
            listener.await;
        }
    }

    /// Counts of this channel.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.binding().stats()
    }
}

impl Drop for Peer {
    #[inline]
    fn drop(&mut self) {
        spare::follow(self);
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer")
            .field("name", &self.name())
            .field("credentials", &self.credentials())
            .field("closed", &self.is_closed())
            .finish()
    }
}

/// A procedure of a peer, looked up once.
pub struct Procedure<A, R> {
    peer: Peer,
    name: Arc<str>,
    number: Option<u16>,
    _types: PhantomData<fn(A) -> R>,
}

impl<A: Serialize, R: DeserializeOwned> Procedure<A, R> {
    /// Calls it. See [`Call`].
    pub fn call(&self, arguments: A) -> Call<R> {
        self.peer.start(self.number, &self.name, &arguments)
    }
}

impl<A, R> Clone for Procedure<A, R> {
    fn clone(&self) -> Self {
        Self {
            peer: self.peer.clone(),
            name: Arc::clone(&self.name),
            number: self.number,
            _types: PhantomData,
        }
    }
}

impl<A, R> fmt::Debug for Procedure<A, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Procedure")
            .field("peer", &self.peer.name())
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
