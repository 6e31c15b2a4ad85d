//! A trace of what the library does: calls, donations and rests, with their times (feature `trace`).
//!
//! Each process records its own events; [`Event`]s can be serialized, so that one process can collect those
//! of others. All of them read the same clock, so sorting by [`Event::at`] merges them: a message is always
//! received after it was sent. [`chrome_json`] makes of them a file for a trace viewer such as Perfetto,
//! [`svg`] a picture in the manner of Figure 1 of the paper.
//!
//! Nothing is recorded before [`start`], and what that costs until then is one look at a word that does not
//! change. Recording takes bounded memory: of each thread the first 32,768 events since the last
//! [`take`] are kept, and the rest are counted as [`What::Dropped`].
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! # let peer = urpc::connect("calc").await?;
//! urpc::trace::start("client");
//! urpc::call::<i64>(&peer, "mul", (2i64, 3i64)).await?;
//! urpc::trace::stop();
//! let events = urpc::trace::take(); // and those of the peer, if it sends them
//! std::fs::write("trace.json", urpc::trace::chrome_json(&events))?;
//! # Ok(()) }
//! ```

mod chrome;
pub(crate) mod record;
mod story;
mod svg;

use serde::{Deserialize, Serialize};

pub use chrome::chrome_json;
pub use svg::svg;

/// Something that happened in a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When: nanoseconds of CLOCK_MONOTONIC, which all processes of a machine share.
    pub at: u64,
    /// In which process.
    pub pid: u32,
    /// On which processor of it.
    pub processor: Processor,
    /// What it was.
    pub what: What,
    /// The process it concerns, if there is one.
    pub peer: Option<u32>,
    /// The call it concerns, if there is one. With the two processes it names a call while that is
    /// outstanding; later calls use the id again.
    pub call: Option<u32>,
}

/// What ran when something happened: a track of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Processor {
    /// A processor of the process itself, from 0.
    Worker(u32),
    /// A landing: what a peer's processor runs here while it is lent.
    Landing {
        /// The process that lends to it.
        peer: u32,
        /// Which of the landings for that peer.
        k: u32,
    },
    /// The thread that runs what no donation brings to a process without processors.
    StandIn,
    /// A thread that has no processor.
    Outside,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum What {
    /// Recording was started.
    Start {
        /// What the process is called in pictures.
        name: String,
    },
    /// A call is being sent.
    Call,
    /// The peer's call was taken from the ring.
    Receive,
    /// Its handler is about to be run.
    Dispatch,
    /// Its one answer, a result or an error, is being sent. A result that proves too large becomes an error,
    /// and that is noted once more.
    Reply,
    /// A caller goes on with its answer.
    Resume,
    /// A look at a channel found something.
    Scan,
    /// This processor was lent to the peer.
    Donate,
    /// A landing came up, on the peer's processor.
    Arrive,
    /// On a landing: the processor is being returned. On a worker: it is back.
    Return,
    /// The donor went on before the landing returned: a wake of it, or the grant limit.
    Reclaim,
    /// Nothing to do: this processor goes to sleep.
    Rest,
    /// It woke up.
    Wake,
    /// The peer's doorbell is being rung.
    Ring,
    /// Here events of this thread are missing: it had too many.
    Dropped {
        /// How many.
        events: u64,
    },
}

/// Starts to record, as the process that is called `name` in pictures. What has been recorded before is
/// kept.
pub fn start(name: &str) {
    record::start(name);
}

/// Stops recording. What has been recorded is there to be [taken](take).
pub fn stop() {
    record::stop();
}

/// Takes out what this process has recorded so far, in the order of time.
///
/// Exact when recording is stopped; while it goes on, threads are asked one after the other.
pub fn take() -> Vec<Event> {
    record::take()
}
