//! Serving: a name, what is offered under it, and the end of it.

use std::fmt;
use std::future::Future;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use event_listener::Event;
use serde::Serialize;
use serde::de::DeserializeOwned;
use urpc_channel::{Body, Kind, Message};
use urpc_donate::Credentials;

use crate::allow::Allow;
use crate::bind::foreign;
use crate::binding::Binding;
use crate::error::{Error, ErrorKind, Result};
use crate::names::{self, Listening};
use crate::node::{Node, lock};
use crate::runtime;
use crate::service::{Offer, Procedure, Service, Services};
use crate::time;

/// Begins to serve `name`. See [`ServerBuilder`]; [`bind`](ServerBuilder::bind) ends it.
///
/// ```
/// # let rt = urpc::Runtime::builder().processors(1).build()?;
/// # rt.block_on(async {
/// # let dir = std::env::temp_dir().join(format!("urpc-doc-{}", std::process::id()));
/// # std::fs::create_dir_all(&dir)?;
/// # let name = dir.join("mul.sock"); let name = name.to_str().unwrap();
/// let server = urpc::serve(name)
///     .method("mul", |(a, b): (i64, i64)| async move { a * b })
///     .bind()?; // listening from here on
/// let peer = urpc::connect(name).await?;
/// let six: i64 = urpc::call(&peer, "mul", (2i64, 3i64)).await?;
/// assert_eq!(six, 6);
/// # drop(peer); server.shutdown(std::time::Duration::from_secs(1)).await?; std::fs::remove_dir(&dir)?;
/// # Ok::<(), urpc::Error>(()) })?;
/// # Ok::<(), urpc::Error>(())
/// ```
pub fn serve(name: impl Into<String>) -> ServerBuilder {
    ServerBuilder::new(At::Name(name.into()))
}

/// Begins to serve the one process at the other end of `socket`, a connected Unix stream socket: a
/// parent serves its child, or the other way round. The other end calls
/// [`connect_fd`](crate::connect_fd), and says its hello within 5 s of [`bind`](ServerBuilder::bind): start a child
/// before that.
///
/// Of a pair of sockets the kernel knows who made it, and not who has an end of it by now. So it is whoever says the hello
/// that [credentials](crate::Peer::credentials) name, and `allow…` is asked about; its ids are its real ones, unless it
/// names others that it has. If that is
/// not allowed, [`run`](Server::run) says so. Who has a copy of this very end can change how it is read, and say its hello
/// as another process that it has write something there: so nobody may have one whom you would not let in.
pub fn serve_fd(socket: impl Into<OwnedFd>) -> ServerBuilder {
    ServerBuilder::new(At::Socket(socket.into()))
}

enum At {
    Name(String),
    Socket(OwnedFd),
}

/// What will be served. Names of procedures are unique on one channel.
#[must_use = "nothing is served before `bind`"]
pub struct ServerBuilder {
    at: At,
    services: Services,
    allow: Allow,
}

impl ServerBuilder {
    fn new(at: At) -> Self {
        Self {
            at,
            services: Services::default(),
            allow: Allow::default(),
        }
    }

    /// Offers a free-form procedure: whatever decodes as `A` is accepted, whatever the future yields is
    /// sent back.
    ///
    /// # Panics
    /// If there is a procedure of this name already.
    #[track_caller]
    pub fn method<A, F, Fut>(mut self, name: &str, handler: F) -> Self
    where
        A: DeserializeOwned + Send + 'static,
        F: Fn(A) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: Serialize> + Send + 'static,
    {
        self.services.add(Procedure::free(name, handler));
        self
    }

    /// Offers all procedures of a service (R2: several share one channel).
    ///
    /// # Panics
    /// If there is a procedure of one of their names already.
    #[track_caller]
    #[allow(clippy::should_implement_trait)]
    pub fn add(mut self, service: impl Service) -> Self {
        for procedure in service.procedures() {
            self.services.add(procedure);
        }
        self
    }

    /// Processes of these users may bind, whichever they are; nobody, if the list is empty. The default is the
    /// user of this process, who has to be named, too, once anybody is. Several of `allow`, `allow_uids` and
    /// `allow_gids` add up. Who it is comes from the kernel, and is asked before anything of the peer is accepted.
    ///
    /// What the permissions of the socket and of its directory forbid, this does not allow.
    pub fn allow_uids(mut self, uids: impl IntoIterator<Item = u32>) -> Self {
        self.allow.users(uids);
        self
    }

    /// Processes with one of these as their effective group may bind. (Supplementary groups do not count.) As
    /// [`allow_uids`](Self::allow_uids).
    pub fn allow_gids(mut self, gids: impl IntoIterator<Item = u32>) -> Self {
        self.allow.groups(gids);
        self
    }

    /// Processes for which this is true may bind, by their credentials. As [`allow_uids`](Self::allow_uids). If it
    /// panics, it was not true.
    pub fn allow(mut self, allowed: impl Fn(Credentials) -> bool + Send + Sync + 'static) -> Self {
        self.allow.when(allowed);
        self
    }

    /// Serves from here on: the readiness signal. Calls are served by the runtime of the current task,
    /// or by the default one.
    ///
    /// # Errors
    /// If somebody serves the name already, or the name cannot be one, or the system refuses.
    pub fn bind(self) -> Result<Server> {
        let node = runtime::current_node()?;
        let (at, socket) = match self.at {
            At::Name(name) => (Where::Name(names::listen(&name)?), None),
            At::Socket(socket) => (Where::Socket, Some(socket)),
        };
        let listener = Arc::new(Listener {
            at: Mutex::new(Some(at)),
            offer: Arc::new(self.services),
            allow: self.allow,
            draining: Arc::new(AtomicBool::new(false)),
            key: AtomicU64::new(u64::MAX),
            state: Mutex::new(State::default()),
            changed: Event::new(),
        });
        match socket {
            None => node
                .keeper
                .listen(&listener)
                .map_err(|error| Error::system("watch the socket", error))?,
            Some(socket) => node
                .keeper
                .greet(socket, &listener)
                .map_err(|error| Error::system(format!("serve {}", names::INHERITED), error))?,
        }
        let guard = Arc::new(Guard {
            node: Arc::downgrade(&node),
            listener,
        });
        Ok(Server { guard })
    }
}

impl fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder")
            .field("services", &self.services)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
enum Where {
    Name(Listening),
    Socket,
}

/// What the keeper knows of a server.
pub(crate) struct Listener {
    /// Dropped when nothing more is accepted: the socket file goes with it.
    at: Mutex<Option<Where>>,
    pub(crate) offer: Offer,
    pub(crate) allow: Allow,
    pub(crate) draining: Arc<AtomicBool>,
    /// Key in the keeper's list, once it is there: a server of one socket never is.
    pub(crate) key: AtomicU64,
    state: Mutex<State>,
    changed: Event,
}

#[derive(Default)]
struct State {
    bindings: Vec<Weak<Binding>>,
    /// Of a server of one socket: its peer came, or was refused.
    met: bool,
    refusal: Option<Error>,
    /// No more peers are taken: who is in the list now will be seen to.
    stopped: bool,
    ended: bool,
}

impl Listener {
    /// The next connection; `None` if nothing is accepted any more.
    pub(crate) fn accept(&self) -> Option<std::io::Result<OwnedFd>> {
        match &*lock(&self.at) {
            Some(Where::Name(listening)) => {
                let accepted = listening.socket.accept();
                Some(accepted.and_then(|(stream, _)| {
                    foreign::in_line(&stream)?;
                    Ok(stream.into())
                }))
            }
            _ => None,
        }
    }

    /// Runs `f` with the listening socket, if there is one.
    pub(crate) fn with_socket<R>(&self, f: impl FnOnce(BorrowedFd<'_>) -> R) -> Option<R> {
        match &*lock(&self.at) {
            Some(Where::Name(listening)) => Some(f(listening.socket.as_fd())),
            _ => None,
        }
    }

    /// A peer is bound.
    pub(crate) fn bound(&self, binding: &Arc<Binding>) {
        let mut state = lock(&self.state);
        state.bindings.retain(|known| known.strong_count() > 0);
        state.bindings.push(Arc::downgrade(binding));
        state.met = true;
        let late = state.stopped;
        drop(state);
        if late {
            // Whoever stopped the server did not find it in the list.
            binding.close("its server has ended");
        }
        self.changed.notify(usize::MAX);
    }

    /// A peer was refused.
    pub(crate) fn refused(&self, error: &Error) {
        let mut state = lock(&self.state);
        state.met = true;
        state.refusal = Some(error.clone().about(names::INHERITED));
        drop(state);
        self.changed.notify(usize::MAX);
    }

    /// Nothing more is accepted, and the name is free.
    pub(crate) fn stop(&self) {
        lock(&self.state).stopped = true;
        lock(&self.at).take();
    }

    /// Nothing more is served, either: nobody need wait for it any more.
    pub(crate) fn end(&self) {
        lock(&self.state).ended = true;
        self.changed.notify(usize::MAX);
    }

    fn bindings(&self) -> Vec<Arc<Binding>> {
        let state = lock(&self.state);
        state.bindings.iter().filter_map(Weak::upgrade).collect()
    }
}

/// Stops serving when the last handle goes.
struct Guard {
    node: Weak<Node>,
    listener: Arc<Listener>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        stop_accepting(&self.node, &self.listener);
        for binding in self.listener.bindings() {
            binding.close("its server has ended");
        }
    }
}

fn stop_accepting(node: &Weak<Node>, listener: &Arc<Listener>) {
    if let Some(node) = node.upgrade() {
        if node.birthmark.forked() {
            return; // the socket, its file and the epoll are the parent's, who goes on
        }
        node.keeper.unlisten(listener);
    }
    listener.stop();
}

/// A bound server. It serves as long as a handle to it exists, whether [`run`](Self::run) is awaited or
/// not.
#[derive(Clone)]
#[must_use = "the server ends when its last handle is dropped"]
pub struct Server {
    guard: Arc<Guard>,
}

impl Server {
    /// Waits until the server has been [shut down](Self::shutdown), or its runtime has ended; one of
    /// [`serve_fd`], until its peer is gone.
    ///
    /// # Errors
    /// If the one peer of [`serve_fd`] could not be bound.
    ///
    /// # Cancellation
    /// The server goes on; `run` may be called again.
    pub async fn run(&self) -> Result<()> {
        let listener = &self.guard.listener;
        loop {
            let changed = listener.changed.listen();
            let (ended, met, refusal) = {
                let state = lock(&listener.state);
                (state.ended, state.met, state.refusal.clone())
            };
            if ended {
                return Ok(());
            }
            let one_peer = matches!(*lock(&listener.at), Some(Where::Socket));
            if one_peer && met {
                if let Some(why) = refusal {
                    return Err(why);
                }
                for binding in listener.bindings() {
                    let closed = binding.ended.listen();
                    if !binding.is_closed() {
                        closed.await;
                    }
                }
                return Ok(());
            }
            changed.await;
        }
    }

    /// Ends the server in order: no more bindings and no more calls are taken (callers are told so),
    /// calls that are being served go on for as long as `within`, then every channel is closed.
    ///
    /// # Errors
    /// If calls were still being served at the end of that time. They fail as "may have run".
    ///
    /// # Cancellation
    /// The server takes no more calls, but its channels stay open.
    pub async fn shutdown(&self, within: Duration) -> Result<()> {
        let listener = &self.guard.listener;
        let until = time::at(within);
        listener.draining.store(true, Ordering::SeqCst);
        stop_accepting(&self.guard.node, listener);
        let bindings = listener.bindings();
        for binding in &bindings {
            binding.send(Message {
                kind: Kind::Goodbye,
                id: 0,
                procedure: 0,
                deadline_ms: 0,
                body: Body::EMPTY,
            });
            binding.sent_from_outside();
        }
        let mut left = 0;
        for binding in &bindings {
            left += binding.drained(until).await;
            binding.close("its server was shut down");
        }
        listener.end();
        match left {
            0 => Ok(()),
            calls => Err(Error::new(
                ErrorKind::Shutdown,
                format!("the server was shut down with {calls} calls unfinished after {within:?}"),
            )),
        }
    }

    /// The processes that are bound to this server right now.
    #[must_use]
    pub fn clients(&self) -> Vec<crate::Peer> {
        let bindings = self.guard.listener.bindings().into_iter();
        let open = bindings.filter(|binding| !binding.is_closed());
        open.map(crate::Peer::new).collect()
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("at", &*lock(&self.guard.listener.at))
            .field("offer", &self.guard.listener.offer)
            .finish_non_exhaustive()
    }
}
