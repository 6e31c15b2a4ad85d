//! Calls of a process to itself: caller and server on one processor, and all of a call but the way between
//! two CPUs.

use std::time::{Duration, Instant};

use urpc::{Procedure, Runtime, Server};

use super::child::cpus;

const WARM_UP: Duration = Duration::from_millis(20);

/// See the [module's documentation](self).
pub struct Oneself {
    null: Procedure<(), ()>,
    _server: Server,
    _directory: tempfile::TempDir,
    runtime: Runtime,
}

impl Oneself {
    /// With a caller that keeps its context loaded, or one that is put to sleep and woken.
    pub fn start(linger: bool) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let name = directory.path().join("bench.sock").display().to_string();
        let builder = Runtime::builder()
            .processors(1)
            .pin([cpus()[0]])
            .linger(linger);
        let runtime = builder.build().expect("a runtime");
        let (server, peer) = runtime.block_on(async {
            let server = urpc::serve(&name).method("null", |(): ()| async {}).bind();
            let peer = urpc::connect(&name).await;
            (server.expect("a free name"), peer.expect("it is served"))
        });
        Self {
            null: peer.procedure("null"),
            _server: server,
            _directory: directory,
            runtime,
        }
    }

    /// Nanoseconds for a call, one after the other.
    pub fn measure(&self, calls: u32) -> f64 {
        let null = self.null.clone();
        let caller = async move {
            let warm = Instant::now() + WARM_UP;
            while Instant::now() < warm {
                null.call(()).await.expect("it serves");
            }
            let begin = Instant::now();
            for _ in 0..calls {
                null.call(()).await.expect("it serves");
            }
            begin.elapsed().as_nanos() as f64 / f64::from(calls)
        };
        self.runtime.block_on(async {
            let caller = urpc::spawn(caller).await;
            caller.expect("it does not panic")
        })
    }
}
