//! What a server says to a client that binds: if it cannot, the client is told why; and until it was read, it counts for
//! that client.
#[macro_use]
mod common;
#[path = "common/raw.rs"]
mod raw;

use std::fs;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::fs::chown;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::{Names, Process, runtime, say, until_told_to_end, wait_for, watchdog};
use raw::{Bound, HELLO, Shown};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{RecvFlags, recv};
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
        let server = urpc::serve(name).method("one", |()| async { 1 });
        let _server = server.bind().unwrap();
        say("ready", "");
        urpc::unblock(until_told_to_end).await;
    });
}

/// Makes what the keeper of a process asks of its epolls take so long. `None` without a strace that may do that.
fn slow_keeper(pid: u32, time: Duration) -> Option<Child> {
    let is_keeper = |thread: &PathBuf| {
        fs::read_to_string(thread.join("comm")).is_ok_and(|name| name.trim() == "urpc-keeper")
    };
    let mut keeper = None;
    wait_for("the keeper to have its name", || {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let mut threads = threads.map(|thread| thread.unwrap().path());
        keeper = threads.find(is_keeper);
        keeper.is_some()
    });
    let keeper = keeper?;
    let mut strace = Command::new("strace")
        .args(["-qq", "-e", "trace=epoll_ctl", "-e"])
        .arg(format!("inject=epoll_ctl:delay_exit={}", time.as_micros()))
        .args(["-o", "/dev/null", "-p"])
        .arg(keeper.file_name().unwrap())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut is_there = false;
    wait_for("strace", || {
        let status = fs::read_to_string(keeper.join("status")).unwrap();
        is_there = !status.contains("TracerPid:\t0\n");
        is_there || strace.try_wait().unwrap().is_some()
    });
    is_there.then_some(strace)
}

/// A client that calls before it is greeted, and breaks the protocol when it has been rung for that and the server
/// watches it, but has not greeted it yet.
fn closed_ungreeted(name: &str, time: Duration) {
    let socket = UnixStream::connect(name).unwrap();
    let wakes = UnsealedWakePage::create().unwrap();
    let shown = Shown::new();
    let slot = |index: u64, kind: u64| {
        let at = 4096 + 64 * index as usize;
        let header = (index + 1) | kind << 32;
        shown.outbox.word(at).store(header, Ordering::Release);
    };
    slot(0, 1);
    assert!(shown.say_hello(Some(&wakes), &socket, &[]));
    assert!(raw::ring(&socket));
    let mut first = [0];
    recv(&socket, &mut first, RecvFlags::PEEK).unwrap();
    if first != [1] {
        return; // no ring: it was greeted too soon
    }
    std::thread::sleep(time + time / 2);
    slot(1, 0xff);
    let _ = raw::ring(&socket);
    poll(&mut [PollFd::new(&socket, PollFlags::empty())], None).unwrap(); // it hangs up
    std::thread::sleep(3 * time);
}

#[test]
fn a_channel_that_ends_before_its_greeting_keeps_no_place() {
    let _watch = watchdog();
    let names = Names::new();
    let name = names.name("s");
    let server = Process::start("small", &name);
    let time = Duration::from_millis(200);
    let Some(mut strace) = slow_keeper(server.pid(), time) else {
        println!("skipped: there is no strace");
        return;
    };
    for _ in 0..2 {
        closed_ungreeted(&name, time);
    }
    strace.kill().unwrap();
    strace.wait().unwrap();
    wait_for("a place", || Bound::connect(&name).is_some());
    server.finish();
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
