//! urpc beside what else there is for calls between two processes of one machine.
//!
//! `cargo run --release --manifest-path benches/beside/Cargo.toml` (`-- --help` has its options) measures a null
//! call, 64 in flight, the first after a pause, and what both processes burn while nobody calls
//! (`../common/contest.rs`): everybody in the same rounds, each where it does best.
//!
//! - **tokio**: the least RPC over a Unix socket (`../common/tokio.rs`).
//! - **tarpc** and **tonic**: over a Unix socket, under tokio with one thread for each process.
//! - **iceoryx2**: request and response in shared memory, by polling; and with its events, which let both sides
//!   sleep.
//! - **ipc-channel**: a channel each way; it is no RPC, so one thread has many requests under way.

mod common;
mod with_iceoryx;
mod with_ipc_channel;
mod with_tarpc;
mod with_tonic;

use clap::Parser;
use common::base;
use common::contest::{self, Contestant, Entry, Place};
use common::report::Args;
use common::tokio::{Client, Echo, Tokio};

fn main() {
    if played_a_role() {
        return;
    }
    let entries = [
        entry("tokio", |place| under_tokio::<Echo>("echo", place)),
        entry("tarpc", |place| {
            under_tokio::<with_tarpc::Caller>("tarpc", place)
        }),
        entry("tonic", |place| {
            under_tokio::<with_tonic::Caller>("tonic", place)
        }),
        Entry {
            name: "iceoryx2 polling",
            // On one CPU a round trip is two ticks of the scheduler.
            places: &[Place::Apart, Place::Free],
            start: |place| Box::new(with_iceoryx::Iceoryx::start(false, place)),
        },
        entry("iceoryx2 events", |place| {
            Box::new(with_iceoryx::Iceoryx::start(true, place))
        }),
        entry("ipc-channel", |place| {
            Box::new(with_ipc_channel::IpcChannel::start(place))
        }),
    ];
    contest::run(&Args::parse(), &entries);
}

fn entry(name: &'static str, start: fn(Place) -> Box<dyn Contestant>) -> Entry {
    Entry {
        name,
        places: Place::ALL,
        start,
    }
}

fn under_tokio<C: Client>(role: &str, place: Place) -> Box<dyn Contestant> {
    Box::new(Tokio::<C>::start(role, place))
}

/// Plays the role this process was started in. False if it was started by a person.
fn played_a_role() -> bool {
    let Some(role) = common::child::role() else {
        return false;
    };
    let words: Vec<&str> = role.iter().map(String::as_str).collect();
    match words[..] {
        ["raw", path, cpu] => base::raw_child(path, cpu),
        ["handover", path, cpu, ping, socket] => base::handover_child(path, cpu, ping, socket),
        ["meter", path, time, ref processes @ ..] => contest::meter_child(path, time, processes),
        ["server", name, processors] => common::pair::server_child(name, processors, false),
        ["polling-server", name, processors] => common::pair::server_child(name, processors, true),
        ["echo", name, cpu] => common::tokio::echo_child(name, cpu),
        ["tarpc", name, cpu] => with_tarpc::server_child(name, cpu),
        ["tonic", name, cpu] => with_tonic::server_child(name, cpu),
        ["iceoryx", name, events, cpu] => with_iceoryx::server_child(name, events, cpu),
        ["ipc-channel", name, cpu] => with_ipc_channel::server_child(name, cpu),
        _ => panic!("no role {role:?}"),
    }
    true
}
