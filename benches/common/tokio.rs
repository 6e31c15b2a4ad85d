//! What most local services do today: 64 bytes there and back over a Unix socket, both processes under
//! tokio, one thread each.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::{Builder, Runtime};

use super::child::{Child, pin, pinned, ready, two_cpus};
use super::shared::LINE;

/// A client in this process, and its server in another.
pub struct Tokio {
    runtime: Runtime,
    stream: UnixStream,
    /// Where the client runs; its server is pinned elsewhere then.
    cpu: Option<u32>,
    _server: Child,
    _directory: tempfile::TempDir,
}

impl Tokio {
    /// Both run where the kernel likes, or each on a CPU of its own.
    pub fn start(apart: bool) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let name = directory.path().join("socket").display().to_string();
        let (cpu, other) = if apart {
            let (cpu, other) = two_cpus();
            (Some(cpu), other.to_string())
        } else {
            (None, String::new())
        };
        let _server = Child::start(&format!("tokio {name} {other}"));
        let runtime = runtime();
        let stream = runtime.block_on(UnixStream::connect(&name));
        Self {
            stream: stream.expect("the server is ready"),
            runtime,
            cpu,
            _server,
            _directory: directory,
        }
    }

    /// Nanoseconds for a round trip after a `pause` in which nobody does anything: the median of some.
    pub fn first_after(&mut self, pause: Duration, samples: u32) -> f64 {
        let Self {
            runtime,
            stream,
            cpu,
            ..
        } = self;
        let mut measure = || runtime.block_on(first_after(stream, pause, samples));
        match *cpu {
            Some(cpu) => pinned(cpu, measure),
            None => measure(),
        }
    }
}

async fn first_after(stream: &mut UnixStream, pause: Duration, samples: u32) -> f64 {
    let mut taken = Vec::new();
    for _ in 0..samples {
        tokio::time::sleep(pause).await;
        let begin = Instant::now();
        let mut message = [1; LINE];
        stream.write_all(&message).await.expect("the server reads");
        let read = stream.read_exact(&mut message).await;
        read.expect("the server answers");
        taken.push(begin.elapsed().as_nanos() as f64);
    }
    super::report::median(taken)
}

fn runtime() -> Runtime {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime")
}

/// The server's process.
pub fn tokio_child(name: &str, cpu: Option<&str>) {
    if let Some(cpu) = cpu {
        pin(cpu.parse().expect("a CPU"));
    }
    runtime().block_on(async {
        let listener = UnixListener::bind(name).expect("a socket");
        ready();
        let (mut stream, _) = listener.accept().await.expect("a client");
        let mut message = [0; LINE];
        while stream.read_exact(&mut message).await.is_ok() {
            stream.write_all(&message).await.expect("the client reads");
        }
    });
}
