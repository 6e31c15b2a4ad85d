//! urpc beside what most local services do today: tokio over a Unix socket.
//!
//! `cargo bench --bench peers`. A null call, 64 in flight, the first after a pause, and what both processes burn
//! while nobody calls (`common/contest.rs`). The base of the others is urpc in the same round: how many times
//! longer they take, or what part of its rate they reach. `benches/beside` measures the same for
//! tarpc, tonic, iceoryx2 and ipc-channel.

mod common;

use clap::Parser;
use common::contest::{self, Entry, Place};
use common::report::Args;
use common::tokio::{Echo, Tokio};

fn main() {
    if common::played_a_role() {
        return;
    }
    let tokio = Entry {
        name: "tokio",
        places: Place::ALL,
        start: |place| Box::new(Tokio::<Echo>::start("echo", place)),
    };
    contest::run(&Args::parse(), &[tokio]);
}
