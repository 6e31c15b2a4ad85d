//! What most local services do today: calls over a Unix socket, both processes under tokio, one thread each.
//!
//! [`Tokio`] is the client of any service whose calls are futures of tokio's; [`Echo`] is the least such service:
//! messages with a length and a number, many under way on one socket, and one system call for all that are
//! ready. Its server answers from the loop that reads, which no task per call could do faster.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use slab::Slab;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot};

use super::child::{Child, ready};
use super::contest::{Contestant, Place, take_place};

/// A client of some service.
pub trait Client: Clone + Send + 'static {
    /// Connected to the socket `name`; runs in a runtime.
    fn connect(name: &str) -> impl Future<Output = Self>;
    /// A call without arguments or result.
    fn call(&mut self) -> impl Future<Output = ()> + Send;
}

/// A client in this process, and its server in another.
pub struct Tokio<C> {
    runtime: Runtime,
    client: C,
    server: Child,
    _directory: tempfile::TempDir,
}

impl<C: Client> Tokio<C> {
    /// The server plays `role`, with the socket's name and its CPU as arguments.
    pub fn start(role: &str, place: Place) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let name = directory.path().join("socket").display().to_string();
        let server = Child::start(&format!("{role} {name} {}", place.of_server()));
        let runtime = runtime();
        let client = runtime.block_on(C::connect(&name));
        Self {
            runtime,
            client,
            server,
            _directory: directory,
        }
    }
}

impl<C: Client> Contestant for Tokio<C> {
    fn calls(&mut self, in_flight: u32, calls: u32) -> f64 {
        let share = calls.div_ceil(in_flight);
        self.runtime.block_on(async {
            let begin = Instant::now();
            let caller = || {
                let mut client = self.client.clone();
                tokio::spawn(async move {
                    for _ in 0..share {
                        client.call().await;
                    }
                })
            };
            let callers: Vec<_> = (0..in_flight).map(|_| caller()).collect();
            for caller in callers {
                caller.await.expect("a caller does not panic");
            }
            begin.elapsed().as_nanos() as f64 / f64::from(share * in_flight)
        })
    }

    fn first_after(&mut self, pause: Duration, samples: u32) -> f64 {
        let mut taken = Vec::new();
        self.runtime.block_on(async {
            for _ in 0..samples {
                tokio::time::sleep(pause).await;
                let begin = Instant::now();
                self.client.call().await;
                taken.push(begin.elapsed().as_nanos() as f64);
            }
        });
        super::report::median(taken)
    }

    fn idle(&mut self, time: Duration) {
        self.runtime
            .block_on(async { tokio::time::sleep(time).await });
    }

    fn server(&self) -> u32 {
        self.server.id()
    }
}

/// One thread: the calling one.
pub fn runtime() -> Runtime {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime")
}

/// Replies under way, by the number of their request.
type Waiting = Arc<Mutex<Slab<oneshot::Sender<()>>>>;

/// The client of the echo service.
#[derive(Clone)]
pub struct Echo(mpsc::UnboundedSender<oneshot::Sender<()>>);

impl Client for Echo {
    async fn connect(name: &str) -> Self {
        let stream = UnixStream::connect(name).await;
        let (read, write) = stream.expect("the server is ready").into_split();
        let (requests, queue) = mpsc::unbounded_channel();
        let waiting = Waiting::default();
        tokio::spawn(send(write, queue, waiting.clone()));
        tokio::spawn(receive(read, waiting));
        Self(requests)
    }

    async fn call(&mut self) {
        let (reply, replied) = oneshot::channel();
        self.0.send(reply).expect("the connection's task");
        replied.await.expect("the server answers");
    }
}

/// Sends what callers have put into the queue, all of it at once.
async fn send(
    mut socket: impl AsyncWrite + Unpin,
    mut queue: mpsc::UnboundedReceiver<oneshot::Sender<()>>,
    waiting: Waiting,
) {
    let (mut batch, mut bytes) = (Vec::new(), Vec::new());
    while queue.recv_many(&mut batch, usize::MAX).await > 0 {
        for reply in batch.drain(..) {
            let number = waiting.lock().expect("no panic").insert(reply);
            put(&mut bytes, number as u32, &[]);
        }
        socket.write_all(&bytes).await.expect("the server reads");
        bytes.clear();
    }
}

/// Completes calls.
async fn receive(mut socket: impl AsyncRead + Unpin, waiting: Waiting) {
    let mut bytes = Vec::new();
    while socket.read_buf(&mut bytes).await.is_ok_and(|n| n > 0) {
        take_all(&mut bytes, |number, _| {
            let reply = waiting.lock().expect("no panic").remove(number as usize);
            let _ = reply.send(());
        });
    }
}

/// The server's process.
pub fn echo_child(name: &str, cpu: &str) {
    take_place(cpu);
    runtime().block_on(async {
        let listener = UnixListener::bind(name).expect("a socket");
        ready();
        let (mut socket, _) = listener.accept().await.expect("a client");
        let (mut bytes, mut replies) = (Vec::new(), Vec::new());
        while socket.read_buf(&mut bytes).await.is_ok_and(|n| n > 0) {
            take_all(&mut bytes, |number, body| put(&mut replies, number, body));
            socket.write_all(&replies).await.expect("the client reads");
            replies.clear();
        }
    });
}

/// Bytes before a body: its length and its number.
const HEAD: usize = 8;

fn put(bytes: &mut Vec<u8>, number: u32, body: &[u8]) {
    bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend_from_slice(body);
}

/// Takes all complete messages out of `bytes`.
fn take_all(bytes: &mut Vec<u8>, mut message: impl FnMut(u32, &[u8])) {
    let word = |at: usize, bytes: &[u8]| {
        u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
    };
    let mut done = 0;
    while let Some(rest) = bytes.get(done..).filter(|rest| rest.len() >= HEAD) {
        let end = HEAD + word(0, rest) as usize;
        let Some(body) = rest.get(HEAD..end) else {
            break;
        };
        message(word(4, rest), body);
        done += end;
    }
    bytes.drain(..done);
}
