//! A peer that writes on the wake page whatever it likes, all the time: no word there says anything, so it wakes for
//! nothing or leaves asleep who waits for it, and that is all. Every call ends, and every processor that was lent to
//! it is back by the grant limit.
#[macro_use]
mod common;
#[path = "common/raw.rs"]
mod raw;

use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use common::{Names, Process, runtime, say, serve, until_told_to_end, wait_for, watchdog};
use raw::{Bound, Random, Vandal};
use urpc::CallErrorKind;
use urpc_channel::{Body, Channel, Kind, Message, WakePage};

const CALLS: u32 = 300;
/// What a landing answers when it is ready.
const OPENING: u32 = 1;

fn server(argument: &str) {
    serve(argument, |server, _| {
        server.method("double", |n: u32| async move { 2 * n })
    });
}

/// Calls a peer that scribbles, and an honest one after each of these calls. The argument is both names.
fn client(argument: &str) {
    let (scribbler, honest) = argument.split_once(' ').unwrap();
    say("ready", "");
    let rt = runtime(1);
    let connect = |name| rt.block_on(urpc::connect(name)).unwrap();
    let (scribbler, honest) = (connect(scribbler), connect(honest));
    let mut values = 0;
    rt.block_on(async {
        for n in 0..CALLS {
            let call = urpc::call::<u32>(&scribbler, "double", n);
            match call.timeout(Duration::from_millis(5)).await {
                Ok(doubled) => {
                    assert_eq!(doubled, 2 * n);
                    values += 1;
                }
                Err(error) => assert_eq!(error.kind(), CallErrorKind::Deadline, "{error}"),
            }
            assert_eq!(urpc::call(&honest, "double", n).await, Ok(2 * n));
        }
    });
    let stats = scribbler.stats();
    say("values", values);
    say("lent", stats.donations_given);
    say("back", stats.donations_returned + stats.donations_reclaimed);
    until_told_to_end();
}

/// Scribbles while `meanwhile` runs.
fn scribbling<T>(wakes: &WakePage, meanwhile: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            let mut vandal = Vandal::new(0x9e37_79b9_7f4a_7c15);
            while !over.load(Relaxed) {
                for _ in 0..1000 {
                    vandal.scribble(wakes);
                }
                std::thread::yield_now(); // on one CPU, others want it too
            }
        });
        let result = meanwhile();
        over.store(true, Relaxed);
        result
    })
}

/// Answers the calls that have come.
fn answer_all(channel: &Channel) {
    let mut calls = Vec::new();
    channel.receive(64, |call| calls.push(call)).unwrap();
    for Message { kind, id, body, .. } in calls {
        channel.freed(body.window_bytes());
        if kind == Kind::Call {
            let n: u32 = postcard::from_bytes(body.as_slice()).unwrap();
            let body = Body::from_slice(&postcard::to_allocvec(&(2 * n)).unwrap());
            channel.send(message(Kind::Reply, id, body)).unwrap();
        }
    }
}

fn message(kind: Kind, id: u32, body: Body) -> Message {
    Message {
        kind,
        id,
        procedure: 0,
        deadline_ms: 0,
        body,
    }
}

#[test]
fn calls_to_a_server_that_scribbles_end_and_its_donors_go_on() {
    let _watch = watchdog();
    let names = Names::new();
    let (scribbler, honest) = (names.name("scribbler"), names.name("honest"));
    let listener = UnixListener::bind(&scribbler).unwrap();
    let other = Process::start("server", &format!("0 {honest}"));
    let mut client = Process::start("client", &format!("{scribbler} {honest}"));
    let (socket, _) = listener.accept().unwrap();
    let bound = Bound::accept(socket, &[("double", "")]).expect("it binds");
    let (channel, socket, (page, _peer_page, wakes)) = bound.speak();
    // One processor, which rests: calls find none awake, and a landing that has answered.
    page.word(0).store(1, Relaxed);
    page.word(1).store(1, Relaxed);
    channel.outbox().returned(0).store(OPENING, Relaxed);
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let [values, lent, back] = scribbling(&wakes, || {
        let told = std::thread::spawn(move || {
            let said =
                ["values", "lent", "back"].map(|word| client.expect(word).parse::<u64>().unwrap());
            client.finish();
            said
        });
        while !raw::is_hung_up(&socket) {
            answer_all(&channel);
            let sequence = (channel.inbox().grant(0).grant.load(Relaxed) >> 1).max(OPENING);
            let returned = channel.outbox().returned(0);
            match random.below(8) {
                0 => std::thread::sleep(Duration::from_millis(1)), // it keeps what it has
                1 => raw::say(returned, wakes.lent_to_us(0).returned, sequence),
                _ => returned.store(sequence, Relaxed), // and wakes nobody
            }
            std::thread::yield_now();
        }
        told.join().unwrap()
    });
    println!("{values} values; {lent} processors lent, {back} of them came back");
    assert!(values > 0);
    assert!(lent > 0);
    assert_eq!(lent, back);
    other.finish();
}

#[test]
fn calls_of_a_client_that_scribbles_are_served_and_so_are_those_of_others() {
    let _watch = watchdog();
    let names = Names::new();
    let name = names.name("s");
    let server = Process::start("server", &format!("0 {name}"));
    let (channel, socket, (_page, _peer_page, wakes)) =
        Bound::connect(&name).expect("it binds").speak();
    let rt = runtime(1);
    let honest = rt.block_on(urpc::connect(&name)).unwrap();
    scribbling(&wakes, || {
        for n in 0..CALLS {
            let body = Body::from_slice(&postcard::to_allocvec(&n).unwrap());
            channel.send(message(Kind::Call, n, body)).unwrap();
            // Lent, if its landing hears of it.
            let (words, returned) = (channel.outbox().grant(0), channel.inbox().returned(0));
            let sequence = returned.load(Relaxed) + 1;
            words.limit_us.store(1000, Relaxed);
            raw::say(words.grant, wakes.lent_to_peer(0).grant, sequence << 1 | 1);
            raw::ring(&socket);
            let mut answer = None;
            wait_for("an answer", || {
                let received = channel.receive(1, |message| answer = Some(message));
                received.expect("an honest server") > 0
            });
            let Message { kind, id, body, .. } = answer.unwrap();
            assert_eq!((kind, id), (Kind::Reply, n));
            assert_eq!(postcard::from_bytes(body.as_slice()), Ok(2 * n));
            let call = urpc::call(&honest, "double", n);
            assert_eq!(rt.block_on(call), Ok(2 * n));
        }
    });
    drop((honest, rt));
    server.finish();
}

roles! { "server" => server, "client" => client }
