//! What peers can make a process hold has limits: for all of them, and for any one, so that the others always have
//! something left. Beyond a limit comes an error, at once, that says that nothing has run.
#[macro_use]
mod common;
#[path = "common/kit.rs"]
mod kit;
#[path = "common/raw.rs"]
mod raw;
#[path = "common/state.rs"]
mod state;

use std::future::pending;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use common::{Names, Process, runtime, say, until_told_to_end, wait_for, watchdog};
use futures::future::{join_all, poll_immediate};
use kit::Hostile;
use raw::{Bound, HELLO, REFUSAL, Shown, VERSION, frame, hello};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, dumpable_behavior, getrlimit, setrlimit,
};
use serde::{Deserialize, Serialize};
use state::{Held, cpu_time};
use urpc::{Call, CallErrorKind, ErrorKind, Executed, Peer, Runtime};

/// Numbers of the server's procedures.
const HOLD: u16 = 1;

/// Values in values.
#[derive(Serialize, Deserialize)]
struct Tree(Vec<Tree>);

impl Tree {
    fn depth(&self) -> usize {
        1 + self.0.iter().map(Self::depth).max().unwrap_or(0)
    }

    fn of_depth(depth: usize) -> Self {
        (1..depth).fold(Tree(vec![]), |inner, _| Tree(vec![inner]))
    }
}

/// The argument is `NAME LIMITS`, these being one of the words below, or how many descriptors there are.
fn server(argument: &str) {
    let (name, limits) = argument.split_once(' ').unwrap();
    let mut builder = Runtime::builder().processors(1);
    builder = match limits {
        "default" => builder,
        "channels" => builder.max_clients(4),
        "unbound" => builder.max_unbound(8),
        "serving" => builder.max_serving(8),
        "bytes" => builder.max_bytes(1_000_000).client_share(60),
        "one channel" => builder.max_calls(4).max_payload(1000).max_window(0),
        "payload" => builder.max_payload(20),
        "nesting" => builder.max_nesting(20),
        "undumpable" => builder.undumpable(true),
        descriptors => {
            let current = Some(descriptors.parse().unwrap());
            let maximum = current;
            setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
            builder
        }
    };
    builder.build().unwrap().block_on(async {
        let _server = urpc::serve(name)
            .method("len", |bytes: Vec<u8>| async move { bytes.len() })
            .method("hold", |_: Vec<u8>| pending::<()>())
            .method("text", |len: usize| async move { "x".repeat(len) })
            .method("depth", |tree: Tree| async move { tree.depth() })
            .method("dumpable", |()| async {
                dumpable_behavior().unwrap() == DumpableBehavior::Dumpable
            })
            .bind()
            .unwrap();
        say("ready", "");
        urpc::unblock(until_told_to_end).await;
    });
}

/// Calls `NAME` with so many bytes, once for each line of its input, and says how that ended.
fn client(name: &str) {
    let rt = runtime(1);
    say("ready", "");
    common::for_each_line(|bytes| {
        let begun = Instant::now();
        let ended = rt.block_on(async {
            let peer = urpc::connect(name).await?;
            Ok::<_, urpc::Error>(len(&peer, bytes.parse().unwrap()).await?)
        });
        let ended = ended.map_err(|error| error.kind());
        say("ended", format!("{ended:?} after {:?}", begun.elapsed()));
    });
}

fn start(names: &Names, limits: &str) -> (Process, String) {
    let name = names.name("s");
    let process = Process::start("server", &format!("{name} {limits}"));
    (process, name)
}

fn connect(name: &str) -> Result<Peer, urpc::Error> {
    urpc::block_on(async { urpc::connect(name).await })
}

fn len(peer: &Peer, bytes: usize) -> Call<usize> {
    urpc::call(peer, "len", vec![7u8; bytes])
}

fn hold(peer: &Peer, bytes: usize) -> Call<()> {
    urpc::call(peer, "hold", vec![7u8; bytes])
}

/// Another process, which is not refused what this one is.
fn is_served(client: &mut Process) -> Duration {
    client.tell("100");
    let ended = client.expect("ended");
    let (what, after) = ended.split_once(" after ").unwrap();
    assert_eq!(what, "Ok(100)");
    // As `Debug` of a duration has it.
    let number: f64 = after
        .trim_end_matches(['s', 'm', 'µ', 'n'])
        .parse()
        .unwrap();
    let unit = match after {
        after if after.ends_with("ms") => 1e-3,
        after if after.ends_with("µs") => 1e-6,
        _ => 1.0,
    };
    Duration::from_secs_f64(number * unit)
}

fn is_overloaded(ended: Result<impl Sized, urpc::CallError>, word: &str) {
    let Err(error) = ended else {
        panic!("it was served")
    };
    let (kind, executed) = (error.kind(), error.executed());
    let overloaded = (CallErrorKind::Overloaded, Executed::No);
    assert_eq!((kind, executed), overloaded, "{error}");
    assert!(error.to_string().contains(word), "{error}");
}

#[test]
fn one_client_gets_half_of_the_channels_and_what_it_closes_is_there_again() {
    let _watch = watchdog();
    let names = Names::new();
    let (server, name) = start(&names, "channels");
    let mut other = Process::start("client", &name);
    let first = connect(&name).unwrap();
    let second = connect(&name).unwrap();
    for _ in 0..100 {
        let error = connect(&name).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Overloaded, "{error}");
        assert!(error.to_string().contains("max_clients"), "{error}");
    }
    is_served(&mut other);
    drop(first);
    wait_for("room for another one", || connect(&name).is_ok());
    assert_eq!(urpc::block_on(len(&second, 10)), Ok(10));
    other.finish();
    drop(second);
    server.finish();
}

/// What becomes of a connection that says nothing: the version and the reason of its refusal, if that has come.
fn refused(socket: &UnixStream) -> Option<u8> {
    let mut header = [0; 12];
    let flags = rustix::net::RecvFlags::DONTWAIT;
    let (_, read) = rustix::net::recv(socket, &mut header, flags).ok()?;
    let is_refusal = read == 12 && header[..4] == *b"urpc" && header[6] == REFUSAL;
    assert!(is_refusal, "{header:?}");
    Some(header[7])
}

#[test]
fn connections_that_say_nothing_keep_nobody_out() {
    let _watch = watchdog();
    let names = Names::new();
    let (server, name) = start(&names, "unbound");
    let mut other = Process::start("client", &name);
    let silent: Vec<_> = (0..50)
        .map(|_| UnixStream::connect(&name).unwrap())
        .collect();
    is_served(&mut other);
    let overloaded = Some(1);
    let mut refusals = 0;
    wait_for("all but four to be refused", || {
        let reasons = silent.iter().map(refused);
        refusals += reasons.filter(|reason| *reason == overloaded).count();
        refusals == 50 - 4
    });
    is_served(&mut other);
    other.finish();
    server.finish();
}

#[test]
fn a_call_too_many_is_refused_before_it_is_begun() {
    let _watch = watchdog();
    let names = Names::new();
    let (server, name) = start(&names, "serving");
    let mut other = Process::start("client", &name);
    runtime(1).block_on(async {
        let peer = urpc::connect(&name).await.unwrap();
        let mut held = join_all((0..4).map(|_| hold(&peer, 1)));
        assert!(poll_immediate(&mut held).await.is_none());
        is_overloaded(hold(&peer, 1).await, "max_serving");
        is_overloaded(len(&peer, 1).await, "max_serving");
        // There is a half for others.
        let other = urpc::unblock(move || {
            is_served(&mut other);
            other
        });
        other.await.finish();
        drop(held);
        while let Err(error) = len(&peer, 1).await {
            assert_eq!(error.kind(), CallErrorKind::Overloaded, "{error}");
        }
    });
    server.finish();
}

#[test]
fn bytes_of_calls_that_are_not_answered_yet_are_limited_in_all() {
    let _watch = watchdog();
    let names = Names::new();
    let (server, name) = start(&names, "bytes");
    let mut other = Process::start("client", &name);
    runtime(1).block_on(async {
        let peer = urpc::connect(&name).await.unwrap();
        let mut held = join_all((0..2).map(|_| hold(&peer, 250_000)));
        assert!(poll_immediate(&mut held).await.is_none());
        for bytes in [110_000, 1_000_000] {
            is_overloaded(len(&peer, bytes).await, "max_bytes");
        }
        assert_eq!(
            len(&peer, 90_000).await,
            Ok(90_000),
            "there are 600,000 for one"
        );
        assert_eq!(len(&peer, 40).await, Ok(40), "small ones do not count");
        let other = urpc::unblock(move || {
            is_served(&mut other);
            other
        });
        other.await.finish();
        drop(held);
        while let Err(error) = len(&peer, 550_000).await {
            assert_eq!(error.kind(), CallErrorKind::Overloaded, "{error}");
        }
        // Calls that were given up half sent leave nothing.
        for _ in 0..20 {
            assert!(poll_immediate(len(&peer, 500_000)).await.is_none());
        }
        while let Err(error) = len(&peer, 600_000 - 3).await {
            assert_eq!(error.kind(), CallErrorKind::Overloaded, "{error}");
        }
    });
    server.finish();
}

#[test]
fn the_limits_of_a_channel_are_the_smaller_ones_of_its_sides() {
    let _watch = watchdog();
    let names = Names::new();
    let (server, name) = start(&names, "one channel");
    runtime(1).block_on(async {
        let peer = urpc::connect(&name).await.unwrap();
        assert_eq!(len(&peer, 998).await, Ok(998));
        let error = len(&peer, 999).await.unwrap_err();
        assert_eq!(error.kind(), CallErrorKind::TooLarge, "{error}");
        let mut held = join_all((0..4).map(|_| hold(&peer, 1)));
        assert!(poll_immediate(&mut held).await.is_none());
        // The fifth one waits at home.
        let fifth = len(&peer, 1).timeout(Duration::from_millis(20)).await;
        assert_eq!(fifth.unwrap_err().executed(), Executed::No);
    });
    server.finish();
}

#[test]
fn whoever_takes_few_bytes_gets_the_status_of_what_does_not_cross_and_the_beginning_of_its_text() {
    let _watch = watchdog();
    let names = Names::new();
    let (server, name) = start(&names, "payload");
    runtime(1).block_on(async {
        let peer = urpc::connect(&name).await.unwrap();
        let text = |len: usize| urpc::call::<String>(&peer, "text", len);
        assert_eq!(text(19).await.unwrap().len(), 19);
        let error = text(100).await.unwrap_err();
        let said = (error.kind(), error.executed());
        assert_eq!(said, (CallErrorKind::ReplyTooLarge, Executed::Yes));
        assert!(error.to_string().contains("101 bytes"), "{error}");
        let error = urpc::call::<usize>(&peer, "len", 5u8).await.unwrap_err();
        assert_eq!(error.kind(), CallErrorKind::UndecodableArguments, "{error}");
        assert_eq!(text(19).await.unwrap().len(), 19);
    });
    server.finish();
}

#[test]
fn values_that_lie_too_deep_in_one_another_are_an_error_and_not_the_end_of_the_server() {
    let _watch = watchdog();
    let names = Names::new();
    let (server, name) = start(&names, "default");
    let other = names.name("nesting");
    let strict = Process::start("server", &format!("{other} nesting"));
    runtime(1).block_on(async {
        let peer = urpc::connect(&name).await.unwrap();
        let depth = |peer: &Peer, depth| urpc::call::<usize>(peer, "depth", Tree::of_depth(depth));
        // Each is a struct and a list.
        assert_eq!(depth(&peer, 64).await, Ok(64));
        let error = depth(&peer, 65).await.unwrap_err();
        assert_eq!(error.kind(), CallErrorKind::UndecodableArguments, "{error}");
        assert!(error.to_string().contains("128 levels"), "{error}");
        // Nobody encodes this: four million lists of one list each.
        let bomb = serde_bytes::Bytes::new(&[1; 4_000_000]);
        let error = urpc::call::<usize>(&peer, "depth", bomb).await.unwrap_err();
        assert_eq!(error.kind(), CallErrorKind::UndecodableArguments, "{error}");
        let strict = urpc::connect(&other).await.unwrap();
        assert_eq!(depth(&strict, 10).await, Ok(10));
        assert!(depth(&strict, 11).await.is_err());
        assert_eq!(len(&peer, 10).await, Ok(10));
    });
    server.finish();
    strict.finish();
}

#[test]
fn a_large_call_takes_no_more_memory_than_has_come_of_it() {
    let _watch = watchdog();
    let names = Names::new();
    let (server, name) = start(&names, "default");
    let before = Held::by(server.pid()).unwrap();
    // Each begins two calls of four MiB, sends 64 bytes of each, and then nothing.
    let stalled: Vec<_> = (0..50)
        .map(|_| {
            let mut hostile = Hostile::connect(&name).unwrap();
            hostile.piece(0, HOLD, (64, 4 << 20, 0));
            hostile.piece(1, HOLD, (64, 4 << 20, 0));
            hostile.ring();
            wait_for("both to be taken", || hostile.taken() == 2);
            hostile
        })
        .collect();
    let now = Held::by(server.pid()).unwrap();
    let each = now.rss.saturating_sub(before.rss) / stalled.len() as u64;
    assert!(each < 1 << 20, "{each} bytes for each client");
    drop(stalled);
    server.finish();
}

#[test]
fn descriptors_that_nobody_asked_for_are_closed_and_never_kept() {
    let _watch = watchdog();
    let names = Names::new();
    let (server, name) = start(&names, "default");
    let shown = Shown::new();
    let (outbox, page) = (shown.outbox.fd().unwrap(), shown.page.fd());
    drop(Hostile::connect(&name).unwrap());
    wait_for("the first client to be gone", || {
        Held::by(server.pid()).is_some_and(|held| held.mappings <= 1)
    });
    let before = Held::by(server.pid()).unwrap();
    let whole = frame(VERSION, HELLO, &hello(&[]));
    for round in 0..200 {
        let socket = UnixStream::connect(&name).unwrap();
        let many = vec![page; 1 + round % 8];
        // All at once, or some with each byte.
        if round % 2 == 0 {
            raw::send(&socket, &whole, &many);
        } else {
            for byte in whole.chunks(1) {
                if !raw::send(&socket, byte, &many) {
                    break;
                }
            }
        }
        let fds = [outbox, page, page, page, page, page, page, page];
        raw::send(&socket, &whole[..1], &fds);
        wait_for("it to be refused", || raw::is_hung_up(&socket));
    }
    state::until_back_at(server.pid(), before, 1 << 20);
    // A stranger's descriptor where the outbox should be.
    let socket = UnixStream::connect(&name).unwrap();
    let null = std::fs::File::open("/dev/null").unwrap();
    raw::send(&socket, &whole, &[null.as_fd(), null.as_fd()]);
    assert!(raw::refusal(&socket).contains("not a memfd"));
    server.finish();
}

/// What a process without a descriptor left does to a crowd.
#[test]
fn two_thousand_connectors_keep_nobody_out_of_a_server_with_64_descriptors() {
    let _watch = watchdog();
    let names = Names::new();
    let (server, name) = start(&names, "64");
    let mut honest = Process::start("client", &name);
    is_served(&mut honest);
    let before = Held::by(server.pid()).unwrap();
    // Every other one says nothing; the rest binds, or tries to.
    let (mut silent, mut bound) = (Vec::new(), Vec::new());
    for _ in 0..1000 {
        silent.push(UnixStream::connect(&name).unwrap());
        bound.extend(Bound::connect(&name));
    }
    assert!((1..=20).contains(&bound.len()), "{} channels", bound.len());
    let while_there = is_served(&mut honest);
    println!("bound within {while_there:?} while they were there");
    let worked = cpu_time(server.pid());
    std::thread::sleep(Duration::from_millis(500));
    let worked = cpu_time(server.pid()) - worked;
    assert!(worked < Duration::from_millis(250), "it spins: {worked:?}");
    drop((silent, bound));
    let afterwards = is_served(&mut honest);
    println!("bound within {afterwards:?} afterwards");
    state::until_back_at(server.pid(), before, 4 << 20);
    honest.finish();
    server.finish();
}

#[test]
fn a_server_without_any_descriptor_left_turns_a_crowd_away_and_does_not_spin() {
    let _watch = watchdog();
    let names = Names::new();
    let name = names.name("s");
    let mut server = Process::start("exhausted", &name);
    let crowd: Vec<_> = (0..100)
        .map(|_| UnixStream::connect(&name).unwrap())
        .collect();
    let error = connect(&name).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Overloaded, "{error}");
    wait_for("the crowd to be told so", || {
        crowd.iter().all(raw::is_hung_up)
    });
    // Now not even the spare one is left.
    server.tell("no spare");
    server.expect("done");
    let crowd: Vec<_> = (0..100)
        .map(|_| UnixStream::connect(&name).unwrap())
        .collect();
    let worked = cpu_time(server.pid());
    std::thread::sleep(Duration::from_millis(500));
    let worked = cpu_time(server.pid()) - worked;
    assert!(worked < Duration::from_millis(250), "it spins: {worked:?}");
    server.tell("let go");
    server.expect("done");
    drop(crowd);
    wait_for("an honest client to be served", || {
        connect(&name).is_ok_and(|peer| urpc::block_on(len(&peer, 10)) == Ok(10))
    });
    server.finish();
}

/// Serves `NAME`, and takes all descriptors that this process may have, and then even those that it has.
fn exhausted(name: &str) {
    let may_have = |n| {
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        let current = Some(n);
        setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
    };
    may_have(64);
    let rt = runtime(1);
    let _server = rt.block_on(async {
        urpc::serve(name)
            .method("len", |bytes: Vec<u8>| async move { bytes.len() })
            .bind()
            .unwrap()
    });
    let null = std::fs::File::open("/dev/null").unwrap();
    let mut taken: Vec<_> = std::iter::from_fn(|| null.try_clone().ok()).collect();
    say("ready", "");
    common::for_each_line(|line| {
        match line {
            "no spare" => may_have(3),
            _ => {
                taken.clear();
                may_have(64);
            }
        }
        say("done", "");
    });
}

#[test]
fn a_process_can_be_kept_from_being_looked_into() {
    let _watch = watchdog();
    let names = Names::new();
    for (limits, dumpable) in [("default", true), ("undumpable", false)] {
        let (server, name) = start(&names, limits);
        let peer = connect(&name).unwrap();
        let said = urpc::block_on(urpc::call::<bool>(&peer, "dumpable", ()));
        assert_eq!(said, Ok(dumpable));
        server.finish();
    }
}

roles! { "server" => server, "client" => client, "exhausted" => exhausted }
