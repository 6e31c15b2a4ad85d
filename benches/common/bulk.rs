//! The same bytes there and back: through urpc, and through bare shared memory.
//!
//! The bare echo is two processes that spin on a flag: copy in, say so, copy out, each way. Its memory is as
//! large as the largest payload, so that each way is one copy in and one copy out, whatever the size.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use futures::future::join_all;
use memmap2::MmapRaw;
use serde_bytes::{ByteBuf, Bytes};
use urpc::{Peer, Procedure, Runtime};

use super::child::{Child, cpus, pin, pinned, ready, until_told_to_end};
use super::pair::{WARM_UP, runtime};
use super::process::faults;
use super::shared::{LINE, create_memfd, map};

/// Bytes of the largest payload.
pub const MOST: usize = 16 << 20;
/// Bytes of one call at most; more are sent by several calls at a time.
const PART: usize = 2 << 20;

/// Where the flags lie: there, and back.
const THERE: usize = 0;
const BACK: usize = LINE;
/// Where the payloads lie.
const REQUEST: usize = 4096;
const REPLY: usize = REQUEST + MOST;

/// What some echoes took, each.
#[derive(Clone, Copy)]
pub struct Taken {
    pub nanoseconds: f64,
    /// Minor page faults, of both processes.
    pub faults: f64,
}

/// Shared memory with two flags and two payloads.
struct Memory(MmapRaw);

impl Memory {
    /// A number that says how many bytes follow, and is another one each time.
    fn flag(&self, at: usize) -> &AtomicU32 {
        assert!(at == THERE || at == BACK);
        // SAFETY: the mapping is longer than both offsets and aligned to a page; both processes access this word
        // only as this one atomic.
        unsafe { &*self.0.as_ptr().add(at).cast::<AtomicU32>() }
    }

    fn copy_in(&self, at: usize, bytes: &[u8]) {
        assert!(bytes.len() <= MOST && (at == REQUEST || at == REPLY));
        // SAFETY: the range lies within the mapping, and the flags give it to one process at a time.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.0.as_mut_ptr().add(at), bytes.len());
        }
    }

    fn copy_out(&self, at: usize, bytes: &mut [u8]) {
        assert!(bytes.len() <= MOST && (at == REQUEST || at == REPLY));
        // SAFETY: as in `copy_in`.
        unsafe {
            std::ptr::copy_nonoverlapping(self.0.as_ptr().add(at), bytes.as_mut_ptr(), bytes.len());
        }
    }

    fn say(&self, at: usize, turn: u32) {
        self.flag(at).store(turn, Ordering::Release);
    }

    fn await_turn(&self, at: usize, turn: u32) {
        while self.flag(at).load(Ordering::Acquire) != turn {
            std::hint::spin_loop();
        }
    }
}

/// A process that echoes what lies in shared memory, and another that spins while it does.
pub struct Bare {
    memory: Memory,
    cpu: u32,
    turn: u32,
    child: Child,
    sent: Vec<u8>,
    received: Vec<u8>,
}

impl Bare {
    pub fn start() -> Self {
        let cpus = cpus();
        let other = cpus.get(1).copied().unwrap_or(cpus[0]);
        let (file, path) = create_memfd(REPLY + MOST);
        let child = Child::start(&format!("bare {path} {other}"));
        Self {
            memory: Memory(map(&file)),
            cpu: cpus[0],
            turn: 0,
            child,
            sent: vec![1; MOST],
            received: vec![1; MOST],
        }
    }

    /// Nanoseconds for an echo of so many bytes, of `count`. The other process spins only meanwhile.
    pub fn measure(&mut self, bytes: usize, count: u32) -> f64 {
        self.child.tell(&format!("{bytes} {}", count + 1));
        pinned(self.cpu, || {
            self.echo(bytes); // all is there now, and has been touched
            let begin = Instant::now();
            (0..count).for_each(|_| self.echo(bytes));
            begin.elapsed().as_nanos() as f64 / f64::from(count)
        })
    }

    fn echo(&mut self, bytes: usize) {
        self.turn = self.turn.wrapping_add(1);
        self.memory.copy_in(REQUEST, &self.sent[..bytes]);
        self.memory.say(THERE, self.turn);
        self.memory.await_turn(BACK, self.turn);
        self.memory.copy_out(REPLY, &mut self.received[..bytes]);
    }
}

/// The other end of [`Bare`]: told how many bytes, and how often.
pub fn bare_child(path: &str, cpu: &str) {
    let file = std::fs::File::options().read(true).write(true).open(path);
    let memory = Memory(map(&file.expect("the parent's memfd")));
    pin(cpu.parse().expect("a CPU"));
    let mut private = vec![1; MOST];
    let mut turn = 0u32;
    ready();
    for line in std::io::stdin().lines() {
        let line = line.expect("the parent's text");
        let (bytes, count) = line.split_once(' ').expect("two numbers");
        let private = &mut private[..bytes.parse().expect("a number")];
        for _ in 0..count.parse::<u32>().expect("a number") {
            turn = turn.wrapping_add(1);
            memory.await_turn(THERE, turn);
            memory.copy_out(REQUEST, private);
            memory.copy_in(REPLY, private);
            memory.say(BACK, turn);
        }
    }
}

/// What a user would write.
#[urpc::service]
pub trait Echo {
    async fn echo(&self, bytes: ByteBuf) -> ByteBuf;
}

struct Same;

impl Echo for Same {
    async fn echo(&self, bytes: ByteBuf) -> ByteBuf {
        bytes
    }
}

/// How the bytes are given to the library.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A service's argument and result, owned: what came back is sent again.
    Typed,
    /// A free-form call with borrowed bytes.
    Borrowed,
}

/// A client, and a server that echoes, in two processes with a processor each.
pub struct Bulk {
    runtime: Runtime,
    peer: Peer,
    echo: EchoClient,
    faults: Procedure<(), u64>,
    bytes: ByteBuf,
    _server: Child,
    _directory: tempfile::TempDir,
}

impl Bulk {
    pub fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let name = directory.path().join("bench.sock").display().to_string();
        let _server = Child::start(&format!("echoes {name}"));
        let runtime = runtime(1, 0).build().expect("a runtime");
        let connected = runtime.block_on(async { urpc::connect(&name).await });
        let peer = connected.expect("the server is ready");
        Self {
            echo: EchoClient::on(&peer),
            faults: peer.procedure("faults"),
            runtime,
            peer,
            bytes: ByteBuf::from(vec![1; MOST]),
            _server,
            _directory: directory,
        }
    }

    /// `count` echoes of so many bytes, once both processes are warm.
    pub fn measure(&self, form: Form, bytes: usize, count: u32) -> Taken {
        self.runtime.block_on(async {
            let parts = bytes.div_ceil(PART).max(1);
            let mut owned = vec![ByteBuf::from(self.bytes[..bytes / parts].to_vec()); parts];
            let warm = Instant::now() + WARM_UP;
            while Instant::now() < warm {
                self.echo_once(form, &mut owned).await;
            }
            let before = self.all_faults().await;
            let begin = Instant::now();
            for _ in 0..count {
                self.echo_once(form, &mut owned).await;
            }
            let nanoseconds = begin.elapsed().as_nanos() as f64 / f64::from(count);
            let faults = (self.all_faults().await - before) as f64 / f64::from(count);
            let same = owned.iter().all(|part| part.iter().all(|&byte| byte == 1));
            assert!(same, "what came back is not what was sent");
            Taken {
                nanoseconds,
                faults,
            }
        })
    }

    async fn echo_once(&self, form: Form, parts: &mut [ByteBuf]) {
        match (form, parts) {
            (Form::Typed, [one]) => {
                let sent = std::mem::take(one);
                *one = self.echo.echo(sent).await.expect("the server serves");
            }
            (Form::Borrowed, [one]) => *one = self.borrowed(one).await,
            (Form::Typed, parts) => {
                let calls = parts
                    .iter_mut()
                    .map(|part| self.echo.echo(std::mem::take(part)));
                let replies = join_all(calls).await;
                for (part, reply) in parts.iter_mut().zip(replies) {
                    *part = reply.expect("the server serves");
                }
            }
            (Form::Borrowed, parts) => {
                let replies = join_all(parts.iter().map(|part| self.borrowed(part))).await;
                parts
                    .iter_mut()
                    .zip(replies)
                    .for_each(|(part, reply)| *part = reply);
            }
        }
    }

    async fn borrowed(&self, bytes: &[u8]) -> ByteBuf {
        let call = urpc::call(&self.peer, "Echo.echo", Bytes::new(bytes));
        call.await.expect("the server serves")
    }

    async fn all_faults(&self) -> u64 {
        self.faults.call(()).await.expect("the server serves") + faults()
    }
}

/// The server's process.
pub fn echo_child(name: &str) {
    runtime(1, 1).build().expect("a runtime").block_on(async {
        let server = urpc::serve(name)
            .add(EchoServer::new(Same))
            .method("faults", |()| async { faults() })
            .bind();
        let _server = server.expect("a free name");
        ready();
        urpc::unblock(until_told_to_end).await;
    });
}
