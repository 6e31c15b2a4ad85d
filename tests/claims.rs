//! What a peer says of processors is a claim. It can grant what it does not lend, return what it has not had,
//! and call itself awake or asleep as it likes: that wastes its own calls, and no more than a little time of
//! those who believe it.
#[macro_use]
mod common;
#[path = "common/raw.rs"]
mod raw;

use std::os::unix::net::UnixListener;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use common::{Names, Process, runtime, say, serve, until_told_to_end, wait_for, watchdog};
use raw::{Bound, is_hung_up};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use urpc::CallErrorKind;
use urpc_channel::{Body, Channel, Kind, Message, WakePage};

/// Clients that grant without sleeping. Each costs some descriptors on both sides.
const CLIENTS: u64 = 1000;
const DESCRIPTORS_EACH: u64 = 8;
/// How often each of them grants.
const GRANTS: u32 = 20;
/// How often a liar is called.
const CALLS: u32 = 20;
/// What a landing answers when it is ready: the sequence before the first grant.
const OPENING: u32 = 1;

/// Landings that are inside a handler, the most there were at once, and whether they are to go on.
static INSIDE: (Mutex<(usize, usize, bool)>, Condvar) = (Mutex::new((0, 0, false)), Condvar::new());

fn server(argument: &str) {
    serve(argument, |server, _| {
        server
            .method("hold", |()| async {
                if std::thread::current().name() != Some("urpc-landing") {
                    return;
                }
                let mut inside = INSIDE.0.lock().unwrap();
                inside.0 += 1;
                inside.1 = inside.1.max(inside.0);
                let released = INSIDE.1.wait_while(inside, |(.., released)| !*released);
                released.unwrap().0 -= 1;
            })
            .method("most", |()| async { INSIDE.0.lock().unwrap().1 })
            .method("release", |()| async {
                INSIDE.0.lock().unwrap().2 = true;
                INSIDE.1.notify_all();
            })
    });
}

/// As many clients as there may be descriptors for.
fn clients() -> u64 {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let all = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, all).expect("a process may use what it is allowed");
    maximum.map_or(CLIENTS, |most| CLIENTS.min(most / DESCRIPTORS_EACH))
}

/// Calls `hold`, and says that a processor is lent for it.
fn grant(channel: &Channel, wakes: &WakePage) {
    let sequence = answered(channel) + 1;
    let hold = Message {
        kind: Kind::Call,
        id: sequence,
        procedure: 0,
        deadline_ms: 0,
        body: Body::EMPTY,
    };
    channel.send(hold).expect("an open channel");
    let (word, wake) = (channel.outbox().grant(0).grant, wakes.lent_to_peer(0).grant);
    raw::say(word, wake, sequence << 1 | 1);
}

fn answered(channel: &Channel) -> u32 {
    channel.inbox().returned(0).load(Relaxed)
}

/// The landing is not here: it answered what it was granted last.
fn is_away(channel: &Channel) -> bool {
    let granted = channel.outbox().grant(0).grant.load(Relaxed) >> 1;
    answered(channel) == granted.max(OPENING)
}

#[test]
fn a_thousand_clients_that_grant_without_sleeping_run_no_more_landings_than_there_are_cpus() {
    let _w = watchdog();
    let names = Names::new();
    let name = names.name("s");
    let cpus = urpc_donate::allowed_cpus();
    let clients = clients();
    let process = Process::start("server", &format!("0 {name}"));
    let channels: Vec<_> = (0..clients)
        .map(|_| Bound::connect(&name).expect("it binds").speak())
        .collect();
    let channels = || {
        channels
            .iter()
            .map(|(channel, _, (.., wakes))| (channel, wakes))
    };
    let all_away = || channels().all(|(channel, _)| is_away(channel));
    wait_for("all landings", all_away);

    let rt = runtime(1);
    let peer = rt.block_on(urpc::connect(&name)).unwrap();
    let most = || rt.block_on(urpc::call::<usize>(&peer, "most", ())).unwrap();
    let away = || channels().filter(|(channel, _)| is_away(channel));
    let outside = clients as usize - cpus;
    // More than once, since a call may also be served by the thread that stands in, which does not stay inside.
    while most() < cpus {
        away().for_each(|(channel, wakes)| grant(channel, wakes));
        wait_for("the others to be turned away", || away().count() >= outside);
    }
    // Those that are inside do not answer. All others do, each time, since they are turned away.
    wait_for("the last ones to go", || away().count() == outside);
    for _ in 1..GRANTS {
        away().for_each(|(channel, wakes)| grant(channel, wakes));
        wait_for("them to be turned away again", || away().count() == outside);
    }
    assert_eq!(most(), cpus);
    rt.block_on(urpc::call::<()>(&peer, "release", ())).unwrap();
    assert_eq!(most(), cpus);
    wait_for("those inside to come out", all_away);
    drop((peer, rt));
    process.finish();
}

/// Calls a liar, and an honest peer after each of these calls. The argument is both names.
fn client(argument: &str) {
    let (liar, honest) = argument.split_once(' ').unwrap();
    say("ready", "");
    let rt = runtime(1);
    let connect = |name| rt.block_on(urpc::connect(name)).unwrap();
    let (liar, honest) = (connect(liar), connect(honest));
    rt.block_on(async {
        for _ in 0..CALLS {
            let call = urpc::call::<()>(&liar, "most", ()).timeout(Duration::from_millis(5));
            assert_eq!(call.await.unwrap_err().kind(), CallErrorKind::Deadline);
            assert_eq!(urpc::call(&honest, "most", ()).await, Ok(0usize));
        }
    });
    say("lent", liar.stats().donations_given);
    say("returned", liar.stats().donations_returned);
    until_told_to_end();
}

/// Serves nobody, and does `lie` again and again while a client calls. Says how often that lent its processor
/// here, and got it back from here.
fn lied_to(mut lie: impl FnMut(&Bound) + Send) -> (u64, u64) {
    let names = Names::new();
    let (liar, honest) = (names.name("liar"), names.name("honest"));
    let listener = UnixListener::bind(&liar).unwrap();
    let other = Process::start("server", &format!("0 {honest}"));
    let mut client = Process::start("client", &format!("{liar} {honest}"));
    let (socket, _) = listener.accept().unwrap();
    let bound = Bound::accept(socket, &[("most", "")]).expect("it binds");
    let counts = std::thread::scope(|s| {
        s.spawn(|| {
            while !is_hung_up(&bound.socket) {
                lie(&bound);
                std::thread::yield_now();
            }
        });
        let [lent, returned] = ["lent", "returned"].map(|word| client.expect(word));
        client.finish();
        (lent.parse().unwrap(), returned.parse().unwrap())
    });
    other.finish();
    counts
}

fn presence(bound: &Bound, processors: u32, resting: u32) {
    bound.shown.page.word(0).store(processors, Relaxed);
    bound.shown.page.word(1).store(resting, Relaxed);
}

fn answer(bound: &Bound, sequence: u32) {
    let wake = bound.wakes.lent_to_us(0).returned;
    raw::say(bound.shown.outbox.returned(0), wake, sequence);
}

#[test]
fn a_peer_that_calls_itself_awake_and_is_not_has_its_own_calls_time_out() {
    let _w = watchdog();
    let (lent, returned) = lied_to(|bound| {
        answer(bound, OPENING);
        presence(bound, u32::MAX, 0);
    });
    assert_eq!(
        (lent, returned),
        (1, 0),
        "it seemed to be busy, and was lent one"
    );
}

#[test]
fn a_peer_that_takes_processors_and_gives_none_back_is_lent_no_second_one() {
    let _w = watchdog();
    let (lent, returned) = lied_to(|bound| {
        answer(bound, OPENING);
        presence(bound, 1, u32::MAX);
    });
    assert_eq!((lent, returned), (1, 0));
}

#[test]
fn a_peer_that_returns_unused_what_it_was_lent_is_lent_little() {
    let _w = watchdog();
    let (lent, _) = lied_to(|bound| {
        presence(bound, 1, 1);
        let granted = bound.inbox.grant(0).grant.load(Relaxed) >> 1;
        answer(bound, granted.max(OPENING));
    });
    // Once for each call, or a little more: nobody goes round and round with it.
    assert!((1..=10 * u64::from(CALLS)).contains(&lent), "{lent} lent");
}

#[test]
fn a_peer_that_returns_what_it_was_never_lent_keeps_no_donor() {
    let _w = watchdog();
    let mut forged = 0;
    let (lent, returned) = lied_to(|bound| {
        presence(bound, 1, 1);
        let granted = bound.inbox.grant(0).grant.load(Relaxed) >> 1;
        forged = 1 + forged % 1000;
        answer(
            bound,
            if granted == 0 {
                OPENING
            } else {
                granted + forged
            },
        );
    });
    assert_eq!((lent, returned), (1, 0));
}

roles! { "server" => server, "client" => client }
