//! Connecting: from a name, or an inherited socket, to a [`Peer`].

use std::fmt;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_channel::oneshot;
use serde::Serialize;
use serde::de::DeserializeOwned;
use urpc_donate::Credentials;

use crate::allow::Allow;
use crate::bind;
use crate::error::{Error, ErrorKind, Result};
use crate::names;
use crate::peer::Peer;
use crate::runtime;
use crate::service::{Procedure, Service, Services};

/// Connects to the server of `name`: `$URPC_DIR/NAME.sock`, else in `$XDG_RUNTIME_DIR/urpc`, else in
/// `/tmp/urpc-$UID`; a name with a `/` is a path. See [`Connect`].
///
/// # Errors
/// At once if there is no server (but see [`Connect::wait_for_server`]); if it runs as another user; if it speaks
/// another version.
pub fn connect(name: impl Into<String>) -> Connect {
    Connect::new(To::Name(name.into()))
}

/// Connects to the process at the other end of `socket`, a connected Unix stream socket, which calls
/// [`serve_fd`](crate::serve_fd). What is said there of credentials is true here, too.
///
/// ```
/// # let rt = urpc::Runtime::builder().processors(1).build()?;
/// # rt.block_on(async {
/// let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
/// // Usually in a child, which inherits `theirs`:
/// let _server = urpc::serve_fd(theirs)
///     .method("double", |n: u32| async move { 2 * n })
///     .bind()?;
/// let peer = urpc::connect_fd(ours).await?;
/// assert_eq!(urpc::call::<u32>(&peer, "double", 21u32).await?, 42);
/// # Ok::<(), urpc::Error>(()) })?;
/// # Ok::<(), urpc::Error>(())
/// ```
pub fn connect_fd(socket: impl Into<OwnedFd>) -> Connect {
    Connect::new(To::Socket(socket.into()))
}

enum To {
    Name(String),
    Socket(OwnedFd),
}

/// The pauses between looks for a server that is not there yet: each is twice as long as the one before. Looks, since no
/// event would tell of all there is to wait for: a directory that is yet to be made, a file that nobody listens at yet.
const PAUSES: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(32)];

struct Plan {
    to: To,
    /// How long to wait for a server.
    patience: Duration,
    services: Services,
    allow: Allow,
}

/// A future of a [`Peer`]. What is offered here can be called by the server, over the same channel
/// ([`Caller::peer`](crate::Caller::peer)).
///
/// # Cancellation
/// Nothing stays bound.
#[must_use = "nothing is connected unless it is awaited"]
pub struct Connect {
    state: State,
}

enum State {
    Planned(Option<Plan>),
    Running(Pin<Box<dyn Future<Output = Result<Peer>> + Send>>),
}

impl Connect {
    fn new(to: To) -> Self {
        let plan = Plan {
            to,
            patience: Duration::ZERO,
            services: Services::default(),
            allow: Allow::default(),
        };
        Self {
            state: State::Planned(Some(plan)),
        }
    }

    fn plan(mut self, change: impl FnOnce(&mut Plan)) -> Self {
        match &mut self.state {
            State::Planned(Some(plan)) => change(plan),
            _ => panic!("a connection is planned before it is first polled"),
        }
        self
    }

    /// If nobody serves the name yet, waits up to `patience` for somebody who does: for processes that are started
    /// together, in whatever order, or restarted. Nothing else is tried again: a server that refuses is an error at once.
    /// An inherited socket has its server already.
    ///
    /// # Errors
    /// [`ErrorKind::NoServer`] when the time is over.
    ///
    /// ```
    /// # let rt = urpc::Runtime::builder().processors(1).build()?;
    /// # let dir = tempfile::tempdir()?;
    /// # let name = dir.path().join("late.sock").display().to_string();
    /// # let later = name.clone();
    /// # rt.block_on(async {
    /// let client = urpc::spawn(async move {
    ///     let peer = urpc::connect(name).wait_for_server(std::time::Duration::from_secs(30)).await?;
    ///     Ok::<u32, urpc::Error>(urpc::call(&peer, "double", 21u32).await?)
    /// });
    /// // Usually another process, a while later:
    /// let _server = urpc::serve(later).method("double", |n: u32| async move { 2 * n }).bind()?;
    /// assert_eq!(client.await.expect("it does not panic")?, 42);
    /// # Ok::<(), urpc::Error>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_for_server(self, patience: Duration) -> Self {
        self.plan(|plan| plan.patience = patience)
    }

    /// Offers the server a free-form procedure.
    ///
    /// # Panics
    /// If there is a procedure of this name already.
    #[track_caller]
    pub fn method<A, F, Fut>(self, name: &str, handler: F) -> Self
    where
        A: DeserializeOwned + Send + 'static,
        F: Fn(A) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: Serialize> + Send + 'static,
    {
        self.plan(|plan| plan.services.add(Procedure::free(name, handler)))
    }

    /// Offers the server all procedures of a service.
    ///
    /// # Panics
    /// If there is a procedure of one of their names already.
    #[track_caller]
    #[allow(clippy::should_implement_trait)]
    pub fn add(self, service: impl Service) -> Self {
        self.plan(|plan| {
            for procedure in service.procedures() {
                plan.services.add(procedure);
            }
        })
    }

    /// The server may be of one of these users. The default is the user of this process, who has to be named, too,
    /// once anybody is. See [`ServerBuilder::allow_uids`](crate::ServerBuilder::allow_uids).
    pub fn allow_uids(self, uids: impl IntoIterator<Item = u32>) -> Self {
        self.plan(|plan| plan.allow.users(uids))
    }

    /// The server may have one of these as its effective group.
    pub fn allow_gids(self, gids: impl IntoIterator<Item = u32>) -> Self {
        self.plan(|plan| plan.allow.groups(gids))
    }

    /// The server may be one for whose credentials this is true.
    pub fn allow(self, allowed: impl Fn(Credentials) -> bool + Send + Sync + 'static) -> Self {
        self.plan(|plan| plan.allow.when(allowed))
    }
}

impl Future for Connect {
    type Output = Result<Peer>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let State::Planned(plan) = &mut self.state {
            let plan = plan.take().expect("planned once");
            self.state = State::Running(Box::pin(run(plan)));
        }
        match &mut self.state {
            State::Running(running) => running.as_mut().poll(cx),
            State::Planned(_) => unreachable!("just started"),
        }
    }
}

async fn run(plan: Plan) -> Result<Peer> {
    let node = runtime::current_node()?;
    let offer = Arc::new(plan.services);
    // The handshake waits for another process: not on a processor, nor in a pool, whose thread would go
    // on waking for a while.
    on_a_thread(move |is_wanted| {
        let (name, socket) = match plan.to {
            To::Name(name) => {
                let socket = dial(&name, plan.patience, is_wanted)?;
                (Some(name), socket)
            }
            To::Socket(socket) => (None, socket),
        };
        let binding = bind::connect(&node, name, socket, &offer, &plan.allow)?;
        // Made here, so that a binding whose future is dropped meanwhile is closed with its result.
        Ok(Peer::holding(binding))
    })
    .await
}

/// A socket that is connected to the server of `name`, which is waited for while somebody wants it.
fn dial(name: &str, patience: Duration, is_wanted: &dyn Fn() -> bool) -> Result<OwnedFd> {
    let [mut pause, longest] = PAUSES;
    let began = Instant::now();
    loop {
        let left = patience.saturating_sub(began.elapsed());
        let ended = names::connect(name);
        let is_absent = matches!(&ended, Err(error) if error.kind() == ErrorKind::NoServer);
        if !is_absent || left.is_zero() || !is_wanted() {
            return ended;
        }
        std::thread::sleep(pause.min(left));
        pause = longest.min(2 * pause);
    }
}

/// Runs `work` on a thread that ends with it. It may ask whether its result is still wanted.
async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce(&dyn Fn() -> bool) -> Result<T> + Send + 'static,
) -> Result<T> {
    let (sender, receiver) = oneshot::channel();
    let thread = std::thread::Builder::new().name("urpc-connect".into());
    thread
        .spawn(move || {
            let result = work(&|| !sender.is_canceled());
            drop(sender.send(result));
        })
        .map_err(|error| Error::system("start a thread for a connection", error))?;
    receiver.await.expect("a handshake does not panic")
}

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect").finish_non_exhaustive()
    }
}
