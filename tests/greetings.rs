//! What a server says to a client that binds: if it cannot, the client is told why; and until it was read, it counts for
//! that client.
#[macro_use]
mod common;
#[path = "common/raw.rs"]
mod raw;

use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::fs::chown;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;

use common::{Names, Process, runtime, say, until_told_to_end, wait_for, watchdog};
use raw::{Bound, HELLO, Shown};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Resource, Rlimit, geteuid, getrlimit, setrlimit};
use urpc::{ErrorKind, Runtime};
use urpc_channel::UnsealedWakePage;

/// Of nobody who could have more descriptors on their way than it may have.
const NOBODY: u32 = 65_534;

/// Has more descriptors of its user on their way than that may have, until it is told to have them read.
fn crowded(name: &str) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let current = Some(64);
    setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
    runtime(1).block_on(async {
        let _server = urpc::serve(name)
            .allow(|_| true)
            .method("one", |()| async { 1 })
            .bind()
            .unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        while raw::send(&ours, b"\0", &[null.as_fd(); 8]) {}
        say("ready", "");
        common::hear();
        drop(theirs);
        say("done", "");
        urpc::unblock(until_told_to_end).await;
    });
}

#[test]
fn who_cannot_be_greeted_just_now_is_told_so_and_has_done_nothing_wrong() {
    let _watch = watchdog();
    if !geteuid().is_root() {
        return; // nobody else can start a process of another user
    }
    let names = Names::new();
    chown(names.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let name = names.name("s");
    let mut server = Process::start_with("crowded", &name, |command| {
        command.uid(NOBODY).gid(NOBODY);
    });
    let connect = || async { urpc::connect(&name).allow(|_| true).await };
    runtime(1).block_on(async {
        for _ in 0..10 {
            let error = connect().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Overloaded, "{error}");
            assert!(error.to_string().contains("just now"), "{error}");
        }
        server.tell("");
        server.expect("done");
        let peer = connect().await.unwrap();
        assert_eq!(urpc::call::<i32>(&peer, "one", ()).await, Ok(1));
    });
    server.finish();
}

/// Has room for two channels of each client.
fn small(name: &str) {
    let rt = Runtime::builder().processors(1).max_clients(4).build();
    rt.unwrap().block_on(async {
        let _server = urpc::serve(name).bind().unwrap();
        say("ready", "");
        urpc::unblock(until_told_to_end).await;
    });
}

/// A client that leaves, and its socket open, when it has its greeting. Returns when the server has seen that.
fn left_unread(name: &str) -> UnixStream {
    let socket = UnixStream::connect(name).unwrap();
    let wakes = UnsealedWakePage::create().unwrap();
    assert!(Shown::new().say_hello(Some(&wakes), &socket, &[]));
    let until = |flags| {
        poll(&mut [PollFd::new(&socket, flags)], None).unwrap();
    };
    until(PollFlags::IN);
    socket.shutdown(Shutdown::Write).unwrap();
    until(PollFlags::empty()); // it hangs up
    socket
}

#[test]
fn a_closed_channel_counts_until_its_greeting_is_read_or_its_client_has_let_go_of_it() {
    let _watch = watchdog();
    let names = Names::new();
    let name = names.name("s");
    let server = Process::start("small", &name);
    let (first, second) = (left_unread(&name), left_unread(&name));
    for _ in 0..20 {
        assert!(Bound::connect(&name).is_none(), "two wait to be read");
    }
    let (_, kind, _, fds) = raw::receive(&first).expect("its greeting");
    assert_eq!((kind, fds.len()), (HELLO, 2));
    let mut third = None;
    wait_for("the place of who has read it", || {
        third = Bound::connect(&name);
        third.is_some()
    });
    assert!(Bound::connect(&name).is_none());
    drop(second);
    wait_for("the place of who is gone", || {
        Bound::connect(&name).is_some()
    });
    server.finish();
}

roles! { "crowded" => crowded, "small" => small }
