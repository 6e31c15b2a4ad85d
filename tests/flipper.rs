//! Bits of a peer's memory flip all the time, wherever they are, while calls cross it. Each call ends with the right
//! checksum or with an error; what was checked once stays right; other clients of the same server notice nothing.
//!
//! `URPC_SECONDS=60 cargo test --release --test flipper -- --nocapture` flips for a minute each.
#[macro_use]
mod common;
#[path = "common/raw.rs"]
mod raw;

use std::collections::BTreeMap;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use common::{
    Names, PATIENCE, Process, panics_are_fatal, runtime, say, serve, until_told_to_end, watchdog_of,
};
use futures::future::join_all;
use raw::{Bound, GEOMETRY, Random};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use urpc::Peer;
use urpc_channel::{Body, Channel, Kind, Message, Outbox};

/// How long bits flip, in each test.
fn time() -> Duration {
    let said = std::env::var("URPC_SECONDS").ok();
    Duration::from_secs(said.map_or(2, |said| said.parse().expect("a number")))
}

/// Bytes that arrive as they were sent, or do not arrive.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Checked {
    #[serde(with = "serde_bytes")]
    bytes: Vec<u8>,
    sum: u64,
}

fn sum(bytes: &[u8]) -> u64 {
    let step = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

impl Checked {
    fn new(random: &mut Random) -> Self {
        let len = [0, 9, 30, 100, 5000, 70_000][random.below(6) as usize];
        let bytes: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
        let sum = sum(&bytes);
        Self { bytes, sum }
    }

    /// It was right when it was decoded, and nobody can have changed it since.
    fn is_right(&self) -> bool {
        sum(&self.bytes) == self.sum
    }
}

impl<'de> Deserialize<'de> for Checked {
    fn deserialize<D: Deserializer<'de>>(decoder: D) -> Result<Self, D::Error> {
        let (bytes, sum) = <(serde_bytes::ByteBuf, u64)>::deserialize(decoder)?;
        let checked = Self {
            bytes: bytes.into_vec(),
            sum,
        };
        checked
            .is_right()
            .then_some(checked)
            .ok_or_else(|| D::Error::custom("a wrong checksum"))
    }
}

fn server(argument: &str) {
    panics_are_fatal();
    serve(argument, |server, _| {
        server.method("echo", |checked: Checked| async move {
            assert!(checked.is_right());
            if checked.bytes.len().is_multiple_of(2) {
                urpc::yield_now().await;
            }
            assert!(checked.is_right(), "it has changed since it was checked");
            checked
        })
    });
}

/// One call; how it ended, in a word.
async fn call(peer: &Peer, sent: Checked) -> String {
    let call = urpc::call::<Checked>(peer, "echo", &sent);
    match call.timeout(Duration::from_millis(100)).await {
        Ok(back) => {
            assert!(back.is_right(), "it has changed since it was checked");
            if back == sent { "right" } else { "another's" }.to_owned()
        }
        Err(error) => format!("{:?}", error.kind()),
    }
}

/// Calls whoever serves `NAME`, eight calls at a time, and again and again, until it is told to end.
fn client(name: &str) {
    panics_are_fatal();
    let (over, rt) = (AtomicBool::new(false), runtime(1));
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut ends = BTreeMap::<String, u32>::new();
    say("ready", "");
    std::thread::scope(|s| {
        s.spawn(|| {
            common::hear();
            over.store(true, Relaxed);
        });
        rt.block_on(async {
            while !over.load(Relaxed) {
                let Ok(peer) = urpc::connect(name).await else {
                    continue;
                };
                while !over.load(Relaxed) && !peer.is_closed() {
                    let calls = (0..8).map(|_| call(&peer, Checked::new(&mut random)));
                    for end in join_all(calls).await {
                        *ends.entry(end).or_default() += 1;
                    }
                }
            }
        });
    });
    say("ends", serde_json::to_string(&ends).unwrap());
    until_told_to_end();
}

fn ends(client: &mut Process) -> BTreeMap<String, u32> {
    client.tell("enough");
    serde_json::from_str(&client.expect("ends")).unwrap()
}

/// Flips a bit anywhere in an outbox: more often where there is something.
fn flip(outbox: &Outbox, random: &mut Random) {
    let slots = u64::from(GEOMETRY.slots) * 64;
    let at = match random.below(8) {
        0 => random.below(4096),
        1..=4 => 4096 + random.below(slots),
        _ => 4096 + slots + random.below(u64::from(GEOMETRY.arena)),
    };
    let word = outbox.word(at as usize & !7);
    word.fetch_xor(1 << random.below(64), Relaxed);
}

/// Plays the hostile side of a channel until `until`, or until the other side has enough, while its bits flip: takes
/// what comes, and lets `act` answer that and say something of its own.
fn play(
    bound: Bound,
    random: &mut Random,
    until: Instant,
    mut act: impl FnMut(&Channel, Vec<Message>),
) {
    let (channel, socket, _pages) = bound.speak();
    // Not for ever: a channel whose calls are all lost is none any more.
    let until = until.min(Instant::now() + Duration::from_millis(200));
    let is_over = || Instant::now() >= until || channel.is_closed() || raw::is_hung_up(&socket);
    std::thread::scope(|s| {
        s.spawn(|| {
            while !is_over() {
                flip(channel.outbox(), random);
                std::thread::sleep(Duration::from_micros(random.below(200)));
            }
        });
        while !is_over() {
            let mut came = Vec::new();
            let _ = channel.receive(16, |message| came.push(message));
            for message in &came {
                channel.freed(message.body.window_bytes());
            }
            act(&channel, came);
            channel.refresh_window();
            channel.flush();
            raw::ring(&socket);
            std::thread::yield_now();
        }
    });
}

/// Sends what can be sent at once.
fn send(channel: &Channel, kind: Kind, id: u32, body: Body) {
    if channel.try_reserve(body.window_bytes()) == Ok(true) {
        let _ = channel.send(Message {
            kind,
            id,
            procedure: 0,
            deadline_ms: 0,
            body,
        });
    }
}

#[test]
fn every_call_to_a_server_whose_bits_flip_ends_rightly_or_with_an_error() {
    let _watch = watchdog_of(time() + PATIENCE);
    let names = Names::new();
    let name = names.name("s");
    let listener = UnixListener::bind(&name).unwrap();
    let mut client = Process::start("client", &name);
    let (mut random, mut channels) = (Random(0x2545_f491_4f6c_dd1d), 0);
    let until = Instant::now() + time();
    while Instant::now() < until {
        let (socket, _) = listener.accept().unwrap();
        let Some(bound) = Bound::accept(socket, &[("echo", "")]) else {
            continue;
        };
        channels += 1;
        play(bound, &mut random, until, |channel, calls| {
            for Message { kind, id, body, .. } in calls {
                if kind == Kind::Call {
                    send(channel, Kind::Reply, id, body);
                }
            }
        });
    }
    drop(listener);
    let ends = ends(&mut client);
    println!("{channels} channels; calls ended: {ends:?}");
    assert!(ends["right"] > 0 && ends.len() > 1);
    client.finish();
}

#[test]
fn a_server_of_a_client_whose_bits_flip_serves_the_others() {
    let _watch = watchdog_of(time() + PATIENCE);
    let names = Names::new();
    let name = names.name("s");
    let server = Process::start("server", &format!("1 {name}"));
    let mut honest = Process::start("client", &name);
    let (mut random, mut channels) = (Random(0xd1b5_4a32_d192_ed03), 0);
    let mut content = Random(0x853c_49e6_748f_ea9b);
    let (mut calls, mut replies) = (0u32, 0);
    let until = Instant::now() + time();
    while Instant::now() < until {
        let bound = Bound::connect(&name).expect("the server takes whoever says hello");
        channels += 1;
        let mut idle: Vec<u32> = (0..64).collect();
        play(bound, &mut random, until, |channel, answers| {
            for answer in answers {
                replies += u32::from(answer.kind == Kind::Reply);
                idle.push(answer.id);
            }
            for id in idle.drain(..) {
                let checked = Checked::new(&mut content);
                let bytes = postcard::to_allocvec(&checked).unwrap();
                send(channel, Kind::Call, id, Body::from_vec(bytes));
                calls += 1;
            }
        });
    }
    let ends = ends(&mut honest);
    println!(
        "{channels} channels, {calls} calls, {replies} replies; an honest client's calls ended: {ends:?}"
    );
    assert!(channels > 1 && replies > 0);
    let right = ends["right"];
    let late = ends.get("Deadline").copied().unwrap_or(0);
    assert_eq!(right + late, ends.values().sum::<u32>(), "{ends:?}");
    assert!(late * 20 < right, "an honest client is served");
    honest.finish();
    server.finish();
}

roles! { "server" => server, "client" => client }
