//! Calls that come back to where they began: through one process or two without processors, on one CPU.
//!
//! A offers `leaf`; B and C pass on what they are asked. A's only processor does all of it.

use std::time::{Duration, Instant};

use urpc::{Procedure, Runtime, Server};

use super::child::{Child, cpus, ready, until_told_to_end};

/// So long both ways are used before they are measured.
const WARM_UP: Duration = Duration::from_millis(20);

/// Serves `NAME`, and passes each call on to whoever serves `next`.
pub fn passer_child(name: &str, next: &str) {
    let runtime = Runtime::builder().processors(0).build().expect("a runtime");
    runtime.block_on(async {
        let next = urpc::connect(next).await.expect("it is there");
        let leaf = next.procedure::<(), ()>("leaf");
        let server = urpc::serve(name).method("leaf", move |(): ()| {
            let leaf = leaf.clone();
            async move { leaf.call(()).await.expect("it serves") }
        });
        let _server = server.bind().expect("a free name");
        ready();
        urpc::unblock(until_told_to_end).await;
    });
}

/// See the [module's documentation](self).
pub struct Around {
    first: Procedure<(), ()>,
    _server: Server,
    _passers: Vec<Child>,
    _directory: tempfile::TempDir,
    runtime: Runtime,
}

impl Around {
    /// With so many processes between A and A.
    pub fn start(passers: usize) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let name = |i: usize| {
            directory
                .path()
                .join(format!("{i}.sock"))
                .display()
                .to_string()
        };
        let builder = Runtime::builder().processors(1).pin([cpus()[0]]);
        let runtime = builder.build().expect("a runtime");
        let server = urpc::serve(name(0)).method("leaf", |(): ()| async {});
        let server = runtime.block_on(async { server.bind().expect("a free name") });
        let role = |i: usize| format!("passer {} {}", name(i), name(i - 1));
        let children = (1..=passers).map(|i| Child::start(&role(i))).collect();
        let connected = runtime.block_on(async { urpc::connect(name(passers)).await });
        Self {
            first: connected.expect("it is ready").procedure("leaf"),
            _server: server,
            _passers: children,
            _directory: directory,
            runtime,
        }
    }

    /// Nanoseconds for a call there and back, of about `calls`.
    pub fn measure(&self, calls: u32) -> f64 {
        self.runtime.block_on(async {
            let call = || async { self.first.call(()).await.expect("it comes back") };
            let warm = Instant::now() + WARM_UP;
            while Instant::now() < warm {
                call().await;
            }
            let mut taken = Vec::new();
            for _ in 0..calls {
                let begin = Instant::now();
                call().await;
                taken.push(begin.elapsed().as_nanos() as f64);
            }
            super::report::median(taken)
        })
    }
}
