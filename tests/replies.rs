//! Large replies that their caller does not read: so many wait at the server, however many channels they are for, and
//! the others end at once, as calls that have run.
#[macro_use]
mod common;
#[path = "common/raw.rs"]
mod raw;

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use common::{Names, Process, say, until_told_to_end, wait_for, watchdog};
use futures::future::join_all;
use futures::poll;
use raw::Bound;
use serde_bytes::ByteBuf;
use urpc::{Call, CallErrorKind, Executed, Peer, Runtime};
use urpc_channel::{Body, Kind, Message};

/// Bytes of a reply.
const REPLY: usize = 1_000_000;
/// Replies for which one client has room at the server.
const WAIT: usize = 3;

/// Calls that have run.
static RAN: AtomicUsize = AtomicUsize::new(0);

fn reply() -> ByteBuf {
    RAN.fetch_add(1, Relaxed);
    ByteBuf::from(vec![7; REPLY])
}

fn server(name: &str) {
    let builder = Runtime::builder().processors(1);
    let builder = builder.max_bytes(6 * REPLY as u64 + 9000);
    builder.build().unwrap().block_on(async {
        let _server = urpc::serve(name)
            .method("large", |()| async { reply() })
            .method("later", |()| async {
                urpc::yield_now().await;
                reply()
            })
            .method("ran", |()| async { RAN.load(Relaxed) })
            .bind()
            .unwrap();
        say("ready", "");
        urpc::unblock(until_told_to_end).await;
    });
}

/// A server, its name, and a client of it.
fn start(names: &Names) -> (Process, String, Runtime, Peer) {
    let name = names.name("s");
    let server = Process::start("server", &name);
    let rt = Runtime::builder().build().unwrap();
    let peer = rt.block_on(urpc::connect(&name)).unwrap();
    (server, name, rt, peer)
}

/// Begins so many calls, and waits until the server has run all of them.
async fn begin(peer: &Peer, procedure: &str, count: usize) -> Vec<Call<ByteBuf>> {
    let ran = async || urpc::call::<usize>(peer, "ran", ()).await.unwrap();
    let before = ran().await;
    let call = |_| urpc::call(peer, procedure, ());
    let mut calls: Vec<_> = (0..count).map(call).collect();
    for call in &mut calls {
        assert!(poll!(call).is_pending(), "nothing has come so soon");
    }
    while ran().await < before + count {}
    calls
}

/// How many of some calls brought their reply; the others had run, and no room for it.
async fn brought(calls: Vec<Call<ByteBuf>>) -> usize {
    let ends = join_all(calls).await.into_iter();
    ends.filter(|end| match end {
        Ok(bytes) => {
            assert!(bytes.len() == REPLY && bytes.iter().all(|&byte| byte == 7));
            true
        }
        Err(error) => {
            let said = (error.kind(), error.executed());
            assert_eq!(said, (CallErrorKind::Overloaded, Executed::Yes), "{error}");
            false
        }
    })
    .count()
}

#[test]
fn replies_that_nobody_reads_are_held_up_to_a_limit() {
    let _watch = watchdog();
    let names = Names::new();
    let (server, name, rt, peer) = start(&names);
    for procedure in ["large", "later"] {
        for _ in 0..2 {
            // Nobody reads before all have run.
            let calls = rt.block_on(begin(&peer, procedure, 40));
            let came = rt.block_on(brought(calls));
            assert!((WAIT..40).contains(&came), "{came} came");
        }
        // Replies that wait are let go of with their calls, and with their channel.
        drop(rt.block_on(begin(&peer, procedure, 40)));
        let other = rt.block_on(urpc::connect(&name)).unwrap();
        let calls = rt.block_on(begin(&other, procedure, 40));
        drop(other);
        drop(calls);
        wait_for("room for as many again", || {
            let calls = rt.block_on(begin(&peer, procedure, WAIT));
            rt.block_on(brought(calls)) == WAIT
        });
    }
    server.finish();
}

#[test]
fn all_channels_of_a_client_that_reads_nothing_have_one_limit() {
    let _watch = watchdog();
    let names = Names::new();
    let (server, name, rt, peer) = start(&names);
    let ran = || rt.block_on(urpc::call::<usize>(&peer, "ran", ())).unwrap();
    for channels in [2, 4] {
        let deaf = (0..channels).map(|_| Bound::connect(&name).unwrap().speak());
        let deaf: Vec<_> = deaf.collect();
        let before = ran();
        for ((channel, socket, _pages), id) in
            deaf.iter().flat_map(|bound| [(bound, 0), (bound, 1)])
        {
            let call = Message {
                kind: Kind::Call,
                id,
                procedure: 0,
                deadline_ms: 0,
                body: Body::EMPTY,
            };
            channel.send(call).unwrap();
            raw::ring(socket);
        }
        wait_for("all to have run", || ran() == before + 2 * channels);
        let (mut came, mut failed) = (0, 0);
        wait_for("all answers", || {
            for (channel, socket, _pages) in &deaf {
                let take = |answer: Message| {
                    channel.freed(answer.body.window_bytes());
                    match answer.kind {
                        Kind::Reply => came += 1,
                        _ => failed += 1,
                    }
                };
                channel.receive(1, take).unwrap();
                raw::ring(socket);
            }
            came + failed == 2 * channels
        });
        assert_eq!(came, WAIT);
    }
    server.finish();
}

roles! { "server" => server }
