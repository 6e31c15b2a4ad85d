//! System calls that fail: the n-th of each kind in each thread of a server, or of a client, by `strace`, while that
//! client binds, calls, waits and leaves. It gets what it asked for or an error with a kind; both processes live, the
//! next client is served, and neither holds more than before.
//!
//! `URPC_FAULTS=12 cargo test --release --test faults -- --nocapture` has the first twelve of each kind fail, one after
//! the other; without it, the first ones.
#[macro_use]
mod common;
#[path = "common/inject.rs"]
mod inject;
#[path = "common/state.rs"]
mod state;

use std::fs::read_to_string;
use std::time::Duration;

use common::{Names, Process, runtime, say, serve, wait_for, watchdog_of};
use inject::{Injected, MMAP};
use state::{Held, until_back_at};
use urpc::{ErrorKind, Runtime};

/// What binding, resting and donating ask the kernel for, and how that fails. Not `futex`: `strace` cannot tell waits
/// from wakes, and a wake that fails, which the kernel's never do, is a lock of std's that nobody gets any more.
const CALLS: [(&str, &str); 39] = [
    ("socket", "EMFILE"),
    ("connect", "EINTR"),
    ("connect", "EAGAIN"),
    ("accept4", "EMFILE"),
    ("accept4", "ENOMEM"),
    ("getsockopt", "ENOBUFS"),
    ("setsockopt", "ENOMEM"),
    ("ioctl", "ENOMEM"),
    ("pidfd_open", "EMFILE"),
    ("poll", "EINTR"),
    ("poll", "ENOMEM"),
    ("ppoll", "EINTR"),
    ("ppoll", "ENOMEM"),
    ("recvmsg", "EINTR"),
    ("recvmsg", "ENOMEM"),
    ("recvfrom", "EINTR"),
    ("recvfrom", "ENOMEM"),
    ("sendmsg", "EINTR"),
    ("sendmsg", "ENOMEM"),
    ("sendto", "EINTR"),
    ("sendto", "ENOMEM"),
    ("memfd_create", "EMFILE"),
    ("memfd_create", "ENOMEM"),
    ("ftruncate", "ENOSPC"),
    ("fallocate", "ENOSPC"),
    ("fcntl", "ENOMEM"),
    ("fstatfs", "ENOMEM"),
    ("fstat", "ENOMEM"),
    ("lseek", "ENOMEM"),
    (MMAP, "ENOMEM"),
    ("madvise", "ENOMEM"),
    ("epoll_ctl", "ENOSPC"),
    ("epoll_ctl", "ENOMEM"),
    ("epoll_pwait", "EINTR"),
    ("epoll_pwait", "ENOMEM"),
    ("clone3", "EAGAIN"),
    ("futex_waitv", "EINTR"),
    ("futex_waitv", "ENOMEM"),
    ("sched_setaffinity", "EINVAL"),
];

/// How many of each kind fail.
fn times() -> u32 {
    let said = std::env::var("URPC_FAULTS").ok();
    said.map_or(1, |said| said.parse().expect("a number"))
}

fn server(argument: &str) {
    serve(argument, |server, _| {
        server.method("later", |bytes: Vec<u8>| async move {
            urpc::yield_now().await;
            bytes.len()
        })
    });
}

/// Visits `NAME` once for each line of its input, and says how that ended.
fn client(name: &str) {
    let rt = runtime(1);
    // Its reserve worker is started when it is first needed, which may be between two visits.
    let (done, is_done) = std::sync::mpsc::channel();
    drop(rt.spawn(async move { done.send(()) }));
    is_done.recv().unwrap();
    say("ready", "");
    common::for_each_line(|_| match visit(&rt, name) {
        Ok(()) => say("ended", "well"),
        Err(error) => say("ended", format!("{:?}: {error}", error.kind())),
    });
}

/// Binds, calls, waits a moment, calls again, leaves.
fn visit(rt: &Runtime, name: &str) -> Result<(), urpc::Error> {
    rt.block_on(async {
        let peer = urpc::connect(name).await?;
        for bytes in [10, 5000] {
            let call = urpc::call::<usize>(&peer, "later", vec![7u8; bytes]);
            assert_eq!(call.timeout(Duration::from_secs(1)).await?, bytes);
            urpc::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    })
}

/// The kinds of errors that a fault may become.
fn is_typed(ended: &str) -> bool {
    use ErrorKind::*;
    let kinds = [Handshake, Overloaded, System, Call, NotAllowed, NoServer];
    let kind = ended.split(':').next();
    kinds.iter().any(|of| kind == Some(&format!("{of:?}")))
}

/// Waits until neither has a channel left.
fn until_alone(pids: [u32; 2]) {
    wait_for("the last channel to be gone", || {
        let alone = |pid| Held::by(pid).is_some_and(|held| held.mappings <= 1);
        pids.into_iter().all(alone)
    });
}

fn calls_fail(of_server: bool) {
    let _watch = watchdog_of(Duration::from_secs(100 + 200 * u64::from(times())));
    if !inject::is_there() {
        println!("skipped: there is no strace");
        return;
    }
    for processors in [1, 0] {
        let names = Names::new();
        let name = names.name("s");
        let server = Process::start("server", &format!("{processors} {name}"));
        let mut client = Process::start("client", &name);
        let pids = [server.pid(), client.pid()];
        let mut visit = || {
            client.tell("visit");
            client.expect("ended")
        };
        for _ in 0..3 {
            assert_eq!(visit(), "well");
        }
        until_alone(pids);
        let before = pids.map(|pid| Held::by(pid).unwrap());
        let pid = pids[usize::from(!of_server)];
        let (mut faults, mut told, mut kinds) = (0, 0, Vec::new());
        for what in CALLS {
            for nth in 1..=times() {
                let log = names.path().join("log");
                let injected = Injected::into(pid, what, nth, &log);
                let ended = visit();
                injected.end();
                assert!(
                    ended == "well" || is_typed(&ended),
                    "{what:?} {nth}: {ended}"
                );
                told += u32::from(ended != "well");
                // Whatever failed, the next one is served.
                assert_eq!(visit(), "well", "after {what:?} {nth}");
                if !read_to_string(&log).unwrap().contains("(INJECTED)") {
                    break;
                }
                faults += 1;
                kinds.push(what.0);
            }
        }
        kinds.dedup();
        println!(
            "{processors} processors: {faults} faults, {told} visits ended with one, in {kinds:?}"
        );
        for needed in [
            MMAP,
            "madvise",
            "memfd_create",
            "sendmsg",
            "recvmsg",
            "epoll_ctl",
            "epoll_pwait",
        ] {
            assert!(kinds.contains(&needed), "no {needed} failed");
        }
        for (pid, before) in pids.into_iter().zip(before) {
            until_back_at(pid, before, 4 << 20);
        }
        client.finish();
        server.finish();
    }
}

#[test]
fn any_system_call_of_a_server_may_fail() {
    calls_fail(true);
}

#[test]
fn any_system_call_of_a_client_may_fail() {
    calls_fail(false);
}

roles! { "server" => server, "client" => client }
