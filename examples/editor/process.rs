//! A process that the editor starts: bound to it by a socket that the child finds as its standard input,
//! and never left behind.
//!
//! There is one way for a child to end: its channel closes. The editor closes it when it is done, and the
//! kernel closes it when the editor is killed.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use clap::ValueEnum;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use urpc::trace::Event;
use urpc::{Peer, Result};

use crate::Role;
use crate::protocol::{Counts, Report, ReportServer};

/// How long a process may take to end once it has nothing more to do.
const END: Duration = Duration::from_secs(5);

/// Events that cross with one call: some 300 KiB.
const PIECE: usize = 8192;

/// A process started by the editor. Killed when dropped, unless it has ended.
pub(crate) struct Started {
    role: &'static str,
    child: Child,
}

impl Started {
    /// Starts this program as `role`, and binds it. It is `recorded` from its beginning.
    pub(crate) async fn new(role: Role, recorded: bool) -> Result<(Self, Peer)> {
        let (ours, theirs) = UnixStream::pair()?;
        let value = role.to_possible_value().expect("no role is skipped");
        let child = Command::new(std::env::current_exe()?)
            .args(["--role", value.get_name()])
            .args(recorded.then_some("--recorded"))
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .spawn()?;
        // From here on it is ours to end, also if it cannot be bound.
        let role = role.name();
        let started = Self { role, child };
        let peer = urpc::connect_fd(ours).await?;
        Ok((started, peer))
    }

    pub(crate) fn role(&self) -> &'static str {
        self.role
    }

    /// Waits for its end, after its channel has been closed.
    ///
    /// # Errors
    /// If it failed, or does not end; then it is killed.
    pub(crate) fn finish(mut self) -> Result<(), String> {
        let role = self.role;
        let failed = |error: std::io::Error| format!("cannot wait for the {role}: {error}");
        let pidfd = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty());
        let pidfd = pidfd.map_err(|error| failed(error.into()))?;
        let limit = Timespec::try_from(END).expect("a few seconds");
        let ended = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit));
        if ended.map_err(|error| failed(error.into()))? == 0 {
            return Err(format!(
                "the {role} had not ended {END:?} after its last call, and was killed"
            ));
        }
        let status = self.child.wait().map_err(failed)?;
        if status.success() {
            return Ok(());
        }
        Err(format!("the {role} failed: {status}"))
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The life of a started process: serves the editor with `processors` of its own until the channel is
/// closed.
pub(crate) fn serve(processors: usize, service: impl urpc::Service) -> Result<()> {
    let runtime = urpc::Runtime::builder().processors(processors).build()?;
    runtime.block_on(async {
        let socket = std::io::stdin().as_fd().try_clone_to_owned()?;
        let server = urpc::serve_fd(socket)
            .add(service)
            .add(ReportServer::new(Own::default()))
            .bind()?;
        server.run().await?;
        server.shutdown(Duration::from_secs(1)).await
    })
}

/// Reports on the process it is part of.
#[derive(Default)]
struct Own {
    /// Events that have not been asked for yet, once the first have been.
    left: Mutex<Option<std::vec::IntoIter<Event>>>,
}

impl Report for Own {
    async fn counts(&self) -> Counts {
        let stats = urpc::stats();
        Counts {
            served: stats.served,
            donations_received: stats.donations_received,
            rings: stats.rings,
            system_calls: stats.system_calls,
        }
    }

    async fn events(&self) -> Vec<Event> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let left = left.get_or_insert_with(|| {
            urpc::trace::stop();
            urpc::trace::take().into_iter()
        });
        left.take(PIECE).collect()
    }
}
